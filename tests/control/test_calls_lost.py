"""What becomes of calls whose replica dies again and again, or whose runner stands still?"""

from __future__ import annotations

import asyncio

import pytest

from control.calls_place import MAX_INPUTS, NODE, Place, new
from control.test_calls import STOPPED, hasten, run
from swell.control.leases import LEASE_S
from swell.model.call import Call
from swell.model.events import NodeSeen
from swell.model.node import Node


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def kept(place: Place, id: str) -> Call:
    found = place.store.call_records.get(id)
    assert found is not None
    return found


def test_a_call_that_is_tried_again_alone_is_as_much_demand_as_fills_its_replica() -> None:
    async def scenario(place: Place) -> None:
        replica = place.start("a")
        await place.keeper.accept(new())
        await place.settle()
        place.die(replica)
        await place.settle()
        place.pass_time(2.0)
        await place.settle()
        await asyncio.sleep(0.01)
        (level,) = place.levels.values()
        assert (level.held, level.in_flight) == (MAX_INPUTS, 0)
        replica = place.start("a")
        await place.settle()
        await asyncio.sleep(0.01)
        (level,) = place.levels.values()
        assert (level.held, level.in_flight, level.replicas) == (0, MAX_INPUTS, ((replica, 1),))

    run(scenario)


@pytest.mark.parametrize("seconds", [4.0, 12.0, 20.0, 26.0])
def test_a_runner_that_stands_still_loses_nothing_that_runs(seconds: float) -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id, waits = [await place.keeper.accept(new()) for _ in range(MAX_INPUTS + 1)][::MAX_INPUTS]
        await place.settle()
        place.pass_time(2.0)
        place.stand_still(seconds)
        await place.settle()
        assert place.cuts == (seconds > LEASE_S)
        assert (kept(place, id).state, kept(place, id).attempts) == ("leased", 1)
        assert (kept(place, waits).state, kept(place, waits).attempts) == ("queued", 0)
        for lease in list(place.runner.held):
            place.runner.end(lease)
        await place.settle()
        assert (kept(place, id).state, kept(place, id).attempts) == ("done", 1)
        assert (kept(place, waits).state, kept(place, waits).attempts) == ("leased", 1)

    run(scenario)


def test_a_runner_that_stands_still_for_longer_is_lost_with_its_node_and_takes_one_attempt() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id, waits = [await place.keeper.accept(new()) for _ in range(MAX_INPUTS + 1)][::MAX_INPUTS]
        await place.settle()
        for _ in range(10):
            # Each second something else may hand it out.
            place.keeper.roomy()
            place.runner.silent = True
            place.pass_time(10.0)
            await place.settle()
        assert kept(place, id).state == "queued"
        assert (kept(place, id).attempts, (kept(place, id).error or STOPPED).code) == (1, "replica_died")
        assert (kept(place, waits).state, kept(place, waits).attempts) == ("queued", 0)

    run(scenario)


def test_a_runner_that_speaks_and_does_not_say_what_it_was_given_is_asked_for_that() -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        place.runner.held.clear()
        for _ in range(10):
            place.pass_time(2.0)
            await place.settle()
        assert place.cuts == 1
        error = kept(place, id).error
        assert error is not None
        assert (error.code, error.message) == ("lease_expired", "not here")

    run(scenario)


def test_a_call_that_ends_replicas_makes_no_dead_letters_of_those_beside_it() -> None:
    async def scenario(place: Place) -> None:
        place.deploy("a", max_inputs=10)
        ids = await asyncio.gather(*(place.keeper.accept(new()) for _ in range(10)))
        poison, innocent = ids[3], {*ids} - {ids[3]}
        for _ in range(20):
            if not place.replicas:
                place.start("a")
            await place.settle()
            others = {await place.keeper.accept(new()) for _ in range(3)}
            await place.settle()
            there = {call.id for _, call in place.runner.held.values()}
            if poison in there:
                assert there == {*ids} or there == {poison}
                assert not there & others
                place.die(next(iter(place.replicas)))
            for lease in list(place.runner.held):
                place.runner.end(lease)
            place.pass_time(2.0)
        await place.settle()
        states = {id: kept(place, id).state for id in ids}
        assert states == {poison: "failed"} | dict.fromkeys(innocent, "done")
        # Each was at two replicas, and it at all it is allowed.
        assert kept(place, poison).attempts == 4

    run(scenario)


@pytest.mark.parametrize("said", [True, False])
def test_what_is_lost_with_a_machine_that_went_as_was_said_used_no_attempt(said: bool) -> None:
    async def scenario(place: Place) -> None:
        place.start("a")
        runs = await place.keeper.accept(new())
        await place.settle()
        if said:
            place.take(NodeSeen(place.clock.at, Node(NODE, 8.0, 8192, leaving_at=place.clock.at + 30.0)))
        waits = await place.keeper.accept(new())
        await place.settle()
        assert kept(place, waits).state == ("queued" if said else "leased"), "nothing is begun there any more"
        for _ in range(10):
            place.runner.silent = True
            place.pass_time(10.0)
            await place.settle()
        assert (kept(place, runs).state, kept(place, runs).attempts) == ("queued", 0 if said else 1)

    run(scenario)


def test_a_machine_that_stays_after_all_is_given_calls_again_and_loses_them_as_any() -> None:
    async def scenario(place: Place) -> None:
        replica = place.start("a")
        id = await place.keeper.accept(new())
        await place.settle()
        place.take(NodeSeen(place.clock.at, Node(NODE, 8.0, 8192, leaving_at=place.clock.at + 30.0)))
        waits = await place.keeper.accept(new())
        place.pass_time(1.0)
        await place.settle()
        place.take(NodeSeen(place.clock.at, Node(NODE, 8.0, 8192)))
        place.pass_time(1.0)
        await place.settle()
        assert kept(place, waits).state == "leased"
        place.die(replica)
        place.runner.ends.clear()
        for _ in range(5):
            place.pass_time(2.0)
            await place.settle()
        assert (kept(place, id).attempts, (kept(place, id).error or STOPPED).code) == (1, "replica_died")

    run(scenario)
