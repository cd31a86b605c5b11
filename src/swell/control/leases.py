"""Which calls are handed out, to which replicas, and until when? Control's memory of leases.

Until when one holds is stored nowhere: a new incarnation of control gives each a whole new time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from swell.model.call import Call
from swell.wire.calls import Lease

LEASE_S = 15.0
"""A call of which its runner says nothing for this long is handed out again. Longer than a runner's restart."""


class _Leased(msgspec.Struct):
    call: Call
    pool: str
    until: float


class Leases:
    """All leases there are, one for each call at most."""

    def __init__(self) -> None:
        self._leased: dict[str, _Leased] = {}
        self._by_replica: dict[str, dict[str, None]] = {}
        self._by_pool: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._leased)

    def take(self, call: Call, pool: str, now: float) -> None:
        """The call was handed out to its `replica`, which is of this pool."""
        self._leased[call.id] = _Leased(call, pool, now + LEASE_S)
        self._by_replica.setdefault(call.replica, {})[call.id] = None
        replicas = self._by_pool.setdefault(pool, {})
        replicas[call.replica] = replicas.get(call.replica, 0) + 1

    def get(self, id: str, token: int) -> Call | None:
        """The call, if that is its lease."""
        leased = self._leased.get(id)
        return leased.call if leased is not None and leased.call.token == token else None

    def end(self, id: str, token: int) -> Call | None:
        """The lease is over; the call, if that was its lease."""
        call = self.get(id, token)
        if call is None:
            return None
        pool = self._leased.pop(id).pool
        ids = self._by_replica[call.replica]
        del ids[id]
        if not ids:
            del self._by_replica[call.replica]
        replicas = self._by_pool[pool]
        replicas[call.replica] -= 1
        if not replicas[call.replica]:
            del replicas[call.replica]
        if not replicas:
            del self._by_pool[pool]
        return call

    def renew(self, leases: Iterable[Lease], now: float) -> None:
        """Their runner has these."""
        for id, token in leases:
            leased = self._leased.get(id)
            if leased is not None and leased.call.token == token:
                leased.until = now + LEASE_S

    def expired(self, now: float) -> list[Call]:
        """Those that were not renewed in time; they stand until they are ended."""
        return [leased.call for leased in self._leased.values() if leased.until <= now]

    def at(self, replica: str) -> list[Call]:
        """Those of one replica, in the order in which they were handed out."""
        return [self._leased[id].call for id in self._by_replica.get(replica, ())]

    def by_replica(self, pool: str) -> dict[str, int]:
        """How many each replica of a pool has, where it has any."""
        return dict(self._by_pool.get(pool, {}))

    def replicas(self) -> Iterator[str]:
        """Those that have any."""
        yield from self._by_replica
