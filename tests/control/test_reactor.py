"""The loop's step as a value: what a fact or a level leads to, without I/O."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control import reactor as reactor_module
from swell.control.demand import DemandBook
from swell.control.reactor import AGENDA_MIN, Effects, Reactor
from swell.control.rescaling import rescaled
from swell.decide.plan import plan
from swell.model.environment import Environment
from swell.model.events import AppDeployed, AppStopped, NodeSeen, Opened, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import Inventory, StartOrder, StopOrder
from swell.model.plan import Plan, Start
from swell.model.policy import Policy
from swell.model.ports import Fact
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World
from swell.wire.api import Rescale
from swell.wire.link import Level

POLICY = Policy(templates=False)


ENTRY = Entry("m", "f", "function", (Method("f"),))


def a_reactor(
    scaling: Scaling | None = None, policy: Policy = POLICY, single_use: bool = False, needs: Needs | None = None
) -> tuple[Reactor, str]:
    """A reactor with one node and one function; and the function's pool."""
    environment = Environment("/usr/bin/python3", "3.11")
    revision = Revision(environment, "sha256-0", ENTRY, needs=needs or Needs(), single_use=single_use)
    workload = Workload("default", "a", "f", revision.id, scaling or Scaling(idle_s=10.0))
    reactor = Reactor(World(), policy, Prices())
    reactor.take(Opened(100.0, 1, (), policy))
    reactor.take(NodeSeen(100.0, Node("n1", 4.0, 4096)))
    reactor.take(AppDeployed(100.0, App("default", "a", (workload,), (revision,))))
    reactor.step(100.0)
    return reactor, workload.pool


def also_deployed(reactor: Reactor, name: str, needs: Needs) -> str:
    """Another app's pool."""
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", ENTRY, needs=needs)
    workload = Workload("default", name, "f", revision.id)
    reactor.take(AppDeployed(100.0, App("default", name, (workload,), (revision,))))
    return workload.pool


def starts(effects: Effects) -> list[StartOrder]:
    return [order for order in effects.orders if isinstance(order, StartOrder)]


def stops(effects: Effects) -> list[StopOrder]:
    return [order for order in effects.orders if isinstance(order, StopOrder)]


def seen(order: StartOrder, phase: Phase, at: float, reason: str = "") -> ReplicaSeen:
    address = f"unix:/x/{order.replica}" if phase is Phase.READY else ""
    return ReplicaSeen(at, order.replica, phase, order.pool, order.role, order.node, address=address, reason=reason)


def hear(reactor: Reactor, fact: Fact) -> None:
    """At once, from one whose clock is right."""
    reactor.fact(fact, fact.at)


def one_ready(reactor: Reactor, pool: str, ttl_s: float = 50.0) -> StartOrder:
    """A request came at 101, and the replica that was started for it is ready since 102."""
    reactor.demand("g1", [Level(pool, 1, 0)], ttl_s, 101.0)
    (order,) = starts(reactor.step(101.0))
    hear(reactor, seen(order, Phase.READY, 102.0))
    reactor.step(102.0)
    return order


def test_a_held_request_starts_a_replica_and_its_readiness_reaches_the_table() -> None:
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 1, 0)], 5.0, 101.0)
    effects = reactor.step(101.0)
    (order,) = starts(effects)
    hear(reactor, seen(order, Phase.STARTING, 101.1))
    assert reactor.step(101.1).delta is None
    hear(reactor, seen(order, Phase.READY, 101.2))
    delta = reactor.step(101.2).delta
    assert delta is not None
    assert [e.replica for e in delta.pools[0].replicas] == [order.replica]


def test_an_idle_replica_goes_exactly_when_the_step_before_said_to_look_again() -> None:
    reactor, pool = a_reactor()
    order = one_ready(reactor, pool)
    reactor.demand("g1", [Level(pool, 0, 0)], 50.0, 103.0)
    effects = reactor.step(103.0)
    assert effects.wake_at == 113.0
    assert not stops(reactor.step(112.999))
    (stop,) = stops(reactor.step(113.0))
    assert (stop.replica, stop.reason) == (order.replica, "idle")


def test_a_gateway_that_is_not_heard_stops_being_counted() -> None:
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 3, 0)], 5.0, 101.0)
    reactor.demand("g2", [Level(pool, 1, 0)], 5.0, 101.0)
    reactor.step(101.0)
    assert reactor.book.demand[pool].level == 4
    reactor.book.renew("g2", 105.0)
    reactor.step(106.5)
    assert reactor.book.demand[pool].level == 1


def test_starts_that_keep_failing_are_spaced_out_and_then_refused_with_the_reason() -> None:
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 1, 0)], 1e9, 101.0)
    now, tries, gaps = 101.0, 0, []
    last = now
    while tries < 5:
        effects = reactor.step(now)
        if starts(effects):
            gaps.append(round(now - last, 3))
            last = now
            tries += 1
            (order,) = starts(effects)
            hear(reactor, seen(order, Phase.GONE, now, "enter_error"))
            effects = reactor.step(now)
        assert effects.wake_at is not None
        now = effects.wake_at
    assert gaps == [0.0, 1.0, 2.0, 4.0, 8.0]
    row = reactor.keeper.pools[pool]
    assert row.closed
    assert "failed 5 times" in row.failing
    assert "its start-up code failed" in row.failing
    assert row.retry_at == now == last + 16.0, "from then on requests are held again, and one can ask for the next try"


@pytest.mark.parametrize("reason", ["startup_timeout", "not_listening"])
def test_who_waited_for_a_whole_start_that_failed_does_not_wait_for_another(reason: str) -> None:
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 1, 0)], 1e9, 101.0)
    (order,) = starts(reactor.step(101.0))
    hear(reactor, seen(order, Phase.GONE, 131.0, reason))
    reactor.step(131.0)
    row = reactor.keeper.pools[pool]
    assert (row.closed, row.retry_at) == (True, 132.0)


def test_nobody_is_refused_while_another_start_is_under_way() -> None:
    """One of two failed; the other may serve both."""
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 2, 0)], 1e9, 101.0)
    one, other = starts(reactor.step(101.0))
    hear(reactor, seen(one, Phase.GONE, 131.0, "startup_timeout"))
    reactor.step(131.0)
    row = reactor.keeper.pools[pool]
    assert (row.closed, "not ready in time" in row.failing) == (False, True)
    hear(reactor, seen(other, Phase.GONE, 131.5, "startup_timeout"))
    reactor.step(131.5)
    assert reactor.keeper.pools[pool].closed


def test_what_waits_for_room_is_tried_again_when_somebody_leaves() -> None:
    reactor, pool = a_reactor(Scaling(max_replicas=1000, idle_s=10.0))
    reactor.demand("g1", [Level(pool, 40, 0)], 1e9, 101.0)
    effects = reactor.step(101.0)
    assert len(starts(effects)) == 32, "4 cores hold 32 replicas of an eighth"
    assert reactor.waiting[pool] == "it asks for 0.125 cores; node n1 has 0 free of 4"
    hear(reactor, seen(starts(effects)[0], Phase.GONE, 102.0, "crashed"))
    reactor.step(102.0)
    again = reactor.step(103.0)
    assert len(starts(again)) == 1


def test_an_inventory_without_a_running_replica_loses_it_and_a_new_one_is_started() -> None:
    reactor, pool = a_reactor()
    one_ready(reactor, pool, ttl_s=1e9)
    hear(reactor, Inventory("n1", 103.0, 1, ()))
    effects = reactor.step(103.0)
    assert reactor.world.replicas.keys() == {starts(effects)[0].replica}
    assert effects.delta is not None
    assert effects.delta.pools[0].replicas == ()


def test_levels_are_absolute_so_a_repeated_report_adds_nothing() -> None:
    book = DemandBook()
    assert book.report("g", [Level("p", 2, 1)], 5.0, 1.0) == ["p"]
    assert book.report("g", [Level("p", 2, 1)], 5.0, 2.0) == ["p"]
    assert book.demand["p"].level == 3
    assert book.drop("g", 3.0) == ["p"]
    assert book.demand["p"].level == 0


def test_peaks_of_several_gateways_are_not_taken_for_one() -> None:
    """One caller who opens a connection for each call is at most one input at a time, whichever gateways take them."""
    book = DemandBook()

    def told(gateway: str, peak: int, present: int, now: float, held: int = 0) -> int:
        book.report(gateway, [Level("p", held, peak, present=present)], 5.0, now)
        return book.demand["p"].level

    assert told("a", 1, 0, 1.0) == 1
    assert told("b", 1, 0, 1.01) == 1
    assert told("a", 1, 0, 1.1) == 1
    assert book.demand["p"].peak_within(10.0, 1.2) == 1
    # What lasts is there at the same time, and so is what waits.
    assert told("a", 3, 3, 2.0) == 3
    assert told("b", 4, 2, 2.01) == 7
    assert told("b", 2, 2, 2.1, held=1) == 6
    assert told("a", 5, 1, 2.2, held=1) == 9
    assert book.drop("b", 2.3) == ["p"]
    assert book.demand["p"].level == 2
    # One of an earlier version tells one number.
    book.report("a", [Level("p", 0, 2)], 5.0, 3.0)
    assert (told("b", 1, 1, 3.1), book.demand["p"].in_flight) == (3, 3)


def test_a_level_is_as_old_as_the_oldest_part_of_it() -> None:
    """What a replica worked on when it ended may be in the level of a gateway that has not spoken since."""
    book = DemandBook()
    book.report("a", [Level("p", 0, 1)], 5.0, 1.0)
    book.report("b", [Level("p", 0, 1)], 5.0, 2.0)
    assert book.demand["p"].heard_at == 1.0
    book.report("a", [Level("p", 1, 0)], 5.0, 3.0)
    assert book.demand["p"].heard_at == 2.0
    book.report("b", [Level("p", 0, 0)], 5.0, 4.0)
    assert book.demand["p"].heard_at == 4.0


def test_nothing_is_placed_on_a_node_before_it_said_what_runs_there() -> None:
    planned, pool = a_reactor(Scaling(min_replicas=1))
    (replica,) = planned.world.replicas.values()
    seen_there = ReplicaSeen(101.0, replica.id, Phase.READY, pool, "serving", "n1", pid=7, address="unix:/x")
    fresh = Reactor(World(), POLICY, Prices())
    fresh.take(Opened(102.0, 2, tuple(planned.world.apps.values()), POLICY))
    hear(fresh, NodeSeen(102.0, Node("n1", 4.0, 4096)))
    assert fresh.step(102.0).orders == ()
    hear(fresh, Inventory("n1", 102.1, 1, (seen_there,)))
    assert fresh.step(102.1).orders == ()
    assert [one.id for one in fresh.world.in_pool(pool)] == [replica.id]


def test_a_plan_that_would_break_something_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor, pool = a_reactor(Scaling(max_replicas=1))

    def greedy(*given: Any) -> Plan:
        decided = plan(*given)
        start = next(a for a in decided.actions if isinstance(a, Start))
        return msgspec.structs.replace(decided, actions=(start, msgspec.structs.replace(start, replica="r1-77")))

    monkeypatch.setattr(reactor_module, "plan", greedy)
    reactor.demand("g1", [Level(pool, 1, 0)], 1e9, 101.0)
    effects = reactor.step(101.0)
    assert effects.orders == ()
    assert "max_replicas" in effects.refused[0]
    assert reactor.world.replicas == {}
    monkeypatch.undo()
    assert effects.wake_at == 102.0
    assert len(starts(reactor.step(102.0))) == 1


def test_pools_stay_due_when_planning_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor, pool = a_reactor()

    def fails(*_: Any) -> Plan:
        raise ValueError("no")

    monkeypatch.setattr(reactor_module, "plan", fails)
    reactor.demand("g1", [Level(pool, 1, 0)], 1e9, 101.0)
    with pytest.raises(ValueError, match="no"):
        reactor.step(101.0)
    monkeypatch.undo()
    assert len(starts(reactor.step(102.0))) == 1


def test_a_fresh_control_knows_how_old_an_adopted_replica_is_and_what_it_works_on() -> None:
    reactor, pool = a_reactor()
    seen_there = ReplicaSeen(
        500.0, "r0-5", Phase.READY, pool, "serving", "n1", pid=7, address="unix:/x", ordered_at=200.0
    )
    hear(reactor, Inventory("n1", 500.0, 0, (seen_there,)))
    assert reactor.world.replicas["r0-5"].planned_at == 200.0
    reactor.demand("g1", [Level(pool, 0, 3, (("r0-5", 2), ("r0-6", 1)))], 5.0, 501.0)
    assert [reactor.book.in_flight(pool, id) for id in ("r0-5", "r0-6", "r0-7")] == [2, 1, 0]


def test_a_replica_that_drains_unasked_may_finish_and_run_its_exit_hooks() -> None:
    """Whether this control saw it begin to, or found it so."""
    reactor, pool = a_reactor(single_use=True)
    reactor.demand("g1", [Level(pool, 1, 0)], 50.0, 101.0)
    (order,) = starts(reactor.step(101.0))
    hear(reactor, seen(order, Phase.READY, 102.0))
    hear(reactor, seen(order, Phase.DRAINING, 103.0))
    found = ReplicaSeen(103.0, "r0-5", Phase.DRAINING, pool, "serving", "n1")
    ordered = ReplicaSeen(103.0, "r0-6", Phase.DRAINING, pool, "serving", "n1", reason="idle")
    hear(reactor, Inventory("n1", 104.0, 1, (seen(order, Phase.DRAINING, 104.0), found, ordered)))
    told = {stop.replica: (stop.reason, stop.grace_s) for stop in stops(reactor.step(104.0))}
    whole_s = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", ENTRY).timeout_s + POLICY.stop_grace_s
    assert told == {order.replica: ("served", whole_s), "r0-5": ("served", whole_s), "r0-6": ("idle", whole_s)}


def test_an_input_that_is_over_wants_no_second_single_use_replica() -> None:
    """The runner's word may overtake the gateway's: what the level still counts is not wanted again."""
    reactor, pool = a_reactor(single_use=True)
    order = one_ready(reactor, pool)
    hear(reactor, seen(order, Phase.DRAINING, 103.0))
    assert starts(reactor.step(103.0)) == []
    reactor.demand("g1", [Level(pool, 0, 0)], 50.0, 103.1)
    hear(reactor, seen(order, Phase.GONE, 103.2, "served"))
    assert starts(reactor.step(103.2)) == []
    reactor.demand("g1", [Level(pool, 1, 0)], 50.0, 104.0)
    assert len(starts(reactor.step(104.0))) == 1


def test_a_request_that_ended_with_its_replica_wants_no_other_one() -> None:
    """The runner's word may overtake the gateway's, and what the gateway says first is the most that was in flight."""
    reactor, pool = a_reactor(Scaling(buffer_replicas=1, idle_s=10.0))
    reactor.demand("g1", [Level(pool, 1, 0)], 50.0, 101.0)
    one, other = starts(reactor.step(101.0))
    for order in (one, other):
        hear(reactor, seen(order, Phase.READY, 102.0))
    reactor.step(102.0)
    hear(reactor, seen(one, Phase.GONE, 102.05, "crashed"))
    assert starts(reactor.step(102.05)) == [], "it was given to it, and is not told yet"
    hear(reactor, seen(other, Phase.GONE, 102.06, "crashed"))
    reactor.step(102.06)
    reactor.demand("g1", [Level(pool, 0, 1)], 50.0, 102.1)
    assert starts(reactor.step(102.1)) == [], "nothing that could work on it is there"
    reactor.demand("g1", [Level(pool, 0, 0)], 50.0, 102.2)
    effects = reactor.step(102.2)
    assert starts(effects) == []
    assert reactor.waiting == {}


def test_who_still_waits_when_a_replica_crashed_gets_another_at_the_latest_when_levels_are_sure() -> None:
    reactor, pool = a_reactor()
    order = one_ready(reactor, pool)
    hear(reactor, seen(order, Phase.GONE, 102.001, "crashed"))
    effects = reactor.step(102.001)
    assert starts(effects) == []
    assert effects.wake_at is not None
    assert effects.wake_at - 102.001 <= 0.5
    assert len(starts(reactor.step(effects.wake_at))) == 1


def test_a_single_use_replica_is_followed_by_another_while_the_level_stays_the_same() -> None:
    """One input is over and the next has come: the same numbers again, said after the first had ended."""
    reactor, pool = a_reactor(single_use=True)
    reactor.demand("g1", [Level(pool, 2, 0)], 50.0, 101.0)
    one, other = starts(reactor.step(101.0))
    hear(reactor, seen(one, Phase.READY, 102.0))
    reactor.step(102.0)
    reactor.demand("g1", [Level(pool, 1, 1, ((one.replica, 1),))], 50.0, 102.1)
    reactor.step(102.1)
    hear(reactor, seen(one, Phase.DRAINING, 103.0))
    assert starts(reactor.step(103.0)) == []
    hear(reactor, seen(other, Phase.READY, 103.05))
    reactor.step(103.05)
    reactor.demand("g1", [Level(pool, 1, 1, ((other.replica, 1),))], 50.0, 103.1)
    assert len(starts(reactor.step(103.1))) == 1


@pytest.mark.parametrize("gone", ["idle", "gateway left", "gateway not heard"])
def test_what_waits_for_room_gets_it_soon_after_another_pool_went_idle(gone: str) -> None:
    """Not only when that pool's own idle time is over: nobody else would look at who waits."""
    reactor, busy = a_reactor(Scaling(idle_s=600.0), needs=Needs(memory_mib=3000))
    order = one_ready(reactor, busy, ttl_s=5.0)
    waiting = also_deployed(reactor, "b", Needs(memory_mib=2000))
    reactor.demand("g2", [Level(waiting, 1, 0)], 1e9, 103.0)
    assert stops(reactor.step(103.0)) == []
    assert "it asks for 2000 MiB" in reactor.waiting[waiting]
    match gone:
        case "idle":
            reactor.demand("g1", [Level(busy, 0, 0)], 1e9, 104.0)
        case "gateway left":
            reactor.gateway_left("g1", 104.0)
    now = 104.0 if gone != "gateway not heard" else 106.0
    wake_at = reactor.step(now).wake_at
    assert wake_at == now + reactor.policy.reclaim_after_s
    (stop,) = stops(reactor.step(wake_at))
    assert (stop.replica, stop.reason) == (order.replica, "reclaimed")


def a_full_node(busy: Scaling) -> tuple[Reactor, str, str]:
    """One pool's replicas fill the node, and another pool has no room."""
    reactor, pool = a_reactor(busy, needs=Needs(cpu=0.5, memory_mib=512))
    reactor.demand("g1", [Level(pool, 8, 0)], 1e9, 101.0)
    reactor.step(101.0)
    assert len(reactor.world.replicas) == 8
    for replica in reactor.world.in_pool(pool):
        hear(reactor, ReplicaSeen(102.0, replica.id, Phase.READY, pool, "serving", "n1", address="unix:/x"))
    reactor.step(102.0)
    reactor.demand("g1", [Level(pool, 0, 8)], 1e9, 102.0)
    waiting = also_deployed(reactor, "b", Needs(cpu=0.5, memory_mib=512))
    reactor.demand("g2", [Level(waiting, 1, 0)], 1e9, 103.0)
    assert stops(reactor.step(103.0)) == []
    assert reactor.waiting.keys() == {waiting}
    return reactor, pool, waiting


@pytest.mark.parametrize("busy", [Scaling(idle_s=600.0), Scaling(idle_s=600.0, min_replicas=1)])
def test_who_waits_gets_room_soon_after_another_pool_needs_less_though_not_nothing(busy: Scaling) -> None:
    reactor, pool, waiting = a_full_node(busy)
    reactor.demand("g1", [Level(pool, 0, 2)], 1e9, 110.0)
    assert reactor.step(110.0).wake_at == 111.0
    (stop,) = stops(reactor.step(111.0))
    assert (stop.reason, reactor.world.replicas[stop.replica].pool) == ("reclaimed", pool)
    hear(reactor, ReplicaSeen(112.0, stop.replica, Phase.GONE, pool, "serving", "n1", reason="reclaimed"))
    (start,) = starts(reactor.step(112.0))
    assert start.pool == waiting


def test_who_waits_gets_room_when_a_minimum_is_lowered() -> None:
    reactor, pool, _ = a_full_node(Scaling(idle_s=600.0, min_replicas=8))
    reactor.demand("g1", [Level(pool, 0, 0)], 1e9, 110.0)
    assert stops(reactor.step(120.0)) == []
    app = reactor.world.apps[pool.partition("@")[0].rpartition("/")[0]]
    reactor.take(AppDeployed(130.0, rescaled(app, app.workloads[0].name, Rescale(min_replicas=7))))
    assert [stop.reason for stop in stops(reactor.step(130.0))] == ["reclaimed"]


def test_who_waits_gets_room_from_what_an_earlier_control_left_idle() -> None:
    """No gateway speaks of a pool that nobody calls."""
    reactor, pool = a_reactor(Scaling(idle_s=600.0), needs=Needs(memory_mib=3000))
    left = ReplicaSeen(101.0, "r0-5", Phase.READY, pool, "serving", "n1", pid=7, address="unix:/x")
    hear(reactor, Inventory("n1", 101.0, 0, (left,)))
    waiting = also_deployed(reactor, "b", Needs(memory_mib=3000))
    reactor.demand("g1", [Level(waiting, 1, 0)], 1e9, 102.0)
    assert [(stop.replica, stop.reason) for stop in stops(reactor.step(102.0))] == [("r0-5", "reclaimed")]


@pytest.mark.parametrize("gone", ["function", "app"])
def test_what_is_in_flight_may_use_its_timeout_when_its_function_is_taken_away(gone: str) -> None:
    reactor, pool = a_reactor()
    one_ready(reactor, pool, ttl_s=1e9)
    app = reactor.world.apps["default/a"]
    if gone == "app":
        reactor.take(AppStopped(103.0, "default", "a"))
    else:
        reactor.take(AppDeployed(103.0, msgspec.structs.replace(app, workloads=(), revisions=())))
    (stop,) = stops(reactor.step(103.0))
    assert stop.grace_s == app.revisions[0].timeout_s + POLICY.stop_grace_s
    assert stop.reason == ("stopped" if gone == "app" else "removed")


def test_the_agenda_is_as_long_as_there_are_pools_however_often_they_are_planned() -> None:
    """One is looked at sooner, so that none of the times that the other had is ever come to."""
    reactor, pool = a_reactor(Scaling(idle_s=1e6))
    sooner = also_deployed(reactor, "b", Needs())
    reactor.demand("g1", [Level(pool, 1, 0), Level(sooner, 1, 0)], 1e9, 101.0)
    for order in starts(reactor.step(101.0)):
        hear(reactor, seen(order, Phase.READY, 102.0))
    reactor.demand("g1", [Level(sooner, 0, 0)], 1e9, 102.0)
    for n in range(501):
        now = 103.0 + n / 10
        reactor.demand("g1", [Level(pool, 0, n % 2)], 1e9, now)
        assert reactor.step(now).wake_at == 162.0
        assert len(reactor._agenda) <= 2 * 2 + AGENDA_MIN
    (stop,) = stops(reactor.step(162.0))
    hear(reactor, ReplicaSeen(163.0, stop.replica, Phase.GONE, sooner, "serving", "n1", reason="idle"))
    assert reactor.step(163.0).wake_at == 153.0 + 1e6


@given(st.floats(-1e6, 1e6))
def test_when_something_was_is_told_by_our_clock(off_s: float) -> None:
    """Whatever that of the runner says."""
    reactor, pool = a_reactor()
    reactor.demand("g1", [Level(pool, 1, 0)], 50.0, 101.0)
    order = starts(reactor.step(101.0))[0]
    reactor.fact(seen(order, Phase.READY, 102.0 + off_s), 102.0)
    assert reactor.world.replicas[order.replica].ready_at == 102.0
    reactor.fact(Inventory("n1", 103.0 + off_s, 1, (seen(order, Phase.READY, 103.0 + off_s),)), 103.0)
    reactor.fact(seen(order, Phase.GONE, 104.0 + off_s, "crashed"), 104.0)
    assert reactor.world.ended[pool] == [104.0]
    assert all(event.at <= 104.0 for event in reactor.step(104.0).events)
