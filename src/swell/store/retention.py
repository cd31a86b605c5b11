"""What is kept, and for how long? The rules that every store follows alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from swell.model.request import RequestRecord, failed, notable

MINUTE_S = 60.0
"""Usage and counts are summed into rows of this length…"""
HOUR_S = 3600.0
"""…and once more into rows of this one, so that a long time is read in few rows."""
MINUTES_KEPT_S = 86_400.0
"""How long minutes are kept; before that there are hours only."""


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
    versions: int = 20
    """Versions kept of each app, the newest ones."""

    def cutoff(self, now: float) -> float:
        """Times before this are forgotten."""
        return now - self.history_days * 86_400.0

    def minute_cutoff(self, now: float) -> float:
        """Minutes before this are forgotten."""
        return max(self.cutoff(now), first_fine(now))

    def notable(self, record: RequestRecord) -> bool:
        """Is it worth keeping beyond the newest of its pool?"""
        return notable(failed(record.status, record.error), record.cold, record.total_ms, self.slow_ms)


def minute_of(at: float) -> int:
    """The number of the minute that holds a time."""
    return int(at // MINUTE_S)


def hour_of(at: float) -> int:
    """The number of the hour that holds a time."""
    return int(at // HOUR_S)


def first_fine(now: float) -> float:
    """The hour from whose beginning on there are minutes."""
    return hour_of(now - MINUTES_KEPT_S) * HOUR_S


class Spans(NamedTuple):
    """Row ranges that cover a time span: minutes, whole hours, minutes (end exclusive)."""

    before: tuple[int, int]
    hours: tuple[int, int]
    after: tuple[int, int]


def spans(since: float, until: float, now: float) -> Spans:
    """The rows that [since, until) touches, grown to whole minutes; to whole hours, where there are only those."""
    fine = first_fine(now)
    whole = (HOUR_S if since < fine else MINUTE_S, HOUR_S if until < fine else MINUTE_S)
    first = int(since // whole[0] * whole[0] // MINUTE_S)
    end = max(int(-(-until // whole[1]) * whole[1] // MINUTE_S), first)
    first_hour, end_hour = -(-first // 60), end // 60
    if first_hour >= end_hour:
        return Spans((first, end), (0, 0), (0, 0))
    return Spans((first, first_hour * 60), (first_hour, end_hour), (end_hour * 60, end))


def by_app(workloads: Iterable[str]) -> dict[str, set[str]]:
    """App key → names, of the keys of workloads."""
    found: dict[str, set[str]] = {}
    for key in workloads:
        app, _, name = key.rpartition("/")
        found.setdefault(app, set()).add(name)
    return found
