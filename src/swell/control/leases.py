"""Which calls are handed out, to which replicas, and until when? Control's memory of leases.

Until when one holds is stored nowhere: a new incarnation of control gives each a whole new time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from swell.model.call import Call
from swell.model.workload import Revision
from swell.wire.calls import Lease, Progress, Running

LEASE_S = 15.0
"""A call of which its runner says nothing for this long is doubted: its runner is asked for anew or, where its replica
is not known, the call is handed out again. Longer than a runner's restart."""
GONE_S = 3.0
"""When its replica is gone, after this long: a runner that has it still says so within 2 s, and what came of it."""


K = TypeVar("K")


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
    """All leases there are: one for each call at most, or one for each member of the gang that works on it."""

    def __init__(self) -> None:
        self._leased: dict[Lease, _Leased] = {}
        self._tokens: dict[str, dict[int, None]] = {}
        """By call."""
        self._by_replica: dict[str, dict[Lease, None]] = {}

    def __len__(self) -> int:
        """Calls that are handed out."""
        return len(self._tokens)

    def take(self, call: Call, now: float) -> None:
        """The call was handed out to its `replica`. Its leases before are over, where it had any."""
        for token in list(self._tokens.get(call.id, ())):
            self.end(call.id, token)
        self.join(call, now)

    def join(self, call: Call, now: float) -> None:
        """It was handed out to this one, too; `call` is with the token and the replica of this lease."""
        lease = call.id, call.token
        self.end(*lease)
        self._leased[lease] = _Leased(call, now + LEASE_S)
        self._tokens.setdefault(call.id, {})[call.token] = None
        self._by_replica.setdefault(call.replica, {})[lease] = None

    def get(self, id: str, token: int) -> Call | None:
        """The call, if that is a lease of it."""
        leased = self._leased.get((id, token))
        return leased.call if leased is not None else None

    def of(self, id: str) -> list[Call]:
        """All leases of a call."""
        return [self._leased[id, token].call for token in self._tokens.get(id, ())]

    def others(self, calls: Iterable[Call]) -> list[Call]:
        """A lease of each call that is none of these."""
        ids = {call.id for call in calls}
        return [self._leased[id, next(iter(tokens))].call for id, tokens in self._tokens.items() if id not in ids]

    def end(self, id: str, token: int) -> Call | None:
        """The lease is over; the call, if that was a lease of it."""
        leased = self._leased.pop((id, token), None)
        if leased is None:
            return None
        _remove(self._tokens, id, token)
        _remove(self._by_replica, leased.call.replica, (id, token))
        return leased.call

    def renew(self, leases: Iterable[Lease], now: float) -> list[Lease]:
        """Their runner has these; returns those that are no leases."""
        unknown = []
        for lease in leases:
            leased = self._leased.get(lease)
            if leased is not None:
                leased.until = now + LEASE_S
                leased.heard_at = now
            else:
                unknown.append(lease)
        return unknown

    def run(self, running: Iterable[Running]) -> None:
        """Their runner says how these run."""
        for each in running:
            leased = self._leased.get((each.id, each.token))
            if leased is not None:
                leased.running = each

    def seen(self, call: Call, revision: Revision | None) -> Seen:
        """How the call is, as its runner said last. `revision`: what it runs."""
        leased = self._leased.get((call.id, call.token))
        if leased is None:
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
        for lease in self._by_replica.get(replica, ()):
            leased = self._leased[lease]
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
        return [self._leased[lease].call for lease in self._by_replica.get(replica, ())]

    def has(self, workload: str) -> bool:
        """Is anything of it handed out?"""
        return any(self._leased[next(iter(leases))].call.workload == workload for leases in self._by_replica.values())

    def count(self, replica: str) -> int:
        """How many one replica has."""
        return len(self._by_replica.get(replica, ()))

    def has_suspect(self, replica: str) -> bool:
        """Is the one call that it has one that is to have none beside it?"""
        first = next(iter(self._by_replica.get(replica, ())), None)
        return first is not None and self._leased[first].call.is_suspect

    def replicas(self) -> Iterator[str]:
        """Those that have any."""
        yield from self._by_replica


def _remove(index: dict[str, dict[K, None]], key: str, value: K) -> None:
    """Take one out; where none is left the key goes, too."""
    values = index[key]
    del values[value]
    if not values:
        del index[key]
