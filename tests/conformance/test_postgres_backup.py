"""Is a state in PostgreSQL backed up whole, of one moment, and restored in either database, or nothing changed?"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import postgres
import pytest
from calls_suite import NOW, OUT, POOL, F, counts, work

from swell import stopped
from swell.model.call import Done
from swell.model.errors import SwellError
from swell.model.kv import Collection
from swell.model.volume import Volume
from swell.store import kept, postgres_copy
from swell.store import postgres_link as link
from swell.store.postgres import PostgresStore
from swell.store.retention import Keep
from swell.store.snapshot import EPOCHS_APART, StateFolder
from swell.store.sqlite import SqliteStore
from swell.store.sqlite_rows import ENDS, NUMBERED, Rows, Table, filling, reading
from swell.store.state_id import FILE
from swell.wire.archive import Reader
from swell.wire.paths import Home

pytestmark = pytest.mark.slow

WAIT_S = 60.0
MANY = 300
KILL = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'swell'"


@pytest.fixture
def second(dsn: str, postgres_server: str) -> Iterator[str]:
    """Another database with nothing in it."""
    postgres.ask(dsn, "CREATE DATABASE second")
    yield f"postgresql://swell@/second?host={postgres_server}"
    postgres.ask(dsn, "DROP DATABASE second WITH (FORCE)")


def value(table: Table, column: str, kind: str, n: int) -> Any:
    """Another one in each row; in some columns none, in some rows much."""
    if (
        column in ("paused_at", "fired_at", "missed_from", "leased_at", "ended_at", "ended_no", "subscription")
        and n % 2
    ):
        return None
    texts = f"{column} \u00e9\U0001f600\n'\\ {n}"
    made = {"INTEGER": n + 1, "REAL": n + 0.1, "TEXT": texts, "BLOB": texts.encode() + bytes([0, 255])}
    if kind == "BLOB" and n == 7:
        return bytes(range(256)) * 8192
    if table.name == "counters":
        return (f"c{n}" if n > 2 else ("epoch", "state", ENDS)[n]) if column == "name" else 2**63 - 1 - n
    return made[kind]


def rows_of(path: Path) -> dict[str, list[Any]]:
    with reading(path) as rows:
        return {table.name: sorted(rows.of(table), key=repr) for table in rows.tables}


def numbers_of(path: Path) -> dict[str, int]:
    with reading(path) as rows:
        return rows.numbers()


def code_of(refused: pytest.ExceptionInfo[SwellError]) -> str:
    return refused.value.code


def test_every_column_of_every_table_is_as_it_was(dsn: str, tmp_path: Path) -> None:
    """From a file to PostgreSQL and back; and nothing is numbered again."""
    with filling(tmp_path / "one") as rows:
        for table in rows.tables:
            about = list(zip(table.columns, table.kinds, strict=True))
            rows.add(table, [tuple(value(table, *each, n) for each in about) for n in range(MANY)])
        given = {name: 1000 + at for at, name in enumerate(NUMBERED)}
        # That of the ends of calls is in a row, which is written already.
        rows._connection.execute("DELETE FROM counters WHERE name = ?", (ENDS,))
        rows.set_numbers({**given, ENDS: 2000})
    for _ in range(2):
        # Once more: no server ran on it.
        postgres_copy.load(dsn, tmp_path / "one")
    postgres_copy.copy(dsn, tmp_path / "two")
    before = rows_of(tmp_path / "one")
    assert rows_of(tmp_path / "two") == before
    assert {len(each) for each in before.values()} == {MANY}
    assert numbers_of(tmp_path / "two") == {**given, ENDS: 2000}
    sequences = postgres.ask(dsn, "SELECT nextval('calls_seq_seq') AS calls, nextval('events_seq_seq') AS events")
    assert dict(sequences[0]) == {"calls": MANY + 1, "events": 1001}


def test_a_new_state_goes_both_ways_too(dsn: str, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "one").close()
    postgres_copy.load(dsn, tmp_path / "one")
    postgres_copy.copy(dsn, tmp_path / "two")
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        assert store.world.open_epoch() == 1
        use(store)


def use(store: Any, now: float = NOW) -> None:
    """What needs triggers and numbers."""
    store.kv.add(Collection("dict", "default", "d", "di-1", NOW))
    store.dicts.put("di-1", [(b"a", b"1"), (b"b", b"2")], now)
    store.calls.add([work("fc-1", group="g"), work("fc-2", group="g")])
    (first, _) = store.calls.lease(F, 2, NOW, 5, "r1-1", POOL)
    assert store.calls.finish([Done(first.call.id, 5, NOW, OUT)]) == [True]
    (end,) = store.call_records.ended("g", 0, 9)
    assert (end.call.id, end.result, store.kv.sizes()) == ("fc-1", OUT, {"di-1": 2})


def test_a_copy_is_of_one_moment_and_has_what_was_told_before(dsn: str, tmp_path: Path) -> None:
    over, told = threading.Event(), [0]

    def write() -> None:
        while not over.is_set():
            n = told[0] + 1
            with store.transaction():
                store.volumes.put(Volume("default", f"v{n}", f"vo-{n}", 1.0))
                store.calls.add([work(f"fc-{n:06}")])
            told[0] = n

    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(3):
                before = told[0]
                store.copy(tmp_path / f"{turn}")
                after = told[0] + 1
                with closing(SqliteStore(tmp_path / f"{turn}")) as copy:
                    calls = counts(copy).get((F, "queued"), 0)
                    assert before <= calls <= after
                    assert len(copy.volumes.all()) == calls
        finally:
            over.set()
            writer.join(WAIT_S)


def test_what_breaks_in_the_middle_is_told_and_leaves_nothing(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(rows: Rows, table: Table, found: Any) -> None:
        # Not on the thread of the connection's loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(postgres.ask, dsn, KILL).result(WAIT_S)
        add(rows, table, found)

    add = Rows.add
    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        use(store)
        state = StateFolder(tmp_path, store.copy)
        with monkeypatch.context() as patch:
            patch.setattr(Rows, "add", cut)
            with pytest.raises(SwellError) as refused:
                state.snapshot(False)
        assert code_of(refused) == "state_unreachable"
        assert not (tmp_path / "backup").exists()
        state.snapshot(False).close()
    # And where the file is, in the other direction.
    postgres.emptied(dsn.partition("host=")[2])
    with filling(tmp_path / "one") as rows:
        (table,) = (each for each in rows.tables if each.name == "volumes")
        rows.add(table, [("vo-1", "default", "a\0b", b"")])
    with pytest.raises(SwellError, match="0x00"):
        postgres_copy.load(dsn, tmp_path / "one")
    assert {row["count"] for row in postgres.ask(dsn, "SELECT count(*) FROM counters WHERE name = 'epoch'")} == {1}


def test_a_state_is_put_where_no_server_ran_alone(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TAKEN_S", 1)
    SqliteStore(tmp_path / "one").close()
    with closing(PostgresStore(dsn)), pytest.raises(SwellError) as refused:
        postgres_copy.check_free(dsn)
    assert code_of(refused) == "state_locked"
    for attempt in (lambda: postgres_copy.check_free(dsn), lambda: postgres_copy.load(dsn, tmp_path / "one")):
        with pytest.raises(SwellError, match="SWELL_STORE") as refused:
            attempt()
        assert code_of(refused) == "database_not_empty"
    postgres.ask(dsn, "INSERT INTO migrations VALUES (1000, 'later', 'sum', 0.0);")
    for attempt, code in (
        (lambda: postgres_copy.check_free(dsn), "state_newer"),
        (lambda: postgres_copy.copy(dsn, tmp_path / "two"), "state_other"),
    ):
        with pytest.raises(SwellError) as refused:
            attempt()
        assert code_of(refused) == code
    postgres.ask(dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE mine (a TEXT);")
    with pytest.raises(SwellError) as refused:
        postgres_copy.check_free(dsn)
    assert code_of(refused) == "state_foreign"
    with pytest.raises(SwellError) as refused:
        postgres_copy.copy(dsn, tmp_path / "three")
    assert code_of(refused) == "no_state"


def opened(address: str, root: Path) -> Any:
    return closing(kept.opened(address, root / "control.db", Keep(), lambda: None))


def backup(root: Path, store: str) -> bytes:
    with stopped.backed_up(Home(root), False, lambda: 50.0, store) as pieces:
        return b"".join(pieces)


def restore(data: bytes, root: Path, store: str) -> stopped.Restored:
    root.mkdir(exist_ok=True)
    return stopped.restore(Reader(io.BytesIO(data).read, "FILE"), Home(root), [], store=store)


def test_a_server_is_restored_in_either_database_from_either(dsn: str, second: str, tmp_path: Path) -> None:
    with opened(dsn, tmp_path / "a") as store:
        first = store.id()
        assert store.world.open_epoch() == 1
        use(store, time.time())
    ids, last, number = {first}, ("a", dsn), 1
    for name, address in (("b", ""), ("c", second)):
        restore(backup(tmp_path / last[0], last[1]), tmp_path / name, address)
        assert {path.name for path in (tmp_path / name).iterdir()} == ({FILE} if address else {"control.db"})
        with opened(address, tmp_path / name) as store:
            assert store.world.open_epoch() == EPOCHS_APART * number + 1
            # What is numbered, and counted, goes on.
            (leased,) = store.calls.standing().leased
            assert store.calls.finish([Done(leased.id, leased.token, NOW, OUT)]) == [True]
            ends = store.call_records.ended("g", 0, 9)
            assert [(each.number, each.call.id) for each in ends] == [(n, f"fc-{n}") for n in range(1, number + 2)]
            assert store.dicts.put("di-1", [(b"%d" % number, b"3")], time.time()) == 1
            assert store.kv.sizes() == {"di-1": number + 2}
            ids.add(store.id())
            store.calls.add([work(f"fc-{number + 2}", group="g")])
            assert len(store.calls.lease(F, 9, NOW, 5, "r1-1", POOL)) == 1
        last, number = (name, address), number + 1
    # The files of one are not those of another.
    assert len(ids) == 3
    with pytest.raises(SwellError) as refused, opened(second, tmp_path / "a"):
        pass
    assert code_of(refused) == "state_other"
    with pytest.raises(SwellError) as refused:
        backup(tmp_path / "a", second)
    assert code_of(refused) == "state_other"
    assert second in refused.value.message


def test_one_that_breaks_off_after_the_database_can_be_done_again(
    dsn: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(dsn, tmp_path / "a") as store:
        store.world.open_epoch()
        store.calls.add([work("fc-1")])
    data = backup(tmp_path / "a", dsn)

    def killed(home: Home) -> None:
        raise KeyboardInterrupt

    for clears in (stopped._clear, lambda home, ours: None):
        with monkeypatch.context() as patch:
            patch.setattr(stopped, "_put_in_place", killed)
            patch.setattr(stopped, "_clear", clears)
            with pytest.raises(KeyboardInterrupt):
                restore(data, tmp_path / "b", second)
        assert not (tmp_path / "b" / FILE).exists()
    restore(data, tmp_path / "b", second)
    with opened(second, tmp_path / "b") as store:
        assert [each.id for each in store.call_records.newest("", None, 9)] == ["fc-1"]
    # Now a server ran: what it has is not written over, and nothing is unpacked.
    with pytest.raises(SwellError) as refused:
        restore(data, tmp_path / "c", second)
    assert code_of(refused) == "database_not_empty"
    assert list((tmp_path / "c").iterdir()) == []
