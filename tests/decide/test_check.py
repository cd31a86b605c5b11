"""Is each invariant that a world breaks, or a plan would break, named? Each breach is planted in a sound world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from decide.worlds import Setting, deployed, on_one_node, ready, rescaled
from swell.decide.check import check, would_break
from swell.model.events import NodeSeen
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import Phase, Replica
from swell.model.world import World


def sound() -> tuple[Setting, str, Replica, Replica]:
    """A pool of one ready replica and its template, on one of two nodes; each has an id that is asked for here."""
    it = on_one_node()
    pool = deployed(it, "web", ports=(9200,), memory_mib=256, cpu=1.0)
    ready(it, pool, 1)
    it.world.apply(NodeSeen(it.now, Node("other", 8.0, 1024)))
    (serving,) = (r for r in it.world.in_pool(pool) if r.role == "serving")
    (template,) = it.world.templates.values()
    assert check(it.world) == []
    return it, pool, serving, template


def put(world: World, replica: Replica, **changes: Any) -> None:
    """Change a replica behind the world's back, in every index."""
    changed = msgspec.structs.replace(replica, **changes)
    world.replicas[replica.id] = world.by_pool[replica.pool][replica.id] = changed
    if replica.role == "template":
        world.templates[replica.id] = changed


def test_more_replicas_than_a_pool_may_have() -> None:
    it, pool, *_ = sound()
    rescaled(it, "default/web/f", max_replicas=0)
    assert check(it.world) == [f"{pool} has 1 replicas; its max_replicas is 0"]


def test_replicas_of_an_unknown_revision() -> None:
    it, pool, *_ = sound()
    it.world.revisions.clear()
    assert f"{pool} has replicas but its revision is unknown" in check(it.world)


def test_one_that_is_over_but_still_there() -> None:
    it, _, serving, _ = sound()
    put(it.world, serving, phase=Phase.GONE)
    assert check(it.world) == [f"{serving.id} is gone but still in the world"]


def test_one_that_is_ready_and_cannot_be_reached() -> None:
    it, _, serving, _ = sound()
    put(it.world, serving, address="")
    assert check(it.world) == [f"{serving.id} is ready but has no address"]


def test_one_on_a_node_that_is_none_or_lost() -> None:
    it, _, serving, template = sound()
    nodes = it.world.nodes
    nodes["local"] = msgspec.structs.replace(nodes["local"], alive=False)
    lost = [f"{id} is on local, which is no living node" for id in (template.id, serving.id)]
    assert sorted(check(it.world)) == sorted(lost)
    del nodes["local"]
    assert sorted(check(it.world)) == sorted(lost)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda world: setattr(world.rooms._rooms["local"], "cpu", 8.0), "local: kept free capacity"),
        (lambda world: setattr(world.rooms._rooms["local"], "memory_mib", 1024.0), "local: kept free capacity"),
        (
            lambda world: world.rooms._rooms["local"].ports.clear(),
            "local: kept ports [] are not its replicas' ports [9200]",
        ),
        (lambda world: world.by_pool.clear(), "by_pool does not hold exactly the live replicas"),
        (lambda world: world.templates.clear(), "templates does not hold exactly the live templates"),
        (lambda world: world.template_mib.update(local=1.0), "local: templates hold 256 MiB, kept is 1"),
        (lambda world: world.template_mib.clear(), "local: templates hold 256 MiB, kept is 0"),
        (lambda world: world.template_mib.update(other=1.0), "other: templates hold 0 MiB, kept is 1"),
    ],
)
def test_an_index_that_is_not_what_it_indexes(spoil: Callable[[World], None], named: str) -> None:
    it, *_ = sound()
    spoil(it.world)
    assert any(problem.startswith(named) for problem in check(it.world))


def test_only_the_pools_that_are_asked_about_are_looked_at() -> None:
    it, pool, serving, _ = sound()
    put(it.world, serving, address="")
    assert check(it.world, []) == []
    assert len(check(it.world, [pool])) == 1


# -- plans ---------------------------------------------------------------------------------------


def start(pool: str, replica: str = "r1-90", node: str = "other", **more: Any) -> Start:
    return Start(**{"replica": replica, "pool": pool, "node": node, "role": "serving", "why": "1 waits", **more})


def broken(it: Setting, *starts: Start) -> list[str]:
    return would_break(it.world, Plan(it.now, (), actions=starts))


def test_a_plan_that_breaks_nothing() -> None:
    it, pool, _, template = sound()
    fresh = start(pool, "r1-91", role="template")
    assert broken(it, fresh, start(pool, template="r1-91")) == []
    one, two = deployed(it, "one"), deployed(it, "two")
    assert broken(it, start(one, node="local"), start(two, "r1-91", node="local")) == []
    stop = Stop(template.id, "idle", 5.0, "not used")
    assert would_break(it.world, Plan(it.now, (), actions=(stop,))) == []


def test_an_id_that_is_used_again() -> None:
    it, pool, serving, _ = sound()
    assert broken(it, start(pool, serving.id)) == [f"{serving.id} would be started, and is in use already"]
    other = deployed(it, "other")
    assert broken(it, start(pool), start(other)) == ["r1-90 would be started, and is in use already"]


def test_a_revision_or_a_node_that_is_none() -> None:
    it, pool, *_ = sound()
    gone = pool.replace("@rv-", "@rv-0")
    assert f"r1-90 would be of {gone}, whose revision is unknown" in broken(it, start(gone))
    nowhere = "r1-90 would be on {}, which is no living node"
    assert broken(it, start(pool, node="n9")) == [nowhere.format("n9")]
    it.world.apply(NodeSeen(it.now, Node("other", 8.0, 1024, alive=False)))
    assert broken(it, start(pool)) == [nowhere.format("other")]


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({"cpu": 5.0}, "it asks for 5 cores; node other has 3 free of 8"),
        ({"memory_mib": 600}, "it asks for 600 MiB of memory; node other has 424 free of 1024"),
        ({"ports": (9300,)}, "it asks for port 9300; another replica has it on node other"),
    ],
)
def test_room_that_is_promised_twice(asked: dict[str, Any], lacking: str) -> None:
    """By the same plan: either alone would fit."""
    it, *_ = sound()
    first, second = (deployed(it, name, **asked) for name in ("one", "two"))
    assert broken(it, start(first)) == []
    assert broken(it, start(second)) == []
    assert broken(it, start(first), start(second, "r1-91")) == [f"r1-91 does not fit: {lacking}"]


def test_room_that_another_replica_has() -> None:
    it, *_ = sound()
    large = deployed(it, "large", memory_mib=600)
    assert broken(it, start(large, node="local")) == [
        "r1-90 does not fit: it asks for 600 MiB of memory; node local has 512 free of 1024"
    ]


def test_more_replicas_than_a_pool_would_be_allowed() -> None:
    it, *_ = sound()
    pool = deployed(it, "many", cpu=0.1, memory_mib=1)
    most = it.world.workloads["default/many/f"].scaling.max_replicas
    starts = [start(pool, f"r1-{90 + n}", node=("local", "other")[n % 2]) for n in range(most + 1)]
    assert broken(it, *starts[:-1]) == []
    assert broken(it, *starts) == [f"{pool} would have {most + 1} replicas, more than its max_replicas"]
    # A template is none of them.
    assert broken(it, *starts[:-1], start(pool, "r1-200", role="template")) == []


def test_a_fork_of_what_is_no_template_of_its_pool_on_its_node() -> None:
    it, pool, serving, template = sound()
    other = deployed(it, "other")
    named = "r1-90 would be forked from {}, no template of its pool on {}"
    for wrong in (serving.id, "r1-77"):
        assert broken(it, start(other, node="local", template=wrong)) == [named.format(wrong, "local")]
    assert broken(it, start(other, node="local", template=template.id)) == [named.format(template.id, "local")]
    assert broken(it, start(pool, template=template.id)) == [named.format(template.id, "other")]
    put(it.world, template, phase=Phase.DRAINING)
    assert named.format(template.id, "local") in broken(it, start(pool, node="local", template=template.id))
