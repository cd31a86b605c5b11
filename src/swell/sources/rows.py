"""Which rows of a query are new, and is it certain that none before them is still to come?

Rows are read in the order of (watermark, key), up to the newest that was seen. A transaction may have drawn a smaller
watermark than that and end later. So what is up to the newest is read only once `settle_s` have passed, and, where the
database can say so (PostgreSQL), once every transaction has ended that was writing when the newest was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from swell.model.source import ID_MAX, WAITING_MAX, Message, Rows

COUNT_S = 5.0
"""For rows to be counted: what comes waits meanwhile."""
AGAIN_S = 0.1
"""How soon it is asked whether transactions have ended."""
PORTION_BYTES = 4 * 1024 * 1024
"""Of rows that a database brings at once, about; or one row."""

Mark = tuple[Any, Any]
"""A row's watermark and key, as its database compares them."""


class Row(NamedTuple):
    mark: Mark
    body: bytes
    """JSON."""


class Fence(NamedTuple):
    """The newest row there is."""

    mark: Mark
    horizon: int
    """What `passed` is to be asked with."""


class Database(Protocol):
    """What is asked of one, each time in a transaction of its own. Methods raise where the connection is broken. They
    are called beside each other, and wait for each other."""

    async def newest(self, after: Mark | None) -> Fence | None: ...

    async def passed(self, horizon: int) -> bool:
        """Has everything ended that might bring rows before that fence?"""
        ...

    async def rows(self, after: Mark | None, until: Mark, most: int) -> list[Row]:
        """The first ones, one at least where there is any; fewer than `most`, too, where they are large."""
        ...

    async def count(self, after: Mark | None, most: int) -> int:
        """How many rows there are, up to so many. TimeoutError, or the like, where that takes longer than `COUNT_S`."""
        ...


class Polled:
    """The port, over a database."""

    hold_s = None

    def __init__(self, config: Rows, database: Database, after: str, moved: asyncio.Event) -> None:
        """`moved` is set when there may be something new, or the connection broke."""
        self._config = config
        self._database = database
        self._after: Mark | None = msgspec.json.decode(after, type=Mark) if after else None
        self._fence: Fence | None = None
        self._seen_at = 0.0
        self._moved = moved
        self._resting = False
        """There was nothing the last time, and it is not time to ask again."""

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        if self._fence is None:
            self._moved.clear()
            self._fence = await self._database.newest(self._after)
            self._seen_at = time.monotonic()
        if self._fence is None:
            self._resting = True
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._config.every_s):
                        await self._moved.wait()
            finally:
                self._resting = False
            return []
        left_s = self._seen_at + self._config.settle_s - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)
        if not await self._database.passed(self._fence.horizon):
            await asyncio.sleep(AGAIN_S)
            return []
        rows = await self._database.rows(self._after, self._fence.mark, most)
        if not rows or rows[-1].mark == self._fence.mark:
            self._fence = None
        if rows:
            self._after = rows[-1].mark
        return [self._message(each) for each in rows]

    def _message(self, row: Row) -> Message:
        watermark = msgspec.json.encode(row.mark).decode()
        # Of a key that is long its digest has to do.
        id = watermark if len(watermark) <= ID_MAX else hashlib.sha256(watermark.encode()).hexdigest()
        subject = str(row.mark[1])
        return Message(id, row.body, "application/json", time.time(), subject, watermark)

    async def waiting(self) -> int | None:
        """See the port. A query that is asked seldom, since it takes long, is not asked more often for this."""
        return 0 if self._resting else await self._database.count(self._after, WAITING_MAX)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port: the watermark is all there is to remember."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port: nobody else gets them."""


def quoted(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def wrapped(config: Rows) -> tuple[str, str, str]:
    """The query as something to select from, named q, and the columns of its watermark and key."""
    # A line of its own: the query may end in a comment.
    inner = f"({config.query.strip().rstrip(';')}\n) AS q"
    return inner, f"q.{quoted(config.watermark)}", f"q.{quoted(config.key or config.watermark)}"
