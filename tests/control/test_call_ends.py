"""Is who waits for many calls together told of each end once there is one, and of what there is not at once?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from control.calls_place import WAIT_S, Place, new
from control.test_call_groups import anybodys, many
from control.test_calls import STOPPED, code, hasten, run
from swell.control import call_waits
from swell.control.call_desk import CallDesk
from swell.model.errors import SwellError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


async def accepted(place: Place, count: int, **fields: Any) -> list[str]:
    return [await place.keeper.accept(new(**fields)) for _ in range(count)]


def test_the_first_end_of_any_is_told_and_the_others_later() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        left = await accepted(place, 6)
        assert await desk.ends(left, 1, 0.0, anybodys) == ([], [])
        assert await desk.ends(left, 1, 0.01, anybodys) == ([], [])
        while left:
            reading = asyncio.create_task(desk.ends([*left, left[0]], 1, WAIT_S, anybodys))
            await place.settle()
            assert not reading.done()
            await place.keeper.cancel(left[-1], STOPPED)
            found, unknown = await reading
            assert [(row.id, row.state, body) for row, body in found] == [(left.pop(), "cancelled", None)]
            assert unknown == []
        assert not place.keeper.waits._waiting
        assert (place.keeper.waits.count, place.keeper.waits._named) == (0, 0)

    run(scenario)


def test_more_ends_are_waited_for_where_that_is_wanted_but_for_a_moment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        ids = await accepted(place, 5)
        monkeypatch.setattr(call_waits, "GATHER_S", WAIT_S)
        reading = asyncio.create_task(desk.ends(ids, 3, WAIT_S, anybodys))
        for id in ids[:3]:
            await place.settle()
            assert not reading.done()
            await place.keeper.cancel(id, STOPPED)
        found, _ = await reading
        assert [row.id for row, _ in found] == sorted(ids[:3])
        monkeypatch.setattr(call_waits, "GATHER_S", 0.01)
        found, _ = await desk.ends(ids, 5, WAIT_S, anybodys)
        assert len(found) == 3

    run(scenario)


def test_those_that_are_not_there_or_of_others_are_told_at_once() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        mine, theirs = await accepted(place, 2, key="k"), await accepted(place, 2)

        def of_k(_namespace: str, _app: str, key: str) -> bool:
            return key == "k"

        found = await desk.ends([*mine, *theirs, "fc-nobody"], 9, WAIT_S, of_k)
        assert found == ([], sorted([*theirs, "fc-nobody"]))
        await place.keeper.cancel(mine[0], STOPPED)
        await place.keeper.cancel(theirs[0], STOPPED)
        ended, unknown = await desk.ends([*theirs, *mine], 1, WAIT_S, of_k)
        assert ([row.id for row, _ in ended], unknown) == (mine[:1], sorted(theirs))

    run(scenario)


def test_who_leaves_waits_no_longer_and_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        ids = await accepted(place, 5)
        monkeypatch.setattr(call_waits, "NAMED_MAX", 11)
        reading = asyncio.create_task(desk.ends(ids, 1, WAIT_S, anybodys))
        await place.settle()
        assert await code(desk.ends(ids, 1, WAIT_S, anybodys)) == "busy"
        assert await desk.ends(ids, 1, 0.0, anybodys) == ([], [])
        reading.cancel()
        await asyncio.wait({reading})
        assert not place.keeper.waits._waiting
        assert await desk.ends(ids, 1, 0.01, anybodys) == ([], [])

    run(scenario)


def test_no_key_takes_all_the_places_of_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        (id,) = await accepted(place, 1)
        monkeypatch.setattr(call_waits, "WAITING_MAX", 8)
        reading: list[asyncio.Task[Any]] = []
        found = {}
        for key in ("a", "b", "c"):
            tasks = [asyncio.create_task(desk.row(id, WAIT_S, key)) for _ in range(9)]
            await place.settle()
            found[key] = sum(not task.done() for task in tasks)
            reading += tasks
        assert found == {"a": 4, "b": 2, "c": 1}
        await place.keeper.cancel(id, STOPPED)
        told = await asyncio.gather(*reading, return_exceptions=True)
        assert sum(isinstance(each, SwellError) and each.code == "busy" for each in told) == 27 - 7
        assert not place.keeper.waits._of_keys

    run(scenario)


def test_the_ids_of_all_that_are_accepted_together_are_told_in_the_order_of_their_inputs() -> None:
    async def scenario(place: Place) -> None:
        sent = [place.keeper.accept_all(many(n * 10, *(b"%d" % (n * 10 + at) for at in range(10)))) for n in range(3)]
        told = [id for ids in await asyncio.gather(*sent) for id in ids]
        records = place.store.call_records
        inputs = [records.input(id) for id in told]
        assert [body.data for body in inputs if body is not None] == [b"%d" % n for n in range(30)]
        assert await place.keeper.accept_all(many(28, b"28", b"29", b"30")) == (*told[28:], *_others(records, told))

    run(scenario)


def _others(records: Any, told: list[str]) -> list[str]:
    return [call.id for call in records.newest("", None, 99) if call.id not in told]
