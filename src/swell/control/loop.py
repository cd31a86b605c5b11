"""Who turns the reactor's answers into deeds? The live loop: one step for everything heard at once.

A thin shell: it reads the clock, runs `Reactor.step`, and hands orders to the engine, rows to the gateways
and events to the store. It waits for none of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from swell.control.demand import QUEUE
from swell.control.history import History
from swell.control.link import ControlLink
from swell.control.reactor import Effects, Reactor
from swell.control.tallies import Tallies
from swell.control.variants import Variants
from swell.control.why import at_most, complete, held_ms, traffic_now
from swell.model.ends import end_told
from swell.model.events import (
    AppDeployed,
    AppStopped,
    Event,
    GangBroken,
    GangGiven,
    NodeSeen,
    PlanCommitted,
    ReplicaSeen,
)
from swell.model.key import ApiKey
from swell.model.metrics import ROWS_DROPPED, WAITING, WRITE_SECONDS, Labels, Sample
from swell.model.orders import Inventory
from swell.model.ports import Clock, Engine, Fact, Store
from swell.model.replica import OVER
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.variant import Value
from swell.model.workload import Revision, Variant
from swell.wire.link import Level, Table, TableDelta
from swell.wire.process import process_samples

log = logging.getLogger("swell.control")

NODE_LEASE_S = 15.0
"""A node whose runner is not heard for this long is taken as dead. Longer than a runner's restart."""


class Queue(Protocol):
    """The durable queue, which hands calls out as replicas have room."""

    def changed(self, pools: Iterable[str], workloads: Iterable[str] = ()) -> None:
        """Replicas of these pools, their loads, or the routes of these workloads are not as they were."""
        ...

    def gone(self) -> None:
        """Some replicas are."""
        ...

    def metrics(self) -> Iterable[Sample]: ...


class Triggers(Protocol):
    """What calls functions of apps by itself."""

    def changed(self, app: str, at: float) -> None:
        """The app of that key was deployed or stopped, or another version of it has the traffic."""
        ...

    def metrics(self, labels: Callable[[str], Labels]) -> Iterable[Sample]:
        """`labels`: those of a workload, by its key."""
        ...


class Loop:
    """The control loop over one engine and one store; also what the control link reports to."""

    def __init__(
        self,
        reactor: Reactor,
        engine: Engine,
        store: Store,
        clock: Clock,
        epoch: int,
        workloads_max: int = 1000,
        variants_max: int = 100,
        variant_idle_s: float = 3600.0,
    ) -> None:
        """`workloads_max`: of so many at most is told what was counted, one by one. Variants: of each workload so many
        at most, and how long one stays that nobody uses."""
        self.reactor = reactor
        self.engine = engine
        self.store = store
        self.clock = clock
        self.epoch = epoch
        self.history = History()
        self.tallies = Tallies(reactor.keeper.prices, workloads_max)
        self.heard = asyncio.Event()
        """A node said what it has. Before that nothing is known of replicas, and none that is known means nothing."""
        self.link: ControlLink | None = None
        self.queue: Queue | None = None
        self.triggers: Triggers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._soon = False
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self.variants = Variants(reactor.world, self.take, reactor.book.demand, clock, variants_max, variant_idle_s)
        engine.listen(self._fact)

    def tell_key(self, key: ApiKey) -> None:
        """Let the gateways know of an API key that is new, or is not as it was."""
        delta = self.reactor.keeper.put_key(key)
        if self.link is not None:
            self.link.publish(delta)

    # -- what the link hears -----------------------------------------------------------------

    def table(self) -> Table:
        return msgspec.structs.replace(self.reactor.keeper.whole(), at=self.clock.now())

    def heard_demand(self, gateway: str, levels: Sequence[Level], ttl_s: float) -> None:
        self.reactor.demand(gateway, levels, ttl_s, self.clock.now())
        pools = [level.pool for level in levels]
        if self.link is not None:
            self.link.loads.changed(pools, alone=gateway == QUEUE)
        if self.queue is not None and gateway != QUEUE:
            self.queue.changed(pools)
        self.wake()

    def heard_variant_wanted(self, workload: str, parameters: tuple[Value, ...], by: str) -> None:
        self.variants.want(workload, Variant(parameters), by)

    def break_gang(self, gang: str, why: str) -> None:
        """What is left of it is of no use."""
        self.reactor.take(GangBroken(self.clock.now(), gang, why))
        self.wake()

    def give_gang(self, gang: str, priority: int) -> None:
        """It works on a call of that priority."""
        self.reactor.take(GangGiven(self.clock.now(), gang, priority))
        self.wake()

    def heard_nothing_new(self, gateway: str, levels: int) -> bool:
        self.reactor.book.renew(gateway, self.clock.now())
        return self.reactor.book.knows(gateway, levels)

    def elsewhere(self, pool: str, gateway: str) -> tuple[tuple[str, int], ...]:
        return self.reactor.book.elsewhere(pool, gateway)

    def loaded(self) -> Collection[str]:
        return self.reactor.book.pools()

    def count_gateways(self, connected: int) -> TableDelta | None:
        return self.reactor.keeper.count(connected)

    def gateway_left(self, gateway: str) -> None:
        pools = self.reactor.book.pools()
        self.reactor.gateway_left(gateway, self.clock.now())
        if self.link is not None:
            self.link.loads.changed(pools, alone=True)
        if self.queue is not None:
            self.queue.changed(pools)
        self.wake()

    def heard_requests(
        self, records: Sequence[RequestRecord], counts: Sequence[PoolCount], by_key: Sequence[KeyCount] = ()
    ) -> None:
        if records:
            self.store.usage.add_requests([self._completed(record) for record in records])
        if counts:
            self.tallies.counted(counts)
            self.store.usage.add_counts(counts)
        if by_key:
            self.store.usage.add_key_counts(by_key)

    def _completed(self, record: RequestRecord) -> RequestRecord:
        """With what is known now of its replica, or of why it had none: both are forgotten sooner than the record."""
        world = self.reactor.world
        # Which looks at each replica of the pool: not for those, nearly all, that were served at once.
        at_once = record.replica and not held_ms(record)
        return complete(
            record,
            self.history.get(record.replica),
            unforkable=self.reactor.unforkable(record.pool),
            failures=world.failures.get(record.pool),
            waiting=self.reactor.waiting.get(record.pool, ""),
            full="" if at_once else at_most(world, record.pool),
            siblings=filter(None, (self.history.get(one.id) for one in world.in_pool(record.pool))),
            now=traffic_now(world, record.pool),
        )

    def heard_usage(self, rows: Sequence[Usage]) -> None:
        if rows:
            self.tallies.used(rows)
            self.store.usage.add_usage(rows)

    def runner_left(self, node: str) -> None:
        loop = asyncio.get_running_loop()
        self._leases[node] = loop.call_later(NODE_LEASE_S, self._lease_over, node)

    def metrics(self) -> tuple[Sample, ...]:
        return (
            *self.tallies.samples(self.reactor.world),
            Sample(WAITING, (), len(self.reactor.waiting)),
            *(self.queue.metrics() if self.queue is not None else ()),
            *(self.triggers.metrics(self.tallies.of_workloads.labels) if self.triggers is not None else ()),
            self.store.write_seconds.sample(WRITE_SECONDS),
            Sample(ROWS_DROPPED, (), self.store.rows_dropped),
            *process_samples("control"),
        )

    def nodes(self) -> Collection[str]:
        return self.reactor.world.nodes

    def wanted(self) -> Iterable[Revision]:
        return self.reactor.world.revisions.values()

    def _lease_over(self, node: str) -> None:
        known = self.reactor.world.nodes.get(node)
        if known is not None and known.alive:
            log.error("node %s was not heard for %g s; its replicas count as lost", node, NODE_LEASE_S)
            self.take(NodeSeen(at=self.clock.now(), node=msgspec.structs.replace(known, alive=False)))

    # -- facts -------------------------------------------------------------------------------

    def _fact(self, fact: Fact) -> None:
        """The engine said something."""
        if isinstance(fact, NodeSeen):
            lease = self._leases.pop(fact.node.id, None)
            if lease is not None:
                lease.cancel()
        for seen in (fact,) if isinstance(fact, ReplicaSeen) else fact.replicas if isinstance(fact, Inventory) else ():
            self.tallies.seen(seen, self.history.get(seen.replica))
            self.history.seen(seen)
        if isinstance(fact, ReplicaSeen) and fact.phase in OVER and self.link is not None:
            self.link.tell_end(fact.replica, end_told(fact.reason, fact.detail))
        self.reactor.fact(fact, self.clock.now())
        if isinstance(fact, Inventory):
            self.heard.set()
        self.wake()

    def take(self, event: Event) -> None:
        """A fact from within control: a deploy, a stop. What follows from it is done, and in the log, on return."""
        self.reactor.take(event)
        self._step()
        if self.triggers is not None and isinstance(event, AppDeployed | AppStopped):
            app = event.app.key if isinstance(event, AppDeployed) else f"{event.namespace}/{event.name}"
            self.triggers.changed(app, event.at)

    # -- stepping ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Step as soon as what is being heard now has been taken in."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._soon = False
        began = time.perf_counter()
        try:
            effects = self.reactor.step(self.clock.now())
        except Exception:
            log.exception("a step of the control loop failed; it is tried again in a second")
            self._wake_at(self.clock.now() + 1.0)
            return
        self.tallies.stepped(time.perf_counter() - began, len(effects.plan.pools), refused=bool(effects.refused))
        for problem in effects.refused:
            log.error("a plan is not committed: %s", problem)
        # The order of these three is the order of urgency on the path of a wake.
        for order in effects.orders:
            self.engine.apply(order, self.epoch)
        if effects.delta is not None and self.link is not None:
            self.link.publish(msgspec.structs.replace(effects.delta, at=self.clock.now()))
        if self.link is not None and self.engine.inventory() is not None:
            self.link.open()
        self._tell_queue(effects)
        self.history.planned(effects.plan)
        for action in effects.plan.actions:
            log.info("%s", action)
        if effects.events:
            self.store.world.append(effects.events)
            self._tell_triggers(effects.events)
        if effects.wake_at is not None:
            self._wake_at(effects.wake_at)

    def _tell_queue(self, effects: Effects) -> None:
        """There may be room for queued calls, or some were lost."""
        delta = effects.delta
        if self.queue is None:
            return
        if delta is not None:
            pools = (*(row.pool for row in delta.pools), *delta.gone_pools)
            self.queue.changed(pools, (*(route.key for route in delta.routes), *delta.gone_routes))
        if any(map(_ends_some, effects.events)):
            self.queue.gone()

    def _tell_triggers(self, events: Iterable[Event]) -> None:
        """Where a version took over, the schedules are its own from now on."""
        if self.triggers is None:
            return
        for event in events:
            for workload in event.plan.moves if isinstance(event, PlanCommitted) else ():
                self.triggers.changed(workload.rpartition("/")[0], event.at)

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        delay_s = max(at - self.clock.now(), 0.001)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._rang)

    def _rang(self) -> None:
        """The timer is no longer one: by the clock it may have rung a little early, and then another is wanted."""
        self._timer = None
        self.wake()


def _ends_some(event: Event) -> bool:
    """Are replicas gone by it?"""
    if isinstance(event, NodeSeen):
        return not event.node.alive
    return isinstance(event, ReplicaSeen) and event.phase in OVER
