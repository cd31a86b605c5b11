"""Which tables does a database have, and how does an older one become a present one?

Numbered files in `sql/`, or of PostgreSQL in `sql_postgres/`, are applied in order, each recorded with its checksum. A
database that knows more, or other, migrations than this code is refused and left as it is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources

import msgspec

from swell.model.errors import SwellError
from swell.store import statements as sql
from swell.store.database import Connection

_END = re.compile(r";\n(?![ \t]|END\b)")


class Migration(msgspec.Struct, frozen=True):
    """One numbered step. Statements end with ";" at the end of a line.

    What is indented after one, and an END, is of the same statement: the body of a trigger or of a function.
    """

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        return [part for part in _END.split(self.text) if part.strip()]


def migrations(folder: str = "sql") -> list[Migration]:
    """The steps this code knows, in order, of the database whose they are."""
    found = []
    for file in resources.files("swell.store").joinpath(folder).iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def migrate(
    connection: Connection, database: str, known: Sequence[Migration], other: str = "SWELL_HOME to another directory"
) -> None:
    """Bring the database forward to `known`, in one transaction; or refuse it and change nothing. `other`: what could
    be set instead of this one."""
    connection.execute(sql.BEGIN)
    try:
        tables = {name for (name,) in connection.execute(sql.TABLES)}
        if tables and "migrations" not in tables:
            words = f"{database} is a database of some other program. Move it away, or set {other}."
            raise SwellError("state_foreign", words)
        connection.execute(sql.MAKE_MIGRATIONS)
        applied = connection.execute(sql.MIGRATIONS).fetchall()
        _check(database, applied, known, other)
        for migration in known[len(applied) :]:
            for statement in migration.statements:
                connection.execute(statement)
            row = (migration.number, migration.name, migration.checksum, time.time())
            connection.execute(sql.ADD_MIGRATION, row)
        connection.execute(sql.COMMIT)
    except BaseException:
        # A full disk may have rolled it back already.
        with suppress(Exception):
            connection.execute(sql.ROLLBACK)
        raise


def _check(database: str, applied: Sequence[tuple[int, str, str]], known: Sequence[Migration], other: str) -> None:
    """What was applied must be a beginning of what is known."""
    if len(applied) > len(known):
        raise SwellError(
            "state_newer",
            f"{database} was written by a newer Swell (its schema is number {applied[-1][0]}, this one knows "
            f"{known[-1].number}). Install that version again, or set {other}.",
        )
    for (number, name, checksum), migration in zip(applied, known, strict=False):
        if (number, checksum) != (migration.number, migration.checksum):
            raise SwellError(
                "state_other",
                f"{database} was written by a different build of Swell (step {number}, {name!r}, of its schema is not "
                f"the one this build has). Install that build again, or set {other}.",
            )
