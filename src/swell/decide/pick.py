"""Which of a pool's free replicas takes the next request? The less loaded of two drawn at random.

Two choices keep the longest queue short without looking at all of them, and unlike "always the least
loaded" they do not send a herd to one replica when several gateways see the same stale loads.

Where inputs are worked on in batches, the replica that got the last one gets the next ones too until their number
fills a batch: spread over all replicas they would be worked on in twos and threes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """Anything with a number of requests under way."""

    in_flight: int
    elsewhere: int
    """Those of other gateways, as they were last told."""


L = TypeVar("L", bound=Loaded)


def fills(last: Loaded, batch_max: int) -> bool:
    """Is the replica that got the last request to get this one, too, where up to `batch_max` are worked on together?"""
    return last.in_flight % batch_max != 0


def pick(free: Sequence[L], draw: float) -> L:
    """One of `free` (never empty; each has a slot left). `draw` is uniform in [0, 1)."""
    count = len(free)
    if count == 1:
        return free[0]
    # One draw gives an ordered pair of different places, each pair as likely as any other.
    first, second = divmod(int(draw * count * (count - 1)), count - 1)
    if second >= first:
        second += 1
    one, other = free[first], free[second]
    return one if one.in_flight + one.elsewhere <= other.in_flight + other.elsewhere else other
