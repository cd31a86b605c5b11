"""Does each version get the share of requests that it was given? Counted for each division, and over all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from swell.wire.link import Route

Percents = tuple[tuple[str, float], ...]
"""Pool and share."""
SIGMAS = 6.0
"""So far from what is expected chance does not get, in as many runs as anybody will make."""
FEW = 3
"""Requests too many or too few that say nothing: of few requests the rare ones are less rare than that."""


class Shares:
    """Where the requests of divided workloads went. Each is drawn by itself."""

    def __init__(self) -> None:
        self.counted = 0
        self._counts: dict[tuple[str, Percents], Counter[str]] = {}

    def count(self, route: Route, pool: str) -> None:
        """One request went to this pool."""
        if route.branches:
            self.counted += 1
            self._counts.setdefault((route.key, percents(route)), Counter())[pool] += 1

    def wrong(self) -> Iterator[str]:
        """What has not what it should have."""
        off = variance = 0.0
        for (key, shares), counts in self._counts.items():
            total = counts.total()
            for pool, percent in shares:
                expected, spread = total * percent / 100, total * percent / 100 * (1 - percent / 100)
                if abs(counts[pool] - expected) > SIGMAS * math.sqrt(spread) + FEW:
                    yield f"{pool} of {key} got {counts[pool]} of {total} requests; its share is {percent:g} %"
            # The last by itself: it has what the others leave.
            off += counts[pool] - expected
            variance += spread
        if abs(off) > SIGMAS * math.sqrt(variance) + FEW:
            yield f"versions got {off:+.0f} requests more than their shares, all in all"


def percents(route: Route) -> Percents:
    """What each pool is to have; the last has what the others leave."""
    beside = tuple((branch.pool, branch.percent) for branch in route.branches)
    return (*beside, (route.pool, 100.0 - sum(percent for _, percent in beside)))
