"""Who waits for the end of which queued call? Nobody looks again and again: what ends wakes them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from swell.model.call import Call
from swell.model.errors import SwellError

WAITING_MAX = 1000
"""Requests that may wait for the ends of calls at a time."""


class CallWaits:
    """All that wait."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.count = 0

    def wake(self, id: str) -> None:
        """The call is not as it was."""
        for event in self._waiting.get(id, ()):
            event.set()

    async def until_ended(self, id: str, wait_s: float, look: Callable[[], Awaitable[Call | None]]) -> Call | None:
        """The call, as `look` finds it once it has ended or so much time has passed; None: there is none."""
        if wait_s and self.count >= WAITING_MAX:
            words = f"{WAITING_MAX} requests wait for the ends of calls already: ask again later, or without waiting."
            raise SwellError("busy", words, status=503)
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        ends = loop.time() + wait_s
        self.count += 1
        # It waits before it looks: what ends meanwhile wakes it.
        self._waiting[id].add(event)
        try:
            while True:
                event.clear()
                call = await look()
                left_s = ends - loop.time()
                if call is None or call.ended_at is not None or left_s <= 0:
                    return call
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await event.wait()
        finally:
            self.count -= 1
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]
