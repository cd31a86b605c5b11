"""What should be done now about these pools, why, what has to wait, and when should they be looked at again?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from swell.decide.place import make_room, place
from swell.decide.scale import NEVER, Scaled, scale
from swell.decide.warm import evict, idle_at, may_have_template, usable
from swell.model.demand import IDLE, Demand
from swell.model.ends import in_words
from swell.model.plan import Action, Plan, Start, Stop, Wait
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.resources import Needs, Room
from swell.model.workload import Revision, workload_of
from swell.model.world import World, template_needs

STARTUP_GRACE_S = 0.0
"""A replica that never took an input has nothing to finish."""


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
        self.read: dict[str, Demand] = {}
        self.new_template_mib: dict[str, float] = {}
        self.idle: list[tuple[float, Replica]] | None = None
        self.short: list[tuple[str, Needs, frozenset[str], str]] = []
        """(pool, what it asks for, where it may be, why not now) of those that found no room."""
        self.promised: dict[str, list[Needs]] = {}
        self.started = world.started

    def plan(self, pools: tuple[str, ...]) -> Plan:
        for pool in pools:
            revision = self.world.revision(pool)
            if revision is not None:
                self._pool(pool, revision)
        # Only now: what others were given of the free room must not be counted on.
        for short in self.short:
            self._make_room(*short)
        return Plan(
            at=self.now,
            pools=pools,
            demand=tuple(self.read.items()),
            actions=tuple(self.actions),
            waits=tuple(self.waits),
            look_again=tuple((p, at) for p, at in self.look_again.items() if at != NEVER),
        )

    # -- one pool ----------------------------------------------------------------------------

    def _pool(self, pool: str, revision: Revision) -> None:
        world, now = self.world, self.now
        workload = world.workload(pool)
        demand = self._level(pool)
        members = world.in_pool(pool)
        serving = [r for r in members if r.role == "serving" and r.phase is not Phase.DRAINING]
        templates = [r for r in members if r.role == "template" and r.phase is not Phase.DRAINING]
        failures = world.failures.get(pool)
        if workload is None and pool.partition("@")[0] not in world.workloads:
            self._stop_all(serving + templates)
            return
        ended = world.ended.get(pool, ())
        scaled = scale(workload, revision, demand, serving, failures, self.policy, now, ended)
        self._look(pool, scaled.look_again_at)
        if scaled.wait:
            self.waits.append(Wait(pool, scaled.wait))
        for id in scaled.stop:
            self._stop(id, scaled.reason, self._grace_s(revision), scaled.why)
        allowed = may_have_template(workload, revision, world.refused.get(pool, ""), self.policy)
        if scaled.starts:
            self._grow(pool, revision, members, scaled, allowed)
        if templates and not (allowed and (scaled.starts or len(serving) > len(scaled.stop))):
            self._rest(pool, templates, demand, allowed)

    def _grow(self, pool: str, revision: Revision, members: list[Replica], scaled: Scaled, allowed: bool) -> None:
        staying = [r for r in members if r.phase is not Phase.DRAINING]
        templates = [r for r in staying if r.role == "template"]
        # Of replicas that own a port there can be one on a node: another one must not even be wished for there.
        full = {r.node for r in staying if r.role == "serving"} if revision.needs.ports else set()
        for why in scaled.starts:
            rooms = {id: room for id, room in self._free().items() if id not in full}
            if full and not rooms:
                self.waits.append(Wait(pool, _one_per_node(revision.needs)))
                return
            node, why_not = place(revision.needs, rooms, lambda node: 1 if usable(templates, node) is not None else 0)
            if node is None:
                self.waits.append(Wait(pool, why_not))
                self.short.append((pool, revision.needs, frozenset(rooms), why_not))
                return
            template = usable(templates, node) if allowed else None
            if allowed and template is None:
                template = self._start_template(pool, revision, node)
                if template is not None:
                    templates.append(template)
            self._free()[node].take(revision.needs)
            if revision.needs.ports:
                full.add(node)
            self.actions.append(
                Start(self._new_id(), pool, node, "serving", why, template.id if template is not None else None)
            )

    def _start_template(self, pool: str, revision: Revision, node: str) -> Replica | None:
        """A template on the node, if its memory fits beside the replica it is for, and in the templates' share."""
        room = self._free()[node]
        room.take(revision.needs)
        fits = room.lacks(template_needs(revision.needs)) is None
        room.give_back(revision.needs)
        if not fits or not self._make_share(node, float(revision.needs.memory_mib)):
            return None
        room.take(template_needs(revision.needs))
        self.new_template_mib[node] = self.new_template_mib.get(node, 0.0) + revision.needs.memory_mib
        id = self._new_id()
        self.actions.append(Start(id, pool, node, "template", "its pool is in use: later replicas are forked from it"))
        return Replica(id, pool, node, "template", Phase.PLANNED, self.now, phase_at=self.now)

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

    def _stop_all(self, members: list[Replica]) -> None:
        for replica in members:
            self._stop(replica.id, "stopped", self.policy.stop_grace_s, in_words("stopped"))

    # -- memory and room ---------------------------------------------------------------------

    def _make_room(self, pool: str, needs: Needs, nodes: frozenset[str], why_not: str) -> None:
        """Nothing fits: take back what is idle elsewhere, longest unused first, if that makes it fit."""
        idle = self._reclaimable(pool)
        since_of = {replica.id: since for since, replica in idle}
        choices: list[tuple[float, int, str, list[Replica]]] = []
        for node in nodes:
            held = [(replica, self.world.needs(replica)) for _, replica in idle if replica.node == node]
            going = make_room(needs, self._coming(node), held)
            if going is not None:
                last_s = max((since_of[replica.id] for replica in going), default=-math.inf)
                choices.append((max(last_s + self.policy.reclaim_after_s, self.now), len(going), node, going))
        # Where nothing would do, room comes back only by an event: whoever leaves wakes the waiting.
        if not choices:
            return
        at, _, node, going = min(choices, key=lambda choice: choice[:3])
        if at > self.now:
            self._look(pool, at)
            return
        self.promised.setdefault(node, []).append(needs)
        why = f"{workload_of(pool)} waits: {why_not}"
        for replica in going:
            self._stop(replica.id, "reclaimed", self._grace_of(replica), why)
            # Its pool may be none of those that are planned now, and has less from here on.
            self._look(replica.pool, self.now)

    def _coming(self, node: str) -> Room:
        """The node's room once all that is being stopped is gone, but for what others wait there for."""
        room = self._free()[node].copy()
        for replica in self.world.replicas.values():
            if replica.node == node and (replica.phase is Phase.DRAINING or replica.id in self.stopping):
                room.give_back(self.world.needs(replica))
        for needs in self.promised.get(node, ()):
            room.take(needs)
        return room

    def _reclaimable(self, for_pool: str) -> list[tuple[float, Replica]]:
        """(idle since, replica) of what may go so that this pool gets room, longest unused first."""
        if self.idle is None:
            self.idle = list(self._idle())
        # Better a replica started fresh than a template that keeps its own replicas out.
        mine = [(at, r) for at, r in self._ready(for_pool) if r.role == "template"]
        others = [(since, r) for since, r in self.idle if r.pool != for_pool]
        staying = [(since, r) for since, r in (*mine, *others) if r.id not in self.stopping]
        return sorted(staying, key=lambda pair: (pair[0], pair[1].id))

    def _idle(self) -> Iterable[tuple[float, Replica]]:
        """(idle since, replica) of ready ones nobody uses now, beyond their pool's minimum."""
        for pool, members in self.world.by_pool.items():
            demand = self._level(pool)
            workload = self.world.workload(pool)
            if demand.level or (workload is not None and workload.scaling.min_replicas):
                continue
            if any(r.phase in (Phase.PLANNED, Phase.STARTING) for r in members.values()):
                continue
            yield from ((max(demand.used_at, at), r) for at, r in self._ready(pool))

    def _ready(self, pool: str) -> list[tuple[float, Replica]]:
        """(ready since, replica)."""
        return [(r.ready_at or self.now, r) for r in self.world.in_pool(pool) if r.phase is Phase.READY]

    def _make_share(self, node: str, new_mib: float) -> bool:
        """Is there room for one more template in their share of the node's memory, if need be by evicting some?"""
        share_mib = self.world.nodes[node].memory_mib * self.policy.template_memory_share
        held_mib = self.world.template_mib.get(node, 0.0) + self.new_template_mib.get(node, 0.0)
        excess_mib = held_mib + new_mib - share_mib
        if excess_mib <= 0:
            return True
        going = [t for t in self.world.templates.values() if t.id in self.stopping and t.node == node]
        excess_mib -= sum(self.world.memory_mib(t) for t in going)
        there = [t for t in self.world.templates.values() if t.node == node and t not in going and self._unused(t)]
        evicted = evict(there, excess_mib, self.world.memory_mib, self._worth)
        for template in evicted or ():
            why = f"templates on {node} may hold {self.policy.template_memory_share:.0%} of its memory"
            self._stop(template.id, "evicted", STARTUP_GRACE_S, why)
        return evicted is not None

    def _unused(self, template: Replica) -> bool:
        """No replica is about to be forked from it."""
        if self._level(template.pool).level:
            return False
        members = self.world.by_pool.get(template.pool, {}).values()
        return not any(r.template == template.id and r.phase in (Phase.PLANNED, Phase.STARTING) for r in members)

    def _worth(self, template: Replica) -> tuple[bool, float]:
        """What goes first is worth least: unasked for, and longest unused."""
        revision = self.world.revision(template.pool)
        used_at = max(self._level(template.pool).used_at, template.ready_at or template.planned_at)
        return (revision is not None and revision.snapshot, used_at)

    def _free(self) -> dict[str, Room]:
        if self.rooms is None:
            self.rooms = {id: self.world.room(id) for id, node in self.world.nodes.items() if node.alive}
        return self.rooms

    def _level(self, pool: str) -> Demand:
        """The pool's demand; what was looked at is kept in the plan."""
        level = self.demand.get(pool, IDLE)
        if level is not IDLE:
            self.read[pool] = level
        return level

    # -- the words of a plan -----------------------------------------------------------------

    def _new_id(self) -> str:
        self.started += 1
        return f"r{self.world.epoch:x}-{self.started:x}"

    def _stop(self, id: str, reason: str, grace_s: float, why: str) -> None:
        if id not in self.stopping:
            self.stopping.add(id)
            self.actions.append(Stop(id, reason, grace_s, why))

    def _look(self, pool: str, at: float) -> None:
        self.look_again[pool] = min(at, self.look_again.get(pool, NEVER))

    def _grace_of(self, replica: Replica) -> float:
        revision = self.world.revision(replica.pool)
        return self._grace_s(revision) if revision is not None and replica.role == "serving" else STARTUP_GRACE_S

    def _grace_s(self, revision: Revision) -> float:
        """What is in flight may use its whole timeout, and its exit hooks a little more."""
        return revision.timeout_s + self.policy.stop_grace_s


def _one_per_node(needs: Needs) -> str:
    """Why a pool whose replicas own a port gets no more of them."""
    return f"port {min(needs.ports)} is taken: one replica per node; give it @concurrent to take more at once"
