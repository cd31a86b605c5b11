"""How does a test take what comes of a place?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from places import Place

from swell.model.retrying import Retrying
from swell.model.source import Message, SourceState
from swell.sources.feed import Feed

WAIT_S = 60.0


def at(kind: type[Place]) -> Any:
    return pytest.mark.parametrize("somewhere", [kind], ids=[kind.__name__.lower()], indirect=True)


def feed(place: Place, after: str = "") -> Feed:
    return Feed("orders", place.source(), after, 100, reconnecting=Retrying(initial_delay_s=0.01, max_delay_s=0.1))


async def taken(feed: Feed, many: int) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < many:
            found += await feed.take(many - len(found))
    return found


async def told(feed: Feed, true: Callable[[SourceState], bool]) -> str:
    async with asyncio.timeout(WAIT_S):
        while True:
            if true(feed.state):
                return feed.state.why
            await asyncio.sleep(0.01)
