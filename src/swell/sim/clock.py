"""What happens next, and when? A clock that jumps to what is due next; beside it what machines take for the time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

EPOCH_S = 1000.0
"""What a clock that is right says at the begin of a run."""


class Timeline:
    """Things to do at times; `run` does them in order. Ties keep the order they were added in."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.done = 0
        self._number = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._kept: list[object] = []

    def now(self) -> float:
        return self.now_s

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        self.at(self.now_s + max(delay_s, 0.0), do)

    def at(self, time_s: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (max(time_s, self.now_s), self._number, do))

    def keep(self, what: object) -> None:
        """Python is not to clean this up before the run is over: that happens at no time of ours, and may do things."""
        self._kept.append(what)

    def run(self, until_s: float) -> None:
        """Do everything due until then; the clock ends there."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._heap)
            self.done += 1
            do()
        self.now_s = until_s


class MachineClock:
    """That of one machine."""

    def __init__(self, time: Timeline, wrong_s: float = 0.0) -> None:
        self.wrong_s = wrong_s
        """By so much it is not as others are."""
        self.set_by_s = 0.0
        """People did, rightly or not."""
        self._time = time

    def now(self) -> float:
        return EPOCH_S + self.wrong_s + self.set_by_s + self._time.now()
