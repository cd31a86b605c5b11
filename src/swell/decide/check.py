"""Which invariants does this world break, or would this plan break? The second is asked before every commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from swell.decide.gangs import by_gang, staying
from swell.model.ends import UNKNOWN
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import LIVE, Phase, Replica
from swell.model.resources import NOTHING, Held, Room
from swell.model.world import World


def check(world: World, pools: Iterable[str] | None = None) -> list[str]:
    """Sentences about what is wrong; empty when all holds. `pools` limits the look to those."""
    broken: list[str] = []
    for pool in world.by_pool if pools is None else pools:
        broken += _pool(world, pool)
    if pools is None:
        broken += _gangs(world)
        broken += _rooms(world)
        broken += _gpus(world)
        broken += _indexes(world)
        broken += _rolling(world)
    return broken


def would_break(world: World, plan: Plan) -> list[str]:
    """What committing this plan would break: room promised twice, a limit passed, an id used again, and the like."""
    broken: list[str] = []
    rooms: dict[str, Room] = {}
    added: Counter[str] = Counter()
    new: dict[str, Start] = {}
    stopped = {action.replica for action in plan.actions if isinstance(action, Stop)}
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
        elif world.nodes[action.node].leaving_at is not None:
            broken.append(f"{id} would be on {action.node}, which is to leave")
        else:
            room = rooms.setdefault(action.node, world.room(action.node))
            needs = revision.needs.of_template if action.role == "template" else revision.needs
            lacking = room.lacks(needs)
            if lacking is not None:
                broken.append(f"{id} does not fit: {lacking}")
            elif not room.suits(Held(needs, action.gpus)):
                broken.append(f"{id} would get GPUs that are not free, or not what it asks for: {action.gpus}")
            room.hold(Held(needs, action.gpus))
        added[action.pool] += action.role == "serving" and (action.seat is None or action.seat.rank == 0)
    broken += _half_started(world, new.values())
    broken += _half_stopped(world, stopped)
    for pool, count in added.items():
        serving = _counted(r for r in world.in_pool(pool) if r.id not in stopped)
        workload = world.workload(pool)
        if workload is None or len(serving) + count > workload.scaling.max_replicas:
            broken.append(f"{pool} would have {len(serving) + count} replicas, more than its max_replicas")
    return broken


def _counted(members: Iterable[Replica]) -> list[Replica]:
    """The replicas of a pool that a limit is about: of a gang, which counts as one, the first that is left of it."""
    serving = [r for r in members if r.role == "serving" and r.phase is not Phase.DRAINING]
    return [r for r in serving if r.seat is None] + [gang[0] for gang in by_gang(serving).values()]


def _half_started(world: World, starts: Iterable[Start]) -> list[str]:
    """A gang is started as a whole, with as many as it may have, or not at all."""
    broken = []
    gangs: dict[str, list[Start]] = {}
    for start in starts:
        revision = world.revision(start.pool)
        gang = revision.gang if revision is not None and start.role == "serving" else None
        if (gang is None) is not (start.seat is None):
            broken.append(f"{start.replica} would be {'of a gang' if start.seat else 'alone'}, and its pool is not so")
        if start.seat is not None:
            gangs.setdefault(start.seat.gang, []).append(start)
            size = start.seat.size
            if gang is not None and not gang.at_least <= size <= gang.size:
                broken.append(f"{start.replica} would be one of {size}, not of {gang.at_least} to {gang.size}")
    for leader, members in gangs.items():
        seats = [start.seat for start in members if start.seat is not None]
        led = [start.replica for start in members if start.seat is not None and start.seat.rank == 0] == [leader]
        alike = len({(start.pool, start.seat.size) for start in members if start.seat is not None}) == 1
        if not led or not alike or sorted(seat.rank for seat in seats) != list(range(seats[0].size)):
            broken.append(f"a part of the gang of {leader} would be started: {sorted(seat.rank for seat in seats)}")
    return broken


def _half_stopped(world: World, stopped: set[str]) -> list[str]:
    """Nor is a part of one stopped."""
    seats = (replica.seat for id in stopped if (replica := world.replicas.get(id)) is not None)
    gangs = sorted({seat.gang for seat in seats if seat is not None})
    left = [(gang, r.id) for gang in gangs for r in staying(world, gang, stopped)]
    return [f"{id} would be left of the gang of {gang}" for gang, id in left]


def _gangs(world: World) -> list[str]:
    """The members of each are of one kind, and no half of a gang is left to itself."""
    broken = []
    for gang, known in world.gangs.items():
        members = list(known.values())
        if len({(r.pool, r.seat.size) for r in members if r.seat is not None}) != 1:
            broken.append(f"the members of the gang of {gang} are not alike")
        ranks = [r.seat.rank for r in members if r.seat is not None]
        if len(set(ranks)) < len(ranks) or any(r.seat is not None and r.seat.rank >= r.seat.size for r in members):
            broken.append(f"the gang of {gang} has the ranks {sorted(ranks)}")
        if gang in world.broken and staying(world, gang):
            broken.append(
                f"the gang of {gang} is broken ({world.broken[gang]}), and {staying(world, gang)[0].id} stays"
            )
    flat = {id for members in world.gangs.values() for id in members}
    if flat != {id for id, r in world.replicas.items() if r.seat is not None}:
        broken.append("gangs does not hold exactly the live members")
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
    serving = _counted(members)
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
            rooms[replica.node].hold(world.held(replica))
    for id, room in rooms.items():
        kept = world.room(id)
        room.hold(world.rooms.strangers.get(id, Held(NOTHING)))
        if abs(kept.cpu - room.cpu) > 1e-6 or abs(kept.memory_mib - room.memory_mib) > 1e-6:
            broken.append(f"{id}: kept free capacity {kept} is not what its replicas leave, {room}")
        if kept.ports != room.ports:
            broken.append(f"{id}: kept ports {sorted(kept.ports)} are not its replicas' ports {sorted(room.ports)}")
        if kept.devices != room.devices:
            broken.append(f"{id}: kept free GPUs {kept.devices} are not what its replicas leave, {room.devices}")
    return broken


def _gpus(world: World) -> list[str]:
    """No device is given to two. What an earlier order made that was taken for lost is not given anything: it ends."""
    given = Counter(
        (replica.node, gpu) for replica in world.replicas.values() if replica.reason != UNKNOWN for gpu in replica.gpus
    )
    return [f"GPU {gpu} of {node} is given to {times} replicas" for (node, gpu), times in given.items() if times > 1]


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
