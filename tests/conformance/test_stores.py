"""Do all stores pass the suite of their port, and do they give the same answers to anything?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import postgres
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from store_suite import DAY_S, EVENTS, KEEP, NOW, Open, StoreSuite, api_key, app, record

from swell.model.events import AppDeployed, AppStopped, Event, NodeSeen
from swell.model.node import Node
from swell.model.request import PoolCount, RequestRecord, Usage
from swell.model.secret import SecretVersion
from swell.model.volume import Volume
from swell.store.memory import MemoryStore
from swell.store.postgres import PostgresStore
from swell.store.retention import Keep
from swell.store.sqlite import SqliteStore


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return lambda: MemoryStore(KEEP, now=lambda: NOW)


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return lambda: SqliteStore(tmp_path / "control.db", KEEP, now=lambda: NOW)

    def test_everything_is_there_after_it_was_closed_and_opened(self, opener: Open) -> None:
        store = opener()
        first = store.world.open_epoch()
        store.world.append(EVENTS[:-1])
        store.usage.add_requests([record("x")])
        store.usage.add_usage([Usage("r", "p", "serving", NOW, 1.0, 0.5, 2.0)])
        store.keys.put(api_key("k"))
        apps, events = store.world.apps(), list(store.world.events())
        secret = SecretVersion("default", "db", 1, NOW, ("A", "B"), b"sealed")
        store.secrets.put(secret, 1)
        volume = Volume("default", "v", "vo-1", NOW, 3)
        store.volumes.put(volume)
        store.close()
        again = opener()
        assert again.secrets.versions() == [secret]
        assert again.volumes.all() == [volume]
        assert again.world.open_epoch() > first
        assert again.world.apps() == apps
        assert list(again.world.events()) == events
        assert again.usage.request("x") == record("x")
        assert [u.cpu_s for u in again.usage.usage(0, NOW + 60)] == [0.5]
        assert again.keys.all() == [api_key("k")]
        again.close()


@pytest.mark.slow
class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path, dsn: str) -> Open:
        return lambda: PostgresStore(dsn, KEEP, now=lambda: NOW)

    test_everything_is_there_after_it_was_closed_and_opened = (
        TestSqliteStore.test_everything_is_there_after_it_was_closed_and_opened
    )


# -- the same answers to anything ---------------------------------------------------------------

Row = TypeVar("Row")
names = st.sampled_from(["a", "b"])
times = st.integers(-86_400, 120).map(float)
"""Seconds from the clock of the machine."""
# Dyadic fractions: their sums are exact in any order.
amounts = st.integers(0, 1000).map(lambda n: n / 8)
pools = st.sampled_from(["p", "q"])
events = st.one_of(
    st.builds(lambda at, name, ws: AppDeployed(at, app(name, *ws)), times, names, st.sets(names)),
    st.builds(lambda at, name: AppStopped(at, "default", name), times, names),
    st.builds(lambda at, node: NodeSeen(at, Node(node, 1.0, 1)), times, names),
)
usages = st.builds(
    Usage, st.just("r"), pools, st.sampled_from(["serving", "template"]), times, amounts, amounts, amounts, amounts
)
counts = st.builds(PoolCount, pools, times, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), amounts)
secrets = st.builds(
    SecretVersion,
    st.just("default"),
    names,
    st.integers(1, 6),
    st.just(NOW),
    st.sampled_from([("A",), ("A", "B_2")]),
    st.binary(min_size=1, max_size=8),
)
records = st.builds(
    lambda n, pool, at, status, ms, cold: record(f"id{n}", pool, at, status, ms, cold=cold),
    st.integers(0, 40),
    pools,
    times,
    st.sampled_from([200, 200, 500]),
    st.sampled_from([1.0, 100.0]),
    st.booleans(),
)


@settings(deadline=None)
@given(
    ats=st.lists(st.integers(-3 * 86_400, 7200), max_size=30),
    since=st.integers(-3 * 86_400, 7200),
    length=st.integers(1, 3 * 86_400),
)
def test_any_time_is_the_sum_of_what_was_in_its_minutes_or_hours(ats: list[int], since: int, length: int) -> None:
    """However it is made of rows by the minute and by the hour, and whatever of them was forgotten by then."""
    store = MemoryStore(Keep(), now=lambda: NOW)
    store.usage.add_usage([Usage("r", "p", "serving", NOW + at, 1.0, 0.0, 0.0) for at in ats])
    store.usage.add_counts([PoolCount("p", NOW + at, 1, 0, 0, 0.0) for at in ats])
    store.trim()
    first, end = NOW + since, NOW + since + length
    fine = (NOW - DAY_S) // 3600 * 3600
    first -= first % (3600 if first < fine else 60)
    end += -end % (3600 if end < fine else 60)
    inside = sum(first <= NOW + at < end for at in ats)
    assert sum(u.wall_s for u in store.usage.usage(NOW + since, NOW + since + length)) == inside
    assert sum(c.requests for c in store.usage.counts(NOW + since, NOW + since + length)) == inside


class SameAnswers(RuleBasedStateMachine):
    """Random writes to both; every reading must agree after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.now = NOW
        # The number of events is bounded when old ones are forgotten, which a database also does by itself.
        self.keep = msgspec.structs.replace(KEEP, events_max=100_000)
        self.memory = MemoryStore(self.keep, now=lambda: self.now)
        self.other = self.made()

    def made(self) -> Any:
        return SqliteStore(self.folder / "control.db", self.keep, now=lambda: self.now)

    def moved(self, rows: list[Row]) -> list[Row]:
        """Generated times are relative to the machine's clock."""
        field = "received_at" if rows and hasattr(rows[0], "received_at") else "at"
        return [msgspec.structs.replace(row, **{field: self.now + getattr(row, field)}) for row in rows]

    @rule(rows=st.lists(events, max_size=5), durable=st.booleans())
    def append(self, rows: list[Event], durable: bool) -> None:
        for store in (self.memory, self.other):
            store.world.append(self.moved(rows), durable)

    @rule(rows=st.lists(usages, max_size=5))
    def add_usage(self, rows: list[Usage]) -> None:
        for store in (self.memory, self.other):
            store.usage.add_usage(self.moved(rows))

    @rule(rows=st.lists(counts, max_size=5))
    def add_counts(self, rows: list[PoolCount]) -> None:
        for store in (self.memory, self.other):
            store.usage.add_counts(self.moved(rows))

    @rule(rows=st.lists(records, max_size=8))
    def add_requests(self, rows: list[RequestRecord]) -> None:
        for store in (self.memory, self.other):
            store.usage.add_requests(self.moved(rows))

    @rule(rows=st.lists(events, max_size=3), more=st.lists(records, max_size=3), fail=st.booleans())
    def transaction(self, rows: list[Event], more: list[RequestRecord], fail: bool) -> None:
        for store in (self.memory, self.other):
            try:
                with store.transaction():
                    store.world.append(self.moved(rows))
                    store.usage.add_requests(self.moved(more))
                    if fail:
                        raise InterruptedError
            except InterruptedError:
                pass

    @rule(version=secrets, kept=st.integers(1, 4))
    def put_secret(self, version: SecretVersion, kept: int) -> None:
        for store in (self.memory, self.other):
            store.secrets.put(version, kept)

    @rule(name=names, number=st.integers(0, 6))
    def remove_secret(self, name: str, number: int) -> None:
        for store in (self.memory, self.other):
            store.secrets.remove("default", name, number)

    @rule(days=st.floats(0, 3))
    def time_passes(self, days: float) -> None:
        self.now += days * DAY_S
        self.memory.trim()
        self.other.trim()

    @rule()
    def open_epoch(self) -> None:
        assert self.memory.world.open_epoch() == self.other.world.open_epoch()

    @rule()
    def reopen(self) -> None:
        self.other.close()
        self.other = self.made()

    @invariant()
    def agree(self) -> None:
        ours, theirs = self.memory, self.other
        # A database also trims by itself, soon after it was opened: what came in too old may be gone there already.
        ours.trim()
        theirs.trim()
        assert list(ours.world.events()) == list(theirs.world.events())
        assert ours.world.apps() == theirs.world.apps()
        assert ours.world.deployed_at() == theirs.world.deployed_at()
        for since, until in (
            (0.0, self.now + DAY_S),
            (self.now - 90, self.now + 30),
            (self.now - 7000, self.now - 90),
            (self.now - 1.5 * DAY_S, self.now - DAY_S),
            (self.now, self.now),
        ):
            assert ours.usage.usage(since, until) == theirs.usage.usage(since, until)
            assert ours.usage.counts(since, until) == theirs.usage.counts(since, until)
        for prefix in ("p", "q", ""):
            assert ours.usage.requests(prefix, 100) == theirs.usage.requests(prefix, 100)
        assert ours.secrets.versions() == theirs.secrets.versions()
        assert ours.usage.request("id0") == theirs.usage.request("id0")

    def teardown(self) -> None:
        self.other.close()
        shutil.rmtree(self.folder)


TestSameAnswers = pytest.mark.slow(SameAnswers.TestCase)
TestSameAnswers.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class InPostgres(SameAnswers):
    def __init__(self) -> None:
        self.dsn = postgres.emptied(postgres.SHARED[0])
        super().__init__()

    def made(self) -> Any:
        return PostgresStore(self.dsn, self.keep, now=lambda: self.now)


TestSameAnswersInPostgres = pytest.mark.slow(pytest.mark.usefixtures("postgres_server")(InPostgres.TestCase))
TestSameAnswersInPostgres.settings = settings(
    max_examples=3, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
