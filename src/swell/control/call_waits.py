"""Who waits for the end of which queued call? Nobody looks again and again: what ends wakes them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from swell.model.call import Call
from swell.model.errors import SwellError

WAITING_MAX = 2000
"""Requests that may wait for the ends of calls at a time. Those of one API key may be as many as are free still: half
of it where nobody else waits, and there is room for one more key, whatever others do."""
NAMED_MAX = 200_000
"""Ids of calls and groups that these name together, shared in the same way: each takes some 300 bytes."""
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
        self._of_keys: Counter[str] = Counter()
        """Requests by the API key that they came with."""
        self._named_of_keys: Counter[str] = Counter()

    def wake(self, call: str, group: str) -> None:
        """The call is not as it was, and so its group, if it is of one."""
        for id in (call, group):
            for waiter in self._waiting.get(id, ()):
                waiter.wake()

    async def until_ended(
        self, id: str, wait_s: float, look: Callable[[], Awaitable[Call | None]], by: str
    ) -> Call | None:
        """The call, as `look` finds it once it has ended or so much time has passed; None: there is none. `by`: id of
        the API key that asks."""
        ends = asyncio.get_running_loop().time() + wait_s
        with self._waiter((id,), wait_s, by) as waiter:
            while True:
                woken, call = waiter.woken, await look()
                if call is None or call.ended_at is not None or asyncio.get_running_loop().time() >= ends:
                    return call
                await waiter.until(woken + 1, ends)

    async def until_some(
        self, ids: Sequence[str], least: int, wait_s: float, look: Callable[[], Awaitable[Sequence[T]]], by: str
    ) -> Sequence[T]:
        """What `look` finds of these groups, or calls, once it finds any, or after so much time; it is given a moment
        to find `least`. `by`: id of the API key that asks."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_s
        with self._waiter(ids, wait_s, by) as waiter:
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
    def _waiter(self, ids: Sequence[str], wait_s: float, by: str) -> Iterator[Waiter]:
        """It waits before it looks: what ends meanwhile wakes it."""
        if wait_s:
            self._check_room(len(ids), by)
        waiter = Waiter()
        self._count(1, len(ids), by)
        for id in ids:
            self._waiting[id][waiter] = None
        try:
            yield waiter
        finally:
            self._count(-1, -len(ids), by)
            for id in ids:
                del self._waiting[id][waiter]
                if not self._waiting[id]:
                    del self._waiting[id]

    def _check_room(self, named: int, by: str) -> None:
        waits = self._of_keys[by] + 1 <= WAITING_MAX - self.count - 1
        if not waits or self._named_of_keys[by] + named > NAMED_MAX - self._named - named:
            most = f"of {WAITING_MAX} requests, or {NAMED_MAX} ids in them, this key may have as many as are free still"
            words = f"As many wait for the ends of calls as may ({most}): ask again later, or without waiting."
            raise SwellError("busy", words, status=503)

    def _count(self, requests: int, named: int, by: str) -> None:
        self.count += requests
        self._named += named
        self._of_keys[by] += requests
        self._named_of_keys[by] += named
        if not self._of_keys[by]:
            del self._of_keys[by], self._named_of_keys[by]
