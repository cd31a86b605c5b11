"""What should be done now about these pools, why, what has to wait, and when should they be looked at again?"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from swell.decide.drain import GANG_BROKEN_GRACE_S, STARTUP_GRACE_S, drain_grace_s
from swell.decide.gangs import Giving, as_one, awaited, by_gang, held, leaves_at, lesser, staying, unmet
from swell.decide.growth import Choice, Growth, Short
from swell.decide.place import make_room, make_rooms, place, place_all
from swell.decide.roll import floor, roll
from swell.decide.scale import NEVER, PoolState, scale
from swell.decide.spare import Spare, Use, spare
from swell.decide.warm import evict, idle_at, may_have_template, usable
from swell.model.demand import IDLE, Demand
from swell.model.ends import GANG_BROKEN, PREEMPTED, SERVED, in_words
from swell.model.gang import Gang, Seat
from swell.model.ids import replica_id
from swell.model.plan import Action, Plan, Start, Stop, Wait
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.resources import Held, Needs, Room
from swell.model.workload import Revision, workload_of
from swell.model.world import World

FOR_OTHERS = "its reserve (buffer_containers) waits: other pools need the room first"
ENDS_SOON = frozenset({PREEMPTED, GANG_BROKEN, SERVED, "", "reclaimed", "idle", "evicted"})
"""What ends for these reasons ends soon, since it works on nothing that is of use: a gang counts on its room, and keeps
it from others."""


def plan(world: World, demand: Mapping[str, Demand], now: float, pools: Iterable[str], policy: Policy) -> Plan:
    """Decide about `pools`; the others need no look before an event, demand or their `look_again` says so.

    Pure: neither `world` nor `demand` is changed, and the same arguments give the same plan.
    """
    return _Planner(world, demand, now, policy).plan(tuple(dict.fromkeys(pools)))


class _Planner:
    """One plan in the making: what it has decided so far, and the capacity that is left."""

    def __init__(self, world: World, demand: Mapping[str, Demand], now: float, policy: Policy) -> None:
        self.world = world
        self.demand = demand
        self.now = now
        self.policy = policy
        self.rooms: dict[str, Room] | None = None
        self.actions: list[Action] = []
        self.waits: list[Wait] = []
        self.look_again: dict[str, float] = {}
        self.stopping: set[str] = set()
        self.recorded: dict[str, Demand] = {}
        self.new_template_mib: dict[str, float] = {}
        self.forked: set[str] = set()
        """Templates that what is started now is forked from."""
        self.short: list[Short] = []
        """One for each replica that found no room."""
        self.short_gangs: list[tuple[Growth, Gang, str]] = []
        """Pools of which a gang found none, and why."""
        self.growths: list[Growth] = []
        self.kept: set[str] = set()
        """Nodes whose free room is for those who wait."""
        self.spares: dict[str, list[Spare]] = {}
        """Node → what may be taken back there, in the order in which it goes."""
        self.coming: dict[str, Room] = {}
        """Each node's room once all that is being stopped is gone, but for what others wait there for."""
        self.reach: dict[str, Room] = {}
        """That room with all that may be taken back there."""
        self.started = world.started
        self.moves: dict[str, None] = {}
        """Workloads whose traffic moves."""

    def plan(self, pools: tuple[str, ...]) -> Plan:
        for pool in pools:
            revision = self.world.revision(pool)
            if revision is not None:
                self._pool(pool, revision)
        self._grow()
        # Last, and out of free room alone: nobody waits for a reserve, nor goes for one.
        for growth in self.growths:
            while growth.reserve and not growth.needed and self._placed(growth, growth.reserve, reserve=True):
                growth.reserve.pop()
        return Plan(
            at=self.now,
            pools=pools,
            demand=tuple(self.recorded.items()),
            actions=tuple(self.actions),
            waits=tuple(self.waits),
            look_again=tuple((p, at) for p, at in self.look_again.items() if at != NEVER),
            moves=tuple(self.moves),
        )

    # -- one pool ----------------------------------------------------------------------------

    def _pool(self, pool: str, revision: Revision) -> None:
        world, now = self.world, self.now
        workload = world.workload(pool)
        self._record(pool)
        demand = self.demand.get(pool, IDLE)
        members = world.in_pool(pool)
        serving = [r for r in members if r.role == "serving" and r.phase is not Phase.DRAINING]
        templates = [r for r in members if r.role == "template" and r.phase is not Phase.DRAINING]
        if workload is None and workload_of(pool) not in world.workloads:
            self._remove(pool, revision, serving + templates)
            return
        if world.rolling and workload_of(pool) in world.rolling:
            self._roll(pool, workload_of(pool))
        occupied = {r.node for r in serving}
        if revision.gang is not None:
            serving = self._gangs(serving)
        failures, ended = world.failures.get(pool), world.ended.get(pool, ())
        state = PoolState(workload, revision, demand, serving, failures, ended, floor(world, pool))
        scaled = scale(state, self.policy, now)
        self._look(pool, scaled.look_again_at)
        if scaled.wait:
            self.waits.append(Wait(pool, scaled.wait))
        for id in scaled.stop:
            self._stop(id, scaled.reason, drain_grace_s(revision, "serving", self.policy), scaled.why)
        allowed = may_have_template(workload, revision, world.refused.get(pool, ""), self.policy)
        if scaled.starts:
            full = occupied if revision.needs.ports else set()
            last_first = scaled.starts[::-1]
            reserve, needed = [*last_first[: scaled.reserve]], [*last_first[scaled.reserve :]]
            priorities = awaited(demand, serving, len(needed))[::-1] if revision.gang is not None else []
            self.growths.append(
                Growth(pool, revision, [*templates], full, allowed, len(serving), needed, reserve, priorities)
            )
        if templates and not (allowed and (scaled.starts or len(serving) > len(scaled.stop))):
            self._rest(pool, templates, demand, allowed)

    def _gangs(self, serving: list[Replica]) -> list[Replica]:
        """Those that are of use, each as one replica; of the others all members end."""
        found = []
        for gang, members in by_gang(serving).items():
            broken, until = self.world.broken.get(gang), leaves_at(self.world, members)
            if broken is not None:
                self._stop(members[0].id, GANG_BROKEN, GANG_BROKEN_GRACE_S, broken)
            elif until is not None:
                self._stop(members[0].id, PREEMPTED, max(until - self.now, 0.0), "a node that it is on is to leave")
            else:
                found.append(as_one(members))
        return found

    def _roll(self, pool: str, key: str) -> None:
        """Does the traffic of its workload move now?"""
        move, look_again_at = roll(self.world, key, self.policy, self.now)
        if move:
            self.moves[key] = None
            # Only once the gateways are told may those that had it be stopped.
            for each in self.world.wanted_pools(key):
                self._look(each, self.now)
        else:
            self._look(pool, look_again_at)

    def _grow(self) -> None:
        """Start what is needed, one after the other for the pool that has least: a second here is no reason for none
        there. But gangs by their priority."""
        # Which gang comes first makes a difference, so it is the same whatever else is planned with them.
        turns = [
            (-each.priority, each.have, each.pool if each.revision.gang else "", number)
            for number, each in enumerate(self.growths)
            if each.needed
        ]
        heapq.heapify(turns)
        while turns:
            _, have, name, number = turns[0]
            growth = self.growths[number]
            if self.short_gangs and growth.priority < self.short_gangs[0][0].priority:
                # Whoever is started now would only give way again.
                self._go_for_room()
            if self._placed(growth, growth.needed):
                growth.needed.pop()
                del growth.priorities[-1:]
                if growth.needed:
                    heapq.heapreplace(turns, (-growth.priority, have + 1, name, number))
                    continue
            heapq.heappop(turns)
        self._go_for_room()

    def _placed(self, growth: Growth, whys: list[str], reserve: bool = False) -> bool:
        """Start the next one of `whys`; False where there is no room for it."""
        pool, needs = growth.pool, growth.revision.needs
        rooms = {id: room for id, room in self._free().items() if id not in growth.full}
        if growth.revision.gang is not None:
            return self._gang_placed(growth, growth.revision.gang, whys[-1], rooms)
        if growth.full and not rooms:
            self.waits.append(Wait(pool, _one_per_node(needs)))
            return False
        if reserve:
            rooms = {id: room for id, room in rooms.items() if id not in self.kept}
        node, why_not = place(needs, rooms, lambda node: int(usable(growth.templates, node) is not None))
        if node is not None:
            self._start(growth, node, rooms[node].take(needs), whys[-1])
            return True
        self.waits.append(Wait(pool, FOR_OTHERS if reserve and self.kept else why_not))
        if not reserve:
            self.short += [Short(pool, needs, tuple(rooms), why_not)] * len(whys)
        return False

    def _gang_placed(self, growth: Growth, gang: Gang, why: str, rooms: dict[str, Room]) -> bool:
        """Start a gang: whole, or as many of it as may start without the others, or nobody."""
        needs, copies = growth.revision.needs, {id: room.copy() for id, room in rooms.items()}
        placed, why_not = place_all(
            needs, copies, gang.size, lambda node: int(usable(growth.templates, node) is not None)
        )
        if len(placed) < gang.at_least:
            self.waits.append(Wait(growth.pool, unmet(self.world, needs, gang, len(placed), why_not)))
            if not self._claimed(growth, gang, rooms):
                self.short_gangs.append((growth, gang, why_not))
            return False
        for node, part in placed:
            rooms[node].hold(part)
        ids = [self._new_id() for _ in placed]
        for rank, (id, (node, part)) in enumerate(zip(ids, placed, strict=True)):
            self._start(growth, node, part, why, id, Seat(ids[0], rank, len(ids), growth.priority))
        return True

    def _claimed(self, growth: Growth, gang: Gang, rooms: dict[str, Room]) -> bool:
        """Is there room enough for a gang as soon as what ends has ended? Then nobody else is to have it meanwhile: who
        went for this gang would have gone in vain."""
        needs, soon = growth.revision.needs, {id: room.copy() for id, room in rooms.items()}
        for replica in self.world.replicas.values():
            ends = replica.id in self.stopping or (replica.phase is Phase.DRAINING and replica.reason in ENDS_SOON)
            if ends and replica.node in soon:
                soon[replica.node].give_back(self.world.held(replica))
        placed, _ = place_all(needs, soon, gang.at_least, lambda _node: 0)
        if len(placed) < gang.at_least:
            return False
        for node, part in placed:
            # Below zero where it is still to come.
            rooms[node].hold(part)
        return True

    def _start(self, growth: Growth, node: str, held: Held, why: str, id: str = "", seat: Seat | None = None) -> None:
        """Start a replica, for which its room is taken."""
        template = usable(growth.templates, node) if growth.forked else None
        if growth.forked and template is None:
            template = self._start_template(growth.pool, growth.revision, node)
            if template is not None:
                growth.templates.append(template)
        if template is not None:
            self.forked.add(template.id)
        if held.needs.ports:
            growth.full.add(node)
        forked_from = template.id if template is not None else None
        start = Start(id or self._new_id(), growth.pool, node, "serving", why, forked_from, seat, held.gpus)
        self.actions.append(start)

    def _start_template(self, pool: str, revision: Revision, node: str) -> Replica | None:
        """A template on the node, if its memory fits beside the replica it is for, which has its room, and in the
        templates' share."""
        room = self._free()[node]
        fits = room.lacks(revision.needs.of_template) is None
        if not fits or not self._make_share(node, float(revision.needs.memory_mib)):
            return None
        room.take(revision.needs.of_template)
        self.new_template_mib[node] = self.new_template_mib.get(node, 0.0) + revision.needs.memory_mib
        id = self._new_id()
        self.actions.append(Start(id, pool, node, "template", "its pool is in use: later replicas are forked from it"))
        return Replica(id, pool, node, "template", Phase.PLANNED, self.now)

    def _rest(self, pool: str, templates: list[Replica], demand: Demand, allowed: bool) -> None:
        """Templates of a pool that serves nobody now: kept while recently used."""
        for template in templates:
            until = idle_at(template, demand, self.policy)
            if not allowed:
                self._stop(template.id, "superseded", STARTUP_GRACE_S, "its pool takes no template any more")
            elif template.phase is not Phase.READY or demand.level:
                # What comes next is an event, or another level.
                continue
            elif until <= self.now:
                why = f"not used for {self.policy.template_idle_s:g} s"
                self._stop(template.id, "idle", STARTUP_GRACE_S, why)
            else:
                self._look(pool, until)

    def _remove(self, pool: str, revision: Revision, members: list[Replica]) -> None:
        """Its workload is there no more; what is in flight is finished all the same."""
        reason = "removed" if pool.rpartition("/")[0] in self.world.apps else "stopped"
        for replica in members:
            self._stop(replica.id, reason, drain_grace_s(revision, replica.role, self.policy), in_words(reason))

    # -- memory and room ---------------------------------------------------------------------

    def _go_for_room(self) -> None:
        """Make room for those that found none, now that all others of their priority have what they were given."""
        if not (self.short or self.short_gangs):
            return
        self._list_spares()
        for short in self.short:
            self._make_room(short)
        for growth, gang, why_not in self.short_gangs:
            self._make_gang_room(growth, gang, why_not)
        self.short, self.short_gangs = [], []
        for growth in self.growths:
            growth.templates = [each for each in growth.templates if each.id not in self.stopping]

    def _list_spares(self) -> None:
        """Computed once for all short pools. A pool of unknown demand gives nothing up; demand used here is recorded so
        a replay chooses the same."""
        leaving = self.stopping | self.forked
        pools = [(pool, self.demand.get(pool)) for pool in self.world.by_pool]
        found = [each for pool, level in pools if level is not None for each in spare(self.world, pool, level, leaving)]
        self.spares = {}
        self.coming = {node: room.copy() for node, room in self._free().items()}
        for replica in self.world.replicas.values():
            if replica.node in self.coming and (replica.phase is Phase.DRAINING or replica.id in self.stopping):
                self.coming[replica.node].give_back(self.world.held(replica))
        self.reach = {node: room.copy() for node, room in self.coming.items()}
        for each in sorted(found, key=lambda each: each.turn):
            node = each.replica.node
            if node in self.reach:
                self.reach[node].give_back(self.world.held(each.replica))
                self.spares.setdefault(node, []).append(each)

    def _make_room(self, short: Short) -> None:
        """Nothing fits: take back what is idle elsewhere, longest unused first, if that makes it fit."""
        needs, choices = short.needs, []
        for node in short.nodes:
            if self.reach[node].lacks(needs) is not None:
                continue
            there = (each for each in self.spares.get(node, ()) if each.replica.id not in self.stopping)
            held = ((each, self.world.held(each.replica)) for each in there)
            going = make_room(needs, self.coming[node].copy(), held)
            if going is None:
                continue
            at = max((each.since + self.policy.reclaim_after_s for each in going), default=self.now)
            use = max((each.use for each in going), default=Use.NONE)
            choices.append(Choice(max(at, self.now), use, node, going))
            for each in going:
                self._record(each.replica.pool)
        # Where nothing would do, room comes back only by an event: whoever leaves wakes the waiting.
        if not choices:
            return
        best = min(choices, key=lambda choice: (choice.at, choice.use, len(choice.going), choice.node))
        node = best.node
        self.kept.add(node)
        if best.at > self.now:
            self._look(short.pool, best.at)
            return
        why = f"{workload_of(short.pool)} waits: {short.why_not}"
        for each in best.going:
            self.coming[node].give_back(self.world.held(each.replica))
            grace_s = drain_grace_s(self.world.revision(each.replica.pool), each.replica.role, self.policy)
            self._stop(each.replica.id, "reclaimed", grace_s, why)
            # Its pool may be none of those that are planned now, and has less from here on.
            self._look(each.replica.pool, self.now)
        part = self.coming[node].take(needs)
        for rooms in (self._free(), self.reach):
            rooms[node].hold(part)

    def _make_gang_room(self, growth: Growth, gang: Gang, why_not: str) -> None:
        """The same for a gang, which may have the room of gangs of a lower priority, too."""
        needs, least, priority = growth.revision.needs, gang.at_least, growth.priority
        coming = {id: room.copy() for id, room in self.coming.items() if id not in growth.full}
        for replica in self.world.replicas.values():
            if replica.node in coming and replica.phase is Phase.DRAINING and replica.reason not in ENDS_SOON:
                coming[replica.node].hold(self.world.held(replica))
        going = make_rooms(
            needs, coming, least, ((each, held(self.world, each, coming)) for each in self._giving(priority))
        )
        if going is None:
            return
        for each in going:
            self._record(each.replicas[0].pool)
        at = max((each.at for each in going), default=self.now)
        placed, _ = place_all(needs, coming, least, lambda _node: 0)
        self.kept.update(node for node, _ in placed)
        if at > self.now:
            self._look(growth.pool, at)
            return
        why = f"{workload_of(growth.pool)} waits, with priority {priority}: {why_not}"
        for each in going:
            first = each.replicas[0]
            for node, part in held(self.world, each, self.coming):
                self.coming[node].give_back(part)
                if each.reason == PREEMPTED:
                    self.reach[node].give_back(part)
            grace_s = drain_grace_s(self.world.revision(first.pool), first.role, self.policy)
            self._stop(first.id, each.reason, self.policy.preempt_grace_s if each.reason == PREEMPTED else grace_s, why)
            self._look(first.pool, self.now)
        for node, part in placed:
            for rooms in (self._free(), self.coming, self.reach):
                rooms[node].hold(part)

    def _giving(self, priority: int) -> Iterator[Giving]:
        """What may go for a gang of that priority: what goes first is first."""
        spares = [each for there in self.spares.values() for each in there if each.replica.id not in self.stopping]
        for each in sorted(spares, key=lambda each: each.turn):
            yield Giving(max(each.since + self.policy.reclaim_after_s, self.now), [each.replica], "reclaimed")
        for members in lesser(self.world, priority, self.stopping):
            yield Giving(self.now, members, PREEMPTED)

    def _make_share(self, node: str, new_mib: float) -> bool:
        """Is there room for one more template in their share of the node's memory, if need be by evicting some?"""
        share_mib = self.world.nodes[node].memory_mib * self.policy.template_memory_share
        held_mib = self.world.template_mib.get(node, 0.0) + self.new_template_mib.get(node, 0.0)
        excess_mib = held_mib + new_mib - share_mib
        if excess_mib <= 0:
            return True
        there = [t for t in self.world.templates.values() if t.node == node]
        going = {t.id for t in there if t.id in self.stopping or t.phase is Phase.DRAINING}
        excess_mib -= sum(self.world.memory_mib(t) for t in there if t.id in going)
        unused = [t for t in there if t.id not in going and self._unused(t)]
        evicted = evict(unused, excess_mib, self.world.memory_mib, self._worth)
        for template in evicted or ():
            self._record(template.pool)
            why = f"templates on {node} may hold {self.policy.template_memory_share:.0%} of its memory"
            self._stop(template.id, "evicted", STARTUP_GRACE_S, why)
        return evicted is not None

    def _unused(self, template: Replica) -> bool:
        """Nobody is known to want its pool, and no replica is about to be forked from it."""
        demand = self.demand.get(template.pool)
        if demand is None or demand.level or template.id in self.forked:
            return False
        members = self.world.by_pool.get(template.pool, {}).values()
        return not any(r.template == template.id and r.phase in (Phase.PLANNED, Phase.STARTING) for r in members)

    def _worth(self, template: Replica) -> tuple[bool, float]:
        """What goes first is worth least: unasked for, and longest unused."""
        revision = self.world.revision(template.pool)
        used_at = max(self.demand[template.pool].used_at, template.ready_at or template.planned_at)
        return (revision is not None and revision.snapshot, used_at)

    def _free(self) -> dict[str, Room]:
        if self.rooms is None:
            there = (id for id, node in self.world.nodes.items() if node.alive and node.leaving_at is None)
            self.rooms = {id: self.world.room(id) for id in there}
        return self.rooms

    def _record(self, pool: str) -> None:
        """Something was decided by the pool's demand: the plan holds it, so that a replay decides the same."""
        known = self.demand.get(pool)
        if known is not None:
            self.recorded[pool] = known

    # -- the words of a plan -----------------------------------------------------------------

    def _new_id(self) -> str:
        self.started += 1
        return replica_id(self.world.epoch, self.started)

    def _stop(self, id: str, reason: str, grace_s: float, why: str) -> None:
        """One of a gang takes all of it along."""
        replica = self.world.replicas.get(id)
        seat = replica.seat if replica is not None else None
        for each in [id] if seat is None else [r.id for r in staying(self.world, seat.gang, self.stopping)]:
            if each not in self.stopping:
                self.stopping.add(each)
                self.actions.append(Stop(each, reason, grace_s, why))

    def _look(self, pool: str, at: float) -> None:
        self.look_again[pool] = min(at, self.look_again.get(pool, NEVER))


def _one_per_node(needs: Needs) -> str:
    """Why a pool whose replicas own a port gets no more of them."""
    return f"port {min(needs.ports)} is taken: one replica per node; give it @concurrent to take more at once"
