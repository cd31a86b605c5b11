"""Who waits for room gets what others have beyond need and minimum, and nobody is left with less than that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.worlds import POLICY, Setting, deployed, on_one_node, ready, report, rescaled, settings
from swell.decide.plan import FOR_OTHERS, plan
from swell.decide.spare import Use, spare
from swell.model.demand import IDLE, Demand, seen
from swell.model.events import NodeSeen, PlanCommitted
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica

FRESH = Policy(templates=False)


def told(it: Setting, pool: str, held: int, in_flight: int = 0) -> None:
    it.demand[pool] = seen(it.demand.get(pool, Demand()), held, in_flight, 0, it.now)


def decided(it: Setting, pools: tuple[str, ...], policy: Policy = FRESH) -> Plan:
    made = plan(it.world, it.demand, it.now, pools, policy)
    it.world.apply(PlanCommitted(it.now, made))
    return made


def all_ready(it: Setting) -> None:
    for replica in list(it.world.replicas.values()):
        if replica.phase in (Phase.PLANNED, Phase.STARTING):
            it.world.apply(report(replica, Phase.READY, it.now))


def reclaimed(made: Plan) -> list[Stop]:
    return [a for a in made.actions if isinstance(a, Stop) and a.reason == "reclaimed"]


def full(held: int, **scaling: Any) -> tuple[Setting, str, str]:
    """A node that one pool filled; and another that waits. Nothing idle goes by itself."""
    it = on_one_node()
    busy, waits = deployed(it, "busy", memory_mib=128), deployed(it, "waits", memory_mib=128)
    rescaled(it, busy.partition("@")[0], idle_s=6000.0, **scaling)
    told(it, busy, 8)
    decided(it, (busy,))
    all_ready(it)
    it.now += 1.0
    told(it, busy, 0, held)
    told(it, waits, 1)
    return it, busy, waits


@pytest.mark.parametrize("working", [0, 1, 2, 7])
def test_who_waits_gets_what_a_pool_at_work_has_beyond_its_need(working: int) -> None:
    it, busy, waits = full(working)
    newest = max(it.world.in_pool(busy), key=lambda r: (r.planned_at, r.id))
    assert decided(it, (waits,)).look_again == ((waits, it.now + FRESH.reclaim_after_s),)
    it.now += FRESH.reclaim_after_s
    (stop,) = reclaimed(decided(it, (waits,)))
    assert stop.replica == newest.id
    assert stop.grace_s == it.world.revisions[busy.partition("@")[2]].timeout_s + FRESH.stop_grace_s


@pytest.mark.parametrize(("working", "scaling"), [(8, {}), (0, {"min_replicas": 8}), (6, {"min_replicas": 8})])
def test_need_and_minimum_are_kept(working: int, scaling: dict[str, int]) -> None:
    it, _, waits = full(working, **scaling)
    it.now += 400.0
    assert decided(it, (waits,)).actions == ()


def test_a_reserve_goes_for_who_waits_after_what_is_idle_and_what_is_warm_and_nobody_goes_for_one() -> None:
    it, busy, waits = full(6, buffer_replicas=1)
    it.now += 400.0
    uses = [each.use for each in spare(it.world, busy, it.demand[busy])]
    assert uses == [Use.NONE, Use.RESERVE]
    assert Use.NONE < Use.WARM < Use.RESERVE
    told(it, waits, 2)
    assert len(reclaimed(decided(it, (waits, busy)))) == 2
    told(it, waits, 0)
    for replica in [r for r in it.world.replicas.values() if r.phase is Phase.DRAINING]:
        it.world.apply(report(replica, Phase.GONE, it.now))
    told(it, waits, 2)
    made = decided(it, (busy, waits))
    assert [a.pool for a in made.actions if isinstance(a, Start)] == [waits, waits], "they come before the reserve"
    all_ready(it)
    told(it, waits, 0)
    it.now += 30.0
    made = decided(it, (busy, waits))
    assert made.actions == (), "what is idle does not go for a reserve"
    assert [(wait.pool, "asks for 128 MiB" in wait.why_not) for wait in made.waits] == [(busy, True)]


def test_a_reserve_does_not_take_the_room_that_is_made_for_who_waits() -> None:
    """Half of it is free already, and would do for the reserve."""
    it = on_one_node()
    idle, busy = deployed(it, "idle", memory_mib=512), deployed(it, "busy", memory_mib=256)
    waits = deployed(it, "waits", memory_mib=768)
    for pool in (idle, busy):
        rescaled(it, pool.partition("@")[0], idle_s=6000.0)
        told(it, pool, 1)
    decided(it, (idle, busy))
    all_ready(it)
    told(it, idle, 0)
    rescaled(it, busy.partition("@")[0], buffer_replicas=1)
    told(it, waits, 1)
    it.now += 10.0
    made = decided(it, (busy, waits))
    assert [it.world.replicas[stop.replica].pool for stop in reclaimed(made)] == [idle]
    assert not any(isinstance(a, Start) for a in made.actions)
    assert {wait.pool: wait.why_not for wait in made.waits}[busy] == FOR_OTHERS


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5), st.integers(1, 8))
def test_of_scarce_room_who_has_least_gets_the_next(wanted: list[int], room: int) -> None:
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 1000.0, room * 128)))
    pools = [deployed(it, f"a{n}", memory_mib=128) for n in range(len(wanted))]
    for pool, level in zip(pools, wanted, strict=True):
        told(it, pool, level)
    made = decided(it, tuple(pools))
    got = [sum(isinstance(a, Start) and a.pool == pool for a in made.actions) for pool in pools]
    assert sum(got) == min(sum(wanted), room)
    short = [has for has, level in zip(got, wanted, strict=True) if has < level]
    assert max(got) - min(short, default=max(got)) <= 1


def test_a_minimum_keeps_no_more_than_itself() -> None:
    it, busy, waits = full(0, min_replicas=1)
    it.now += 400.0
    told(it, waits, 100)
    assert len(reclaimed(decided(it, (waits,)))) == 7, "all at once, and not one after the other"
    for _ in range(20):
        told(it, waits, 100)
        for replica in [r for r in it.world.replicas.values() if r.phase is Phase.DRAINING]:
            it.world.apply(report(replica, Phase.GONE, it.now))
        decided(it, (waits, busy))
        all_ready(it)
    assert [len(it.world.in_pool(pool)) for pool in (busy, waits)] == [1, 7]


def test_what_a_moment_ago_was_needed_is_not_taken_at_once() -> None:
    it, busy, _ = full(0)
    it.now += 400.0
    told(it, busy, 0, 5)
    it.now += 0.4
    told(it, busy, 0, 1)
    level = it.demand[busy]
    since = sorted(each.since for each in spare(it.world, busy, level))
    assert since == [1001.0] * 3 + [it.now] * 4, "three were not needed by five either"


def test_of_replicas_still_starting_none_goes_and_none_counts_as_there() -> None:
    it = on_one_node()
    pool = deployed(it, "a")
    told(it, pool, 2)
    decided(it, (pool,))
    one, _ = it.world.in_pool(pool)
    it.world.apply(report(one, Phase.READY, it.now))
    it.now += 1.0
    told(it, pool, 0, 1)
    assert list(spare(it.world, pool, it.demand[pool])) == [], "the one that works is all there is"
    told(it, pool, 0)
    assert [each.replica.id for each in spare(it.world, pool, it.demand[pool])] == [one.id]


def test_a_template_goes_but_not_while_something_is_forked_from_it() -> None:
    it = on_one_node()
    pool = deployed(it, "a")
    told(it, pool, 1)
    it.step((pool,))
    template = next(r for r in it.world.in_pool(pool) if r.role == "template")
    replica = next(r for r in it.world.in_pool(pool) if r.role == "serving")
    it.world.apply(report(template, Phase.READY, it.now))
    it.now += 5.0
    told(it, pool, 0)
    for phase in (Phase.PLANNED, Phase.STARTING):
        if phase is not Phase.PLANNED:
            it.world.apply(report(replica, phase, it.now))
        assert list(spare(it.world, pool, it.demand[pool])) == []
    it.world.apply(report(replica, Phase.READY, it.now))
    assert {each.replica.id for each in spare(it.world, pool, it.demand[pool])} == {template.id, replica.id}
    assert list(spare(it.world, pool, it.demand[pool], leaving={template.id, replica.id})) == []


def test_the_template_of_a_pool_in_use_goes_last_and_rather_than_that_another_pool_has_none() -> None:
    it = on_one_node()
    busy, idle = deployed(it, "busy", memory_mib=384), deployed(it, "idle", memory_mib=128)
    waits = deployed(it, "waits", memory_mib=128)
    for pool in (busy, idle):
        ready(it, pool, 1)
    it.now += 1.0
    told(it, busy, 0, 1)
    told(it, idle, 0)
    told(it, waits, 1)
    it.now += 400.0
    (stop,) = reclaimed(decided(it, (waits,)))
    assert it.world.replicas[stop.replica].pool == idle
    it.world.apply(report(it.world.replicas[stop.replica], Phase.GONE, it.now))
    decided(it, (waits,))
    all_ready(it)
    told(it, waits, 1, 1)
    (stop,) = reclaimed(decided(it, (waits,)))
    assert it.world.replicas[stop.replica].pool == idle, "its template, too"
    it.world.apply(report(it.world.replicas[stop.replica], Phase.GONE, it.now))
    decided(it, (waits,))
    all_ready(it)
    told(it, waits, 1, 2)
    (stop,) = reclaimed(decided(it, (waits,)))
    gone = it.world.replicas[stop.replica]
    assert (gone.pool, gone.role) == (busy, "template")


def test_what_is_started_now_keeps_the_template_it_is_forked_from() -> None:
    """One of two found room, the other did not."""
    it = on_one_node()
    pool = deployed(it, "a", memory_mib=300)
    ready(it, pool, 1)
    told(it, pool, 0)
    it.now += 100.0
    (replica,) = [r for r in it.world.in_pool(pool) if r.role == "serving"]
    for phase in (Phase.DRAINING, Phase.GONE):
        it.world.apply(report(replica, phase, it.now))
    told(it, pool, 3)
    made = it.step((pool,)).plan
    assert len([a for a in made.actions if isinstance(a, Start)]) == 2
    assert reclaimed(made) == []


def test_whose_level_nobody_told_keeps_what_it_has() -> None:
    it, busy, waits = full(0)
    it.now += 400.0
    del it.demand[busy]
    assert decided(it, (waits,)).actions == ()
    it.demand[busy] = IDLE
    assert len(reclaimed(decided(it, (waits,)))) == 1


@given(settings(), st.integers(0, 3))
def test_what_is_spare_leaves_what_is_wanted(it: Setting, more: int) -> None:
    for workload in it.world.workloads.values():
        demand = it.demand.get(workload.pool, IDLE)
        serving = [r for r in it.world.in_pool(workload.pool) if r.role == "serving" and r.phase is Phase.READY]
        going = [each for each in spare(it.world, workload.pool, demand) if each.replica.role == "serving"]
        left = len(serving) - len(going)
        revision = it.world.revisions[workload.revision]
        busy = demand.held + min(demand.in_flight, len(serving) * revision.max_inputs)
        need = min(-(-busy // revision.target_inputs), workload.scaling.max_replicas)
        assert not going or left >= max(need, workload.scaling.min_replicas)
        assert all((each.replica.ready_at or 0.0) <= each.since <= it.now for each in going)


class Counting(dict[str, Demand]):
    """Demand that knows how often it was looked into."""

    looks = 0

    def get(self, pool: str, default: Any = None) -> Any:
        self.looks += 1
        return super().get(pool, default)


@pytest.mark.parametrize("needed_mib", [64, 100_000])
def test_pressure_costs_a_look_at_each_pool_and_not_one_for_each_that_waits(needed_mib: int) -> None:
    """And the plan keeps the demand of those it is about, and not of all."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 1000.0, 200 * 64)))
    idle = [deployed(it, f"idle{n}", memory_mib=64) for n in range(200)]
    for pool in idle:
        told(it, pool, 1)
    decided(it, tuple(idle))
    all_ready(it)
    for pool in idle:
        told(it, pool, 0)
    waiting = [deployed(it, f"new{n}", memory_mib=needed_mib) for n in range(20)]
    for pool in waiting:
        told(it, pool, 1)
    it.now += 10.0
    counting = Counting(it.demand)
    made = plan(it.world, counting, it.now, tuple(waiting), FRESH)
    gone = {it.world.replicas[stop.replica].pool for stop in reclaimed(made)}
    assert len(gone) == (20 if needed_mib == 64 else 0)
    assert {pool for pool, _ in made.demand} == {*waiting, *gone}
    assert counting.looks <= 2 * (len(idle) + len(waiting))


@st.composite
def nodes_full_of_idle(draw: st.DrawFn) -> tuple[Setting, tuple[str, ...]]:
    """Several nodes with idle and busy replicas of all sizes and ages, and pools that want room."""
    it = Setting()
    for n in range(draw(st.integers(1, 3))):
        it.world.apply(NodeSeen(it.now, Node(f"n{n}", 8.0, draw(st.sampled_from([512, 1024])))))
    sizes = st.sampled_from([64, 128, 200, 400])
    for n, memory_mib in enumerate(draw(st.lists(sizes, min_size=1, max_size=8))):
        pool = deployed(it, f"idle{n}", memory_mib=memory_mib)
        rescaled(it, pool.partition("@")[0], idle_s=6000.0)
        ready(it, pool, draw(st.integers(1, 3)))
        it.now += draw(st.sampled_from([0.0, 0.3, 5.0]))
        told(it, pool, 0, draw(st.sampled_from([0, 0, 1])))
    waiting = []
    for n, memory_mib in enumerate(draw(st.lists(sizes, min_size=1, max_size=4))):
        waiting.append(deployed(it, f"new{n}", memory_mib=memory_mib))
        told(it, waiting[-1], draw(st.integers(1, 3)))
    it.now += draw(st.sampled_from([0.0, 0.5, 20.0]))
    return it, tuple(waiting)


@given(nodes_full_of_idle(), st.sampled_from([0.1, 0.3, 0.5]))
def test_what_a_plan_under_pressure_kept_of_the_demand_leads_to_it_again(
    crowd: tuple[Setting, tuple[str, ...]], share: float
) -> None:
    it, waiting = crowd
    policy = msgspec.structs.replace(POLICY, template_memory_share=share)
    made = plan(it.world, it.demand, it.now, waiting, policy)
    assert plan(it.world, dict(made.demand), it.now, waiting, policy) == made


@given(nodes_full_of_idle())
def test_nobody_waits_beside_what_would_do(crowd: tuple[Setting, tuple[str, ...]]) -> None:
    """Long after the last change: whoever still waits would not fit even with all that is spare."""
    it, _ = crowd
    it.now += 20.0
    for _ in range(30):
        made = it.step()
        for replica in list(it.world.replicas.values()):
            if replica.phase is not Phase.READY:
                phase = Phase.GONE if replica.phase is Phase.DRAINING else Phase.READY
                it.world.apply(report(replica, phase, it.now))
        it.now += 2.0
    assert made.plan.actions == ()
    for wait in made.plan.waits:
        revision = it.world.revision(wait.pool)
        assert revision is not None
        for node in it.world.nodes:
            room = it.world.room(node)
            others: list[Replica] = [
                each.replica
                for pool in it.world.by_pool
                for each in spare(it.world, pool, it.demand.get(pool, IDLE))
                if each.replica.node == node
            ]
            for replica in others:
                room.give_back(it.world.held(replica))
            assert room.lacks(revision.needs) is not None


def test_who_was_never_wanted_is_not_needed_from_when_it_was_ready() -> None:
    it = on_one_node()
    pool = deployed(it, "a")
    rescaled(it, pool.partition("@")[0], min_replicas=1)
    decided(it, (pool,))
    it.now += 7.0
    all_ready(it)
    rescaled(it, pool.partition("@")[0], min_replicas=0)
    assert [each.since for each in spare(it.world, pool, IDLE)] == [it.now]
