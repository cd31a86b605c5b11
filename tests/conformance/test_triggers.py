"""Do all stores keep triggers alike, and is what one has dealt with never undone?"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import postgres
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from swell.model.call import Body, Call, Work
from swell.model.event_trigger import EventTriggerState
from swell.model.ports import Store
from swell.model.schedule import Cron, Period
from swell.model.secret import SecretUse
from swell.model.source import Files, NatsStream
from swell.model.subscription import HttpEvents, Subscription
from swell.model.trigger import FIRINGS_KEPT, FIRINGS_KEPT_S, Delivery, Firing, TriggerState
from swell.store.memory import MemoryStore
from swell.store.postgres import PostgresStore
from swell.store.sqlite import SqliteStore

NOW = 1_000_000_000.0
KEYS = ("default/a/f", "default/a/g", "other/a/f")
SCHEDULES = (Cron("0 9 * * *", "Asia/Tokyo", "all"), Period(months=1, seconds=1.5), Period(hours=1))


def work(id: str) -> Work:
    return Work(Call(id, "default/a/f", "f", NOW, NOW), Body("application/json", b"{}"))


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: Any
    if request.param == "memory":
        made = MemoryStore(now=lambda: NOW)
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "d", now=lambda: NOW)
    else:
        made = PostgresStore(request.getfixturevalue("dsn"), now=lambda: NOW)
    yield made
    made.close()


def test_the_newest_firings_are_kept_and_none_that_is_old(store: Any) -> None:
    store.triggers.put([TriggerState(KEYS[0], SCHEDULES[0], NOW, NOW)])
    firings = [Firing(KEYS[0], f"due {n}", NOW, NOW - FIRINGS_KEPT_S + n - 10) for n in range(FIRINGS_KEPT + 5)]
    store.triggers.deliver([Delivery(each, moves=False) for each in firings])
    assert store.triggers.history(KEYS[0], 9999) == firings[: -FIRINGS_KEPT - 1 : -1]
    store.trim()
    assert store.triggers.history(KEYS[0], 9999) == firings[:9:-1]


def test_a_firing_is_there_with_its_call_or_not_at_all(store: Any) -> None:
    store.triggers.put([TriggerState(KEYS[0], SCHEDULES[0], NOW, NOW)])
    delivery = Delivery(Firing(KEYS[0], "due 1", NOW + 1, NOW + 1, call="fc-1"), moves=True)
    with suppress(InterruptedError), store.transaction():
        store.calls.add([work("fc-1")])
        store.triggers.deliver([delivery])
        raise InterruptedError
    assert (store.call_records.get("fc-1"), store.triggers.history(KEYS[0], 9)) == (None, [])
    assert store.triggers.all()[0].fired_to == NOW
    with store.transaction():
        store.calls.add([work("fc-1")])
        store.triggers.deliver([delivery])
    assert store.call_records.get("fc-1") is not None
    assert store.triggers.history(KEYS[0], 9) == [delivery.firing]
    assert store.triggers.all()[0].fired_to == NOW + 1


def test_one_that_cannot_be_read_is_there_without_what_it_is_of(tmp_path: Path) -> None:
    stored = SqliteStore(tmp_path / "d", now=lambda: NOW)
    schedules = [TriggerState(key, SCHEDULES[0], NOW, NOW, NOW) for key in KEYS[:2]]
    events = [EventTriggerState(key, SUBSCRIPTIONS[2], NOW, "m1") for key in EVENT_KEYS]
    stored.triggers.put([*schedules, *events])
    stored.close()
    for column, key in (("schedule", KEYS[0]), ("subscription", EVENT_KEYS[0])):
        with closing(sqlite3.connect(tmp_path / "d")) as file, file:
            file.execute(f"UPDATE triggers SET {column} = x'93a1' WHERE key = ?", (key,))
    again = SqliteStore(tmp_path / "d", now=lambda: NOW)
    try:
        assert again.triggers.all() == [replace(schedules[0], schedule=None), schedules[1]]
        assert again.triggers.for_events() == [replace(events[0], subscription=None), events[1]]
    finally:
        again.close()


times = st.floats(NOW - 100, NOW + 100)
EVENT_KEYS = ("default/a/f:nats", "default/a/g:http")
SUBSCRIPTIONS = (
    Subscription(HttpEvents("x-sign"), SecretUse("default", "hook", ("KEY",))),
    Subscription(NatsStream("nats://x", "S", "swell")),
    Subscription(Files("/data", ("*.csv", "*.json"))),
)
states = st.builds(
    TriggerState,
    key=st.sampled_from(KEYS),
    schedule=st.sampled_from(SCHEDULES),
    began_at=times,
    fired_to=times,
    paused_at=st.none() | times,
    incarnation=st.sampled_from(["", "x", "y"]),
)
event_states = st.builds(
    EventTriggerState,
    key=st.sampled_from(EVENT_KEYS),
    subscription=st.sampled_from(SUBSCRIPTIONS),
    began_at=st.sampled_from([NOW, NOW + 1]),
    watermark=st.sampled_from(["", "m1", "m2"]),
    paused_at=st.none() | times,
)
deliveries = st.builds(
    Delivery,
    st.builds(
        Firing,
        trigger=st.sampled_from(KEYS + EVENT_KEYS),
        id=st.sampled_from(["due 1", "due 2", "due 3", "manual"]),
        due_at=times,
        at=times,
        how=st.sampled_from(["schedule", "manual", "backfill", "event", "refused"]),
        call=st.sampled_from(["fc-1", "fc-2"]),
        missed_from=st.none() | times,
    ),
    moves=st.booleans(),
    watermark=st.sampled_from(["", "m3", "m4"]),
    began_at=st.sampled_from([NOW, NOW + 1]),
)


class SameAnswers(RuleBasedStateMachine):
    """The same is asked of both; their answers agree, and what was dealt with stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.memory: Store = MemoryStore(now=lambda: NOW)
        self.other = self.made()
        self.fired_to: dict[str, float] = {}
        self.ids: dict[str, list[str]] = {}
        self.events: dict[str, EventTriggerState] = {}

    def made(self) -> Any:
        return SqliteStore(self.folder / "control.db", now=lambda: NOW)

    def both(self, method: str, *arguments: Any) -> Any:
        ours, theirs = (getattr(each.triggers, method)(*arguments) for each in (self.memory, self.other))
        assert ours == theirs
        return ours

    @rule(them=st.lists(states, max_size=3))
    def put(self, them: list[TriggerState]) -> None:
        self.both("put", them)
        for each in them:
            self.fired_to[each.key] = max(each.fired_to, self.fired_to.get(each.key, each.fired_to))
            self.ids.setdefault(each.key, [])

    @rule(them=st.lists(event_states, max_size=3))
    def put_for_events(self, them: list[EventTriggerState]) -> None:
        self.both("put", them)
        for each in them:
            known = self.events.get(each.key)
            goes_on = known is not None and known.began_at == each.began_at
            watermark = known.watermark if known is not None and goes_on else each.watermark
            fired_at = known.fired_at if known is not None else None
            self.events[each.key] = replace(each, watermark=watermark, fired_at=fired_at)
            self.ids.setdefault(each.key, [])

    @rule(key=st.sampled_from(KEYS + EVENT_KEYS))
    def remove(self, key: str) -> None:
        self.both("remove", [key, "nobody"])
        self.events.pop(key, None)
        self.fired_to.pop(key, None)
        self.ids.pop(key, None)

    @rule(them=st.lists(deliveries, max_size=4))
    def deliver(self, them: list[Delivery]) -> None:
        self.both("deliver", them)
        for each in (each for each in them if each.firing.trigger in self.ids):
            firing, known = each.firing, self.events.get(each.firing.trigger)
            new = firing.id not in self.ids[firing.trigger]
            if new:
                self.ids[firing.trigger].insert(0, firing.id)
            if known is not None:
                fired_at = firing.at if new else known.fired_at
                moved = each.watermark if each.began_at == known.began_at else ""
                watermark = moved or known.watermark
                self.events[firing.trigger] = replace(known, watermark=watermark, fired_at=fired_at)
            elif each.moves:
                self.fired_to[firing.trigger] = max(self.fired_to[firing.trigger], firing.due_at)

    @rule()
    def closed_and_opened(self) -> None:
        self.other.close()
        self.other = self.made()

    @invariant()
    def agree(self) -> None:
        assert {each.key: each.fired_to for each in self.both("all")} == self.fired_to
        assert {each.key: each for each in self.both("for_events")} == self.events
        for key in KEYS + EVENT_KEYS:
            assert [each.id for each in self.both("history", key, 99)] == self.ids.get(key, [])
            assert len(self.both("history", key, 1)) <= 1

    def teardown(self) -> None:
        self.other.close()
        shutil.rmtree(self.folder)


TestSameAnswers = pytest.mark.slow(SameAnswers.TestCase)
TestSameAnswers.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class InPostgres(SameAnswers):
    def __init__(self) -> None:
        self.dsn = postgres.emptied(postgres.SHARED[0])
        super().__init__()

    def made(self) -> Any:
        return PostgresStore(self.dsn, now=lambda: NOW)


TestSameAnswersInPostgres = pytest.mark.slow(pytest.mark.usefixtures("postgres_server")(InPostgres.TestCase))
TestSameAnswersInPostgres.settings = settings(
    max_examples=3, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
