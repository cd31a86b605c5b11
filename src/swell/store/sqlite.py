"""How does control's state outlive it? In one SQLite database file: it is made when missing and brought forward when
older."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.model.kv import BOUNDS, Bounds
from swell.store import faults, schema
from swell.store import statements as sql
from swell.store.retention import Keep
from swell.store.tables import TableStore

BUSY_S = 2.0
"""How long another process may hold the database before it counts as locked."""
_OF_ROW = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


class SqliteStore(TableStore):
    """The `Store` port over one database file."""

    def __init__(
        self, path: Path, keep: Keep | None = None, now: Callable[[], float] = time.time, bounds: Bounds = BOUNDS
    ) -> None:
        """`now` (seconds since the epoch) says what is too old: to be kept, or to be known by the minute. `bounds`: of
        dicts and queues."""
        super().__init__(SqliteDatabase(path), keep, now, bounds)


class Writing(sqlite3.Connection):
    """A connection that also runs a statement for many rows."""

    def each(self, statement: str, rows: Sequence[Sequence[Any]], /) -> list[Any]:
        """The row that each came to, or None."""
        found = (self.execute(statement, row).fetchall() for row in rows)
        return [rows[0] if rows else None for rows in found]


class SqliteDatabase:
    """The `Database` port over a file."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._looking = threading.Lock()
        self.writing = _open(path)
        try:
            self._reading = connected(path)
            self._reading.execute(sql.ONLY_READ)
        except BaseException:
            self.writing.close()
            raise
        self._synced = True
        """The connection syncs at each commit, as it was opened."""

    def begin(self, synced: bool) -> bool:
        """A transaction. False: what failed to be committed was not."""
        if synced is not self._synced:
            self.writing.execute(sql.SYNC_EVERY_COMMIT if synced else sql.SYNC_LATER)
            self._synced = synced
        self.writing.execute(sql.BEGIN)
        return False

    def commit(self) -> None:
        """On disk, as it was begun."""
        self.writing.execute(sql.COMMIT)

    def rollback(self) -> None:
        """Give the transaction up."""
        with suppress(sqlite3.Error):
            self.writing.execute(sql.ROLLBACK)

    def look(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a query, of what is committed now."""
        try:
            with self._looking:
                return self._reading.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self.fault(error) from error

    def of_row(self, error: Exception) -> bool:
        """It is this row: not the disk, and not the file."""
        return not isinstance(error, sqlite3.Error) or isinstance(error, _OF_ROW)

    def fault(self, error: Exception) -> SwellError:
        """The database's own error as one that names the file and the way out."""
        assert isinstance(error, sqlite3.Error)
        return faults.of_database(self._path, error)

    def copy(self, target: Path) -> None:
        """Write what is committed now to a new file."""
        copy_database(self._path, target)

    def close_writing(self) -> None:
        """By the writing thread, at its end."""
        self.writing.close()

    def close_reading(self) -> None:
        """Once nobody looks."""
        with self._looking:
            self._reading.close()


# -- opening --------------------------------------------------------------------------------------


def _open(path: Path) -> Writing:
    """The writing connection, with the present schema."""
    with faults.as_swell_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = connected(path)
    try:
        connection.execute(sql.USE_WAL)
        connection.execute(sql.SYNC_EVERY_COMMIT)
        schema.migrate(connection, str(path), schema.migrations())
    except sqlite3.Error as error:
        connection.close()
        raise faults.of_database(path, error) from error
    except SwellError:
        connection.close()
        raise
    return connection


def connected(path: Path) -> Writing:
    """A connection to the database of that file, as it is."""
    try:
        return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, factory=Writing)
    except sqlite3.Error as error:
        raise faults.of_database(path, error) from error


def copy_database(path: Path, target: Path) -> None:
    """Write the database as it is now to a new file. The original stays as it is, also where it is of an older
    schema."""
    connection = connected(path)
    try:
        connection.execute(sql.COPY, (str(target),))
        os.chmod(target, 0o600)
    except sqlite3.Error as error:
        raise faults.of_database(path, error) from error
    finally:
        connection.close()
