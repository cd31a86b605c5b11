"""Whose time is up? One coarse timer for every deadline and timeout of a gateway.

Things due are kept in slots of `TICK_S`; adding and taking away cost the same however many there are,
and no timer runs while nothing is waiting. Something due is told at most one tick late, never early.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

log = logging.getLogger("swell.gateway")

TICK_S = 0.05


class Timed(Protocol):
    """Something that wants to be told when a moment has passed."""

    slot: set[Timed] | None
    """Where the wheel keeps it; None while it waits for nothing."""

    def due(self, now: float) -> None: ...


class Wheel:
    """Slots of things by the moment (seconds, of the loop's clock) they are due. Each thing is in it at most once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._turned = 0
        """Last slot that was emptied."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, thing: Timed, at: float) -> None:
        """Tell `thing` once `at` has passed, instead of when it was to be told before."""
        if thing.slot is not None:
            thing.slot.discard(thing)
        if self._timer is None:
            self._turned = int(time.monotonic() / TICK_S)
            self._timer = self._loop.call_at((self._turned + 1) * TICK_S, self._turn)
        number = int(at / TICK_S) + 1
        if number <= self._turned:
            number = self._turned + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
        slot.add(thing)
        thing.slot = slot

    def discard(self, thing: Timed) -> None:
        """`thing` waits for nothing any more."""
        if thing.slot is not None:
            thing.slot.discard(thing)
            thing.slot = None

    def _turn(self) -> None:
        now = time.monotonic()
        last = int(now / TICK_S)
        # After a long stall only slots that exist are looked at, in the order of their time.
        for number in range(self._turned + 1, last + 1) if last - self._turned < 100 else sorted(self._slots):
            if number > last:
                break
            self._turned = number
            for thing in self._slots.pop(number, ()):
                thing.slot = None
                # One that fails must not end everyone's time.
                try:
                    thing.due(now)
                except Exception:
                    log.exception("what was due at its time failed")
        self._turned = last
        if self._slots:
            self._timer = self._loop.call_at((last + 1) * TICK_S, self._turn)
        else:
            self._timer = None
