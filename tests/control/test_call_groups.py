"""Are many inputs accepted together, and is each end of a group told once, to whom it concerns, while it is needed?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from control.calls_place import NODE, WAIT_S, Place, new
from control.test_calls import STOPPED, code, hasten, run
from swell.control import ended_groups
from swell.control.call_desk import CallDesk
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.wire.calls import GROUP_INPUTS_MAX, INPUT_MAX, Many, NewCall


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def many(first: int, *inputs: bytes, **fields: Any) -> NewCall:
    return new(group="g", many=Many(first, inputs), input=Body("x"), **fields)


def test_many_inputs_are_accepted_in_one_write_in_their_order_and_none_of_them_twice() -> None:
    async def scenario(place: Place) -> None:
        await place.settle()
        before = place.store.commits
        first = await place.keeper.accept(many(0, *(b"%d" % n for n in range(100)), keep_s=60.0))
        assert place.store.commits == before + 1
        calls = place.store.call_records.open("g", "", 999)
        assert [call.index for call in calls] == list(range(100)), "by id, as they are handed out"
        inputs = [place.store.call_records.input(call.id) for call in calls]
        assert inputs == [Body("x", b"%d" % n) for n in range(100)]
        assert calls[0].id == first
        assert {(call.keeping.result_s, call.keeping.dead_letter_s) for call in calls} == {(60.0, 60.0)}
        assert await place.keeper.accept(many(0, b"0")) == first
        await place.keeper.accept(many(98, b"98", b"99", b"100"))
        assert sorted(call.index for call in place.store.call_records.open("g", "", 999)) == list(range(101))

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (many(0), "bad_request"),
        (many(0, *[b"1"] * (GROUP_INPUTS_MAX + 1)), "bad_request"),
        (many(0, b"1", b"1" * (INPUT_MAX + 1)), "body_too_large"),
        (many(0, b"1", keep_s=1.0), "bad_request"),
        (many(0, b"1", keep_s=float("nan")), "bad_request"),
    ],
)
def test_of_many_inputs_all_are_accepted_or_none(asked: Any, expected: str) -> None:
    async def scenario(place: Place) -> None:
        assert await code(place.keeper.accept(asked)) == expected
        assert place.store.call_records.newest("", None, 9) == []

    run(scenario)


def anybodys(_namespace: str, _app: str, _key: str) -> bool:
    return True


def test_who_waits_for_ends_of_a_group_is_told_each_once() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        assert await desk.group_ends("g", 0, 9, 1, 0.0, anybodys) == []
        assert await desk.group_ends("g", 0, 9, 1, 0.01, anybodys) == []
        place.start("a")
        await place.keeper.accept(many(0, *[b"1"] * 7))
        found: list[int] = []
        last = 0
        while len(found) < 7:
            reading = asyncio.create_task(desk.group_ends("g", last, 3, 2, WAIT_S, anybodys))
            await place.settle()
            for lease in list(place.runner.held)[:1]:
                place.runner.end(lease)
                place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
            page = await reading
            assert 1 <= len(page) <= 3
            found += [end.call.index for _, end in page]
            last = page[-1][1].number
        assert sorted(found) == list(range(7))

    run(scenario)


def test_who_cancels_a_group_wakes_who_waits_for_it() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        await place.keeper.accept(many(0, *[b"1"] * 5))
        await place.keeper.accept(many(5, b"1", key="k"))
        reading = asyncio.create_task(desk.group_ends("g", 0, 9, 9, WAIT_S, anybodys))
        assert await desk.cancel_group("g", "", lambda _namespace, _app, key: key != "k")
        assert {row.state for row, _ in await reading} == {"cancelled"}
        members = await desk.members("g", True)
        assert [(each.key, each.open, each.ended) for each in members] == [("", 0, 5), ("k", 1, 0)]
        assert [(each.key, each.open) for each in await desk.members("g", False)] == [("k", 1)]

    run(scenario)


def test_who_reads_of_a_group_is_neither_told_nor_held_up_by_what_others_have_in_it() -> None:
    def mine(_namespace: str, _app: str, key: str) -> bool:
        return key == "k"

    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        await place.keeper.accept(many(0, *[b"1"] * 9))
        assert not await desk.has_any("g", mine)
        assert await desk.has_any("g", anybodys)
        await place.keeper.accept(many(0, b"1", key="k"))
        assert await desk.has_any("g", mine)
        reading = asyncio.create_task(desk.group_ends("g", 0, 2, 1, WAIT_S, mine))
        for call in place.store.call_records.open("g", "", 99):
            if not call.key:
                await place.keeper.cancel(call.id, STOPPED)
        assert await desk.group_ends("g", 0, 2, 1, 0.0, mine) == []
        (last,) = place.store.call_records.open("g", "", 99)
        await place.keeper.cancel(last.id, STOPPED)
        assert [end.call.id for _, end in await reading] == [last.id]

    run(scenario)


def test_what_its_sender_has_had_is_forgotten_and_nothing_else() -> None:
    async def scenario(place: Place) -> None:
        desk, records = CallDesk(place.keeper, place.store.call_records, lambda _workload: ""), place.store.call_records
        await place.keeper.accept(many(0, *[b"1"] * 4))
        await place.keeper.accept(many(0, b"1", key="k"))
        await place.keeper.accept(new(group="h", idempotency_key="h 0"))
        calls = sorted(records.open("g", "", 99), key=lambda call: (call.key, call.index))
        calls += records.open("h", "", 99)
        for call in calls[:3] + calls[4:]:
            await place.keeper.cancel(call.id, STOPPED)
        numbers = [end.number for end in records.ended("g", 0, 99)]
        desk.forget("g", "", numbers[1])
        await place.settle()
        assert [end.number for end in records.ended("g", 0, 99)] == numbers[2:]
        desk.forget("g", "", numbers[-1])
        await place.settle()
        assert [end.call.key for end in records.ended("g", 0, 99)] == ["k"], "that of another sender"
        assert [call.index for call in records.open("g", "", 99)] == [3]
        assert len(records.ended("h", 0, 99)) == 1
        # A disk that is full keeps nobody from anything here.
        place.store.how = "before"
        desk.forget("g", "k", numbers[-1])
        await asyncio.sleep(0.05)
        place.store.how = ""
        await place.settle()

    run(scenario)


def test_inputs_of_a_group_that_was_ended_are_refused_for_a_while_and_those_let_in_before_are_cancelled() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        sent = [asyncio.create_task(place.keeper.accept(many(n * 10, *[b"1"] * 10))) for n in range(3)]
        await asyncio.sleep(0)
        assert await desk.cancel_group("g", "", lambda _namespace, _app, key: key != "k")
        await asyncio.gather(*sent)
        assert place.store.call_records.open("g", "", 99) == []
        assert len(place.store.call_records.ended("g", 0, 99)) == 30
        assert await code(place.keeper.accept(many(30, b"1"))) == "group_ended"
        await place.keeper.accept(many(0, b"1", key="k"))
        await place.keeper.accept(new())
        assert not await desk.cancel_group("other", "", anybodys), "of which nothing is there yet"
        assert await code(place.keeper.accept(new(group="other", idempotency_key="other 0"))) == "group_ended"
        place.clock.at += ended_groups.REMEMBERED_S
        await place.keeper.accept(many(30, b"1"))

    run(scenario)


def test_of_each_key_only_so_many_groups_that_were_ended_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_groups, "REMEMBERED_MAX", 3)

    async def scenario(place: Place) -> None:
        for group in ("g1", "g2", "g3", "g1", "g4"):
            await place.keeper.groups.end(group, "k", anybodys)
            # Whoever else ends groups, of these or others.
            for n in range(9):
                await place.keeper.groups.end(f"o{n}", "other", anybodys)
                await place.keeper.groups.end(group, f"other{n}", lambda _namespace, _app, _key: False)
        refused = []
        for group in ("g1", "g2", "g3", "g4"):
            try:
                place.keeper.groups.check(new(group=group))
            except SwellError:
                refused.append(group)
        assert refused == ["g1", "g3", "g4"], "the one that was ended first goes"

    run(scenario)


def test_who_ends_a_group_does_not_wait_for_ever_for_inputs_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ended_groups, "WRITTEN_S", 0.01)

    async def scenario() -> None:
        groups = ended_groups.EndedGroups(lambda: 0.0)
        written: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        groups.comes("g", written)
        assert await code(groups.end("g", "", anybodys)) == "busy"
        with pytest.raises(SwellError, match="was ended by its sender"):
            groups.check(new(group="g"))
        written.set_result("fc-1")
        await groups.end("g", "", anybodys)

    asyncio.run(scenario())


def test_the_call_for_one_input_is_found_by_its_number() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        await place.keeper.accept(many(5, *[b"1"] * 3))
        await place.keeper.accept(many(0, b"1", key="k"))
        found = [await desk.member("g", index, anybodys) for index in (5, 7, 0, 4)]
        calls = {call.index: call.id for call in place.store.call_records.open("g", "", 9)}
        assert [row and row.id for row in found] == [calls[5], calls[7], calls[0], None]
        assert await desk.member("g", 5, lambda _namespace, _app, key: key == "k") is None
        assert await desk.member("h", 5, anybodys) is None

    run(scenario)
