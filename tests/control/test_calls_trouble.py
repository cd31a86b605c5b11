"""Is nothing of the queue lost, stuck or too much, where a link is cut, the store cannot be read, or code is wrong?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from control.calls_place import NODE, WAIT_S, Place, new
from control.gang_place import given_out, kept, play
from control.test_calls import STOPPED, hasten, run
from control.test_control_link import until
from swell.control.hands import HAND_BYTES_MAX
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.wire.calls import INPUT_MAX, Down, Grant
from swell.wire.frames import FRAME_MAX, pack

BIG = Body("x", b"1" * INPUT_MAX)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def sizes(frames: Sequence[Down]) -> list[int]:
    """Bytes of the inputs of each grant."""
    return [sum(len(call.input.data) for call in frame.calls) for frame in frames if isinstance(frame, Grant)]


async def rounds(place: Place, granted: int) -> list[int]:
    """Until so many calls were granted: bytes of what each round sent."""
    found = []
    sent, commit = len(place.sent), place.keeper._deliver

    def deliver(*args: object) -> None:
        nonlocal sent
        commit(*args)  # type: ignore[arg-type]
        found.append(sum(sizes(place.sent[sent:])))
        sent = len(place.sent)

    place.keeper._deliver = deliver  # type: ignore[method-assign]
    await until(lambda: sum(len(frame.calls) for frame in place.sent if isinstance(frame, Grant)) >= granted)
    return found


def test_one_round_hands_out_no_more_than_a_link_takes() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", max_inputs=4)
        await asyncio.gather(*(place.keeper.accept(new(input=BIG)) for _ in range(8)))
        for n in range(12):
            await place.keeper.accept(new(input=BIG, priority=n))
        there = place.keeper.hands._reachable
        place.keeper.hands._reachable = lambda _node: False
        for _ in range(5):
            place.start("a")
        place.keeper.hands._reachable = there
        place.keeper.roomy()
        found = await rounds(place, 20)
        assert max(found) <= HAND_BYTES_MAX
        assert sum(found) == 20 * INPUT_MAX, "each was sent once"
        assert len(place.keeper.leases) == 20

    run(scenario)


@pytest.mark.parametrize("newer", [False, True])
def test_inputs_that_an_earlier_control_accepted_are_taken_for_large(newer: bool) -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", max_inputs=30)
        for _ in range(2):
            await asyncio.gather(*(place.keeper.accept(new(input=BIG)) for _ in range(10)))
        await place.crash()
        await place.open()
        if newer:
            # All that this control saw is a small one.
            await place.keeper.accept(new(priority=-1))
        place.start("a")
        found = await rounds(place, 20)
        assert max(found) <= HAND_BYTES_MAX
        assert max(len(pack(frame)) for frame in place.sent) < FRAME_MAX
        await place.settle()
        assert [call.attempts for call in place.store.call_records.newest("", None, 99)] == [1] * (20 + newer)

    run(scenario)


def test_what_was_granted_and_never_came_is_no_attempt() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        first = await place.keeper.accept(new())
        await place.settle()
        second = await place.keeper.accept(new())
        for _ in range(5):
            # The grant is in what was not sent when the link was cut.
            place.disconnect()
            place.connect()
            place.runner.take(place.replicas.__contains__)
            place.keeper.heard_ends(NODE, place.runner.lost)
            place.runner.lost = []
            await place.keeper.retry("nobody")
            # It is left alone for a moment.
            place.pass_time(1.0)
            await place.keeper.retry("nobody")
        await place.settle()
        calls = [place.store.call_records.get(id) for id in (first, second)]
        assert [(call.state, call.attempts) for call in calls if call is not None] == [("leased", 1)] * 2
        assert len(place.runner.held) == 2

    run(scenario)


@pytest.mark.parametrize("how", ["lost", "cancelled"])
def test_a_single_use_replica_that_did_not_begin_its_one_call_is_given_another(how: str) -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", single_use=True, max_inputs=1)
        place.start("a")
        id = await place.keeper.accept(new())
        if how == "cancelled":
            await place.keeper.cancel(id, STOPPED)
            id = await place.keeper.accept(new())
        else:
            # The runner was killed before it read of it.
            place.disconnect()
            place.connect()
        for _ in range(9):
            await place.settle()
            place.pass_time(2.0)
        assert [lease[0] for lease in place.runner.held] == [id]

    run(scenario)


def test_each_call_that_waits_for_single_use_replicas_is_worth_one() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", single_use=True, max_inputs=1)
        replica = place.start("a")
        await asyncio.gather(*(place.keeper.accept(new()) for _ in range(9)))
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease, run_us=100)
        await place.settle()
        place.die(replica)
        await place.settle()
        place.keeper.wants.tell()
        assert place.levels[place.apps["a"].workloads[0].pool].held == 8

    run(scenario)


def test_short_calls_that_fail_are_not_worth_a_slot_each() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", max_inputs=1)
        place.start("a")
        await asyncio.gather(*(place.keeper.accept(new()) for _ in range(50)))
        await place.settle()
        place.pass_time(20.0)
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease, "bad_arguments", run_us=5000)
        await place.settle()
        place.keeper.wants.tell()
        assert place.levels[place.apps["a"].workloads[0].pool].held == 1

    run(scenario)


def test_a_depth_that_could_not_be_read_is_read_again() -> None:
    async def scenario(place: Place) -> None:
        def depth(*_args: object) -> Any:
            raise SwellError("internal", "not now")

        place.store.calls.depth = depth
        await place.keeper.accept(new())
        del place.store.calls.depth
        assert place.keeper._alarm._timer is not None
        place.pass_time(2.0)
        await place.settle()
        assert place.keeper.hands.due == {"default/a/f": 1}

    run(scenario)


@pytest.mark.parametrize("where", ["make", "see"])
def test_what_was_heard_is_recorded_though_a_round_failed(where: str) -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        (lease,) = place.runner.held
        place.runner.end(lease)

        def wrong(*_args: object) -> Any:
            # Once.
            delattr(place.keeper.hands, where)
            raise RuntimeError("wrong")

        setattr(place.keeper.hands, where, wrong)
        # Said once.
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        call = await place.keeper.ended(id, WAIT_S)
        assert call is not None
        assert call.state == "done"

    run(scenario)


def test_a_queue_that_could_not_be_read_by_any_mistake_is_read_again() -> None:
    async def scenario(place: Place) -> None:
        await place.crash()

        def wrong() -> Any:
            del place.store.calls.standing
            raise RuntimeError("wrong")

        place.store.calls.standing = wrong
        await place.open()
        await place.settle()
        assert await place.keeper.accept(new())

    run(scenario)


@pytest.mark.parametrize("from_the_start", [True, False])
def test_while_the_queue_cannot_be_read_new_calls_are_refused_and_ends_are_kept(from_the_start: bool) -> None:
    """As when the database is another machine's, and that is away."""

    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        (lease,) = place.runner.held

        def away(*_args: object) -> Any:
            raise SwellError("state_unreachable", "It is away.", status=503)

        if from_the_start:
            await place.crash()
        names = ("add", "finish", "standing")
        for name in names:
            setattr(place.store.calls, name, away)
        if from_the_start:
            await place.open()
        place.runner.end(lease)
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        for _ in range(3):
            with pytest.raises(SwellError) as caught:
                await asyncio.wait_for(place.keeper.accept(new()), WAIT_S)
            assert caught.value.code == "state_unreachable"
        for name in names:
            delattr(place.store.calls, name)
        call = await place.keeper.ended(id, WAIT_S)
        assert call is not None
        assert call.state == "done"
        assert await place.keeper.accept(new())

    run(scenario)


def test_who_waits_for_a_round_that_fails_while_control_ends_is_told() -> None:
    async def scenario(place: Place) -> None:
        begun, go = threading.Event(), threading.Event()

        def wrong(*_args: object) -> Any:
            begun.set()
            go.wait(WAIT_S)
            raise RuntimeError("wrong")

        place.store.calls.add = wrong
        waiting = asyncio.create_task(place.keeper.accept(new()))
        await asyncio.to_thread(begun.wait, WAIT_S)
        closing = asyncio.create_task(place.close())
        await asyncio.sleep(0)
        go.set()
        await closing
        with pytest.raises(SwellError):
            await asyncio.wait_for(waiting, WAIT_S)

    run(scenario)


@pytest.mark.parametrize("gang", [False, True])
def test_what_was_cancelled_by_a_round_that_failed_when_it_was_on_disk_is_stopped(gang: bool) -> None:
    """Its caller was told that it may not be: so nobody tells the runner, unless what the store has is looked at."""

    async def scenario(place: Place) -> None:
        if gang:
            id, _, leases = await given_out(place)
        else:
            place.start("a")
            id = await place.keeper.accept(new())
            await place.settle()
            leases = list(place.runner.held)

        place.store.how = "after"
        with pytest.raises(SwellError):
            await place.keeper.cancel(id, STOPPED)
        place.store.how = ""
        for _ in range(9):
            await place.settle()
            place.pass_time(2.0)
        assert leases
        assert not place.runner.held
        assert not len(place.keeper.leases)
        assert kept(place, id).state == "cancelled"

    (play if gang else run)(scenario)
