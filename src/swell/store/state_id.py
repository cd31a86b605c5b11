"""Whose are the files of a state directory? Those of one state: its database and the directory carry the same id.

What no row names is removed from the directory. So a database that knows nothing of the files, since it is another
state's or a new one, must never be opened over them.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from swell.model.errors import SwellError
from swell.store import faults
from swell.store import statements as sql
from swell.store.blobs import sync_folder

FILE = "state-id"
"""In the state directory; one that an older Swell made gets it at its next start."""
_FILES = ("blobs", "results", "volumes", "checkpoints")
"""What is removed once no row names it."""


class Identified(Protocol):
    """A database with a state in it."""

    def id(self) -> str:
        """Empty where it has none yet."""
        ...

    def draw_id(self) -> str:
        """One that no other has; on disk before it returns."""
        ...

    def begun(self) -> bool:
        """Has a server ever run on it?"""
        ...


def settle(root: Path, database: str, state: Identified, inside: bool) -> None:
    """The files of a directory are this state's, or become so. `inside`: its database is one of them. Raises SwellError
    state_other where they are another's."""
    here, there = _read(root), state.id()
    if here:
        check(root, database, here, there)
        return
    begun = state.begun()
    if not begun:
        _check_nothing_left(root, database)
    elif there and not inside:
        raise SwellError(
            "state_other",
            f"The state in {database} ({there}) has its files in another directory than {root}, in which there is no "
            f"{FILE}: set SWELL_HOME to that one, or copy it here. If it is lost, and the state is to go on without "
            f"them: echo {there} > {root / FILE}",
        )
    _write(root, there or state.draw_id())


def check(root: Path, database: str, here: str, there: str) -> None:
    """Refuse a database that is not the one of a directory, by the ids of both."""
    if here == there:
        return
    raise SwellError(
        "state_other",
        f"The files in {root} are those of the state {here}, and {database} is "
        f"{f'the state {there}' if there else 'none or another'}: what it does not know of would be removed. Set "
        "SWELL_STORE (or store in swell.toml) to what it was, or SWELL_HOME to another directory. To begin anew here, "
        f"move {', '.join(_FILES)} and {FILE} away first.",
    )


def check_file(root: Path, database: Path, name: str = "") -> None:
    """The same of a database of SQLite that no server has open, and that may be of an older schema; or of a copy of the
    one that is called so."""
    here = _read(root)
    if not here:
        return
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(sql.STATE_ID).fetchone()
    except sqlite3.Error as error:
        raise faults.of_database(database, error) from error
    check(root, name or str(database), here, shown(found[0]) if found else "")


def shown(number: int) -> str:
    """An id as people and files have it."""
    return f"{number:016x}"


def _check_nothing_left(root: Path, database: str) -> None:
    for name in _FILES:
        folder = root / name
        with faults.as_swell_errors(folder):
            if folder.is_dir() and any(folder.iterdir()):
                raise SwellError(
                    "state_other",
                    f"The state in {database} is a new one, and there are files of another in {folder}, which would be "
                    "removed: nothing in it knows of them. Set SWELL_STORE (or store in swell.toml) to what it was, or "
                    f"SWELL_HOME to another directory. To begin anew here, move {', '.join(_FILES)} away first.",
                )


def _read(root: Path) -> str:
    """Empty where there is none."""
    path = root / FILE
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise faults.of_file(path, error) from error


def _write(root: Path, id: str) -> None:
    path = root / FILE
    with faults.as_swell_errors(path):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{FILE}.new")
        with draft.open("w", encoding="ascii") as file:
            file.write(f"{id}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(root)
