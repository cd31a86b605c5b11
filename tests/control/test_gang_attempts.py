"""Does one attempt of a gang end before the next one begins, and for the right reason, whoever is heard first?"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.calls_place import NODE, Place
from control.gang_place import SIZE, given_out, hasten, heard, kept, play, revoked
from swell.control.gangs import SETTLE_S
from swell.control.leases import GONE_S, LEASE_S
from swell.model.events import GangBroken, PlanCommitted
from swell.model.gang import Gang
from swell.model.plan import Plan, Stop


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.mark.parametrize("code", ["exception", "replica_died", "drained", "preempted"])
def test_the_next_attempt_begins_once_nothing_of_the_last_one_is_left(code: str) -> None:
    """What is in the same checkpoint folders must not be written by two. Whoever of it looks on is told again."""

    async def scenario(place: Place) -> None:
        place.lingers = True
        id, members, leases = await given_out(place)
        others = place.start_gang("a", SIZE)
        place.runner.end(leases[1], code)
        if code == "preempted":
            for lease in (leases[0], leases[2]):
                place.runner.end(lease, code)
        await place.settle()
        place.pass_time(2 * SETTLE_S)
        await place.settle()
        assert place.useless == [members[0]]
        assert not place.runner.held
        for member in members:
            place.pass_time(LEASE_S)
            await place.settle()
            assert (kept(place, id).state, kept(place, id).replica) == ("leased", members[0])
            place.leave(member)
        await place.settle()
        assert (kept(place, id).state, kept(place, id).replica) == ("leased", others[0])
        assert kept(place, id).attempts == (1 if code in ("drained", "preempted") else 2)
        assert {at for at, _ in place.runner.held.values()} == set(others)
        assert place.useless == [members[0]]

    play(scenario, retries=3)


def test_what_a_member_raises_once_its_gang_was_broken_is_a_loss() -> None:
    """Another one of it is gone, and what came of that is not heard yet, or was well."""

    async def scenario(place: Place) -> None:
        id, members, leases = await given_out(place)
        place.take(GangBroken(place.clock.at, members[0], "rank 2 of it ended"))
        actions = tuple(Stop(member, "gang_broken", 5.0, "why") for member in members)
        place.take(PlanCommitted(place.clock.at, Plan(place.clock.at, (), actions=actions)))
        place.runner.end(leases[1], "exception")
        await place.settle()
        call = kept(place, id)
        assert (call.state, call.attempts) == ("queued", 1)
        assert call.error is not None
        assert call.error.code == "replica_died"

    play(scenario)


def test_a_part_that_did_not_hear_that_it_is_to_stop_is_told_again() -> None:
    async def scenario(place: Place) -> None:
        _, _, leases = await given_out(place)
        place.runner.end(leases[1], "replica_died")
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        real, place.runner.inbox = place.runner.inbox, []
        await place.keeper.retry("nobody")
        assert place.runner.inbox
        place.runner.inbox = real
        place.sent.clear()
        place.keeper.heard_holding(NODE, [*place.runner.held])
        assert revoked(place) == {leases[0], leases[2]}
        await place.settle()
        assert not place.runner.held

    play(scenario)


@given(st.permutations(["leader raised", "follower raised", "node lost"]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_what_members_raise_is_no_reason_while_one_of_them_is_not_heard_of(order: list[str], known: bool) -> None:
    """Its node may have gone, which they raise for: a lease has to expire before that is known, or its node is given
    up. Who is heard of was not lost."""

    async def scenario(place: Place) -> None:
        with pytest.MonkeyPatch.context() as patches:
            hasten(patches)
            id, members, leases = await given_out(place)
            for what in order:
                match what:
                    case "leader raised":
                        place.runner.end(leases[0], "exception")
                    case "follower raised":
                        place.runner.end(leases[1], "exception")
                    case _:
                        del place.runner.held[leases[2]]
                await place.settle()
                place.pass_time(SETTLE_S / 4)
            place.pass_time(LEASE_S / 2)
            await place.settle()
            assert kept(place, id).state == "leased"
            if known:
                place.leave(members[2])
                place.pass_time(GONE_S + 1.0)
            else:
                place.pass_time(LEASE_S)
            await place.settle()
            call = kept(place, id)
            assert (call.state, call.attempts) == ("queued", 1)
            assert call.error is not None
            assert call.error.code == ("replica_died" if known else "lease_expired")
            assert call.error.message.startswith("rank 2: ")

    play(scenario)


@given(st.permutations(range(SIZE)), st.sets(st.integers(0, SIZE - 1)), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_who_of_a_gang_is_heard_first_makes_no_difference(order: list[int], away: set[int], later: int) -> None:
    """To a control that knows nothing of what they run: it was deployed anew, and then control began anew. Who works
    goes on, and what had ended counts."""

    async def scenario(place: Place) -> None:
        with pytest.MonkeyPatch.context() as patches:
            hasten(patches)
            id, _, leases = await given_out(place)
            await place.crash()
            place.deploy_only("a", gang=Gang(SIZE), single_use=True, max_inputs=1, timeout_s=9.0)
            for rank in away:
                place.runner.end(leases[rank])
            there, place.runner.there = place.runner.there, False
            await place.open()
            place.runner.there = there
            for rank in order:
                if leases[rank] in place.runner.held:
                    place.keeper.heard_holding(NODE, [leases[rank]])
                else:
                    place.keeper.heard_ends(NODE, [place.runner.ends[leases[rank]]])
                for _ in range(later):
                    await asyncio.sleep(0)
            place.connect()
            await place.settle()
            assert set(place.runner.held) == {leases[rank] for rank in set(range(SIZE)) - away}
            for lease in list(place.runner.held):
                place.runner.end(lease)
            await place.settle()
            assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
            assert heard(place) == set(leases)

    play(scenario)
