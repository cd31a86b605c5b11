"""How does a whole state go into a file of SQLite row by row, and come out of one so? Table by table, with its numbers.

What triggers would do was done where the rows come from: they are away meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from swell.model.errors import SwellError
from swell.store import faults, schema
from swell.store import statements as sql
from swell.store.sqlite import connected

NUMBERED = ("events", "dict_entries", "queue_items")
"""Tables whose rows have numbers of which none is ever given twice."""
ENDS = "call_ends"
"""What the ends of calls are numbered by; the newest number is in a row."""

Row = tuple[Any, ...]


class Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of each column: INTEGER, REAL, TEXT or BLOB."""


class Rows:
    """The rows of a file, with the present tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        names = [name for (name,) in connection.execute(sql.TABLES) if name != "migrations"]
        self.tables = [self._table(name) for name in sorted(names)]

    def _table(self, name: str) -> Table:
        columns = self._connection.execute(sql.COLUMNS, (name,)).fetchall()
        return Table(name, tuple(column for column, _ in columns), tuple(kind for _, kind in columns))

    def add(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows of all its columns, in their order."""
        marks = ", ".join("?" * len(table.columns))
        self._connection.executemany(sql.ADD_ROW.format(table.name, ", ".join(table.columns), marks), rows)

    def of(self, table: Table) -> Iterator[Row]:
        """All rows of a table, as they are read."""
        blobs = [at for at, kind in enumerate(table.kinds) if kind == "BLOB"]
        for row in self._connection.execute(sql.ROWS.format(", ".join(table.columns), table.name)):
            if any(isinstance(row[at], str) for at in blobs):
                # To SQLite a text in such a column is one.
                values = list(row)
                for at in blobs:
                    values[at] = values[at].encode() if isinstance(values[at], str) else values[at]
                yield tuple(values)
            else:
                yield row

    def numbers(self) -> dict[str, int]:
        """The newest number that was given, by table, and of ends."""
        return dict(self._connection.execute(sql.NUMBERS).fetchall())

    def set_numbers(self, numbers: Mapping[str, int]) -> None:
        """The next ones are above these."""
        self._connection.execute(sql.DROP_NUMBERS)
        self._connection.executemany(sql.ADD_NUMBER, [(name, numbers.get(name, 0)) for name in NUMBERED])
        self._connection.execute(sql.SET_CALL_ENDS, (numbers.get(ENDS, 0),))


@contextmanager
def filling(path: Path) -> Iterator[Rows]:
    """A new file with the present tables and nothing in them. What is broken off leaves it as no database can be."""
    try:
        with faults.as_swell_errors(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connected(path)) as connection:
            schema.migrate(connection, str(path), schema.migrations())
            made = connection.execute(sql.MADE_OF_TABLES).fetchall()
            connection.execute(sql.NO_JOURNAL)
            connection.execute(sql.BEGIN)
            for kind, name, _ in made:
                connection.execute(sql.DROP.format(kind, name))
            rows = Rows(connection)
            for table in rows.tables:
                connection.execute(sql.DROP_ROWS.format(table.name))
            yield rows
            for *_, text in made:
                connection.execute(text)
            connection.execute(sql.COMMIT)
    except sqlite3.Error as error:
        raise faults.of_database(path, error) from error


@contextmanager
def reading(path: Path) -> Iterator[Rows]:
    """A file with the present tables, which nobody writes to."""
    try:
        with closing(connected(path)) as connection:
            connection.execute(sql.ONLY_READ)
            if connection.execute(sql.NEWEST_MIGRATION).fetchone()[0] != schema.migrations()[-1].number:
                raise SwellError("state_other", f"{path} is of another schema than this Swell's.")
            yield Rows(connection)
    except sqlite3.Error as error:
        raise faults.of_database(path, error) from error
