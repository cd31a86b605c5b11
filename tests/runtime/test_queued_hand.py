"""Do queued calls reach a replica in turn with others, and is what came of each told once, as it was?"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from queued_place import DIED, Place, Replica, Rival, call, files, lease, turns, until

from swell.model.replica import Phase
from swell.runtime.runner.queued import ends, hand, lane


def play(scenario: Callable[[Place], Awaitable[None]]) -> None:
    root = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))

    async def main() -> None:
        place = Place(root)
        try:
            await scenario(place)
        finally:
            await place.close()

    try:
        asyncio.run(main())
    finally:
        shutil.rmtree(root)


async def busy(replica: Replica, number: int) -> None:
    await until(lambda: len(replica.working) == number, f"{number} inputs at work")


async def all_told(place: Place, number: int) -> None:
    await until(lambda: len(place.told) == number, f"{number} ends; there are {len(place.told)}")


def test_calls_are_begun_in_their_order_as_many_as_there_are_slots() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        calls = [call() for _ in range(5)]
        place.grant(replica.id, *calls)
        done = []
        while len(done) < 5:
            await busy(replica, min(2, 5 - len(done)))
            one = replica.working[0]
            done.append(one.name)
            replica.end(one, f"result of {one.name}")
            await all_told(place, len(done))
        assert done == [f"{each.id}/1" for each in calls]
        assert replica.most == 2
        for each in calls:
            end = place.told[lease(each)]
            assert (end.code, end.replica) == ("", replica.id)
            assert end.body.data == f'"result of {each.id}/1"'.encode()

    play(scenario)


def test_an_exception_is_told_as_its_caller_is_told_it() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        replica.end(replica.working[0], error="no such thing")
        await all_told(place, 1)
        end = place.told[lease(one)]
        assert (end.code, end.message) == ("exception", "ValueError: no such thing")
        assert b'"request":"fc-' in end.body.data

    play(scenario)


def test_calls_and_requests_of_gateways_take_turns() -> None:
    """Neither waits for the other's last, and never are there more than slots."""

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        first = [Rival(replica.path, f"g{number}") for number in range(10)]
        await busy(replica, 1)
        place.grant(replica.id, *[call() for _ in range(10)])
        await turns()
        order = []
        while len(order) < 20:
            await busy(replica, 1)
            # Those that ended a moment ago have to have asked again.
            await turns()
            one = replica.working[0]
            order.append("gateway" if one.name.startswith("g") else "queue")
            replica.end(one)
            await until(lambda one=one: one not in replica.working)
        assert replica.most == 1
        assert order.count("queue") == 10
        # The rivals stood in the line before; once each has had a turn there is nobody but the queue.
        assert "queue" in order[:12]
        await asyncio.gather(*(rival.task for rival in first))
        assert {rival.status for rival in first} == {200}

    play(scenario)


def test_a_gateway_that_comes_to_a_busy_queue_has_its_turn_next() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        place.grant(replica.id, *[call() for _ in range(20)])
        await busy(replica, 1)
        rival = Rival(replica.path, "g")
        await until(lambda: replica.slots.line.waiting)
        replica.end(replica.working[0])
        await until(lambda: replica.working and replica.working[0].name == "g")
        replica.end(replica.working[0])
        await rival.task
        for done in range(2, 21):
            await busy(replica, 1)
            replica.end(replica.working[0])
            await all_told(place, done)
        assert replica.most == 1

    play(scenario)


def test_a_replica_that_drains_is_sent_nothing_more_and_what_runs_ends_in_peace() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        runs, waits = call(), call()
        place.grant(replica.id, runs, waits)
        await busy(replica, 1)
        place.drain(replica)
        assert place.calls._held.keys() == {runs.id}
        await all_told(place, 1)
        assert place.told[lease(waits)].code == "drained"
        late = call()
        place.grant(replica.id, late)
        await all_told(place, 2)
        assert place.told[lease(late)].code == "drained"
        replica.end(replica.working[0])
        await all_told(place, 3)
        assert place.told[lease(runs)].code == ""

    play(scenario)


def test_a_replica_that_says_it_takes_nothing_any_more_gets_nothing_before_its_end_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hand, "LEAVING_S", 0.05)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        replica.slots.close("told to end by another")
        calls = [call(), call()]
        place.grant(replica.id, *calls)
        await all_told(place, 2)
        another = call()
        place.grant(replica.id, another)
        # Not at once: control may give it again as soon as it comes back.
        await turns()
        assert lease(another) not in place.told
        await all_told(place, 3)
        assert {end.code for end in place.told.values()} == {"drained"}
        assert not replica.begun

    play(scenario)


def test_a_replica_that_died_ends_what_it_had_and_gives_back_the_rest() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        runs, waits = call(), call()
        place.grant(replica.id, runs, waits)
        await busy(replica, 1)
        place.die(replica)
        # Control is told of these before it is told of the replica.
        assert {at: end.code for at, end in place.told.items()} == {
            lease(runs): "replica_died",
            lease(waits): "drained",
        }
        assert place.told[lease(runs)].message == DIED

    play(scenario)


def test_what_was_refused_while_the_replica_was_told_to_drain_goes_back() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        before, refused = call(), call()
        place.grant(replica.id, before)
        await busy(replica, 1)
        replica.end(replica.working[0])
        await all_told(place, 1)
        # On the lane that there is; the refusal is on its way.
        replica.slots.close("idle")
        place.grant(replica.id, refused)
        assert place.calls._hands[replica.id].running
        place.calls.seen(replica.seen(Phase.DRAINING))
        await all_told(place, 2)
        assert place.told[lease(refused)].code == "drained"

    play(scenario)


@pytest.mark.parametrize("size", [0, 300_000])
def test_what_a_replica_had_when_its_connection_broke_was_begun_unless_it_cannot_have_been(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is known once its end is. What was not read, or never left, is in the hand still."""
    monkeypatch.setattr(hand, "REST_S", 60.0)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        begun, unread, unsent = call(size=size), call(), call()
        place.grant(replica.id, begun)
        await busy(replica, 1)
        replica.die()
        await until(lambda: place.calls._hands[replica.id]._resting)
        assert not place.told, "it may live"
        place.notice(replica)
        assert (place.told[lease(begun)].code, place.told[lease(begun)].message) == ("replica_died", DIED)
        for each in (unread, unsent):
            other = await place.replica(1)
            place.grant(other.id, call())
            await busy(other, 1)
            other.end(other.working[0])
            await until(lambda other=other: not place.calls._hands[other.id].running)
            if each is unread:
                place.grant(other.id, each)
                other.die()
            else:
                other.die()
                place.grant(other.id, each)
            await until(lambda other=other: place.calls._hands[other.id]._resting)
            assert list(place.calls._hands[other.id].waiting) == [each]
            place.notice(other)
            assert place.told[lease(each)].code == "drained"

    play(scenario)


def test_an_answer_that_came_just_before_the_end_counts() -> None:
    """The loop hears of a process's end and of its last answer in any order."""

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        held = place.calls._hands[replica.id]
        (busy_lane,) = held.running
        # As a loop that stands still: it does not read.
        busy_lane._transport.pause_reading()
        replica.end(replica.working[0], "at last")
        await until(lambda: not replica.working)
        await turns()
        assert not place.told
        place.die(replica)
        assert place.told[lease(one)].body.data == b'"at last"'

    play(scenario)


def test_what_cannot_be_reached_is_tried_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "REST_S", 0.001)

    async def scenario(place: Place) -> None:
        replica = Replica(place.home.root, 1)
        place.replicas[replica.id] = replica
        place.grant(replica.id, call())
        await until(lambda: place.calls._hands[replica.id]._failures > 2)
        await replica.open()
        await busy(replica, 1)
        replica.end(replica.working[0])
        await all_told(place, 1)
        assert [end.code for end in place.told.values()] == [""]

    play(scenario)


def test_what_starts_is_waited_for() -> None:
    async def scenario(place: Place) -> None:
        replica = Replica(place.home.root, 1)
        replica.phase = Phase.STARTING
        place.replicas[replica.id] = replica
        place.grant(replica.id, call())
        await turns()
        assert not place.calls._hands[replica.id]._failures
        await replica.open()
        place.calls.seen(replica.seen(Phase.READY))
        await busy(replica, 1)

    play(scenario)


def test_a_deadline_is_kept_by_the_replica_and_at_last_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        # Its own: its code is told to stop, and does.
        own = call(timeout_s=0.05)
        place.grant(replica.id, own)
        await all_told(place, 1)
        end = place.told[lease(own)]
        assert (end.code, end.message.startswith("The deadline of 0.05 s (timeout= of the function)")) == (
            "deadline",
            True,
        )
        # Ours, where it says nothing.
        monkeypatch.setattr(lane, "LATE_S", 0.0)
        replica.slots._overdue = lambda: None  # type: ignore[method-assign]
        replica.slots._watch = lambda _at: None  # type: ignore[method-assign]
        late = call(timeout_s=0.05)
        place.grant(replica.id, late)
        await all_told(place, 2)
        assert place.told[lease(late)].code == "deadline"
        # Its connection is closed: that is the order to stop it.
        await busy(replica, 0)

    play(scenario)


def test_a_call_that_nobody_wants_is_dropped_or_stopped() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        runs, waits, stays = call(), call(), call()
        place.grant(replica.id, runs, waits, stays)
        await busy(replica, 1)
        place.revoke(lease(waits), lease(runs), ("fc-unknown", 3))
        await until(lambda: replica.working and replica.working[0].name == f"{stays.id}/1")
        assert {at: end.code for at, end in place.told.items()} == dict.fromkeys(
            (lease(waits), lease(runs), ("fc-unknown", 3)), "cancelled"
        )
        assert f"{waits.id}/1" not in replica.begun
        assert replica.most == 1

    play(scenario)


def test_a_place_in_the_line_is_given_up_with_the_last_call_that_wants_it() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        rival = Rival(replica.path, "g")
        await busy(replica, 1)
        one = call()
        place.grant(replica.id, one)
        await until(lambda: replica.slots.line.waiting)
        place.revoke(lease(one))
        await until(lambda: not replica.slots.line.waiting)
        replica.end(replica.working[0])
        await rival.task
        # Whoever comes next finds it free.
        another = Rival(replica.path, "h")
        await busy(replica, 1)
        replica.end(replica.working[0])
        await another.task
        assert another.status == 200

    play(scenario)


def test_a_grant_that_is_repeated_is_one_and_a_later_one_replaces_it() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        one = call(token=5)
        place.grant(replica.id, one)
        place.grant(replica.id, one, call(token=4, id=one.id))
        await busy(replica, 1)
        place.grant(replica.id, call(token=6, id=one.id))
        await until(lambda: [each.name for each in replica.working] == [f"{one.id}/6"])
        replica.end(replica.working[0])
        await all_told(place, 1)
        assert place.told.keys() == {(one.id, 6)}
        place.grant(replica.id, call(token=6, id=one.id))
        await turns()
        assert not replica.working

    play(scenario)


def test_what_is_not_as_the_door_lets_it_in_is_not_sent() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        foreign = await place.replica(1)
        foreign.address = "tcp:127.0.0.1:1"
        split = call()
        place.grant(replica.id, type(split)(split.id, 1, "work HTTP/1.1\r\nX: ", split.input, "", 1.0))
        place.grant(foreign.id, call())
        place.grant("r9-9", call())
        await all_told(place, 3)
        assert [end.code for end in place.told.values()] == ["bad_request", "bad_request", "drained"]
        assert not replica.begun

    play(scenario)


def test_ends_are_said_until_they_are_heard_and_outlive_the_runner_while_control_is_away() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(4)
        calls = [call() for _ in range(4)]
        place.grant(replica.id, *calls)
        await busy(replica, 4)
        said, unheard, away, runs = replica.working
        for one in (said, unheard):
            replica.end(one)
        await all_told(place, 2)
        assert not list(files(place))
        place.hear(lease(calls[0]))
        place.leave()
        assert list(files(place)) == [f"{calls[1].id}-1"]
        replica.end(away, "not lost")
        await until(lambda: len(list(files(place))) == 2)
        place.kill()
        place.told.clear()
        place.start()
        await turns()
        assert replica.working == [runs], "its runner is dead, and it is not"
        assert not place.told
        place.come_back()
        place.resume(replica.id, *map(lease, calls[1:]))
        assert {at: end.code for at, end in place.told.items()} == dict.fromkeys(map(lease, calls[1:3]), "")
        assert place.told[lease(calls[2])].body.data == b'"not lost"'
        place.calls.hold()
        assert place.holding == set(map(lease, calls[1:]))
        place.returns(replica)
        replica.end(runs, "goes on")
        await all_told(place, 3)
        assert place.told[lease(calls[3])].body.data == b'"goes on"'
        place.hear(*place.told)
        assert not list(files(place))
        place.holding.clear()
        place.calls.hold()
        assert not place.holding
        assert not replica.keeping.listed(), "what is safe need not be kept"

    play(scenario)


def test_what_waits_to_be_heard_is_bounded_and_so_is_what_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "KEPT_MAX", 10 * ends.EACH)
    monkeypatch.setattr(ends, "UNHEARD_MAX", 4 * ends.EACH)
    monkeypatch.setattr(ends, "FRAME", 2 * ends.EACH)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        calls = [call() for _ in range(30)]
        place.grant(replica.id, *calls)
        heard = 0
        while heard < 30:
            if replica.working:
                replica.end(replica.working[0])
            await turns()
            told = len(place.told) - heard
            assert told <= 5
            assert len(place.calls._ends._kept) <= 10
            if not replica.working and (told >= 4 or len(place.told) == 30):
                place.hear(*list(place.told)[heard : heard + 1])
                heard += 1
                await turns()
        assert [end.code for end in place.told.values()] == [""] * 30

    play(scenario)


def test_a_disk_that_takes_nothing_costs_no_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        place.grant(replica.id, call(), call())
        await busy(replica, 2)
        place.leave()
        shutil.rmtree(place.home.call_ends)
        for one in [*replica.working]:
            replica.end(one)
        await until(lambda: not replica.working)
        await until(lambda: len(place.calls._ends._kept) == 2)
        place.home.call_ends.mkdir()
        place.come_back()
        await all_told(place, 2)
        assert len([record for record in caplog.records if "cannot be noted down" in record.message]) == 1

    play(scenario)


def test_lanes_that_are_not_used_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        place.grant(replica.id, call())
        await busy(replica, 1)
        replica.end(replica.working[0])
        await all_told(place, 1)
        place.calls.tick()
        await turns()
        assert replica.connections
        monkeypatch.setattr(hand, "IDLE_S", -1.0)
        place.calls.tick()
        await until(lambda: not replica.connections)

    play(scenario)
