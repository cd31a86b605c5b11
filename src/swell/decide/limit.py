"""May one more request of a key, or to a workload, come in now, and if not, when may it be sent again?

A rate is a token bucket: `burst` tokens at most, one taken by each request, filled at the rate. Whoever finds none is
told when the next is there. What is not bounded has endless tokens, so that a request asks nothing first. Pure: who is
asked stays as it is, and being let in gives what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from swell.decide.admit import Refusal
from swell.model.limits import Limits

EXACT = 1e-9
"""A token that lacks no more than this is there: sums of floats are not exact."""


class Entrant(Protocol):
    """One whose limits a request meets on its way in, and what is left of them."""

    @property
    def who(self) -> str:
        """In words: "the key ci (abcd2345)"."""
        ...

    @property
    def limits(self) -> Limits: ...

    @property
    def rate_per_s(self) -> float:
        """Of the limits, as the next two are: here, since each request asks for them."""
        ...

    @property
    def tokens_max(self) -> float: ...

    @property
    def in_flight_max(self) -> float: ...

    @property
    def tokens(self) -> float: ...

    @property
    def at(self) -> float:
        """When it had so many, on a clock that never goes back."""
        ...

    @property
    def in_flight(self) -> int: ...


def tokens_max(limits: Limits) -> float:
    """How many tokens there can be."""
    return float(limits.burst_max) if limits.rate_per_s else math.inf


def in_flight_max(limits: Limits) -> float:
    """How many requests can be under way."""
    return limits.concurrency or math.inf


def enter(met: Sequence[Entrant], now: float) -> list[float] | Refusal:
    """The tokens that each has left after one more request, or why it may not come in: then none of any is used."""
    for each in met:
        if each.in_flight >= each.in_flight_max:
            return _too_many(each)
    left = []
    for each in met:
        tokens = each.tokens + (now - each.at) * each.rate_per_s
        if tokens > each.tokens_max:
            tokens = each.tokens_max
        elif tokens < 1.0 - EXACT:
            return _too_fast(each, (1.0 - tokens) / each.rate_per_s)
        left.append(tokens - 1.0)
    return left


def spare(met: Entrant, now: float) -> int:
    """How many more requests may come at once by the rate, which there is; how many are under way does not matter."""
    tokens = min(met.tokens + (now - met.at) * met.rate_per_s, met.tokens_max)
    return max(int(tokens + EXACT), 0)


def changed(before: Entrant, after: Limits, now: float) -> float:
    """The tokens once there are other limits: nothing that was used is given back, nothing more than fits stays."""
    if not after.rate_per_s:
        return math.inf
    return min(before.tokens + (now - before.at) * before.rate_per_s, before.tokens_max, tokens_max(after))


def share(limits: Limits, gateways: int) -> Limits:
    """What one of several gateways may let in, so that all together keep the limit; of a count at least one."""
    if gateways <= 1 or not (limits.rate_per_s or limits.concurrency):
        return limits
    return msgspec.structs.replace(
        limits,
        rate_per_s=limits.rate_per_s / gateways,
        burst=max(limits.burst_max // gateways, 1) if limits.rate_per_s else 0,
        concurrency=max(limits.concurrency // gateways, 1) if limits.concurrency else 0,
    )


def _too_many(entrant: Entrant) -> Refusal:
    words = (
        f"{entrant.limits.concurrency} requests of {entrant.who} are under way, which is the most that may be "
        "(concurrency). Send it again when one has ended."
    )
    return Refusal(429, "too_many_in_flight", words, 1)


def _too_fast(entrant: Entrant, seconds: float) -> Refusal:
    limits = entrant.limits
    words = (
        f"Requests of {entrant.who} come faster than they may: {rate_text(limits.rate_per_s)}, "
        f"{limits.burst_max} at once. Send it again when Retry-After says."
    )
    return Refusal(429, "rate_limited", words, max(math.ceil(seconds - EXACT), 1))


def rate_text(per_s: float) -> str:
    """A rate as people write it: the largest unit in which it is at least one request."""
    for unit, seconds in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if per_s * seconds >= 1.0 - EXACT:
            return f"{per_s * seconds:g}/{unit}"
    return f"{per_s * 86_400.0:g}/day"
