"""What must hold of every plan, whatever the world: nothing promised twice, given up unready or left undecided."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from decide.worlds import POLICY, Setting, report, settings
from swell.decide.check import check, would_break
from swell.decide.drive import drive
from swell.decide.plan import plan
from swell.decide.scale import NEVER, PoolState, scale
from swell.model.demand import Demand, seen
from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, PlanCommitted
from swell.model.node import Node
from swell.model.orders import Inventory, StartOrder, StopOrder
from swell.model.plan import Start, Stop
from swell.model.replica import Phase, Replica
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload


@given(settings())
def test_a_committed_plan_breaks_no_invariant(it: Setting) -> None:
    it.step()
    assert check(it.world) == []


@given(settings())
def test_planning_is_settled_after_a_few_rounds(it: Setting) -> None:
    """A plan may lead to another (room freed by a stop), but with nothing new it comes to rest."""
    for _ in range(3):
        it.step()
    assert it.step().plan.actions == ()


@given(settings())
def test_the_same_arguments_give_the_same_plan_and_change_nothing(it: Setting) -> None:
    pools = tuple(w.pool for w in it.world.workloads.values())

    def state() -> tuple[object, ...]:
        rooms = {node: it.world.room(node) for node in it.world.nodes}
        return dict(it.world.replicas), dict(it.demand), rooms, it.world.started

    before = state()
    assert plan(it.world, it.demand, it.now, pools, POLICY) == plan(it.world, it.demand, it.now, pools, POLICY)
    assert state() == before


@given(settings())
def test_the_demand_kept_in_a_plan_is_enough_to_make_it_again(it: Setting) -> None:
    pools = tuple({*it.world.by_pool, *(w.pool for w in it.world.workloads.values())})
    decided = plan(it.world, it.demand, it.now, pools, POLICY)
    assert plan(it.world, dict(decided.demand), decided.at, decided.pools, POLICY) == decided


@given(settings())
def test_what_is_not_ready_is_never_given_up_for_idleness(it: Setting) -> None:
    replicas = dict(it.world.replicas)
    for action in it.step().plan.actions:
        if isinstance(action, Stop) and action.reason in ("idle", "reclaimed", "evicted"):
            assert replicas[action.replica].phase is Phase.READY


@given(settings())
def test_every_action_says_why_and_every_unmet_wish_why_not(it: Setting) -> None:
    decided = it.step().plan
    for action in decided.actions:
        assert action.why
    for wait in decided.waits:
        assert wait.why_not
    waiting = {wait.pool for wait in decided.waits}
    for workload in it.world.workloads.values():
        serving = [r for r in it.world.in_pool(workload.pool) if r.role == "serving" and r.phase is not Phase.DRAINING]
        demand = it.demand.get(workload.pool)
        if demand is not None and demand.held and not serving:
            assert workload.pool in waiting, "wanted, not there, and nobody says why"


@given(st.floats(1.0, 2e9), st.floats(0.001, 3600.0))
def test_at_the_moment_a_peak_has_passed_its_replica_goes_or_another_moment_is_named(at: float, idle_s: float) -> None:
    """Whatever the floats: sums and differences round differently, and a look that is left out is never made up for."""
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("python", "3.11"), "sha256-0", entry)
    workload = Workload("default", "a", "f", revision.id, Scaling(idle_s=idle_s))
    replica = Replica("r1-1", workload.pool, "n1", "serving", Phase.READY, planned_at=0.5, ready_at=0.5)
    demand = Demand(used_at=at, peaks=((at, 1),))
    now = at + idle_s
    scaled = scale(PoolState(workload, revision, demand, [replica]), POLICY, now)
    assert scaled.stop == ("r1-1",) or now < scaled.look_again_at < NEVER


@given(settings())
def test_nothing_is_left_to_decide_before_look_again(it: Setting) -> None:
    """With nothing new, planning just before the named time does nothing; so sleeping until then loses nothing."""
    for _ in range(4):
        decided = it.step().plan
    for pool, at in decided.look_again:
        if at > it.now + 1e-3:
            assert plan(it.world, it.demand, at - 1e-4, (pool,), POLICY).actions == ()


@given(settings())
def test_what_wants_nothing_now_is_not_looked_at_again_at_once(it: Setting) -> None:
    for _ in range(4):
        decided = it.step().plan
    assert all(at > it.now for _, at in decided.look_again)


def test_a_template_whose_pool_is_asked_for_and_cannot_start_is_not_looked_at_all_the_time() -> None:
    """Long after its idle time, while requests wait for the next try: that try is what comes next."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 4.0, 4096)))
    revision = Revision(Environment("python", "3.11"), "sha256-0", Entry("main", "f", "function", (Method("f"),)))
    workload = Workload("default", "a", "f", revision.id)
    it.world.apply(AppDeployed(it.now, App("default", "a", (workload,), (revision,))))
    it.demand[workload.pool] = seen(Demand(), 1, 0, 0, it.now)
    while it.now < 1000.0 + 2 * POLICY.template_idle_s:
        decided = it.step().plan
        for replica in it.world.in_pool(workload.pool):
            phase = Phase.GONE if replica.role == "serving" else Phase.READY
            it.world.apply(report(replica, phase, it.now))
        if not decided.actions:
            ((_, at),) = decided.look_again
            assert at > it.now
            it.now = at
    assert [r.role for r in it.world.in_pool(workload.pool)] == ["template"]


@given(settings())
def test_following_look_again_alone_leads_to_rest(it: Setting) -> None:
    """No demand, every order obeyed, nobody rings: sleeping from one named time to the next ends at the minimum."""
    for pool in list(it.demand):
        it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)
    for _ in range(100):
        decided = it.step().plan
        owed = [r for r in it.world.replicas.values() if r.phase is not Phase.READY]
        for replica in owed:
            it.world.apply(report(replica, Phase.GONE if replica.phase is Phase.DRAINING else Phase.READY, it.now))
        if owed or decided.actions:
            continue
        if not decided.look_again:
            break
        it.now = max(it.now, min(at for _, at in decided.look_again))
    for pool, members in it.world.by_pool.items():
        workload = it.world.workload(pool)
        assert workload is not None, f"{pool} is superseded and still runs"
        assert workload.scaling.min_replicas, f"{pool} still runs: {[r.id for r in members.values()]}"
        # Two minimums may want the same port or memory: then one of them waits, and says so.
        if pool not in {wait.pool for wait in decided.waits}:
            assert len([r for r in members.values() if r.role == "serving"]) == workload.scaling.min_replicas


@given(settings())
def test_ids_are_never_used_twice(it: Setting) -> None:
    before = set(it.world.replicas)
    started = [a.replica for a in it.step().plan.actions if isinstance(a, Start)]
    assert len(set(started)) == len(started)
    assert not before & set(started)


@given(settings(), st.data())
def test_drive_says_what_is_owed_and_then_nothing_more(it: Setting, data: st.DataObject) -> None:
    """Whatever part of the orders arrived, driving against the new inventory gives the rest."""
    it.step()
    for node in it.world.nodes:
        live = [r for r in it.world.replicas.values() if r.node == node]
        has = [r for r in live if r.phase is not Phase.PLANNED or data.draw(st.booleans())]
        stranger = report(live[0], Phase.READY, it.now) if live and data.draw(st.booleans()) else None
        reports = [report(r, Phase.STARTING, it.now) for r in has]
        owed = drive(it.world, Inventory(node, it.now, 1, tuple(reports)), POLICY)
        assert not owed.lost
        starts = {o.replica for o in owed.orders if isinstance(o, StartOrder)}
        assert starts == {r.id for r in live if r.phase is Phase.PLANNED}
        assert {o.replica for o in owed.orders if isinstance(o, StopOrder)} == {
            r.id for r in live if r.phase is Phase.DRAINING
        }
        if stranger is not None:
            foreign = report(live[0], Phase.READY, it.now)
            foreign = type(foreign)(
                **{f: getattr(foreign, f) for f in foreign.__struct_fields__} | {"replica": "r0-99"}
            )
            orders = drive(it.world, Inventory(node, it.now, 1, (*reports, foreign)), POLICY).orders
            assert StopOrder("r0-99", "unknown", 5.0, node) in orders


@given(settings())
def test_what_a_runner_no_longer_has_is_lost_and_leaves_the_world(it: Setting) -> None:
    for node in it.world.nodes:
        owed = drive(it.world, Inventory(node, it.now, 1, ()), POLICY)
        for lost in owed.lost:
            it.world.apply(lost)
        assert all(r.phase in (Phase.PLANNED,) for r in it.world.replicas.values() if r.node == node)
    it.step()
    assert check(it.world) == []


@given(settings(), st.integers(1, 5))
@hypothesis_settings(max_examples=50)
def test_more_demand_never_wants_fewer(it: Setting, more: int) -> None:
    for workload in it.world.workloads.values():
        revision = it.world.revisions[workload.revision]
        demand = it.demand.get(workload.pool)
        if demand is None:
            continue
        higher = seen(demand, demand.held + more, demand.in_flight, 0, it.now)
        low = scale(PoolState(workload, revision, demand, []), POLICY, it.now)
        high = scale(PoolState(workload, revision, higher, []), POLICY, it.now)
        assert len(high.starts) >= len(low.starts)
        assert workload.scaling.min_replicas <= len(high.starts) <= max(workload.scaling.max_replicas, 1)


@given(settings(), st.sampled_from([0.05, 0.3, 0.6]))
def test_templates_started_by_a_plan_stay_inside_their_share(it: Setting, share: float) -> None:
    """Counting what is being stopped as gone: a plan never plans for more templates than their share holds."""
    policy = msgspec.structs.replace(POLICY, template_memory_share=share)
    pools = tuple({*it.world.by_pool, *(w.pool for w in it.world.workloads.values())})
    decided = plan(it.world, it.demand, it.now, pools, policy)
    stopped = {a.replica for a in decided.actions if isinstance(a, Stop)}
    for id, node in it.world.nodes.items():
        new = [a for a in decided.actions if isinstance(a, Start) and a.role == "template" and a.node == id]
        if not new:
            continue
        new_mib = sum(it.world.revisions[a.pool.partition("@")[2]].needs.memory_mib for a in new)
        there = [t for t in it.world.templates.values() if t.node == id and t.phase is not Phase.DRAINING]
        kept = [t for t in there if t.id not in stopped]
        assert new_mib + sum(it.world.memory_mib(t) for t in kept) <= node.memory_mib * share


@given(settings())
def test_a_plan_that_may_be_committed_breaks_nothing_and_one_made_twice_may_not(it: Setting) -> None:
    pools = tuple(w.pool for w in it.world.workloads.values())
    decided = plan(it.world, it.demand, it.now, pools, POLICY)
    assert would_break(it.world, decided) == []
    it.world.apply(PlanCommitted(it.now, decided))
    if any(isinstance(a, Start) for a in decided.actions):
        assert would_break(it.world, decided), "its ids are in use now"
