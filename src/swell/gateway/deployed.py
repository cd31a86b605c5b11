"""What is deployed, as control told it last? Routes, pools and limits; what waits follows the traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from swell.decide.route import Routes
from swell.gateway.door import Door
from swell.gateway.gate import Gate
from swell.gateway.pool import Pool
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.gateway.tunnel import Tunnel
from swell.gateway.wanting import Wanting
from swell.model.limits import UNLIMITED
from swell.model.variant import base_of, is_variant
from swell.model.workload import shown as shown_as
from swell.wire.link import PoolRow, Route, Table, TableDelta


class Deployed:
    """The gateway's table. It goes on with the last one when control is away.

    `changed` is called when a target may mean something else now; `follow` is given each request that has to come in
    anew, since its pool has its workload's traffic no more.
    """

    def __init__(
        self, shared: Shared, door: Door, changed: Callable[[], None], follow: Callable[[Request], None]
    ) -> None:
        self.shared = shared
        self.door = door
        self.changed = changed
        self.follow = follow
        self.told = asyncio.Event()
        """A table was heard. Before that nothing can be said to be unknown."""
        self.version = 0
        self.rows: dict[str, Route] = {}
        self.routes = Routes()
        self.pools: dict[str, Pool] = {}
        self.leaving: dict[str, Pool] = {}
        """Pools control has removed that still run requests or owe a final report."""
        self.gates: dict[str, Gate] = {}
        """Limits of workloads that have any, by the workload's key."""
        self.wanting = Wanting(shared, follow)
        """Requests with parameters that nobody gave before."""
        self.gateways = 1
        """How many are connected to control, and share those."""

    def take_table(self, table: Table) -> None:
        """Replace everything. Pools that stay keep what they hold and run."""
        self.shared.prices = table.prices
        self._hear_clock(table.at)
        self.gateways = table.gateways
        self.door.take(table.keys, table.gateways, whole=True)
        self.end_sessions()
        listed = {row.pool for row in table.pools}
        gone = [pool for pool in self.pools if pool not in listed]
        self._take(table.pools, gone, {row.key: row for row in table.routes}, changed=True)
        self.version = table.version
        self.told.set()

    def take_delta(self, delta: TableDelta) -> bool:
        """Take in changed rows; False when it does not follow what is here, and a whole table is needed."""
        if delta.base != self.version:
            return False
        self._hear_clock(delta.at)
        rows = self.rows
        changed = bool(delta.routes or delta.gone_routes)
        if changed:
            rows = {key: row for key, row in rows.items() if key not in delta.gone_routes}
            rows.update((row.key, row) for row in delta.routes)
        self.gateways = delta.gateways or self.gateways
        if delta.keys or delta.gateways:
            self.door.take(delta.keys, self.gateways, whole=False)
        if delta.keys:
            self.end_sessions()
        if delta.gateways:
            self._set_gates()
        self._take(delta.pools, delta.gone_pools, rows, changed)
        self.version = delta.version
        return True

    def _take(
        self, pools: tuple[PoolRow, ...], gone: tuple[str, ...] | list[str], rows: dict[str, Route], changed: bool
    ) -> None:
        self.leaving = {name: pool for name, pool in self.leaving.items() if pool.in_flight or pool.dirty}
        for row in pools:
            # Reuse a leaving pool of that name: two would overwrite each other's demand.
            pool = self.pools.get(row.pool) or self.leaving.pop(row.pool, None)
            if pool is None:
                self.pools[row.pool] = Pool(self.shared, row, self._moved)
            else:
                self.pools[row.pool] = pool
                pool.update(row)
        left = [self.pools.pop(name) for name in gone if name in self.pools]
        if changed:
            before, self.rows = self.rows, rows
            self.routes = Routes(rows.values())
            self._set_gates()
            left += [self.pools[name] for name in _moved_off(before, rows) if name in self.pools]
            for key in before.keys() - rows.keys():
                self.shared.ledger.counts.retire(key)
        if changed or left:
            self.changed()
        for pool in left:
            pool.part()
            if pool.workload not in self.rows:
                self.shared.ledger.counts.retire(pool.workload)
            if pool.key not in self.pools:
                self.leaving[pool.key] = pool
                pool.close()
            for request in pool.take_held():
                self.follow(request)
        if changed and self.wanting.wants:
            self.wanting.changed()

    def _hear_clock(self, at: float) -> None:
        """It is `at` for control; 0: it did not say."""
        if at:
            self.shared.control_ahead_s = at - self.shared.wall()

    def gate(self, workload: str) -> Gate | None:
        """The limits of a workload, which are for all its variants together."""
        return self.gates.get(base_of(workload))

    def end_sessions(self) -> None:
        """Have those WebSockets end whose key opens nothing any more: they would have no end of their own."""
        for tunnel in [*self._tunnels()]:
            refused = self.shared.ended(tunnel.request.key)
            if refused is not None:
                tunnel.refuse(refused)

    def _tunnels(self) -> Iterator[Tunnel]:
        for pool in (*self.pools.values(), *self.leaving.values()):
            for replica in (*pool.replicas.values(), *pool.ending):
                yield from replica.tunnels

    def take_elsewhere(self, pools: Mapping[str, tuple[tuple[str, int], ...]]) -> None:
        """What other gateways have in flight, by replica."""
        for key, loads in pools.items():
            pool = self.pools.get(key)
            if pool is not None:
                pool.take_elsewhere(dict(loads))

    def _set_gates(self) -> None:
        """Limits as the routes have them now. What was used of those that stay is used."""
        before, self.gates = self.gates, {}
        now, gateways = self.shared.now(), self.gateways
        for key, row in self.rows.items():
            if row.limits != UNLIMITED and not is_variant(key):
                gate = self.gates[key] = before.get(key) or Gate(shown_as(key), row.limits, gateways, now)
                gate.set(row.limits, gateways, now)

    def _moved(self, request: Request) -> bool:
        """Whether the pool it was in lost its workload's traffic; it came in anew then."""
        old = request.pool
        assert isinstance(old, Pool)
        row = self.rows.get(old.workload)
        if row is not None and old.key in self.pools and (row.pool == old.key or old.key in row.pools):
            return False
        self.follow(request)
        return True


def _moved_off(before: dict[str, Route], after: dict[str, Route]) -> Iterator[str]:
    """Pools that requests of their workload go to no longer."""
    for key, row in before.items():
        now = after.get(key)
        if now is not row:
            yield from sorted(row.pools - (now.pools if now is not None else set()))
