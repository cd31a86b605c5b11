"""Which tables does a database have, and how does an older one become a present one?

Numbered files in `sql/` are applied in order, each recorded with its checksum. A database that
knows more, or other, migrations than this code is refused and left as it is.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path

import msgspec

from swell.model.errors import SwellError
from swell.store import statements as sql


class Migration(msgspec.Struct, frozen=True):
    """One numbered step. Statements end with ";" at the end of a line."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        return [part for part in self.text.split(";\n") if part.strip()]


def migrations() -> list[Migration]:
    """The steps this code knows, in order."""
    found = []
    for file in resources.files("swell.store").joinpath("sql").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def migrate(connection: sqlite3.Connection, path: Path, known: Sequence[Migration]) -> None:
    """Bring the database forward to `known`, in one transaction; or refuse it and change nothing."""
    connection.execute(sql.BEGIN)
    try:
        tables = {name for (name,) in connection.execute(sql.TABLES)}
        if tables and "migrations" not in tables:
            raise SwellError(
                "state_foreign",
                f"{path} is a database of some other program. Move it away, or set SWELL_HOME to another directory.",
            )
        connection.execute(sql.MAKE_MIGRATIONS)
        applied = connection.execute(sql.MIGRATIONS).fetchall()
        _check(path, applied, known)
        for migration in known[len(applied) :]:
            for statement in migration.statements:
                connection.execute(statement)
            row = (migration.number, migration.name, migration.checksum, time.time())
            connection.execute(sql.ADD_MIGRATION, row)
        connection.execute(sql.COMMIT)
    except BaseException:
        # A full disk may have rolled it back already.
        with suppress(sqlite3.Error):
            connection.execute(sql.ROLLBACK)
        raise


def _check(path: Path, applied: Sequence[tuple[int, str, str]], known: Sequence[Migration]) -> None:
    """What was applied must be a beginning of what is known."""
    if len(applied) > len(known):
        raise SwellError(
            "state_newer",
            f"{path} was written by a newer Swell (its schema is number {applied[-1][0]}, this one knows "
            f"{known[-1].number}). Install that version again, or set SWELL_HOME to another directory.",
        )
    for (number, name, checksum), migration in zip(applied, known, strict=False):
        if (number, checksum) != (migration.number, migration.checksum):
            raise SwellError(
                "state_other",
                f"{path} was written by a different build of Swell (step {number}, {name!r}, of its schema is not "
                "the one this build has). Install that build again, or set SWELL_HOME to another directory.",
            )
