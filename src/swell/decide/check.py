"""Which invariants does this world break, or would this plan break? The second is asked before every commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from swell.model.plan import Plan, Start, Stop
from swell.model.replica import LIVE, Phase, Replica
from swell.model.resources import Room
from swell.model.world import World, template_needs


def check(world: World, pools: Iterable[str] | None = None) -> list[str]:
    """Sentences about what is wrong; empty when all holds. `pools` limits the look to those."""
    broken: list[str] = []
    for pool in world.by_pool if pools is None else pools:
        broken += _pool(world, pool)
    if pools is None:
        broken += _rooms(world)
        broken += _indexes(world)
        broken += _rolling(world)
    return broken


def would_break(world: World, plan: Plan) -> list[str]:
    """What committing this plan would break: room promised twice, a limit passed, an id used again, and the like."""
    broken: list[str] = []
    rooms: dict[str, Room] = {}
    added: Counter[str] = Counter()
    new: dict[str, Start] = {}
    broken += [f"{key} would move, and does not roll" for key in plan.moves if key not in world.rolling]
    for action in plan.actions:
        if not isinstance(action, Start):
            broken += _wanted(world, action)
            continue
        id = action.replica
        if id in world.replicas or id in new:
            broken.append(f"{id} would be started, and is in use already")
        if action.template is not None and not _forkable(action, new.get(action.template), world):
            broken.append(f"{id} would be forked from {action.template}, no template of its pool on {action.node}")
        new[id] = action
        revision = world.revision(action.pool)
        if revision is None:
            broken.append(f"{id} would be of {action.pool}, whose revision is unknown")
        elif not _lives(world, action.node):
            broken.append(f"{id} would be on {action.node}, which is no living node")
        else:
            room = rooms.setdefault(action.node, world.room(action.node))
            needs = template_needs(revision.needs) if action.role == "template" else revision.needs
            lacking = room.lacks(needs)
            if lacking is not None:
                broken.append(f"{id} does not fit: {lacking}")
            room.take(needs)
        added[action.pool] += action.role == "serving"
    for pool, count in added.items():
        serving = [r for r in world.in_pool(pool) if r.role == "serving" and r.phase is not Phase.DRAINING]
        workload = world.workload(pool)
        if workload is None or len(serving) + count > workload.scaling.max_replicas:
            broken.append(f"{pool} would have {len(serving) + count} replicas, more than its max_replicas")
    return broken


def _wanted(world: World, stop: Stop) -> list[str]:
    """A pool is not superseded while its revision is wanted: what has the traffic keeps its replicas."""
    replica = world.replicas.get(stop.replica)
    if stop.reason != "superseded" or replica is None or replica.role != "serving":
        return []
    wanted = world.workload(replica.pool) is not None
    return [f"{replica.id} would go as superseded, and {replica.pool} is wanted"] if wanted else []


def _rolling(world: World) -> list[str]:
    """What has the traffic until its successor is ready is another one, and known."""
    broken = []
    for key, rolling in world.rolling.items():
        follows = world.workloads.get(key)
        if follows is None or follows.pool == rolling.previous.pool:
            broken.append(f"{key} rolls from {rolling.previous.pool} to nothing else")
        broken += [f"{pool} is wanted and unknown" for pool in world.wanted_pools(key) if world.revision(pool) is None]
    return broken


def _forkable(fork: Start, new: Start | None, world: World) -> bool:
    """May it be forked from the template it names: one that lives, or one (`new`) that is started with it?"""
    template = new if new is not None else world.templates.get(fork.template or "")
    if template is None or (isinstance(template, Replica) and template.phase is Phase.DRAINING):
        return False
    return (template.role, template.pool, template.node) == ("template", fork.pool, fork.node)


def _lives(world: World, id: str) -> bool:
    node = world.nodes.get(id)
    return node is not None and node.alive


def _pool(world: World, pool: str) -> list[str]:
    broken = []
    members = world.by_pool.get(pool, {}).values()
    serving = [r for r in members if r.role == "serving" and r.phase is not Phase.DRAINING]
    workload = world.workload(pool)
    if workload is not None and len(serving) > max(workload.scaling.max_replicas, workload.scaling.min_replicas):
        broken.append(f"{pool} has {len(serving)} replicas; its max_replicas is {workload.scaling.max_replicas}")
    if members and world.revision(pool) is None:
        broken.append(f"{pool} has replicas but its revision is unknown")
    for replica in members:
        if replica.phase not in LIVE:
            broken.append(f"{replica.id} is {replica.phase} but still in the world")
        if replica.phase is Phase.READY and replica.role == "serving" and not replica.address:
            broken.append(f"{replica.id} is ready but has no address")
        if not _lives(world, replica.node):
            broken.append(f"{replica.id} is on {replica.node}, which is no living node")
    return broken


def _rooms(world: World) -> list[str]:
    """Free capacity, counted anew, is what the world keeps."""
    broken = []
    rooms: dict[str, Room] = {id: node.room() for id, node in world.nodes.items() if node.alive}
    for replica in world.replicas.values():
        if replica.node in rooms:
            rooms[replica.node].take(world.needs(replica))
    for id, room in rooms.items():
        kept = world.room(id)
        if abs(kept.cpu - room.cpu) > 1e-6 or abs(kept.memory_mib - room.memory_mib) > 1e-6:
            broken.append(f"{id}: kept free capacity {kept} is not what its replicas leave, {room}")
        if kept.ports != room.ports:
            broken.append(f"{id}: kept ports {sorted(kept.ports)} are not its replicas' ports {sorted(room.ports)}")
    return broken


def _indexes(world: World) -> list[str]:
    broken = []
    flat = {id: r for members in world.by_pool.values() for id, r in members.items()}
    if flat != world.replicas:
        broken.append("by_pool does not hold exactly the live replicas")
    if {id for id, r in world.replicas.items() if r.role == "template"} != set(world.templates):
        broken.append("templates does not hold exactly the live templates")
    for node in sorted({*world.template_mib, *(template.node for template in world.templates.values())}):
        kept_mib = world.template_mib.get(node, 0.0)
        held_mib = sum(world.memory_mib(t) for t in world.templates.values() if t.node == node)
        if abs(kept_mib - held_mib) > 0.01:
            broken.append(f"{node}: templates hold {held_mib:g} MiB, kept is {kept_mib:g}")
    return broken
