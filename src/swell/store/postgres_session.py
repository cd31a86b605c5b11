"""How does the writing thread speak to PostgreSQL? In statements, one after the other, with few round trips.

What has no answer that anybody needs goes with the next that has one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from swell.store import postgres_statements as words
from swell.store import statements as sql

_ANSWERED = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b")
"""What else is said need not be answered before the next is."""


class Rows:
    """What came of a statement."""

    def __init__(self, rows: list[Any], status: str) -> None:
        self._rows = rows
        self._status = status

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        count = self._status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    def fetchall(self) -> list[Any]:
        """All that are left."""
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        """The next one; None where there is none."""
        return self._rows.pop(0) if self._rows else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class Session:
    """The connection that writes, for the one thread that does. Statements without an answer go with the next one."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], connection: Any) -> None:
        self.connection = connection
        self._run = run
        self._prepared: dict[str, Any] = {}
        self._first: list[str] = []
        """What is to be said before the next statement."""

    def say(self, *texts: str) -> None:
        """With the next statement."""
        self._first.extend(texts)

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """Run a statement."""
        text = words.said(statement)
        if text in (sql.COMMIT, sql.ROLLBACK):
            return Rows([], self.told(text))
        if not _ANSWERED.match(text):
            self.say(text)
            return Rows([], "")
        rows: Rows = self._run(self._execute(text, values))
        return rows

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Rows:
        """Run a statement for each row, without waiting in between."""
        them = list(rows)
        if len(them) == 1:
            return self.execute(statement, them[0])
        if them:
            self._run(self._executemany(words.said(statement), them))
        return Rows([], "")

    def each(self, statement: str, rows: Sequence[Sequence[Any]], /) -> list[Any]:
        """The row that each came to, or None; without waiting in between."""
        if not rows:
            return []
        found: list[Any] = self._run(self._each(words.answered(statement), rows))
        return found

    def told(self, *texts: str) -> str:
        """Run these without values, and what waits to be said before them; what the last one came to."""
        self.say(*texts)
        status: str = self._run(self._flush())
        return status

    def abandon(self, wait_s: float) -> None:
        """Give the transaction up; raises where that takes longer."""
        self._first.clear()
        # The library's own timeout does not count while it waits to hear that a statement was called off.
        self._run(asyncio.wait_for(self.connection.execute(sql.ROLLBACK), wait_s))

    def ask(self, text: str, *values: object) -> Any:
        """The one value of a query of PostgreSQL's own."""
        return self._run(self._execute(text, values)).fetchone()[0]

    async def _flush(self) -> str:
        texts, self._first = self._first, []
        status: str = await self.connection.execute("; ".join(texts)) if texts else ""
        return status

    async def _execute(self, text: str, values: Sequence[Any]) -> Rows:
        prepared = await self._ready(text)
        rows = await prepared.fetch(*values)
        return Rows([tuple(row) for row in rows], prepared.get_statusmsg())

    async def _executemany(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        await (await self._ready(text)).executemany(rows)

    async def _each(self, text: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
        found = await (await self._ready(text)).fetchmany(rows)
        return [tuple(row) if row[0] is not None else None for row in found]

    async def _ready(self, text: str) -> Any:
        """The statement, once it may be run."""
        await self._flush()
        prepared = self._prepared.get(text)
        if prepared is None:
            prepared = self._prepared[text] = await self.connection.prepare(text)
        return prepared
