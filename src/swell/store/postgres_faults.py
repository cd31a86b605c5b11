"""What does an error of PostgreSQL, or on the way to it, mean to a user, and what is the way out?"""

from __future__ import annotations

import asyncpg

from swell.model.errors import SwellError

ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    SwellError,
)
"""What is raised of a connection."""
_OF_ROW = ("22", "23", "42", "54")
"""Kinds of errors that this row is to blame for."""
_REFUSED = ("28", "3D", "42501")
"""That no waiting mends: user, password, rights, the database's name."""


def of(name: str, error: Exception) -> SwellError:
    """An error as one that names the database and the way out."""
    if isinstance(error, SwellError):
        return error
    said, state = f"{error}" or type(error).__name__, _state(error)
    if state.startswith("53") and state != "53300":
        what = f"There is no space left for the database {name} ({said}). Free some on its server; "
        return SwellError("state_full", f"{what}a server that runs goes on by itself.", status=507)
    if state.startswith(_REFUSED) or state == "25006":
        what = f"The database {name} cannot be written to ({said}). Look at SWELL_STORE, and at the rights there"
        return SwellError("state_not_writable", f"{what} of its user.", status=500)
    if lost(error) or state == "53300":
        what = f"The database {name} cannot be reached ({said}). What was being written may be there all the"
        return SwellError("state_unreachable", f"{what} same; it goes on once the database is back.", status=503)
    return SwellError("state_failed", f"The database {name} could not be used: {said}.", status=500)


def of_row(error: Exception) -> bool:
    """It is this row: neither the database nor the way to it."""
    if not isinstance(error, ERRORS) or isinstance(error, SwellError):
        return True
    state = _state(error)
    return state.startswith(_OF_ROW) and state not in _REFUSED


def lost(error: Exception) -> bool:
    """Nothing more comes of the connection; of what was being done nothing is known."""
    state = _state(error)
    return state.startswith(("08", "57", "58", "XX")) if state else not isinstance(error, SwellError)


def _state(error: Exception) -> str:
    """The server's own number of an error; empty where it said none."""
    return str(getattr(error, "sqlstate", None) or "")
