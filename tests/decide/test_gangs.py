"""Gangs: all of one or none, nobody gives way in vain, and none is left in halves, whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from decide.worlds import POLICY, Setting, needs, report
from swell.decide.check import check, would_break
from swell.decide.gangs import staying
from swell.decide.place import capacity, holds, make_rooms, place_all
from swell.decide.plan import plan
from swell.model.demand import Demand, seen
from swell.model.environment import Environment
from swell.model.events import AppDeployed, GangBroken, GangGiven, NodeSeen, PlanCommitted
from swell.model.gang import Gang, Seat
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import NEXT, Phase, Replica
from swell.model.resources import Held, Needs, Room
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload

MIB = 128

gangs = st.integers(1, 4).flatmap(lambda size: st.builds(Gang, st.just(size), st.integers(0, size)))
rooms = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(0, 1024)), max_size=4).map(
    lambda rows: {f"n{n}": Room(f"n{n}", cpu, float(mib), set(), 8.0, 8192.0) for n, (cpu, mib) in enumerate(rows)}
)


def copied(rooms: dict[str, Room]) -> dict[str, Room]:
    return {id: room.copy() for id, room in rooms.items()}


def counted(wanted: Needs, rooms: dict[str, Room], most: int) -> int:
    """How many fit, one after the other, node by node."""
    found = 0
    for room in copied(rooms).values():
        while found < most and room.lacks(wanted) is None:
            room.take(wanted)
            found += 1
    return found


@given(needs, rooms, st.integers(0, 6))
def test_as_many_are_placed_together_as_fit(wanted: Needs, rooms: dict[str, Room], most: int) -> None:
    placed, why_not = place_all(wanted, copied(rooms), most, lambda _node: 0)
    assert len(placed) == counted(wanted, rooms, most) == min(capacity(wanted, rooms.values()), most)
    assert bool(why_not) is (len(placed) < most)
    for node, part in placed:
        assert rooms[node].lacks(wanted) is None
        assert rooms[node].take(wanted) == part


@given(needs, rooms, st.integers(1, 4), st.lists(st.lists(st.tuples(st.integers(0, 3), needs), max_size=3), max_size=5))
def test_who_goes_for_a_gang_makes_it_fit_and_nobody_goes_in_vain(
    wanted: Needs, rooms: dict[str, Room], count: int, held: list[list[tuple[int, Needs]]]
) -> None:
    less = [
        (n, [(f"n{at}", Held(Needs(each.cpu, memory_mib=each.memory_mib))) for at, each in parts if f"n{at}" in rooms])
        for n, parts in enumerate(held)
    ]

    def without(going: list[int]) -> dict[str, Room]:
        left = copied(rooms)
        for n, parts in less:
            for node, each in parts if n in going else ():
                left[node].give_back(each)
        return left

    going = make_rooms(wanted, copied(rooms), count, less)
    if going is None:
        assert not holds(wanted, without([n for n, _ in less]), count)
        return
    assert holds(wanted, without(going), count)
    assert not any(holds(wanted, without([n for n in going if n != spared]), count) for spared in going)


def gang_app(name: str, gang: Gang, **scaling: Any) -> App:
    """A function whose calls gangs work on."""
    entry = Entry("main", name, "function", (Method("f"),))
    revision = Revision(
        Environment("/usr/bin/python3", "3.11"),
        "sha256-0",
        entry,
        needs=Needs(0.125, memory_mib=MIB),
        gang=gang,
        single_use=True,
        template=False,
    )
    return App("default", name, (Workload("default", name, "f", revision.id, Scaling(**scaling)),), (revision,))


def wanted(it: Setting, pool: str, held: int, priority: int = 0, in_flight: int = 0) -> None:
    before = it.demand.get(pool, Demand())
    it.demand[pool] = msgspec.structs.replace(seen(before, held, in_flight, 0, it.now), priorities=((priority, held),))


def every_pool(it: Setting) -> tuple[str, ...]:
    pools = (pool for key in it.world.workloads for pool in it.world.wanted_pools(key))
    return tuple(dict.fromkeys((*it.world.by_pool, *pools)))


def stepped(it: Setting) -> Plan:
    """As the loop does it: what would break anything is not committed."""
    made = plan(it.world, it.demand, it.now, every_pool(it), POLICY)
    assert would_break(it.world, made) == []
    it.world.apply(PlanCommitted(it.now, made))
    assert check(it.world) == []
    return made


def preempted(made: Plan) -> set[str]:
    return {each.replica for each in made.actions if isinstance(each, Stop) and each.reason == "preempted"}


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    """A world with gangs of several pools, and with pools of none, after some random history."""
    it = Setting()
    for n in range(draw(st.integers(1, 3))):
        it.world.apply(NodeSeen(it.now, Node(f"n{n}", 4.0, MIB * draw(st.integers(1, 6)))))
    for n in range(draw(st.integers(1, 3))):
        gang = draw(st.none() | gangs)
        app = gang_app(f"a{n}", gang or Gang(1), idle_s=draw(st.sampled_from([0.0, 60.0])))
        if gang is None:
            revision = msgspec.structs.replace(app.revisions[0], gang=None, single_use=False, template=True)
            workload = msgspec.structs.replace(app.workloads[0], revision=revision.id)
            app = msgspec.structs.replace(app, workloads=(workload,), revisions=(revision,))
        it.world.apply(AppDeployed(it.now, app))
    for _ in range(draw(st.integers(0, 14))):
        _happen(draw, it)
    return it


def _happen(draw: st.DrawFn, it: Setting) -> None:
    it.now += draw(st.sampled_from([0.0, 0.5, 3.0, 70.0]))
    what = draw(st.sampled_from(["demand", "plan", "plan", "report", "report", "broken", "given", "leave"]))
    if what == "demand":
        pool = draw(st.sampled_from(sorted(w.pool for w in it.world.workloads.values())))
        wanted(it, pool, draw(st.integers(0, 3)), draw(st.integers(-1, 1)), draw(st.integers(0, 2)))
    elif what == "plan":
        stepped(it)
    elif what == "broken" and it.world.gangs:
        it.world.apply(GangBroken(it.now, draw(st.sampled_from(sorted(it.world.gangs))), "its call failed"))
    elif what == "given" and it.world.gangs:
        gang = draw(st.sampled_from(sorted(it.world.gangs)))
        it.world.apply(GangGiven(it.now, gang, draw(st.integers(-1, 1))))
    elif what == "leave" and len(it.world.nodes) > 1:
        node = it.world.nodes[draw(st.sampled_from(sorted(it.world.nodes)))]
        it.world.apply(NodeSeen(it.now, msgspec.structs.replace(node, leaving_at=it.now + 30.0)))
    elif it.world.replicas:
        replica = it.world.replicas[draw(st.sampled_from(sorted(it.world.replicas)))]
        phase = draw(st.sampled_from(sorted(NEXT[replica.phase])))
        reason = draw(st.sampled_from(["served", "crashed", ""]))
        it.world.apply(msgspec.structs.replace(report(replica, phase, it.now), reason=reason))


@given(settings())
def test_no_gang_is_ever_started_stopped_or_left_in_part(it: Setting) -> None:
    for _ in range(3):
        stepped(it)
    assert check(it.world) == []


@given(settings())
def test_planning_gangs_comes_to_rest(it: Setting) -> None:
    for _ in range(6):
        stepped(it)
        _obeyed(it, Phase.DRAINING, Phase.GONE)
    assert stepped(it).actions == ()


@given(settings())
def test_the_demand_in_a_plan_is_enough_to_make_it_again(it: Setting) -> None:
    made = plan(it.world, it.demand, it.now, every_pool(it), POLICY)
    assert plan(it.world, dict(made.demand), made.at, made.pools, POLICY) == made


@given(settings())
def test_when_nobody_wants_anything_nothing_is_left(it: Setting) -> None:
    for pool in list(it.demand):
        wanted(it, pool, 0)
    for _ in range(60):
        stepped(it)
        _obeyed(it, Phase.DRAINING, Phase.GONE)
        _obeyed(it, Phase.PLANNED, Phase.READY)
        _obeyed(it, Phase.STARTING, Phase.READY)
        it.now += 60.0
    assert not it.world.replicas
    assert not it.world.gangs
    assert not it.world.broken


def _obeyed(it: Setting, owed: Phase, phase: Phase) -> None:
    """What was ordered is done."""
    for replica in [r for r in it.world.replicas.values() if r.phase is owed]:
        it.world.apply(report(replica, phase, it.now))


@given(gangs, st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 3))
def test_a_gang_starts_exactly_where_enough_of_it_fit(gang: Gang, room: list[int], held: int) -> None:
    """Beside nothing else: as many gangs as there is room for, each as large as may be."""
    it = Setting()
    for n, replicas in enumerate(room):
        it.world.apply(NodeSeen(it.now, Node(f"n{n}", 64.0, MIB * replicas)))
    app = gang_app("a", gang)
    it.world.apply(AppDeployed(it.now, app))
    wanted(it, app.workloads[0].pool, held)
    made = stepped(it)
    left, sizes = sum(room), []
    while len(sizes) < held and left >= gang.at_least:
        sizes.append(min(gang.size, left))
        left -= sizes[-1]
    started = [each.seat for each in made.actions if isinstance(each, Start)]
    assert [seat.size for seat in started if seat is not None and seat.rank == 0] == sizes
    assert len(started) == sum(sizes)
    if len(sizes) < held:
        (wait,) = made.waits
        assert wait.why_not.startswith(f"{left} of {gang.size} fit")
        # Whoever else ends, it can only start where there are more of these nodes.
        assert wait.why_not.endswith("it waits for more nodes") is (sum(room) < gang.at_least)
    else:
        assert not made.waits


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 5))
def test_one_that_began_smaller_stays_so_and_has_what_room_there_is_when_it_begins_again(
    first: int, lacking: int, more: int
) -> None:
    it, size = Setting(), first + lacking
    it.world.apply(NodeSeen(it.now, Node("n0", 64.0, MIB * first)))
    app = gang_app("a", Gang(size, 1))
    pool = app.workloads[0].pool
    it.world.apply(AppDeployed(it.now, app))
    wanted(it, pool, 1)
    assert len(stepped(it).actions) == first
    _obeyed(it, Phase.PLANNED, Phase.READY)
    wanted(it, pool, 0, in_flight=1)
    it.world.apply(NodeSeen(it.now, Node("n1", 64.0, MIB * more)))
    assert stepped(it).actions == ()
    for member in it.world.in_pool(pool):
        it.world.apply(report(member, Phase.GONE, it.now))
    wanted(it, pool, 1)
    assert len(stepped(it).actions) == min(size, first + more)


def crowded(priorities: list[int], sizes: list[int]) -> tuple[Setting, list[str]]:
    """A node that gangs of these priorities and sizes fill, and the pools of these."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 64.0, MIB * sum(sizes))))
    pools = []
    for n, (priority, size) in enumerate(zip(priorities, sizes, strict=True)):
        app = gang_app(f"low{n}", Gang(size))
        it.world.apply(AppDeployed(it.now, app))
        pools.append(app.workloads[0].pool)
        wanted(it, pools[-1], 1, priority)
        stepped(it)
        _obeyed(it, Phase.PLANNED, Phase.READY)
        wanted(it, pools[-1], 0, 0, 1)
        it.now += 1.0
    return it, pools


low_gangs = st.lists(st.tuples(st.integers(-2, 2), st.integers(1, 3)), min_size=1, max_size=5)


@given(low_gangs, st.integers(1, 6), st.integers(-2, 3))
@hypothesis_settings(max_examples=60)
def test_who_gives_way_is_of_a_lower_priority_whole_and_no_more_than_is_needed(
    low: list[tuple[int, int]], size: int, priority: int
) -> None:
    it, _ = crowded([each[0] for each in low], [each[1] for each in low])
    app = gang_app("high", Gang(size))
    it.world.apply(AppDeployed(it.now, app))
    pool = app.workloads[0].pool
    wanted(it, pool, 1, priority)
    before = {id: list(members.values()) for id, members in it.world.gangs.items()}
    going = preempted(stepped(it))
    gone = [members for members in before.values() if members[0].id in going]
    assert going == {member.id for members in gone for member in members}
    reach = sum(len(members) for members in before.values() if _priority(members[0]) < priority)
    if reach < size:
        assert not going
        return
    freed = [len(members) for members in gone]
    assert sum(freed) >= size > sum(freed) - min(freed)
    assert all(_priority(members[0]) < priority for members in gone)
    # Once they are gone it starts, though others want the room as well, in this plan and alone.
    for each in it.world.workloads.values():
        wanted(it, each.pool, 1, priority if each.pool == pool else -100)
    while draining := [r for r in it.world.replicas.values() if r.phase is Phase.DRAINING]:
        it.world.apply(report(draining[0], Phase.GONE, it.now))
        assert not preempted(stepped(it))
    seats = [replica.seat for replica in it.world.in_pool(pool)]
    assert [seat.priority for seat in seats if seat is not None] == [priority] * size


@pytest.mark.slow
@given(low_gangs, low_gangs, st.integers(0, 3))
@hypothesis_settings(max_examples=60)
def test_nobody_is_started_who_would_have_to_give_way_at_once(
    low: list[tuple[int, int]], high: list[tuple[int, int]], free: int
) -> None:
    """Free room is for who waits with a higher priority, where others that give way make it enough."""
    it, _ = crowded([each[0] for each in low], [each[1] for each in low])
    it.world.apply(NodeSeen(it.now, Node("n2", 64.0, MIB * free)))
    for n, (priority, size) in enumerate(high):
        app = gang_app(f"high{n}", Gang(size))
        it.world.apply(AppDeployed(it.now, app))
        wanted(it, app.workloads[0].pool, 1, priority)
    started = {action.replica for action in stepped(it).actions if isinstance(action, Start)}
    assert not started & preempted(stepped(it))


def _priority(member: Replica) -> int:
    assert member.seat is not None
    return member.seat.priority


def offered(it: Setting, pool: str, priorities: list[int], in_flight: int = 0) -> None:
    """Calls of these priorities wait for it."""
    wanted(it, pool, len(priorities), 0, in_flight)
    due = tuple(Counter(sorted(priorities, reverse=True)).items())
    it.demand[pool] = msgspec.structs.replace(it.demand[pool], priorities=due)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.lists(st.integers(-2, 2), max_size=5), st.data())
@hypothesis_settings(max_examples=60)
def test_who_gives_way_does_so_for_a_call_that_is_worth_more(
    due: list[int], low: list[int], data: st.DataObject
) -> None:
    """Each gang is started for one call. Whatever else waits for the same function, nobody goes for what is not worth
    more than it is; and of what could go for the best calls as many go as these are."""
    it, _ = crowded(low, [1] * len(low))
    free = data.draw(st.integers(0, 2))
    it.world.apply(NodeSeen(it.now, Node("n2", 64.0, MIB * free)))
    app = gang_app("high", Gang(1), max_replicas=20)
    it.world.apply(AppDeployed(it.now, app))
    pool = app.workloads[0].pool
    offered(it, pool, due)
    theirs = {r.id: _priority(r) for r in it.world.replicas.values()}
    due.sort(reverse=True)
    # As it comes to be: what waits is looked at again whenever some are gone.
    gone: list[int] = []
    for _ in range(len(low) + 2):
        made = stepped(it)
        going = preempted(made)
        gone += (theirs[id] for id in going)
        _obeyed(it, Phase.DRAINING, Phase.GONE)
    seats = sorted((_priority(r) for r in it.world.in_pool(pool)), reverse=True)
    assert seats == due[: len(seats)]
    expected: list[int] = []
    left = sorted(low)
    for priority in due[free:]:
        if not left or left[0] >= priority:
            break
        expected.append(left.pop(0))
    assert sorted(gone) == expected
    assert len(seats) == min(free + len(expected), len(due))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
def test_a_gang_that_is_there_and_has_no_call_is_for_the_best_of_them(due: list[int], before: int, ready: bool) -> None:
    """However it was started: those that are started beside it are for the others."""
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 64.0, MIB * 20)))
    app = gang_app("a", Gang(1), max_replicas=20)
    it.world.apply(AppDeployed(it.now, app))
    pool = app.workloads[0].pool
    offered(it, pool, [0] * before)
    stepped(it)
    if ready:
        _obeyed(it, Phase.PLANNED, Phase.READY)
    there = {r.id for r in it.world.in_pool(pool)}
    offered(it, pool, due)
    stepped(it)
    seats = sorted((_priority(r) for r in it.world.in_pool(pool) if r.id not in there), reverse=True)
    assert seats == sorted(due, reverse=True)[before:]


@given(st.integers(-2, 2), st.integers(-2, 2), st.integers(-2, 2))
def test_what_a_gang_is_worth_is_the_priority_of_the_call_that_it_was_given(
    started_for: int, given_one: int, priority: int
) -> None:
    it, (pool,) = crowded([started_for], [2])
    (gang,) = it.world.gangs
    it.world.apply(GangGiven(it.now, gang, given_one))
    app = gang_app("high", Gang(2))
    it.world.apply(AppDeployed(it.now, app))
    wanted(it, app.workloads[0].pool, 1, priority)
    assert bool(preempted(stepped(it))) is (given_one < priority)
    _obeyed(it, Phase.DRAINING, Phase.GONE)
    assert bool(it.world.given) is (given_one >= priority)
    assert pool


@given(st.integers(2, 4), st.integers(0, 3), st.sampled_from(["crashed", "enter_error", "lost"]))
def test_a_gang_that_loses_a_member_ends_and_one_whose_member_is_done_does_not(size: int, rank: int, why: str) -> None:
    rank %= size
    for reason, ends in ((why, True), ("served", False)):
        it, (pool,) = crowded([0], [size])
        member = next(r for r in it.world.in_pool(pool) if r.seat is not None and r.seat.rank == rank)
        it.world.apply(msgspec.structs.replace(report(member, Phase.GONE, it.now), reason=reason))
        made = stepped(it)
        stopped = {each.replica for each in made.actions if isinstance(each, Stop) and each.reason == "gang_broken"}
        assert len(stopped) == (size - 1 if ends else 0)
        assert len(list(_left(it))) == (0 if ends else size - 1)


def _left(it: Setting) -> Iterator[Replica]:
    for gang in it.world.gangs:
        yield from staying(it.world, gang)


def test_a_gang_on_a_node_that_leaves_gives_way_with_what_time_there_is() -> None:
    it, (pool,) = crowded([5], [3])
    it.world.apply(NodeSeen(it.now, msgspec.structs.replace(it.world.nodes["n1"], leaving_at=it.now + 12.0)))
    made = stepped(it)
    assert preempted(made) == {r.id for r in it.world.in_pool(pool)}
    assert {each.grace_s for each in made.actions if isinstance(each, Stop)} == {12.0}
    _obeyed(it, Phase.DRAINING, Phase.GONE)
    wanted(it, pool, 1, 5)
    made = stepped(it)
    assert made.actions == ()
    assert made.waits


def test_a_start_that_lacks_a_member_or_a_leader_would_not_be_committed() -> None:
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 64.0, 4096)))
    app = gang_app("a", Gang(3, 2))
    it.world.apply(AppDeployed(it.now, app))
    pool = app.workloads[0].pool

    def starts(*seats: Seat | None) -> Plan:
        actions = tuple(Start(f"r1-{n}", pool, "n1", "serving", "why", None, seat) for n, seat in enumerate(seats, 1))
        return Plan(it.now, (pool,), actions=actions)

    assert would_break(it.world, starts(Seat("r1-1", 0, 2), Seat("r1-1", 1, 2))) == []
    for wrong in (
        starts(Seat("r1-1", 0, 2)),
        starts(Seat("r1-1", 0, 3), Seat("r1-1", 1, 3)),
        starts(Seat("r1-9", 1, 2), Seat("r1-9", 0, 2)),
        starts(Seat("r1-1", 0, 2), Seat("r1-1", 0, 2)),
        starts(Seat("r1-1", 0, 1)),
        starts(None),
    ):
        assert would_break(it.world, wrong)
