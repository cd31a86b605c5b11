"""Do queued calls whose workload is gone run once it is back, also as a variant, and are those ended that nobody can
work on any more?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from control.calls_place import WAIT_S, Place, new
from control.test_calls import hasten
from swell.control.left_calls import ENDED, LeftCalls
from swell.control.reactor import NOT_THERE, Reactor
from swell.control.variants import NEW_S, Variants
from swell.model.call import BATCH_MAX, Body, Call
from swell.model.events import VariantsSet
from swell.model.gang import Gang
from swell.model.policy import Policy
from swell.model.request import Prices
from swell.model.workload import Options, Variant
from swell.store.memory import MemoryStore
from swell.wire.calls import Many, NewCall

F = "default/a/f"
MOST = 2
GROUP = "fg-" + "0" * 26


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def run(scenario: Callable[[Place], Awaitable[None]]) -> None:
    """One server with an app, of which nothing runs."""

    async def begun() -> None:
        place = Place(MemoryStore())
        await place.open()
        place.deploy("a")
        try:
            await asyncio.wait_for(scenario(place), WAIT_S)
        finally:
            await place.close()

    asyncio.run(begun())


def with_memory(mib: int) -> Variant:
    return Variant((), Options(memory_mib=mib))


def variants_of(place: Place) -> Variants:
    """As this incarnation of control has them."""
    found = Variants(place.world, place.take, {}, place.clock, MOST, 100.0)
    found.queued = place.keeper.has
    return found


def left_at(place: Place) -> LeftCalls:
    return LeftCalls(place.keeper, variants_of(place))


def of(key: str) -> NewCall:
    return NewCall(key, "f", Body("application/json", b"1"))


async def begun(place: Place, variant: Variant) -> tuple[str, str]:
    """Somebody calls it so: the key of the variant, and the id of the call."""
    key = variants_of(place).want(F, variant).key
    return key, await place.keeper.accept(of(key))


def state(place: Place, id: str) -> str:
    call = place.store.call_records.get(id)
    assert call is not None
    return call.state


async def work(place: Place, key: str) -> None:
    """A replica of it comes, and does what waits."""
    replica = place.start("a", place.world.workloads[key].pool)
    await place.settle()
    while place.runner.held:
        place.runner.end(next(iter(place.runner.held)))
        await place.settle()
    place.die(replica)


@pytest.mark.parametrize("crash", [False, True])
def test_calls_of_a_variant_run_once_its_app_is_deployed_again_as_it_is_then(crash: bool) -> None:
    async def scenario(place: Place) -> None:
        key, id = await begun(place, with_memory(700))
        place.stop("a")
        if crash:
            await place.crash()
            await place.open()
            await place.settle()
        left = left_at(place)
        await left.restore()
        assert key not in place.world.workloads
        assert Reactor(place.world, Policy(), Prices()).waits(key) == NOT_THERE
        place.deploy("a", timeout_s=77.0)
        await left.restore()
        made = place.world.revisions[place.world.workloads[key].revision]
        assert (made.needs.memory_mib, made.timeout_s) == (700, 77.0)
        await work(place, key)
        assert state(place, id) == "done"

    run(scenario)


def test_a_dead_letter_of_a_variant_that_was_forgotten_can_be_tried_again() -> None:
    async def scenario(place: Place) -> None:
        key, id = await begun(place, with_memory(700))
        place.start("a", place.world.workloads[key].pool)
        await place.settle()
        place.runner.end(next(iter(place.runner.held)), "bad_arguments")
        await place.settle()
        assert state(place, id) == "failed"
        place.take(VariantsSet(place.clock.at, "default", "a", removed=(key.rpartition("/")[2],)))
        left = left_at(place)
        await left.restore()
        assert key not in place.world.workloads, "nothing waits for it"
        await place.keeper.retry(id)
        await left.restore()
        await work(place, key)
        assert state(place, id) == "done"

    run(scenario)


def test_what_a_version_cannot_have_waits_for_one_that_can_and_is_not_asked_for_again_and_again() -> None:
    async def scenario(place: Place) -> None:
        key, id = await begun(place, Variant((), Options(max_inputs=7)))
        place.deploy("a", gang=Gang(2), max_inputs=1, single_use=True)
        left, asked = left_at(place), list[Sequence[str]]()
        look = left._records.variants

        def counted(workloads: Sequence[str]) -> dict[str, Variant]:
            asked.append(workloads)
            return look(workloads)

        left._records.variants = counted  # type: ignore[method-assign]
        for _ in range(3):
            await left.restore()
        assert (key in place.world.workloads, asked) == (False, [[key]])
        assert state(place, id) == "queued"
        place.deploy("a")
        await left.restore()
        await work(place, key)
        assert state(place, id) == "done"

    run(scenario)


def test_where_more_wait_than_there_may_be_the_others_have_their_turn_when_some_are_done() -> None:
    async def scenario(place: Place) -> None:
        ids: dict[str, str] = {}
        for mib in range(500, 500 + MOST + 1):
            key, id = await begun(place, with_memory(mib))
            ids[key] = id
            place.deploy("a")
        left = left_at(place)
        for _ in ids:
            for _ in range(2):
                await left.restore()
            there = [key for key in ids if key in place.world.workloads]
            assert len(there) == MOST
            for key in there:
                await work(place, key)
            place.clock.at += NEW_S + 1.0
        assert {state(place, id) for id in ids.values()} == {"done"}

    run(scenario)


def queued(place: Place) -> list[Call]:
    return place.store.call_records.newest("", "queued", BATCH_MAX * 9)


@pytest.mark.parametrize("crash", [False, True])
def test_calls_for_the_app_of_a_program_end_with_it_and_others_wait(crash: bool) -> None:
    async def scenario(place: Place) -> None:
        place.run("run--1")
        stays = await place.keeper.accept(new())
        later = await place.keeper.accept(new("run--1", delay_s=600.0))
        for first in (0, BATCH_MAX):
            many = Many(first, (b"1",) * BATCH_MAX)
            await place.keeper.accept(new("run--1", group=GROUP, many=many))
        place.start("run--1")
        await place.settle()
        held = list(place.runner.held)
        left = left_at(place)
        await left.end()
        assert len(queued(place)) == 2 * BATCH_MAX + 2 - len(held), "it is there"
        place.stop("run--1")
        place.stop("a")
        if crash:
            await place.crash()
            await place.open()
            await place.settle()
            left = left_at(place)
        await left.end()
        assert [call.id for call in queued(place)] == [stays]
        call = place.store.call_records.get(later)
        assert call is not None
        assert (call.state, call.error) == ("cancelled", ENDED)
        # What runs may end well; what does not is not tried again.
        done, lost = held
        place.runner.end(done)
        place.die(next(iter(place.replicas)))
        await place.settle()
        await left.end()
        assert (state(place, done[0]), state(place, lost[0])) == ("done", "cancelled")
        assert [call.id for call in queued(place)] == [stays]

    run(scenario)


def test_of_two_apps_of_one_name_the_calls_of_the_one_that_was_to_stay_wait() -> None:
    async def scenario(place: Place) -> None:
        stays = await place.keeper.accept(new())
        place.stop("a")
        place.run("a")
        ends = await place.keeper.accept(new())
        place.stop("a")
        await left_at(place).end()
        assert (state(place, stays), state(place, ends)) == ("queued", "cancelled")

    run(scenario)
