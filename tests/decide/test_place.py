"""Who gives way for a replica that fits nowhere: nobody in vain, nobody more than needed, and nobody at work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from decide.worlds import POLICY, Setting, deployed, needs, on_one_node, ready, report
from swell.decide.place import make_room, never_fits, place
from swell.decide.plan import plan
from swell.model.demand import Demand, seen
from swell.model.events import NodeSeen
from swell.model.node import Node
from swell.model.plan import Start, Stop
from swell.model.replica import Phase, Replica
from swell.model.resources import Held, Needs, Room

rooms = st.builds(
    lambda cpu, memory_mib, ports: Room("n1", cpu, float(memory_mib), set(ports), 8.0, 8192.0),
    st.sampled_from([0.0, 0.125, 1.0, 8.0]),
    st.integers(0, 1024),
    st.sampled_from([(), (8000,)]),
)


@given(needs, rooms, st.lists(needs, max_size=8))
def test_what_gives_way_makes_it_fit_and_nothing_of_it_could_have_stayed(
    wanted: Needs, room: Room, held: list[Needs]
) -> None:
    held = [Needs(each.cpu, memory_mib=each.memory_mib, ports=_taken(room, each.ports)) for each in held]
    idle = [(Replica(f"r1-{n}", "p", "n1", "serving", Phase.READY, 0.0), Held(each)) for n, each in enumerate(held)]
    going = make_room(wanted, room.copy(), idle)
    fitted = room.copy()
    for _, each in idle if going is None else ():
        fitted.give_back(each)
    if going is None:
        assert fitted.lacks(wanted) is not None
        return
    for spared in (None, *going):
        fitted = room.copy()
        for replica, each in idle:
            if replica in going and replica is not spared:
                fitted.give_back(each)
        assert (fitted.lacks(wanted) is None) is (spared is None)


@given(
    needs, st.lists(st.tuples(st.sampled_from([0.0, 1.0, 8.0]), st.integers(0, 2048), st.integers(0, 1)), max_size=6)
)
def test_a_replica_goes_where_its_template_is_and_then_where_it_leaves_least(
    wanted: Needs, rows: list[tuple[float, int, int]]
) -> None:
    rooms = {f"n{n}": Room(f"n{n}", cpu, float(mib), set(), 8.0, 8192.0) for n, (cpu, mib, _) in enumerate(rows)}
    prefer = {f"n{n}": row[2] for n, row in enumerate(rows)}
    node, why_not = place(wanted, rooms, prefer.__getitem__)
    fitting = [id for id, room in rooms.items() if room.lacks(wanted) is None]
    assert (node in fitting, bool(why_not)) == (bool(fitting), not fitting)
    for other in fitting:
        assert node is not None
        assert prefer[other] <= prefer[node]
        assert prefer[other] < prefer[node] or rooms[other].memory_mib >= rooms[node].memory_mib


def test_a_pool_is_placed_where_it_has_a_template() -> None:
    """Not where it would leave less."""
    it = on_one_node()
    pool = deployed(it, "a")
    ready(it, pool, 1)
    it.world.apply(NodeSeen(it.now, Node("small", 8.0, 128)))
    it.demand[pool] = seen(it.demand[pool], 1, 1, 0, it.now)
    (start,) = it.step((pool,)).plan.actions
    (template,) = it.world.templates.values()
    assert isinstance(start, Start)
    assert (start.node, start.template) == ("local", template.id)


def _taken(room: Room, ports: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the ports that nobody has there yet: a port has one owner."""
    free = tuple(port for port in ports if port not in room.ports)
    room.ports.update(free)
    return free


@st.composite
def crowds(draw: st.DrawFn, wanted: st.SearchStrategy[Needs] = needs) -> tuple[Setting, list[str]]:
    """A node with idle replicas and templates of all sizes, and pools that want room on it."""
    it = on_one_node()
    for n, asked in enumerate(draw(st.lists(needs, min_size=1, max_size=6))):
        pool = deployed(it, f"idle{n}", asked.ports, asked.memory_mib, asked.cpu)
        ready(it, pool, draw(st.integers(1, 2)))
        it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)
    waiting = []
    for n, asked in enumerate(draw(st.lists(wanted, min_size=1, max_size=3))):
        waiting.append(deployed(it, f"new{n}", asked.ports, asked.memory_mib, asked.cpu))
        it.demand[waiting[-1]] = seen(Demand(), draw(st.integers(1, 2)), 0, 0, it.now)
    it.now += 10.0
    return it, waiting


@given(crowds())
def test_whatever_a_plan_reclaims_makes_the_placement_possible(crowd: tuple[Setting, list[str]]) -> None:
    it, waiting = crowd
    decided = it.step(tuple(waiting)).plan
    reclaimed = {a.replica for a in decided.actions if isinstance(a, Stop) and a.reason == "reclaimed"}
    for action in decided.actions:
        if isinstance(action, Start):
            it.world.apply(report(it.world.replicas[action.replica], Phase.READY, it.now))
    for id in reclaimed:
        it.world.apply(report(it.world.replicas[id], Phase.GONE, it.now))
    if reclaimed:
        asked = {wait.pool for wait in decided.waits}
        started = plan(it.world, it.demand, it.now, tuple(waiting), POLICY).actions
        assert asked & {a.pool for a in started if isinstance(a, Start) and a.role == "serving"}


@given(crowds())
def test_with_what_goes_already_nobody_else_has_to(crowd: tuple[Setting, list[str]]) -> None:
    it, waiting = crowd
    it.step(tuple(waiting))
    assert not [a for a in it.step(tuple(waiting)).plan.actions if isinstance(a, Stop)]


def test_a_second_request_to_a_server_that_owns_a_port_evicts_nobody() -> None:
    it = on_one_node()
    idle, web = deployed(it, "idle"), deployed(it, "web", ports=(9202,))
    ready(it, idle, 1)
    it.demand[idle] = seen(it.demand[idle], 0, 0, 0, it.now)
    ready(it, web, 1)
    it.demand[web] = seen(it.demand[web], 1, 1, 0, it.now)
    it.now += 10.0
    decided = it.step().plan
    assert decided.actions == ()
    (wait,) = decided.waits
    assert wait.why_not == "port 9202 is taken: one replica per node; give it @concurrent to take more at once"


def test_a_port_that_an_idle_replica_of_another_function_owns_is_taken_back_and_nothing_else() -> None:
    it = on_one_node()
    idle, first, second = deployed(it, "idle"), deployed(it, "one", (9202,)), deployed(it, "two", (9202,))
    for pool in (idle, first):
        ready(it, pool, 1)
    it.demand[idle] = seen(it.demand[idle], 0, 0, 0, it.now)
    it.demand[second] = seen(Demand(), 1, 0, 0, it.now)
    it.now += 10.0
    decided = it.step((second,)).plan
    assert decided.actions == (), "its owner is at work"
    assert decided.waits[0].why_not == "it asks for port 9202; another replica has it on node local"
    it.demand[first] = seen(it.demand[first], 0, 0, 0, it.now)
    assert it.step((second,)).plan.look_again == ((second, it.now + POLICY.reclaim_after_s),)
    it.now += POLICY.reclaim_after_s
    (stop,) = it.step((second,)).plan.actions
    (owner,) = [r for r in it.world.in_pool(first) if r.role == "serving"]
    assert isinstance(stop, Stop)
    assert (stop.replica, stop.reason) == (owner.id, "reclaimed")
    assert stop.why == "default/two/f waits: it asks for port 9202; another replica has it on node local"
    it.world.apply(report(it.world.replicas[owner.id], Phase.GONE, it.now))
    started = [a.pool for a in it.step((second,)).plan.actions if isinstance(a, Start) and a.role == "serving"]
    assert started == [second]


def test_with_two_nodes_a_server_that_owns_a_port_gets_one_replica_on_each() -> None:
    it = on_one_node()
    it.world.apply(NodeSeen(it.now, Node("other", 8.0, 1024)))
    web = deployed(it, "web", ports=(9202,))
    it.demand[web] = seen(Demand(), 3, 0, 0, it.now)
    decided = it.step().plan
    serving = sorted(a.node for a in decided.actions if isinstance(a, Start) and a.role == "serving")
    assert serving == ["local", "other"]
    assert "one replica per node" in decided.waits[0].why_not


def test_several_that_wait_at_once_are_each_made_room_for() -> None:
    """What one waits for is not counted on by the next."""
    it = on_one_node()
    idle = [deployed(it, f"idle{n}", memory_mib=256) for n in range(4)]
    for pool in idle:
        ready(it, pool, 1)
        it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)
    new = []
    for n in range(2):
        pool = deployed(it, f"new{n}", memory_mib=256)
        it.demand[pool] = seen(Demand(), 1, 0, 0, it.now)
        new.append(pool)
    it.now += 10.0
    first = it.step(tuple(new)).plan
    again = it.step(tuple(new)).plan
    stopped = [a for a in first.actions if isinstance(a, Stop)]
    assert {a.reason for a in stopped} == {"reclaimed"}
    assert sum(it.world.needs(it.world.replicas[a.replica]).memory_mib for a in stopped) == 512
    assert again.actions == (), "what is going already is enough"


def test_what_is_asked_for_and_what_there_is_are_told_the_right_way_round() -> None:
    node = Node("local", 2.0, 23000)
    room = node.room()
    room.take(Needs(cpu=0.5, memory_mib=4167))
    asked = Needs(memory_mib=999999)
    words = "it asks for 999999 MiB of memory; node local has 18833 free of 23000"
    assert place(asked, {"local": room}, lambda _: 0) == (None, words)
    assert never_fits(asked, [node]) == "it asks for 999999 MiB of memory; node local has 23000"
    assert room.lacks(Needs(cpu=4.0)) == "it asks for 4 cores; node local has 1.5 free of 2"
    many = Node("local", 2.0, 23000, cpu_overcommit=16.0)
    assert never_fits(Needs(cpu=999.0), [many]) == ("it asks for 999 cores; node local has 32 (2 times cpu_overcommit)")
    shared = many.room()
    shared.take(Needs(cpu=30.0))
    asked = Needs(cpu=4.0)
    assert shared.copy().lacks(asked) == "it asks for 4 cores; node local has 2 free of 32 (2 times cpu_overcommit)"
    assert never_fits(Needs(gpu=("L4",)), [node]) == "it asks for 1 GPU of kind L4; node local has none"
