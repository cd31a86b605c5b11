"""How does a state in PostgreSQL become a file of SQLite, and such a file a state in PostgreSQL? By COPY of each table.

The tables are the same in both. So a backup is the same file wherever the state was, and may be restored in either.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.model.urls import shown
from swell.store import postgres_faults as faults
from swell.store import postgres_statements as words
from swell.store import schema
from swell.store import statements as sql
from swell.store.postgres_link import bring_forward, connected, take
from swell.store.postgres_session import Session
from swell.store.sqlite_rows import ENDS, Row, Rows, Table, filling, reading

SILENCE_S = 120.0
"""For how long no row need come, or be taken."""
WHOLE_S = 1e6
"""The library has a bound of its own, for all rows together."""
CLOSE_S = 3.0

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEAD = len(_SIGNATURE) + 8
_COUNT, _SIZE, _INTEGER, _REAL = (struct.Struct(f">{kind}") for kind in "hiqd")


def copy(url: str, target: Path, place: str = "") -> None:
    """Write the state, as it is at one moment, to a new file, while others write. `place`: the database it must be.
    Not on a thread that runs an event loop. Raises SwellError."""
    try:
        with filling(target) as rows:
            asyncio.run(_copied(url, rows, place))
    except faults.ERRORS as error:
        raise faults.of(shown(url), error) from error


def check_free(url: str) -> None:
    """Raises SwellError where no state can be put there."""
    with _free(url):
        pass


def load(url: str, source: Path) -> None:
    """Put the state of a file there, all of it or nothing. Raises SwellError: database_not_empty where a server ran."""
    with _free(url) as (session, run), reading(source) as rows:
        names = [table.name for table in rows.tables]
        session.say("BEGIN", words.EMPTY.format(", ".join(names)))
        session.say(*(words.NO_TRIGGERS.format(name) for name in names))
        for table in rows.tables:
            session.told()
            run(_loaded(session.connection, table, rows.of(table)))
        numbers = rows.numbers()
        for name, column in words.NUMBERED:
            session.ask(words.SET_NUMBER.format(name, column), numbers.get(name, 0))
        session.ask(words.SET_ENDS, numbers.get(ENDS, 0))
        session.say(words.DROP_ENDS, *(words.TRIGGERS_AGAIN.format(name) for name in names))
        if session.told("COMMIT") != "COMMIT":
            raise SwellError("state_failed", f"The database {shown(url)} did not take the state.", status=500)
        with suppress(*faults.ERRORS):
            # Until it has looked at the rows, which it does by itself in a while, it may look for one among all.
            session.told(words.LOOK_AT.format(", ".join(names)))


# -- out of PostgreSQL ----------------------------------------------------------------------------


async def _copied(url: str, rows: Rows, place: str) -> None:
    connection = await connected(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if place and await connection.fetchval(words.PLACE) != place:
                raise ConnectionError("it leads to another database now")
            await _check_tables(connection, shown(url))
            for table in rows.tables:
                await _read(connection, table, rows)
            found = await connection.fetch(words.NUMBERS)
            rows.set_numbers({row[0]: row[1] for row in found})
    finally:
        await _close(connection)


async def _check_tables(connection: Any, name: str) -> None:
    """They are the present ones, which a server makes of older ones."""
    if not await connection.fetchval(words.HAS_STATE):
        raise SwellError("no_state", f"There is no state in {name}: no server ever ran on it.", status=404)
    found = [(row[0], row[2]) for row in await connection.fetch(sql.MIGRATIONS)]
    known = [(step.number, step.checksum) for step in schema.migrations("sql_postgres")]
    if found != known:
        said = f"The state in {name} was written by another version of Swell. Back it up with that one, or"
        raise SwellError("state_other", f"{said} start this one on it before.")


async def _read(connection: Any, table: Table, rows: Rows) -> None:
    coming, now = Coming(table.kinds), asyncio.get_running_loop().time
    async with asyncio.timeout(SILENCE_S) as silence:

        async def taken(piece: bytes) -> None:
            rows.add(table, coming.rows(piece))
            silence.reschedule(now() + SILENCE_S)

        await connection.copy_from_table(
            table.name, columns=table.columns, output=taken, format="binary", timeout=WHOLE_S
        )
    coming.check_whole()


class Coming:
    """Rows of PostgreSQL's binary COPY, which come in pieces of any size."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._readers = [_READERS[kind] for kind in kinds]
        self._left = b""
        self._begun = self._ended = False

    def rows(self, piece: bytes) -> list[Row]:
        """Those that are whole by now."""
        data = self._left + piece
        at, rows = self._begin(data), []
        while self._begun and not self._ended and (found := self._row(data, at)):
            row, at = found
            if row is None:
                self._ended = True
            else:
                rows.append(row)
        self._left = data[at:]
        return rows

    def check_whole(self) -> None:
        """Raises ConnectionError where more should have come."""
        if not self._ended or self._left:
            raise ConnectionError("what it sent of a table is not whole")

    def _begin(self, data: bytes) -> int:
        """Where rows begin."""
        if self._begun or len(data) < _HEAD:
            return 0
        if not data.startswith(_SIGNATURE):
            raise ConnectionError("what it sent of a table is none")
        extension = int.from_bytes(data[_HEAD - 4 : _HEAD], "big")
        self._begun = len(data) >= _HEAD + extension
        return _HEAD + extension if self._begun else 0

    def _row(self, data: bytes, at: int) -> tuple[Row | None, int] | None:
        """The row that begins there, and where the next one does; None for the end. Nothing where it is not whole."""
        values: list[Any] = []
        try:
            if _COUNT.unpack_from(data, at)[0] < 0:
                return None, at + _COUNT.size
            at += _COUNT.size
            for read in self._readers:
                (size,) = _SIZE.unpack_from(data, at)
                at += _SIZE.size
                if size < 0:
                    values.append(None)
                else:
                    values.append(read(data[at : at + size]))
                    at += size
        except (struct.error, UnicodeDecodeError):
            # Of what is cut off.
            return None
        return (tuple(values), at) if at <= len(data) else None


_READERS: dict[str, Callable[[bytes], Any]] = {
    "INTEGER": lambda data: _INTEGER.unpack(data)[0],
    "REAL": lambda data: _REAL.unpack(data)[0],
    "TEXT": bytes.decode,
    "BLOB": bytes,
}


# -- into it ----------------------------------------------------------------------------------------


@contextmanager
def _free(url: str) -> Iterator[tuple[Session, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """A database with the present tables on which no server ever ran, for as long as this lasts."""
    name = shown(url)
    try:
        with asyncio.Runner() as runner:
            connection = runner.run(connected(url))
            try:
                session = Session(runner.run, connection)
                take(session, name)
                bring_forward(session, name)
                if session.execute(words.OPENED).fetchone()[1]:
                    said = f"The database {name} has a state in it, on which a server ran. A backup is restored into an"
                    raise SwellError("database_not_empty", f"{said} empty one: set SWELL_STORE to another.", status=409)
                yield session, runner.run
            finally:
                runner.run(_close(connection))
    except faults.ERRORS as error:
        raise faults.of(name, error) from error


async def _loaded(connection: Any, table: Table, rows: Iterable[Row]) -> None:
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(SILENCE_S) as silence:

        def given() -> Iterator[Row]:
            for row in rows:
                silence.reschedule(now() + SILENCE_S)
                yield row

        await connection.copy_records_to_table(table.name, columns=table.columns, records=given(), timeout=WHOLE_S)


async def _close(connection: Any) -> None:
    try:
        with suppress(*faults.ERRORS):
            await asyncio.wait_for(connection.close(), CLOSE_S)
    finally:
        connection.terminate()
