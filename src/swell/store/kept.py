"""Where is the state kept, and which adapter is that? PostgreSQL's is imported, with its library, where it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swell.model.backup import State
from swell.model.errors import SwellError
from swell.store import state_id
from swell.store.retention import Keep
from swell.store.snapshot import StateElsewhere, StateFolder
from swell.store.sqlite import SqliteStore
from swell.store.tables import TableStore

log = logging.getLogger("swell")


def opened(address: str, path: Path, keep: Keep, moved: Callable[[], None]) -> TableStore:
    """The store at an address, or (empty) in a file. `moved`: nothing more can be written there.

    The files beside that path are those of the state in it. SwellError state_other where they are another's,
    not_available where its library is not installed, and what else keeps it from being opened.
    """
    store = _opened(address, path, keep, moved)
    try:
        state_id.settle(path.parent, store.name, store, inside=not address)
    except BaseException:
        with suppress(SwellError):
            store.close()
        raise
    return store


def _opened(address: str, path: Path, keep: Keep, moved: Callable[[], None]) -> TableStore:
    if not address:
        return SqliteStore(path, keep)
    try:
        from swell.store.postgres import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        words = "A state in PostgreSQL needs asyncpg, which is not installed here: pip install 'swell[postgres]'."
        raise SwellError("not_available", words, status=501) from None
    return PostgresStore(address, keep, moved=moved)


def state(root: Path, store: TableStore) -> State:
    """What a backup is made of."""
    return StateFolder(root, store.copy) if isinstance(store, SqliteStore) else StateElsewhere(root)


def close(store: TableStore) -> None:
    """Write what waits; what could not be written is told in the log."""
    try:
        store.close()
    except SwellError as error:
        log.error("%s", error.message)
