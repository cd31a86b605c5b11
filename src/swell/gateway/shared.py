"""What do all connections and pools of one gateway share? Limits, the clock, the wheel, the ledger, prices."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

import msgspec

from swell.decide.cache import Store
from swell.gateway.count import Ledger
from swell.gateway.deaths import Deaths
from swell.gateway.wheel import Wheel
from swell.model.errors import SwellError
from swell.model.request import Prices
from swell.wire.settings import Settings


class Head(msgspec.Struct, frozen=True):
    """What a plain head says, once it was found in order: the same bytes say the same again."""

    method: bytes
    target: bytes
    host: bytes
    head: bytes
    length: int
    authorization: bytes | None
    origin: bytes | None
    timeout: bytes | None


class AnswerHead(msgspec.Struct, frozen=True):
    """What a plain head of a replica's answer says, but for what was used."""

    status: int
    lines: tuple[bytes]
    """All its header lines, as one."""
    length: int


class HasLevel(Protocol):
    """A pool whose level control wants to know."""

    key: str
    dirty: bool
    in_flight: int
    peak: int
    single_use: bool

    @property
    def held_count(self) -> int: ...
    @property
    def ready(self) -> int: ...
    def loads(self) -> tuple[tuple[str, int], ...]: ...


class Shared:
    """One per gateway. `touched` and `wanted` are told of pools whose level changed (the control link's)."""

    def __init__(
        self,
        settings: Settings,
        incarnation: str,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        """`chance`: what replicas and versions are drawn by."""
        self.settings = settings
        self.loop = loop
        self.now = now
        """The loop's clock, but exact: uvloop's own stands still within one turn of the loop."""
        self.wall = wall
        """The machine's clock: seconds since the epoch."""
        chance = chance or random.Random()
        self.draw = chance.random
        self.lot = chance.randbytes
        self.wheel = Wheel(loop, now)
        self.deaths = Deaths(self.wheel)
        self.ledger = Ledger(settings.slow_ms, settings.records_per_pool, settings.metrics_pools_max)
        self.prices = Prices()
        self.control_ahead_s = 0.0
        """Control's clock says so much more than the machine's does here, as they were when the last table came."""
        self.held_bytes = 0
        """Bodies of all held requests together."""
        self.good_hosts: set[bytes] = set()
        """Host headers that were found in order, so that each is looked at once."""
        self.heads: dict[bytes, Head] = {}
        """Heads as they came, and what they say: callers that repeat themselves are parsed once."""
        self.answers: dict[bytes, AnswerHead] = {}
        """The same of answers."""
        self.kept = Store(settings.response_cache_bytes_max)
        """Answers of methods that are declared `@cached`."""
        self.connections_max: float = math.inf
        """More clients are refused."""
        self.full = False
        """Some were, and not many of the others have left since."""
        self.closing = False
        """True: no new work, and every answer closes its connection."""
        self.touched: Callable[[HasLevel], None] = _nobody
        self.wanted: Callable[[HasLevel], None] = _nobody
        self.ended: Callable[[str], SwellError | None] = _works
        """Why the key of this id opens nothing any more; None: it does. The door's."""
        self.tasks: set[asyncio.Task[None]] = set()
        """What is done beside all else; ended with the gateway."""
        self._prefix = incarnation.encode()
        self._count = 0

    def do(self, work: Coroutine[None, None, None]) -> None:
        """Do it beside all else."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def next_id(self) -> bytes:
        """An id no other request has: this process's incarnation and a number."""
        self._count += 1
        return b"%b-%x" % (self._prefix, self._count)


def _nobody(_pool: HasLevel) -> None:
    """Until the link exists nobody listens; it starts by sending every level."""


def _works(_id: str) -> SwellError | None:
    """Until there is a door."""
    return None
