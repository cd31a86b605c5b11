"""What comes of a message between two simulated processes? It arrives later, twice, behind the next one, or never.

Never: where the connection is cut over it, or carries nothing for a while before it is.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from swell.sim.clock import Timeline


class Weather(msgspec.Struct, frozen=True):
    """How messages fare. Times in seconds, the rest probabilities."""

    delay_s: float = 0.001
    """The longest way. Messages of one connection keep their order all the same…"""
    reorder: float = 0.0
    """…but for those."""
    repeat: float = 0.0


class Link:
    """The connection of two processes. It is `up` or not; what is under way when it is cut is lost."""

    def __init__(self, time: Timeline, chance: Random, weather: Weather, count: Callable[[str], None]) -> None:
        self.up = False
        self.silent = False
        """What is sent is lost, and nobody knows."""
        self.cuts = 0
        self._time = time
        self._chance = chance
        self._weather = weather
        self._count = count
        self._arrives_at: dict[str, float] = {}
        """The latest arrival so far, each way."""

    def connect(self) -> None:
        self.up = True

    def cut(self) -> None:
        self.up = False
        self.cuts += 1
        self._arrives_at.clear()

    def send(self, way: str, arrive: Callable[[], None]) -> bool:
        """False where it is not up."""
        if not self.up:
            return False
        chance, weather = self._chance, self._weather
        for _ in range(1 + self._happens("message repeated", weather.repeat)):
            at = self._time.now() + chance.uniform(0.05, 1.0) * weather.delay_s
            if not self._happens("message out of order", weather.reorder):
                at = max(at, self._arrives_at.get(way, 0.0))
                self._arrives_at[way] = at
            self._time.at(at, self._unless_cut(arrive))
        return True

    def _unless_cut(self, arrive: Callable[[], None]) -> Callable[[], None]:
        cuts = self.cuts

        def arrived() -> None:
            if self.up and self.cuts == cuts and not self.silent:
                arrive()

        return arrived

    def _happens(self, what: str, probability: float) -> bool:
        happens = probability > 0 and self._chance.random() < probability
        if happens:
            self._count(what)
        return happens
