"""Does a gang get one call together, and is what its members end with one result or one failure, whoever dies?"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.calls_place import NODE, WAIT_S, Place, new
from control.gang_place import SIZE, given_out, hasten, heard, kept, play, revoked
from swell.control.gangs import SETTLE_S
from swell.control.hands import HAND_BYTES_MAX
from swell.control.leases import GONE_S, LEASE_S
from swell.model.call import Body, CallError
from swell.model.errors import SwellError
from swell.model.events import PlanCommitted, ReplicaAdopted, ReplicaSeen
from swell.model.gang import Gang, Seat
from swell.model.plan import Plan, Stop
from swell.model.replica import Phase
from swell.wire.calls import INPUT_MAX, Grant

STOPPED = CallError("cancelled", "nobody wants it")
CODES = ("", "", "exception", "replica_died", "bad_arguments", "drained")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def test_each_member_is_given_the_call_with_a_token_of_its_own_and_told_of_the_others() -> None:
    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        assert [token - leases[0][1] for _, token in leases] == [0, 1, 2]
        assert {each for each, _ in leases} == {id}
        granted = [call for frame in place.sent if isinstance(frame, Grant) for call in frame.calls]
        told = [(call.member.rank, call.member.peers) for call in granted if call.member is not None]
        assert sorted(told) == [(rank, tuple(f"here:{member}" for member in members)) for rank in range(SIZE)]
        assert (kept(place, id).replica, kept(place, id).token) == (members[0], leases[0][1])
        assert kept(place, id).members == SIZE
        assert len(place.keeper.leases) == 1
        (level,) = place.levels.values()
        assert (level.held, level.in_flight) == (0, 1)
        # Each of them is at work, on what is one input of the pool.
        assert level.replicas == tuple((member, 1) for member in members)

    play(scenario)


def test_what_a_gang_is_worth_is_told_by_the_call_that_it_has_to_the_next_control_as_well() -> None:
    async def scenario(place: Place) -> None:
        members = place.start_gang("a", SIZE)
        await place.keeper.accept(new(priority=7))
        await place.settle()
        assert place.world.given == {members[0]: 7}
        await place.crash()
        await place.open()
        await place.settle()
        assert place.world.given == {members[0]: 7}

    play(scenario)


def test_nobody_is_given_anything_before_all_are_ready() -> None:
    async def scenario(place: Place) -> None:
        members = place.start_gang("a", SIZE, ready=False)
        await place.keeper.accept(new(priority=7))
        for member in members:
            await place.settle()
            assert not place.runner.held
            (level,) = place.levels.values()
            assert (level.held, level.priorities) == (1, ((7, 1),))
            place.become_ready(member)
        await place.settle()
        assert len(place.runner.held) == SIZE

    play(scenario)


def test_no_attempt_begins_while_members_are_there_that_were_taken_for_lost() -> None:
    async def scenario(place: Place) -> None:
        members = place.start_gang("a", SIZE)
        stray = ReplicaSeen(
            *(place.clock.at, "r1-99", Phase.READY, place.replicas[members[0]], "serving", NODE),
            seat=Seat("r1-98", 1, SIZE),
        )
        place.take(ReplicaAdopted(place.clock.at, stray))
        assert place.world.replicas["r1-99"].phase is Phase.DRAINING
        id = await place.keeper.accept(new())
        place.pass_time(30.0)
        await place.settle()
        assert (kept(place, id).state, place.runner.held) == ("queued", {})
        place.take(msgspec.structs.replace(stray, phase=Phase.GONE, reason="unknown"))
        place.pass_time(1.0)
        await place.settle()
        assert len(place.runner.held) == SIZE

    play(scenario)


@given(st.lists(st.sampled_from(CODES), min_size=SIZE, max_size=SIZE), st.permutations(range(SIZE)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_the_members_end_with_is_one_end(codes: list[str], order: list[int], slowly: bool) -> None:
    """The leader's result where all end well; else the reason that others fail of, and nobody is left at work."""

    async def scenario(place: Place) -> None:
        with pytest.MonkeyPatch.context() as patches:
            hasten(patches)
            id, members, leases = await given_out(place)
            for n, rank in enumerate(order):
                if leases[rank] in place.runner.held:
                    place.runner.end(leases[rank], codes[rank])
                if slowly:
                    await place.settle()
                    over = kept(place, id).state != "leased"
                    # Nothing is told to be recorded before it is, and a success not before all have ended.
                    assert over or not heard(place)
                    assert n == SIZE - 1 or any(codes) or not over
            await place.settle()
            place.pass_time(2 * SETTLE_S)
            await place.settle()
            call = kept(place, id)
            if not any(codes):
                assert (call.state, call.attempts, call.cpu_us) == ("done", 1, 10 * SIZE)
                result = place.store.call_records.result(id)
                assert result is not None
                assert result.data == b"%d" % leases[0][1]
                assert not place.useless
            else:
                assert call.state != "leased"
                assert place.useless == [members[0]]
                failed = {code for code in codes if code}
                if failed == {"drained"} or "drained" not in failed:
                    assert call.attempts == (0 if "drained" in failed else 1)
                if call.state == "failed":
                    assert call.error is not None
                    assert call.error.message.startswith("rank ")
                    assert call.error.code in codes
            assert not place.runner.held
            assert heard(place) == set(leases)
            assert not len(place.keeper.leases)

    play(scenario)


def test_what_members_raise_since_another_one_was_lost_is_a_loss() -> None:
    """A function that is not to be retried is tried again all the same: its node died."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        place.runner.end(leases[0], "exception")
        await place.settle()
        assert kept(place, id).state == "leased", "another one may have been lost"
        place.die(members[2])
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.attempts) == ("queued", 1)
        assert call.error == CallError("replica_died", "rank 2: words")
        assert leases[1] in revoked(place)

    play(scenario)


def test_what_a_member_raises_by_itself_is_the_end_of_the_call_a_moment_later() -> None:
    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        place.runner.end(leases[1], "exception")
        await place.settle()
        place.pass_time(2 * SETTLE_S)
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.error) == ("failed", CallError("exception", "rank 1: words"))
        assert {leases[0], leases[2]} <= revoked(place)
        assert place.useless == [members[0]]

    play(scenario)


def preempt(place: Place, members: list[str]) -> None:
    actions = tuple(Stop(member, "preempted", 30.0, "others") for member in members)
    place.take(PlanCommitted(place.clock.at, Plan(place.clock.at, (), actions=actions)))


@pytest.mark.parametrize("code", ["exception", "replica_died", ""])
def test_who_is_preempted_loses_no_attempt_and_may_use_its_time(code: str) -> None:
    """Others of it go on until they are cut, or are done: then that is the result."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        preempt(place, members)
        place.runner.end(leases[1], code)
        await place.settle()
        place.pass_time(10.0)
        await place.settle()
        assert kept(place, id).state == "leased"
        assert not revoked(place)
        for lease in (leases[0], leases[2]):
            place.runner.end(lease)
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.attempts) == (("queued", 0) if code else ("done", 1))

    play(scenario)


def test_a_call_that_is_cancelled_is_stopped_at_every_member() -> None:
    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        place.runner.end(leases[2])
        await place.settle()
        await place.keeper.cancel(id, STOPPED)
        await place.settle()
        assert kept(place, id).state == "cancelled"
        assert revoked(place) >= set(leases[:2])
        assert heard(place) == set(leases)
        assert not place.runner.held
        assert place.useless == [members[0]]

    play(scenario)


@pytest.mark.parametrize("ended", [each for n in range(SIZE) for each in itertools.combinations(range(SIZE), n)])
@pytest.mark.parametrize("gone", [False, True])
def test_a_new_control_goes_on_with_what_a_gang_works_on(ended: tuple[int, ...], gone: bool) -> None:
    """Whoever of it has ended by then, and whether or not their replicas are there."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        for rank in ended:
            place.runner.end(leases[rank])
            if gone:
                place.leave(members[rank])
        await place.settle()
        await place.crash()
        await place.open()
        await place.settle()
        assert kept(place, id).state == "leased"
        place.pass_time(2 * LEASE_S)
        await place.settle()
        assert kept(place, id).state == "leased"
        for rank in set(range(SIZE)) - set(ended):
            place.runner.end(leases[rank])
        await place.settle()
        result = place.store.call_records.result(id)
        assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
        assert result is not None
        assert result.data == b"%d" % leases[0][1]
        assert heard(place) == set(leases)

    play(scenario)


def test_what_all_of_a_gang_ended_with_while_control_was_away_is_recorded() -> None:
    """And no replica of it is there any more that could tell how many they were."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        await place.crash()
        for member, lease in reversed(list(zip(members, leases, strict=True))):
            # That of the leader is told last.
            place.runner.end(lease)
            del place.replicas[member]
        await place.open()
        await place.settle()
        result = place.store.call_records.result(id)
        assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
        assert result is not None
        assert result.data == b"%d" % leases[0][1]
        assert heard(place) == set(leases)

    play(scenario, gang=Gang(4, 2))


@pytest.mark.parametrize("how", ["before", "after"])
def test_what_a_gang_ended_with_while_the_store_was_away_is_recorded_once(how: str) -> None:
    """Whether or not what could not be written is there after all."""

    async def scenario(place: Place) -> None:
        id, _, leases = await given_out(place)
        place.store.how = how
        for lease in leases:
            place.runner.end(lease)
        # Said once.
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        with pytest.raises(SwellError):
            await asyncio.wait_for(place.keeper.accept(new()), WAIT_S)
        assert not heard(place)
        place.store.how = ""
        await place.settle()
        assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
        assert heard(place) == set(leases)
        assert len(place.keeper.leases) == 0
        assert not place.useless

    play(scenario)


def test_a_success_of_one_member_is_none_where_nobody_knows_what_they_run_any_more() -> None:
    """It was deployed anew while they worked, and then control began anew."""

    async def scenario(place: Place) -> None:
        id, _, leases = await given_out(place)
        await place.crash()
        place.deploy_only("a", gang=Gang(SIZE), single_use=True, max_inputs=1, timeout_s=9.0)
        place.runner.end(leases[0])
        await place.open()
        await place.settle()
        assert kept(place, id).state == "leased"
        for lease in leases[1:]:
            place.runner.end(lease)
        await place.settle()
        assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
        assert heard(place) == set(leases)

    play(scenario)


@pytest.mark.parametrize("rank", range(SIZE))
def test_a_member_that_is_lost_while_control_is_away_is_no_success(rank: int) -> None:
    """All others ended well, and are gone; its runner knows nothing of it either."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        for other in set(range(SIZE)) - {rank}:
            place.runner.end(leases[other])
            place.leave(members[other])
        await place.settle()
        await place.crash()
        del place.replicas[members[rank]], place.runner.held[leases[rank]]
        await place.open()
        await place.settle()
        place.pass_time(LEASE_S + GONE_S + 2 * SETTLE_S)
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.attempts) == ("queued", 1)
        assert call.error is not None
        assert call.error.message.startswith(f"rank {rank}: ")

    play(scenario, gang=Gang(4, 2))


def test_a_gang_of_which_some_were_lost_before_it_had_a_call_is_of_no_use() -> None:
    async def scenario(place: Place) -> None:
        members = place.start_gang("a", SIZE)
        await place.crash()
        del place.replicas[members[1]]
        await place.open()
        await place.keeper.accept(new())
        await place.settle()
        place.pass_time(LEASE_S / 2)
        assert not place.useless
        place.pass_time(LEASE_S)
        assert place.useless == [members[0]]
        assert not place.runner.held

    play(scenario)


def test_a_member_that_could_not_be_sent_its_part_takes_the_others_back_and_that_is_no_attempt() -> None:
    async def scenario(place: Place) -> None:
        members = place.start_gang("a", SIZE)
        real = place.keeper._sending._send
        place.keeper._sending._send = lambda node, frame: (
            not (isinstance(frame, Grant) and frame.replica == members[1]) and real(node, frame)
        )
        id = await place.keeper.accept(new())
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.attempts) == ("queued", 0)
        assert not place.runner.held
        assert place.useless == [members[0]]

    play(scenario)


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 3 * 1024 * 1024))
@settings(max_examples=40, deadline=None)
def test_what_one_round_sends_to_a_runner_is_bounded(size: int, count: int, largest: int) -> None:
    """Each member is sent the whole input: a few gangs that are ready at once must not cut the link to their runner."""

    async def scenario(place: Place) -> None:
        for _ in range(count):
            place.start_gang("a", size)
        hands, sent = place.keeper.hands, Counter[str]()
        hands.saw_input("default/a/f", largest)
        made = list(hands.make("default/a/f", count, Counter(), sent, place.clock.at))
        assert made
        assert sent[NODE] >= len(made) * size * largest
        assert len(made) == 1 or sent[NODE] <= HAND_BYTES_MAX
        assert len(made) == count or sent[NODE] + size * (largest + 20 * size) > HAND_BYTES_MAX
        tokens = [hand.token for hand in made]
        assert tokens == [tokens[0] + size * n for n in range(len(made))]

    play(scenario, gang=Gang(size))


@pytest.mark.parametrize(("size", "most"), [(8, INPUT_MAX), (32, 1024 * 1024)])
def test_what_goes_to_many_members_has_to_be_smaller(size: int, most: int) -> None:
    """Or the link to a runner that has all of them would be cut, again and again."""

    async def scenario(place: Place) -> None:
        await place.keeper.accept(new(input=Body("x", b"1" * most)))
        with pytest.raises(SwellError, match=f"{most} bytes at most") as raised:
            await place.keeper.accept(new(input=Body("x", b"1" * (most + 1))))
        assert raised.value.code == "body_too_large"

    play(scenario, gang=Gang(size))
