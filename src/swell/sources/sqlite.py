"""How is a SQLite database asked for new rows?

Read-only, in a thread, by a connection for each question: that costs 0.1 ms, and a file that was replaced is seen.
"""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from swell.model.source import Rows
from swell.sources.rows import Fence, Mark, Polled, Row, wrapped

BUSY_S = 10.0
"""How long somebody who writes is waited for."""


class SqliteSource:
    """The port, for rows of a file."""

    def __init__(self, config: Rows) -> None:
        self._config = config

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Polled]:
        """See the port."""
        file = _File(self._config)
        try:
            # So that what is wrong with the file or the query shows now.
            await file.newest(None)
            yield Polled(self._config, file, after, asyncio.Event())
        finally:
            file.interrupt()


class _File:
    """The database."""

    def __init__(self, config: Rows) -> None:
        path = "/" + unquote(urlsplit(config.url).path).lstrip("/")
        self._uri = f"file:{quote(path)}?mode=ro"
        self._from, self._mark, self._key = wrapped(config)
        self._asked: sqlite3.Connection | None = None
        """That a thread asks just now."""

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

    def _where(self, after: Mark | None, until: Mark | None) -> tuple[str, list[Any]]:
        both = f"({self._mark}, {self._key})"
        sql = f"WHERE {self._mark} IS NOT NULL AND {self._key} IS NOT NULL"
        given: list[Any] = []
        for sign, mark in ((">", after), ("<=", until)):
            if mark is not None:
                sql += f" AND {both} {sign} (?, ?)"
                given += mark
        return sql, given

    async def _ask(self, sql: str, given: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
        return await asyncio.to_thread(self._ask_here, sql, given)

    def _ask_here(self, sql: str, given: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
        # Interrupted from the event loop's thread.
        with closing(sqlite3.connect(self._uri, uri=True, timeout=BUSY_S, check_same_thread=False)) as connection:
            self._asked = connection
            try:
                cursor = connection.execute(sql, given)
                return cursor.fetchall(), [column[0] for column in cursor.description]
            finally:
                self._asked = None

    def interrupt(self) -> None:
        """End a question that is under way: nobody waits for its answer."""
        asked = self._asked
        if asked is not None:
            with suppress(sqlite3.ProgrammingError):
                asked.interrupt()


def _mark(watermark: object, key: object) -> Mark:
    for each in (watermark, key):
        if isinstance(each, bytes):
            raise ValueError("a watermark or key is a number or text; here it is a BLOB")
    return watermark, key


def _json(names: Sequence[str], row: Sequence[object]) -> bytes:
    """A BLOB is {"base64": …}."""
    told = {
        name: {"base64": base64.b64encode(each).decode()} if isinstance(each, bytes) else each
        for name, each in zip(names, row, strict=True)
    }
    return msgspec.json.encode(told)
