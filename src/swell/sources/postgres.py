"""How is a PostgreSQL database (13 or newer) asked for new rows?

Values go both ways as text, in UTC, so that ids and watermarks are exact whatever the columns' types are; a row is made
JSON by the server. On a channel it tells when to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from swell.model.source import Rows
from swell.sources.rows import COUNT_S, PORTION_BYTES, Fence, Mark, Polled, Row, quoted, wrapped

CONNECT_S = 10.0
ANSWER_S = 60.0
"""For any answer: a query that takes longer is broken off."""
CLOSE_S = 3.0
PREFETCH = 10
"""Rows that are asked for together."""

_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


class PostgresSource:
    """The port, for rows of a database."""

    def __init__(self, config: Rows, password: str = "") -> None:
        self._config = config
        self._password = password

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Polled]:
        """See the port."""
        moved = asyncio.Event()
        settings = {"timezone": "UTC", "datestyle": "ISO", "application_name": "swell"}
        connection: Any = await asyncpg.connect(
            self._config.url,
            password=self._password or None,
            timeout=CONNECT_S,
            command_timeout=ANSWER_S,
            server_settings=settings,
        )
        try:
            # What waits for something new is to see that the connection broke.
            connection.add_termination_listener(lambda *_: moved.set())
            if self._config.channel:
                await connection.add_listener(self._config.channel, lambda *_: moved.set())
            database = _Server(self._config, connection)
            await database.prepare()
            yield Polled(self._config, database, after, moved)
        finally:
            try:
                await connection.close(timeout=CLOSE_S)
            finally:
                connection.terminate()


class _Server:
    """The database, over one connection."""

    def __init__(self, config: Rows, connection: Any) -> None:
        self._config = config
        self._connection = connection
        self._from, self._mark, self._key = wrapped(config)
        self._types = ("", "")
        """Of the watermark and the key."""
        self._asking = asyncio.Lock()
        """The connection takes one question at a time."""

    async def prepare(self) -> None:
        """Learn of what types they are; raises for a query that is none."""
        prepared = await self._connection.prepare(f"SELECT {self._mark}, {self._key} FROM {self._from} LIMIT 0")
        mark, key = (f"{quoted(each.type.schema)}.{quoted(each.type.name)}" for each in prepared.get_attributes())
        self._types = mark, key

    async def newest(self, after: Mark | None) -> Fence | None:
        where, given = self._where(after, None)
        horizon = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        order = f"ORDER BY {self._mark} DESC, {self._key} DESC LIMIT 1"
        columns = f"{self._mark}::text, {self._key}::text, {horizon}"
        found = await self._ask(f"SELECT {columns} FROM {self._from} {where} {order}", given)
        return Fence((found[0][0], found[0][1]), found[0][2]) if found else None

    async def passed(self, horizon: int) -> bool:
        """Those that had a number at that time have ended."""
        return bool((await self._ask(_HORIZON, []))[0][0] >= horizon)

    async def rows(self, after: Mark | None, until: Mark, most: int) -> list[Row]:
        where, given = self._where(after, until)
        columns = f"{self._mark}::text, {self._key}::text, row_to_json(q)::text"
        order = f"ORDER BY {self._mark}, {self._key} LIMIT {most:d}"
        sql = f"SELECT {columns} FROM {self._from} {where} {order}"
        rows: list[Row] = []
        size = 0
        async with self._asking, self._connection.transaction(readonly=True):
            async for row in self._connection.cursor(sql, *given, prefetch=PREFETCH):
                rows.append(Row((row[0], row[1]), row[2].encode()))
                size += len(rows[-1].body)
                if size >= PORTION_BYTES:
                    break
        return rows

    async def count(self, after: Mark | None, most: int) -> int:
        where, given = self._where(after, None)
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {self._from} {where} LIMIT {most:d}) AS counted"
        return int((await self._ask(counted, given, COUNT_S))[0][0])

    def _where(self, after: Mark | None, until: Mark | None) -> tuple[str, list[str]]:
        sql = f"WHERE {self._mark} IS NOT NULL AND {self._key} IS NOT NULL"
        given: list[str] = []
        for sign, mark in ((">", after), ("<=", until)):
            if mark is not None:
                n = len(given)
                values = f"${n + 1}::text::{self._types[0]}, ${n + 2}::text::{self._types[1]}"
                sql += f" AND ({self._mark}, {self._key}) {sign} ({values})"
                given += mark
        return sql, given

    async def _ask(self, sql: str, given: list[str], most_s: float = ANSWER_S) -> list[Any]:
        async with self._asking, self._connection.transaction(readonly=True):
            found: list[Any] = await self._connection.fetch(sql, *given, timeout=most_s)
        return found
