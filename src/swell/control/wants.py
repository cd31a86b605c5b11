"""How much do queued calls want of each pool? Levels, as gateways tell theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from swell.control.hands import Hands
from swell.control.leases import Leases
from swell.control.table import TableKeeper
from swell.model.replica import Phase
from swell.model.workload import workload_of
from swell.model.world import World
from swell.wire.link import Level

TELL_S = 0.1
"""Levels are told at most this often, but for the first call that waits for a pool."""


class Wants:
    """What was told, and what is to be."""

    def __init__(
        self,
        world: World,
        rows: TableKeeper,
        leases: Leases,
        hands: Hands,
        now: Callable[[], float],
        told: Callable[[Sequence[Level]], None],
    ) -> None:
        self._world = world
        self._rows = rows
        self._leases = leases
        self._hands = hands
        self._now = now
        self._told = told
        self.levels: dict[str, Level] = {}
        """As they were last told, where they are not zero."""
        self._changed: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, workloads: Iterable[str], pools: Iterable[str] = ()) -> None:
        """What waits for these, or is at the replicas of these pools, may be otherwise."""
        soon = False
        wanted = dict.fromkeys(workloads)
        for workload in wanted:
            route = self._rows.routes.get(workload)
            if route is not None:
                self._changed[route.pool] = None
                soon |= route.pool not in self.levels and workload in self._hands.due
        self._changed.update(dict.fromkeys(pools))
        self._changed.update(dict.fromkeys(pool for pool in self.levels if workload_of(pool) in wanted))
        if soon:
            self.tell()
        elif self._changed and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_S, self.tell)

    def tell(self) -> None:
        """Now."""
        self.close()
        changed, self._changed = self._changed, {}
        levels = []
        for pool in changed:
            level = self._level(pool)
            if level == self.levels.get(pool, Level(pool, 0, 0)):
                continue
            levels.append(level)
            if level.held or level.in_flight:
                self.levels[pool] = level
            else:
                del self.levels[pool]
        if levels:
            self._told(levels)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _level(self, pool: str) -> Level:
        row, workload = self._rows.pools.get(pool), workload_of(pool)
        route = self._rows.routes.get(workload)
        held = self._hands.wanted(workload, self._now()) if route is not None and route.pool == pool else 0
        most, members = row.max_inputs if row is not None else 1, self._world.in_pool(pool)
        revision = self._world.revision(pool)
        if revision is not None and revision.gang is not None:
            # What a gang works on is one input, whoever of it is not done; one that ends is no gang of this pool.
            there = [replica.id for replica in members if replica.phase is not Phase.DRAINING]
            calls = {call.id for id in there for call in self._leases.at(id)}
            parts = tuple((id, 1) for id in there if self._leases.count(id))
            priorities = self._hands.priorities.get(workload, ()) if held else ()
            return Level(pool, held, len(calls), parts, priorities=priorities)
        counts = ((replica.id, self._leases.count(replica.id)) for replica in members)
        leased = tuple((id, min(count, most)) for id, count in counts if count)
        # Who has a suspect is given no other call: it is as if all its slots were taken.
        taken = sum(most if self._leases.has_suspect(id) else count for id, count in leased)
        return Level(pool, held, taken, leased)
