"""Random worlds for property tests: made only by events, as real ones are."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from swell.decide.plan import plan
from swell.decide.roll import follow
from swell.model.demand import IDLE, Demand, seen
from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, PlanCommitted, ReplicaSeen
from swell.model.gpu import Gpu
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.replica import NEXT, Phase, Replica
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World

POLICY = Policy(template_idle_s=60.0)

needs = st.builds(
    Needs,
    cpu=st.sampled_from([0.125, 0.5, 1.0, 2.0]),
    memory_mib=st.sampled_from([64, 128, 500, 1024]),
    ports=st.sampled_from([(), (), (), (8000,)]),
    gpu=st.sampled_from([(), (), (), ("L4",), ("A100:2", "any")]),
)
gpus = st.sampled_from([(), tuple(Gpu(str(n), ("L4", "A100", "A100")[n % 3]) for n in range(6))])
"""Of a node."""
scalings = st.builds(
    Scaling,
    min_replicas=st.integers(0, 1),
    max_replicas=st.integers(1, 6),
    buffer_replicas=st.integers(0, 2),
    idle_s=st.sampled_from([0.0, 5.0, 60.0]),
)


@st.composite
def revisions(draw: st.DrawFn) -> Revision:
    max_inputs = draw(st.integers(1, 4))
    return Revision(
        environment=Environment("/usr/bin/python3", "3.11"),
        bundle=f"sha256-{draw(st.integers(0, 3)):x}",
        entry=Entry("main", "f", "function", (Method("f"),)),
        needs=draw(needs),
        max_inputs=max_inputs,
        target_inputs=draw(st.integers(1, max_inputs)),
        template=draw(st.booleans()),
    )


@st.composite
def apps(draw: st.DrawFn, number: int = 0) -> App:
    revision = draw(revisions())
    workload = Workload("default", f"a{number}", "f", revision.id, draw(scalings))
    return App("default", f"a{number}", (workload,), (revision,))


class Setting:
    """A world with demand and a clock that only goes on."""

    def __init__(self) -> None:
        self.world = World(epoch=1)
        self.demand: dict[str, Demand] = {}
        self.now = 1000.0
        self.times_ready = 0

    def step(self, pools: tuple[str, ...] | None = None) -> PlanCommitted:
        """Plan and commit, as the loop does: it takes who runs and was never spoken of for unwanted."""
        for pool in self.world.by_pool:
            self.demand.setdefault(pool, IDLE)
        wanted = (pool for key in self.world.workloads for pool in self.world.wanted_pools(key))
        every = tuple(dict.fromkeys((*self.world.by_pool, *wanted)))
        decided = plan(self.world, self.demand, self.now, every if pools is None else pools, POLICY)
        event = PlanCommitted(self.now, decided)
        self.world.apply(event)
        return event


@st.composite
def settings(draw: st.DrawFn, steps: int = 12) -> Setting:
    """A world after some random history."""
    it = Setting()
    for n in range(draw(st.integers(1, 2))):
        it.world.apply(NodeSeen(it.now, Node(f"n{n}", draw(st.sampled_from([1.0, 4.0])), 2048, gpus=draw(gpus))))
    for n in range(draw(st.integers(1, 3))):
        it.world.apply(AppDeployed(it.now, draw(apps(n))))
    for _ in range(draw(st.integers(0, steps))):
        _happen(draw, it)
    return it


def _happen(draw: st.DrawFn, it: Setting) -> None:
    it.now += draw(st.sampled_from([0.0, 0.5, 3.0, 70.0]))
    what = draw(st.sampled_from(["demand", "demand", "plan", "report", "report", "deploy"]))
    if what == "demand":
        pool = draw(st.sampled_from(sorted(w.pool for w in it.world.workloads.values())))
        held, in_flight = draw(st.integers(0, 5)), draw(st.integers(0, 5))
        it.demand[pool] = seen(it.demand.get(pool, Demand()), held, in_flight, 0, it.now)
    elif what == "plan":
        it.step()
    elif what == "deploy":
        app = draw(apps(0))
        it.world.apply(AppDeployed(it.now, follow(it.world, app) if draw(st.booleans()) else app))
    elif it.world.replicas:
        replica = it.world.replicas[draw(st.sampled_from(sorted(it.world.replicas)))]
        phase = draw(st.sampled_from(sorted(NEXT[replica.phase]) or [Phase.GONE]))
        it.world.apply(report(replica, phase, it.now))


def report(replica: Replica, phase: Phase, now: float) -> ReplicaSeen:
    address = f"unix:/x/{replica.id}" if phase is Phase.READY and replica.role == "serving" else ""
    return ReplicaSeen(now, replica.id, phase, replica.pool, replica.role, replica.node, address=address, reason="said")


def rescaled(it: Setting, key: str, **changes: Any) -> None:
    """A workload is scaled otherwise, and all else of its app is as it was."""
    workload = it.world.workloads[key]
    app = it.world.apps[f"{workload.namespace}/{workload.app}"]
    scaling = msgspec.structs.replace(workload.scaling, **changes)
    after = msgspec.structs.replace(workload, scaling=scaling)
    workloads = tuple(after if each.name == workload.name else each for each in app.workloads)
    it.world.apply(AppDeployed(it.now, msgspec.structs.replace(app, workloads=workloads)))


def deployed(it: Setting, name: str, ports: tuple[int, ...] = (), memory_mib: int = 128, cpu: float = 0.125) -> str:
    """An app of one function is; its pool."""
    entry = Entry("main", name, "function", (Method(name),))
    asked = Needs(cpu, memory_mib=memory_mib, ports=ports)
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, needs=asked)
    workload = Workload("default", name, "f", revision.id, Scaling())
    it.world.apply(AppDeployed(it.now, App("default", name, (workload,), (revision,))))
    return workload.pool


def ready(it: Setting, pool: str, held: int) -> None:
    """So many wait for the pool, and get what they wait for."""
    it.demand[pool] = seen(it.demand.get(pool, Demand()), held, 0, 0, it.now)
    it.step()
    for replica in it.world.in_pool(pool):
        it.world.apply(report(replica, Phase.READY, it.now))


def on_one_node() -> Setting:
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("local", 8.0, 1024)))
    return it
