"""How does a server look to what waits for calls, or spawns them, on a loop of its own? Without a network, or time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from swell.model.errors import SwellError
from swell.sdk.protocol import Answer, Request

LOST = SwellError("connection_lost", "It broke off.", status=502)


class Transport:
    """The way to a server that is simulated, on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport = self
        self.older = False
        self.lose = 0
        """So many answers more are lost."""
        self.old = False
        """It takes, and tells of, single calls one at a time alone."""

    def soon(self, step: Callable[..., object], *args: object) -> None:
        self.loop.call_soon(step, *args)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def send(self, request: Request, within_s: float | None = None) -> Answer:
        answer = await self.answer(request)
        if self.lose:
            self.lose -= 1
            raise LOST
        return answer

    async def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def settle(self) -> None:
        """All that can happen now has."""

        async def steps() -> None:
            for _ in range(400):
                await asyncio.sleep(0)

        self.loop.run_until_complete(steps())


@contextlib.contextmanager
def simulated(kind: type[Any]) -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    try:
        yield kind(loop)
    finally:
        loop.close()
