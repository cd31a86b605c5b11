"""What do all connections and pools of one gateway share? Limits, the clock, the wheel, the ledger, prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from swell.gateway.count import Ledger
from swell.gateway.wheel import Wheel
from swell.model.request import Prices
from swell.wire.settings import Settings


class HasLevel(Protocol):
    """A pool whose level control wants to know."""

    key: str
    dirty: bool
    in_flight: int
    peak: int

    @property
    def held_count(self) -> int: ...
    @property
    def ready(self) -> int: ...


class Shared:
    """One per gateway. `touched` and `wanted` are told of pools whose level changed (the control link's)."""

    def __init__(self, settings: Settings, incarnation: str, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.now: Callable[[], float] = loop.time
        self.wheel = Wheel(loop)
        self.ledger = Ledger(settings.slow_ms, settings.records_per_pool)
        self.prices = Prices()
        self.held_bytes = 0
        """Bodies of all held requests together."""
        self.closing = False
        """True: no new work, and every answer closes its connection."""
        self.touched: Callable[[HasLevel], None] = _nobody
        self.wanted: Callable[[HasLevel], None] = _nobody
        self.tasks: set[asyncio.Task[None]] = set()
        self._prefix = incarnation.encode()
        self._count = 0

    def next_id(self) -> bytes:
        """An id no other request has: this process's incarnation and a number."""
        self._count += 1
        return b"%b-%x" % (self._prefix, self._count)


def _nobody(_pool: HasLevel) -> None:
    """Until the link exists nobody listens; it starts by sending every level."""
