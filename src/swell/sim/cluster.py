"""Does it hold under faults? A whole seeded cluster in one process: real planner and reactor, fake engine and clock.

Everything random comes from streams made of the seed, one per concern, so that the same seed gives the
same history (its hash says so) and a new kind of fault does not move the demand of old seeds.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from swell.control.reactor import Reactor
from swell.control.rescaling import rescaled
from swell.control.versions import numbered
from swell.decide.check import check
from swell.decide.roll import follow
from swell.decide.traffic import split
from swell.engines.fake import FakeEngine
from swell.model.ends import ORDERED
from swell.model.events import AppDeployed, Event, NodeSeen, Opened, PlanCommitted, ReplicaSeen
from swell.model.node import Node
from swell.model.plan import Start
from swell.model.ports import Fact
from swell.model.replica import NEXT, OVER, Phase
from swell.model.request import Prices
from swell.model.resources import Needs
from swell.model.traffic import Traffic
from swell.model.workload import App
from swell.model.world import World, template_needs
from swell.sim.clock import Timeline
from swell.sim.gateway import Request, SimGateway
from swell.sim.settings import VERSIONS_KEPT, Scenario
from swell.sim.shares import Shares
from swell.sim.slots import Slots
from swell.wire.api import Rescale
from swell.wire.link import Level, Route

REACTION_S = 0.0005
"""From hearing something to the step that follows: what else is heard meanwhile is taken together."""
IN_VAIN_S = 20.0
"""Who waits beside room for another replica has one under way sooner: it takes `reclaim_after_s`, and what facts and
levels take to be heard."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run."""

    history: str
    """Hash of everything that happened, in order."""
    events: int
    requests: int
    answered: int
    refused: int
    deadline: int
    held: int
    """Those that waited too long."""
    starts: int
    faults: dict[str, int]
    broken: tuple[str, ...]
    """Promises not kept; empty when all were."""


class Cluster:
    """One run. Make it, `run()` it, look at the outcome."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.seed = seed
        self.scenario = scenario
        self.time = Timeline()
        self.hash = hashlib.sha256()
        self.broken: list[str] = []
        self.faults: dict[str, int] = {}
        self.log: list[Event] = []
        self.epoch = 1
        self.requests: list[Request] = []
        self._soon = False
        self._alarm_at = 0.0
        self._phases: dict[str, Phase] = {}
        self._waits: dict[str, float] = {}
        """Pool → since when it waits beside room for it."""
        self.now, self.after = self.time.now, self.time.after
        self.hold_s, self.report_s = scenario.hold_s, scenario.report_s
        self.bereft: set[str] = set()
        self.shares = Shares()
        self.flying = 0
        """Messages between gateways and replicas."""
        self._slots: dict[str, Slots[Request]] = {}
        self._versions: dict[int, dict[int, App]] = {}
        """Number of an app → its latest versions, as they were deployed."""
        names = [f"g{number}" for number in range(1, scenario.gateways + 1)]
        self.gateways = [SimGateway(name, self, self.stream(f"gateway {name}")) for name in names]
        self.engines = {f"n{i}": self._engine(f"n{i}") for i in range(1, scenario.nodes + 1)}
        self.reactor = self._core(())

    def stream(self, name: str) -> Random:
        """Chance for one concern, independent of all others."""
        return Random(f"{self.seed}/{name}")

    def run(self) -> Outcome:
        """Deploy, let demand and faults come, then leave it alone until it should be at zero."""
        for i in range(self.scenario.workloads):
            self._deploy(i, generation=0)
        for engine in self.engines.values():
            engine.report_node()
        self._schedule_requests()
        self._schedule_faults()
        self._every(1.0, self._nobody_waits_in_vain)
        self._every(0.1, self._nobody_waits_beside_a_free_slot)
        self.time.run(self.scenario.busy_s)
        self._ask_for_no_minimum()
        self.time.run(self.scenario.busy_s + self.scenario.quiet_s)
        self._expect_rest()
        outcomes = [request.outcome for request in self.requests]
        return Outcome(
            history=self.hash.hexdigest(),
            events=self.time.done,
            requests=len(outcomes),
            answered=outcomes.count("answered"),
            refused=outcomes.count("refused"),
            deadline=outcomes.count("deadline"),
            held=outcomes.count("held"),
            starts=sum(len(engine.starts) for engine in self.engines.values()),
            faults=dict(sum((engine.faults for engine in self.engines.values()), Counter(self.faults))),
            broken=tuple(self.broken),
        )

    # -- parts -------------------------------------------------------------------------------

    def _engine(self, name: str) -> FakeEngine:
        node = Node(name, self.scenario.node_cpu, self.scenario.node_memory_mib)
        engine = FakeEngine(
            node,
            self.time.now,
            self.time.after,
            self.stream(f"engine {name}"),
            self.scenario.behaviour,
            self.works,
        )
        engine.listen(self._fact)
        self._every(5.0, engine.report_inventory)
        return engine

    def _core(self, apps: Iterable[App]) -> Reactor:
        reactor = Reactor(World(), self.scenario.policy, Prices())
        reactor.take(Opened(self.time.now(), self.epoch, tuple(apps), self.scenario.policy))
        return reactor

    def _every(self, period_s: float, do: object) -> None:
        assert callable(do)

        def again() -> None:
            do()
            self.time.after(period_s, again)

        self.time.after(period_s, again)

    # -- control -----------------------------------------------------------------------------

    def _fact(self, fact: Fact) -> None:
        self._note("fact", fact)
        self.reactor.fact(fact)
        if isinstance(fact, ReplicaSeen) and fact.phase in OVER:
            self._died(fact.replica)
        self._wake()

    # -- what gateways share -----------------------------------------------------------------

    def listens(self, replica: str) -> bool:
        return any(engine.listens(replica) for engine in self.engines.values())

    def slots(self, replica: str, limit: int) -> Slots[Request]:
        return self._slots.setdefault(replica, Slots(limit))

    def works(self, replica: str) -> bool:
        """Has it something in flight?"""
        return replica in self._slots and bool(self._slots[replica].running)

    def hop(self, chance: Random, do: Callable[[], None]) -> None:
        if not self.scenario.hop_s:
            do()
            return

        def arrived() -> None:
            self.flying -= 1
            do()

        self.flying += 1
        self.after(chance.uniform(0.1, 1.0) * self.scenario.hop_s, arrived)

    def went(self, route: Route, pool: str) -> None:
        self.shares.count(route, pool)

    @property
    def refused(self) -> int:
        """How often a replica was full, which a gateway did not know."""
        return sum(gateway.refused for gateway in self.gateways)

    def wrong(self, problem: str) -> None:
        self._break(problem)

    def _died(self, replica: str) -> None:
        """Connections to it break. Pools that nobody wants any more for that are bereft."""
        slots = self._slots.pop(replica, None)
        running = slots.running if slots is not None else []
        pools = {pool for gateway in self.gateways for pool in gateway.replica_died(replica, running)}
        self.bereft.update(pool for pool in pools if not any(gateway.wants(pool) for gateway in self.gateways))

    def demand(self, gateway: str, levels: list[Level], ttl_s: float) -> None:
        self.reactor.demand(gateway, levels, ttl_s, self.time.now())
        self._wake()

    def _wake(self) -> None:
        if not self._soon:
            self._soon = True
            self.time.after(REACTION_S, self._step)

    def _wake_at(self, at: float) -> None:
        """One alarm at a time: an earlier one that is no longer meant rings in vain."""
        if at != self._alarm_at:
            self._alarm_at = at
            self.time.at(at, lambda: self._wake() if self._alarm_at == at else None)

    def _step(self, linked: bool = True) -> None:
        """`linked`: gateways hear of it."""
        self._soon = False
        reactor, now = self.reactor, self.time.now()
        for gateway in self.gateways:
            reactor.book.renew(gateway.name, now)
        effects = reactor.step(now)
        for event in effects.events:
            self._note("event", event)
            self.log.append(event)
        self._never_reclaimed_unready(effects.events)
        self._never_started_for_nobody(effects.events)
        for problem in effects.refused:
            self._break(problem)
        if effects.events:
            self._world_holds()
        for order in effects.orders:
            self._note("order", order)
            self.engines[order.node].apply(order, self.epoch)
        if effects.delta is not None and linked:
            for gateway in self.gateways:
                gateway.take_table(effects.delta)
        self._traffic_is_where_it_is_served(linked)
        moved = sum(len(event.plan.moves) for event in effects.events if isinstance(event, PlanCommitted))
        if moved:
            self.faults["roll"] = self.faults.get("roll", 0) + moved
        whole = (reactor.keeper.pools, reactor.keeper.routes)
        if linked and any((gateway.pools, gateway.routes) != whole for gateway in self.gateways):
            self._break("the gateway's table, made of deltas, is not the table control would send whole")
        if effects.wake_at is not None:
            self._wake_at(max(effects.wake_at, now + REACTION_S))

    def _never_reclaimed_unready(self, events: tuple[Event, ...]) -> None:
        for event in events:
            for action in event.plan.actions if isinstance(event, PlanCommitted) else ():
                replica = self.reactor.world.replicas.get(action.replica)
                if replica is not None and replica.reason in ("idle", "reclaimed", "evicted") and not replica.ready_at:
                    self._break(f"{replica.id} was given up ({replica.reason}) before it was ever ready")

    def _traffic_is_where_it_is_served(self, linked: bool) -> None:
        """What rolls has its traffic where replicas are ready, as long as there are any, until the new ones are."""
        world = self.reactor.world
        for key, rolling in world.rolling.items():
            routes = [gateway.routes.get(key) for gateway in self.gateways if linked]
            if any(route is None or route.pools != set(rolling.previous.pools) for route in routes):
                self._break(f"{key} rolls, and its traffic does not go to {rolling.previous.pool}")

    def _never_started_for_nobody(self, events: tuple[Event, ...]) -> None:
        """Who ended with its replica does not wait for another; but a minimum is kept whoever waits."""
        if self.scenario.min_replicas:
            return
        for event in events:
            for action in event.plan.actions if isinstance(event, PlanCommitted) else ():
                if isinstance(action, Start) and action.pool in self.bereft:
                    self._break(f"{action.replica} was {action.why}, but nobody wants {action.pool} any more")

    def _world_holds(self) -> None:
        """Its invariants do, and lives only went forward."""
        for problem in check(self.reactor.world):
            self._break(problem)
        phases = {id: replica.phase for id, replica in self.reactor.world.replicas.items()}
        for id, phase in phases.items():
            before = self._phases.get(id, phase)
            if phase is not before and phase not in NEXT[before]:
                self._break(f"{id} was {before} and is {phase}")
        self._phases = phases

    def _nobody_waits_in_vain(self) -> None:
        """While there is room for another replica, or would be without what is idle, one is under way soon."""
        now, world, waiting = self.time.now(), self.reactor.world, {}
        going = {replica.node for replica in world.replicas.values() if replica.phase is Phase.DRAINING}
        for pool in dict.fromkeys(pool for gateway in self.gateways for pool, held in gateway.held.items() if held):
            workload, revision = world.workload(pool), world.revision(pool)
            if workload is None or revision is None or pool in world.failures:
                continue
            serving = [r for r in world.in_pool(pool) if r.role == "serving"]
            if len(serving) >= workload.scaling.max_replicas or any(r.phase is not Phase.READY for r in serving):
                continue
            if any(self._fits(revision.needs, engine) for name, engine in self.engines.items() if name not in going):
                waiting[pool] = self._waits.get(pool, now)
                if now - waiting[pool] > IN_VAIN_S:
                    self._break(f"{pool} waits, and for {IN_VAIN_S:g} s nothing was started though there is room")
        self._waits = waiting

    def _nobody_waits_beside_a_free_slot(self) -> None:
        """Once no message is under way. A gateway knows of others' inputs only what it was told."""
        for gateway in self.gateways if not self.flying else ():
            for pool, held in gateway.held.items():
                for endpoint in gateway.pools[pool].replicas if held and pool in gateway.pools else ():
                    slots = self._slots.get(endpoint.replica)
                    if self.listens(endpoint.replica) and (slots is None or slots.free > 0):
                        self._break(f"{len(held)} wait at {gateway.name} for {pool}, and {endpoint.replica} is free")

    def _fits(self, needs: Needs, engine: FakeEngine) -> bool:
        """Is there room on a node for another replica, beside what works, starts, or is in a minimum?"""
        if not engine.alive:
            return False
        room, idle = engine.node.room(), Counter[str]()
        wanted = {pool for gateway in self.gateways for pool, held in gateway.held.items() if held}
        for id, fake in engine.replicas.items():
            order, working = fake.order, self.works(id)
            if fake.phase is Phase.READY and not working and order.pool not in wanted:
                idle[order.pool] += order.role == "serving"
                if order.role == "template" or idle[order.pool] > self.scenario.min_replicas:
                    continue
            room.take(order.revision.needs if order.role == "serving" else template_needs(order.revision.needs))
        for replica in self.reactor.world.replicas.values():
            if replica.node == engine.node.id and replica.id not in engine.replicas:
                # Its order is on the way.
                room.take(self.reactor.world.needs(replica))
        return room.lacks(needs) is None

    # -- what comes from outside -------------------------------------------------------------

    def _deploy(self, number: int, generation: int) -> None:
        kept = self._versions.setdefault(number, {})
        latest = max(kept, default=0) + 1
        app = kept[latest] = numbered(self.scenario.app(number, generation), latest)
        kept.pop(latest - VERSIONS_KEPT, None)
        self._put(app)

    def _put(self, app: App) -> None:
        if self.scenario.rolls:
            app = follow(self.reactor.world, app)
        self.reactor.take(AppDeployed(at=self.time.now(), app=app))
        self._wake()

    def _ask_for_no_minimum(self) -> None:
        for app in list(self.reactor.world.apps.values()):
            changed = rescaled(app, app.workloads[0].name, Rescale(min_replicas=0))
            self.reactor.take(AppDeployed(self.time.now(), changed))
        self._wake()

    def _schedule_requests(self) -> None:
        scenario, chance = self.scenario, self.stream("demand")
        doors, callers = self.stream("doors"), self.stream("callers")
        for number in range(scenario.workloads):
            at = chance.expovariate(scenario.rate)
            while at < scenario.busy_s:
                request = Request(
                    number=len(self.requests),
                    workload=f"default/app{number}/f",
                    came_at=at,
                    until=at + scenario.deadline_s,
                    work_s=chance.expovariate(1 / scenario.work_s),
                    caller=callers.randbytes(8),
                )
                gateway = doors.choice(self.gateways)
                self.requests.append(request)
                self.time.at(at, lambda request=request, gateway=gateway: gateway.arrive(request))  # type: ignore[misc]
                # Bursts and silences: now and then nothing comes for longer than an idle time.
                at += chance.expovariate(scenario.rate) if chance.random() > 0.02 else chance.uniform(10, 60)

    def _schedule_faults(self) -> None:
        scenario = self.scenario
        for name, period_s, do in (
            ("replica crash", scenario.replica_crash_every_s, self._crash_replica),
            ("node loss", scenario.node_loss_every_s, self._lose_node),
            ("control crash", scenario.control_crash_every_s, self._crash_control),
            ("redeploy", scenario.redeploy_every_s, self._redeploy),
            ("split", scenario.split_every_s, self._split),
        ):
            chance = self.stream(name)
            at = chance.expovariate(1 / period_s) if period_s else scenario.busy_s
            while at < scenario.busy_s:
                self.time.at(at, lambda name=name, do=do, chance=chance: self._fault(name, do, chance))  # type: ignore[misc]
                at += chance.expovariate(1 / period_s)

    def _fault(self, name: str, do: object, chance: Random) -> None:
        assert callable(do)
        if do(chance):
            self.faults[name] = self.faults.get(name, 0) + 1

    def _crash_replica(self, chance: Random) -> bool:
        alive = sorted((id, node) for node, engine in self.engines.items() for id in engine.replicas)
        if alive:
            id, node = chance.choice(alive)
            self._died(id)
            self.engines[node].crash(id)
        return bool(alive)

    def _lose_node(self, chance: Random) -> bool:
        name = chance.choice(sorted(self.engines))
        engine = self.engines[name]
        if not engine.alive:
            return False
        for id in list(engine.replicas):
            self._died(id)
        engine.lose()
        self.time.after(15.0, lambda: self._node_lost(name))
        self.time.after(chance.uniform(1.0, 60.0), engine.come_back)
        return True

    def _node_lost(self, name: str) -> None:
        if not self.engines[name].alive:
            self.reactor.take(NodeSeen(self.time.now(), msgspec.structs.replace(self.engines[name].node, alive=False)))
            self._wake()

    def _crash_control(self, _chance: Random) -> bool:
        """A new incarnation: apps from disk, everything else from what runners and gateways say."""
        self.epoch += 1
        self.reactor = self._core(self.reactor.world.apps.values())
        self._phases.clear()
        for engine in self.engines.values():
            engine.report_node()
        # Gateways keep their last table until the new one is of what really runs.
        self._step(linked=False)
        for gateway in self.gateways:
            gateway.take_table(self.reactor.keeper.whole())
            gateway.tell_all()
        self._wake()
        return True

    def _redeploy(self, chance: Random) -> bool:
        self._deploy(chance.randrange(self.scenario.workloads), generation=self.time.done)
        return True

    def _split(self, chance: Random) -> bool:
        """Its traffic goes to several of its versions, in any parts."""
        number = chance.randrange(self.scenario.workloads)
        kept, live = self._versions[number], self.reactor.world.apps[f"default/app{number}"]
        several = sorted(chance.sample(sorted(kept), chance.randint(1, len(kept))))
        at = [0, *sorted(chance.sample(range(5, 100, 5), len(several) - 1)), 100]
        shares = tuple((version, float(at[i + 1] - at[i])) for i, version in enumerate(several))
        # As a split is asked for: what has the traffic, and beside it what is named.
        self._put(split(live, Traffic(shares), {version: kept[version] for version in several}))
        return len(several) > 1

    # -- promises ----------------------------------------------------------------------------

    def _expect_rest(self) -> None:
        slack_s = 1e-6 + self.scenario.hop_s
        for request in self.requests:
            held = request.came_at + self.scenario.hold_s
            begun = request.begun_at < math.inf
            latest = min(request.until, request.begun_at + self.scenario.timeout_s if begun else held)
            if not request.outcome:
                self._break(f"request {request.number} was never answered or refused")
            elif begun and request.begun_at > held + slack_s:
                self._break(f"request {request.number} was begun {request.begun_at - held:.3f} s late")
            elif request.ended_at > latest + slack_s:
                self._break(f"request {request.number} ended {request.ended_at - latest:.3f} s late")
            elif request.outcome != "answered" and self.scenario.calm:
                self._break(f"request {request.number} was not answered ({request.outcome}), and nothing went wrong")
        for problem in self.shares.wrong():
            self._break(problem)
        left = [id for engine in self.engines.values() for id in engine.replicas]
        if left:
            self._break(f"not back to zero: {sorted(left)[:5]} still run on an engine")
        if self.reactor.world.replicas:
            self._break(f"not back to zero: the world still has {sorted(self.reactor.world.replicas)[:5]}")
        for engine in self.engines.values():
            for id, reason in engine.cut.items():
                if reason in ORDERED:
                    self._break(f"{id} was cut ({reason}) while it worked")
            for id, times in engine.starts.items():
                if times > 1:
                    self._break(f"{id} was started {times} times")

    def _break(self, problem: str) -> None:
        self.broken.append(f"t={self.time.now():.3f}: {problem}")

    def _note(self, kind: str, what: object) -> None:
        self.hash.update(f"{self.time.now():.6f} {kind} ".encode())
        self.hash.update(msgspec.msgpack.encode(what))
