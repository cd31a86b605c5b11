"""What is under test? A whole cluster in one process: real planner and reactor, fake engines, gateways and clock.

Everything random comes from streams made of the seed, one per concern, so that the same seed gives the
same history (its hash says so) and a new kind of fault does not move the demand of old seeds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from swell.control.clock import SystemClock
from swell.control.demand import QUEUE
from swell.control.reactor import Effects, Reactor
from swell.control.versions import numbered
from swell.decide.roll import follow
from swell.engines.fake import FakeEngine
from swell.model.ends import end_told
from swell.model.events import AppDeployed, Event, GangBroken, GangGiven, NodeSeen, Opened, PlanCommitted, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import Inventory
from swell.model.ports import Fact
from swell.model.replica import OVER
from swell.model.request import Prices
from swell.model.workload import App, Revision
from swell.model.world import World
from swell.sim.clock import MachineClock, Timeline
from swell.sim.gateway import SimGateway
from swell.sim.gateway_links import GatewayLinks
from swell.sim.process import Process
from swell.sim.queue import Queue
from swell.sim.served import Doors, Request
from swell.sim.settings import VERSIONS_KEPT, Scenario
from swell.sim.shares import Shares
from swell.sim.slots import Slots
from swell.wire.link import Level, Route
from swell.wire.settings import Settings

HOME = "/sim"
"""Nothing is there: paths only name what is connected to."""
REACTION_S = 0.0005
"""From hearing something to the step that follows: what else is heard meanwhile is taken together."""


class WatchedEngine(FakeEngine):
    """One of which it is seen at once what becomes of replicas, whenever control hears of it."""

    seen: Callable[[ReplicaSeen], None] | None = None

    def _emit(self, fact: Fact) -> None:
        if self.seen is not None and isinstance(fact, ReplicaSeen):
            self.seen(fact)
        super()._emit(fact)


class System:
    """Control over engines, and gateways; nothing happens before `run()` lets it (`sim/cluster`)."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.seed = seed
        self.scenario = scenario
        self.time = Timeline()
        self.hash = hashlib.sha256()
        self.broken: list[str] = []
        self._problems: set[str] = set()
        self.faults: dict[str, int] = {}
        self.log: list[Event] = []
        self.happened = 0
        """What came, was said, ordered or decided; but for inventories, which come whether anything happens or not."""
        self.epoch = 1
        self.requests: list[Request] = []
        self._soon = False
        self._alarm_at = 0.0
        self.now, self.after = self.time.now, self.time.after
        self._wrong = self.stream("clocks")
        self.machine = MachineClock(self.time, self._wrong_by())
        """Where control and the gateways are."""
        self.clock = SystemClock(self.machine.now, self.time.now)
        """That of this incarnation of control."""
        self.settings = _settings(scenario)
        self.hop_s = scenario.hop_s
        self.bereft: set[str] = set()
        self.shares = Shares()
        self.refused = 0
        self.doors = Doors(self, self.stream("doors of replicas"))
        self.slots_of: dict[str, Slots[Request]] = {}
        self.hung_until: dict[str, float] = {}
        """Replicas that did nothing for a while, and until when."""
        self.versions: dict[int, dict[int, App]] = {}
        """Number of an app → its latest versions, as they were deployed."""
        names = [f"g{number}" for number in range(1, scenario.gateways + 1)]
        self.gateways = [SimGateway(name, self, self.stream(f"gateway {name}")) for name in names]
        self.engines = {f"n{i}": self._engine(f"n{i}") for i in range(1, scenario.nodes + 1)}
        self.reactor = self._core(())
        self.links = GatewayLinks(self, self.stream("gateway links"))
        self.queue = Queue(self, scenario.queue) if scenario.queue is not None else None
        for engine in self.engines.values():
            engine.seen = self._seen

    def stream(self, name: str) -> Random:
        """Chance for one concern, independent of all others."""
        return Random(f"{self.seed}/{name}")

    # -- parts -------------------------------------------------------------------------------

    def _engine(self, name: str) -> WatchedEngine:
        node = Node(name, self.scenario.node_cpu, self.scenario.node_memory_mib, gpus=self.scenario.gpus)
        engine = WatchedEngine(
            node,
            MachineClock(self.time, self._wrong_by()).now,
            self.time.after,
            self.stream(f"engine {name}"),
            self.scenario.behaviour,
            self.works,
        )
        engine.listen(self._fact)
        self.every(5.0, engine.report_inventory)
        return engine

    def _wrong_by(self) -> float:
        return self._wrong.uniform(-1.0, 1.0) * self.scenario.skew_s

    def _core(self, apps: Iterable[App], revisions: tuple[Revision, ...] = ()) -> Reactor:
        reactor = Reactor(World(), self.scenario.policy, Prices())
        reactor.take(Opened(self.clock.now(), self.epoch, tuple(apps), self.scenario.policy, revisions))
        return reactor

    def every(self, period_s: float, do: object) -> None:
        assert callable(do)

        def again() -> None:
            do()
            self.time.after(period_s, again)

        self.time.after(period_s, again)

    # -- control -----------------------------------------------------------------------------

    def _fact(self, fact: Fact) -> None:
        self.note("fact", fact)
        if isinstance(fact, ReplicaSeen) and fact.phase in OVER:
            self.links.tell_end(fact.replica, end_told(fact.reason, fact.detail))
        if self.reaches(fact.node.id if isinstance(fact, NodeSeen) else fact.node):
            self.reactor.fact(fact, self.clock.now())
            self.wake()

    def reaches(self, node: str) -> bool:
        """Does anything come through between control and the runner of that node?"""
        return self.queue is None or not self.queue.runners[node].link.silent

    # -- what gateways share -----------------------------------------------------------------

    def listens(self, replica: str) -> bool:
        return any(engine.listens(replica) for engine in self.engines.values())

    def slots(self, replica: str, limit: int) -> Slots[Request]:
        return self.slots_of.setdefault(replica, Slots(limit))

    def max_inputs(self, replica: str) -> int:
        """Of one that is there."""
        orders = [engine.replicas[replica].order for engine in self.engines.values() if replica in engine.replicas]
        return orders[0].revision.max_inputs

    def hangs(self, replica: str) -> bool:
        """Does it do nothing now, neither begin nor end anything?"""
        return self.hung_until.get(replica, 0.0) > self.time.now()

    def once_awake(self, replica: str, do: Callable[[], None]) -> None:
        """What a replica does: once it hangs no more."""
        if self.hangs(replica):
            self.time.at(self.hung_until[replica], do)
        else:
            do()

    def works(self, replica: str) -> bool:
        """Has it something in flight?"""
        return replica in self.slots_of and bool(self.slots_of[replica].running)

    def went(self, route: Route, pool: str) -> None:
        self.shares.count(route, pool)

    def _seen(self, seen: ReplicaSeen) -> None:
        """A replica is otherwise than it was, whoever is told."""
        if seen.phase in OVER:
            self.died(seen.replica)
        if self.queue is not None:
            self.queue.seen(seen)

    def died(self, replica: str) -> None:
        """Connections to it break. Pools that nobody wants any more for that are bereft."""
        slots = self.slots_of.get(replica)
        # Those of gateways: queued calls are tried again.
        running = [request for request in slots.running if request.number >= 0] if slots is not None else []
        self.doors.died(replica)
        self.slots_of.pop(replica, None)
        pools = {request.pool for request in running}
        self.bereft.update(pool for pool in pools if not any(gateway.wants(pool) for gateway in self.gateways))

    def to_control(self, gateway: SimGateway, process: Process, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        return self.links.connect(gateway, process, protocol)

    def demand(self, gateway: str, levels: list[Level], ttl_s: float) -> None:
        self.happened += gateway != QUEUE
        self.reactor.demand(gateway, levels, ttl_s, self.clock.now())
        if self.queue is not None and gateway != QUEUE:
            self.queue.changed([level.pool for level in levels])
        self.wake()

    def left(self, gateway: str) -> None:
        """Control lost it."""
        pools = self.reactor.book.pools()
        self.reactor.gateway_left(gateway, self.clock.now())
        if self.queue is not None:
            self.queue.changed(pools)
        self.wake()

    def wake(self) -> None:
        if not self._soon:
            self._soon = True
            self.time.after(REACTION_S, self._step)

    def _wake_at(self, at: float) -> None:
        """By control's clock. One alarm at a time: an earlier one that is no longer meant rings in vain."""
        if at != self._alarm_at:
            self._alarm_at = at
            self.after(at - self.clock.now(), lambda: self._rang(at))

    def _rang(self, at: float) -> None:
        """Too early perhaps, where the clock was set: then another is wanted."""
        if self._alarm_at == at:
            self._alarm_at = 0.0
            self.wake()

    def restart(self) -> None:
        """A new incarnation of control: apps from disk, everything else from what runners and gateways say."""
        self.epoch += 1
        if self.queue is not None:
            self.queue.kill()
        self.machine.wrong_s = self._wrong_by()
        self.clock = SystemClock(self.machine.now, self.time.now)
        self._alarm_at = 0.0
        world = self.reactor.world
        self.reactor = self._core(world.apps.values(), self.queue.at_work(world) if self.queue is not None else ())
        self.restarted()
        # Gateways keep their last table until the new one is of what really runs.
        self.links.begin(self.epoch)
        for engine in self.engines.values():
            engine.report_node()
        self._step()
        self.links.open()
        if self.queue is not None:
            self.queue.restart()
        self.wake()

    def decided(self, effects: Effects) -> None:
        """Who watches looks at what was decided, before anything of it is done."""

    def told(self) -> None:
        """And once gateways were told."""

    def restarted(self) -> None:
        """A new incarnation of control is there, which knows nothing yet."""

    def _step(self) -> None:
        self._soon = False
        reactor, now = self.reactor, self.clock.now()
        effects = reactor.step(now)
        for event in effects.events:
            self.note("event", event)
            self.log.append(event)
        self.decided(effects)
        for order in effects.orders:
            self.note("order", order)
            if self.reaches(order.node):
                self.engines[order.node].apply(order, self.epoch)
        if effects.delta is not None:
            self.links.publish(msgspec.structs.replace(effects.delta, at=now))
        self.told()
        if self.queue is not None:
            self.queue.stepped(effects)
        moved = sum(len(event.plan.moves) for event in effects.events if isinstance(event, PlanCommitted))
        self.count("roll", moved)
        if effects.wake_at is not None:
            self._wake_at(max(effects.wake_at, now + REACTION_S))

    # -- what comes from outside -------------------------------------------------------------

    def deploy(self, number: int, generation: int) -> None:
        kept = self.versions.setdefault(number, {})
        latest = max(kept, default=0) + 1
        app = kept[latest] = numbered(self.scenario.app(number, generation), latest)
        kept.pop(latest - VERSIONS_KEPT, None)
        self.put(app)

    def put(self, app: App) -> None:
        if self.scenario.rolls:
            app = follow(self.reactor.world, app)
        self.reactor.take(AppDeployed(at=self.clock.now(), app=app))
        self.wake()

    # -- what is told of it ------------------------------------------------------------------

    def count(self, what: str, times: int = 1) -> None:
        """Of what goes wrong, or rarely."""
        if times:
            self.faults[what] = self.faults.get(what, 0) + times

    def kill_replica(self, replica: str) -> None:
        """It dies, wherever it is."""
        for engine in self.engines.values():
            if replica in engine.replicas:
                self.died(replica)
                engine.crash(replica, "oom_killed")

    def lose_node(self, node: str) -> None:
        """Control takes it for dead: it was away for too long."""
        self.reactor.take(NodeSeen(self.clock.now(), msgspec.structs.replace(self.engines[node].node, alive=False)))
        self.wake()

    def break_gang(self, gang: str, why: str) -> None:
        """The queue has no use for what is left of it."""
        self.count("gang broken")
        self.reactor.take(GangBroken(self.clock.now(), gang, why))
        self.wake()

    def give_gang(self, gang: str, priority: int) -> None:
        """The queue handed it a call of that priority."""
        self.reactor.take(GangGiven(self.clock.now(), gang, priority))
        self.wake()

    def queued(self, pool: str) -> bool:
        """Does the queue want replicas of it?"""
        return self.queue is not None and self.queue.wants(pool)

    def broke(self, problem: str) -> None:
        """A promise. What stays broken is told once."""
        if problem not in self._problems:
            self._problems.add(problem)
            self.broken.append(f"t={self.time.now():.3f}: {problem}")

    def note(self, kind: str, what: object) -> None:
        self.happened += not isinstance(what, Inventory)
        self.hash.update(f"{self.time.now():.6f} {kind} ".encode())
        self.hash.update(msgspec.msgpack.encode(what))


def _settings(drawn: Scenario) -> Settings:
    """Of its gateways."""
    return Settings(
        home=HOME,
        gateways=drawn.gateways,
        hold_s=drawn.hold_s,
        hold_max=drawn.hold_max,
        hold_bytes_max=drawn.hold_bytes_max,
    )
