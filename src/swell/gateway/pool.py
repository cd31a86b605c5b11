"""Who gets the next free slot? One pool's replicas, their slots, and the requests held for one.

Whenever a slot is free nobody is held, and the other way round: every change that frees a slot hands it
to the oldest held request at once. What control says of its replicas is taken in as it comes; that a
replica cannot be reached is found out here, sooner than control does.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable

from swell.decide.admit import Refusal, admit, unavailable
from swell.decide.pick import pick
from swell.gateway.count import Tally
from swell.gateway.request import REPLAY_MAX, Request
from swell.gateway.shared import Shared
from swell.gateway.upstream import Upstream
from swell.gateway.wheel import Timed
from swell.model.workload import workload_of
from swell.wire.link import Endpoint, PoolRow

READING_HELD = 2
"""Why a client is not read: its request is held, and holds enough of its body already."""

BUSY_REST_S = 0.05
"""A replica that said it is full is left alone for this long: it may still be ending an input whose caller left."""
DEAD_REST_S = 0.1
"""A replica that could not be reached is left alone for this long, doubled each time it fails again…"""
DEAD_REST_MAX_S = 2.0
"""…up to this long; control takes it off the table before that if it is gone."""
FOREIGN_REUSE_S = 1.0
"""An idle connection to a process that is not ours is used again only this soon: it may close it when it likes."""

LOADS_MAX = 64
"""Replicas of a pool whose loads are told one by one."""


class Replica:
    """One endpoint: its slots and its idle connections."""

    def __init__(self, pool: Pool, endpoint: Endpoint) -> None:
        self.pool = pool
        self.id = endpoint.replica
        self.address = endpoint.address
        self.timings_ms = endpoint.timings_ms
        self.in_flight = 0
        self.idle: list[Upstream] = []
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

    def due(self, _now: float) -> None:
        """It has rested."""
        self.resting = False
        self.pool.settle(self)


class Connection(Upstream):
    """An upstream connection that knows its replica."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.pool, replica.pool.native, replica.pool.shared)
        self.replica = replica


def _stays(_request: Request) -> bool:
    """Of a pool that is its workload's only one."""
    return False


class Pool:
    """One pool as the gateway sees it.

    `moved` is asked with a request that would have to wait here a second time: True when another pool has its
    workload's traffic by now, and took it.
    """

    def __init__(self, shared: Shared, row: PoolRow, moved: Callable[[Request], bool] = _stays) -> None:
        self.shared = shared
        self.moved = moved
        self.key = row.pool
        self.workload = workload_of(row.pool)
        self.max_inputs = row.max_inputs
        self.timeout_s = row.timeout_s
        self.limit = ""
        """The timeout in words, and what set it."""
        self.memory_mib = row.memory_mib
        self.single_use = row.single_use
        self.native = row.native
        self.failing = ""
        self.retry_at = 0.0
        """No start is tried before then (on the clock of `shared.now`)."""
        self.refusing = False
        """Until then requests are refused rather than held."""
        self.reuse_s = math.inf if row.native else FOREIGN_REUSE_S
        self.replicas: dict[str, Replica] = {}
        self.ending: list[Replica] = []
        """Taken off the table while at work."""
        self.tally: Tally | None = Tally(row.pool, self.replicas)
        self.free: list[Replica] = []
        """Those with a free slot, in no order."""
        self.held: OrderedDict[Request, None] = OrderedDict()
        self.in_flight = 0
        self.peak = 0
        """Most requests in flight since the last report."""
        self.dirty = False
        """Its level changed since the last report."""
        self.update(row)

    @property
    def held_count(self) -> int:
        return len(self.held)

    @property
    def ready(self) -> int:
        return len(self.replicas)

    @property
    def closed(self) -> bool:
        """Nothing can be had before the next try, and that is not due."""
        return self.refusing and self.shared.now() < self.retry_at

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until a start may be tried again, at least one."""
        return max(math.ceil(self.retry_at - self.shared.now()), 1)

    def loads(self) -> tuple[tuple[str, int], ...]:
        """Requests in flight by replica, where there are any; nothing for a pool of more than LOADS_MAX."""
        if len(self.replicas) + len(self.ending) > LOADS_MAX:
            return ()
        return tuple((r.id, r.in_flight) for r in (*self.replicas.values(), *self.ending) if r.in_flight)

    # -- what control says ----------------------------------------------------------------

    def update(self, row: PoolRow) -> None:
        """Take in a row: endpoints that came and went, and why none can be had."""
        self.failing = row.failing
        self.retry_at = self.shared.now() + row.retry_at - time.time()
        self.refusing = row.closed
        self.timeout_s = row.timeout_s
        self.limit = f"{row.timeout_s:g} s (timeout= of the function)"
        listed = {endpoint.replica: endpoint for endpoint in row.replicas}
        for replica in [r for r in self.replicas.values() if r.id not in listed]:
            self._remove(replica)
        for id, endpoint in listed.items():
            if id not in self.replicas:
                replica = self.replicas[id] = Replica(self, endpoint)
                self.settle(replica)
        if self.closed:
            for request in self.take_held():
                self._refuse(request, unavailable(self.workload, self.failing, self.retry_after_s))

    def close(self) -> None:
        """Control no longer knows it: nothing new goes there. What runs may finish."""
        for replica in list(self.replicas.values()):
            self._remove(replica)

    def take_held(self) -> list[Request]:
        """Give up the held requests, oldest first: their workload has another pool now."""
        requests = list(self.held)
        for request in requests:
            self._unhold(request)
        return requests

    def _remove(self, replica: Replica) -> None:
        replica.gone = True
        del self.replicas[replica.id]
        self.ending = [one for one in (*self.ending, replica) if one.in_flight]
        self.shared.wheel.discard(replica)
        self.settle(replica)
        idle, replica.idle = replica.idle, []
        for upstream in idle:
            upstream.abort()

    # -- what requests do -----------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """A request arrives: it gets a slot, is held, or is refused."""
        if not self.replicas:
            request.cold = True
        if self.free:
            self._assign(request, pick(self.free, random.random()))
        else:
            self._wait(request, first=False)

    def grown(self, request: Request) -> None:
        """More of the body of a request that is not sent yet has arrived."""
        if request in self.held:
            more = request.size - request.held_bytes
            request.held_bytes += more
            self.shared.held_bytes += more
        if request.size > REPLAY_MAX or self.shared.held_bytes > self.shared.settings.hold_bytes_max:
            request.client.stop_reading(READING_HELD)

    def drop(self, request: Request) -> None:
        """It is over without an answer of a replica: cancel what runs, free its slot or its place."""
        replica = request.replica
        if request in self.held:
            self._unhold(request)
        elif isinstance(replica, Replica):
            upstream, request.upstream = request.upstream, None
            if upstream is not None:
                upstream.abort()
            self._release(replica, self.shared.now())

    # -- what replicas do -----------------------------------------------------------------

    def ended(self, request: Request, upstream: Upstream | None, now: float) -> None:
        """The answer is complete; the connection comes back if it can be used again."""
        replica = request.replica
        assert isinstance(replica, Replica)
        if upstream is not None:
            self._keep(replica, upstream, now)
        self._release(replica, now)

    def busy(self, request: Request, upstream: Upstream | None) -> None:
        """Refused before it was read: the next free replica gets it, or it goes back to the front of the queue."""
        replica = request.replica
        assert isinstance(replica, Replica)
        if upstream is not None:
            self._keep(replica, upstream, self.shared.now())
        self._rest(replica, BUSY_REST_S)
        if request.replayable:
            self._again(request, replica)
        else:
            message = f"Every replica of {self.workload} is busy, and the body is too long to be sent again. Try again."
            request.fail(503, "no_replica", message, b"retry-after: 1\r\n")

    def died(self, request: Request, unread: bool) -> None:
        """The connection broke under a request that had been sent. `unread`: the replica cannot have begun it."""
        replica = request.replica
        assert isinstance(replica, Replica)
        now = self.shared.now()
        if now >= request.deadline:
            # A stream that cannot say so otherwise is broken off by the replica at its deadline.
            request.expire()
            return
        request.upstream = None
        if self.native:
            self._rest(replica, DEAD_REST_S)
        if unread:
            self._again(request, replica)
            return
        request.fail(
            502, "replica_died", "The replica went away with the request. It is not tried again, since it ran."
        )

    def lost(self, upstream: Upstream) -> None:
        """An idle connection was closed."""
        assert isinstance(upstream, Connection)
        if upstream in upstream.replica.idle:
            upstream.replica.idle.remove(upstream)

    def settle(self, replica: Replica) -> None:
        """Put a replica in or out of the free list as it is now, and serve the held ones if it can take some."""
        while self.held and replica.open and replica.in_flight < self.max_inputs:
            request = next(iter(self.held))
            self._unhold(request)
            self._assign(request, replica)
        fit = replica.open and replica.in_flight < self.max_inputs
        if fit and replica.place < 0:
            replica.place = len(self.free)
            self.free.append(replica)
        elif not fit and replica.place >= 0:
            last = self.free.pop()
            if last is not replica:
                self.free[replica.place] = last
                last.place = replica.place
            replica.place = -1

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        retry = b"retry-after: %d\r\n" % refusal.retry_after_s
        request.fail(refusal.status, refusal.code, refusal.message, retry)

    # -- slots ----------------------------------------------------------------------------

    def _assign(self, request: Request, replica: Replica) -> None:
        now = self.shared.now()
        replica.in_flight += 1
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight
        if replica.in_flight == 1:
            replica.busy_since = now
            if self.tally is not None and not self.tally.listed:
                self.shared.ledger.list(self.tally)
        if self.single_use:
            replica.spent = True
        if replica.place >= 0 and (replica.in_flight >= self.max_inputs or replica.spent):
            self.settle(replica)
        request.replica = replica
        request.assigned_at = now
        request.attempts += 1
        if not self.dirty:
            self.dirty = True
            self.shared.touched(self)
        while replica.idle:
            upstream = replica.idle.pop()
            if not upstream.transport.is_closing() and now - upstream.idle_at <= self.reuse_s:
                upstream.send(request, now)
                return
            upstream.abort()
        task = self.shared.loop.create_task(self._connect(request, replica))
        self.shared.tasks.add(task)
        task.add_done_callback(self.shared.tasks.discard)

    def _release(self, replica: Replica, now: float) -> None:
        replica.in_flight -= 1
        self.in_flight -= 1
        if not replica.in_flight and self.tally is not None:
            self.tally.busy_s += now - replica.busy_since
        if not self.dirty:
            self.dirty = True
            self.shared.touched(self)
        if self.single_use:
            # Its replica is about to be gone: told late, the same input would seem to want another one.
            self.peak = self.in_flight
            self.shared.wanted(self)
        if replica.place < 0 or self.held:
            self.settle(replica)

    def _again(self, request: Request, replica: Replica) -> None:
        """Take a request that was not begun away from a replica, and place it anew before all held ones."""
        request.replica = None
        request.upstream = None
        request.sent = 0
        request.sent_at = 0.0
        self._release(replica, self.shared.now())
        if self.free:
            self._assign(request, pick(self.free, random.random()))
        elif not self.moved(request):
            self._wait(request, first=True)

    def _rest(self, replica: Replica, for_s: float) -> None:
        """Give it no work for a while."""
        if not replica.gone:
            replica.resting = True
            self.shared.wheel.add(replica, self.shared.now() + for_s)
            self.settle(replica)

    def _keep(self, replica: Replica, upstream: Upstream, now: float) -> None:
        if replica.gone or not self.reuse_s:
            upstream.abort()
        else:
            upstream.idle_at = now
            replica.idle.append(upstream)

    # -- the queue ------------------------------------------------------------------------

    def _wait(self, request: Request, first: bool) -> None:
        """No slot is free: hold it, before (`first`) or behind the others, or refuse it."""
        settings = self.shared.settings
        refusal = admit(
            self.workload,
            held=len(self.held),
            hold_max=settings.hold_max,
            held_bytes=self.shared.held_bytes,
            body_bytes=request.size,
            hold_bytes_max=settings.hold_bytes_max,
            closed=self.failing if self.closed else "",
            retry_after_s=self.retry_after_s,
        )
        if refusal is None:
            self._hold(request, first)
        else:
            self._refuse(request, refusal)

    def _hold(self, request: Request, first: bool) -> None:
        self.held[request] = None
        if first:
            self.held.move_to_end(request, last=False)
        request.held_bytes = 0
        self.grown(request)
        if not self.dirty:
            self.dirty = True
            self.shared.touched(self)
        self.shared.wanted(self)

    def _unhold(self, request: Request) -> None:
        del self.held[request]
        self.shared.held_bytes -= request.held_bytes
        request.held_bytes = 0
        request.client.read_on(READING_HELD)
        if not self.dirty:
            self.dirty = True
            self.shared.touched(self)

    # -- connections ----------------------------------------------------------------------

    async def _connect(self, request: Request, replica: Replica) -> None:
        """Open a connection for a request that has a slot, and send it."""
        attempt = request.attempts
        try:
            upstream = await self._open(replica)
        except OSError:
            replica.failures += 1
            self._rest(replica, min(DEAD_REST_S * 2.0 ** min(replica.failures - 1, 10), DEAD_REST_MAX_S))
            if not request.done and request.attempts == attempt:
                self.unreachable(request)
            return
        replica.failures = 0
        if not request.done and request.attempts == attempt:
            request.client.read_on(READING_HELD)
            upstream.send(request, self.shared.now())
        else:
            self._keep(replica, upstream, self.shared.now())

    def unreachable(self, request: Request) -> None:
        """Nothing was sent: another replica may have it."""
        replica = request.replica
        assert isinstance(replica, Replica)
        replica.spent = False
        self._again(request, replica)

    async def _open(self, replica: Replica) -> Upstream:
        """A new connection. Raises OSError (also for an address that cannot be one)."""
        kind, _, place = replica.address.partition(":")
        loop = self.shared.loop
        if kind == "unix":
            _, upstream = await loop.create_unix_connection(lambda: Connection(replica), place)
            return upstream
        host, _, port = place.rpartition(":")
        if kind != "tcp" or not port.isdigit():
            raise OSError(f"{replica.address!r} is not an address")
        _, upstream = await loop.create_connection(lambda: Connection(replica), host, int(port))
        return upstream


class ApiPool(Pool):
    """The control API as a pool of one endpoint that takes everything, holds nothing and is not counted."""

    def __init__(self, shared: Shared, address: str) -> None:
        super().__init__(
            shared,
            PoolRow(
                pool="api",
                max_inputs=1_000_000,
                timeout_s=math.inf,
                memory_mib=0,
                single_use=False,
                native=False,
                replicas=(Endpoint("control", address),),
            ),
        )
        self.tally = None
        self.dirty = True
        # Its server closes idle connections when it likes, and a call of the API must not be lost to that.
        self.reuse_s = 0.0

    def unreachable(self, request: Request) -> None:
        """Control is down: say so at once."""
        message = "The control plane is not running now. It is started again by itself; try again in a moment."
        request.fail(503, "control_down", message, b"retry-after: 1\r\n")

    def died(self, request: Request, unread: bool) -> None:
        """Control ended with the request; unless it never read it, what it did of it is not known."""
        request.upstream = None
        if unread:
            self.unreachable(request)
            return
        message = "The control plane went away with the request. Look whether it was done before trying again."
        request.fail(502, "control_down", message)

    def _rest(self, replica: Replica, for_s: float) -> None:
        """It is asked again at once: nothing else can be."""
