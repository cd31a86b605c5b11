"""What has each gateway to know of the others, and of the queue? How many inputs they have where, ten times a second.

An estimate to choose replicas by, where there are several gateways, or queued calls: else nothing is told. What a
replica takes is its own business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from swell.wire.frames import pack
from swell.wire.link import Elsewhere

EVERY_S = 0.1


class Told(Protocol):
    """A gateway's connection."""

    def write(self, frame: bytes) -> None: ...


class Book(Protocol):
    """What the gateways said."""

    def elsewhere(self, pool: str, gateway: str) -> tuple[tuple[str, int], ...]: ...

    def loaded(self) -> Collection[str]:
        """Pools of which any gateway said something."""
        ...


class Loads:
    """What is to be told soon."""

    def __init__(self, book: Book, gateways: Mapping[str, Told]) -> None:
        self._book = book
        self._gateways = gateways
        self._pools: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, pools: Iterable[str], alone: bool = False) -> None:
        """Other levels were told of these pools. `alone`: one gateway by itself is to know it, too, since another left
        with its own, or the durable queue has calls there."""
        if len(self._gateways) > 1 or alone:
            self._pools.update(dict.fromkeys(pools))
            if self._pools and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._tell)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        pools, self._pools = self._pools, {}
        for name, gateway in self._gateways.items():
            gateway.write(pack(Elsewhere(tuple((pool, self._book.elsewhere(pool, name)) for pool in pools))))
