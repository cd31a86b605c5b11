"""How does work reach one replica and come back, and when is the replica left alone?

It keeps connections to its replica, makes new ones, and finds out sooner than control does that a replica is full,
or cannot be reached. Whose turn it is there is for its pool to say.
"""

from __future__ import annotations

import math
from typing import Protocol

from swell.gateway.held import READING_HELD
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.gateway.tunnel import Tunnel
from swell.gateway.upstream import Upstream
from swell.gateway.wheel import Timed
from swell.wire.link import Endpoint
from swell.wire.websocket import GOING_AWAY

BUSY_REST_S = 0.05
"""A replica that said it is full is left alone for this long: it may still be ending an input whose caller left."""
DEAD_REST_S = 0.1
"""A replica that could not be reached is left alone for this long, doubled each time it fails again…"""
DEAD_REST_MAX_S = 2.0
"""…up to this long; control takes it off the table before that if it is gone."""
FOREIGN_REUSE_S = 1.0
"""An idle connection to a process that is not ours is used again only this soon: it may close it when it likes."""


class PoolOf(Protocol):
    """The pool of a replica, which takes back slots and requests."""

    shared: Shared
    workload: str
    native: bool

    def settle(self, replica: Replica) -> None: ...
    def release(self, replica: Replica, now: float) -> None: ...
    def again(self, request: Request, replica: Replica) -> None: ...
    def forget_peak(self) -> None: ...


class Replica:
    """One endpoint: its slots, and its connections that are idle."""

    def __init__(self, pool: PoolOf, endpoint: Endpoint) -> None:
        self.pool = pool
        self.id = endpoint.replica
        self.address = endpoint.address
        self.timings_ms = endpoint.timings_ms
        self.in_flight = 0
        self.idle: list[Upstream] = []
        self.tunnels: set[Tunnel] = set()
        """WebSockets that are open."""
        self.reuse_s = math.inf if pool.native else FOREIGN_REUSE_S
        """How long an idle connection can be used again."""
        self.place = -1
        """Its index in the pool's free list; -1: not in it."""
        self.gone = False
        self.resting = False
        self.spent = False
        """Single use, and used."""
        self.failures = 0
        """Times in a row that it could not be reached."""
        self.busy_since = 0.0
        self.slot: set[Timed] | None = None

    @property
    def open(self) -> bool:
        """It may be given work (if a slot is free)."""
        return not (self.gone or self.resting or self.spent)

    def leave(self) -> None:
        """It is off the table: what runs may finish, nothing new goes there. A WebSocket has no end of its own to wait
        for."""
        self.gone = True
        self.pool.shared.wheel.discard(self)
        idle, self.idle = self.idle, []
        for upstream in idle:
            upstream.abort()
        self.part()

    def part(self) -> None:
        """End its WebSockets, between two frames and with a word."""
        for tunnel in [*self.tunnels]:
            tunnel.leave(GOING_AWAY, "This version of the app is being replaced or stopped.")

    # -- rest -----------------------------------------------------------------------------

    def rest(self, for_s: float) -> None:
        """Give it no work for a while."""
        if not self.gone:
            self.resting = True
            self.pool.shared.wheel.add(self, self.pool.shared.now() + for_s)
            self.pool.settle(self)

    def due(self, _now: float) -> None:
        """It has rested."""
        self.resting = False
        self.pool.settle(self)

    # -- new connections ------------------------------------------------------------------

    def connect(self, request: Request) -> None:
        """Open a connection for a request that has a slot, and send it."""
        shared = self.pool.shared
        task = shared.loop.create_task(self._connect(request))
        shared.tasks.add(task)
        task.add_done_callback(shared.tasks.discard)

    async def _connect(self, request: Request) -> None:
        attempt = request.attempts
        try:
            upstream = await self._open()
        except OSError:
            self.failures += 1
            self.rest(min(DEAD_REST_S * 2.0 ** min(self.failures - 1, 10), DEAD_REST_MAX_S))
            if not request.done and request.attempts == attempt:
                self.unreachable(request)
            return
        self.failures = 0
        if not request.done and request.attempts == attempt:
            request.client.read_on(READING_HELD)
            upstream.answers.switching = request.websocket
            upstream.send(request, self.pool.shared.now())
        else:
            self.keep(upstream, self.pool.shared.now())

    async def _open(self) -> Upstream:
        """A new connection. Raises OSError (also for an address that cannot be one)."""
        kind, _, place = self.address.partition(":")
        loop = self.pool.shared.loop
        if kind == "unix":
            _, upstream = await loop.create_unix_connection(self._upstream, place)
            return upstream
        host, _, port = place.rpartition(":")
        if kind != "tcp" or not port.isdigit():
            raise OSError(f"{self.address!r} is not an address")
        _, upstream = await loop.create_connection(self._upstream, host, int(port))
        return upstream

    def _upstream(self) -> Upstream:
        return Upstream(self, self.pool.native, self.pool.shared)

    def unreachable(self, request: Request) -> None:
        """Nothing was sent: another replica may have it."""
        self.spent = False
        self.pool.again(request, self)

    # -- what its connections tell --------------------------------------------------------

    def ended(self, upstream: Upstream | None, now: float) -> None:
        """An answer is complete; the connection comes back if it can be used again."""
        if upstream is not None:
            self.keep(upstream, now)
        self.pool.release(self, now)

    def busy(self, request: Request, upstream: Upstream | None) -> None:
        """Refused before it was read: the next free replica gets it, or it goes back to the front of the queue."""
        if upstream is not None:
            self.keep(upstream, self.pool.shared.now())
        self.rest(BUSY_REST_S)
        if request.replayable:
            self.pool.again(request, self)
        else:
            workload = self.pool.workload
            message = f"Every replica of {workload} is busy, and the body is too long to be sent again. Try again."
            request.fail(503, "no_replica", message, b"retry-after: 1\r\n")

    def died(self, request: Request, unread: bool) -> None:
        """The connection broke under a request that had been sent. `unread`: the replica cannot have begun it."""
        if self.pool.shared.now() >= request.deadline:
            # A stream that cannot say so otherwise is broken off by the replica at its deadline.
            request.expire()
            return
        request.upstream = None
        if self.pool.native:
            self.rest(DEAD_REST_S)
        if unread:
            self.pool.again(request, self)
            return
        message = "The replica died while running the request. Not retried: it may have had effects."
        request.fail(502, "replica_died", message)
        self.pool.forget_peak()

    def lost(self, upstream: Upstream) -> None:
        """An idle connection was closed."""
        if upstream in self.idle:
            self.idle.remove(upstream)

    def keep(self, upstream: Upstream, now: float) -> None:
        """A connection carries nothing: the next request may have it."""
        if self.gone or not self.reuse_s:
            upstream.abort()
        else:
            upstream.idle_at = now
            self.idle.append(upstream)
