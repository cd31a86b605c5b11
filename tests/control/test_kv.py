"""Are dicts and queues found by name and id, and does whoever waits for an item or for room get it in its turn?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from swell.control import kv as module
from swell.control.kv import KvKeeper
from swell.model.errors import SwellError
from swell.model.kv import Bounds
from swell.model.owner import Owner
from swell.store.memory import MemoryStore
from swell.wire.kv import NewItems, Take

BOUNDS = Bounds(items_max=2, collections_max=3)
AT = ("default", "q")
WAIT_S = 60.0
"""Longer than any of it takes: what is waited for comes, or the test fails."""


class Clock:
    at = 100.0

    def now(self) -> float:
        return self.at


class Desk:
    """A keeper, with the store behind it."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(bounds=BOUNDS), Clock()
        self.keeper = self.open()

    def open(self) -> KvKeeper:
        """As after a restart of control."""
        return KvKeeper(self.store, self.clock, BOUNDS)

    async def put(self, *items: bytes, wait_s: float = 0.0, partition: str = "") -> None:
        await self.keeper.put_items(*AT, NewItems(items, partition, wait_s=wait_s))

    async def take(self, most: int = 1, wait_s: float = WAIT_S, partition: str = "") -> list[bytes]:
        return await self.keeper.take(*AT, Take(most, partition, wait_s))


def run(scenario: Callable[[Desk], Awaitable[None]]) -> None:
    async def begun() -> None:
        desk = Desk()
        await desk.keeper.create("queue", *AT)
        await asyncio.wait_for(scenario(desk), WAIT_S)

    asyncio.run(begun())


async def code(act: Awaitable[object]) -> str:
    with pytest.raises(SwellError) as raised:
        await act
    return raised.value.code


async def waiting(desk: Desk, count: int) -> None:
    """Until so many wait, and have looked."""
    while sum(map(len, desk.keeper._waiting._waiting.values())) != count:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.001)
    # What they look at in threads was there before this.
    await asyncio.gather(*(desk.keeper.partitions(*AT) for _ in range(module.THREADS)))


def test_they_are_found_by_name_and_by_id_each_kind_in_its_namespace() -> None:
    async def scenario(desk: Desk) -> None:
        keeper = desk.keeper
        made = await keeper.create("dict", "a", "x")
        assert (made.name, made.made_at, made.ephemeral) == ("x", 100.0, False)
        await keeper.put("a", "x", [(b"k", b"v")], False, "")
        assert await keeper.get("a", made.id, b"k") == b"v"
        assert (await keeper.row("dict", "a", made.id)).size == 1
        assert [row.name for row in await keeper.rows("dict", "a")] == ["x"]
        assert await keeper.rows("dict", "default") == []
        for namespace, name in (("default", "x"), ("default", made.id), ("a", "q")):
            assert await code(keeper.row("dict", namespace, name)) == "unknown_dict"
        again = desk.open()
        assert await again.get("a", "x", b"k") == b"v"
        await again.delete("dict", "a", "x")
        assert await code(again.get("a", "x", b"k")) == "unknown_dict"

    run(scenario)


def test_a_name_is_taken_once_and_there_are_so_many() -> None:
    async def scenario(desk: Desk) -> None:
        keeper = desk.keeper
        first = await keeper.create("dict", "default", "x", owner=Owner(1, 2, "m"))
        assert first.ephemeral
        assert [each.name for each in keeper.owned()] == ["x"]
        assert await code(keeper.create("dict", "default", "x")) == "dict_exists"
        assert (await keeper.create("dict", "default", "x", if_missing=True)).id == first.id
        await keeper.create("queue", "default", "x")
        assert await code(keeper.create("queue", "default", "y")) == "too_many_collections"
        for namespace, name in (("default", "no/name"), ("-", "x"), ("default", "di-0123456789abcdef")):
            assert await code(keeper.create("dict", namespace, name)) == "bad_name"

    run(scenario)


def test_who_waits_for_an_item_gets_it_in_turn() -> None:
    async def scenario(desk: Desk) -> None:
        takers = []
        for n in range(3):
            takers.append(asyncio.create_task(desk.take()))
            await waiting(desk, n + 1)
        await desk.put(b"1")
        assert await takers[0] == [b"1"]
        await desk.put(b"2", b"3")
        assert [await taker for taker in takers[1:]] == [[b"2"], [b"3"]]
        assert await desk.take(wait_s=0.0) == []
        assert desk.keeper._waiting._waiting == {}
        assert desk.keeper._waiting.count == 0

    run(scenario)


def test_an_item_of_another_partition_is_not_for_them() -> None:
    async def scenario(desk: Desk) -> None:
        taker = asyncio.create_task(desk.take(partition="p"))
        await waiting(desk, 1)
        await desk.put(b"1")
        await desk.put(b"2", partition="p")
        assert await taker == [b"2"]
        assert await desk.take(most=9) == [b"1"]

    run(scenario)


def test_what_somebody_was_woken_for_and_left_is_for_the_next() -> None:
    async def scenario(desk: Desk) -> None:
        leaver = asyncio.create_task(desk.take())
        await waiting(desk, 1)
        taker = asyncio.create_task(desk.take())
        await waiting(desk, 2)
        # It is woken, and leaves before it has looked.
        desk.keeper._waiting.wake((desk.keeper._kept["queue", *AT].id, "", "item"), 1)
        leaver.cancel()
        desk.store.queues.put(desk.keeper._kept["queue", *AT].id, "", [b"1"], 60.0, 100.0)
        assert await taker == [b"1"]
        assert leaver.cancelled() or await asyncio.wait({leaver})

    run(scenario)


def test_who_left_takes_nothing() -> None:
    async def scenario(desk: Desk) -> None:
        leaver = asyncio.create_task(desk.take())
        await waiting(desk, 1)
        leaver.cancel()
        await asyncio.wait({leaver})
        await desk.put(b"1")
        assert await desk.take(wait_s=0.0) == [b"1"]

    run(scenario)


def test_who_waits_for_room_gets_it_once_something_was_taken() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.put(b"1", b"2")
        assert await code(desk.put(b"3")) == "queue_full"
        assert await code(desk.put(b"3", wait_s=0.01)) == "queue_full"
        putter = asyncio.create_task(desk.put(b"3", wait_s=WAIT_S))
        await waiting(desk, 1)
        assert await desk.take() == [b"1"]
        await putter
        assert await desk.take(most=9) == [b"2", b"3"]
        await desk.put(b"1", b"2")
        putter = asyncio.create_task(desk.put(b"3", wait_s=WAIT_S))
        await waiting(desk, 1)
        await desk.keeper.clear_items(*AT, "")
        await putter
        assert await desk.take(most=9) == [b"3"]

    run(scenario)


def test_who_waits_at_a_queue_that_is_deleted_is_told() -> None:
    async def scenario(desk: Desk) -> None:
        taker = asyncio.create_task(desk.take())
        await waiting(desk, 1)
        await desk.keeper.delete("queue", *AT)
        assert await code(taker) == "unknown_queue"

    run(scenario)


def test_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 1)

    async def scenario(desk: Desk) -> None:
        taker = asyncio.create_task(desk.take())
        await waiting(desk, 1)
        assert await code(desk.take()) == "busy"
        assert await desk.take(wait_s=0.0) == []
        await desk.put(b"1")
        assert await taker == [b"1"]

    run(scenario)


def test_what_no_partition_could_hold_is_refused_without_waiting() -> None:
    async def scenario(desk: Desk) -> None:
        assert await code(desk.put(b"1", b"2", b"3", wait_s=WAIT_S)) == "value_too_large"
        assert await code(desk.take(partition="p" * 65)) == "bad_name"

    run(scenario)
