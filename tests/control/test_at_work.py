"""Does a new control know what calls are worked on by, whatever was deployed since?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.calls_place import app_of
from swell.control.at_work import at_work
from swell.control.versions import numbered
from swell.model.call import Body, Call, Done, Work
from swell.model.events import AppDeployed, NodeSeen, Opened, ReplicaSeen
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.workload import App
from swell.model.world import World
from swell.store.memory import MemoryStore

NAMES = ("a", "b")


def version(name: str, number: int) -> App:
    return numbered(app_of(name, timeout_s=float(100 + number)), number)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_what_calls_were_handed_out_for_is_known_and_nothing_else(
    deploys: list[tuple[str, bool]], ended: set[int]
) -> None:
    """After each deploy a call is handed out, perhaps, and some have ended since."""
    store, latest, run = MemoryStore(), dict[str, App](), dict[str, str]()
    for n, (name, called) in enumerate(deploys):
        app = latest[name] = version(name, n + 1)
        store.world.append([AppDeployed(1.0, app, how="deploy")])
        if called:
            pool = app.workloads[0].pool
            store.calls.add([Work(Call(f"fc-{n}", f"default/{name}/f", "f", 1.0, 1.0), Body("x", b""))])
            store.calls.lease(f"default/{name}/f", 1, 2.0, n + 1, f"r1-{n + 1}", pool)
            if n not in ended:
                run[f"r1-{n + 1}"] = pool
    for n in ended:
        store.calls.finish([Done(f"fc-{n}", n + 1, 3.0, Body("x"))])
    found = at_work(store)
    assert {revision.id for revision in found} == {pool.partition("@")[2] for pool in run.values()} - {
        app.revisions[0].id for app in latest.values()
    }
    world = World()
    world.apply(Opened(4.0, 2, tuple(store.world.apps()), Policy(), found))
    world.apply(NodeSeen(4.0, Node("n1", 64.0, 65536)))
    for replica, pool in run.items():
        assert world.adoptable(ReplicaSeen(4.0, replica, Phase.READY, pool, "serving", "n1"))
