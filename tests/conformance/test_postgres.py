"""What becomes of a state in PostgreSQL when its connection breaks, its server dies or is full, or another has it?"""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import postgres
import pytest
from between import Between, between
from calls_suite import NOW, OUT, POOL, STOPPED, F, counts, work
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swell.model.call import Cancel, Done, Work
from swell.model.errors import SwellError
from swell.model.kv import BOUNDS, Collection
from swell.model.request import PoolCount
from swell.store import kept as kept_state
from swell.store import postgres as adapter
from swell.store import postgres_faults as faults
from swell.store import postgres_link as link
from swell.store import postgres_statements, schema
from swell.store import statements as sql
from swell.store.database import Connection
from swell.store.postgres import PostgresStore
from swell.store.retention import Keep
from swell.store.snapshot import EPOCHS_APART
from swell.store.state_id import FILE

pytestmark = pytest.mark.slow

WAIT_S = 60.0
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'swell'"


@pytest.fixture
def line(dsn: str, postgres_server: str) -> Iterator[Between]:
    """What breaks when it is told to, to a database with nothing in it."""
    with between(postgres_server) as made:
        yield made


def kept(dsn: str) -> list[str]:
    return [row["id"] for row in postgres.ask(dsn, "SELECT id FROM calls ORDER BY id")]


def counted(store: PostgresStore) -> int:
    return sum(each.requests for each in store.usage.counts(NOW - 60, NOW + 60))


def once(store: PostgresStore) -> None:
    """One request more, for which nobody waits."""
    store.usage.add_counts([PoolCount(POOL, NOW, 1, 0, 0, 0.0)])


def settled(store: PostgresStore) -> None:
    """All that was put is written."""
    until = time.monotonic() + WAIT_S
    while True:
        with suppress(SwellError):
            return store.world.flush()
        assert time.monotonic() < until


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.sampled_from(["", "before", "after", "drop", "kill"]), min_size=1, max_size=6),
    doubt_s=st.sampled_from([0.0, adapter.DOUBT_S]),
)
def test_what_a_broken_connection_leaves_is_looked_up(
    dsn: str, line: Between, monkeypatch: pytest.MonkeyPatch, cuts: list[str], doubt_s: float
) -> None:
    """Of a commit that was made and not answered the answer is found; one that was not made is refused. What nobody
    waits for is written once. Where somebody was told that it was not made, control begins anew, and only there."""
    postgres.ask(dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    monkeypatch.setattr(adapter, "DOUBT_S", doubt_s)
    anew: list[str] = []
    with closing(PostgresStore(line.dsn, now=lambda: NOW, moved=lambda: anew.append("anew"))) as store:
        accepted: list[str] = []
        refused: list[tuple[str, int]] = []
        for number, cut in enumerate(cuts):
            once(store)
            settled(store)
            line.cut = cut if cut in ("before", "after") else ""
            if cut == "drop":
                line.drop()
            elif cut == "kill":
                postgres.ask(dsn, KILL)
            once(store)
            id = f"fc-{number}"
            try:
                assert store.calls.add([work(id)]) == [id]
                accepted.append(id)
            except SwellError as error:
                refused.append((error.code, error.status))
                if cut == "after" and doubt_s:
                    raise AssertionError("it was made, and that could be known") from error
            settled(store)
            line.cut = ""
        assert counted(store) == 2 * len(cuts)
        assert set(refused) <= {("state_unreachable", 503)}
        made = kept(dsn)
        assert sorted(store.call_records.get_many([f"fc-{n}" for n in range(9)])) == made
        assert set(accepted) <= set(made)
        assert bool(anew) == (made != accepted)


def test_what_was_made_while_nobody_answered_for_long_is_not_made_again(
    dsn: str, line: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody was told that it was not, control begins anew with what is there."""
    monkeypatch.setattr(adapter, "DOUBT_S", 0.0)
    anew: list[str] = []
    with closing(PostgresStore(line.dsn, now=lambda: NOW, moved=lambda: anew.append("anew"))) as store:
        for _ in range(2):
            # The second time what a store does by itself at first is over, too.
            settled(store)
        line.away, line.cut = True, "after"
        once(store)
        with pytest.raises(SwellError) as caught:
            store.calls.add([work("fc-1")])
        assert caught.value.code == "state_unreachable"
        with pytest.raises(SwellError) as caught:
            store.calls.add([work("fc-2")])
        with pytest.raises(SwellError) as unread:
            store.call_records.get("fc-1")
        assert {caught.value.code, unread.value.code} == {"state_unreachable"}
        assert "geheim" not in store.trouble
        assert "cannot be reached" in store.trouble
        line.away = False
        settled(store)
        # They were in one commit, or (on a machine that stalls) the first of two was made.
        assert kept(dsn) in (["fc-1"], [])
        assert anew == (["anew"] if kept(dsn) else [])
        assert (counted(store), store.trouble, store.rows_dropped) == (1, "", 0)


def test_nothing_accepted_is_lost_by_a_server_that_is_killed_under_load(dsn: str, postgres_server: str) -> None:
    store = PostgresStore(dsn, now=lambda: NOW)
    over = threading.Event()

    def accept(client: int) -> list[str]:
        accepted: list[str] = []
        tried = 0
        while not over.is_set():
            tried += 1
            try:
                accepted += store.calls.add([work(f"fc-{client}-{tried:06}", group="g")])
            except SwellError as error:
                refused.add(error.code)
            once(store)
            puts[client] += 1
            # There is to be load, and an end to it.
            time.sleep(0.03)
        return accepted

    puts, refused = [0] * 2, set[str]()
    with ThreadPoolExecutor(2) as threads:
        clients = [threads.submit(accept, client) for client in range(2)]
        try:
            for _ in range(2):
                before = sum(puts)
                _until(lambda before=before: sum(puts) > before + 20)
                postgres.stop(postgres_server)
                postgres.start(postgres_server)
        finally:
            over.set()
        accepted = [id for each in clients for id in each.result(WAIT_S)]
    assert refused <= {"state_unreachable"}
    settled(store)
    assert len(accepted) == len(set(accepted)) > 10
    there = kept(dsn)
    assert set(accepted) <= set(there)
    assert counted(store) + store.rows_dropped == sum(puts)
    assert store.rows_dropped == 0
    # And all of it can be worked on.
    while works := store.calls.lease(F, 500, NOW, 7, "r1-1", POOL):
        assert all(store.calls.finish([Done(each.call.id, 7, NOW, OUT) for each in works]))
    assert counts(store) == {(F, "done"): len(there)}
    store.close()


def _until(holds: Any) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_full_disk_refuses_what_is_waited_for_and_keeps_the_rest(dsn: str) -> None:
    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        settled(store)
        full = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$;"
        for table in ("calls", "counts"):
            full += f"CREATE TRIGGER no_room BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_room();"
        postgres.ask(dsn, full)
        once(store)
        with pytest.raises(SwellError) as caught:
            store.calls.add([work("fc-1")])
        assert (caught.value.code, caught.value.status) == ("state_full", 507)
        assert store.call_records.get("fc-1") is None
        postgres.ask(dsn, "DROP FUNCTION no_room() CASCADE;")
        settled(store)
        assert store.calls.add([work("fc-1")]) == ["fc-1"]
        assert counted(store) == 1


@pytest.mark.parametrize("way", ["execute", "executemany", "each"])
def test_a_row_that_cannot_be_written_spoils_no_other(dsn: str, way: str) -> None:
    """All are in one commit, whatever comes first; nothing is left of what was written together with that row."""
    taken, goes_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> int:
        taken.set()
        assert goes_on.wait(WAIT_S)
        return 0

    def clash(connection: Connection) -> int:
        statement, rows = "INSERT INTO counters VALUES (?, ?) RETURNING name", [("x", 1), ("epoch", 1), ("y", 1)]
        if way == "execute":
            for row in rows:
                connection.execute(statement, row)
        else:
            getattr(connection, way)(statement, rows)
        return len(rows)

    with closing(PostgresStore(dsn)) as store, ThreadPoolExecutor(9) as threads:
        held = threads.submit(store._do, hold, True)
        assert taken.wait(WAIT_S)
        clashes = threads.submit(store._do, clash, True)
        adds = [threads.submit(store.calls.add, [work(f"fc-{n}")]) for n in range(7)]
        _until(lambda: len(store._writer._queue) == 8)
        goes_on.set()
        held.result(WAIT_S)
        assert [each.result(WAIT_S) for each in adds] == [[f"fc-{n}"] for n in range(7)]
        refused = clashes.exception(WAIT_S)
        assert isinstance(refused, SwellError)
        assert (refused.code, refused.status) == ("row_refused", 500)
        # What held them up, what a store does by itself at first, and all of them.
        assert sum(store.write_seconds.counts) == 3
        assert store.trouble == ""
    assert kept(dsn) == [f"fc-{n}" for n in range(7)]
    assert [row["name"] for row in postgres.ask(dsn, "SELECT name FROM counters")] == ["epoch"]


def test_what_is_asked_of_many_takes_few_round_trips(line: Between) -> None:
    def trips(do: Callable[[], object]) -> int:
        before = line.answers
        do()
        return line.answers - before

    def counted_trips(turn: int) -> list[int]:
        news = [work(f"fc-{turn}-{n:03}") for n in range(100)]
        later = [work(f"fd-{turn}-{n:03}", due_at=NOW + 9) for n in range(100)]
        cancels = [Cancel(each.call.id, NOW, STOPPED) for each in later]
        entries = [(f"{n}".encode(), b"x") for n in range(100)]
        works: list[Work] = []
        return [
            trips(lambda: store.calls.add(news)),
            trips(lambda: works.extend(store.calls.lease(F, 100, NOW, 1, "r1-1", POOL))),
            trips(lambda: store.calls.finish([Done(each.call.id, 1, NOW, OUT) for each in works])),
            trips(lambda: store.calls.add(later)),
            trips(lambda: store.calls.change(cancels)),
            trips(lambda: store.dicts.put("di-1", entries, NOW)),
        ]

    with closing(PostgresStore(line.dsn, now=lambda: NOW)) as store:
        store.kv.add(Collection("dict", "default", "d", "di-1", NOW))
        # The second time each statement is known.
        found = [counted_trips(turn) for turn in range(2)][-1]
        assert max(found) <= 12, found
        assert counts(store) == {(F, "cancelled"): 200, (F, "done"): 200}
        assert store.dicts.count("di-1", NOW) == 100


def test_calls_are_listed_by_their_index_whatever_their_statistics_say(dsn: str) -> None:
    """By that of their ids alone, all are looked at for a state that none is in."""

    async def plans(*statements: tuple[str, str]) -> list[str]:
        connection: Any = await asyncpg.connect(dsn)
        try:
            await connection.execute("ANALYZE calls")
            told = []
            for number, (statement, values) in enumerate(statements):
                await connection.execute(f"PREPARE said{number} AS {postgres_statements.said(statement)}")
                found = await connection.fetch(f"EXPLAIN EXECUTE said{number}{values}")
                told.append("\n".join(line for (line,) in found))
            return told
        finally:
            await connection.close()

    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        for n in range(5):
            store.calls.add([work(f"fc-{n}-{m:03}", f"default/a/f{m % 3}") for m in range(1000)])
        asked = ((sql.CALLS, "('default/', '', 'g', 20, NULL, 'default/b')"), (sql.TRIM_VARIANTS, ""))
        for plan in asyncio.run(plans(*asked)):
            assert "calls_listed" in plan
            assert "calls_id_key" not in plan
            assert "Seq Scan on calls" not in plan.replace("Seq Scan on call_variants", "")


def test_a_key_of_any_size_is_found_again(dsn: str) -> None:
    """A row of an index has room for a part of it alone."""
    chance = Random(1)
    first = chance.randbytes(BOUNDS.key_bytes_max)
    keys = [first, first[:-1] + bytes([first[-1] ^ 1]), first[:-1], first[:5000]]
    with closing(PostgresStore(dsn, now=lambda: NOW)) as store:
        store.kv.add(Collection("dict", "default", "d", "di-1", NOW))
        for number, key in enumerate(keys):
            assert store.dicts.put("di-1", [(key, b"old")], NOW) == 1
            store.dicts.put("di-1", [(key, b"%d" % number)], NOW)
            assert store.dicts.put("di-1", [(key, b"new")], NOW, missing=True) == 0
        assert [store.dicts.get("di-1", key, NOW) for key in keys] == [b"0", b"1", b"2", b"3"]
        assert (store.dicts.count("di-1", NOW), store.dicts.contains("di-1", first[:-2], NOW)) == (4, False)
        assert store.dicts.pop("di-1", first, NOW) == b"0"
        assert [row.key for row in store.dicts.page("di-1", 0, NOW).rows] == keys[1:]
    # Where one should not fit all the same, the others that share its commit do.
    assert faults.of_row(asyncpg.exceptions.ProgramLimitExceededError("index row size 2720 exceeds …"))


def test_a_database_is_one_servers(dsn: str, line: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TAKEN_S", 1)
    ended: list[str] = []
    first = PostgresStore(line.dsn, moved=lambda: ended.append("moved"))
    epoch = first.world.open_epoch()
    with pytest.raises(SwellError) as caught:
        PostgresStore(dsn)
    assert (caught.value.code, caught.value.status) == ("state_locked", 503)
    # It is cut off; another one takes over, and has ended by the time that it comes back.
    line.away = True
    line.drop()
    monkeypatch.setattr(link, "TAKEN_S", 20)
    with closing(PostgresStore(dsn)) as second:
        assert second.world.open_epoch() == epoch + 1
    line.away = False
    _until(lambda: ended)
    for refused in (lambda: first.calls.add([work("fc-1")]), lambda: first.call_records.get("fc-1")):
        with pytest.raises(SwellError) as caught:
            refused()
        assert (caught.value.code, ended) == ("state_locked", ["moved"])
    assert kept(dsn) == []
    first.close()


def test_what_a_loaded_dump_numbers_is_above_all_that_the_original_did(dsn: str, postgres_server: str) -> None:
    with closing(PostgresStore(dsn)) as store:
        assert [store.world.open_epoch() for _ in range(3)] == [1, 2, 3]
        store.calls.add([work("fc-1", group="g")])
    with closing(PostgresStore(dsn)) as store:
        assert store.world.open_epoch() == 4
    program = str(postgres.programs() / "pg_dump")
    dump = subprocess.run([program, "--clean", dsn], check=True, capture_output=True, text=True).stdout
    loaded = [str(postgres.programs() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", dsn]
    subprocess.run(loaded, input=dump, check=True, stdout=subprocess.DEVNULL, text=True)
    for later in (1, 2):
        with closing(PostgresStore(dsn)) as store:
            assert store.world.open_epoch() == EPOCHS_APART + later
            assert [each.id for each in store.call_records.newest("", None, 9)] == ["fc-1"]


def test_a_newer_schema_and_other_tables_are_refused_and_left_alone(dsn: str) -> None:
    PostgresStore(dsn).close()
    steps = schema.migrations("sql_postgres")
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    postgres.ask(dsn, f"INSERT INTO migrations VALUES ({len(steps) + 1}, 'later', 'sum', 0.0);")
    with pytest.raises(SwellError) as caught:
        PostgresStore(dsn)
    assert caught.value.code == "state_newer"
    assert "SWELL_STORE" in caught.value.message
    postgres.ask(dsn, "DROP TABLE migrations;")
    with pytest.raises(SwellError) as caught:
        PostgresStore(dsn)
    assert caught.value.code == "state_foreign"
    assert postgres.ask(dsn, "SELECT value FROM counters WHERE name = 'epoch'")[0]["value"] == 0


def test_a_database_that_has_not_all_signs_is_refused(dsn: str, postgres_server: str) -> None:
    make = "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres.ask(dsn, make)
    try:
        with pytest.raises(SwellError) as caught:
            PostgresStore(f"postgresql://swell@/latin?host={postgres_server}")
        assert caught.value.code == "state_foreign"
        assert "LATIN1" in caught.value.message
    finally:
        postgres.ask(dsn, "DROP DATABASE latin WITH (FORCE)")


def test_a_user_without_other_rights_is_enough(dsn: str, postgres_server: str) -> None:
    postgres.ask(dsn, "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN;")
    with closing(PostgresStore(postgres.url(postgres_server, "plain"))) as store:
        assert store.world.open_epoch() == 1
        assert store.calls.add([work("fc-1")]) == ["fc-1"]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("postgresql://swell@/nowhere?host={folder}", "state_not_writable"),
        ("postgresql://nobody@/postgres?host={folder}", "state_not_writable"),
        ("postgresql://swell:geheim@/postgres?host={folder}/none", "state_unreachable"),
        ("postgresql://swell:geheim@127.0.0.1:1/postgres", "state_unreachable"),
        ("postgresql://swell@/postgres?host={folder}&port=x", "bad_setting"),
    ],
)
def test_what_cannot_be_opened_says_why(postgres_server: str, address: str, code: str) -> None:
    threads = threading.active_count()
    with pytest.raises(SwellError) as caught:
        PostgresStore(address.format(folder=postgres_server))
    assert caught.value.code == code
    assert "geheim" not in caught.value.message
    assert threading.active_count() <= threads


def test_leases_do_not_wait_for_the_disk_and_all_else_does(dsn: str) -> None:
    """Whatever the database has as its default."""
    said: list[str] = []
    ends: list[str] = []

    def write(connection: Connection) -> int:
        connection.execute("UPDATE counters SET value = value")
        for found, question in (
            (said, "SELECT current_setting('synchronous_commit')"),
            (ends, "SELECT pg_current_wal_insert_lsn()::text"),
        ):
            found.append(connection.execute(question).fetchone()[0])
        return 0

    try:
        postgres.ask(dsn, "ALTER ROLE swell SET synchronous_commit = off")
        postgres.ask(dsn, "ALTER SYSTEM SET wal_writer_delay = '10s'")
        postgres.ask(dsn, "SELECT pg_reload_conf()")
        with closing(PostgresStore(dsn)) as store:
            for synced in (True, False, True):
                store._do(write, synced)
                # Its commit is logged behind that.
                flushed = postgres.ask(dsn, f"SELECT pg_current_wal_flush_lsn() > '{ends[-1]}'::pg_lsn")[0][0]
                assert flushed or not synced
    finally:
        postgres.ask(dsn, "ALTER ROLE swell RESET synchronous_commit")
        postgres.ask(dsn, "ALTER SYSTEM RESET wal_writer_delay")
        postgres.ask(dsn, "SELECT pg_reload_conf()")
    assert said == ["on", "off", "on"]


def test_a_directory_and_its_database_go_together(dsn: str, tmp_path: Path) -> None:
    """Whichever of the two is another one than before, nothing is opened, and so nothing is swept."""

    def begin(address: str, home: str) -> str:
        with closing(kept_state.opened(address, tmp_path / home / "control.db", Keep(), lambda: None)) as store:
            store.world.open_epoch()
            return store.id()

    def refused(address: str, home: str) -> str:
        with pytest.raises(SwellError) as caught:
            begin(address, home)
        assert caught.value.code == "state_other"
        return caught.value.message

    id = begin(dsn, "a")
    assert begin(dsn, "a") == id == (tmp_path / "a" / FILE).read_text().strip()
    for _ in range(2):
        assert id in refused("", "a"), "without SWELL_STORE"
    inside = begin("", "b")
    assert all(each in refused(dsn, "b") for each in (id, inside))
    said = refused(dsn, "c")
    (tmp_path / "c").mkdir(exist_ok=True)
    subprocess.run(said.partition("on without them: ")[2], shell=True, check=True)
    assert begin(dsn, "c") == id
    # Another database, with nothing in it, under the same address.
    postgres.ask(dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    assert id in refused(dsn, "a")
