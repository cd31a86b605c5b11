"""What does a failure of the disk or the database mean to a user, and what is the way out?"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swell.model.errors import SwellError

_FULL = {sqlite3.SQLITE_FULL}
_CANNOT_GROW = {sqlite3.SQLITE_IOERR_SHMSIZE}
"""What the full disk is called where the first to open the database makes the file that readers share."""
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def of_database(path: Path, error: sqlite3.Error) -> SwellError:
    """The database's own error as one that names the file and the way out."""
    whole = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = whole & 0xFF
    if code in _FULL or whole in _CANNOT_GROW:
        return full(path)
    if code in _READ_ONLY or code == sqlite3.SQLITE_CANTOPEN:
        return not_writable(path, str(error))
    if code in _LOCKED:
        return SwellError(
            "state_locked",
            f"The database {path} is locked by another process. End whatever else has it open "
            "(`fuser` on the file names it), then try again.",
            status=503,
        )
    if code in _DAMAGED:
        return SwellError(
            "state_damaged",
            f"The database {path} is damaged ({error}). Stop Swell and restore a backup into another directory "
            f"(`swell restore`); or move all of {path.parent} away, start again, and deploy your apps again.",
            status=500,
        )
    return SwellError("state_failed", f"The database {path} could not be used: {error}.", status=500)


@contextmanager
def as_swell_errors(path: Path) -> Iterator[None]:
    """File system errors inside become ones that name the file and the way out."""
    try:
        yield
    except OSError as error:
        raise of_file(path, error) from error


def of_file(path: Path, error: OSError) -> SwellError:
    """A file system error as one that names the file and the way out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return not_writable(path, error.strerror or str(error))
    return SwellError("state_failed", f"{path} could not be used: {error.strerror or error}.", status=500)


def full(path: Path) -> SwellError:
    """No space is left."""
    return SwellError(
        "state_full",
        f"There is no space left to write {path}. Free some on its disk; a server that runs goes on by itself.",
        status=507,
    )


def not_writable(path: Path, words: str) -> SwellError:
    """The state directory cannot be written."""
    return SwellError(
        "state_not_writable",
        f"{path} cannot be opened for writing ({words}). Make {path.parent} a directory this user may write to, "
        "or set SWELL_HOME (or --home) to one.",
        status=500,
    )
