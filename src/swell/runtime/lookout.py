"""Who tells that the peer of a connection went which is not read? Nothing does: it is looked for, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from swell.wire.hangup import hung_up

LOOK_S = 0.25


class Lookout:
    """Has one connection not read, and calls `gone` once its peer hung up while it was not."""

    def __init__(self, transport: Any, gone: Callable[[], None]) -> None:
        self._transport = transport
        self._gone = gone
        self._timer: asyncio.TimerHandle | None = None

    def pause_reading(self) -> None:
        """Until the transport is told to resume that."""
        self._transport.pause_reading()
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        # Not taken back where reading is resumed: one that is paused a thousand times a second has one timer.
        self._timer = None
        transport = self._transport
        if transport.is_closing() or transport.is_reading():
            return
        if hung_up(transport):
            self._gone()
        else:
            self._wait()
