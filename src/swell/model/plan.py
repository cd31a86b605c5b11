"""What a decision says: actions with their why, waits with their why not, and when to look again."""

from __future__ import annotations

import msgspec

from swell.model.demand import Demand
from swell.model.gang import Seat
from swell.model.replica import Role


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Start one replica or template."""

    replica: str
    pool: str
    node: str
    role: Role
    why: str
    template: str | None = None
    seat: Seat | None = None
    """Of a gang: all of its members are in one plan."""
    gpus: tuple[str, ...] = ()
    """Ids of the devices that it gets, of those of its node."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Drain one replica or template, then end it; cut after `grace_s`."""

    replica: str
    reason: str
    grace_s: float
    why: str


Action = Start | Stop


class Wait(msgspec.Struct, frozen=True):
    """Something wanted that cannot be had now."""

    pool: str
    why_not: str


class Plan(msgspec.Struct, frozen=True):
    """One decision about some pools at one moment."""

    at: float
    pools: tuple[str, ...]
    """The pools it looked at."""
    demand: tuple[tuple[str, Demand], ...] = ()
    """The levels it was decided on: with the world before it, all that is needed to decide again."""
    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    look_again: tuple[tuple[str, float], ...] = ()
    """(pool, time): nothing need happen to that pool before then unless an event or demand says so."""
    moves: tuple[str, ...] = ()
    """Keys of workloads whose traffic goes from now on to the revision that follows."""
