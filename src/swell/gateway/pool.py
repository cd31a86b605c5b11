"""Who gets the next free slot? One pool's replicas, their slots, and the requests held for one.

Whenever a slot is free nobody is held, and the other way round: every change that frees a slot hands it
to the oldest held request at once. What control says of its replicas is taken in as it comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from swell.decide.admit import held_too_long, unavailable
from swell.decide.pick import fills, pick
from swell.decide.room import Told, ended, given, likeliest
from swell.gateway.count import Tally
from swell.gateway.heads import limit_line
from swell.gateway.held import READING_HELD, Held
from swell.gateway.replicas import Replica
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.gateway.upstream import Upstream
from swell.model.variant import base_of
from swell.model.workload import workload_of
from swell.wire.link import PoolRow

LOADS_MAX = 64
"""Replicas of a pool whose loads are told one by one."""


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
        self.limit_line = b""
        """The same as a header for its replicas."""
        self.memory_mib = row.memory_mib
        self.single_use = row.single_use
        self.gang = row.gang
        """Calls of it go by the queue alone."""
        self.native = row.native
        self.batch_max = row.batch_max
        self.filled: Replica | None = None
        """Where inputs are worked on together: the replica that got the last one."""
        self.failing = ""
        self.retry_at = 0.0
        """No start is tried before then (on the clock of `shared.now`)."""
        self.refusing = False
        """Until then requests are refused rather than held."""
        self.replicas: dict[str, Replica] = {}
        self.doubted: set[Replica] = set()
        """Those that were found full: others have some of their slots."""
        self.ending: list[Replica] = []
        """Taken off the table while at work."""
        self.tally = self._tally()
        self.free: list[Replica] = []
        """Those with a free slot, in no order."""
        self.held = Held(shared)
        self.leased = not self.native and shared.settings.gateways > 1
        """Its replicas are processes that count no inputs and refuse none: what starts them is asked for slots."""
        self.in_flight = 0
        self.peak = 0
        """Most requests in flight since the last report."""
        self.dirty = False
        """Its level changed since the last report."""
        self.update(row)

    def _tally(self) -> Tally | None:
        """Where its requests are counted; what is told of its workload outlives it."""
        return Tally(self.key, self.replicas, self.shared.ledger.counts.of(base_of(self.workload)))

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
        self.retry_at = self.shared.now() + row.retry_at - (self.shared.wall() + self.shared.control_ahead_s)
        self.refusing = row.closed
        self.timeout_s = row.timeout_s
        self.limit = f"{row.timeout_s:g} s ({row.limited_by}= of the function)"
        self.limit_line = limit_line(self.limit)
        listed = {endpoint.replica: endpoint for endpoint in row.replicas}
        for replica in [r for r in self.replicas.values() if r.id not in listed]:
            self._remove(replica)
        for id, endpoint in listed.items():
            if id not in self.replicas:
                self.add(self._returned(id) or Replica(self, endpoint))
        if self.closed:
            for request in self.take_held():
                request.refuse(unavailable(self.workload, self.failing, self.retry_after_s))

    def take_elsewhere(self, loads: Mapping[str, int]) -> None:
        """What other gateways have in flight, by replica."""
        for id, replica in self.replicas.items():
            replica.elsewhere = loads.get(id, 0)

    def add(self, replica: Replica) -> None:
        """One more, with its slots."""
        self.replicas[replica.id] = replica
        self.settle(replica)

    def _returned(self, id: str) -> Replica | None:
        """One that was at work when it was taken off the table, since its runner was away: with what it still works on,
        so that a process which counts nothing is given no more than it may have."""
        for replica in self.ending:
            if replica.id == id:
                self.ending.remove(replica)
                replica.come_back()
                return replica
        return None

    def close(self) -> None:
        """Control no longer knows it: nothing new goes there. What runs may finish."""
        for replica in list(self.replicas.values()):
            self._remove(replica)

    def part(self) -> None:
        """It has the traffic no more: its WebSockets are told to come again, to what has it."""
        for replica in self.replicas.values():
            replica.part()

    def take_held(self) -> list[Request]:
        """Give up the held requests, oldest first: their workload has another pool now."""
        requests = list(self.held)
        for request in requests:
            self._unhold(request)
        return requests

    def _remove(self, replica: Replica) -> None:
        del self.replicas[replica.id]
        self.ending = [one for one in (*self.ending, replica) if one.in_flight]
        replica.leave()
        self.settle(replica)

    # -- what requests do -----------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """A request arrives: it gets a slot, is held, or is refused."""
        if not self.replicas:
            request.cold = True
        if self.free:
            self._assign(request, self._fill() if self.batch_max else pick(self.free, self.shared.draw()))
        else:
            self._wait(request, first=False)

    def grown(self, request: Request) -> None:
        """More of the body of a request that is not sent yet has arrived."""
        self.held.grown(request)

    def drop(self, request: Request) -> None:
        """It is over without an answer of a replica: cancel what runs, free its slot or its place."""
        replica = request.replica
        if request in self.held:
            self._unhold(request)
        elif isinstance(replica, Replica):
            upstream, request.upstream = request.upstream, None
            if upstream is not None:
                upstream.abort()
            if not request.sent_at:
                # Nothing reached it: of single use, it is there for another input.
                replica.spent = False
            self.release(replica, self.shared.now())

    def overdue(self, request: Request, now: float) -> None:
        """End one that has waited for a replica for too long."""
        if self.failing:
            retry = b"retry-after: %d\r\n" % self.retry_after_s
            request.fail(503, "no_replica", f"No replica could be had in time: {self.failing}", retry)
        elif now >= request.until:
            waited = f"The deadline of {request.callers_limit} passed while it waited for a free replica."
            request.fail(504, "deadline", waited)
        else:
            request.refuse(held_too_long(self.workload, self.shared.settings.hold_s))

    # -- slots ----------------------------------------------------------------------------

    def settle(self, replica: Replica) -> None:
        """Put a replica in or out of the free list as it is now, and serve the held ones if it can take some."""
        while self.held and replica.open and replica.in_flight < replica.limit:
            request = next(iter(self.held))
            self._unhold(request)
            self._assign(request, replica)
        fit = replica.open and replica.in_flight < replica.limit
        if fit and replica.place < 0:
            replica.place = len(self.free)
            self.free.append(replica)
        elif not fit and replica.place >= 0:
            last = self.free.pop()
            if last is not replica:
                self.free[replica.place] = last
                last.place = replica.place
            replica.place = -1

    def _fill(self) -> Replica:
        """The free replica whose batch is filling, or another one's."""
        last = self.filled
        if last is None or last.place < 0 or not fills(last, self.batch_max):
            last = self.filled = pick(self.free, self.shared.draw())
        return last

    def ask(self) -> None:
        """While somebody waits, replicas that others may have filled are asked to say when they have a slot for us."""
        if self.held:
            full = [replica for replica in self.doubted if replica.open and not replica.asked]
            for replica in likeliest(full, self._asked):
                replica.ask()

    @property
    def _asked(self) -> int:
        """How many are asked."""
        return sum(replica.asked for replica in self.doubted)

    def given(self, replica: Replica, upstream: Upstream, told: Told) -> None:
        """It is our turn there: the slot is for what is sent on this connection."""
        replica.believe(given(replica.room, replica.in_flight, told, used=bool(self.held)))
        if self.held:
            request = next(iter(self.held))
            self._unhold(request)
            self._assign(request, replica, upstream)
        else:
            upstream.abort()
        self.settle(replica)
        self.ask()

    def _assign(self, request: Request, replica: Replica, upstream: Upstream | None = None) -> None:
        """Give it a slot: the one that the replica keeps on `upstream`, or one that it seems to have."""
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
        if replica.place >= 0 and (replica.in_flight >= replica.limit or replica.spent):
            self.settle(replica)
        request.replica = replica
        request.assigned_at = now
        request.attempts += 1
        request.allot(self, now)
        self._touch()
        if self.leased:
            replica.lease(request, upstream)
        elif upstream is not None:
            upstream.answers.switching = request.websocket
            upstream.send(request, now, has_slot=True)
        else:
            replica.send(request, now)

    def release(self, replica: Replica, now: float) -> None:
        """One of its slots is free again."""
        replica.in_flight -= 1
        self.in_flight -= 1
        if not replica.in_flight and self.tally is not None:
            self.tally.busy_s += now - replica.busy_since
        self._touch()
        if self.single_use:
            # Its replica is about to be gone: told late, the same input would seem to want another one.
            self.forget_peak()
            self.shared.wanted(self)
        if replica.leases:
            replica.give_back()
        if replica.place < 0 or self.held:
            if self.held and replica.room.contended:
                replica.believe(ended(replica.room, replica.in_flight, self._asked))
            self.settle(replica)
            if self.doubted:
                self.ask()

    def forget_peak(self) -> None:
        """Report what is in flight now: work that a replica lost or refused must not seem to want another one."""
        self.peak = self.in_flight

    def again(self, request: Request, replica: Replica) -> None:
        """Take a request that was not begun away from a replica, and place it anew before all held ones."""
        request.replica = None
        request.upstream = None
        request.sent = 0
        request.sent_at = 0.0
        request.assigned_at = 0.0
        # More of its body may have come while it was on its way: what that waits for is asked anew.
        request.client.read_on(READING_HELD)
        self.release(replica, self.shared.now())
        self.forget_peak()
        if self.free:
            self._assign(request, self._fill() if self.batch_max else pick(self.free, self.shared.draw()))
        elif not self.moved(request):
            self._wait(request, first=True)

    # -- the queue ------------------------------------------------------------------------

    def _wait(self, request: Request, first: bool) -> None:
        """No slot is free: hold it, before (`first`) or behind the others, or refuse it."""
        closed = self.failing if self.closed else ""
        refusal = self.held.refusal(request, self.workload, closed, self.retry_after_s)
        if refusal is None:
            self.held.add(request, first)
            request.waited = True
            request.wait_at_most(self.shared.settings.hold_s)
            self._touch()
            self.shared.wanted(self)
            if self.doubted:
                self.ask()
        else:
            request.refuse(refusal)

    def _unhold(self, request: Request) -> None:
        self.held.take(request)
        self._touch()

    def _touch(self) -> None:
        """Its level changed."""
        if not self.dirty:
            self.dirty = True
            self.shared.touched(self)
