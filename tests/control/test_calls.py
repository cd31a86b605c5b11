"""What is accepted into the queue, who gets it, and what becomes of what ends, is cancelled or cannot be written?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control.calls_place import MAX_INPUTS, NODE, WAIT_S, Place, new
from swell.control import calls as module
from swell.control import hands, wants
from swell.control.accepting import DELAY_MAX_S, INPUT_MAX
from swell.control.call_desk import CallDesk
from swell.control.inbox import BATCH_BYTES, Inbox
from swell.model.call import Body, CallError, Retry
from swell.model.errors import SwellError
from swell.model.metrics import CALLS_DUE, CALLS_LEASED, CALLS_TOTAL
from swell.store.memory import MemoryStore
from swell.wire.calls import CallEnd, Grant, NotKept, Resume, Revoke

STOPPED = CallError("cancelled", "nobody wants it")
APPS = ("a", "b")
CODES = ("", "", "", "exception", "drained", "busy", "replica_died", "bad_arguments", "cancelled")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a while does not."""
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    monkeypatch.setattr(wants, "TELL_S", 0.0)


def run(scenario: Callable[[Place], Awaitable[None]]) -> None:
    """One server with an app and one replica of it."""

    async def begun() -> None:
        place = Place(MemoryStore())
        await place.open()
        place.deploy("a")
        try:
            await asyncio.wait_for(scenario(place), WAIT_S)
        finally:
            await place.close()

    asyncio.run(begun())


async def code(act: Awaitable[object]) -> str:
    with pytest.raises(SwellError) as raised:
        await act
    return raised.value.code


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (new("nobody"), "unknown_function"),
        (new(priority=101), "bad_request"),
        (new(priority=-101), "bad_request"),
        (new(delay_s=-0.1), "bad_request"),
        (new(delay_s=DELAY_MAX_S + 1), "bad_request"),
        (new(delay_s=float("nan")), "bad_request"),
        (new(idempotency_key="x" * 257), "bad_request"),
        (new(input=Body("x", b"1" * (INPUT_MAX + 1))), "body_too_large"),
    ],
)
def test_what_cannot_be_queued_is_refused_in_words(asked: Any, expected: str) -> None:
    async def scenario(place: Place) -> None:
        assert await code(place.keeper.accept(asked)) == expected
        assert place.store.call_records.newest("", None, 9) == []

    run(scenario)


@pytest.mark.parametrize(
    ("method", "expected"), [("many", "bad_request"), ("page", "bad_request"), ("g", "unknown_function")]
)
def test_only_functions_with_one_result_are_queued(method: str, expected: str) -> None:
    async def scenario(place: Place) -> None:
        asked = new()
        assert await code(place.keeper.accept(type(asked)("default/a/f", method, asked.input))) == expected

    run(scenario)


def test_calls_that_come_at_once_share_a_write_and_are_handed_out_in_it() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        await place.settle()
        before = place.store.commits
        ids = await asyncio.gather(*(place.keeper.accept(new()) for _ in range(50)))
        assert len(set(ids)) == 50
        assert place.store.commits == before + 1
        granted = [call.id for frame in place.sent if isinstance(frame, Grant) for call in frame.calls]
        assert len(granted) == MAX_INPUTS
        assert set(granted) <= set(ids)

    run(scenario)


def test_a_slot_that_is_free_again_is_given_one_call_in_the_round_that_records_its_end() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        await asyncio.gather(*(place.keeper.accept(new()) for _ in range(9)))
        await place.settle()
        for _ in range(3):
            before, sent = place.store.commits, len(place.sent)
            place.runner.end(min(place.runner.held))
            place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
            await place.keeper.retry("nobody")
            assert place.store.commits == before + 1
            assert [len(frame.calls) for frame in place.sent[sent:] if isinstance(frame, Grant)] == [1]
            await place.settle()
            assert len(place.runner.held) == MAX_INPUTS

    run(scenario)


def test_what_was_leased_and_never_sent_goes_back_at_once_and_is_no_attempt() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("b")
        ids = await asyncio.gather(*(place.keeper.accept(new(app)) for app in "ab"))
        place.store.how = "leases"
        place.start("a")
        place.start("b")
        await asyncio.sleep(0.05)
        place.store.how = ""
        await place.settle()
        calls = [place.store.call_records.get(id) for id in ids]
        assert [(call.state, call.attempts) for call in calls if call is not None] == [("leased", 1)] * 2
        assert len(place.runner.held) == 2

    run(scenario)


def test_an_idempotency_key_makes_one_call_of_many() -> None:
    async def scenario(place: Place) -> None:
        ids = await asyncio.gather(*(place.keeper.accept(new(idempotency_key="k")) for _ in range(5)))
        assert len(set(ids)) == 1
        assert await place.keeper.accept(new(idempotency_key="k")) == ids[0]

    run(scenario)


def test_why_nothing_of_a_workload_can_be_worked_on_is_told() -> None:
    async def scenario(place: Place) -> None:
        assert place.keeper.problem("default/a/f") is None
        told = place.keeper.problem("default/nobody/f")
        assert told is not None
        assert told.code == "unknown_function"

    run(scenario)


def test_what_waits_is_demand_and_what_is_leased_is_in_flight() -> None:
    async def scenario(place: Place) -> None:
        pool = place.apps["a"].workloads[0].pool
        await asyncio.gather(*(place.keeper.accept(new()) for _ in range(5)))
        assert (place.levels[pool].held, place.levels[pool].in_flight) == (1, 0), "how long they take is not known"
        replica = place.start("a")
        await place.settle()
        place.pass_time(2.0)
        await asyncio.sleep(0.01)
        assert place.levels[pool].replicas == ((replica, MAX_INPUTS),)
        assert place.levels[pool].held == 3, "they take longer than a second: each is worth a slot"
        place.stop("a")
        await asyncio.sleep(0.01)
        assert place.levels[pool].held == 0

    run(scenario)


def test_a_cancelled_call_ends_at_once_and_is_taken_from_its_replica() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        waiting = asyncio.create_task(place.keeper.ended(id, WAIT_S))
        call = await place.keeper.cancel(id, STOPPED)
        assert call is not None
        assert Revoke(((id, call.token),)) in place.sent
        assert await waiting == call
        await place.settle()
        assert not place.runner.held
        assert not place.runner.ends
        assert await place.keeper.cancel(id, STOPPED) is None

    run(scenario)


def test_who_waits_for_an_end_is_woken_by_it_or_told_in_time_that_there_is_none() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        early = await place.keeper.ended(id, 0.01)
        assert early is not None
        assert early.state == "leased"
        waiting = [asyncio.create_task(place.keeper.ended(id, WAIT_S)) for _ in range(3)]
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease)
        await place.settle()
        assert [call.state for call in await asyncio.gather(*waiting) if call is not None] == ["done"] * 3
        assert await place.keeper.ended("nobody", WAIT_S) is None

    run(scenario)


def test_a_runner_that_comes_back_is_asked_for_what_it_was_given() -> None:
    async def scenario(place: Place) -> None:
        replica = place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        ((_, token),) = place.runner.held
        await place.crash()
        await place.open()
        await place.settle()
        assert Resume(place.epoch, ((replica, ((id, token),)),)) in place.sent
        assert len(place.keeper.leases) == 1
        place.runner.end((id, token))
        await place.settle()
        call = await place.keeper.ended(id, 0.0)
        assert call is not None
        assert (call.state, call.attempts) == ("done", 1), "a restart of control disturbs nothing that runs"

    run(scenario)


def test_a_replica_that_is_gone_is_waited_for_a_moment_since_its_result_may_be_on_its_way() -> None:
    async def scenario(place: Place) -> None:
        replica = place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        ((lease),) = place.runner.held
        place.runner.end(lease)
        place.die(replica)
        place.keeper.tick()
        await place.settle()
        call = await place.keeper.ended(id, 0.0)
        assert call is not None
        assert (call.state, call.attempts) == ("done", 1)

    run(scenario)


def test_a_control_that_was_stopped_itself_takes_nothing_for_lost() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        place.clock.at += 3600.0
        place.keeper.tick()
        place.pass_time(10.0)
        await place.settle()
        call = await place.keeper.ended(id, 0.0)
        assert call is not None
        assert (call.state, call.attempts) == ("leased", 1)
        place.runner.held.clear()
        place.pass_time(20.0)
        await place.settle()
        call = await place.keeper.ended(id, 0.0)
        assert call is not None
        assert call.error is not None
        assert call.error.code == "lease_expired"

    run(scenario)


def test_a_single_use_replica_is_given_one_call_in_its_life() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", single_use=True, max_inputs=1)
        place.start("a")
        await asyncio.gather(*(place.keeper.accept(new()) for _ in range(3)))
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease)
        await place.settle()
        assert not place.runner.held, "it had its one input"
        place.start("a")
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease, "drained")
        await place.settle()
        assert not place.runner.held, "it may be about to end"
        place.pass_time(1.0)
        await place.settle()
        assert len(place.runner.held) == 1, "what was not begun did not use it up"
        for replica in list(place.replicas):
            place.die(replica)
        assert (place.keeper.hands._spent, place.keeper.hands._away_until) == (set(), {})

    run(scenario)


@pytest.mark.parametrize(
    ("timeouts", "own_s", "expected"),
    [
        ({"timeout_s": 60.0}, 0.0, (60.0, "timeout")),
        ({"timeout_s": 60.0}, 5.0, (5.0, "")),
        ({"timeout_s": 60.0}, 60.0, (60.0, "timeout")),
        ({"timeout_s": 60.0}, 1e308, (60.0, "timeout")),
        ({"timeout_s": 60.0}, 1e-9, (0.001, "")),
        ({"timeout_s": 60.0, "timeout_max_s": 600.0}, 0.0, (600.0, "timeout_max")),
        ({"timeout_s": 60.0, "timeout_max_s": 600.0}, 100.0, (100.0, "")),
    ],
)
def test_a_call_may_take_what_it_came_with_and_no_more_than_its_function(
    timeouts: dict[str, float], own_s: float, expected: tuple[float, str]
) -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", **timeouts)
        place.start("a")
        await place.keeper.accept(new(timeout_s=own_s))
        await place.settle()
        ((_, call),) = place.runner.held.values()
        assert (call.timeout_s, call.limited_by) == expected

    run(scenario)


def test_what_happens_to_calls_is_counted() -> None:
    async def scenario(place: Place) -> None:
        def told() -> dict[tuple[str, ...], float]:
            return {(each.name, *each.labels): each.value for each in place.keeper.metrics()}

        await asyncio.gather(*(place.keeper.accept(new(idempotency_key=key)) for key in "abcdd"))
        assert told() == {(CALLS_DUE,): 4, (CALLS_LEASED,): 0, (CALLS_TOTAL, "accepted"): 4}
        place.start("a")
        await place.settle()
        assert (told()[CALLS_DUE,], told()[CALLS_LEASED,]) == (2, 2)
        bad, good = place.runner.held
        place.runner.end(bad, "bad_arguments")
        place.runner.end(good)
        await place.settle()
        await place.keeper.retry(bad[0])
        await place.keeper.cancel(next(iter(place.runner.held))[0], STOPPED)
        events = {labels[0]: count for (name, *labels), count in told().items() if name == CALLS_TOTAL}
        assert events == {"accepted": 4, "done": 1, "failed": 1, "retried": 1, "cancelled": 1}

    run(scenario)


def test_what_has_ended_is_forgotten_with_its_checkpoints_and_what_has_not_is_not() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        place.start("a")
        ids = [await place.keeper.accept(new()) for _ in range(3)]
        await place.settle()
        place.runner.end(next(lease for lease in place.runner.held if lease[0] == ids[0]), "bad_arguments")
        await place.keeper.cancel(ids[2], STOPPED)
        await place.settle()
        before = {(sample.name, *sample.labels): sample.value for sample in place.keeper.metrics()}
        await desk.remove(ids[0])
        assert await code(desk.remove(ids[1])) == "not_ended"
        await desk.remove(ids[2])
        assert [frame.calls for frame in place.sent if isinstance(frame, NotKept)] == [(ids[0],), (ids[2],)]
        assert [await desk.row(id) is None for id in ids] == [True, False, True]
        await place.settle()
        assert {(sample.name, *sample.labels): sample.value for sample in place.keeper.metrics()} == before

    run(scenario)


def test_a_dead_letter_runs_with_the_input_that_it_is_tried_again_with() -> None:
    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        id = await place.keeper.accept(new())
        other = Body("application/json", b"[2]")
        assert await code(desk.retry(id, other)) == "not_failed"
        place.start("a")
        await place.settle()
        assert await code(desk.retry(id, other)) == "not_failed"
        place.runner.end(next(iter(place.runner.held)), "bad_arguments")
        await place.settle()
        assert await code(desk.retry(id, Body("x", bytes(INPUT_MAX + 1)))) == "body_too_large"
        assert await desk.input(id) == new().input, "nothing was changed"
        assert await desk.retry("nobody", other) is None
        row = await desk.retry(id, other)
        assert row is not None
        assert row.state == "queued"
        await place.settle()
        (call,) = (call for frame in place.sent[-1:] if isinstance(frame, Grant) for call in frame.calls)
        assert (call.id, call.input, call.attempt) == (id, other, 1)

    run(scenario)


def test_a_round_takes_in_about_so_many_bytes_of_inputs_that_are_changed() -> None:
    async def scenario() -> None:
        inbox = Inbox()
        sizes = [0, BATCH_BYTES // 2, BATCH_BYTES // 2, 0, 1, BATCH_BYTES, 0]
        for at, size in enumerate(sizes):
            inbox.change(Retry(f"fc-{at}", 0.0, Body("x", bytes(size)) if size else None))
        rounds = []
        while taken := inbox.take_changes():
            rounds.append([int(each.change.id[3:]) for each in taken if isinstance(each.change, Retry)])
        assert rounds == [[0, 1, 2], [3, 4, 5], [6]]

    asyncio.run(scenario())


def test_large_inputs_are_handed_out_a_few_at_a_time() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", max_inputs=50)
        big = Body("x", b"1" * INPUT_MAX)
        await asyncio.gather(*(place.keeper.accept(new(input=big)) for _ in range(9)))
        place.start("a")
        await place.settle()
        grants = [frame for frame in place.sent if isinstance(frame, Grant)]
        assert sum(len(frame.calls) for frame in grants) == 9
        assert max(len(frame.calls) for frame in grants) == 4

    run(scenario)


def test_no_frame_is_too_large_where_it_is_not_known_how_large_the_inputs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        monkeypatch.setattr(hands, "INPUT_MAX", 10)
        monkeypatch.setattr(hands, "HAND_BYTES_MAX", 40)
        place.deploy("a", max_inputs=50)
        for size, priority in ((10, 0), (0, 1)):
            body = Body("x", b"1" * size)
            await asyncio.gather(*(place.keeper.accept(new(input=body, priority=priority)) for _ in range(30)))
        await place.crash()
        await place.open()
        place.start("a")
        await place.settle()
        grants = [frame for frame in place.sent if isinstance(frame, Grant)]
        assert len(grants[0].calls) == 4
        assert len(place.runner.held) == 50
        assert max(sum(len(call.input.data) for call in frame.calls) for frame in grants) == 40

    run(scenario)


def test_while_the_disk_is_full_nothing_is_accepted_and_what_ended_is_kept_to_be_recorded() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        ((_, token),) = place.runner.held
        place.store.how = "before"
        place.keeper.heard_ends(NODE, [CallEnd(id, token, "", body=Body("application/json", b"1"))])
        assert await code(place.keeper.accept(new())) == "state_full"
        place.store.how = ""
        call = await place.keeper.ended(id, WAIT_S)
        assert call is not None
        assert call.state == "done"

    run(scenario)


def test_of_apps_that_are_stopped_nothing_is_kept_in_memory_however_late_their_calls_end() -> None:
    async def scenario(place: Place) -> None:
        for number in range(20):
            app = f"run{number}"
            place.deploy(app)
            place.start(app)
            await asyncio.gather(*(place.keeper.accept(new(app)) for _ in range(MAX_INPUTS)))
            await place.settle()
            first, late = place.runner.held
            place.runner.end(first)
            await place.settle()
            place.stop(app)
            place.runner.end(late)
            await place.settle()
        assert list(place.keeper.hands._learned) == []
        await place.keeper.accept(new())
        assert list(place.keeper.hands._learned) == ["default/a/f"]

    run(scenario)


def test_what_was_kept_long_enough_is_forgotten() -> None:
    async def scenario(place: Place) -> None:
        ids = await asyncio.gather(*(place.keeper.accept(new()) for _ in range(3)))
        await place.keeper.cancel(ids[0], STOPPED)
        await place.keeper.sweep()
        place.clock.at += 365 * 86_400
        await place.keeper.sweep()
        kept = place.store.call_records.newest("", None, 9)
        assert {call.id for call in kept} == set(ids[1:])

    run(scenario)
