"""Who waits for the end of which queued call? Nobody looks again and again: what ends wakes them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from swell.model.call import Call
from swell.model.errors import SwellError

WAITING_MAX = 1000
"""Requests that may wait for the ends of calls at a time."""
NAMED_MAX = 200_000
"""Ids of calls and groups that these name together: each takes some 300 bytes."""
GATHER_S = 0.02
"""Where some calls have ended, so long more are waited for, if that is wanted: to tell of each alone costs too much."""

T = TypeVar("T")


class Waiter:
    """One that waits, and how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0
        self._event = asyncio.Event()

    def wake(self) -> None:
        """What it waits for is not as it was."""
        self.woken += 1
        self._event.set()

    async def until(self, woken: int, at: float) -> None:
        """It was woken so often, or that is the loop's time."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                while self.woken < woken:
                    self._event.clear()
                    await self._event.wait()


class CallWaits:
    """All that wait."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, dict[Waiter, None]] = defaultdict(dict)
        self.count = 0
        self._named = 0

    def wake(self, call: str, group: str) -> None:
        """The call is not as it was, and so its group, if it is of one."""
        for id in (call, group):
            for waiter in self._waiting.get(id, ()):
                waiter.wake()

    async def until_ended(self, id: str, wait_s: float, look: Callable[[], Awaitable[Call | None]]) -> Call | None:
        """The call, as `look` finds it once it has ended or so much time has passed; None: there is none."""
        ends = asyncio.get_running_loop().time() + wait_s
        with self._waiter((id,), wait_s) as waiter:
            while True:
                woken, call = waiter.woken, await look()
                if call is None or call.ended_at is not None or asyncio.get_running_loop().time() >= ends:
                    return call
                await waiter.until(woken + 1, ends)

    async def until_some(
        self, ids: Sequence[str], least: int, wait_s: float, look: Callable[[], Awaitable[Sequence[T]]]
    ) -> Sequence[T]:
        """What `look` finds of these groups, or calls, once it finds any, or after so much time; it is given a moment
        to find `least`."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_s
        with self._waiter(ids, wait_s) as waiter:
            while True:
                woken, found = waiter.woken, await look()
                if found or loop.time() >= ends:
                    break
                await waiter.until(woken + 1, ends)
            if wait_s and 0 < len(found) < least:
                await waiter.until(woken + least - len(found), loop.time() + GATHER_S)
                found = await look() if waiter.woken > woken else found
            return found

    @contextmanager
    def _waiter(self, ids: Sequence[str], wait_s: float) -> Iterator[Waiter]:
        """It waits before it looks: what ends meanwhile wakes it."""
        if wait_s and (self.count >= WAITING_MAX or self._named + len(ids) > NAMED_MAX):
            most = f"{WAITING_MAX} requests, or {NAMED_MAX} ids in them"
            words = f"As many wait for the ends of calls as may ({most}): ask again later, or without waiting."
            raise SwellError("busy", words, status=503)
        waiter = Waiter()
        self.count += 1
        self._named += len(ids)
        for id in ids:
            self._waiting[id][waiter] = None
        try:
            yield waiter
        finally:
            self.count -= 1
            self._named -= len(ids)
            for id in ids:
                del self._waiting[id][waiter]
                if not self._waiting[id]:
                    del self._waiting[id]
