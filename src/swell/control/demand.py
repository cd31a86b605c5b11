"""How much is each pool wanted, by all gateways together? Absolute levels, which expire with their gateway.

The durable queue tells its own levels beside them, which do not expire: it ends with control.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from swell.model.demand import IDLE, Demand, seen
from swell.wire.link import Level

QUEUE = "queue"
"""The durable queue, where gateways have their names."""


class Heard(NamedTuple):
    """What one gateway said of one pool, and when."""

    level: Level
    at: float

    @property
    def present(self) -> int:
        return self.level.in_flight if self.level.present < 0 else self.level.present


class DemandBook:
    """Levels per gateway and pool; `demand` holds their sums by pool."""

    def __init__(self) -> None:
        self.demand: dict[str, Demand] = {}
        self._levels: dict[str, dict[str, Heard]] = {}
        self._expires_at: dict[str, float] = {}
        self._ttl_s: dict[str, float] = {}

    def report(self, gateway: str, levels: Sequence[Level], ttl_s: float, now: float) -> list[str]:
        """Take a gateway's levels in; returns the pools it spoke of.

        Those too whose level is the same again: inputs that ended before it was said are not in it any more.
        """
        own = self._levels.setdefault(gateway, {})
        self._ttl_s[gateway] = ttl_s
        self.renew(gateway, now)
        for level in levels:
            if level.held or level.in_flight:
                own[level.pool] = Heard(level, now)
            else:
                own.pop(level.pool, None)
            self._sum(level.pool, now, gateway)
        return [level.pool for level in levels]

    def renew(self, gateway: str, now: float) -> None:
        """The gateway is there; its levels stand."""
        if gateway in self._levels:
            self._expires_at[gateway] = now + self._ttl_s[gateway]

    def knows(self, gateway: str, levels: int) -> bool:
        """Whether it stands here with that many levels. What is told is taken in as it comes, so these are the same
        levels then: only forgetting a gateway makes a difference."""
        return len(self._levels.get(gateway, ())) == levels

    def expire(self, now: float) -> list[str]:
        """Forget gateways not heard within their time to live; returns the pools whose demand changed."""
        changed: list[str] = []
        for gateway in [g for g, at in self._expires_at.items() if at <= now]:
            changed += self.drop(gateway, now)
        return changed

    def drop(self, gateway: str, now: float) -> list[str]:
        """This gateway is gone, and what it held with it."""
        levels = self._levels.pop(gateway, {})
        self._expires_at.pop(gateway, None)
        self._ttl_s.pop(gateway, None)
        return [pool for pool in levels if self._sum(pool, now)]

    def next_expiry(self) -> float | None:
        at = min(self._expires_at.values(), default=math.inf)
        return at if at < math.inf else None

    def in_flight(self, pool: str, replica: str) -> int:
        """Inputs one replica works on, as the gateways last said."""
        return sum(count for id, count in self.elsewhere(pool, "") if id == replica)

    def elsewhere(self, pool: str, gateway: str) -> tuple[tuple[str, int], ...]:
        """Inputs in flight by replica, at all gateways but this one."""
        found: Counter[str] = Counter()
        for name, levels in self._levels.items():
            if name != gateway and pool in levels:
                found.update(dict(levels[pool].level.replicas))
        return tuple(found.items())

    def pools(self) -> set[str]:
        """Those of which anything was told."""
        return {pool for levels in self._levels.values() for pool in levels}

    def forget(self, pool: str) -> None:
        """The pool is gone for good."""
        self.demand.pop(pool, None)

    def _sum(self, pool: str, now: float, gateway: str = "") -> bool:
        """With the peak that this gateway tells, where one tells now, and what the others had at last beside it: peaks
        of several were not at one time."""
        held = in_flight = 0
        priorities: tuple[tuple[int, int], ...] = ()
        heard_at = now
        for name, levels in self._levels.items():
            heard = levels.get(pool)
            if heard is not None:
                held += heard.level.held
                priorities = heard.level.priorities or priorities
                in_flight += heard.level.in_flight if name == gateway else heard.present
                if heard.level.in_flight:
                    heard_at = min(heard_at, heard.at)
        before = self.demand.get(pool, IDLE)
        changed = (held, in_flight, priorities) != (before.held, before.in_flight, before.priorities)
        if changed:
            before = msgspec.structs.replace(seen(before, held, in_flight, 0, now), priorities=priorities)
        if before is not IDLE:
            self.demand[pool] = msgspec.structs.replace(before, heard_at=heard_at)
        return changed
