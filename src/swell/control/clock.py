"""What time is it? The machine's clock, kept from going back, and from standing still where that was set back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PACE_BEHIND = 0.5
"""Once the machine's clock was set back, this one goes at that pace until it is caught up with: what waits for a time
waits twice as long meanwhile, and not until the old time has come again."""


class SystemClock:
    """The `Clock` port."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        pace_behind: float | None = None,
    ) -> None:
        """`wall`: the machine's clock, seconds since the epoch. `ticks`: seconds since any time, that nobody sets.
        `pace_behind`: instead of the usual; 0 where nothing is to be due before its time by the calendar has come."""
        self._wall = wall
        self._ticks = ticks
        self._pace = PACE_BEHIND if pace_behind is None else pace_behind
        self._lock = threading.Lock()
        self._now = 0.0
        self._ticked = ticks()

    def now(self) -> float:
        """Seconds since the epoch. Any thread may ask."""
        with self._lock:
            ticked = self._ticks()
            slowly = self._now + (ticked - self._ticked) * self._pace
            self._now, self._ticked = max(self._wall(), slowly), ticked
            return self._now
