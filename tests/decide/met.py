"""One whose limits requests meet, for tests of the rules alone."""

from __future__ import annotations

from swell.decide.admit import Refusal
from swell.decide.limit import enter, in_flight_max, tokens_max
from swell.model.limits import Limits


class Met:
    """Nothing came to it yet."""

    def __init__(self, who: str, limits: Limits) -> None:
        self.who = who
        self.limits = limits
        self.rate_per_s = limits.rate_per_s
        self.tokens = self.tokens_max = tokens_max(limits)
        self.in_flight_max = in_flight_max(limits)
        self.at = 0.0
        self.in_flight = 0

    @property
    def left(self) -> tuple[float, float, int]:
        """All of it that requests change."""
        return self.tokens, self.at, self.in_flight


def come(met: list[Met], now: float) -> Refusal | None:
    """One request, that meets them all."""
    left = enter(met, now)
    if isinstance(left, Refusal):
        return left
    for each, tokens in zip(met, left, strict=True):
        each.tokens, each.at = tokens, now
        each.in_flight += 1
    return None
