"""What does a store remember when nothing need survive? Everything, in plain dictionaries.

For tests and the simulator. It follows the same retention rules as the database and passes the same
conformance suite.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Generic, Protocol, TypeVar

import msgspec

from swell.model.events import AppDeployed, AppStopped, Event, PlanCommitted, VariantsSet
from swell.model.key import ApiKey
from swell.model.kv import BOUNDS, Bounds
from swell.model.metrics import WRITE_SECONDS, histogram
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.secret import SecretVersion
from swell.model.volume import Volume
from swell.model.workload import App, Version, moved, with_variants
from swell.store.memory_calls import MemoryCallRecords, MemoryCalls
from swell.store.memory_kv import Contents, MemoryDicts, MemoryKv, MemoryQueues
from swell.store.memory_triggers import MemoryTriggers
from swell.store.retention import Keep, Spans, by_app, hour_of, minute_of, spans
from swell.store.transaction import Transactions

Op = Callable[[], None]


class MemoryStore:
    """The `Store` port over dictionaries. `now` says what is too old: for `trim`, or to be known by the minute."""

    def __init__(self, keep: Keep | None = None, now: Callable[[], float] = time.time, bounds: Bounds = BOUNDS) -> None:
        self._keep = keep or Keep()
        self._now = now
        self._transactions: Transactions[Op] = Transactions(self._run)
        self._lock = threading.RLock()
        """A write, or a transaction, at a time; and no reading of calls meanwhile."""
        self.world = MemoryWorldLog(self._keep, self._write)
        self.usage = MemoryUsageLog(self._keep, self._write, now)
        self.keys = MemoryKeys(self._write)
        self.secrets = MemorySecrets(self._write)
        self.volumes = MemoryVolumes(self._write)
        self.calls = MemoryCalls(self._write, self._lock)
        self.call_records = MemoryCallRecords(self.calls)
        self.triggers = MemoryTriggers(self._write)
        contents = Contents()
        self.kv = MemoryKv(contents)
        self.dicts = MemoryDicts(contents, bounds)
        self.queues = MemoryQueues(contents, bounds)
        self.trouble = ""
        """Always empty: memory has no disk to fail."""
        self.write_seconds = histogram(WRITE_SECONDS)
        self.rows_dropped = 0

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside shows together, or not at all after an exception."""
        return self._transactions.begin()

    def trim(self) -> None:
        """Forget what is older than `history_days` or beyond `events_max`."""
        self.world.trim(self._keep.cutoff(self._now()))
        self.usage.trim()
        self.kv.trim(self._now())
        self.triggers.trim(self._now())

    def close(self) -> None:
        """Nothing is held open."""

    def _write(self, op: Op) -> None:
        if not self._transactions.takes(op):
            self._run([op])

    def _run(self, ops: list[Op]) -> None:
        with self._lock:
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
        self._versions: dict[str, dict[int, Version]] = {}

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

    def versions(self, app: str = "") -> list[Version]:
        """The versions kept of an app ("namespace/name"), or of all, oldest first."""
        keys = [app] if app else sorted(self._versions)
        return [version for key in keys for _, version in sorted(self._versions.get(key, {}).items())]

    def newest_versions(self) -> dict[str, int]:
        """The number of each app's newest version, by "namespace/name"."""
        return {key: max(versions) for key, versions in self._versions.items()}

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
                    self._add_version(event.version)
                case AppStopped():
                    self._deployed.pop(f"{event.namespace}/{event.name}", None)
                    self._versions.pop(f"{event.namespace}/{event.name}", None)
                case VariantsSet(added=added, revisions=revisions, removed=removed):
                    change = partial(with_variants, added=added, revisions=revisions, removed=removed)
                    self._change_app(event.key, change)
                case PlanCommitted():
                    for key, names in by_app(event.plan.moves).items():
                        self._change_app(key, partial(moved, names=names))

    def _change_app(self, key: str, change: Callable[[App], App]) -> None:
        before = self._deployed.get(key)
        if before is not None:
            self._deployed[key] = msgspec.structs.replace(before, app=change(before.app))

    def _add_version(self, version: Version | None) -> None:
        if version is not None:
            kept = {**self._versions.get(version.app.key, {}), version.number: version}
            oldest = version.number - self._keep.versions
            self._versions[version.app.key] = {n: each for n, each in kept.items() if n > oldest}


class MemorySecrets:
    """The `Secrets` port."""

    def __init__(self, write: Callable[[Op], None]) -> None:
        self._write = write
        self._versions: dict[tuple[str, str, int], SecretVersion] = {}

    def put(self, version: SecretVersion, kept: int) -> None:
        """Add a version; the newest `kept` stay."""
        self._write(lambda: self._put(version, kept))

    def versions(self) -> list[SecretVersion]:
        """All, each secret's oldest first."""
        return [version for _, version in sorted(self._versions.items())]

    def remove(self, namespace: str, name: str, number: int = 0) -> None:
        """Forget a version, or all of a secret."""
        self._write(lambda: self._drop(lambda key: key[:2] == (namespace, name) and number in (0, key[2])))

    def _put(self, version: SecretVersion, kept: int) -> None:
        secret, oldest = (version.namespace, version.name), version.number - kept
        self._versions[(*secret, version.number)] = version
        self._drop(lambda key: key[:2] == secret and key[2] <= oldest)

    def _drop(self, gone: Callable[[tuple[str, str, int]], bool]) -> None:
        self._versions = {key: version for key, version in self._versions.items() if not gone(key)}


class MemoryVolumes:
    """The `Volumes` port."""

    def __init__(self, write: Callable[[Op], None]) -> None:
        self._write = write
        self._volumes: dict[str, Volume] = {}

    def put(self, volume: Volume) -> None:
        """Add it, or replace the one of its id."""
        self._write(lambda: self._volumes.update({volume.id: volume}))

    def all(self) -> list[Volume]:
        """By namespace and name."""
        return sorted(self._volumes.values(), key=lambda volume: volume.key)

    def remove(self, id: str) -> None:
        """Forget it."""
        self._write(lambda: self._forget(id))

    def _forget(self, id: str) -> None:
        self._volumes.pop(id, None)


class MemoryUsageLog:
    """The `UsageLog` port."""

    def __init__(self, keep: Keep, write: Callable[[Op], None], now: Callable[[], float]) -> None:
        self._keep = keep
        self._write = write
        self._now = now
        self._usage = Sums[tuple[str, str], Usage](Usage.plus)
        self._counts = Sums[str, PoolCount](PoolCount.plus)
        self._key_counts = Sums[tuple[str, str], KeyCount](KeyCount.plus)
        self._records: dict[str, RequestRecord] = {}
        self._ordinary: dict[str, deque[str]] = {}
        self._notable: deque[str] = deque()

    def add_usage(self, rows: Sequence[Usage]) -> None:
        """Add to the sums of each row's minute and hour."""
        kept = [((row.pool, row.role), msgspec.structs.replace(row, replica="")) for row in rows]
        self._write(lambda: self._usage.add(kept))

    def add_counts(self, rows: Sequence[PoolCount]) -> None:
        """Add to the sums of each row's minute and hour."""
        kept = [(row.pool, row) for row in rows]
        self._write(lambda: self._counts.add(kept))

    def add_key_counts(self, rows: Sequence[KeyCount]) -> None:
        """Add to the sums of each row's minute and hour."""
        kept = [((row.key, row.pool), row) for row in rows]
        self._write(lambda: self._key_counts.add(kept))

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

    def usage(self, since: float, until: float, pool: str = "") -> list[Usage]:
        """One row per (pool, role): sums over the `spans` that [since, until) touches."""
        return [row for row in self._usage.within(spans(since, until, self._now())) if pool in ("", row.pool)]

    def counts(self, since: float, until: float, pool: str = "") -> list[PoolCount]:
        """One row per pool: sums over the `spans` that [since, until) touches."""
        return [row for row in self._counts.within(spans(since, until, self._now())) if pool in ("", row.pool)]

    def key_counts(self, since: float, until: float) -> list[KeyCount]:
        """One row per (key, pool): sums over the `spans` that [since, until) touches."""
        return self._key_counts.within(spans(since, until, self._now()))

    def trim(self) -> None:
        """Forget minutes, hours and records that are too old."""
        now = self._now()
        cutoff = self._keep.cutoff(now)
        sums: Trimmed
        for sums in (self._usage, self._counts, self._key_counts):
            sums.trim(minute_of(self._keep.minute_cutoff(now)), hour_of(cutoff))
        while self._records:
            oldest = next(iter(self._records.values()))
            if oldest.received_at >= cutoff:
                return
            self._forget(oldest.id)

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


class MemoryKeys:
    """The `Keys` port."""

    def __init__(self, write: Callable[[Op], None]) -> None:
        self._write = write
        self._keys: dict[str, ApiKey] = {}

    def put(self, key: ApiKey) -> None:
        """Add it, or replace the one of its id."""
        self._write(lambda: self._keys.update({key.id: key}))

    def all(self) -> list[ApiKey]:
        """Oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))


class Timed(Protocol):
    """A row of some time."""

    @property
    def at(self) -> float: ...


class Trimmed(Protocol):
    """What forgets minutes and hours."""

    def trim(self, first_minute: int, first_hour: int) -> None: ...


Key = TypeVar("Key", bound=tuple[str, ...] | str)
Row = TypeVar("Row", bound=Timed)


class Sums(Generic[Key, Row]):
    """Rows added up by minute and by hour."""

    def __init__(self, plus: Callable[[Row, Row], Row]) -> None:
        self._plus = plus
        self._minutes: dict[int, dict[Key, Row]] = {}
        self._hours: dict[int, dict[Key, Row]] = {}

    def add(self, rows: Iterable[tuple[Key, Row]]) -> None:
        for key, row in rows:
            self._put(self._minutes.setdefault(minute_of(row.at), {}), key, row)
            self._put(self._hours.setdefault(hour_of(row.at), {}), key, row)

    def within(self, asked: Spans) -> list[Row]:
        """One row per key, in the order of keys."""
        total: dict[Key, Row] = {}
        for table, span in zip((self._minutes, self._hours, self._minutes), asked, strict=True):
            for number in sorted(table):
                for key, row in table[number].items() if span[0] <= number < span[1] else ():
                    self._put(total, key, row)
        return [total[key] for key in sorted(total)]

    def trim(self, first_minute: int, first_hour: int) -> None:
        """Forget those before."""
        self._minutes = {number: rows for number, rows in self._minutes.items() if number >= first_minute}
        self._hours = {number: rows for number, rows in self._hours.items() if number >= first_hour}

    def _put(self, sums: dict[Key, Row], key: Key, row: Row) -> None:
        before = sums.get(key)
        sums[key] = row if before is None else self._plus(before, row)
