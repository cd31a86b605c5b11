"""How would requests fare? A gateway of values: routes, holds, picks, believes, asks and reports demand.

It follows the same table the real gateway is sent, and keeps the same promises: a request is answered
or refused in time, and no replica is given more than its `max_inputs`. Time to wait is `hold_s`, time to be worked on
the pool's timeout, and both together its caller's own deadline. Where there are several of them, or messages take a
while, one knows of a replica only what it was told: what is true is with the replica (`sim/slots`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from swell.decide.admit import admit
from swell.decide.pick import pick
from swell.decide.room import Room, Told, ended, given, likeliest, refused, unknown
from swell.decide.route import found_in
from swell.decide.split import choose
from swell.sim.slots import Slots, Ticket
from swell.wire.link import DemandReport, Level, PoolRow, Route, Table, TableDelta

DEMAND_TTL_S = 5.0
HOLD_MAX = 1000
"""Requests that may wait for a pool's replicas."""
FORGET_S = 0.05
"""That a replica is full is believed for this long, where it is not asked."""
ASK_S = 5.0
"""Who asks for a slot waits for it so long."""


class Request(msgspec.Struct, eq=False):
    """One simulated request."""

    number: int
    workload: str
    came_at: float
    until: float
    """Its caller's own deadline."""
    work_s: float
    caller: bytes = b""
    """What decides to which of several versions it goes."""
    outcome: str = ""
    """"answered", "refused", "held" (too long), "deadline", or "lost" with its gateway; empty while it is under way."""
    begun_at: float = math.inf
    """When a replica had a slot for it; what comes back from a full one was not begun."""
    ended_at: float = 0.0
    pool: str = ""
    replica: str = ""


class Belief(msgspec.Struct, eq=False):
    """What one gateway believes of one replica."""

    id: str
    room: Room
    in_flight: int = 0
    elsewhere: int = 0
    asked: bool = False
    ages: bool = False
    listed: bool = True

    @property
    def load(self) -> int:
        return self.in_flight

    @property
    def doubted(self) -> bool:
        return self.room.limit < self.room.slots


class Surroundings(Protocol):
    """What gateways share."""

    hold_s: float
    report_s: float
    """What changes is told together within this time, but that somebody waits at once."""
    bereft: set[str]
    """Pools whose last requests ended with their replica: nobody wants them any more."""

    def now(self) -> float: ...
    def after(self, delay_s: float, do: Callable[[], None]) -> None: ...
    def hop(self, chance: Random, do: Callable[[], None]) -> None:
        """A message between gateway and replica: what is done when it arrives."""
        ...

    def slots(self, replica: str, limit: int) -> Slots[Request]: ...
    def listens(self, replica: str) -> bool:
        """Does it take connections, whatever the table says?"""
        ...

    def once_awake(self, replica: str, do: Callable[[], None]) -> None:
        """What a replica does: once it hangs no more."""
        ...

    def went(self, route: Route, pool: str) -> None:
        """A request of a workload went to that of its versions."""
        ...

    def tell(self, gateway: SimGateway, report: DemandReport) -> None:
        """To control, where it is there."""
        ...

    def broke(self, problem: str) -> None: ...


class SimGateway:
    """One gateway."""

    def __init__(self, name: str, around: Surroundings, chance: Random) -> None:
        self.name = name
        """Another one for each process of it."""
        self.around = around
        self.now, self.after = around.now, around.after
        self.chance = chance
        self.routes: dict[str, Route] = {}
        self.pools: dict[str, PoolRow] = {}
        self.beliefs: dict[str, dict[str, Belief]] = {}
        """Pool → replica → what is believed of it."""
        self.held: dict[str, deque[Request]] = {}
        self.sent: dict[str, dict[Request, Belief]] = {}
        """Pool → requests that are at a replica, on their way there, or on their way back."""
        self.finished: list[Request] = []
        self.refused = 0
        """How often one of ours came to a replica that was full."""
        self.down = False
        self._begun = 1
        self._version: int | None = None
        """Of the table; None: nothing was heard of control yet."""
        self._control_ahead_s = 0.0
        """What control's clock said more than ours, when it told that last."""
        self._early: list[Request] = []
        """Those that came before there was a table."""
        self._told: dict[str, tuple[int, int]] = {}
        """Levels as control knows them, where they are not zero."""
        self._peaks: dict[str, int] = {}
        """Pool → most in flight since it was told last."""
        self._telling: set[str] = set()
        """Pools that are told soon."""

    # -- the table ---------------------------------------------------------------------------

    def take_table(self, table: Table | TableDelta) -> bool:
        """False where it is a change of another one than is here."""
        if isinstance(table, Table):
            self.routes.clear()
            self.pools.clear()
        else:
            if table.base != self._version:
                return False
            for key in table.gone_routes:
                self.routes.pop(key, None)
            for pool in table.gone_pools:
                self.pools.pop(pool, None)
        self._version = table.version
        if table.at:
            self._control_ahead_s = table.at - self.now()
        self.routes.update({row.key: row for row in table.routes})
        self.pools.update({row.pool: row for row in table.pools})
        for pool in [*self.beliefs]:
            if pool not in self.pools:
                self._believe_in(pool, ())
        for row in self.pools.values():
            self._believe_in(row.pool, [each.replica for each in row.replicas], row.max_inputs)
        for pool in [*self.held]:
            self._dispatch(pool)
        early, self._early = self._early, []
        for request in early:
            self.arrive(request)
        return True

    def _believe_in(self, pool: str, replicas: list[str] | tuple[()], slots: int = 0) -> None:
        known = self.beliefs.setdefault(pool, {})
        for id in known.keys() - set(replicas):
            known.pop(id).listed = False
        for id in replicas:
            known.setdefault(id, Belief(id, unknown(slots)))
        if not replicas and pool not in self.pools:
            del self.beliefs[pool]

    # -- requests ----------------------------------------------------------------------------

    def arrive(self, request: Request) -> None:
        if self._version is None:
            self._early.append(request)
            return
        pool = self._choose(request)
        if pool is None:
            self._finish(request, "refused")
            return
        request.pool = pool
        row, waiting = self.pools.get(pool), self.held.setdefault(pool, deque())
        if row is not None and not self._fit(row) and self._refuses(row, len(waiting)):
            self._finish(request, "refused")
            return
        self.around.bereft.discard(pool)
        waiting.append(request)
        self._wait_at_most(request)
        if request.until < math.inf:
            self.after(request.until - self.now(), lambda: self._late(request))
        self._dispatch(pool)
        if self.held[pool]:
            self._tell(pool)

    def _choose(self, request: Request) -> str | None:
        """The pool that it is for: of the workload's only revision, or of one of those that share its requests."""
        route = self.routes.get(request.workload)
        if route is None:
            return None
        found = found_in(route, route.methods[0])
        pool = choose(found.choices, request.caller, lambda _name: None).pool if found.choices else found.pool
        self.around.went(route, pool)
        return pool

    def replica_died(self, replica: str, running: list[Request]) -> set[str]:
        """Its connections broke: what it worked on of ours is answered with an error, once. The pools of that."""
        pools = set()
        for request in running:
            if request in self.sent.get(request.pool, {}):
                pools.add(request.pool)
                self._leave(request)
                self._finish(request, "refused")
                self._peaks[request.pool] = self._level(request.pool)[1]
                self._report(request.pool)
        for beliefs in self.beliefs.values():
            if replica in beliefs:
                beliefs[replica].asked = False
        return pools

    def crash(self) -> None:
        """Its process dies. Who waits for an answer sees the connection break, and so do replicas."""
        sent = [each for sent in self.sent.values() for each in sent.items()]
        lost = [*self._early, *(request for held in self.held.values() for request in held)]
        for beliefs in self.beliefs.values():
            for belief in beliefs.values():
                belief.listed = False
        self._early.clear()
        for known in (self.routes, self.pools, self.beliefs, self.held, self.sent, self._told, self._peaks):
            known.clear()
        self.down, self._version = True, None
        for request in (*lost, *(request for request, _ in sent)):
            self._finish(request, "lost")
        for request, belief in sent:
            self._stop(request, belief)

    def begin(self) -> None:
        """The next one knows nothing, and nobody knows it."""
        name, _, _ = self.name.partition("-")
        self._begun += 1
        self.name, self.down = f"{name}-{self._begun}", False

    def wants(self, pool: str) -> bool:
        return any(self._level(pool))

    @property
    def levels(self) -> int:
        """Of so many pools control was told one."""
        return len(self._told)

    def tell_all(self) -> None:
        """After control came back: everything, since levels are absolute."""
        self._told.clear()
        for pool in dict.fromkeys((*self.held, *self.sent)):
            self._tell(pool)

    def _dispatch(self, pool: str) -> None:
        waiting, row = self.held.get(pool), self.pools.get(pool)
        if not waiting:
            return
        if row is None:
            self._moved(pool, waiting)
            return
        while waiting and (fit := self._fit(row)):
            self._send(waiting.popleft(), pick(fit, self.chance.random()), None)
        while waiting and self._refuses(row, len(waiting) - 1):
            self._finish(waiting.pop(), "refused")
        if waiting:
            self._ask(row)
        self._report(pool)

    def _moved(self, pool: str, waiting: deque[Request]) -> None:
        """The pool is gone: what it held goes where its workload's traffic goes now."""
        del self.held[pool]
        for request in waiting:
            target = self._choose(request)
            if target is None or target == pool:
                self._finish(request, "refused")
            else:
                request.pool = target
                self.around.bereft.discard(target)
                self.held.setdefault(target, deque()).append(request)
                self._dispatch(target)
        self._report(pool)

    def _fit(self, row: PoolRow) -> list[Belief]:
        """Replicas with a slot left, as far as is known."""
        beliefs = self.beliefs[row.pool].values()
        return [each for each in beliefs if each.in_flight < each.room.limit and self.around.listens(each.id)]

    def _refuses(self, row: PoolRow, held: int) -> bool:
        """May one more not wait behind so many?"""
        closed = row.failing if row.closed and self.now() + self._control_ahead_s < row.retry_at else ""
        refusal = admit(
            row.pool, held=held, hold_max=HOLD_MAX, held_bytes=0, body_bytes=0, hold_bytes_max=0, closed=closed
        )
        return refusal is not None

    # -- to a replica, and back ----------------------------------------------------------------

    def _hop(self, do: Callable[[], None]) -> None:
        self.around.hop(self.chance, do)

    def _send(self, request: Request, belief: Belief, ticket: Ticket | None) -> None:
        belief.in_flight += 1
        request.replica = belief.id
        self.sent.setdefault(request.pool, {})[request] = belief
        self._hop(lambda: self.around.once_awake(belief.id, lambda: self._arrived(request, belief, ticket)))

    def _arrived(self, request: Request, belief: Belief, ticket: Ticket | None) -> None:
        """At the replica."""
        slots = self.around.slots(belief.id, belief.room.slots)
        row = self.pools.get(request.pool)
        if not self.around.listens(belief.id):
            self._hop(lambda: self._again(request, belief, full=False))
        elif request.outcome:
            if ticket is not None:
                slots.leave(ticket)
        elif not slots.take(request, ticket):
            self._hop(lambda: self._again(request, belief, full=True))
        else:
            if len(slots.running) > belief.room.slots:
                self.around.broke(f"{belief.id} was given {len(slots.running)} inputs at once")
            request.begun_at = self.now()
            over = partial(self.around.once_awake, belief.id, partial(self._worked, request, slots))
            self.after(request.work_s, over)
            if row is not None:
                self.after(row.timeout_s, lambda: self._late(request))

    def _worked(self, request: Request, slots: Slots[Request]) -> None:
        """At the replica, too."""
        if request in slots.running:
            slots.end(request)
            self._hop(lambda: self._answered(request))

    def _answered(self, request: Request) -> None:
        if not request.outcome:
            self._leave(request)
            self._finish(request, "answered")
            self._dispatch(request.pool)
            self._report(request.pool)

    def _again(self, request: Request, belief: Belief, full: bool) -> None:
        """It was not begun: the replica is full, or takes nothing new. It waits before all others."""
        if request.outcome:
            return
        self.refused += full
        if full:
            self._believe(request.pool, belief, refused(belief.room, belief.in_flight - 1))
        self._leave(request)
        request.replica = ""
        self._peaks[request.pool] = self._level(request.pool)[1]
        self.held.setdefault(request.pool, deque()).appendleft(request)
        self._wait_at_most(request)
        self._dispatch(request.pool)

    def _wait_at_most(self, request: Request) -> None:
        self.after(min(request.came_at + self.around.hold_s, request.until) - self.now(), lambda: self._waited(request))

    def _waited(self, request: Request) -> None:
        if not request.outcome and not request.replica:
            self.held[request.pool].remove(request)
            self._finish(request, "deadline" if self.now() >= request.until else "held")
            self._dispatch(request.pool)
            self._report(request.pool)

    def _late(self, request: Request) -> None:
        """Its time is over: where it is worked on, it is stopped."""
        if request.outcome or not request.replica:
            return
        self._stop(request, self.sent[request.pool][request])
        self._leave(request)
        self._finish(request, "deadline")
        self._dispatch(request.pool)
        self._report(request.pool)

    def _stop(self, request: Request, belief: Belief) -> None:
        """Its connection ends: nobody works on it any more."""
        slots = self.around.slots(belief.id, belief.room.slots)
        self._hop(lambda: slots.end(request))

    def _leave(self, request: Request) -> None:
        belief = self.sent[request.pool].pop(request)
        belief.in_flight -= 1
        if self.held.get(request.pool) and belief.room.contended:
            self._believe(request.pool, belief, ended(belief.room, belief.in_flight, self._asked(request.pool)))

    def _finish(self, request: Request, outcome: str) -> None:
        request.outcome = outcome
        request.ended_at = self.now()
        self.finished.append(request)

    # -- turns where others fill the slots, too ------------------------------------------------

    def _believe(self, pool: str, belief: Belief, room: Room) -> None:
        belief.room = room
        if belief.doubted and not belief.ages:
            belief.ages = True
            self.after(FORGET_S, lambda: self._forget(pool, belief))

    def _forget(self, pool: str, belief: Belief) -> None:
        belief.ages = False
        if not belief.asked:
            belief.room = unknown(belief.room.slots)
        self._dispatch(pool)

    def _asked(self, pool: str) -> int:
        return sum(belief.asked for belief in self.beliefs.get(pool, {}).values())

    def _ask(self, row: PoolRow) -> None:
        beliefs = self.beliefs[row.pool].values()
        full = [each for each in beliefs if each.doubted and not each.asked and self.around.listens(each.id)]
        for belief in likeliest(full, self._asked(row.pool)):
            belief.asked = True
            self._ask_for_turn(row.pool, belief)

    def _ask_for_turn(self, pool: str, belief: Belief) -> None:
        self._hop(lambda: self.around.once_awake(belief.id, lambda: self._asks(pool, belief)))

    def _asks(self, pool: str, belief: Belief) -> None:
        """At the replica."""
        slots = self.around.slots(belief.id, belief.room.slots)

        def in_vain() -> None:
            if ticket in slots.line.waiting:
                slots.leave(ticket)
                self._hop(lambda: self._denied(pool, belief))

        ticket = Ticket(lambda ticket, told: self._hop(lambda: self._given(pool, belief, slots, ticket, told)))
        slots.ask(ticket)
        self.after(ASK_S if self.around.listens(belief.id) else 0.0, in_vain)

    def _given(self, pool: str, belief: Belief, slots: Slots[Request], ticket: Ticket, told: Told) -> None:
        belief.asked = False
        waiting = self.held.get(pool)
        use = bool(waiting) and belief.listed
        self._believe(pool, belief, given(belief.room, belief.in_flight, told, used=use))
        if waiting and use:
            self._send(waiting.popleft(), belief, ticket)
        else:
            self._hop(lambda: slots.leave(ticket))
        self._dispatch(pool)

    def _denied(self, pool: str, belief: Belief) -> None:
        belief.asked = False
        self._believe(pool, belief, belief.room)
        self._dispatch(pool)

    # -- demand ------------------------------------------------------------------------------

    def _level(self, pool: str) -> tuple[int, int]:
        """(held, in flight) of a pool."""
        return len(self.held.get(pool, ())), len(self.sent.get(pool, ()))

    def _report(self, pool: str) -> None:
        """Its level changed: tell it soon."""
        _, in_flight = self._level(pool)
        self._peaks[pool] = max(self._peaks.get(pool, 0), in_flight)
        if not self.around.report_s:
            self._tell(pool)
        elif pool not in self._telling:
            self._telling.add(pool)
            self.after(self.around.report_s, lambda: self._tell(pool))

    def _tell(self, pool: str) -> None:
        """Its level now; of what came and went since it was told last, the peak first."""
        self._telling.discard(pool)
        held, now_in_flight = self._level(pool)
        in_flight = max(self._peaks.get(pool, 0), now_in_flight)
        self._peaks[pool] = now_in_flight
        if self._told.get(pool, (0, 0)) != (held, in_flight):
            self._told[pool] = (held, in_flight)
            if not (held or in_flight):
                del self._told[pool]
            by_replica = Counter(belief.id for belief in self.sent.get(pool, {}).values())
            level = Level(pool, held, in_flight, tuple(by_replica.items()), now_in_flight)
            self.around.tell(self, DemandReport((level,), DEMAND_TTL_S))
        if in_flight != now_in_flight:
            self._report(pool)
