"""What becomes of a state in PostgreSQL when its server crashes with commits under way, fails over, or says nothing?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count

import postgres
import pytest
from between import Between, between
from calls_suite import NOW, POOL, F, work

from swell.model.errors import SwellError
from swell.model.request import PoolCount
from swell.store import postgres as adapter
from swell.store import postgres_link as link
from swell.store.postgres import PostgresStore
from swell.store.snapshot import EPOCHS_APART

pytestmark = pytest.mark.slow

WAIT_S = 60.0
AT_SYNC = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def line(dsn: str, postgres_server: str) -> Iterator[Between]:
    """What breaks when it is told to, to a database with nothing in it."""
    with between(postgres_server) as made:
        yield made


def kept(dsn: str) -> list[str]:
    return [row["id"] for row in postgres.ask(dsn, "SELECT id FROM calls ORDER BY id")]


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def writes_again(store: PostgresStore) -> bool:
    """All that was put is written."""
    with suppress(SwellError):
        store.world.flush()
        return True
    return False


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(SwellError) as caught:
        act()
    return caught.value.code


def test_a_standby_is_not_written_to_and_is_another_database_once_it_took_over() -> None:
    """At once: also before the first checkpoint after that."""
    ended: list[str] = []
    with postgres.server() as one, postgres.standby(one) as two:
        # Where the first does not answer any more, the address leads to the second.
        both = f"postgresql://swell@/postgres?host={two},{one}&target_session_attrs=read-write"
        store = PostgresStore(both, moved=lambda: ended.append("moved"))
        assert [store.world.open_epoch() for _ in range(2)] == [1, 2]
        store.calls.add([work("fc-1")])
        until(lambda: postgres.ask(postgres.url(two), "SELECT to_regclass('calls') IS NOT NULL AS made")[0]["made"])
        until(lambda: kept(postgres.url(two)) == ["fc-1"])
        with pytest.raises(SwellError, match="only a standby answers there") as caught:
            PostgresStore(postgres.url(two))
        assert caught.value.code == "state_unreachable"
        postgres.stop(one)
        assert refused(lambda: store.calls.add([work("fc-2")])) == "state_unreachable"
        assert ended == []
        postgres.promote(two)
        until(lambda: ended)
        assert refused(lambda: store.calls.add([work("fc-2")])) == "state_locked"
        with closing(PostgresStore(both)) as later:
            assert later.world.open_epoch() == EPOCHS_APART + 1
            assert later.calls.add([work("fc-3")]) == ["fc-3"]
        store.close()


def test_a_commit_that_a_crash_cut_off_is_known_not_to_have_been_made(
    dsn: str, line: Between, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was committed on that server since, by others."""
    monkeypatch.setattr(adapter, "DOUBT_S", 0.0)
    ended: list[str] = []
    with closing(PostgresStore(line.dsn, now=lambda: NOW, moved=lambda: ended.append("moved"))) as store:
        for _ in range(2):
            until(lambda: writes_again(store))
        line.away, line.cut = True, "before"
        store.usage.add_counts([PoolCount(POOL, NOW, 1, 0, 0, 0.0)])
        with suppress(SwellError):
            store.world.flush()
        assert refused(lambda: store.calls.add([work("fc-1")])) == "state_unreachable"
        postgres.stop(postgres_server)
        postgres.start(postgres_server)
        for _ in range(9):
            postgres.ask(f"postgresql://swell@/template1?host={postgres_server}", "SELECT pg_current_xact_id()")
        line.away = False
        until(lambda: writes_again(store))
        assert store.calls.add([work("fc-2")]) == ["fc-2"]
        assert sum(each.requests for each in store.usage.counts(NOW - 60, NOW + 60)) == 1
    assert (kept(dsn), ended) == (["fc-2"], [])


def test_what_waits_for_a_standby_is_not_told_before_it_is_there(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a commit gives up to wait for it, since its connection is ended."""
    monkeypatch.setattr(adapter, "DOUBT_S", 1.0)
    ended: list[str] = []

    def waiting() -> list[int]:
        return [row["pid"] for row in postgres.ask(dsn, AT_SYNC)]

    with closing(PostgresStore(dsn, moved=lambda: ended.append("moved"))) as store, ThreadPoolExecutor(1) as thread:
        for _ in range(2):
            # The second time what a store does by itself at first is over, too.
            until(lambda: writes_again(store))
        told = []
        try:
            postgres.ask(dsn, "ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
            postgres.ask(dsn, "SELECT pg_reload_conf()")
            for number in count(1):
                adding = thread.submit(store.calls.add, [work(f"fc-{number:04}")])
                until(lambda adding=adding: adding.done() or waiting())
                if not adding.done():
                    break
                # The server had not heard of it.
                told += adding.result()
            for pid in waiting():
                postgres.ask(dsn, f"SELECT pg_terminate_backend({pid})")
            assert refused(lambda: adding.result(WAIT_S)) == "state_unreachable"
            # It is here, and nowhere else.
            assert kept(dsn) == [*told, f"fc-{number:04}"]
            assert ended == []
        finally:
            postgres.ask(dsn, "ALTER SYSTEM RESET synchronous_standby_names")
            postgres.ask(dsn, "SELECT pg_reload_conf()")
        until(lambda: writes_again(store))
        # Now it is where it should be, and who was told that it was not has to hear that.
        until(lambda: ended)


def test_leases_that_a_crash_takes_back_are_not_believed_any_more() -> None:
    """They are not synced: who has them in memory begins anew with what is there."""
    ended: list[str] = []
    with postgres.server("fsync=off", "wal_writer_delay=10s") as server:
        dsn = postgres.url(server)
        with closing(PostgresStore(dsn, moved=lambda: ended.append("moved"))) as store:
            store.calls.add([work("fc-1")])
            for again in range(20):
                postgres.stop(server)
                postgres.start(server)
                until(lambda: writes_again(store))
                assert ended == [], "all that was lost was told"
                [leased] = store.calls.lease(F, 1, NOW, again + 1, "r1-1", POOL)
                postgres.stop(server)
                postgres.start(server)
                until(lambda: writes_again(store))
                if not store.calls.standing().leased:
                    break
                # Its time to be written out had come just then.
                assert ended == []
                store.world.flush()
                postgres.ask(dsn, "UPDATE calls SET state = 'queued', token = 0, attempts = 0;")
            assert ended == ["moved"]
            assert leased.call.id == "fc-1"
            # It goes on meanwhile, once.
            assert len(store.calls.lease(F, 1, NOW, 99, "r1-2", POOL)) == 1
        assert ended == ["moved"]


def test_a_database_that_says_nothing_holds_nobody_up(dsn: str, line: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for anything is told, while an answer is waited for, and while a connection is, however long."""
    monkeypatch.setattr(link, "ANSWER_S", 2.0)
    with closing(PostgresStore(line.dsn)) as store, ThreadPoolExecutor(8) as threads:
        until(lambda: refused_or_not(lambda: store.calls.add([work("fc-1")])) == "")
        until(lambda: refused_or_not(lambda: store.call_records.get("fc-1")) == "")
        monkeypatch.setattr(link, "CONNECT_S", 3600.0)
        monkeypatch.setattr(adapter, "BEGIN_S", 0.1)
        monkeypatch.setattr(adapter, "LOOK_S", 0.1)
        line.silent = True
        asked = [threads.submit(refused, lambda: store.calls.add([work("fc-2")]))]
        asked += [threads.submit(refused, lambda: store.call_records.get("fc-1")) for _ in range(30)]
        assert {each.result(WAIT_S) for each in asked} == {"state_unreachable"}
        # Nor is it waited for at the end.


def refused_or_not(act: Callable[[], object]) -> str:
    try:
        act()
    except SwellError as error:
        return error.code
    return ""


def test_connections_that_break_while_nobody_uses_them_are_there_again(dsn: str) -> None:
    others = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'swell'"
    swells = "SELECT count(*) AS them FROM pg_stat_activity WHERE application_name = 'swell'"
    with closing(PostgresStore(dsn)) as store:
        store.calls.add([work("fc-1")])
        for number in (2, 3):
            postgres.ask(dsn, others)
            until(lambda: postgres.ask(dsn, swells)[0]["them"] == 2)
            until(lambda: refused_or_not(lambda: store.call_records.get("fc-1")) == "")
            assert store.calls.add([work(f"fc-{number}")]) == [f"fc-{number}"]
    assert kept(dsn) == ["fc-1", "fc-2", "fc-3"]
    until(lambda: postgres.ask(dsn, swells)[0]["them"] == 0)


def test_marks_of_transactions_do_not_pile_up(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MARKS_KEPT", 5)
    marks = "SELECT count(*) AS them FROM commits"
    with closing(PostgresStore(dsn)) as store:
        for number in range(30):
            store.calls.add([work(f"fc-{number:02}")])
        assert 1 <= postgres.ask(dsn, marks)[0]["them"] <= 10
        # And what they are for works after that, too.
        postgres.ask(
            dsn, "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'swell'"
        )
        until(lambda: refused_or_not(lambda: store.calls.add([work("fc-99")])) == "")
    PostgresStore(dsn).close()
    assert postgres.ask(dsn, marks)[0]["them"] <= 10
    assert len(kept(dsn)) == 31
