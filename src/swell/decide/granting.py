"""Which replicas of a pool are given queued calls now, and how many each? And how many are wanted for the rest? Pure.

A replica gets as many as it has slots free, and a hand of further ones that wait beside it, so that a short call is
followed by the next at once. Who waits in a hand waits for this replica alone: a hand is what it does in `HAND_S`.

A suspect, which may be what ended its last replica (`Call.is_suspect`), goes to a replica that has no call, and no
other goes there until it is over. Where it is the first that is due, and every replica has calls, one of them is given
no more: else there might never be one without.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection

import msgspec

HAND_S = 0.05
"""What waits in a hand waits about so long. Some times as long as it takes to record an end and send the next call."""
HAND_MAX = 64
DRAIN_S = 1.0
"""So many slots are wanted that what waits now would be begun within this time."""


class Taker(msgspec.Struct, frozen=True):
    """A ready replica."""

    replica: str
    leased: int
    """Calls that it was given and that are not over."""
    in_flight: int
    """Other inputs there, as the gateways last said."""
    has_suspect: bool = False
    """A call that is to have none beside it."""


def hand(max_inputs: int, mean_run_s: float | None) -> int:
    """How many calls may wait beside a replica. None while it is not known how long a call takes (`mean_run_s`)."""
    if mean_run_s is None or mean_run_s >= HAND_S:
        return 0
    if max_inputs * HAND_S >= HAND_MAX * mean_run_s:
        return HAND_MAX
    return math.ceil(max_inputs * HAND_S / mean_run_s)


def slots_wanted(waiting: int, run_s: float, suspects: int = 0, max_inputs: int = 1) -> int:
    """How many slots what waits is worth: one each for calls that take long, and one for many short ones; and all of a
    replica for each of the suspects among them. `run_s`: how long a call takes; at least, where that is not known
    yet."""
    slots = min(waiting, max(1, math.ceil(waiting * run_s / DRAIN_S))) if waiting > 0 else 0
    return slots + min(suspects, slots) * (max_inputs - 1)


def grants(
    due: int, takers: Collection[Taker], max_inputs: int, hand: int, suspects: int = 0, suspect_first: bool = False
) -> dict[str, int]:
    """How many of the calls that are due go to which replica; who gets none is not named. One that has no call may get
    one of the `suspects` among them instead, alone. `suspect_first`: the first of all is one.

    The least loaded is given one first. Where gateways keep all slots busy one call waits in line for a slot all
    the same.
    """
    given: dict[str, int] = {}
    takers = [taker for taker in takers if not taker.has_suspect]
    others = max(due - suspects, 0)
    if suspect_first and takers:
        first = min(takers, key=lambda taker: (taker.leased, taker.in_flight, taker.replica))
        takers.remove(first)
        if not first.leased:
            given[first.replica] = 1
            due -= 1
    heap = [
        (taker.leased + taker.in_flight, taker.replica, room)
        for taker in takers
        if (room := _room(taker, max_inputs, hand)) > 0
    ]
    heapq.heapify(heap)
    idle = {taker.replica for taker in takers if not taker.leased}
    while heap and due > 0:
        load, replica, room = heap[0]
        if not others and replica not in idle - given.keys():
            # Only suspects are left, and it has, or gets, something.
            heapq.heappop(heap)
            continue
        due -= 1
        others = max(others - 1, 0)
        given[replica] = given.get(replica, 0) + 1
        if room > 1:
            heapq.heapreplace(heap, (load + 1, replica, room - 1))
        else:
            heapq.heappop(heap)
    return given


def _room(taker: Taker, max_inputs: int, hand: int) -> int:
    """So many more may be leased to it."""
    return max(max_inputs + hand - taker.in_flight, 1) - taker.leased
