"""Which dicts and queues are there, and who waits for an item, or for room? What is in them only the store knows.

Nobody looks again and again: a put wakes as many of those that wait for an item as it brings, the longest waiting
first, and whoever takes some wakes those that wait for room.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, TypeVar

from swell.model import kv
from swell.model.errors import SwellError
from swell.model.kv import BOUNDS, Bounds, Collection, Kind, Page
from swell.model.names import name_problem
from swell.model.owner import Owner
from swell.model.ports import Clock, Store
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.kv import CollectionRow, NewItems, Take

T = TypeVar("T")

THREADS = 16
"""Changes that are asked for at once share a commit; each waits for it in a thread."""
WAITING_MAX = 1000
"""Requests that may wait for items or room at a time."""

Place = tuple[str, str, Literal["item", "room"]]
"""Id of a queue, partition, and what is waited for there."""


class Waiting:
    """Those that wait for something, by what that is, the longest waiting first."""

    def __init__(self) -> None:
        self._waiting: defaultdict[Place, dict[asyncio.Event, None]] = defaultdict(dict)
        self.count = 0

    def wake(self, place: Place, most: int) -> None:
        """Let so many look again."""
        waiting = self._waiting.get(place, {})
        for event in list(waiting)[:most]:
            del waiting[event]
            event.set()

    def wake_all(self, id: str) -> None:
        """Whoever waits at this queue."""
        for place in [place for place in self._waiting if place[0] == id]:
            self.wake(place, WAITING_MAX)

    async def until(self, place: Place, wait_s: float, look: Callable[[], asyncio.Future[T | None]]) -> T | None:
        """What `look` finds, now or within that time; None: nothing."""
        if wait_s and self.count >= WAITING_MAX:
            words = f"{WAITING_MAX} requests wait for items of queues, or for room, already: try again later."
            raise SwellError("busy", words, status=503)
        ends = asyncio.get_running_loop().time() + wait_s
        event = asyncio.Event()
        self.count += 1
        try:
            while True:
                # It waits before it looks: what comes meanwhile wakes it.
                event.clear()
                self._waiting[place][event] = None
                found = await look()
                left_s = ends - asyncio.get_running_loop().time()
                if found is not None or left_s <= 0:
                    return found
                # Not `wait_for`: should it be woken and cancelled at once, that would not be cancelled.
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await event.wait()
        finally:
            self.count -= 1
            waiting = self._waiting[place]
            waiting.pop(event, None)
            if event.is_set():
                # What it was woken for may be another's now.
                self.wake(place, 1)
            if not waiting:
                del self._waiting[place]


class KvKeeper:
    """The dicts and queues of one server."""

    def __init__(self, store: Store, clock: Clock, bounds: Bounds = BOUNDS) -> None:
        """`bounds`: those that the store has."""
        self._store = store
        self._clock = clock
        self._bounds = bounds
        self._naming = asyncio.Lock()
        self._kept = {each.key: each for each in store.kv.all()}
        self._threads = ThreadPoolExecutor(THREADS, "kv")
        self._waiting = Waiting()

    # -- by name -------------------------------------------------------------------------------

    async def rows(self, kind: Kind, namespace: str) -> list[CollectionRow]:
        """Those of a namespace."""
        sizes = await self._do(self._store.kv.sizes)
        found = [each for _, each in sorted(self._kept.items()) if (each.kind, each.namespace) == (kind, namespace)]
        return [_row(each, sizes) for each in found]

    async def row(self, kind: Kind, namespace: str, name: str) -> CollectionRow:
        """One of them."""
        found = self._found(kind, namespace, name)
        return _row(found, await self._do(self._store.kv.sizes))

    async def create(
        self, kind: Kind, namespace: str, name: str, if_missing: bool = False, owner: Owner | None = None
    ) -> CollectionRow:
        """A new one, with nothing in it; with `if_missing` the one that is there is as good."""
        for what, text in (("namespace", namespace), (kind, name)):
            problem = name_problem(what, text)
            if problem is None and kv.is_id(text):
                problem = f"{text!r} looks like an id: take another name"
            if problem is not None:
                raise SwellError("bad_name", f"{problem}.", status=422)
        async with self._naming:
            known = self._kept.get((kind, namespace, name))
            if known is None:
                if len(self._kept) >= self._bounds.collections_max:
                    words = f"There are {len(self._kept)} dicts and queues, and no server has more: delete some."
                    raise SwellError("too_many_collections", words, status=409)
                id = f"{kv.PREFIXES[kind]}{secrets.token_hex(8)}"
                known = Collection(kind, namespace, name, id, self._clock.now(), owner)
                await asyncio.shield(self._add(known))
            elif not if_missing:
                raise kv.taken(kind, name)
        return _row(known, {})

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Forget it and all that is in it."""
        async with self._naming:
            await asyncio.shield(self._remove(self._found(kind, namespace, name)))

    def owned(self) -> list[Collection]:
        """Those that end with a program."""
        return [each for each in self._kept.values() if each.owner is not None]

    # -- dicts ---------------------------------------------------------------------------------

    async def get(self, namespace: str, name: str, key: bytes) -> bytes | None:
        """The value of a key."""
        id = self._found("dict", namespace, name).id
        return await self._do(lambda: self._store.dicts.get(id, key, self._clock.now()))

    async def contains(self, namespace: str, name: str, key: bytes) -> bool:
        """Is it there?"""
        id = self._found("dict", namespace, name).id
        return await self._do(lambda: self._store.dicts.contains(id, key, self._clock.now()))

    async def put(
        self, namespace: str, name: str, entries: Sequence[tuple[bytes, bytes]], missing: bool, request: str
    ) -> int:
        """Put all or none; with `missing` those alone whose keys are not there. Returns how many were put."""
        id, dicts = self._found("dict", namespace, name).id, self._store.dicts
        return await self._do(lambda: dicts.put(id, entries, self._clock.now(), missing=missing, request=request))

    async def pop(self, namespace: str, name: str, key: bytes, request: str) -> bytes | None:
        """Take an entry out."""
        id = self._found("dict", namespace, name).id
        return await self._do(lambda: self._store.dicts.pop(id, key, self._clock.now(), request=request))

    async def entries(self, namespace: str, name: str, after: int, values: bool) -> Page:
        """The next ones."""
        id = self._found("dict", namespace, name).id
        return await self._do(lambda: self._store.dicts.page(id, after, self._clock.now(), values=values))

    async def count(self, namespace: str, name: str) -> int:
        """How many entries there are."""
        id = self._found("dict", namespace, name).id
        return await self._do(lambda: self._store.dicts.count(id, self._clock.now()))

    async def clear(self, namespace: str, name: str) -> None:
        """Take all entries out."""
        id = self._found("dict", namespace, name).id
        await self._do(lambda: self._store.dicts.clear(id))

    # -- queues --------------------------------------------------------------------------------

    async def put_items(self, namespace: str, name: str, asked: NewItems) -> None:
        """Put all or none at the end of a partition, once there is room."""
        id, queues = self._found("queue", namespace, name).id, self._store.queues
        full: list[SwellError] = []

        def put() -> bool | None:
            try:
                now = self._clock.now()
                queues.put(id, asked.partition, asked.items, asked.ttl_s, now, request=asked.request)
            except SwellError as error:
                if error.code != "queue_full":
                    raise
                full.append(error)
                return None
            return True

        room: Place = (id, asked.partition, "room")
        if await self._waiting.until(room, asked.wait_s, lambda: self._do(put)) is None:
            raise full[-1]
        self._waiting.wake((id, asked.partition, "item"), len(asked.items))

    async def take(self, namespace: str, name: str, asked: Take) -> list[bytes]:
        """Take items out of a partition, for good, once there are any."""
        kv.check_partition(asked.partition, self._bounds)
        id, queues = self._found("queue", namespace, name).id, self._store.queues

        def take() -> list[bytes] | None:
            return queues.take(id, asked.partition, asked.most, self._clock.now(), request=asked.request) or None

        item: Place = (id, asked.partition, "item")
        taken = await self._waiting.until(item, asked.wait_s, lambda: self._do(take))
        if taken:
            self._waiting.wake((id, asked.partition, "room"), WAITING_MAX)
        return taken or []

    async def items(self, namespace: str, name: str, partition: str, after: int) -> Page:
        """The next ones, which stay."""
        id = self._found("queue", namespace, name).id
        return await self._do(lambda: self._store.queues.page(id, partition, after, self._clock.now()))

    async def partitions(self, namespace: str, name: str) -> dict[str, int]:
        """Those that hold anything, and how many items each does."""
        id = self._found("queue", namespace, name).id
        return await self._do(lambda: self._store.queues.partitions(id, self._clock.now()))

    async def clear_items(self, namespace: str, name: str, partition: str | None) -> None:
        """Take all out of a partition, or (None) of the queue."""
        id = self._found("queue", namespace, name).id
        await self._do(lambda: self._store.queues.clear(id, partition))
        self._waiting.wake_all(id)

    # ------------------------------------------------------------------------------------------

    def _found(self, kind: Kind, namespace: str, name: str) -> Collection:
        """By its name, or by its id."""
        if kv.is_id(name):
            of_id = (each for each in self._kept.values() if each.id == name)
            found = next((each for each in of_id if (each.kind, each.namespace) == (kind, namespace)), None)
        else:
            found = self._kept.get((kind, namespace, name))
        if found is not None:
            return found
        where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace!r}"
        own = kind.capitalize()
        way = f" `swell {kind} create {name}` makes it, and so does {own}.from_name({name!r}, create_if_missing=True)."
        raise kv.unknown(kind, name, where, "" if kv.is_id(name) else way)

    async def _add(self, collection: Collection) -> None:
        await self._do(lambda: self._store.kv.add(collection))
        self._kept[collection.key] = collection

    async def _remove(self, collection: Collection) -> None:
        await self._do(lambda: self._store.kv.remove(collection.id))
        del self._kept[collection.key]
        self._waiting.wake_all(collection.id)

    def _do(self, act: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, act)


def _row(collection: Collection, sizes: dict[str, int]) -> CollectionRow:
    size, owned = sizes.get(collection.id, 0), collection.owner is not None
    return CollectionRow(*collection.key, collection.id, collection.made_at, size, owned)
