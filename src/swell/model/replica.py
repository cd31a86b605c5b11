"""One placed copy of a pool, and which phase may follow which."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from swell.model.gang import Seat

Role = Literal["serving", "template"]


class Phase(StrEnum):
    """Where a replica is in its life. The order of the members is the order of life."""

    PLANNED = "planned"
    """Committed by a plan; the engine has not said that it started."""
    STARTING = "starting"
    """A process exists; it loads and runs its start-up hooks."""
    READY = "ready"
    """Takes inputs (serving) or can be forked (template)."""
    DRAINING = "draining"
    """Finishes what it has; takes nothing new."""
    GONE = "gone"
    """Over, with a reason."""
    LOST = "lost"
    """Its engine no longer knows it."""


NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.PLANNED: frozenset({Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.GONE, Phase.LOST}),
    Phase.STARTING: frozenset({Phase.READY, Phase.DRAINING, Phase.GONE, Phase.LOST}),
    Phase.READY: frozenset({Phase.DRAINING, Phase.GONE, Phase.LOST}),
    Phase.DRAINING: frozenset({Phase.GONE, Phase.LOST}),
    Phase.GONE: frozenset(),
    Phase.LOST: frozenset(),
}
"""Life only goes forward. A report that would go back is late or repeated, and is ignored."""

LIVE = frozenset({Phase.PLANNED, Phase.STARTING, Phase.READY, Phase.DRAINING})
OVER = frozenset({Phase.GONE, Phase.LOST})


class Replica(msgspec.Struct, frozen=True):
    """One placed copy of a pool. Times are seconds since the epoch."""

    id: str
    """Unique for ever (`model/ids`)."""
    pool: str
    node: str
    role: Role
    phase: Phase
    planned_at: float
    template: str | None = None
    """Id of the template it is to be forked from; None = a fresh process."""
    ready_at: float | None = None
    pid: int | None = None
    address: str = ""
    """Where it listens: "unix:/path" or "tcp:host:port"; empty until ready and for templates."""
    rss_mib: float = 0.0
    timings_ms: tuple[tuple[str, float], ...] = ()
    """Start-up broken down, in order: e.g. (("order", .2), ("fork", 4.1), ("enter", .3), ("listen", .1))."""
    applied: tuple[str, ...] = ()
    """Limits and isolation that were really applied, in words ("memory 512 MiB (cgroup v1)")."""
    reason: str = ""
    """Why it is draining or gone: a code ("idle", "superseded", "crashed", "startup_timeout", …)."""
    grace_s: float | None = None
    """How long a drain may take before it is cut; None = this control did not order one."""
    seat: Seat | None = None
    """Of one that is in a gang."""
    gpus: tuple[str, ...] = ()
    """Ids of the devices that it has of its node's."""
    meeting: str = ""
    """Where others of its gang find it, once it is ready: "host:port"."""
    fork_refused: str = ""
    """Template: why it may not be forked any more (a failed probe); fresh processes are started instead."""

    @property
    def leads(self) -> bool:
        """It stands for what it is counted as: for itself, or for its gang."""
        return self.seat is None or self.seat.rank == 0

    def may_become(self, phase: Phase) -> bool:
        return phase in NEXT[self.phase]
