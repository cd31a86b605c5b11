"""GPUs: each is given to one at a time, whatever is planned, adopted or lost, and the kind that is preferred first."""

from __future__ import annotations

import msgspec
from hypothesis import given

from decide.worlds import POLICY, Setting, settings
from swell.control.reactor import Reactor
from swell.decide.check import check, would_break
from swell.decide.drive import drive
from swell.decide.place import never_fits, place
from swell.decide.powers import unwalled
from swell.decide.warm import unforkable
from swell.model.demand import Demand, seen
from swell.model.ends import UNKNOWN
from swell.model.environment import Environment
from swell.model.events import AppDeployed, GpusHeld, NodeSeen, Opened, ReplicaAdopted, ReplicaSeen
from swell.model.gang import Gang
from swell.model.gpu import Gpu, ask
from swell.model.isolation import Isolation
from swell.model.node import Node
from swell.model.orders import Inventory, StartOrder
from swell.model.plan import Plan, Start
from swell.model.replica import Phase, Replica
from swell.model.request import Prices
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World

L4S = tuple(Gpu(f"GPU-{n}", "NVIDIA L4", 23034) for n in range(4))
MIXED = (*(Gpu(str(n), "H100") for n in range(4)), *(Gpu(str(n), "L4") for n in range(4, 6)))


def deployed(world: World, name: str, *asked: str, **more: object) -> str:
    """A function that asks for these; its pool."""
    entry = Entry("main", name, "function", (Method(name),))
    needs = Needs(0.125, memory_mib=64, gpu=asked)
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, needs=needs, template=False)
    revision = msgspec.structs.replace(revision, **more)
    workload = Workload("default", name, "f", revision.id, Scaling(max_replicas=20))
    world.apply(AppDeployed(1000.0, App("default", name, (workload,), (revision,))))
    return workload.pool


def on(*nodes: Node) -> Setting:
    it = Setting()
    for node in nodes:
        it.world.apply(NodeSeen(it.now, node))
    return it


def wanted(it: Setting, pool: str, held: int) -> None:
    it.demand[pool] = seen(it.demand.get(pool, Demand()), held, 0, 0, it.now)


def in_pool(it: Setting, pool: str) -> list[tuple[str, ...]]:
    return [replica.gpus for replica in it.world.in_pool(pool)]


@given(settings())
def test_each_device_is_given_to_one_and_each_replica_has_what_it_asks_for(it: Setting) -> None:
    assert check(it.world) == []
    decided = it.step().plan
    assert check(it.world) == []
    for start in decided.actions:
        if isinstance(start, Start) and start.role == "serving":
            revision = it.world.revision(start.pool)
            assert revision is not None
            found = [gpu for gpu in it.world.nodes[start.node].gpus if gpu.id in start.gpus]
            asks = [ask(text) for text in revision.needs.gpu]
            assert bool(found) is bool(asks)
            assert not asks or any(len(found) == n and all(gpu.is_of(kind) for gpu in found) for kind, n in asks)
    assert all(not each.gpus for each in it.world.templates.values())


def test_as_many_are_started_as_there_are_devices_and_who_ends_makes_place() -> None:
    it = on(Node("n1", 8.0, 4096, gpus=L4S))
    pool = deployed(it.world, "a", "L4")
    wanted(it, pool, 6)
    (wait,) = it.step().plan.waits
    assert wait.why_not == "it asks for 1 GPU of kind L4; node n1 has 0 free of 4 NVIDIA L4"
    assert sorted(in_pool(it, pool)) == [(gpu.id,) for gpu in L4S]
    first = it.world.in_pool(pool)[0]
    it.world.apply(ReplicaSeen(it.now, first.id, Phase.GONE, pool, "serving", "n1", reason="said"))
    it.now += 100.0
    it.step()
    assert sorted(in_pool(it, pool)) == [(gpu.id,) for gpu in L4S]


def test_the_kind_that_is_preferred_goes_before_all_else_and_the_fullest_node_of_it_is_filled_first() -> None:
    it = on(
        Node("n1", 8.0, 4096, gpus=L4S),
        Node("n2", 8.0, 8192, gpus=MIXED[:4]),
        Node("n3", 8.0, 8192, gpus=MIXED),
        Node("n4", 8.0, 512),
    )
    rooms = {id: it.world.room(id) for id in it.world.nodes}
    # What asks for none goes where there are none, however little memory others would leave.
    assert place(Needs(), rooms, lambda _: 0) == ("n4", "")
    placed = []
    while (node := place(Needs(gpu=("H100:2", "L4")), rooms, lambda _: 0)[0]) is not None:
        placed.append((node, rooms[node].take(Needs(gpu=("H100:2", "L4"))).gpus))
    h100 = [("n2", ("0", "1")), ("n2", ("2", "3")), ("n3", ("0", "1")), ("n3", ("2", "3"))]
    l4 = [("n3", ("4",)), ("n3", ("5",)), *(("n1", (gpu.id,)) for gpu in L4S)]
    assert placed == [*h100, *l4]


def test_a_node_that_has_such_devices_is_nearer_than_one_that_has_others() -> None:
    nodes = [Node("a", 8.0, 4096, gpus=MIXED), Node("b", 8.0, 4096, gpus=L4S), Node("c", 8.0, 4096)]
    asked = Needs(gpu=("H100:8", "H100:5"))
    words = "it asks for 8 GPUs of kind H100 or 5 of kind H100; node"
    assert never_fits(asked, nodes[:1]) == f"{words} a has 4 H100 and 2 L4"
    assert never_fits(Needs(gpu=("H100:4",)), nodes) is None
    rooms = {node.id: node.room() for node in nodes}
    rooms["a"].take(Needs(gpu=("H100:3",)))
    why = "it asks for 2 GPUs of kind H100; node a has 1 free of 4 H100 and 2 L4"
    assert place(Needs(gpu=("H100:2",)), rooms, lambda _: 0) == (None, why)


def test_a_gang_has_all_its_devices_or_none() -> None:
    it = on(Node("n1", 64.0, 4096, gpus=L4S), Node("n2", 64.0, 4096, gpus=L4S))
    single = deployed(it.world, "a", "L4")
    pool = deployed(it.world, "g", "L4:2", gang=Gang(4), single_use=True)
    wanted(it, single, 1)
    it.step()
    wanted(it, single, 0)
    wanted(it, pool, 1)
    it.demand[pool] = msgspec.structs.replace(it.demand[pool], priorities=((0, 1),))
    (wait,) = [wait for wait in it.step((pool,)).plan.waits if wait.pool == pool]
    assert (in_pool(it, pool), wait.why_not[:12]) == ([], "3 of 4 fit: ")
    (other,) = it.world.in_pool(single)
    it.world.apply(ReplicaSeen(it.now, other.id, Phase.GONE, single, "serving", other.node, reason="said"))
    it.step((pool,))
    members = it.world.in_pool(pool)
    assert sorted((each.node, each.gpus) for each in members) == [
        (node, (f"GPU-{n}", f"GPU-{n + 1}")) for node in ("n1", "n2") for n in (0, 2)
    ]
    assert check(it.world) == []


def test_a_template_has_none_and_only_who_asks_for_it_is_forked() -> None:
    it = on(Node("n1", 8.0, 4096, gpus=L4S))
    plain = deployed(it.world, "a", "L4", template=True)
    asked = deployed(it.world, "b", "L4", template=True, snapshot=True)
    for pool in (plain, asked):
        wanted(it, pool, 1)
    it.step()
    assert [(r.role, len(r.gpus)) for r in it.world.in_pool(plain)] == [("serving", 1)]
    assert sorted((r.role, len(r.gpus)) for r in it.world.in_pool(asked)) == [("serving", 1), ("template", 0)]
    revision = it.world.revision(plain)
    assert revision is not None
    assert "it asks for a GPU" in unforkable(revision, "")


def test_orders_say_which_devices() -> None:
    it = on(Node("n1", 8.0, 4096, gpus=L4S))
    wanted(it, deployed(it.world, "a", "L4:2"), 1)
    it.step()
    (order,) = drive(it.world, Inventory("n1", it.now, 1, ()), POLICY).orders
    assert isinstance(order, StartOrder)
    assert order.gpus == ("GPU-0", "GPU-1")


def test_a_plan_that_gives_what_is_not_free_or_not_asked_for_is_not_committed() -> None:
    it = on(Node("n1", 8.0, 4096, gpus=MIXED))
    pool = deployed(it.world, "a", "H100")

    def broken(*given: tuple[str, ...]) -> bool:
        starts = tuple(Start(f"r1-{n}", pool, "n1", "serving", "", gpus=gpus) for n, gpus in enumerate(given))
        return bool(would_break(it.world, Plan(it.now, (), actions=starts)))

    assert not broken(("0",), ("1",))
    for wrong in ([("0",), ("0",)], [()], [("0", "1")], [("4",)], [("9",)]):
        assert broken(*wrong), wrong


# -- what is found ---------------------------------------------------------------------------------


def found(replica: str, pool: str, *gpus: str, phase: Phase = Phase.READY) -> ReplicaSeen:
    return ReplicaSeen(2000.0, replica, phase, pool, "serving", "n1", address=f"unix:/{replica}", gpus=gpus)


def control(*apps: str) -> tuple[Reactor, list[str]]:
    """A control that begins, over a node of four, with functions that ask for one each; and their pools."""
    reactor = Reactor(World(), POLICY, Prices())
    reactor.take(Opened(2000.0, 7, (), POLICY))
    pools = [deployed(reactor.world, name, "L4") for name in apps]
    return reactor, pools


def test_a_replica_that_is_found_keeps_its_own() -> None:
    reactor, (pool,) = control("a")
    reactor.fact(NodeSeen(2000.0, Node("n1", 8.0, 4096, gpus=L4S)), 2000.0)
    reactor.fact(Inventory("n1", 2000.0, 6, (found("r6-1", pool, "GPU-2"),)), 2000.0)
    assert in_pool_of(reactor, pool) == {"r6-1": ("GPU-2",)}
    assert reactor.world.room("n1").devices == {"GPU-0": 1, "GPU-1": 1, "GPU-2": 0, "GPU-3": 1}
    assert check(reactor.world) == []


def in_pool_of(reactor: Reactor, pool: str) -> dict[str, tuple[str, ...]]:
    return {replica.id: replica.gpus for replica in reactor.world.in_pool(pool)}


def test_what_is_nobodys_keeps_its_own_until_it_is_gone() -> None:
    reactor, _ = control()
    node = Node("n1", 8.0, 4096, gpus=L4S)
    stranger = found("r6-9", "default/gone/f@rv-0", "GPU-0", "GPU-1")
    reactor.fact(NodeSeen(2000.0, node), 2000.0)
    reactor.fact(Inventory("n1", 2000.0, 6, (stranger,)), 2000.0)
    assert reactor.world.replicas == {}
    assert reactor.world.room("n1").free_gpus == 2
    events = len(reactor.step(2000.0).events)
    # Said once, however often it is heard, and whatever else is said of the node.
    reactor.fact(Inventory("n1", 2001.0, 6, (stranger,)), 2001.0)
    assert (events, reactor.step(2001.0).events) == (3, ())
    reactor.fact(NodeSeen(2001.0, msgspec.structs.replace(node, cpu=4.0)), 2001.0)
    assert reactor.world.room("n1").free_gpus == 2
    assert check(reactor.world) == []
    reactor.fact(Inventory("n1", 2002.0, 7, ()), 2002.0)
    assert reactor.world.room("n1").free_gpus == 4
    assert check(reactor.world) == []


def test_of_two_that_have_the_same_the_one_that_is_found_last_ends() -> None:
    reactor, (pool,) = control("a")
    world = reactor.world
    world.apply(NodeSeen(2000.0, Node("n1", 8.0, 4096, gpus=L4S)))
    for id in ("r6-1", "r6-2"):
        world.apply(ReplicaAdopted(2000.0, found(id, pool, "GPU-1")))
    kept, ending = world.replicas["r6-1"], world.replicas["r6-2"]
    assert (kept.phase, ending.phase, ending.reason) == (Phase.READY, Phase.DRAINING, UNKNOWN)
    assert check(world) == []
    # Not free before both are gone.
    world.apply(ReplicaSeen(2001.0, "r6-1", Phase.GONE, pool, "serving", "n1", reason="said"))
    assert world.room("n1").devices["GPU-1"] == 0
    world.apply(ReplicaSeen(2001.0, "r6-2", Phase.GONE, pool, "serving", "n1", reason="said"))
    assert world.room("n1").free_gpus == 4


def test_one_that_its_node_calls_otherwise_now_may_be_any_of_them() -> None:
    world = on(Node("n1", 8.0, 4096, gpus=L4S)).world
    pool = deployed(world, "a", "L4")
    world.apply(ReplicaAdopted(1000.0, found("r0-1", pool, "GPU-1")))
    world.apply(NodeSeen(1001.0, Node("n1", 8.0, 4096, gpus=MIXED)))
    assert world.room("n1").free_gpus == 0
    world.apply(ReplicaSeen(1002.0, "r0-1", Phase.GONE, pool, "serving", "n1", reason="said"))
    assert world.room("n1").free_gpus == len(MIXED)
    assert check(world) == []


def test_a_node_that_is_lost_takes_along_what_was_held_there() -> None:
    world = on(Node("n1", 8.0, 4096, gpus=L4S)).world
    world.apply(GpusHeld(1000.0, "n1", ("GPU-3",)))
    assert world.room("n1").free_gpus == 3
    world.apply(NodeSeen(1001.0, Node("n1", 8.0, 4096, gpus=L4S, alive=False)))
    world.apply(GpusHeld(1001.0, "n1", ("GPU-2",)))
    world.apply(NodeSeen(1002.0, Node("n1", 8.0, 4096, gpus=L4S)))
    assert world.room("n1").free_gpus == 4


def test_what_two_have_is_noticed() -> None:
    it = on(Node("n1", 8.0, 4096, gpus=L4S))
    pool = deployed(it.world, "a", "L4")
    for n in range(2):
        it.world._put(Replica(f"r1-{n}", pool, "n1", "serving", Phase.STARTING, it.now, gpus=("GPU-1",)))
    assert check(it.world) == ["GPU GPU-1 of n1 is given to 2 replicas"]


def test_a_sandbox_with_a_gpu_is_refused() -> None:
    world = on(Node("n1", 8.0, 4096, gpus=L4S)).world
    deployed(world, "a", "L4", isolation=Isolation())
    told = unwalled(world.apps["default/a"], list(world.nodes.values()))
    assert told is not None
    assert "asks for a GPU" in told
