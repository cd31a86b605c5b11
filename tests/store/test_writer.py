"""What does the writing thread do with commits that fail, and of which nothing is known?"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swell.model.errors import SwellError
from swell.model.events import AppDeployed, NodeSeen
from swell.model.node import Node
from swell.model.workload import App
from swell.store import sqlite, writer
from swell.store.database import Connection
from swell.store.sqlite import SqliteStore
from swell.store.writer import Writer

WAIT_S = 60.0


class Fails:
    """A database in memory. Each commit takes one of `troubles`: it is raised instead, or (of what is `made`) after."""

    errors: tuple[type[Exception], ...] = (OSError, sqlite3.Error)
    name = "db"

    def __init__(self, *troubles: Exception | None, made: bool = False, begins: Exception | None = None) -> None:
        self.writing: Connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.writing.execute("CREATE TABLE rows (value)")
        self.rolled_back = 0
        self._troubles = list(troubles)
        self._made = made
        self._begins = begins
        self._found = False

    def begin(self, synced: bool) -> bool:
        begins, self._begins = self._begins, None
        if begins is not None:
            raise begins
        self.writing.execute("BEGIN")
        found, self._found = self._found, False
        return found

    def commit(self) -> None:
        trouble = self._troubles.pop(0) if self._troubles else None
        if trouble is None or self._made:
            self.writing.execute("COMMIT")
        if trouble is not None:
            self._found = self._made
            raise trouble

    def rollback(self) -> None:
        self.rolled_back += 1
        if self.writing.in_transaction:  # type: ignore[attr-defined]
            self.writing.execute("ROLLBACK")

    def look(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self.writing.execute(statement, values).fetchall()

    def of_row(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.IntegrityError)

    def fault(self, error: Exception) -> SwellError:
        return SwellError("state_unreachable", f"{error}", status=503)

    def close_writing(self) -> None:
        """The rows are looked at afterwards."""

    def close_reading(self) -> None:
        self.writing.close()  # type: ignore[attr-defined]

    def rows(self) -> list[int]:
        return [value for (value,) in self.look("SELECT value FROM rows ORDER BY rowid", ())]


def adds(value: int) -> Any:
    return lambda connection: connection.execute("INSERT INTO rows VALUES (?)", (value,)).rowcount


def nothing(_: object) -> int:
    return 0


@pytest.mark.parametrize("where", ["begins", "commits"])
@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), AttributeError("None has no write")])
def test_an_error_that_no_database_raises_ends_nothing(where: str, error: Exception) -> None:
    database = Fails(begins=error) if where == "begins" else Fails(error)
    with closing(Writer(database, nothing, 600.0)) as writer:
        with pytest.raises(SwellError) as caught:
            writer.do([adds(1)])
        assert caught.value.code == "state_failed"
        assert type(error).__name__ in caught.value.message
        assert (writer.do([adds(2)]), writer.trouble, database.rolled_back) == (1, "", 1)
    assert database.rows() == [2]
    database.close_reading()


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_what_was_told_to_have_failed_and_was_made_is_said(made: bool, told: bool) -> None:
    """What nobody waits for is written once, either way."""
    heard: list[str] = []
    go_on = threading.Event()
    # The first commit, and the chore after it, are made.
    database = Fails(None, None, OSError("gone"), made=made)
    with (
        closing(Writer(database, nothing, 600.0, lambda: heard.append("made"))) as writer,
        ThreadPoolExecutor(2) as threads,
    ):
        threads.submit(writer.do, [lambda _: int(go_on.wait(WAIT_S))])
        until(lambda: writer._committing)
        writer.put([adds(1)], 1)
        # Somebody waits for what is his own, or only until the others' writes are tried.
        waiting = threads.submit(writer.do, [adds(2)] if told else ())
        until(lambda: len(writer._queue) == 2)
        go_on.set()
        with pytest.raises(SwellError) as caught:
            waiting.result(WAIT_S)
        assert caught.value.code == "state_unreachable"
        assert writer.do([adds(3)]) == 1
    assert heard == (["made"] if made and told else [])
    assert database.rows() == ([1, 2, 3] if made and told else [1, 3])
    database.close_reading()


def test_what_an_app_is_has_room_where_other_rows_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy that was told to be on disk is: it is never among what is dropped."""
    monkeypatch.setattr(writer, "ROWS_WAITING_MAX", 10)
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    store = SqliteStore(tmp_path / "control.db")
    other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for n in range(25):
        store.world.append([NodeSeen(1.0, Node(f"n{n}", 1.0, 1))])
    assert store.rows_dropped == 15
    store.world.append([AppDeployed(1.0, App("default", "a", (), ()))])
    store.world.append([NodeSeen(1.0, Node("n25", 1.0, 1))])
    other.close()
    store.world.flush()
    assert [app.name for app in store.world.apps()] == ["a"]
    assert store.rows_dropped == 16
    store.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)
