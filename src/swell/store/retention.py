"""What is kept, and for how long? The rules that every store follows alike."""

from __future__ import annotations

import msgspec

from swell.model.request import RequestRecord
from swell.model.workload import App, Workload

MINUTE_S = 60.0
"""Usage and counts are summed into rows of this length."""


class Keep(msgspec.Struct, frozen=True):
    """Bounds on what a store remembers."""

    history_days: float = 7.0
    """World events, usage, counts and request records older than this are forgotten."""
    events_max: int = 1_000_000
    """World events kept at most, whatever their age."""
    records_per_pool: int = 200
    """Ordinary request records kept per pool."""
    notable_max: int = 10_000
    """Records of errors, cold starts and slow requests kept at most, over all pools."""
    slow_ms: float = 1000.0
    """A request that took at least this long is notable."""

    def cutoff(self, now: float) -> float:
        """Times before this are forgotten."""
        return now - self.history_days * 86_400.0

    def notable(self, record: RequestRecord) -> bool:
        """Is it worth keeping beyond the newest of its pool?"""
        failed = record.status >= 400 or bool(record.error)
        return failed or record.cold or record.total_ms >= self.slow_ms


def minute_of(at: float) -> int:
    """The number of the minute that holds a time."""
    return int(at // MINUTE_S)


def with_workload(app: App, workload: Workload) -> App:
    """The app with its workload of that name replaced; unchanged if it has none."""
    workloads = tuple(workload if known.name == workload.name else known for known in app.workloads)
    return msgspec.structs.replace(app, workloads=workloads)
