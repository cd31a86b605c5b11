"""What is promised of replicas and requests, and was it kept? Asked after each step, now and then, and at the end."""

from __future__ import annotations

import math
from collections import Counter

from swell.control.reactor import Effects
from swell.decide.check import check
from swell.engines.fake import FakeEngine
from swell.gateway.pool import Pool
from swell.gateway.replicas import DEAD_REST_MAX_S
from swell.gateway.request import LAST_WORDS_S
from swell.gateway.wheel import TICK_S
from swell.model.ends import GANG_BROKEN, ORDERED, PREEMPTED
from swell.model.events import Event, PlanCommitted
from swell.model.plan import Start
from swell.model.replica import NEXT, Phase
from swell.model.resources import Held, Needs
from swell.model.workload import workload_of
from swell.sim.faults import HANGS_S
from swell.sim.gateway import SimGateway
from swell.sim.system import System
from swell.wire.link import PoolRow

IN_VAIN_S = 20.0
"""Who waits beside room for another replica has one under way sooner: it takes `reclaim_after_s`, and what facts and
levels take to be heard."""


BESIDE_S = DEAD_REST_MAX_S + 1.0
"""Who waits beside a free slot has it sooner: a replica that was not reached rests, and one that was full is asked."""


class Promises:
    """Those of one system. What is broken is told to it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._phases: dict[str, Phase] = {}
        self._waits: dict[str, float] = {}
        """Pool → since when it waits beside room for it."""
        self._beside: dict[tuple[str, str], float] = {}
        """Gateway and replica → since when requests wait there, and it has a free slot."""

    def begin_anew(self) -> None:
        """A new incarnation of control knows of no phases."""
        self._phases.clear()

    def decided(self, effects: Effects) -> None:
        """Of what a step decided."""
        self._never_reclaimed_unready(effects.events)
        self._never_started_for_nobody(effects.events)
        for problem in effects.refused:
            self.system.broke(problem)
        if effects.events:
            self._world_holds()

    def told(self) -> None:
        """Of what gateways know then that hear control."""
        linked = [gateway for gateway in self.system.gateways if self.system.links.linked(gateway)]
        self._traffic_is_where_it_is_served(linked)
        keeper = self.system.reactor.keeper
        rows = {row.pool: _as_row(row) for row in keeper.pools.values()}
        for gateway in linked:
            known = {key: _as_known(pool) for key, pool in gateway.pools.items()}
            if (gateway.routes, known) != (keeper.routes, rows):
                self.system.broke("the gateway's table, made of deltas, is not the table control would send whole")

    def _never_reclaimed_unready(self, events: tuple[Event, ...]) -> None:
        for event in events:
            for action in event.plan.actions if isinstance(event, PlanCommitted) else ():
                replica = self.system.reactor.world.replicas.get(action.replica)
                if replica is not None and replica.reason in ("idle", "reclaimed", "evicted") and not replica.ready_at:
                    self.system.broke(f"{replica.id} was given up ({replica.reason}) before it was ever ready")

    def _traffic_is_where_it_is_served(self, linked: list[SimGateway]) -> None:
        """What rolls has its traffic where replicas are ready, as long as there are any, until the new ones are."""
        system = self.system
        world = system.reactor.world
        for key, rolling in world.rolling.items():
            routes = [gateway.routes.get(key) for gateway in linked]
            if any(route is None or route.pools != set(rolling.previous.pools) for route in routes):
                system.broke(f"{key} rolls, and its traffic does not go to {rolling.previous.pool}")

    def _never_started_for_nobody(self, events: tuple[Event, ...]) -> None:
        """Who ended with its replica does not wait for another; but a minimum is kept whoever waits, and what a gateway
        said last is believed until its connection is seen to be broken."""
        system = self.system
        if system.scenario.min_replicas or not system.links.sure:
            return
        for event in events:
            for action in event.plan.actions if isinstance(event, PlanCommitted) else ():
                if not isinstance(action, Start) or action.pool not in system.bereft or system.queued(action.pool):
                    continue
                # What takes over is started for those whom the version before it serves.
                if workload_of(action.pool) not in system.reactor.world.rolling:
                    system.broke(f"{action.replica} was {action.why}, but nobody wants {action.pool} any more")

    def _world_holds(self) -> None:
        """Its invariants do, and lives only went forward."""
        system = self.system
        for problem in check(system.reactor.world):
            system.broke(problem)
        phases = {id: replica.phase for id, replica in system.reactor.world.replicas.items()}
        for id, phase in phases.items():
            before = self._phases.get(id, phase)
            if phase is not before and phase not in NEXT[before]:
                system.broke(f"{id} was {before} and is {phase}")
        self._phases = phases

    def nobody_waits_in_vain(self) -> None:
        """While there is room for another replica, or would be without what is idle, one is under way soon."""
        system = self.system
        now, world, waiting = system.time.now(), system.reactor.world, {}
        going = {replica.node for replica in world.replicas.values() if replica.phase is Phase.DRAINING}
        linked = [gateway for gateway in system.gateways if system.links.linked(gateway)]
        for pool in dict.fromkeys(pool for gateway in linked for pool in gateway.held):
            workload, revision = world.workload(pool), world.revision(pool)
            if workload is None or revision is None or pool in world.failures:
                continue
            serving = [r for r in world.in_pool(pool) if r.role == "serving"]
            if len(serving) >= workload.scaling.max_replicas or any(r.phase is not Phase.READY for r in serving):
                continue
            if any(self._fits(revision.needs, engine) for name, engine in system.engines.items() if name not in going):
                waiting[pool] = self._waits.get(pool, now)
                if now - waiting[pool] > IN_VAIN_S:
                    system.broke(f"{pool} waits, and for {IN_VAIN_S:g} s nothing was started though there is room")
        self._waits = waiting

    def nobody_waits_beside_a_free_slot(self) -> None:
        """Not for long: a gateway knows of others' inputs only what it was told."""
        system, beside = self.system, {}
        now = system.time.now()
        for gateway in system.gateways:
            for pool, held in gateway.held.items():
                for id in gateway.pools[pool].replicas:
                    slots = system.slots_of.get(id)
                    if system.hangs(id) or not system.listens(id) or (slots is not None and slots.free <= 0):
                        continue
                    since = beside[gateway.name, id] = self._beside.get((gateway.name, id), now)
                    if now - since > BESIDE_S:
                        system.broke(f"{held} wait at {gateway.name} for {pool}, and {id} is free")
        self._beside = beside

    def _fits(self, needs: Needs, engine: FakeEngine) -> bool:
        """Is there room on a node for another replica, beside what works, starts, or is in a minimum?"""
        system = self.system
        if not engine.alive or engine.node.leaving_at is not None or not system.reaches(engine.node.id):
            return False
        room, idle = engine.node.room(), Counter[str]()
        wanted = {pool for gateway in system.gateways for pool in gateway.held}
        wanted.update(system.queue.keeper.wants.levels if system.queue is not None else ())
        for id, fake in engine.replicas.items():
            order, working = fake.order, system.works(id)
            if fake.phase is Phase.READY and not working and order.pool not in wanted:
                idle[order.pool] += order.role == "serving"
                if order.role == "template" or idle[order.pool] > system.scenario.min_replicas:
                    continue
            needs_of = order.revision.needs if order.role == "serving" else order.revision.needs.of_template
            room.hold(Held(needs_of, order.gpus))
        for replica in system.reactor.world.replicas.values():
            if replica.node == engine.node.id and replica.id not in engine.replicas:
                # Its order is on the way.
                room.hold(system.reactor.world.held(replica))
        return room.lacks(needs) is None

    def rest(self) -> None:
        """At the end: everything was answered, and all is at zero."""
        system = self.system
        slack_s = LAST_WORDS_S + 2 * (TICK_S + system.scenario.hop_s)
        slack_s += max(HANGS_S) if system.scenario.replica_hang_every_s else 0.0
        for request in system.requests:
            held = request.came_at + system.scenario.hold_s
            begun = request.begun_at < math.inf
            latest = min(request.until, request.begun_at + system.scenario.timeout_s if begun else held)
            if not request.outcome:
                system.broke(f"request {request.number} was never answered or refused")
            elif begun and request.begun_at > held + slack_s:
                system.broke(f"request {request.number} was begun {request.begun_at - held:.3f} s late")
            elif request.ended_at > latest + slack_s:
                system.broke(f"request {request.number} ended {request.ended_at - latest:.3f} s late")
            elif request.outcome != "answered" and system.scenario.calm:
                system.broke(f"request {request.number} was not answered ({request.outcome}), and nothing went wrong")
        for problem in system.shares.wrong():
            system.broke(problem)
        left = [id for engine in system.engines.values() for id in engine.replicas]
        if left:
            system.broke(f"not back to zero: {sorted(left)[:5]} still run on an engine")
        if system.reactor.world.replicas:
            system.broke(f"not back to zero: the world still has {sorted(system.reactor.world.replicas)[:5]}")
        for engine in system.engines.values():
            for id, reason in engine.cut.items():
                if reason in ORDERED - {PREEMPTED, GANG_BROKEN}:
                    system.broke(f"{id} was cut ({reason}) while it worked")
            for id, times in engine.starts.items():
                if times > 1:
                    system.broke(f"{id} was started {times} times")


def _as_row(row: PoolRow) -> tuple[object, ...]:
    """What a gateway is to know of a pool."""
    return sorted(each.replica for each in row.replicas), row.max_inputs, row.timeout_s, row.failing, row.closed


def _as_known(pool: Pool) -> tuple[object, ...]:
    """What it knows."""
    return sorted(pool.replicas), pool.max_inputs, pool.timeout_s, pool.failing, pool.refusing
