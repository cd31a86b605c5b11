"""Do all durable queues pass the suite of their ports, and do they give the same answers to anything?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from call_records_suite import CallRecordsSuite
from calls_machine import SameAnswers
from calls_suite import NOW, OUT, POOL, STOPPED, CallsSuite, Open, call, work
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.model.call import (
    Body,
    Call,
    Cancel,
    Done,
    Keeping,
    Work,
    check,
)
from swell.model.errors import SwellError
from swell.model.ports import Store
from swell.model.retrying import Retrying
from swell.store.memory import MemoryStore
from swell.store.postgres import PostgresStore
from swell.store.sqlite import SqliteStore


class InMemory:
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return MemoryStore


class TestMemoryCalls(InMemory, CallsSuite):
    """All that moves calls."""


class TestMemoryCallRecords(InMemory, CallRecordsSuite):
    """All that is known of them."""


class InSqlite:
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return lambda: SqliteStore(tmp_path / "control.db")


class TestSqliteCallRecords(InSqlite, CallRecordsSuite):
    """All that is known of them."""


class TestSqliteCalls(InSqlite, CallsSuite):
    def test_everything_is_there_after_it_was_closed_and_opened(self, opener: Open) -> None:
        store = opener()
        store.calls.add([work("fc-1"), work("fc-2", due_at=NOW + 5), work("fc-3", idempotency_key="k")])
        store.calls.lease("default/a/f", 2, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done("fc-1", 5, NOW, OUT)])
        before = store.call_records.newest("", None, 9), store.calls.standing()
        store.close()
        store = opener()
        assert (store.call_records.newest("", None, 9), store.calls.standing()) == before
        assert store.call_records.result("fc-1") == OUT
        assert store.call_records.input("fc-2") == Body("application/json", b"fc-2")
        assert store.calls.add([work("fc-4", idempotency_key="k")]) == ["fc-3"]
        assert store.calls.finish([Done("fc-3", 5, NOW, OUT)]) == [True]
        store.close()


@pytest.mark.slow
class TestPostgresCallRecords(CallRecordsSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path, dsn: str) -> Open:
        return lambda: PostgresStore(dsn)


@pytest.mark.slow
class TestPostgresCalls(CallsSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path, dsn: str) -> Open:
        return lambda: PostgresStore(dsn)

    test_everything_is_there_after_it_was_closed_and_opened = (
        TestSqliteCalls.test_everything_is_there_after_it_was_closed_and_opened
    )


# -- what can be kept ---------------------------------------------------------------------------


def refusal(row: Call) -> str:
    """Why it cannot be kept; empty where it can."""
    try:
        check(row)
    except SwellError as error:
        return error.message
    return ""


def anything() -> st.SearchStrategy[Call]:
    """Calls, most of them with one thing in them that may not be kept."""
    texts = st.text(st.characters(), max_size=5) | st.sampled_from(["a\0b", "\ud800", "é\t\n", "x" * 257])
    times = st.floats(allow_nan=True, allow_infinity=True)
    wholes = st.integers(-(2**65), 2**65)
    delays = st.builds(Retrying, max_retries=wholes, initial_delay_s=times, max_delay_s=times)
    fields = {
        **dict.fromkeys(("id", "workload", "method", "accept", "key", "idempotency_key", "group"), texts),
        **dict.fromkeys(("accepted_at", "due_at", "jitter", "timeout_s"), times),
        "priority": wholes | st.integers(-102, 102),
        "retrying": delays,
        "keeping": st.builds(Keeping, times, times),
    }
    one = st.sampled_from(sorted(fields)).flatmap(lambda name: st.fixed_dictionaries({name: fields[name]}))
    return (one | st.fixed_dictionaries(fields)).map(lambda found: replace(call("fc-1"), **found))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    stores: list[Store] = [MemoryStore(), SqliteStore(tmp_path / "control.db")]
    yield stores
    for store in stores:
        store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=anything())
def test_a_call_is_kept_exactly_as_it_is_or_refused_in_words(stores: list[Store], row: Call) -> None:
    why = refusal(row)
    for store in stores:
        if why:
            with pytest.raises(SwellError) as refused:
                store.calls.add([work("fc-fits"), Work(row, OUT)])
            assert (refused.value.code, refused.value.status) == ("bad_request", 400)
            assert refused.value.message.encode().decode() == why
            assert store.call_records.newest("", None, 9) == []
        else:
            assert store.calls.add([Work(row, OUT)]) == [row.id]
            assert store.call_records.get(row.id) == row
            store.calls.change([Cancel(row.id, NOW, STOPPED)])
            assert store.calls.sweep(float("inf"), 9) == [row.id]


# -- the same answers to anything ---------------------------------------------------------------

TestSameAnswers = pytest.mark.slow(SameAnswers.TestCase)
TestSameAnswers.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class InPostgres(SameAnswers):
    """A client that is killed says nothing more to the server, which goes on."""

    def __init__(self) -> None:
        self.dsn = postgres.emptied(postgres.SHARED[0])
        super().__init__()

    def made(self) -> Store:
        return PostgresStore(self.dsn)

    def lost(self) -> None:
        postgres.cut(postgres.SHARED[0])
        self.other.close()


TestSameAnswersInPostgres = pytest.mark.slow(pytest.mark.usefixtures("postgres_server")(InPostgres.TestCase))
TestSameAnswersInPostgres.settings = settings(
    max_examples=4, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
