"""How does control's state outlive it? As rows of a database: events, apps, usage, request records, and the queue.

Writes go through one thread with group commit (`writer`); readings are of their own, and first wait for what was
written before them, so a caller always reads its own writes. Any thread may call; a durable write and a read block for
a commit, a few ms on a healthy disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped, Event, PlanCommitted, VariantsSet
from swell.model.key import ApiKey
from swell.model.kv import Bounds
from swell.model.metrics import Histogram
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.secret import SecretVersion
from swell.model.volume import Volume
from swell.model.workload import App, Version, moved, with_variants
from swell.store import statements as sql
from swell.store.calls import SqlCallRecords, SqlCalls
from swell.store.database import Connection, Database, Op
from swell.store.kv import SqlDicts, SqlKv, SqlQueues, trim_kv
from swell.store.retention import Keep, by_app, hour_of, minute_of, spans
from swell.store.state_id import shown
from swell.store.transaction import Transactions
from swell.store.triggers import SqlTriggers, trim_firings
from swell.store.writer import Writer

TRIM_EVERY_S = 600.0
"""Time between two rounds of forgetting what is too old."""
EVENTS_PER_READ = 1000
"""Rows of one read of the world log; a long reading never holds the database open in between."""

Put = Callable[..., int]
Read = Callable[..., list[Any]]

_encode = msgspec.msgpack.Encoder().encode
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_app = msgspec.msgpack.Decoder(App)
_record = msgspec.msgpack.Decoder(RequestRecord)
_key = msgspec.msgpack.Decoder(ApiKey)
_volume = msgspec.msgpack.Decoder(Volume)
Row = TypeVar("Row")


class TableStore:
    """The `Store` port over the tables of one database."""

    def __init__(
        self,
        database: Database,
        keep: Keep | None,
        now: Callable[[], float],
        bounds: Bounds,
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        """`now` (seconds since the epoch) says what is too old: to be kept, or to be known by the minute. `bounds`: of
        dicts and queues. `otherwise` is called when a write was made that was told to have failed."""
        self.name = database.name
        self._database = database
        self._keep = keep or Keep()
        self._now = now
        self._writer = Writer(database, self._trim, TRIM_EVERY_S, otherwise)
        self._transactions: Transactions[Op] = Transactions(self._writer.do)
        self.world = SqlWorldLog(self._put, self._writer, self._read, self._keep)
        self.secrets = SqlSecrets(self._put, self._read)
        self.volumes = SqlVolumes(self._put, self._read)
        self.usage = SqlUsageLog(self._put, self._read, self._keep, now)
        self.keys = SqlKeys(self._put, self._read)
        self.calls = SqlCalls(self._do, self._look)
        self.call_records = SqlCallRecords(self._look)
        self.triggers = SqlTriggers(self._do, self._look)
        self.kv = SqlKv(self._writer, self._look)
        self.dicts = SqlDicts(self._writer, self._look, bounds)
        self.queues = SqlQueues(self._writer, self._look, bounds)

    @property
    def trouble(self) -> str:
        """What keeps writes from the disk now, or has cost some; empty when all is well."""
        lost = f"{self._writer.dropped} rows were lost." if self._writer.dropped else ""
        return f"{self._writer.trouble} {lost}".strip()

    @property
    def write_seconds(self) -> Histogram:
        return self._writer.write_seconds

    @property
    def rows_dropped(self) -> int:
        return self._writer.dropped

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside is on disk together or not at all; it is when the block has ended.

        Reads inside do not see it yet.
        """
        return self._transactions.begin()

    def id(self) -> str:
        """Which state this is, wherever it is copied to; empty where that was not drawn yet."""
        rows = self._read(sql.STATE_ID)
        return shown(rows[0][0]) if rows else ""

    def draw_id(self) -> str:
        """The state's id, drawn where it has none; on disk before it returns."""
        row = (secrets.randbits(63),)
        self._writer.do([lambda connection: connection.execute(sql.DRAW_STATE_ID, row).rowcount])
        return self.id()

    def begun(self) -> bool:
        """Has a server ever run on it?"""
        return bool(self._read(sql.EPOCH)[0][0])

    def trim(self) -> None:
        """Forget what is older than `history_days` or beyond `events_max`; done by itself now and then."""
        self._writer.do([self._trim])

    def copy(self, target: Path) -> None:
        """Write all that was written before to a new file of SQLite, while further writes go on."""
        self._writer.flush()
        self._database.copy(target)

    def close(self) -> None:
        """Write what waits and close the database. Raises when something could not be written."""
        try:
            self._writer.close()
        finally:
            self._database.close_reading()

    def _put(self, op: Op, rows: int, durable: bool, kept: bool = False) -> int:
        """`kept`: also where so much waits that other rows are dropped."""
        if not rows or self._transactions.takes(op):
            return 0
        if durable:
            return self._writer.do([op])
        self._writer.put([op], rows, kept)
        return 0

    def _do(self, op: Op, synced: bool) -> None:
        """Run it in the writing thread and wait until it is committed, if `synced` on disk, too; in a transaction at
        its end."""
        if not self._transactions.takes(op):
            self._writer.do([op], synced)

    def _read(self, statement: str, *values: object) -> list[Any]:
        """All rows of a query, after what was written before."""
        self._writer.flush()
        return self._look(statement, *values)

    def _look(self, statement: str, *values: object) -> list[Any]:
        """All rows of a query, of what is committed now."""
        return self._database.look(statement, values)

    def _trim(self, connection: Connection) -> int:
        cutoff = self._keep.cutoff(self._now())
        trim_kv(self._now(), connection)
        trim_firings(self._now(), connection)
        connection.execute(sql.TRIM_EVENTS_AGE, (cutoff,))
        connection.execute(sql.TRIM_EVENTS_COUNT, (self._keep.events_max,))
        minute = minute_of(self._keep.minute_cutoff(self._now()))
        connection.execute(sql.TRIM_USAGE, (minute,))
        connection.execute(sql.TRIM_COUNTS, (minute,))
        connection.execute(sql.TRIM_USAGE_HOURS, (hour_of(cutoff),))
        connection.execute(sql.TRIM_COUNTS_HOURS, (hour_of(cutoff),))
        connection.execute(sql.TRIM_KEY_COUNTS, (minute,))
        connection.execute(sql.TRIM_KEY_COUNTS_HOURS, (hour_of(cutoff),))
        return connection.execute(sql.TRIM_REQUESTS_AGE, (cutoff,)).rowcount


class SqlWorldLog:
    """The `WorldLog` port."""

    def __init__(self, put: Put, writer: Writer, read: Read, keep: Keep) -> None:
        self._put = put
        self._writer = writer
        self._read = read
        self._keep = keep

    def open_epoch(self) -> int:
        """A new, higher incarnation number, on disk before it returns; never part of a transaction."""
        return self._writer.do([_next_epoch])

    def append(self, events: Sequence[Event], durable: bool = False) -> None:
        """Add events. `durable`: on disk before it returns, or raises; otherwise soon."""
        rows = [(event, _encode(event)) for event in events]
        self._put(partial(_append, rows, self._keep), len(rows), durable, kept=any(map(_changes_apps, events)))

    def flush(self) -> None:
        """Returns when everything appended so far is on disk, or raises. While very much waits to be written, events
        may be dropped of which nothing but their row in the log is kept."""
        self._writer.do(())

    def apps(self) -> list[App]:
        """The apps deployed and not stopped, oldest deploy first."""
        return [_decode(_app, body) for (body,) in self._read(sql.APPS)]

    def deployed_at(self) -> dict[str, float]:
        """When each of those was deployed, by "namespace/name"."""
        return dict(self._read(sql.DEPLOYED_AT))

    def versions(self, app: str = "") -> list[Version]:
        """The versions kept of an app ("namespace/name"), or of all, oldest first."""
        return [
            Version(n, at, how, tag, _decode(_app, body), over, bool(served))
            for n, at, how, tag, body, over, served in self._read(sql.VERSIONS, app)
        ]

    def newest_versions(self) -> dict[str, int]:
        """The number of each app's newest version, by "namespace/name"."""
        return dict(self._read(sql.NEWEST_VERSIONS))

    def events(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """(sequence number, event) from `since` on."""
        while rows := self._read(sql.EVENTS, since, EVENTS_PER_READ):
            yield from ((seq, _decode(_event, body)) for seq, body in rows)
            since = rows[-1][0] + 1


class SqlSecrets:
    """The `Secrets` port."""

    def __init__(self, put: Put, read: Read) -> None:
        self._put = put
        self._read = read

    def put(self, version: SecretVersion, kept: int) -> None:
        """Add a version, or replace the one of its number; the newest `kept` stay."""
        self._put(partial(_put_secret, version, kept), 1, True)

    def versions(self) -> list[SecretVersion]:
        """All, each secret's oldest first."""
        rows = self._read(sql.SECRETS)
        return [
            SecretVersion(space, name, n, at, tuple(keys.split(" ")), body) for space, name, n, at, keys, body in rows
        ]

    def remove(self, namespace: str, name: str, number: int = 0) -> None:
        """Forget a version, or all of a secret."""
        gone = (sql.DROP_SECRET, (namespace, name, number))
        self._put(lambda connection: connection.execute(*gone).rowcount, 1, True)


class SqlVolumes:
    """The `Volumes` port."""

    def __init__(self, put: Put, read: Read) -> None:
        self._put = put
        self._read = read

    def put(self, volume: Volume) -> None:
        """Add it, or replace the one of its id."""
        row = (sql.SET_VOLUME, (volume.id, volume.namespace, volume.name, _encode(volume)))
        self._put(lambda connection: connection.execute(*row).rowcount, 1, True)

    def all(self) -> list[Volume]:
        """By namespace and name."""
        return [_volume.decode(body) for (body,) in self._read(sql.VOLUMES)]

    def remove(self, id: str) -> None:
        """Forget it."""
        self._put(lambda connection: connection.execute(sql.DROP_VOLUME, (id,)).rowcount, 1, True)


class SqlUsageLog:
    """The `UsageLog` port."""

    def __init__(self, put: Put, read: Read, keep: Keep, now: Callable[[], float]) -> None:
        self._put = put
        self._read = read
        self._keep = keep
        self._now = now

    def add_usage(self, rows: Sequence[Usage]) -> None:
        """Add to the sums of each row's minute and hour."""
        values = [(r.pool, r.role, r.at, r.wall_s, r.cpu_s, r.memory_mib_s, r.starting_s) for r in rows]
        self._add((sql.ADD_USAGE, sql.ADD_USAGE_HOUR), [r.at for r in rows], values)

    def add_counts(self, rows: Sequence[PoolCount]) -> None:
        """Add to the sums of each row's minute and hour."""
        values = [(r.pool, r.at, r.requests, r.errors, r.cold, r.busy_s) for r in rows]
        self._add((sql.ADD_COUNT, sql.ADD_COUNT_HOUR), [r.at for r in rows], values)

    def _add(self, statements: tuple[str, str], times: Sequence[float], values: Sequence[tuple[Any, ...]]) -> None:
        by_minute = [(minute_of(at), *row) for at, row in zip(times, values, strict=True)]
        by_hour = [(hour_of(at), *row) for at, row in zip(times, values, strict=True)]
        self._put(partial(_both, statements, by_minute, by_hour), len(values), False)

    def add_key_counts(self, rows: Sequence[KeyCount]) -> None:
        """Add to the sums of each row's minute and hour."""
        values = [(r.key, r.pool, r.at, r.requests, r.errors, r.cpu_s, r.cost_usd) for r in rows]
        self._add((sql.ADD_KEY_COUNT, sql.ADD_KEY_COUNT_HOUR), [r.at for r in rows], values)

    def add_requests(self, rows: Sequence[RequestRecord]) -> None:
        """Keep records as `Keep` says; a repeated id changes nothing."""
        values = [(r.id, r.pool, self._keep.notable(r), r.received_at, _encode(r)) for r in rows]
        self._put(partial(_add_requests, self._keep, values), len(values), False)

    def request(self, id: str) -> RequestRecord | None:
        """One record, if it is still kept."""
        rows = self._read(sql.REQUEST, id)
        return _decode(_record, rows[0][0]) if rows else None

    def requests(self, prefix: str, most: int) -> list[RequestRecord]:
        """The newest records kept of pools whose name begins so, newest first."""
        return [_decode(_record, body) for (body,) in self._read(sql.REQUESTS, prefix, max(most, 0))]

    def usage(self, since: float, until: float, pool: str = "") -> list[Usage]:
        """One row per (pool, role): sums over the `spans` that [since, until) touches."""
        return [Usage("", *row) for row in self._sums(sql.USAGE, since, until, pool)]

    def counts(self, since: float, until: float, pool: str = "") -> list[PoolCount]:
        """One row per pool: sums over the `spans` that [since, until) touches."""
        return [PoolCount(*row) for row in self._sums(sql.COUNTS, since, until, pool)]

    def key_counts(self, since: float, until: float) -> list[KeyCount]:
        """One row per (key, pool): sums over the `spans` that [since, until) touches."""
        return [KeyCount(*row) for row in self._sums(sql.KEY_COUNTS, since, until, "")]

    def _sums(self, statement: str, since: float, until: float, pool: str) -> list[Any]:
        before, hours, after = spans(since, until, self._now())
        return self._read(statement, *before, *hours, *after, pool)


class SqlKeys:
    """The `Keys` port."""

    def __init__(self, put: Put, read: Read) -> None:
        self._put = put
        self._read = read

    def put(self, key: ApiKey) -> None:
        """Add it, or replace the one of its id; on disk before it returns, or raises."""
        self._put(partial(_set_key, (key.id, key.created_at, _encode(key))), 1, True)

    def all(self) -> list[ApiKey]:
        """Oldest first."""
        return [_decode(_key, body) for (body,) in self._read(sql.KEYS)]


def _decode(decoder: msgspec.msgpack.Decoder[Row], body: bytes) -> Row:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise SwellError(
            "state_unreadable",
            f"The database holds a row that this build of Swell cannot read ({error}). Start the build that wrote it, "
            "or set SWELL_HOME (and SWELL_STORE) to a new state and deploy your apps again.",
            status=500,
        ) from None


# -- writes, run by the writing thread ------------------------------------------------------------


def _next_epoch(connection: Connection) -> int:
    connection.execute(sql.NEXT_EPOCH)
    return int(connection.execute(sql.EPOCH).fetchone()[0])


def _changes_apps(event: Event) -> bool:
    """Is more of it kept than its row in the log? Whoever made it waits until that is on disk, by a `flush`."""
    return isinstance(event, AppDeployed | AppStopped | VariantsSet) or (
        isinstance(event, PlanCommitted) and bool(event.plan.moves)
    )


def _append(rows: Sequence[tuple[Event, bytes]], keep: Keep, connection: Connection) -> int:
    """Add events and keep the tables of present apps and their versions in step."""
    for event, body in rows:
        seq = connection.execute(sql.ADD_EVENT, (event.at, body)).fetchall()[0][0]
        match event:
            case AppDeployed():
                connection.execute(sql.SET_APP, (event.app.key, seq, event.at, _encode(event.app)))
                _add_version(connection, event.version, keep)
            case AppStopped():
                connection.execute(sql.DROP_APP, (f"{event.namespace}/{event.name}",))
                connection.execute(sql.DROP_VERSIONS, (f"{event.namespace}/{event.name}",))
            case VariantsSet(added=added, revisions=revisions, removed=removed):
                change = partial(with_variants, added=added, revisions=revisions, removed=removed)
                _change_app(connection, event.key, change)
            case PlanCommitted():
                for key, names in by_app(event.plan.moves).items():
                    _change_app(connection, key, partial(moved, names=names))
    return len(rows)


def _add_version(connection: Connection, version: Version | None, keep: Keep) -> None:
    if version is not None:
        key, body = version.app.key, _encode(version.app)
        said = (key, version.number, version.at, version.how, version.tag, body, version.over, version.over_served)
        connection.execute(sql.ADD_VERSION, said)
        connection.execute(sql.TRIM_VERSIONS, (key, version.number, keep.versions))


def _put_secret(version: SecretVersion, kept: int, connection: Connection) -> int:
    key = (version.namespace, version.name)
    keys = " ".join(version.keys)
    connection.execute(sql.ADD_SECRET, (*key, version.number, version.at, keys, version.sealed))
    connection.execute(sql.TRIM_SECRET, (*key, version.number - kept))
    return 1


def _change_app(connection: Connection, key: str, change: Callable[[App], App]) -> None:
    for (body,) in connection.execute(sql.APP, (key,)).fetchall():
        connection.execute(sql.CHANGE_APP, (_encode(change(_app.decode(body))), key))


def _set_key(row: tuple[Any, ...], connection: Connection) -> int:
    connection.execute(sql.SET_KEY, row)
    return 1


def _both(
    statements: tuple[str, str],
    by_minute: Sequence[tuple[Any, ...]],
    by_hour: Sequence[tuple[Any, ...]],
    connection: Connection,
) -> int:
    connection.executemany(statements[0], by_minute)
    connection.executemany(statements[1], by_hour)
    return len(by_minute)


def _add_requests(keep: Keep, rows: Sequence[tuple[Any, ...]], connection: Connection) -> int:
    """Add records, then drop the oldest beyond the bounds."""
    connection.executemany(sql.ADD_REQUEST, rows)
    for pool in {pool for _, pool, *_ in rows}:
        connection.execute(sql.TRIM_ORDINARY, (pool, keep.records_per_pool))
    connection.execute(sql.TRIM_NOTABLE, (keep.notable_max,))
    return len(rows)
