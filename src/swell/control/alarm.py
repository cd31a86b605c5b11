"""When is something to be looked at again? The earliest moment that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swell.model.ports import Clock

LEAST_S, MOST_S = 0.001, 3600.0


class Alarm:
    """One timer."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        """`ring` says `rang` first."""
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def by(self, at: float) -> None:
        """Ring by then, in seconds since the epoch; or in an hour, where that is sooner."""
        if self._timer is not None and self._at <= at:
            return
        self.close()
        self._at = at
        delay_s = min(max(at - self._clock.now(), LEAST_S), MOST_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def rang(self) -> float:
        """It rang, or who has it looks unasked: seconds by which that is later than it was to be."""
        self._timer = None
        return self._clock.now() - self._at

    def close(self) -> None:
        """It does not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
