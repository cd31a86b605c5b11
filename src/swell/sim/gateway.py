"""How would requests fare? A gateway of values: holds, picks, counts slots and reports demand.

It follows the same table the real gateway is sent, and keeps the same promises: a request is answered
or refused in time, and no replica is given more than its `max_inputs`. Time to wait is `hold_s`, time to be worked on
the pool's timeout, and both together its caller's own deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import msgspec

from swell.decide.admit import admit
from swell.decide.pick import pick
from swell.wire.link import Level, PoolRow, Table, TableDelta

DEMAND_TTL_S = 5.0
HOLD_MAX = 1000
"""Requests that may wait for a pool's replicas."""


class Request(msgspec.Struct):
    """One simulated request."""

    number: int
    workload: str
    came_at: float
    until: float
    """Its caller's own deadline."""
    work_s: float
    outcome: str = ""
    """"answered", "refused", "held" (too long) or "deadline"; empty while it is under way."""
    ended_at: float = 0.0
    pool: str = ""
    replica: str = ""


class _Load(msgspec.Struct):
    """A replica and what it works on."""

    replica: str
    in_flight: int


class SimGateway:
    """One gateway. `after` is the timeline's; `send` takes its demand to control; `listens` says whether a replica
    takes connections: the table may be late. What changes within `report_s` is told together, that somebody waits at
    once."""

    def __init__(
        self,
        name: str,
        now: Callable[[], float],
        after: Callable[[float, Callable[[], None]], None],
        send: Callable[[str, list[Level], float], None],
        listens: Callable[[str], bool],
        chance: Random,
        report_s: float = 0.0,
        hold_s: float = 600.0,
    ) -> None:
        self.name = name
        self.now = now
        self.after = after
        self.send = send
        self.listens = listens
        self.chance = chance
        self.report_s = report_s
        self.hold_s = hold_s
        self.routes: dict[str, str] = {}
        self.pools: dict[str, PoolRow] = {}
        self.held: dict[str, deque[Request]] = {}
        self.running: dict[str, list[Request]] = {}
        """Replica → what it works on."""
        self.finished: list[Request] = []
        self.bereft: set[str] = set()
        """Pools whose last requests ended with their replica: nobody wants them any more."""
        self._told: dict[str, tuple[int, int]] = {}
        self._peaks: dict[str, int] = {}
        """Pool → most in flight since it was told last."""
        self._telling: set[str] = set()
        """Pools that are told soon."""

    # -- the table ---------------------------------------------------------------------------

    def take_table(self, table: Table | TableDelta) -> None:
        if isinstance(table, Table):
            self.routes.clear()
            self.pools.clear()
        else:
            for key in table.gone_routes:
                self.routes.pop(key, None)
            for pool in table.gone_pools:
                self.pools.pop(pool, None)
        self.routes.update({row.key: row.pool for row in table.routes})
        self.pools.update({row.pool: row for row in table.pools})
        for pool in list(self.held):
            self._dispatch(pool)

    # -- requests ----------------------------------------------------------------------------

    def arrive(self, request: Request) -> None:
        pool = self.routes.get(request.workload)
        if pool is None:
            self._finish(request, "refused")
            return
        request.pool = pool
        row, waiting = self.pools.get(pool), self.held.setdefault(pool, deque())
        if row is not None and not self._free(row) and self._refuses(row, len(waiting)):
            self._finish(request, "refused")
            return
        self.bereft.discard(pool)
        waiting.append(request)
        self.after(min(self.hold_s, request.until - self.now()), lambda: self._waited(request))
        self._dispatch(pool)
        if self.held[pool]:
            self._tell(pool)

    def replica_died(self, replica: str) -> None:
        """Its connections broke: what it worked on is answered with an error, once."""
        for request in self.running.pop(replica, []):
            self._finish(request, "refused")
            held, in_flight = self._level(request.pool)
            self._peaks[request.pool] = in_flight
            if not held and not in_flight:
                self.bereft.add(request.pool)
            self._report(request.pool)

    def works(self, replica: str) -> bool:
        """Has it something in flight?"""
        return bool(self.running.get(replica))

    def tell_all(self) -> None:
        """After control came back: everything, since levels are absolute."""
        self._told.clear()
        for pool in dict.fromkeys((*self.held, *(r.pool for rs in self.running.values() for r in rs))):
            self._tell(pool)

    def _dispatch(self, pool: str) -> None:
        waiting, row = self.held.get(pool), self.pools.get(pool)
        if not waiting:
            return
        if row is None:
            self._moved(pool, waiting)
            return
        while waiting and (free := self._free(row)):
            self._run(waiting.popleft(), pick(free, self.chance.random()).replica, row)
        while waiting and self._refuses(row, len(waiting) - 1):
            self._finish(waiting.pop(), "refused")
        self._report(pool)

    def _moved(self, pool: str, waiting: deque[Request]) -> None:
        """The pool is gone: what it held goes where its workload's traffic goes now."""
        del self.held[pool]
        for request in waiting:
            target = self.routes.get(request.workload)
            if target is None or target == pool:
                self._finish(request, "refused")
            else:
                request.pool = target
                self.bereft.discard(target)
                self.held.setdefault(target, deque()).append(request)
                self._dispatch(target)
        self._report(pool)

    def _free(self, row: PoolRow) -> list[_Load]:
        """Replicas with a slot left."""
        loads = (_Load(e.replica, len(self.running.get(e.replica, ()))) for e in row.replicas)
        return [load for load in loads if load.in_flight < row.max_inputs and self.listens(load.replica)]

    def _refuses(self, row: PoolRow, held: int) -> bool:
        """May one more not wait behind so many?"""
        closed = row.failing if row.closed and self.now() < row.retry_at else ""
        refusal = admit(
            row.pool, held=held, hold_max=HOLD_MAX, held_bytes=0, body_bytes=0, hold_bytes_max=0, closed=closed
        )
        return refusal is not None

    def _run(self, request: Request, replica: str, row: PoolRow) -> None:
        request.replica = replica
        running = self.running.setdefault(replica, [])
        running.append(request)
        assert len(running) <= row.max_inputs, f"{replica} was given {len(running)} at once"
        self.after(min(row.timeout_s, request.until - self.now()), lambda: self._late(request))
        self.after(request.work_s, lambda: self._worked(request))

    def _worked(self, request: Request) -> None:
        if not request.outcome:
            self._leave(request)
            self._finish(request, "answered")
            self._dispatch(request.pool)
            self._report(request.pool)

    def _waited(self, request: Request) -> None:
        if request.outcome or request.replica:
            return
        self.held[request.pool].remove(request)
        self._finish(request, "deadline" if self.now() >= request.until else "held")
        self._dispatch(request.pool)
        self._report(request.pool)

    def _late(self, request: Request) -> None:
        if request.outcome:
            return
        self._leave(request)
        self._finish(request, "deadline")
        self._dispatch(request.pool)
        self._report(request.pool)

    def _leave(self, request: Request) -> None:
        running = self.running.get(request.replica, [])
        if request in running:
            running.remove(request)
            if not running:
                self.running.pop(request.replica, None)

    def _finish(self, request: Request, outcome: str) -> None:
        request.outcome = outcome
        request.ended_at = self.now()
        self.finished.append(request)

    # -- demand ------------------------------------------------------------------------------

    def _level(self, pool: str) -> tuple[int, int]:
        """(held, in flight) of a pool."""
        in_flight = sum(request.pool == pool for requests in self.running.values() for request in requests)
        return len(self.held.get(pool, ())), in_flight

    def _report(self, pool: str) -> None:
        """Its level changed: tell it soon."""
        _, in_flight = self._level(pool)
        self._peaks[pool] = max(self._peaks.get(pool, 0), in_flight)
        if not self.report_s:
            self._tell(pool)
        elif pool not in self._telling:
            self._telling.add(pool)
            self.after(self.report_s, lambda: self._tell(pool))

    def _tell(self, pool: str) -> None:
        """Its level now; of what came and went since it was told last, the peak first."""
        self._telling.discard(pool)
        held, now_in_flight = self._level(pool)
        in_flight = max(self._peaks.get(pool, 0), now_in_flight)
        self._peaks[pool] = now_in_flight
        if self._told.get(pool, (0, 0)) != (held, in_flight):
            self._told[pool] = (held, in_flight)
            self.send(self.name, [Level(pool, held, in_flight)], DEMAND_TTL_S)
        if in_flight != now_in_flight:
            self._report(pool)
