"""Have all members of a gang at one runner the call, each by the token of its rank, and only those of the newest?"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node import Node, run
from queued_place import Place, Replica, call, lease, turns, until
from test_queued_runner import Queue

from swell.model.call import Body, call_id
from swell.model.gang import Gang, Seat
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.runtime.runner.queued import ends
from swell.wire.calls import NOTHING, EndedHeard, Grant, Granted, Member, Revoke

SIZE = 3
ID = call_id(1_700_000_000_000, b"0123456789")


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


async def gang(place: Place, size: int = SIZE) -> list[Replica]:
    members = [await place.replica(1) for _ in range(size)]
    for rank, member in enumerate(members):
        member.seat = Seat(members[0].id, rank, size)
    return members


def handed(token: int, rank: int, id: str = "fc-gang") -> Granted:
    return msgspec.structs.replace(call(token + rank, id), member=Member(rank, ("127.0.0.1:1",) * SIZE))


def test_each_member_has_the_call_and_the_result_is_that_of_the_leader() -> None:
    async def scenario(place: Place) -> None:
        members = await gang(place)
        for rank, member in enumerate(members):
            place.grant(member.id, handed(10, rank))
        await until(lambda: all(len(member.working) == 1 for member in members), "all of them work")
        assert [member.call for member in members] == ["fc-gang"] * SIZE
        place.calls.hold()
        assert place.holding == {("fc-gang", 10 + rank) for rank in range(SIZE)}
        for member in members:
            member.end(member.working[0], "result")
        await until(lambda: len(place.told) == SIZE, "all ends")
        assert place.told["fc-gang", 10].body.data == b'"result"'
        assert [place.told["fc-gang", 10 + rank].body for rank in (1, 2)] == [NOTHING] * 2
        assert all(end.members == SIZE for end in place.told.values())

    play(scenario)


def test_what_one_raised_is_told_as_it_was() -> None:
    async def scenario(place: Place) -> None:
        members = await gang(place)
        place.grant(members[1].id, handed(10, 1))
        await until(lambda: members[1].working, "it works")
        members[1].end(members[1].working[0], error="no")
        await until(lambda: place.told, "its end")
        end = place.told["fc-gang", 11]
        assert (end.code, end.message, end.members) == ("exception", "ValueError: no", SIZE)
        assert end.body.data

    play(scenario)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, SIZE - 1)), max_size=12))
def test_of_the_hand_outs_that_come_the_newest_is_held_by_those_it_is_for(grants: list[tuple[int, int]]) -> None:
    """(which hand-out, whose), in any order and as often as may be: an old one is nobody's from then on."""

    async def scenario(place: Place) -> None:
        gangs = [await gang(place) for _ in range(4)]
        held: set[tuple[int, int]] = set()
        for attempt, rank in grants:
            place.grant(gangs[attempt][rank].id, handed(10 * (attempt + 1), rank))
            newest = max(held, default=(attempt, 0))[0]
            if attempt >= newest:
                held = {(attempt, rank), *(each for each in held if each[0] == attempt)}
            place.holding = set()
            place.calls.hold()
            there = {(token // 10 - 1, token % 10) for _, token in place.holding} - dropped(place)
            assert there == held
        await turns()

    def dropped(place: Place) -> set[tuple[int, int]]:
        """Those that were never begun, and are told so."""
        return {(token // 10 - 1, token % 10) for _, token in place.calls._ends}

    play(scenario)


def test_a_cancel_reaches_the_process_of_a_member_and_of_no_other_replica() -> None:
    async def scenario(place: Place) -> None:
        members = await gang(place)
        alone = await place.replica(1)
        ordinary = call()
        place.grant(alone.id, ordinary)
        place.grant(members[1].id, handed(10, 1))
        await until(lambda: members[1].working and alone.working, "they work")
        place.revoke(("fc-gang", 11), lease(ordinary))
        assert (members[1].terminated, alone.terminated, members[0].terminated) == (True, False, False)
        await until(lambda: not members[1].working and not alone.working, "they are stopped")

    play(scenario)


def test_a_result_that_waits_for_its_gang_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "UNHEARD_MAX", 2 * ends.EACH)

    async def scenario(place: Place) -> None:
        members = await gang(place, 1)
        place.grant(members[0].id, handed(10, 0))
        await until(lambda: members[0].working, "it works")
        members[0].end(members[0].working[0], "x" * 10_000)
        await until(lambda: ("fc-gang", 10) in place.told, "the leader's end")
        other = await place.replica(1)
        for _ in range(4):
            one = call()
            place.grant(other.id, one)
            await until(lambda: other.working, "it works")
            other.end(other.working[0])
            await until(lambda one=one: lease(one) in place.told, "its end")
            place.hear(lease(one))
        place.hear(("fc-gang", 10))
        assert place.calls._ends._said_bytes == 0

    play(scenario)


SERVICE = """
import os, subprocess, time
import swell
def f():
    print("at work", os.environ["RANK"], flush=True)
    subprocess.run(["echo", "from a program"])
    while not swell.stopping():
        time.sleep(0.01)
    return os.environ["RANK"]
"""


@pytest.mark.slow
def test_a_gang_at_a_real_runner_outlives_it_and_ends_when_it_is_preempted() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        revision = node.revision(SERVICE, gang=Gang(2), single_use=True)
        template = await node.ready(node.start(revision, role="template"))
        leader = "r1-ffff"
        ids = (leader, "r1-fffe")
        for rank, id in enumerate(ids):
            node.start(revision, template=template.replica, replica=id, seat=Seat(leader, rank, 2))
        seen = [await node.ready(id) for id in ids]
        assert [one.seat for one in seen] == [Seat(leader, rank, 2) for rank in range(2)]
        peers = tuple(one.meeting for one in seen)
        assert all(peer.startswith("127.0.0.1:") for peer in peers)
        assert len(set(peers)) == 2
        for rank, id in enumerate(ids):
            granted = Granted(ID, 7 + rank, "f", Body(""), "", 60.0, member=Member(rank, peers))
            queue.say(Grant(node.epoch, id, (granted,)))
        await queue.at_work(2)
        lines = [(row["request"], row.get("rank"), row["text"]) for row in node.log() if row["stream"] == "out"]
        assert {(ID, rank, f"at work {rank}") for rank in range(2)} <= set(lines)
        await node.until(lambda: sum(row["text"] == "from a program" for row in node.log()) == 2)
        # What a program of its own prints is of the call, too.
        assert {row["request"] for row in node.log() if row["text"] == "from a program"} == {ID}
        await node.kill_runner()
        node.facts.clear()
        await node.start_runner()
        again = [await node.ready(id) for id in ids]
        assert [(one.seat, one.meeting) for one in again] == [(one.seat, one.meeting) for one in seen]
        await node.until(lambda: set(queue.holding) >= {(ID, 7), (ID, 8)})
        node.stop(leader, "preempted", 60.0)
        (end,) = await queue.ended((ID, 7))
        assert (end.code, end.body.data, end.members) == ("", b'"0"', 2)
        queue.say(Revoke(((ID, 8),)))
        await queue.ended((ID, 8))
        queue.say(EndedHeard(((ID, 7), (ID, 8))))
        for id in ids:
            assert (await node.gone(id)).phase is Phase.GONE
        node.stop(template.replica)
        await node.gone(template.replica)

    run(scenario)


GIVES_WAY = """
import time
import swell
def f(ignores=False):
    print("at work", flush=True)
    while ignores or not swell.stopping():
        time.sleep(0.01)
    raise InterruptedError("told to stop")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "reason"), [("", "preempted"), ("", "shutdown"), ("superseded", "shutdown"), ("", "idle")]
)
def test_what_fails_once_its_replica_must_go_was_no_attempt(before: str, reason: str) -> None:
    """Of a call of its own, and of a member: of one that raises as it is told, and of one that does not listen. They
    may have had all the time there is `before`."""

    async def scenario(node: Node) -> None:
        queue = Queue(node)
        plain, members = node.revision(GIVES_WAY), node.revision(GIVES_WAY, gang=Gang(2), single_use=True)
        alone = [(await node.ready(node.start(plain, replica=f"r1-{number}"))).replica for number in range(2)]
        seats = [Seat("r1-a", rank, 2) for rank in range(2)]
        gang = [
            (await node.ready(node.start(members, replica=id, seat=seat))).replica
            for id, seat in zip(("r1-a", "r1-b"), seats, strict=True)
        ]
        leases = []
        for replica, seat in zip((*alone, *gang), (None, None, *seats), strict=True):
            rank, body = (seat.rank if seat else 0), b"[true]" if replica in (alone[1], gang[1]) else b"[]"
            member = Member(rank, ("127.0.0.1:1",) * 2) if seat else None
            id = ID if seat else f"fc-{replica}"
            one = Granted(id, 7 + rank, "f", Body("application/json", body), "", 600.0, member=member)
            queue.say(Grant(node.epoch, replica, (one,)))
            leases.append(lease(one))
        await queue.at_work(4)
        for replica in (*alone, *gang) if before else ():
            node.stop(replica, before, 600.0)
            await node.until(lambda replica=replica: node.seen(replica)[-1].phase is Phase.DRAINING)
        if reason == "shutdown":
            assert await node.stop_runner() == 0
        else:
            for replica in (*alone, *gang):
                node.stop(replica, reason, 1.0)
        codes = [end.code for end in await queue.ended(*leases)]
        assert codes == ["replica_died" if reason == "idle" else "preempted"] * 4
        if reason != "idle":
            return
        for replica in (*alone, *gang):
            await node.gone(replica)

    run(scenario, policy=Policy(stop_grace_s=1.0))


@pytest.mark.slow
def test_what_raises_since_somebody_else_ended_its_process_was_lost_with_its_replica() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        seen = await node.ready(node.start(node.revision(GIVES_WAY)))
        one = Granted(ID, 7, "f", Body("application/json", b"[]"), "", 600.0)
        queue.say(Grant(node.epoch, seen.replica, (one,)))
        await queue.at_work(1)
        assert seen.pid is not None
        os.kill(seen.pid, signal.SIGTERM)
        (end,) = await queue.ended(lease(one))
        assert (end.code, end.message.partition(":")[0]) == ("replica_died", "Its process was told to end (SIGTERM)")
        assert (await node.gone(seen.replica)).reason == "terminated"

    run(scenario)


@pytest.mark.slow
def test_a_member_that_is_ready_while_there_is_no_runner_is_found_by_the_next_one() -> None:
    async def scenario(node: Node) -> None:
        source = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\ndef f(): pass\n"
        revision = node.revision(source, gang=Gang(1), single_use=True)
        id = node.start(revision, replica="r1-fffd", seat=Seat("r1-fffd", 0, 1))
        await node.until(lambda: any(seen.pid for seen in node.seen(id)))
        await node.kill_runner()
        (node.home.bundles / revision.bundle / "go").touch()
        node.facts.clear()
        await node.start_runner()
        seen = await node.ready(id)
        assert seen.meeting.startswith("127.0.0.1:")
        node.stop(id)
        await node.gone(id)

    run(scenario)
