"""What ended this replica? Control is told by its runner a moment after the connection broke: callers are told, too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from swell.gateway.wheel import Slot, Wheel

WAIT_S = 1.0
"""For so long an answer that says that a replica died waits for the word of what ended it."""
KNOWN_MAX = 256
"""Ends that are remembered: a broken connection may be heard of later than the word."""

Tell = Callable[[str], None]
"""Takes what ended the replica, in words; empty: nobody said."""


@dataclass(slots=True)
class Lost:
    """The replica that a request had and that died, once the slot it had there is given back."""

    id: str
    timings_ms: tuple[tuple[str, float], ...]
    at: float
    """When it did: from then on the request uses nothing."""


class Deaths:
    """Replicas of one gateway that died with requests, and what is known of their ends."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._known: OrderedDict[str, str] = OrderedDict()
        self._waiting: dict[str, _Death] = {}
        self._heard = False

    def wait(self, replica: str, tell: Tell, now: float) -> None:
        """Tell it once it is known what ended the replica, or nobody says."""
        why = self._known.get(replica, "")
        if why or not self._heard:
            tell(why)
            return
        death = self._waiting.get(replica)
        if death is None:
            death = self._waiting[replica] = _Death(self, replica)
            self._wheel.add(death, now + WAIT_S)
        death.tells.append(tell)

    def told(self, replica: str, why: str) -> None:
        """Control says what ended it."""
        self._known[replica] = why
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        self.over(replica, why)

    def listen(self, heard: bool) -> None:
        """Control is heard from now on, or is not: then nobody waits for its word."""
        self._heard = heard
        if not heard:
            for replica in [*self._waiting]:
                self.over(replica, "")

    def over(self, replica: str, why: str) -> None:
        """Nothing more is waited for."""
        death = self._waiting.pop(replica, None)
        if death is not None:
            self._wheel.discard(death)
            for tell in death.tells:
                tell(why)


class _Death:
    """One of them, while its end is not known."""

    def __init__(self, deaths: Deaths, replica: str) -> None:
        self._deaths = deaths
        self._replica = replica
        self.tells: list[Tell] = []
        self.slot: Slot | None = None

    def due(self, _now: float) -> None:
        self._deaths.over(self._replica, "")
