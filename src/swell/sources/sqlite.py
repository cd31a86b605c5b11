"""How is a SQLite database asked for new rows?

Read-only, in a thread of its own, by a connection for each question: that costs 0.1 ms, and a file that was replaced is
seen.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from swell.model.source import Rows
from swell.sources.rows import COUNT_S, PORTION_BYTES, Fence, Mark, Polled, Row, wrapped
from swell.sources.threads import OwnThread

BUSY_S = 10.0
"""How long somebody who writes is waited for."""
ANSWER_S = 50.0
"""For any answer: a query that takes longer is broken off."""
CLOSED_LOOK = 100_000
"""Steps of a query between two looks whether anybody waits for it still, and how long it takes."""


class SqliteSource:
    """The port, for rows of a file."""

    def __init__(self, config: Rows) -> None:
        self._config = config
        self._asking = OwnThread("swell-sqlite")

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Polled]:
        """See the port."""
        file = _File(self._config, self._asking)
        try:
            # So that what is wrong with the file or the query shows now.
            await file.newest(None)
            yield Polled(self._config, file, after, asyncio.Event())
        finally:
            file.closed.set()


class _File:
    """The database."""

    def __init__(self, config: Rows, asking: OwnThread) -> None:
        path = "/" + unquote(urlsplit(config.url).path).lstrip("/")
        self._uri = f"file:{quote(path)}?mode=ro"
        self._from, self._mark, self._key = wrapped(config)
        self._asking = asking
        self.closed = threading.Event()
        """Nobody waits for an answer any more."""

    async def newest(self, after: Mark | None) -> Fence | None:
        where, given = self._where(after, None)
        order = f"ORDER BY {self._mark} DESC, {self._key} DESC LIMIT 1"
        found, _ = await self._ask(f"SELECT {self._mark}, {self._key} FROM {self._from} {where} {order}", given)
        return Fence(_mark(*found[0]), 0) if found else None

    async def passed(self, horizon: int) -> bool:
        """One writes at a time: who began before the newest row was written has ended."""
        del horizon
        return True

    async def rows(self, after: Mark | None, until: Mark, most: int) -> list[Row]:
        where, given = self._where(after, until)
        order = f"ORDER BY {self._mark}, {self._key} LIMIT ?"
        sql = f"SELECT {self._mark}, {self._key}, q.* FROM {self._from} {where} {order}"
        found, names = await self._ask(sql, [*given, most])
        return [Row(_mark(*row[:2]), _json(names[2:], row[2:])) for row in found]

    async def count(self, after: Mark | None, most: int) -> int:
        where, given = self._where(after, None)
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {self._from} {where} LIMIT ?)"
        found, _ = await self._ask(counted, [*given, most], COUNT_S)
        return int(found[0][0])

    def _where(self, after: Mark | None, until: Mark | None) -> tuple[str, list[Any]]:
        both = f"({self._mark}, {self._key})"
        sql = f"WHERE {self._mark} IS NOT NULL AND {self._key} IS NOT NULL"
        given: list[Any] = []
        for sign, mark in ((">", after), ("<=", until)):
            if mark is not None:
                sql += f" AND {both} {sign} (?, ?)"
                given += mark
        return sql, given

    async def _ask(
        self, sql: str, given: Sequence[Any], most_s: float = ANSWER_S
    ) -> tuple[list[tuple[Any, ...]], list[str]]:
        return await self._asking.run(partial(self._ask_here, sql, given, most_s), ANSWER_S)

    def _ask_here(self, sql: str, given: Sequence[Any], most_s: float) -> tuple[list[tuple[Any, ...]], list[str]]:
        until = time.monotonic() + most_s
        with closing(sqlite3.connect(self._uri, uri=True, timeout=BUSY_S)) as connection:
            connection.text_factory = _text
            connection.set_progress_handler(lambda: self.closed.is_set() or time.monotonic() > until, CLOSED_LOOK)
            cursor = connection.execute(sql, given)
            return _portion(cursor), [column[0] for column in cursor.description]


def _portion(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """As many as have few enough bytes, and one at least."""
    some: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        some.append(row)
        size += sum(len(each) for each in row if isinstance(each, str | bytes))
        if size >= PORTION_BYTES:
            break
    return some


def _text(stored: bytes) -> str | bytes:
    """A column of text may hold any bytes. Those that are no text are as a BLOB's: else no row could be read."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _mark(watermark: object, key: object) -> Mark:
    for each in (watermark, key):
        if isinstance(each, bytes):
            raise ValueError("a watermark or key is a number or text; here it is a BLOB, or no UTF-8")
    return watermark, key


def _json(names: Sequence[str], row: Sequence[object]) -> bytes:
    """A BLOB, and what is no text, is {"base64": …}."""
    told = {
        name: {"base64": base64.b64encode(each).decode()} if isinstance(each, bytes) else each
        for name, each in zip(names, row, strict=True)
    }
    return msgspec.json.encode(told)
