"""Do all stores keep dicts and queues alike, as their suite says, and give the same answers to anything?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import postgres
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from kv_suite import BOUNDS, NOW, KvSuite, Open, collection

from swell.model.errors import SwellError
from swell.model.ports import Store
from swell.store.memory import MemoryStore
from swell.store.postgres import PostgresStore
from swell.store.sqlite import SqliteStore


class TestMemoryKv(KvSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return lambda: MemoryStore(now=lambda: NOW, bounds=BOUNDS)


class TestSqliteKv(KvSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        return lambda: SqliteStore(tmp_path / "control.db", now=lambda: NOW, bounds=BOUNDS)

    def test_everything_is_there_after_it_was_closed_and_opened(self, opener: Open) -> None:
        store = opener()
        store.kv.add(collection("d"))
        store.kv.add(collection("q", "queue"))
        store.dicts.put("d", [(b"k", b"v")], NOW)
        store.queues.put("q", "p", [b"1", b"2"], 60.0, NOW)
        assert store.queues.take("q", "p", 1, NOW, request="r") == [b"1"]
        store.close()
        again = opener()
        assert [each.id for each in again.kv.all()] == ["d", "q"]
        assert again.dicts.get("d", b"k", NOW) == b"v"
        assert again.queues.take("q", "p", 1, NOW, request="r") == [b"1"]
        assert again.queues.take("q", "p", 9, NOW) == [b"2"]
        again.close()


@pytest.mark.slow
class TestPostgresKv(KvSuite):
    @pytest.fixture
    def opener(self, tmp_path: Path, dsn: str) -> Open:
        return lambda: PostgresStore(dsn, now=lambda: NOW, bounds=BOUNDS)

    test_everything_is_there_after_it_was_closed_and_opened = (
        TestSqliteKv.test_everything_is_there_after_it_was_closed_and_opened
    )


keys = st.sampled_from([b"a", b"b", b"c", b"d", b"too long a key"])
values = st.sampled_from([b"", b"v" * 40, b"v" * 70])
items = st.sampled_from([b"", b"x", b"x" * 16, b"x" * 17])
partitions = st.sampled_from(["", "p", "q", "r", "too long"])
requests = st.sampled_from(["", "", "r1", "r2", "r3"])
ids = st.sampled_from(["d1", "d2", "q1", "q2"])


class SameAnswers(RuleBasedStateMachine):
    """Random changes to both; every answer must agree, and every reading after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.now = NOW
        self.memory = MemoryStore(now=lambda: self.now, bounds=BOUNDS)
        self.other = self.made()
        for id in ("d1", "q1"):
            self.both(lambda store, id=id: self._add(store, id))

    def made(self) -> Any:
        return SqliteStore(self.folder / "control.db", now=lambda: self.now, bounds=BOUNDS)

    def _add(self, store: Store, id: str) -> None:
        if id not in {each.id for each in store.kv.all()}:
            store.kv.add(collection(id, "dict" if id[0] == "d" else "queue"))

    def both(self, act: Callable[[Store], object]) -> None:
        told = []
        for store in (self.memory, self.other):
            try:
                told.append(act(store))
            except SwellError as error:
                told.append((error.code, error.message))
        assert told[0] == told[1]

    @rule(id=ids)
    def add(self, id: str) -> None:
        self.both(lambda store: self._add(store, id))

    @rule(id=ids)
    def remove(self, id: str) -> None:
        self.both(lambda store: store.kv.remove(id))

    @rule(
        id=st.sampled_from(["d1", "d2"]),
        entries=st.lists(st.tuples(keys, values), max_size=3),
        missing=st.booleans(),
        request=requests,
    )
    def put_entries(self, id: str, entries: list[tuple[bytes, bytes]], missing: bool, request: str) -> None:
        self.both(lambda store: store.dicts.put(id, entries, self.now, missing=missing, request=request))

    @rule(id=st.sampled_from(["d1", "d2"]), key=keys)
    def get(self, id: str, key: bytes) -> None:
        self.both(lambda store: store.dicts.get(id, key, self.now))

    @rule(id=st.sampled_from(["d1", "d2"]), key=keys, request=requests)
    def pop(self, id: str, key: bytes, request: str) -> None:
        self.both(lambda store: store.dicts.pop(id, key, self.now, request=request))

    @rule(id=st.sampled_from(["d1", "d2"]))
    def clear_dict(self, id: str) -> None:
        self.both(lambda store: store.dicts.clear(id))

    @rule(
        id=st.sampled_from(["q1", "q2"]),
        partition=partitions,
        put=st.lists(items, max_size=6),
        ttl_s=st.sampled_from([60.0, 86_400.0]),
        request=requests,
    )
    def put_items(self, id: str, partition: str, put: list[bytes], ttl_s: float, request: str) -> None:
        self.both(lambda store: store.queues.put(id, partition, put, ttl_s, self.now, request=request))

    @rule(id=st.sampled_from(["q1", "q2"]), partition=partitions, most=st.integers(0, 6), request=requests)
    def take(self, id: str, partition: str, most: int, request: str) -> None:
        self.both(lambda store: store.queues.take(id, partition, most, self.now, request=request))

    @rule(id=st.sampled_from(["q1", "q2"]), partition=st.none() | partitions)
    def clear_queue(self, id: str, partition: str | None) -> None:
        self.both(lambda store: store.queues.clear(id, partition))

    @rule(seconds=st.sampled_from([1.0, 90.0, 700.0, 90_000.0, 500_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def trim(self) -> None:
        self.both(lambda store: store.kv.trim(self.now))

    @rule()
    def reopen(self) -> None:
        self.other.close()
        self.other = self.made()

    @invariant()
    def agree(self) -> None:
        self.both(lambda store: store.kv.all())
        for each in self.memory.kv.all():
            if each.kind == "dict":
                self.both(lambda store, id=each.id: store.dicts.count(id, self.now))
                for values in (True, False):
                    self.both(lambda store, id=each.id, values=values: read(store, id, self.now, values))
            else:
                self.both(lambda store, id=each.id: store.queues.partitions(id, self.now))
                for name in ("", "p", "q", "r"):
                    self.both(
                        lambda store, id=each.id, name=name: [
                            row.value for row in store.queues.page(id, name, 0, self.now).rows
                        ]
                    )

    def teardown(self) -> None:
        self.other.close()
        shutil.rmtree(self.folder)


def read(store: Store, id: str, now: float, values: bool) -> list[tuple[bytes, bytes]]:
    """All entries, page by page."""
    rows: list[tuple[bytes, bytes]] = []
    after = 0
    while (page := store.dicts.page(id, after, now, values=values)).after:
        rows += [(row.key, row.value) for row in page.rows]
        after = page.after
    return rows


TestSameAnswers = pytest.mark.slow(SameAnswers.TestCase)
TestSameAnswers.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class InPostgres(SameAnswers):
    def __init__(self) -> None:
        self.dsn = postgres.emptied(postgres.SHARED[0])
        super().__init__()

    def made(self) -> Any:
        return PostgresStore(self.dsn, now=lambda: self.now, bounds=BOUNDS)


TestSameAnswersInPostgres = pytest.mark.slow(pytest.mark.usefixtures("postgres_server")(InPostgres.TestCase))
TestSameAnswersInPostgres.settings = settings(
    max_examples=3, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
