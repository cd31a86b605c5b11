"""Whose time is up? One coarse timer for every deadline and timeout of a gateway.

Things due are kept in slots of `TICK_S`; adding and taking away cost next to nothing however many there are.
The timer is set for the first slot that has something in it, and not for every tick: a gateway without callers
sleeps, and one whose callers only keep their connections looks at each of them once a second. Something due is told at
most one tick late, never early.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("swell.gateway")

TICK_S = 0.05


class Timed(Protocol):
    """Something that wants to be told when a moment has passed."""

    slot: Slot | None
    """Where the wheel keeps it; None while it waits for nothing."""

    def due(self, now: float) -> None: ...


Slot = dict[Timed, None]
"""Things due at about the same time. Not a set: their order is then the same in each run of the same things."""


class Wheel:
    """Slots of things by the moment (seconds, of the loop's clock) they are due. Each thing is in it at most once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is the loop's clock, but exact."""
        self._loop = loop
        self._now = now
        self._slots: dict[int, Slot] = {}
        self._order: list[int] = []
        """The numbers of all slots, as a heap. What is taken away may leave an empty slot behind: it goes once it
        is the first."""
        self._turned = 0
        """Last slot whose time has come."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_for = 0
        """The slot that the timer is set for."""

    def add(self, thing: Timed, at: float) -> None:
        """Tell `thing` once `at` has passed, instead of when it was to be told before."""
        if thing.slot is not None:
            thing.slot.pop(thing, None)
        number = max(int(at / TICK_S), self._turned) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heapq.heappush(self._order, number)
        slot[thing] = None
        thing.slot = slot
        if self._timer is None or number < self._timer_for:
            self._set_timer(number)

    def discard(self, thing: Timed) -> None:
        """`thing` waits for nothing any more."""
        if thing.slot is not None:
            thing.slot.pop(thing, None)
            thing.slot = None

    def _set_timer(self, number: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_for = number
        self._timer = self._loop.call_at(number * TICK_S, self._turn)

    def _turn(self) -> None:
        now = self._now()
        # A clock may say exactly the time of the slot, and its quotient be a little less.
        self._turned = int(now / TICK_S + 1e-6)
        # Until the end no other timer is set: all that is added meanwhile belongs to a later slot.
        self._timer_for = 0
        order = self._order
        while order and (order[0] <= self._turned or not self._slots[order[0]]):
            slot = self._slots.pop(heapq.heappop(order))
            # Taken one by one: what is told may take others of this slot away. One that fails must not end
            # everyone's time.
            while slot:
                thing, _ = slot.popitem()
                thing.slot = None
                try:
                    thing.due(now)
                except Exception:
                    log.exception("what was due at its time failed")
        self._timer = None
        if order:
            self._set_timer(order[0])
