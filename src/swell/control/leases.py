"""Which calls are handed out, to which replicas, and until when? Control's memory of leases.

Until when one holds is stored nowhere: a new incarnation of control gives each a whole new time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from swell.model.call import Call
from swell.model.workload import Revision
from swell.wire.calls import Lease, Progress, Running

LEASE_S = 15.0
"""A call of which its runner says nothing for this long is handed out again. Longer than a runner's restart."""
GONE_S = 3.0
"""When its replica is gone, after this long: a runner that has it still says so within 2 s, and what came of it."""


class _Leased(msgspec.Struct):
    call: Call
    until: float
    gone: bool = False
    """Its replica is."""
    heard_at: float | None = None
    """When its runner said last that it has it."""
    running: Running | None = None
    """What its runner said last of how it runs; None: it is not known to."""


class Seen(NamedTuple):
    """What is known of how a call runs. Times in seconds since the epoch."""

    heard_at: float | None = None
    begun_at: float | None = None
    deadline_at: float | None = None
    progress: Progress | None = None


class Leases:
    """All leases there are, one for each call at most."""

    def __init__(self) -> None:
        self._leased: dict[str, _Leased] = {}
        self._by_replica: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._leased)

    def take(self, call: Call, now: float) -> None:
        """The call was handed out to its `replica`. Its lease before is over, where it had one."""
        before = self._leased.get(call.id)
        if before is not None:
            self.end(call.id, before.call.token)
        self._leased[call.id] = _Leased(call, now + LEASE_S)
        self._by_replica.setdefault(call.replica, {})[call.id] = None

    def get(self, id: str, token: int) -> Call | None:
        """The call, if that is its lease."""
        leased = self._leased.get(id)
        return leased.call if leased is not None and leased.call.token == token else None

    def end(self, id: str, token: int) -> Call | None:
        """The lease is over; the call, if that was its lease."""
        call = self.get(id, token)
        if call is None:
            return None
        del self._leased[id]
        ids = self._by_replica[call.replica]
        del ids[id]
        if not ids:
            del self._by_replica[call.replica]
        return call

    def renew(self, leases: Iterable[Lease], now: float) -> list[Lease]:
        """Their runner has these; returns those that are no leases."""
        unknown = []
        for id, token in leases:
            leased = self._leased.get(id)
            if leased is not None and leased.call.token == token:
                leased.until = now + LEASE_S
                leased.heard_at = now
            else:
                unknown.append((id, token))
        return unknown

    def run(self, running: Iterable[Running]) -> None:
        """Their runner says how these run."""
        for each in running:
            leased = self._leased.get(each.id)
            if leased is not None and leased.call.token == each.token:
                leased.running = each

    def seen(self, call: Call, revision: Revision | None) -> Seen:
        """How the call is, as its runner said last. `revision`: what it runs."""
        leased = self._leased.get(call.id)
        if leased is None or leased.call.token != call.token:
            return Seen()
        if leased.running is None:
            return Seen(leased.heard_at)
        begun_at, progress = leased.running.begun_at, leased.running.progress
        deadline_at = begun_at + call.timeout_s
        if revision is not None and revision.gives_time:
            deadline_at = min(deadline_at, (progress.at if progress is not None else begun_at) + revision.timeout_s)
        return Seen(leased.heard_at, begun_at, deadline_at, progress)

    def spare(self, now: float) -> None:
        """Nobody could be heard for a while, by no fault of theirs: each has a whole new time."""
        for leased in self._leased.values():
            leased.until = now + (GONE_S if leased.gone else LEASE_S)

    def gone(self, replica: str, now: float) -> None:
        """The replica is gone: what is not renewed from now on was lost with it."""
        for id in self._by_replica.get(replica, ()):
            leased = self._leased[id]
            if not leased.gone:
                leased.gone = True
                leased.until = min(leased.until, now + GONE_S)

    def expired(self, now: float) -> list[tuple[Call, bool]]:
        """Those that were not renewed in time, and whether their replica is gone. They stand until they are ended, and
        are told again should that not have come after as long."""
        found = []
        for leased in self._leased.values():
            if leased.until <= now:
                leased.until = now + LEASE_S
                found.append((leased.call, leased.gone))
        return found

    def at(self, replica: str) -> list[Call]:
        """Those of one replica, in the order in which they were handed out."""
        return [self._leased[id].call for id in self._by_replica.get(replica, ())]

    def count(self, replica: str) -> int:
        """How many one replica has."""
        return len(self._by_replica.get(replica, ()))

    def replicas(self) -> Iterator[str]:
        """Those that have any."""
        yield from self._by_replica
