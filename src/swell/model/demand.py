"""How much a pool is wanted right now: soft, absolute levels that gateways report and that expire."""

from __future__ import annotations

import msgspec


class Demand(msgspec.Struct, frozen=True):
    """The level of one pool, summed over gateways, with the peaks that scaling down looks at."""

    held: int = 0
    """Requests waiting at a gateway for a free slot."""
    in_flight: int = 0
    """Requests being worked on."""
    queued: int = 0
    """Calls waiting in the durable queue; 0 until there is one."""
    used_at: float = 0.0
    """Last time any of the above was above zero (seconds since the epoch); 0 = never."""
    heard_at: float = 0.0
    """When a gateway last spoke of it: what ended after that is still in the level."""
    peaks: tuple[tuple[float, int], ...] = ()
    """(time, level) with falling levels: the maxima of every window that ends now."""
    priorities: tuple[tuple[int, int], ...] = ()
    """(priority, how many of what waits have it), the highest first: where gangs work on it."""

    @property
    def level(self) -> int:
        return self.held + self.in_flight + self.queued

    def peak_within(self, window_s: float, now: float) -> int:
        """The highest level of the last `window_s`. A level that ended `window_s` ago no longer counts.

        It is the sum `at + window_s` that is compared, as by whoever asks when a peak will have passed: the
        difference `now - window_s` rounds otherwise, and at that very moment one would say "not yet" and the other
        "nothing to wait for".
        """
        best = self.level
        for at, level in self.peaks:
            if at + window_s > now and level > best:
                best = level
        return best


IDLE = Demand()

REPORT_LAG_S = 0.5
"""By this age an event is reflected in the reported levels (gateways report every 0.1 s)."""

PEAKS_MAX = 32
"""Distinct peaks remembered. Beyond it the two oldest become one, the higher level at the later time:
capacity then leaves later, never sooner."""


def seen(before: Demand, held: int, in_flight: int, queued: int, now: float) -> Demand:
    """`before` with a new level at `now`. A peak holds until the moment the level falls below it."""
    level = held + in_flight + queued
    peaks = [*before.peaks]
    if before.level > level:
        # The old level held until now: that is when its idle time starts.
        while peaks and peaks[-1][1] <= before.level:
            peaks.pop()
        peaks.append((now, before.level))
    while peaks and peaks[-1][1] <= level:
        peaks.pop()
    if len(peaks) > PEAKS_MAX:
        peaks[0:2] = [(peaks[1][0], peaks[0][1])]
    used_at = now if level or before.level else before.used_at
    return Demand(held, in_flight, queued, used_at, now, tuple(peaks))
