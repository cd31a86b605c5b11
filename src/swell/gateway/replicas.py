"""How does work reach one replica and come back, and when is the replica left alone?

It keeps connections to its replica, makes new ones, and finds out sooner than control does that a replica is full,
or cannot be reached. Whose turn it is there is for its pool to say.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

from swell.decide.room import ASKED_MAX, Room, Told, refused, unknown
from swell.gateway.asking import WAIT_S, Asking
from swell.gateway.held import READING_HELD
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.gateway.tunnel import Tunnel
from swell.gateway.upstream import Upstream
from swell.gateway.wheel import Slot
from swell.wire.link import Endpoint
from swell.wire.websocket import GOING_AWAY

BUSY_REST_S = 0.05
"""That a replica said it is full is believed for this long, where it is not asked when it has a slot again."""
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
    doubted: set[Replica]
    max_inputs: int
    leased: bool

    def settle(self, replica: Replica) -> None: ...
    def release(self, replica: Replica, now: float) -> None: ...
    def again(self, request: Request, replica: Replica) -> None: ...
    def forget_peak(self) -> None: ...
    def given(self, replica: Replica, upstream: Upstream, told: Told) -> None: ...
    def ask(self) -> None: ...


class Replica:
    """One endpoint: its slots, and its connections that are idle."""

    def __init__(self, pool: PoolOf, endpoint: Endpoint) -> None:
        self.pool = pool
        self.id = endpoint.replica
        self.address = endpoint.address
        self.timings_ms = endpoint.timings_ms
        self.in_flight = 0
        self.elsewhere = 0
        """Inputs that other gateways have there, as they were last told."""
        self.room = unknown(pool.max_inputs)
        self.limit = pool.max_inputs
        """Inputs of ours that it takes at a time, as far as is known: `room.limit`."""
        self.asked = False
        """It was asked to say when it has a slot…"""
        self.asked_at = 0.0
        self.asking: Asking | None = None
        """…on this connection, once there is one."""
        self.leases: list[Upstream] = []
        """Connections that each hold a slot for an input that was sent elsewhere, to a process which is not ours."""
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
        self.slot: Slot | None = None

    @property
    def open(self) -> bool:
        """It may be given work (if a slot is free)."""
        return not (self.gone or self.resting or self.spent)

    @property
    def load(self) -> int:
        """Inputs that it works on, as far as is known."""
        return self.in_flight + self.elsewhere

    @property
    def contended(self) -> bool:
        """Others may fill its slots: other gateways, or the queue."""
        return self.pool.shared.settings.gateways > 1 or self.elsewhere > 0 or self.room.contended

    def leave(self) -> None:
        """It is off the table: what runs may finish, nothing new goes there. A WebSocket has no end of its own to wait
        for."""
        self.gone = True
        self.pool.doubted.discard(self)
        if self.asking is not None:
            self.asking.withdraw()
        self.pool.shared.wheel.discard(self)
        idle, self.idle = self.idle, []
        for upstream in idle:
            upstream.abort()
        self.part()

    def come_back(self) -> None:
        """It is on the table again. Nothing that was found out of its slots before holds any more."""
        self.gone = self.resting = self.asked = False
        self.asking = None
        self.believe(unknown(self.pool.max_inputs))

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
        """It has rested, or what it said of its slots is too long ago."""
        self.resting = False
        if not self.asked:
            self.believe(unknown(self.pool.max_inputs))
        self.pool.settle(self)

    # -- slots that others fill, too ------------------------------------------------------

    def believe(self, room: Room) -> None:
        """What is known now of its slots; where it is not all of them, for a while."""
        self.room, self.limit = room, room.limit
        doubted = self.pool.doubted
        if room.limit >= room.slots:
            doubted.discard(self)
        elif not self.gone:
            doubted.add(self)
            if self.slot is None:
                # Of many each is tried more seldom: together they are not refused more often.
                age_s = BUSY_REST_S * max(len(doubted) / ASKED_MAX, 1)
                self.pool.shared.wheel.add(self, self.pool.shared.now() + age_s)

    def ask(self) -> None:
        """Have it say when it has a slot for us."""
        self.asked = True
        self.asked_at = self.pool.shared.now()
        while self.idle and not self.pool.leased:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing():
                self.asking = Asking(self, upstream)
                return
        self.pool.shared.do(self._ask())

    async def _ask(self) -> None:
        try:
            upstream = await (self._open_slots() if self.pool.leased else self._open())
        except OSError:
            self.asked = False
            self._unreached()
            return
        if self.gone:
            upstream.abort()
        else:
            self.asking = Asking(self, upstream, hold=self.pool.leased)

    def given(self, upstream: Upstream, told: Told) -> None:
        """It has one, and keeps it for what is sent on this connection."""
        self.asked, self.asking = False, None
        if self.open:
            self.pool.given(self, upstream, told)
        else:
            upstream.abort()

    def denied(self, upstream: Upstream | None, status: int) -> None:
        """It has none: not for as long as we waited, or it never will."""
        self.asked, self.asking = False, None
        now = self.pool.shared.now()
        if upstream is not None:
            self._keep_asker(upstream)
        if status == 503 and now - self.asked_at > WAIT_S / 2:
            self.believe(self.room)
            self.pool.ask()
        else:
            # It ends, or is of a version that does not know the question.
            self.rest(BUSY_REST_S if status else DEAD_REST_S)

    def reserve(self, request: Request, upstream: Upstream) -> None:
        """It cannot be sent twice: it is sent with a slot that was asked for."""
        request.upstream = upstream.request = None
        request.sent_at = 0.0
        Asking(_Reserving(self, request), upstream, 0.0)

    # -- slots of a process that counts none ----------------------------------------------

    def lease(self, request: Request, upstream: Upstream | None) -> None:
        """Send a request while a slot is held for it: on this connection, else on one that is yet to be made."""
        if upstream is None:
            self.pool.shared.do(self._lease(request))
        else:
            self.leases.append(upstream)
            self.send(request, self.pool.shared.now())

    async def _lease(self, request: Request) -> None:
        reserving = _Reserving(self, request)
        try:
            upstream = await self._open_slots()
        except OSError:
            # Started by an earlier version, which counts nothing.
            if reserving.wanted:
                request.client.read_on(READING_HELD)
                self.send(request, self.pool.shared.now())
            return
        Asking(reserving, upstream, 0.0, hold=True)

    def give_back(self) -> None:
        """Fewer inputs are there than slots are held."""
        while len(self.leases) > self.in_flight:
            self.leases.pop().abort()

    async def _open_slots(self) -> Upstream:
        """To what starts the process and counts. Raises OSError."""
        path = self.pool.shared.settings.paths.replica_socket(self.id)
        _, upstream = await self.pool.shared.loop.create_unix_connection(
            lambda: Upstream(self, True, self.pool.shared), str(path)
        )
        return upstream

    def _keep_asker(self, upstream: Upstream) -> None:
        """It was asked on this connection, and gave nothing."""
        if self.pool.leased:
            upstream.abort()
        else:
            self.keep(upstream, self.pool.shared.now())

    # -- new connections ------------------------------------------------------------------

    def send(self, request: Request, now: float) -> None:
        """Send a request that has a slot, on a connection that is idle or a new one."""
        while self.idle and not request.websocket:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing() and now - upstream.idle_at <= self.reuse_s:
                upstream.send(request, now)
                return
            upstream.abort()
        self.connect(request)

    def connect(self, request: Request) -> None:
        """Open a connection for a request that has a slot, and send it."""
        self.pool.shared.do(self._connect(request))

    async def _connect(self, request: Request) -> None:
        attempt = request.attempts
        try:
            upstream = await self._open()
        except OSError:
            self._unreached()
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

    def _unreached(self) -> None:
        self.failures += 1
        self.rest(min(DEAD_REST_S * 2.0 ** min(self.failures - 1, 10), DEAD_REST_MAX_S))

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
        self.believe(refused(self.room, self.in_flight - 1))
        if self.spent:
            # Another gateway's input has it, or it was kept for one whose caller left: then it is there for ours.
            self.spent = False
            self.rest(DEAD_REST_MAX_S)
        self.pool.settle(self)
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
        if request.answering or not self.pool.native:
            _tell_death(request, "")
            self.pool.forget_peak()
            return
        # Its slot first: while the word of what ended the replica is on its way, it must not seem to be at work.
        now = self.pool.shared.now()
        request.lose(self, now)
        self.pool.release(self, now)
        self.pool.forget_peak()
        self.pool.shared.deaths.wait(self.id, partial(_tell_death, request), now)

    def broke_off(self, request: Request) -> None:
        """It lives, and cannot end the answer that it began: its code failed. Its log says how."""
        if self.pool.shared.now() >= request.deadline:
            request.expire()
            return
        request.upstream = None
        request.fail(500, "exception", "The code failed before its answer was over; its log says how.")

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


def _tell_death(request: Request, why: str) -> None:
    """Its replica died with it. `why`: what ended that, where it is known."""
    if request.done:
        # Its caller left meanwhile, or its time was up: what its client does now is of another request.
        return
    died = f"The replica died while running the request{why and f' ({why})'}. Not retried: it may have had effects."
    request.fail(502, "replica_died", f"{died} More: `swell why {request.id.decode()}`.")


class _Reserving:
    """One request that is sent with a slot, or not at all."""

    def __init__(self, replica: Replica, request: Request) -> None:
        self.replica = replica
        self.request = request
        self.attempt = request.attempts

    @property
    def wanted(self) -> bool:
        """It still waits for this replica."""
        request = self.request
        return not request.done and request.replica is self.replica and request.attempts == self.attempt

    def given(self, upstream: Upstream, _told: Told) -> None:
        replica = self.replica
        if not self.wanted:
            upstream.abort()
            return
        self.request.client.read_on(READING_HELD)
        if replica.pool.leased:
            replica.lease(self.request, upstream)
        else:
            upstream.send(self.request, replica.pool.shared.now(), has_slot=True)

    def denied(self, upstream: Upstream | None, status: int) -> None:
        replica, request = self.replica, self.request
        if upstream is not None and (replica.pool.leased or not self.wanted):
            upstream.abort()
            upstream = None
        if not self.wanted:
            return
        if status in (503, 410):
            replica.busy(request, upstream)
        elif upstream is None:
            replica.rest(DEAD_REST_S)
            replica.unreachable(request)
        else:
            # Of an earlier version: it is asked by sending.
            request.client.read_on(READING_HELD)
            upstream.send(request, replica.pool.shared.now(), has_slot=True)
