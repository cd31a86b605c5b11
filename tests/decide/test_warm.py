"""Who gives way when templates hold too much: the least worth, loaded ones only, and nobody in vain."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.worlds import POLICY, Setting, deployed, report, rescaled
from swell.decide.plan import plan
from swell.decide.warm import evict, idle_at, may_have_template, unforkable
from swell.model.demand import Demand, seen
from swell.model.environment import Environment
from swell.model.events import NodeSeen, PlanCommitted
from swell.model.node import Node
from swell.model.plan import Start, Stop
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.resources import Needs
from swell.model.workload import Entry, Method, Revision, Workload

replicas = st.lists(
    st.tuples(st.sampled_from([Phase.STARTING, Phase.READY]), st.integers(1, 500), st.booleans(), st.integers(0, 9)),
    max_size=8,
)


@given(replicas, st.integers(0, 2000))
def test_enough_goes_and_the_least_worth_first(rows: list[tuple[Phase, int, bool, int]], excess_mib: int) -> None:
    templates = [Replica(f"r1-{i}", "p", "n", "template", row[0], 0.0) for i, row in enumerate(rows)]
    mib = {t.id: float(row[1]) for t, row in zip(templates, rows, strict=True)}
    worth = {t.id: row[2:] for t, row in zip(templates, rows, strict=True)}
    going = evict(templates, excess_mib, lambda t: mib[t.id], lambda t: worth[t.id])
    loaded = [t for t in templates if t.phase is Phase.READY]
    if going is None:
        assert sum(mib[t.id] for t in loaded) < excess_mib
        return
    assert sum(mib[t.id] for t in going) >= excess_mib
    assert all(t.phase is Phase.READY for t in going)
    for spared in going:
        assert sum(mib[t.id] for t in going if t is not spared) < excess_mib, "one more than needed"
    most = max(((worth[t.id], t.id) for t in going), default=None)
    less = [t for t in loaded if most is not None and (worth[t.id], t.id) < most]
    assert not going or sum(mib[t.id] for t in less) < excess_mib, "those worth less would have done"


def test_more_than_one_core_is_forked_only_where_its_author_asked_for_it() -> None:
    entry = Entry("m", "f", "function", (Method("f"),))
    workload = Workload("default", "a", "f", "rv-0")
    for cpu, snapshot, forked in ((1.0, False, True), (1.5, False, False), (8.0, True, True)):
        revision = Revision(Environment("python", "3.11"), "b", entry, needs=Needs(cpu=cpu), snapshot=snapshot)
        assert may_have_template(workload, revision, "", Policy()) is forked
        assert ("more than one core" in unforkable(revision, "")) is not forked


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.one_of(st.none(), st.floats(1, 1e6)))
def test_a_template_is_idle_when_neither_its_pool_was_used_nor_it_was_loading(
    used_at: float, planned_at: float, ready_at: float | None
) -> None:
    """However long its loading took: it would be paid for and never used."""
    template = Replica("r1-1", "p", "n", "template", Phase.READY, planned_at, ready_at=ready_at)
    loaded_at = ready_at or planned_at
    assert idle_at(template, Demand(used_at=used_at), POLICY) == max(used_at, loaded_at) + POLICY.template_idle_s


def park(it: Setting, pool: str, policy: Policy) -> None:
    """It was asked for once, and only its template is left."""
    it.demand[pool] = seen(Demand(), 1, 0, 0, it.now)
    it.world.apply(PlanCommitted(it.now, plan(it.world, it.demand, it.now, (pool,), policy)))
    for replica in it.world.in_pool(pool):
        it.world.apply(report(replica, Phase.READY, it.now))
        if replica.role == "serving":
            it.world.apply(report(replica, Phase.GONE, it.now))
    it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)


@given(st.floats(0.1, 1e6), st.floats(0.0, 0.99))
def test_a_parked_template_stays_until_its_pool_was_unused_for_so_long_and_no_longer(
    idle_s: float, part: float
) -> None:
    """Each use begins that time anew."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 8.0, 2048)))
    pool = deployed(it, "a", memory_mib=256)
    policy = msgspec.structs.replace(POLICY, template_idle_s=idle_s)
    park(it, pool, policy)
    (template,) = it.world.templates
    for _ in range(2):
        used_at = it.now
        it.now = used_at + idle_s * part
        kept = plan(it.world, it.demand, it.now, (pool,), policy)
        assert (kept.actions, kept.look_again) == ((), ((pool, used_at + idle_s),))
        it.demand[pool] = seen(it.demand[pool], 1, 0, 0, it.now)
        it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)
    it.now += idle_s
    (stop,) = plan(it.world, it.demand, it.now, (pool,), policy).actions
    assert isinstance(stop, Stop)
    assert (stop.replica, stop.reason) == (template, "idle")


@pytest.mark.parametrize("since", ["now", "a moment ago"])
def test_a_template_that_goes_already_makes_room_for_the_next_and_no_other_goes(since: str) -> None:
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 8.0, 2048)))
    pools = [deployed(it, f"a{n}", memory_mib=256) for n in range(3)]
    policy = msgspec.structs.replace(POLICY, template_memory_share=0.25)
    for pool in pools[:2]:
        park(it, pool, policy)
        it.now += 1.0
    assert len(it.world.templates) == 2, "as many as their share holds"
    # Of the two it is worth more: without it the other would have to go.
    it.world.refused[pools[1]] = "its first fork hung"
    going = plan(it.world, it.demand, it.now, (pools[1],), policy)
    (stop,) = going.actions
    if since != "now":
        it.world.apply(PlanCommitted(it.now, going))
    it.demand[pools[2]] = seen(Demand(), 1, 0, 0, it.now)
    made = plan(it.world, it.demand, it.now, (pools[1], pools[2]), policy)
    assert [a for a in made.actions if isinstance(a, Stop)] == ([stop] if since == "now" else [])
    assert [a.role for a in made.actions if isinstance(a, Start)] == ["template", "serving"]


@pytest.mark.parametrize("since", ["now", "a moment ago"])
def test_a_template_is_not_evicted_while_a_replica_is_to_be_forked_from_it(since: str) -> None:
    """For a minimum, say: nobody asks for its pool."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 8.0, 2048)))
    kept, other = deployed(it, "kept", memory_mib=256), deployed(it, "other", memory_mib=256)
    policy = msgspec.structs.replace(POLICY, template_memory_share=0.125)
    park(it, kept, policy)
    rescaled(it, "default/kept/f", min_replicas=1)
    it.demand[other] = seen(Demand(), 1, 0, 0, it.now)
    it.now += 1.0
    pools = (kept, other)
    if since != "now":
        it.world.apply(PlanCommitted(it.now, plan(it.world, it.demand, it.now, (kept,), policy)))
        pools = (other, kept)
    made = plan(it.world, it.demand, it.now, pools, policy)
    assert [a for a in made.actions if isinstance(a, Stop)] == []
    assert other in {a.pool for a in made.actions if isinstance(a, Start)}
    it.world.apply(PlanCommitted(it.now, made))
    for replica in it.world.in_pool(kept):
        it.world.apply(report(replica, Phase.READY, it.now))
    third = deployed(it, "third", memory_mib=256)
    it.demand[third] = seen(Demand(), 1, 0, 0, it.now)
    stops = [a for a in plan(it.world, it.demand, it.now, (third,), policy).actions if isinstance(a, Stop)]
    assert [stop.reason for stop in stops] == ["evicted"], "it is only for so long"
