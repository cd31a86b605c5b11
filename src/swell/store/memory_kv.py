"""What is in dicts and queues when nothing need survive? The same as in the database, in plain dictionaries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from swell.model import kv
from swell.model.kv import ANSWER_KEPT_S, DICT_KEPT_S, DICT_TOUCH_S, PAGE_MAX, Bounds, Collection, Kind, Page, Row

T = TypeVar("T")


@dataclass
class _Entry:
    number: int
    value: bytes
    expires_at: float


@dataclass
class _Partition:
    expires_at: float = 0.0
    items: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass
class _Content:
    """Of one dict or queue."""

    collection: Collection
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    partitions: dict[str, _Partition] = field(default_factory=dict)
    answers: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def trim(self, now: float) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if entry.expires_at > now}
        self.partitions = {name: each for name, each in self.partitions.items() if each.expires_at > now}
        self.answers = {id: each for id, each in self.answers.items() if each[0] > now - ANSWER_KEPT_S}

    def live(self, partition: str, now: float) -> _Partition | None:
        found = self.partitions.get(partition)
        return found if found is not None and found.expires_at > now else None


class Contents:
    """Of all dicts and queues. Any thread may ask, one at a time."""

    def __init__(self) -> None:
        self.by_id: dict[str, _Content] = {}
        self.lock = threading.RLock()
        self._number = 0

    def of(self, kind: Kind, id: str) -> _Content:
        if id not in self.by_id:
            raise kv.unknown(kind, id)
        return self.by_id[id]

    def number(self) -> int:
        self._number += 1
        return self._number

    def changed(self, kind: Kind, id: str, request: str, now: float, change: Callable[[_Content], T]) -> T:
        """Make a change and return what it returned, or what it did when it was made before."""
        with self.lock:
            content = self.of(kind, id)
            at, known = content.answers.get(request, (0.0, None))
            if request and at > now - ANSWER_KEPT_S:
                before: T = known
                return before
            answer = change(content)
            if request and answer:
                content.answers[request] = (now, answer)
            return answer


class MemoryKv:
    """The `Kv` port."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def add(self, collection: Collection) -> None:
        """One more, with nothing in it."""
        self._contents.by_id[collection.id] = _Content(collection)

    def all(self) -> list[Collection]:
        """By kind, namespace and name."""
        return sorted((each.collection for each in self._contents.by_id.values()), key=lambda each: each.key)

    def remove(self, id: str) -> None:
        """Forget it and all that is in it."""
        self._contents.by_id.pop(id, None)

    def sizes(self) -> dict[str, int]:
        """Entries or items of each, by its id."""
        return {
            id: len(each.entries) + sum(len(partition.items) for partition in each.partitions.values())
            for id, each in self._contents.by_id.items()
        }

    def trim(self, now: float) -> None:
        """Forget what has expired."""
        for each in self._contents.by_id.values():
            each.trim(now)


class MemoryDicts:
    """The `Dicts` port."""

    def __init__(self, contents: Contents, bounds: Bounds) -> None:
        self._contents = contents
        self._bounds = bounds

    def get(self, id: str, key: bytes, now: float) -> bytes | None:
        """The value, which is kept for a while longer."""
        entry = self._live(id, now).get(key)
        if entry is None:
            return None
        if entry.expires_at < now + DICT_KEPT_S:
            entry.expires_at = now + DICT_KEPT_S + DICT_TOUCH_S
        return entry.value

    def contains(self, id: str, key: bytes, now: float) -> bool:
        """Is it there?"""
        return key in self._live(id, now)

    def put(
        self, id: str, entries: Sequence[tuple[bytes, bytes]], now: float, *, missing: bool = False, request: str = ""
    ) -> int:
        """Put all or none of them; with `missing` those alone whose keys are not there."""
        kv.check_entries(entries, self._bounds)

        def put(content: _Content) -> int:
            held = self._live(id, now)
            added: dict[bytes, bytes] = {}
            for key, value in entries:
                # Of two that have the same key the last one counts; with `missing` it is there by then.
                if not missing or key not in held.keys() | added.keys():
                    added[key] = value
            if len(held.keys() | added.keys()) > self._bounds.entries_max:
                raise kv.dict_full(self._bounds)
            until = now + DICT_KEPT_S + DICT_TOUCH_S
            for key, value in added.items():
                number = held[key].number if key in held else self._contents.number()
                content.entries[key] = _Entry(number, value, until)
            return len(added) if missing else len(entries)

        return self._contents.changed("dict", id, request, now, put)

    def pop(self, id: str, key: bytes, now: float, *, request: str = "") -> bytes | None:
        """Take an entry out."""

        def pop(content: _Content) -> bytes | None:
            found = content.entries.pop(key, None)
            return found.value if found is not None and found.expires_at > now else None

        return self._contents.changed("dict", id, request, now, pop)

    def page(self, id: str, after: int, now: float, *, values: bool = True) -> Page:
        """The next entries, oldest first."""
        held = self._live(id, now).items()
        rows = [Row(entry.number, key, entry.value if values else b"") for key, entry in held if entry.number > after]
        return _page(sorted(rows), self._bounds)

    def count(self, id: str, now: float) -> int:
        """How many there are."""
        return len(self._live(id, now))

    def clear(self, id: str) -> None:
        """Take all out."""
        self._contents.changed("dict", id, "", 0.0, lambda content: content.entries.clear())

    def _live(self, id: str, now: float) -> dict[bytes, _Entry]:
        with self._contents.lock:
            entries = self._contents.of("dict", id).entries
            return {key: entry for key, entry in entries.items() if entry.expires_at > now}


class MemoryQueues:
    """The `Queues` port."""

    def __init__(self, contents: Contents, bounds: Bounds) -> None:
        self._contents = contents
        self._bounds = bounds

    def put(
        self, id: str, partition: str, values: Sequence[bytes], ttl_s: float, now: float, *, request: str = ""
    ) -> None:
        """Put all or none of them at the end of a partition."""
        kv.check_items(values, partition, self._bounds)

        def put(content: _Content) -> bool:
            held = content.live(partition, now)
            if len(held.items if held else ()) + len(values) > self._bounds.items_max:
                raise kv.queue_full(self._bounds)
            if held is None:
                live = [name for name in content.partitions if content.live(name, now)]
                if len(live) >= self._bounds.partitions_max:
                    raise kv.too_many_partitions(self._bounds)
                held = content.partitions[partition] = _Partition()
            held.items += [(self._contents.number(), value) for value in values]
            held.expires_at = now + ttl_s
            return True

        if values:
            self._contents.changed("queue", id, request, now, put)

    def take(self, id: str, partition: str, most: int, now: float, *, request: str = "") -> list[bytes]:
        """Take the first items out, for good."""

        def take(content: _Content) -> list[bytes]:
            held = content.live(partition, now)
            if held is None:
                return []
            first = [value for _, value in held.items[:most]]
            taken = first[: kv.fitting(map(len, first), self._bounds.request_bytes_max)]
            del held.items[: len(taken)]
            if not held.items:
                del content.partitions[partition]
            return taken

        return self._contents.changed("queue", id, request, now, take) if most > 0 else []

    def page(self, id: str, partition: str, after: int, now: float) -> Page:
        """The next items, which stay."""
        with self._contents.lock:
            held = self._contents.of("queue", id).live(partition, now)
            items = held.items if held else []
            return _page([Row(number, b"", value) for number, value in items if number > after], self._bounds)

    def partitions(self, id: str, now: float) -> dict[str, int]:
        """Those that hold anything, and how many items each does."""
        with self._contents.lock:
            content = self._contents.of("queue", id)
            live = ((name, content.live(name, now)) for name in sorted(content.partitions, key=str.encode))
            return {name: len(partition.items) for name, partition in live if partition}

    def clear(self, id: str, partition: str | None) -> None:
        """Take all out of a partition, or of the queue."""

        def clear(content: _Content) -> None:
            if partition is None:
                content.partitions.clear()
            else:
                content.partitions.pop(partition, None)

        self._contents.changed("queue", id, "", 0.0, clear)


def _page(rows: Sequence[Row], bounds: Bounds) -> Page:
    first = tuple(islice(rows, PAGE_MAX))
    found = first[: kv.fitting((len(row.key) + len(row.value) for row in first), bounds.request_bytes_max)]
    return Page(found, found[-1].number if found else 0)
