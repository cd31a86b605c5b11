"""What is told of triggers over HTTP, and asked of them?"""

from __future__ import annotations

from typing import Literal

import msgspec

from swell.model.call import State
from swell.model.schedule import Missed
from swell.model.trigger import How


class TriggerRow(msgspec.Struct, frozen=True):
    """What calls a function by itself. Times in seconds since the epoch."""

    namespace: str
    app: str
    name: str
    """A schedule is called as its function."""
    kind: str
    """ "schedule"; or what its events come of: "http", "class", "files", "nats", "redis", "rows"."""
    schedule: str
    """As people read it: "0 9 * * * (Europe/Berlin)", "every 1 hour"; or what is read: "nats nats://broker ORDERS"."""
    missed: Missed | Literal[""]
    """What becomes of due times at which the server was not there; empty where there are none."""
    began_at: float
    """When it was deployed with this schedule, or with what it reads."""
    next_at: float | None = None
    """When it fires next; None: it is paused, or does not any more."""
    fired_at: float | None = None
    """When it last made a call, for whatever reason."""
    paused_at: float | None = None
    up: bool | None = None
    """Is its source reached? None: it has none, or nothing is read."""
    since: float | None = None
    """When it was reached, or lost."""
    waiting: int | None = None
    """Messages of its source that are not in the queue yet, as far as they were counted; None: it cannot tell."""
    oldest_at: float | None = None
    """When the oldest came about of those that are here and not in the queue; None: none is."""
    why: str = ""
    """What keeps it from that, or what came from being taken; of a schedule, from firing when it is due."""


class FiringRow(msgspec.Struct, frozen=True):
    """One time that a trigger made a call."""

    id: str
    """Of an event: empty where who asks may not see what its source brought."""
    due_at: float
    at: float
    """When its call was accepted."""
    how: How
    call: str
    """Id of the call; empty for who may not deploy the app."""
    state: State | Literal[""] = ""
    """Of the call; empty where that is not kept any more."""
    missed_from: float | None = None
    """Due times from this one on, up to this firing's own, were missed and have no call of their own."""


class Fired(msgspec.Struct, frozen=True):
    """A trigger made a call because somebody asked for it."""

    call: str


class Backfill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fire for due times that passed without it. Seconds since the epoch."""

    since: float
    until: float | None = None
    """None: now."""


class Backfilled(msgspec.Struct, frozen=True):
    """What came of that."""

    calls: tuple[str, ...]
    """Ids of the calls, in the order of their due times."""
    fired_before: int
    """Due times for which it had fired."""
