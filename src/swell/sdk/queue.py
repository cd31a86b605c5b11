"""Which values do programs pass on, first in, first out? A queue: by its name on the server, in partitions.

Whoever waits for an item, or for room, is told by the server when there is: nobody looks again and again.
"""

from __future__ import annotations

import builtins
import math
import queue
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from swell.model.errors import SwellError
from swell.model.kv import PARTITION_TTL_S
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.shared import Ephemeral, Objects, Shared, check, check_id, request_id
from swell.sdk.signatures import public
from swell.sdk.unavailable import stand_in
from swell.wire.kv import Items, NewItems, PartitionRow, Take

WAIT_S = 30.0
"""How long one request waits; then the next one does. Proxies between may not like longer ones."""
LOOK_S = 0.5
"""How often `iterate` looks whether an item has come."""
MOST = 1 << 30


class Queue(Shared):
    """Values that are put in at one end and got out at the other: `swell.Queue.from_name("q", create_if_missing=True)`.

    An item is got once, by one of those that wait for it. Partitions of a queue know nothing of each other.
    """

    kind = "queue"
    objects: QueueObjects

    @staticmethod
    @public
    def from_name(
        name: str, *, environment_name: str | None = None, create_if_missing: bool = False, client: None = None
    ) -> Queue:
        """One that is there or, with `create_if_missing`, that is made when it is first used."""
        refuse(Given("Queue.from_name", locals().copy()))
        check(Queue, name, environment_name)
        return Queue(name, environment_name, create_if_missing)

    @staticmethod
    @public
    def from_id(object_id: str, client: None = None) -> Queue:
        """The one whose `object_id` that is, in this namespace."""
        refuse(Given("Queue.from_id", locals().copy()))
        check_id(Queue, object_id)
        return Queue(object_id, None)

    @staticmethod
    @public
    def ephemeral(client: None = None, environment_name: str | None = None) -> Ephemeral[Queue]:
        """`with swell.Queue.ephemeral() as q:` is one that is deleted at the end, and when this program ends."""
        refuse(Given("Queue.ephemeral", locals().copy()))
        return Ephemeral(Queue, environment_name)

    @operation
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: float = PARTITION_TTL_S,
    ) -> None:
        """Put an item at the end; on disk when it returns. Where the partition is full it waits for room, for
        `timeout` seconds or (None) as long as it takes; `queue.Full` after that, or at once without `block`."""
        await self._put([v], block, timeout, partition, partition_ttl)

    @operation
    async def put_many(
        self,
        vs: Iterable[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: float = PARTITION_TTL_S,
    ) -> None:
        """Put many items at the end, all of them or none; otherwise as `put`."""
        await self._put(list(vs), block, timeout, partition, partition_ttl)

    @operation
    async def get(self, block: bool = True, timeout: float | None = None, *, partition: str | None = None) -> Any:
        """Get the first item out, for good. Where there is none it waits for one, for `timeout` seconds or (None) as
        long as it takes; `queue.Empty` after that. Without `block` it returns None where there is none."""
        items = await self._take(1, block, timeout, partition)
        return self._unpickled("An item", items[0]) if items else None

    @operation
    async def get_many(
        self, n_values: int, block: bool = True, timeout: float | None = None, *, partition: str | None = None
    ) -> list[Any]:
        """Get the first items out, so many at most and at least one; otherwise as `get`. Without `block` it may be
        none."""
        items = await self._take(n_values, block, timeout, partition)
        return [self._unpickled("An item", item) for item in items]

    @stream_operation
    def iterate(self, *, partition: str | None = None, item_poll_timeout: float = 0.0) -> AsyncGenerator[Any, None]:
        """The items one by one, which all stay. After the last one it waits so many seconds for another."""
        return self._unpickled_each(_partition("Queue.iterate", partition), item_poll_timeout)

    @operation
    async def len(self, *, partition: str | None = None, total: bool = False) -> int:
        """How many items there are in a partition, or (with `total`) in all of them."""
        if total and partition is not None:
            raise SwellError("bad_argument", "Queue.len(partition=…, total=True): give one of them.")
        wanted = _partition("Queue.len", partition)
        rows = await self._ask("GET", "/partitions", builtins.list[PartitionRow])
        return sum(row.items for row in rows if total or row.name == wanted)

    @operation
    async def clear(self, *, partition: str | None = None, all: bool = False) -> None:
        """Take all items out of a partition, or (with `all`) of every one."""
        if all and partition is not None:
            raise SwellError("bad_argument", "Queue.clear(partition=…, all=True): give one of them.")
        query = f"all={int(all)}" if all else f"partition={_quoted(_partition('Queue.clear', partition))}"
        await self._ask("DELETE", f"/items?{query}", type(None))

    # ------------------------------------------------------------------------------------------

    async def _put(
        self, values: list[Any], block: bool, timeout: float | None, partition: str | None, ttl_s: float
    ) -> None:
        where = _partition("Queue.put", partition)
        if not ttl_s > 0:
            raise SwellError("bad_argument", f"Queue.put(partition_ttl={ttl_s!r}): give seconds above zero.")
        items = tuple(self._pickled("An item", value) for value in values)
        request, ends = request_id(), _ends("Queue.put", block, timeout)
        while True:
            wait_s = min(max(ends - time.monotonic(), 0.0), WAIT_S)
            try:
                return await self._ask("POST", "/items", type(None), NewItems(items, where, ttl_s, wait_s, request))
            except SwellError as error:
                if error.code != "queue_full":
                    raise
                if time.monotonic() >= ends:
                    raise queue.Full(error.message) from None

    @operation
    async def _raw_take(self, most: int, timeout: float, partition: str | None) -> tuple[bytes, ...]:
        """As they were pickled."""
        return await self._take(most, True, timeout, partition)

    @stream_operation
    def _raw_items(self, partition: str | None) -> AsyncGenerator[bytes, None]:
        return self._each(_partition("Queue.iterate", partition), 0.0)

    async def _take(self, most: int, block: bool, timeout: float | None, partition: str | None) -> tuple[bytes, ...]:
        if most < 1:
            raise SwellError("bad_argument", f"Queue.get_many({most!r}): give a number above zero.")
        where = _partition("Queue.get", partition)
        request, ends = request_id(), _ends("Queue.get", block, timeout)
        while True:
            wait_s = min(max(ends - time.monotonic(), 0.0), WAIT_S)
            asked = Take(min(most, MOST), where, wait_s, request)
            items = (await self._ask("POST", "/take", Items, asked)).items
            if items or not block:
                return items
            if time.monotonic() >= ends:
                raise queue.Empty

    async def _unpickled_each(self, partition: str, timeout_s: float) -> AsyncGenerator[Any, None]:
        async with aclosing(self._each(partition, timeout_s)) as items:
            async for item in items:
                yield self._unpickled("An item", item)

    async def _each(self, partition: str, timeout_s: float) -> AsyncGenerator[bytes, None]:
        after, last = 0, time.monotonic()
        while True:
            page = await self._ask("GET", f"/items?partition={_quoted(partition)}&after={after}", Items)
            for item in page.items:
                yield item
            if page.after:
                after, last = page.after, time.monotonic()
            elif (left_s := last + timeout_s - time.monotonic()) <= 0:
                return
            else:
                await self._reached().transport.pause(min(left_s, LOOK_S))


class QueueObjects(Objects[Queue]):
    """Makes, lists and deletes queues: `swell.Queue.objects`."""

    of = Queue


# As users write it.
QueueObjects.__name__ = QueueObjects.__qualname__ = "Queue.objects"
Queue.objects = QueueObjects()
stand_in(
    Queue,
    {
        "create_deployed": "Queue.create_deployed() is called Queue.objects.create() now.",
        "delete": "Queue.delete() is called Queue.objects.delete() now.",
        "info": "Queues are listed with `swell queue list`, and Queue.objects.list().",
        "lookup": "Queue.lookup() is called Queue.from_name() now.",
        "persisted": "Queue.persisted() is called Queue.from_name(name, create_if_missing=True) now.",
    },
)


def _ends(what: str, block: bool, timeout: float | None) -> float:
    """When to wait no longer, on the monotonic clock."""
    if timeout is not None and timeout < 0:
        raise SwellError("bad_argument", f"{what}(timeout={timeout!r}): give seconds, from zero on.")
    if not block:
        return -math.inf
    return math.inf if timeout is None else time.monotonic() + timeout


def _partition(what: str, name: str | None) -> str:
    """Its name on the wire: empty for the default one."""
    if name is not None and (not isinstance(name, str) or not name):
        raise SwellError("bad_argument", f"{what}(partition={name!r}): give text, or nothing for the default one.")
    return name or ""


def _quoted(text: str) -> str:
    return quote(text, safe="")
