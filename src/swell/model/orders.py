"""What control tells an engine, and what an engine says it has."""

from __future__ import annotations

import msgspec

from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.replica import Role
from swell.model.workload import Revision


class StartOrder(msgspec.Struct, frozen=True, tag="start"):
    """Make this replica exist. Repeating it changes nothing."""

    replica: str
    pool: str
    role: Role
    node: str
    revision: Revision
    template: str | None = None
    seat: Seat | None = None
    gpus: tuple[str, ...] = ()


class StopOrder(msgspec.Struct, frozen=True, tag="stop"):
    """Drain this replica, then end it; cut it after `grace_s`. Repeating it changes nothing."""

    replica: str
    reason: str
    grace_s: float
    node: str = ""


Order = StartOrder | StopOrder


class Inventory(msgspec.Struct, frozen=True):
    """Everything a runner has on one node, at one moment: the truth that `drive` works against."""

    node: str
    at: float
    epoch: int
    """Highest epoch of orders it has accepted."""
    replicas: tuple[ReplicaSeen, ...]


class BuildReport(msgspec.Struct, frozen=True):
    """Whether a revision's environment could be built and its module imported in it."""

    ok: bool
    error: str = ""
    """Code: "environment" (packages do not resolve or install), "import" (user code raised) or "internal"."""
    message: str = ""
    detail: str = ""
    """The installer's own words, or the traceback."""
