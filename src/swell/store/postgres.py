"""How does control's state outlive it? In a PostgreSQL database that is this server's alone.

The tables, and what is written and read, are those of SQLite (`tables`): the one writing thread, the group commit and
the transactions over several ports, too. What is otherwise is here: a connection may break, and the database be away
for a while (`postgres_link`). What was being committed then is looked up once it is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.model.kv import BOUNDS, Bounds
from swell.store import postgres_copy
from swell.store import postgres_faults as faults
from swell.store import postgres_statements as words
from swell.store.postgres_link import Commit, Link
from swell.store.postgres_session import Session
from swell.store.retention import Keep
from swell.store.tables import TableStore

DOUBT_S = 5.0
"""How long it is tried to learn what became of a commit whose answer did not come; its callers wait for that."""
ROLLBACK_S = 3.0
BEGIN_S = 5.0
"""How long a write waits for a connection that was just lost, while the first attempt to have another is under way."""
LOOK_S = 1.0
"""How long a reading does."""


class PostgresStore(TableStore):
    """The `Store` port over one database of a PostgreSQL server."""

    def __init__(
        self,
        url: str,
        keep: Keep | None = None,
        now: Callable[[], float] = time.time,
        bounds: Bounds = BOUNDS,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`moved` is called, from any thread, when whoever keeps in memory what is here has to begin anew with what is
        here now: another server has the database, it is another one, or what was told of a write was not so. The rest
        as of `SqliteStore`."""
        super().__init__(PostgresDatabase(url, moved), keep, now, bounds, moved)


class PostgresDatabase:
    """The `Database` port over a server's database: connected at once, and anew whenever that was lost."""

    errors = faults.ERRORS

    def __init__(self, url: str, moved: Callable[[], None] = lambda: None) -> None:
        self._link = Link(url, moved)
        self.name = self._link.name
        self._looking = threading.Lock()
        # Of the writing thread:
        self._begun: Session | None = None
        """The one whose transaction is open."""
        self._commit = Commit(0)
        """That transaction."""
        self._doubted: Commit | None = None
        """One that was told to have failed, and of which that was not known."""

    @property
    def writing(self) -> Session:
        """Where the transaction is."""
        if self._begun is None:
            raise ConnectionError("no transaction is open")
        return self._begun

    def begin(self, synced: bool) -> bool:
        """A transaction, on a new connection where the last one was lost."""
        session = self._link.writing(BEGIN_S)
        doubted, self._doubted = self._doubted, None
        self._commit, mark = self._link.begun()
        session.say("BEGIN", *(() if synced else (words.SYNC_LATER,)), *mark)
        self._begun = session
        return doubted is not None and bool(doubted.made)

    def commit(self) -> None:
        """On disk, as it was begun. Where no answer comes, it is looked up; raises where that is no, or not known."""
        session, commit, link = self.writing, self._commit, self._link
        link.commits(session, commit)
        try:
            status = session.told("COMMIT")
        except self.errors as error:
            if not faults.lost(error):
                link.answered(commit, False)
                raise
            link.lose(session.connection)
            if not link.settled(commit, DOUBT_S):
                self._doubted = commit
                raise
        else:
            link.answered(commit, status == "COMMIT")
            if not commit.made:
                raise ConnectionError(f"it was not committed, but: {status}")
        self._begun = None

    def rollback(self) -> None:
        """Give the transaction up, and the connection where that cannot be said there."""
        session, self._begun = self._begun, None
        if session is not None:
            try:
                session.abandon(ROLLBACK_S)
            except self.errors:
                self._link.lose(session.connection)

    def look(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a query, of what is committed now."""
        self._link.reading(LOOK_S)
        try:
            with self._looking:
                reading = self._link.reading()
                try:
                    found = self._link.run(reading.fetch(words.said(statement), *values))
                except self.errors as error:
                    if faults.lost(error):
                        self._link.lose(reading)
                    raise
        except self.errors as error:
            raise self.fault(error) from error
        return [tuple(row) for row in found]

    def of_row(self, error: Exception) -> bool:
        """It is this row: neither the database nor the way to it."""
        return faults.of_row(error)

    def fault(self, error: Exception) -> SwellError:
        """The database's own error as one that names the way out."""
        return faults.of(self.name, error)

    def copy(self, target: Path) -> None:
        """Write what is committed now to a new file of SQLite, on a connection of its own."""
        postgres_copy.copy(self._link.url, target, self._link.place)

    def close_writing(self) -> None:
        """By the writing thread, at its end."""
        self._link.release()

    def close_reading(self) -> None:
        """Once nobody looks."""
        with self._looking:
            self._link.end()
