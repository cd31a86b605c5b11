"""What follows from what was heard? The loop's whole step without I/O: observe, plan, check, commit, drive.

Facts and demand go in, effects come out: orders, a table delta, events to log, and when to wake. The live
loop and the simulator run this same object, with a real and a fake world around it.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Sequence

import msgspec

from swell.control.demand import DemandBook
from swell.control.table import TableKeeper
from swell.decide.check import would_break
from swell.decide.drive import drive, order_for
from swell.decide.plan import plan
from swell.decide.spare import spare
from swell.decide.warm import unforkable
from swell.model.demand import IDLE
from swell.model.events import Event, GpusHeld, NodeSeen, PlanCommitted, ReplicaAdopted, ReplicaSeen
from swell.model.orders import Inventory, Order
from swell.model.plan import Plan
from swell.model.policy import Policy
from swell.model.ports import Fact
from swell.model.replica import OVER, Phase
from swell.model.request import Prices
from swell.model.world import World
from swell.wire.link import Level, TableDelta

log = logging.getLogger("swell.control")

REFUSED_AGAIN_S = 1.0
"""A plan that must not be committed is made anew after this long."""
NOT_THERE = "nothing of that name is deployed"
"""Why there is no replica of it."""
AGENDA_MIN = 16
"""A shorter agenda is not worth tidying."""


class Effects(msgspec.Struct, frozen=True):
    """What the shell is to do after a step."""

    orders: tuple[Order, ...]
    delta: TableDelta | None
    events: tuple[Event, ...]
    """To append to the world log."""
    plan: Plan
    wake_at: float | None
    """Step again by then even if nothing is heard."""
    refused: tuple[str, ...] = ()
    """Why the plan was not committed: a defect of the planner. The old state stands."""


class Reactor:
    """The planner's state between steps: the live world, demand, and which pools are due when."""

    def __init__(self, world: World, policy: Policy, prices: Prices) -> None:
        self.world = world
        self.policy = policy
        self.book = DemandBook()
        self.keeper = TableKeeper(world, policy, prices)
        self.waiting: dict[str, str] = {}
        """Pool → why it waits for room or for another try."""
        self._arriving: dict[str, NodeSeen] = {}
        """Nodes heard of whose inventory was not: what runs there would be started a second time."""
        self._due: dict[str, None] = {}
        self._stale: dict[str, None] = {}
        self._agenda: list[tuple[float, str]] = []
        self._look_at: dict[str, float] = {}
        self._events: list[Event] = []
        self._orders: list[Order] = []

    # -- hearing -----------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """A fact that is not an inventory: the world changes, and the pools it touches are due."""
        if isinstance(event, ReplicaSeen) and not self._news(event):
            return
        self._events.append(event)
        touched = self.world.apply(event)
        self._due.update(dict.fromkeys(touched))
        self._changed(touched)
        if not isinstance(event, ReplicaSeen) or event.phase in (Phase.READY, *OVER):
            self._room_may_come()

    def fact(self, fact: Fact, now: float) -> None:
        """Anything an engine says. When that was it says by another clock than ours: it counts as of `now`."""
        fact = msgspec.structs.replace(fact, at=now)
        if isinstance(fact, NodeSeen) and fact.node.alive and not self._alive(fact.node.id):
            self._arriving[fact.node.id] = fact
            return
        if not isinstance(fact, Inventory):
            self.take(fact)
            return
        arrived = self._arriving.pop(fact.node, None)
        if arrived is not None:
            self.take(arrived)
        for seen in fact.replicas:
            if seen.replica in self.world.replicas:
                if self._news(seen):
                    self.take(msgspec.structs.replace(seen, at=now))
            elif self.world.adoptable(seen):
                self.take(ReplicaAdopted(at=now, seen=msgspec.structs.replace(seen, at=now)))
        self._strangers(fact, now)
        owed = drive(self.world, fact, self.policy)
        for seen in owed.lost:
            self.take(seen)
        self._orders += owed.orders

    def _strangers(self, inventory: Inventory, now: float) -> None:
        """What nobody's replicas have of GPUs stays theirs until they are gone."""
        strangers = (seen for seen in inventory.replicas if seen.replica not in self.world.replicas)
        gpus = tuple(sorted({gpu for seen in strangers for gpu in seen.gpus}))
        if inventory.node in self.world.rooms and gpus != self.world.rooms.gpus_of_strangers(inventory.node):
            self.take(GpusHeld(now, inventory.node, gpus))

    def demand(self, gateway: str, levels: Sequence[Level], ttl_s: float, now: float) -> None:
        self._told(self.book.report(gateway, levels, ttl_s, now))

    def gateway_left(self, gateway: str, now: float) -> None:
        self._told(self.book.drop(gateway, now))

    def _changed(self, pools: Iterable[str]) -> None:
        """Mark pools whose replicas changed. A running pool without reports has demand zero."""
        for pool in pools:
            self._stale[pool] = None
            if pool in self.world.by_pool:
                self.book.demand.setdefault(pool, IDLE)

    def _told(self, pools: Sequence[str]) -> None:
        """The levels of these pools are others."""
        self._due.update(dict.fromkeys(pools))
        levels = self.book.demand
        if self.waiting and any(any(spare(self.world, pool, levels.get(pool, IDLE))) for pool in pools):
            self._room_may_come()

    def _room_may_come(self) -> None:
        """Somebody left, or has some to spare: whoever waits for room is looked at again."""
        self._due.update(dict.fromkeys(self.waiting))

    def unforkable(self, pool: str) -> str:
        """Why replicas of a pool are not forked, in words; empty when they may be, or the pool is not known."""
        revision = self.world.revision(pool)
        return unforkable(revision, self.world.refused.get(pool, "")) if revision is not None else ""

    def waits(self, workload: str) -> str:
        """Why there are no more replicas of what serves a workload, where it wants some, or is not there; else
        empty."""
        serving = self.world.serving(workload)
        return self.waiting.get(serving.pool, "") if serving is not None else NOT_THERE

    # -- deciding ----------------------------------------------------------------------------

    def step(self, now: float) -> Effects:
        """Decide about every pool that is due, and say what is to be done."""
        self._told(self.book.expire(now))
        self._pop_agenda(now)
        pools = tuple(dict.fromkeys((*self._waiting_with_gangs(), *self._due))) if self._due else ()
        decided = plan(self.world, self.book.demand, now, pools, self.policy)
        broken = would_break(self.world, decided)
        if broken:
            again = tuple((pool, now + REFUSED_AGAIN_S) for pool in pools)
            decided = msgspec.structs.replace(decided, actions=(), moves=(), look_again=again)
        elif decided.actions or decided.moves:
            self._commit(decided, now)
        # Only now: had planning failed, the same pools would be due at the next try.
        for pool in pools:
            self._due.pop(pool, None)
        self._remember(decided)
        self._stale.update(dict.fromkeys(pools))
        delta = self.keeper.refresh(self._stale)
        for pool in self._stale:
            if pool not in self.keeper.pools:
                self.book.forget(pool)
        self._stale.clear()
        effects = Effects(tuple(self._orders), delta, tuple(self._events), decided, self._wake_at(), tuple(broken))
        self._orders.clear()
        self._events.clear()
        return effects

    def _waiting_with_gangs(self) -> list[str]:
        """All that waits, where a gang does: what comes free for that must not be given away while nobody looks, and
        what it keeps from others is theirs once it wants it no more."""
        revisions = (self.world.revision(pool) for pool in self.waiting)
        return list(self.waiting) if any(each is not None and each.gang is not None for each in revisions) else []

    def _commit(self, decided: Plan, now: float) -> None:
        world = self.world
        event = PlanCommitted(at=now, plan=decided)
        self._changed(world.apply(event))
        self._events.append(event)
        for action in decided.actions:
            replica = world.replicas.get(action.replica)
            order = order_for(world, replica, self.policy) if replica is not None else None
            if order is not None:
                self._orders.append(order)

    def _remember(self, decided: Plan) -> None:
        for pool in decided.pools:
            self.waiting.pop(pool, None)
            self._look_at.pop(pool, None)
        for wait in decided.waits:
            self.waiting[wait.pool] = wait.why_not
        for pool, at in decided.look_again:
            self._look_at[pool] = at
            heapq.heappush(self._agenda, (at, pool))
        if len(self._agenda) > 2 * len(self._look_at) + AGENDA_MIN:
            # Most of it is of times that no longer hold.
            self._agenda = [(at, pool) for pool, at in self._look_at.items()]
            heapq.heapify(self._agenda)

    def _pop_agenda(self, now: float) -> None:
        while self._agenda and self._agenda[0][0] <= now:
            at, pool = heapq.heappop(self._agenda)
            if self._look_at.get(pool) == at:
                self._due[pool] = None

    def _wake_at(self) -> float | None:
        while self._agenda and self._look_at.get(self._agenda[0][1]) != self._agenda[0][0]:
            heapq.heappop(self._agenda)
        moments = [at for at in (self.book.next_expiry(), self._agenda[0][0] if self._agenda else None) if at]
        return min(moments, default=None)

    def _alive(self, node: str) -> bool:
        known = self.world.nodes.get(node)
        return known is not None and known.alive

    def _news(self, seen: ReplicaSeen) -> bool:
        """Inventories repeat what is known; only what changes something is an event."""
        before = self.world.replicas.get(seen.replica)
        if before is None:
            return False
        if seen.phase is not before.phase:
            return before.may_become(seen.phase)
        return bool(
            (seen.address and seen.address != before.address)
            or (seen.meeting and seen.meeting != before.meeting)
            or (seen.pid and seen.pid != before.pid)
            or (seen.fork_refused and seen.fork_refused != before.fork_refused)
            or abs(seen.rss_mib - before.rss_mib) > max(8.0, before.rss_mib * 0.1)
        )
