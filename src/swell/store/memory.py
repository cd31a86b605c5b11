"""What does a store remember when nothing need survive? Everything, in plain dictionaries.

For tests and the simulator. It follows the same retention rules as the database and passes the same
conformance suite.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, TypeVar

import msgspec

from swell.model.events import AppDeployed, AppStopped, Event, WorkloadSet
from swell.model.request import PoolCount, RequestRecord, Usage
from swell.model.workload import App
from swell.store.retention import MINUTE_S, Keep, minute_of, with_workload
from swell.store.transaction import Transactions

Op = Callable[[], None]
Key = TypeVar("Key", bound=tuple[Any, ...])
Row = TypeVar("Row")


class MemoryStore:
    """The `Store` port over dictionaries. `now` is only asked when `trim` forgets old rows."""

    def __init__(self, keep: Keep | None = None, now: Callable[[], float] = time.time) -> None:
        self._keep = keep or Keep()
        self._now = now
        self._transactions: Transactions[Op] = Transactions(self._run)
        self.world = MemoryWorldLog(self._keep, self._write)
        self.usage = MemoryUsageLog(self._keep, self._write)
        self.trouble = ""
        """Always empty: memory has no disk to fail."""

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside shows together, or not at all after an exception."""
        return self._transactions.begin()

    def trim(self) -> None:
        """Forget what is older than `history_days` or beyond `events_max`."""
        cutoff = self._keep.cutoff(self._now())
        self.world.trim(cutoff)
        self.usage.trim(cutoff)

    def close(self) -> None:
        """Nothing is held open."""

    def _write(self, op: Op) -> None:
        if not self._transactions.takes(op):
            op()

    def _run(self, ops: list[Op]) -> None:
        for op in ops:
            op()


class MemoryWorldLog:
    """The `WorldLog` port."""

    def __init__(self, keep: Keep, write: Callable[[Op], None]) -> None:
        self._keep = keep
        self._write = write
        self._epoch = 0
        self._next = 1
        self._events: deque[tuple[int, Event]] = deque()
        self._deployed: dict[str, AppDeployed] = {}

    def open_epoch(self) -> int:
        """A new, higher incarnation number; never part of a transaction."""
        self._epoch += 1
        return self._epoch

    def append(self, events: Sequence[Event], durable: bool = False) -> None:  # noqa: ARG002 (of the port)
        """Add events."""
        kept = tuple(events)
        self._write(lambda: self._append(kept))

    def flush(self) -> None:
        """Nothing is on its way."""

    def apps(self) -> list[App]:
        """The apps deployed and not stopped, oldest deploy first."""
        return [deployed.app for deployed in self._deployed.values()]

    def deployed_at(self) -> dict[str, float]:
        """When each of those was deployed, by "namespace/name"."""
        return {key: deployed.at for key, deployed in self._deployed.items()}

    def events(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """(sequence number, event) from `since` on."""
        return [row for row in self._events if row[0] >= since]

    def trim(self, cutoff: float) -> None:
        """Forget the oldest events: before `cutoff`, or beyond `events_max`."""
        while self._events and (len(self._events) > self._keep.events_max or self._events[0][1].at < cutoff):
            self._events.popleft()

    def _append(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.append((self._next, event))
            self._next += 1
            match event:
                case AppDeployed():
                    self._deployed.pop(event.app.key, None)
                    self._deployed[event.app.key] = event
                case AppStopped():
                    self._deployed.pop(f"{event.namespace}/{event.name}", None)
                case WorkloadSet():
                    key = f"{event.workload.namespace}/{event.workload.app}"
                    if key in self._deployed:
                        before = self._deployed[key]
                        app = with_workload(before.app, event.workload)
                        self._deployed[key] = msgspec.structs.replace(before, app=app)


class MemoryUsageLog:
    """The `UsageLog` port."""

    def __init__(self, keep: Keep, write: Callable[[Op], None]) -> None:
        self._keep = keep
        self._write = write
        self._usage: dict[tuple[int, str, str], Usage] = {}
        self._counts: dict[tuple[int, str], PoolCount] = {}
        self._records: dict[str, RequestRecord] = {}
        self._ordinary: dict[str, deque[str]] = {}
        self._notable: deque[str] = deque()

    def add_usage(self, rows: Sequence[Usage]) -> None:
        """Add to the sums of each row's minute."""
        kept = tuple(rows)
        self._write(lambda: self._add_usage(kept))

    def add_counts(self, rows: Sequence[PoolCount]) -> None:
        """Add to the sums of each row's minute."""
        kept = tuple(rows)
        self._write(lambda: self._add_counts(kept))

    def add_requests(self, rows: Sequence[RequestRecord]) -> None:
        """Keep records as `Keep` says; a repeated id changes nothing."""
        kept = tuple(rows)
        self._write(lambda: self._add_requests(kept))

    def request(self, id: str) -> RequestRecord | None:
        """One record, if it is still kept."""
        return self._records.get(id)

    def requests(self, prefix: str, most: int) -> list[RequestRecord]:
        """The newest records kept of pools whose name begins so, newest first."""
        newest = (record for record in reversed(self._records.values()) if record.pool.startswith(prefix))
        return list(islice(newest, max(most, 0)))

    def usage(self, since: float, until: float) -> list[Usage]:
        """One row per (pool, role): sums over the whole minutes that [since, until) touches."""
        sums: dict[tuple[str, str], Usage] = {}
        for (_, pool, role), row in _within(self._usage, since, until):
            before = sums.get((pool, role))
            sums[pool, role] = row if before is None else _plus_usage(before, row)
        return [sums[key] for key in sorted(sums)]

    def counts(self, since: float, until: float) -> list[PoolCount]:
        """One row per pool: sums over the whole minutes that [since, until) touches."""
        sums: dict[str, PoolCount] = {}
        for (_, pool), row in _within(self._counts, since, until):
            before = sums.get(pool)
            sums[pool] = row if before is None else _plus_count(before, row)
        return [sums[key] for key in sorted(sums)]

    def trim(self, cutoff: float) -> None:
        """Forget minutes and records before `cutoff`."""
        minute = minute_of(cutoff)
        self._usage = {key: row for key, row in self._usage.items() if key[0] >= minute}
        self._counts = {key: row for key, row in self._counts.items() if key[0] >= minute}
        while self._records:
            oldest = next(iter(self._records.values()))
            if oldest.received_at >= cutoff:
                return
            self._forget(oldest.id)

    def _add_usage(self, rows: Sequence[Usage]) -> None:
        for row in rows:
            key = (minute_of(row.at), row.pool, row.role)
            anonymous = msgspec.structs.replace(row, replica="")
            before = self._usage.get(key)
            self._usage[key] = anonymous if before is None else _plus_usage(before, anonymous)

    def _add_counts(self, rows: Sequence[PoolCount]) -> None:
        for row in rows:
            key = (minute_of(row.at), row.pool)
            before = self._counts.get(key)
            self._counts[key] = row if before is None else _plus_count(before, row)

    def _add_requests(self, rows: Sequence[RequestRecord]) -> None:
        for row in rows:
            if row.id in self._records:
                continue
            self._records[row.id] = row
            if self._keep.notable(row):
                self._notable.append(row.id)
            else:
                self._ordinary.setdefault(row.pool, deque()).append(row.id)
        for row in rows:
            ordinary = self._ordinary.get(row.pool, deque())
            while len(ordinary) > self._keep.records_per_pool:
                self._forget(ordinary[0])
        while len(self._notable) > self._keep.notable_max:
            self._forget(self._notable[0])

    def _forget(self, id: str) -> None:
        """Drop the oldest record of its kind."""
        row = self._records.pop(id)
        if self._keep.notable(row):
            self._notable.remove(id)
            return
        ordinary = self._ordinary[row.pool]
        ordinary.remove(id)
        if not ordinary:
            del self._ordinary[row.pool]


def _within(rows: Mapping[Key, Row], since: float, until: float) -> Iterator[tuple[Key, Row]]:
    """Rows of the minutes that [since, until) touches, oldest first. Keys begin with the minute."""
    first = minute_of(since)
    return ((key, rows[key]) for key in sorted(rows) if key[0] >= first and key[0] * MINUTE_S < until)


def _plus_usage(one: Usage, other: Usage) -> Usage:
    return Usage(
        replica="",
        pool=one.pool,
        role=one.role,
        at=max(one.at, other.at),
        wall_s=one.wall_s + other.wall_s,
        cpu_s=one.cpu_s + other.cpu_s,
        memory_mib_s=one.memory_mib_s + other.memory_mib_s,
        starting_s=one.starting_s + other.starting_s,
    )


def _plus_count(one: PoolCount, other: PoolCount) -> PoolCount:
    return PoolCount(
        pool=one.pool,
        at=max(one.at, other.at),
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        cold=one.cold + other.cold,
        busy_s=one.busy_s + other.busy_s,
        cpu_s=one.cpu_s + other.cpu_s,
    )
