"""How do dicts and queues outlive control? As rows: an entry or item each, and for a while the answer to each change.

A change looks, decides by what it finds, and writes, all in the writing thread and in one transaction; many share a
commit. Who asks for one again is told what was answered first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from swell.model import kv
from swell.model.kv import ANSWER_KEPT_S, DICT_KEPT_S, DICT_TOUCH_S, PAGE_MAX, Bounds, Collection, Kind, Page, Row
from swell.store import statements as sql
from swell.store.database import Connection
from swell.store.writer import Writer

T = TypeVar("T")
Read = Callable[..., list[Any]]

_encode = msgspec.msgpack.Encoder().encode
_collection = msgspec.msgpack.Decoder(Collection)


class SqlKv:
    """The `Kv` port."""

    def __init__(self, writer: Writer, read: Read) -> None:
        self._writer = writer
        self._read = read

    def add(self, collection: Collection) -> None:
        """One more, with nothing in it."""
        row = (collection.id, *collection.key, _encode(collection))
        self._writer.do([lambda connection: connection.execute(sql.ADD_COLLECTION, row).rowcount])

    def all(self) -> list[Collection]:
        """By kind, namespace and name."""
        return [_collection.decode(body) for (body,) in self._read(sql.COLLECTIONS)]

    def remove(self, id: str) -> None:
        """Forget it and all that is in it."""
        self._writer.do([partial(_drop_collection, id)])

    def sizes(self) -> dict[str, int]:
        """Entries or items of each, by its id."""
        return dict(self._read(sql.COLLECTION_SIZES))

    def trim(self, now: float) -> None:
        """Forget what has expired."""
        self._writer.do([lambda connection: trim_kv(now, connection)])


class SqlDicts:
    """The `Dicts` port."""

    def __init__(self, writer: Writer, read: Read, bounds: Bounds) -> None:
        self._writer = writer
        self._read = read
        self._bounds = bounds

    def get(self, id: str, key: bytes, now: float) -> bytes | None:
        """The value, which is kept for a while longer."""
        self._check(id)
        found = self._read(sql.ENTRY, id, key, now)
        if not found:
            return None
        value, expires_at = found[0]
        if expires_at < now + DICT_KEPT_S:
            touch = (now + DICT_KEPT_S + DICT_TOUCH_S, id, key)
            self._writer.put([lambda connection: connection.execute(sql.TOUCH_ENTRY, touch).rowcount], 1)
        return bytes(value)

    def contains(self, id: str, key: bytes, now: float) -> bool:
        """Is it there?"""
        self._check(id)
        return bool(self._read(sql.HAS_ENTRY, id, key, now))

    def put(
        self, id: str, entries: Sequence[tuple[bytes, bytes]], now: float, *, missing: bool = False, request: str = ""
    ) -> int:
        """Put all or none of them; with `missing` those alone whose keys are not there."""
        kv.check_entries(entries, self._bounds)
        statement = sql.ADD_ENTRY if missing else sql.SET_ENTRY
        until = now + DICT_KEPT_S + DICT_TOUCH_S

        def put(connection: Connection) -> int:
            connection.executemany(sql.DROP_ENTRY_EXPIRED, [(id, key, now) for key, _ in entries])
            rows = connection.each(statement, [(id, key, value, until) for key, value in entries])
            added = sum(row is not None for row in rows)
            if _size(connection, id) > self._bounds.entries_max:
                connection.execute(sql.DROP_ENTRIES_EXPIRED, (id, now))
                if _size(connection, id) > self._bounds.entries_max:
                    raise kv.dict_full(self._bounds)
            return added

        return _changed(self._writer, "dict", id, request, now, put)

    def pop(self, id: str, key: bytes, now: float, *, request: str = "") -> bytes | None:
        """Take an entry out."""

        def pop(connection: Connection) -> bytes | None:
            found = connection.execute(sql.ENTRY, (id, key, now)).fetchone()
            connection.execute(sql.DROP_ENTRY, (id, key))
            return None if found is None else bytes(found[0])

        return _changed(self._writer, "dict", id, request, now, pop)

    def page(self, id: str, after: int, now: float, *, values: bool = True) -> Page:
        """The next entries, oldest first."""
        self._check(id)
        sizes = self._read(sql.ENTRY_SIZES, id, after, now, values, PAGE_MAX)
        last = _last(sizes, self._bounds)
        found = self._read(sql.ENTRIES, id, after, last, now, values) if last else []
        return Page(tuple(Row(number, bytes(key), bytes(value)) for number, key, value in found), last)

    def count(self, id: str, now: float) -> int:
        """How many there are."""
        return self._check(id) - int(self._read(sql.ENTRIES_EXPIRED, id, now)[0][0])

    def clear(self, id: str) -> None:
        """Take all out."""
        _changed(self._writer, "dict", id, "", 0.0, lambda connection: _run(connection, sql.DROP_ENTRIES, id))

    def _check(self, id: str) -> int:
        for (size,) in self._read(sql.COLLECTION_SIZE, id):
            return int(size)
        raise kv.unknown("dict", id)


class SqlQueues:
    """The `Queues` port."""

    def __init__(self, writer: Writer, read: Read, bounds: Bounds) -> None:
        self._writer = writer
        self._read = read
        self._bounds = bounds

    def put(
        self, id: str, partition: str, values: Sequence[bytes], ttl_s: float, now: float, *, request: str = ""
    ) -> None:
        """Put all or none of them at the end of a partition."""
        kv.check_items(values, partition, self._bounds)

        def put(connection: Connection) -> bool:
            items = self._held(connection, id, partition, now) + len(values)
            if items > self._bounds.items_max:
                raise kv.queue_full(self._bounds)
            connection.executemany(sql.ADD_ITEM, [(id, partition, value) for value in values])
            connection.execute(sql.SET_PARTITION, (id, partition, items, now + ttl_s))
            return True

        if values:
            _changed(self._writer, "queue", id, request, now, put)

    def take(self, id: str, partition: str, most: int, now: float, *, request: str = "") -> list[bytes]:
        """Take the first items out, for good."""

        def take(connection: Connection) -> list[bytes]:
            if not _live(connection, id, partition, now):
                return []
            sizes = connection.execute(sql.ITEM_SIZES, (id, partition, 0, most)).fetchall()
            last = _last(sizes, self._bounds)
            found = connection.execute(sql.ITEMS, (id, partition, 0, last)).fetchall()
            connection.execute(sql.DROP_ITEMS_TO, (id, partition, last))
            connection.execute(sql.LESSEN_PARTITION, (len(found), id, partition))
            if not _live(connection, id, partition, now):
                connection.execute(sql.DROP_PARTITION, (id, partition))
            return [bytes(value) for _, value in found]

        return _changed(self._writer, "queue", id, request, now, take) if most > 0 else []

    def page(self, id: str, partition: str, after: int, now: float) -> Page:
        """The next items, which stay."""
        if partition not in self.partitions(id, now):
            return Page((), 0)
        last = _last(self._read(sql.ITEM_SIZES, id, partition, after, PAGE_MAX), self._bounds)
        found = self._read(sql.ITEMS, id, partition, after, last) if last else []
        return Page(tuple(Row(number, b"", bytes(value)) for number, value in found), last)

    def partitions(self, id: str, now: float) -> dict[str, int]:
        """Those that hold anything, and how many items each does."""
        if not self._read(sql.COLLECTION_SIZE, id):
            raise kv.unknown("queue", id)
        return dict(self._read(sql.PARTITIONS_HELD, id, now))

    def clear(self, id: str, partition: str | None) -> None:
        """Take all out of a partition, or of the queue."""

        def clear(connection: Connection) -> None:
            if partition is None:
                _run(connection, sql.DROP_PARTITIONS, id)
                _run(connection, sql.DROP_ITEMS, id)
            else:
                _drop_partition(connection, id, partition)

        _changed(self._writer, "queue", id, "", 0.0, clear)

    def _held(self, connection: Connection, id: str, partition: str, now: float) -> int:
        """Items in a partition that something is about to be put in; what has expired goes first."""
        items = _live(connection, id, partition, now)
        if not items:
            _drop_partition(connection, id, partition)
            if connection.execute(sql.PARTITIONS, (id,)).fetchone()[0] >= self._bounds.partitions_max:
                _trim_partitions(now, connection)
                if connection.execute(sql.PARTITIONS, (id,)).fetchone()[0] >= self._bounds.partitions_max:
                    raise kv.too_many_partitions(self._bounds)
        return items


def trim_kv(now: float, connection: Connection) -> int:
    """Forget what has expired; in the writing thread."""
    connection.execute(sql.TRIM_ANSWERS, (now - ANSWER_KEPT_S,))
    _trim_partitions(now, connection)
    return connection.execute(sql.TRIM_ENTRIES, (now,)).rowcount


def _changed(writer: Writer, kind: Kind, id: str, request: str, now: float, change: Callable[[Connection], T]) -> T:
    """Make a change and return what it returned, or what it did when it was made before; on disk either way."""
    answers: list[T] = []

    def once(connection: Connection) -> int:
        _size(connection, id, kind)
        if request:
            for (answer,) in connection.execute(sql.ANSWER, (id, request, now - ANSWER_KEPT_S)):
                answers.append(msgspec.msgpack.decode(answer))
                return 0
        answer = change(connection)
        # Where nothing changed, it may as well be tried again.
        if request and answer:
            connection.execute(sql.ADD_ANSWER, (id, request, now, _encode(answer)))
        answers.append(answer)
        return 1

    writer.do([once])
    return answers[0]


def _size(connection: Connection, id: str, kind: Kind = "dict") -> int:
    """Of a dict, how many entries it has; refuses what is not there."""
    found = connection.execute(sql.COLLECTION_SIZE, (id,)).fetchone()
    if found is None:
        raise kv.unknown(kind, id)
    return int(found[0])


def _live(connection: Connection, id: str, partition: str, now: float) -> int:
    """Items in a partition that has not expired."""
    found = connection.execute(sql.PARTITION, (id, partition)).fetchone()
    return 0 if found is None or found[1] <= now else int(found[0])


def _drop_partition(connection: Connection, id: str, partition: str) -> None:
    connection.execute(sql.DROP_PARTITION_ITEMS, (id, partition))
    connection.execute(sql.DROP_PARTITION, (id, partition))


def _trim_partitions(now: float, connection: Connection) -> None:
    for id, partition in connection.execute(sql.PARTITIONS_EXPIRED, (now,)).fetchall():
        _drop_partition(connection, id, partition)


def _drop_collection(id: str, connection: Connection) -> int:
    for drop in sql.DROP_COLLECTION:
        _run(connection, drop, id)
    return 1


def _run(connection: Connection, statement: str, id: str) -> None:
    connection.execute(statement, (id,))


def _last(sizes: Sequence[tuple[int, int]], bounds: Bounds) -> int:
    """The last one that still has room in an answer; 0 where there is none at all."""
    fit = kv.fitting((size for _, size in sizes), bounds.request_bytes_max)
    return int(sizes[fit - 1][0]) if fit else 0
