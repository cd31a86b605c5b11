"""Is what is held of a source bounded, in bytes too?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from test_adapters import taken

from swell.model.source import Message
from swell.sources.feed import HELD_BYTES_MAX, PORTION_BYTES, Feed


class Large:
    """A source, and a connection to it, of messages of 1 MiB, without end, that never hears what is acknowledged."""

    hold_s = None

    def __init__(self) -> None:
        self.most: list[int] = []
        self.brought = 0

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Large]:
        del after
        yield self

    async def take(self, most: int) -> list[Message]:
        self.most.append(most)
        self.brought += most
        body = b"x" * 2**20
        return [Message(f"id{self.brought - n}", body, "text/plain", 1.0) for n in range(most)]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        assert not any(each.body for each in messages), "its id will do"
        await asyncio.Event().wait()

    async def hold(self, messages: Sequence[Message]) -> None: ...


def test_what_is_held_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swell.sources.feed.PARTING_S", 0.05)

    async def run() -> None:
        source = Large()
        bound = (HELD_BYTES_MAX + PORTION_BYTES) // 2**20
        async with Feed("large", source, "", 1000) as came:
            some = await taken(came, 16)
            # Whatever else it would do, it has done by now.
            for _ in range(100):
                await asyncio.sleep(0)
            assert source.brought <= bound
            assert all(most <= 4 for most in source.most[1:])
            came.acknowledge(some)
            more = await taken(came, 16)
            for _ in range(100):
                await asyncio.sleep(0)
            assert source.brought <= bound + len(some)
            came.acknowledge(more)

    asyncio.run(run())
