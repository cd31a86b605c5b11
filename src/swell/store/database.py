"""What do the stores ask of a database? Statements, one after the other, in transactions that one thread makes.

The statements are those of `statements`. Where a database says one otherwise, its adapter does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from swell.model.errors import SwellError


class Cursor(Protocol):
    """What came of a statement."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    def fetchall(self) -> list[Any]: ...

    def fetchone(self) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Where statements are run inside a transaction; by the writing thread alone."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Cursor: ...

    def each(self, statement: str, rows: Sequence[Sequence[Any]], /) -> list[Any]:
        """Run a statement for each row. What each came to: a row, or None; it must be one at most."""
        ...


Op = Callable[[Connection], int]
"""Writes its rows inside the thread's transaction; its number goes to whoever waits for it."""


class Database(Protocol):
    """One database: a connection that writes, and readings of what is committed."""

    name: str
    """As people know it: without a password."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its connections raise."""
        ...

    @property
    def writing(self) -> Connection: ...

    def begin(self, synced: bool) -> bool:
        """A transaction; `synced`: on disk when it is committed. True: the one whose commit failed last was committed
        all the same, as is known by now."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None:
        """Give the transaction up. Never fails."""
        ...

    def look(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a query, of what is committed now. Any thread may ask. Raises SwellError."""
        ...

    def of_row(self, error: Exception) -> bool:
        """It is this row that cannot be written: others can."""
        ...

    def fault(self, error: Exception) -> SwellError:
        """One of its `errors` as one that names the way out."""
        ...

    def copy(self, target: Path) -> None:
        """Write what is committed now to a new file of SQLite, while further writes go on. Raises SwellError."""
        ...

    def close_writing(self) -> None: ...

    def close_reading(self) -> None: ...
