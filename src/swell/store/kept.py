"""Where is the state kept, and which adapter is that? PostgreSQL's is imported, with its library, where it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swell.model.errors import SwellError
from swell.model.urls import shown
from swell.store import state_id
from swell.store.retention import Keep
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


def copied(address: str, root: Path, target: Path) -> None:
    """Write the state at an address, whose files are in a directory that no server has open, to a new file of SQLite.

    SwellError state_other where the files are another's.
    """
    with _its_library():
        from swell.store import postgres_copy
    postgres_copy.copy(address, target)
    state_id.check_file(root, target, shown(address))


def check_free(address: str) -> None:
    """Raises SwellError where no state can be put there: database_not_empty, and what keeps it from being opened."""
    with _its_library():
        from swell.store import postgres_copy
    postgres_copy.check_free(address)


def load(address: str, source: Path) -> None:
    """Put the state of a file of SQLite there, all of it or nothing. Raises SwellError."""
    with _its_library():
        from swell.store import postgres_copy
    postgres_copy.load(address, source)


def _opened(address: str, path: Path, keep: Keep, moved: Callable[[], None]) -> TableStore:
    if not address:
        return SqliteStore(path, keep)
    with _its_library():
        from swell.store.postgres import PostgresStore
    return PostgresStore(address, keep, moved=moved)


@contextmanager
def _its_library() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        words = "A state in PostgreSQL needs asyncpg, which is not installed here: pip install 'swell[postgres]'."
        raise SwellError("not_available", words, status=501) from None


def close(store: TableStore) -> None:
    """Write what waits; what could not be written is told in the log."""
    try:
        store.close()
    except SwellError as error:
        log.error("%s", error.message)
