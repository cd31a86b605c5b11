"""May one more request of a key, or to a workload, come in now, and if not, when may it be sent again?

A rate is a token bucket: `burst` tokens at most, one taken by each request, filled at the rate. Whoever finds none is
told when the next is there. Pure: a level is a value, and being let in gives the next one.
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


class Level(msgspec.Struct, frozen=True):
    """What is left of one key's or one workload's limits."""

    tokens: float
    at: float
    """When there were so many, on a clock that never goes back."""
    in_flight: int = 0


class Entrant(Protocol):
    """One whose limits a request meets on its way in."""

    @property
    def who(self) -> str:
        """In words: "the key ci (abcd2345)"."""
        ...

    @property
    def limits(self) -> Limits: ...

    @property
    def level(self) -> Level: ...


def full(limits: Limits, now: float) -> Level:
    """Where nothing came yet."""
    return Level(float(limits.burst_max), now)


def enter(met: Sequence[Entrant], now: float) -> list[Level] | Refusal:
    """The levels after one more request, or why it may not come in: then nothing of any level is used."""
    for each in met:
        most = each.limits.concurrency
        if most and each.level.in_flight >= most:
            words = f"{most} requests of {each.who} are under way, which is the most that may be (concurrency)."
            return Refusal(429, "too_many_in_flight", f"{words} Send it again when one has ended.", 1)
    levels = []
    for each in met:
        filled = _filled(each.limits, each.level, now)
        if each.limits.rate_per_s:
            if filled < 1.0 - EXACT:
                return _too_fast(each, wait_s(each.limits, each.level, now))
            filled = max(filled - 1.0, 0.0)
        levels.append(Level(filled, now, each.level.in_flight + 1))
    return levels


def leave(level: Level) -> Level:
    """The level after one of its requests has ended."""
    return Level(level.tokens, level.at, level.in_flight - 1)


def changed(before: Limits, after: Limits, level: Level, now: float) -> Level:
    """The level once there are other limits: nothing that was used is given back, nothing more than fits stays."""
    if not before.rate_per_s:
        return Level(float(after.burst_max), now, level.in_flight)
    return Level(min(_filled(before, level, now), float(after.burst_max)), now, level.in_flight)


def wait_s(limits: Limits, level: Level, now: float) -> float:
    """Until a token is there; 0.0 if one is."""
    if not limits.rate_per_s:
        return 0.0
    return max((1.0 - _filled(limits, level, now)) / limits.rate_per_s, 0.0)


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


def _filled(limits: Limits, level: Level, now: float) -> float:
    """Tokens by now."""
    gained = max(now - level.at, 0.0) * limits.rate_per_s
    return min(level.tokens + gained, float(limits.burst_max))


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
