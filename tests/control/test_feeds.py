"""Does each message of a source become one call, whatever dies, fails, goes away or is deployed meanwhile?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from control.event_place import BROKER, LOG, EventPlace, Origin
from control.test_calls_machine import hasten
from control.test_control_link import until
from swell.control import accepting, event_triggers, feeds
from swell.model.call import Call
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped
from swell.model.objects import new_since
from swell.model.retrying import Retrying
from swell.model.secret import SecretUse
from swell.model.source import Files, NatsStream, Objects
from swell.model.subscription import Subscription
from swell.model.trigger import shown_event
from swell.store.memory import MemoryStore
from swell.wire.calls import INPUT_MAX
from swell.wire.event import Event
from swell.wire.http import JSON_OR_PICKLE
from unshrunk import UNSHRUNK

WAIT_S = 60.0
KEYS = {"nats": "default/nats/f:nats", "files": "default/files/f:files"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(feeds, "RETRYING", Retrying(initial_delay_s=0.001, max_delay_s=0.01))
    monkeypatch.setattr(feeds, "LOOK_S", 0.02)
    monkeypatch.setattr(feeds, "WAITING_LOOK_S", 0.005)
    monkeypatch.setattr(event_triggers, "AGAIN_S", 0.001)


def run(test: Callable[[EventPlace], Awaitable[None]]) -> None:
    """`test` with a place whose control runs."""

    async def running() -> None:
        place = EventPlace(MemoryStore(now=lambda: 0.0))
        await place.open()
        try:
            await test(place)
        finally:
            await place.close()

    asyncio.run(running())


def calls_of(place: EventPlace, app: str) -> list[Call]:
    return place.store.call_records.newest(f"default/{app}/", None, 10_000)


def ids_of(place: EventPlace, app: str) -> list[str]:
    """Of the messages that became calls, each as often as it did."""
    return sorted(each.idempotency_key.partition(" ")[2] for each in calls_of(place, app))


class OneCallEach(RuleBasedStateMachine):
    """A source that remembers what was acknowledged, and one that does not, each with a function that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = EventPlace(MemoryStore(now=lambda: 0.0))
        self.run(self.place.open())
        self.place.subscribe("nats", BROKER)
        self.place.subscribe("files", LOG)
        self.there = True
        self.paused: set[str] = set()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(WAIT_S):
                return await work

        return self.runner.run(bounded())

    @rule(kind=st.sampled_from(["nats", "files"]), many=st.integers(1, 4))
    def publish(self, kind: str, many: int) -> None:
        for _ in range(many):
            self.place.origins[kind].publish()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(kind=st.sampled_from(["nats", "files"]), up=st.booleans())
    def source_goes_or_comes(self, kind: str, up: bool) -> None:
        origin = self.place.origins[kind]
        origin.up = up
        origin.moved.set()

    @rule(how=st.sampled_from(["", "before", "after"]))
    def disk_fails(self, how: str) -> None:
        self.place.store.how = how

    @precondition(lambda self: self.there)
    @rule(killed=st.booleans())
    def control_ends(self, killed: bool) -> None:
        if killed:
            for origin in self.place.origins.values():
                origin.cut()
        self.run(self.place.crash() if killed else self.place.close())
        self.there = False

    @precondition(lambda self: not self.there)
    @rule()
    def control_begins(self) -> None:
        self.run(self.place.open())
        self.there = True

    @precondition(lambda self: self.there)
    @rule(kind=st.sampled_from(["nats", "files"]))
    def deploy_again(self, kind: str) -> None:
        """With what is read unchanged."""
        source = BROKER.source if kind == "nats" else LOG.source
        changes = {"ack_wait_s": 7.0} if kind == "nats" else {"rescan_s": 7.0}
        self.place.subscribe(kind, Subscription(replace(source, **changes)))

    @precondition(lambda self: self.there)
    @rule(kind=st.sampled_from(["nats", "files"]), paused=st.booleans())
    def pause(self, kind: str, paused: bool) -> None:
        before, self.place.store.how = self.place.store.how, ""
        key = KEYS[kind]
        self.run(until(lambda: key in self.place.events.live))
        self.run(self.place.events.pause(key, paused))
        self.place.store.how = before
        (self.paused.add if paused else self.paused.discard)(key)

    @invariant()
    def acknowledged_is_in_the_queue(self) -> None:
        in_queue = ids_of(self.place, "nats")
        assert self.place.origins["nats"].acknowledged <= {*in_queue}
        for kind in KEYS:
            ids = ids_of(self.place, kind)
            assert len(ids) == len({*ids}), "one call each"

    def teardown(self) -> None:
        try:
            self.place.store.how = ""
            for origin in self.place.origins.values():
                origin.up = True
                origin.moved.set()
            if not self.there:
                self.control_begins()
            for key in [*self.paused]:
                self.run(until(lambda key=key: key in self.place.events.live))
                self.run(self.place.events.pause(key, False))
            for kind, origin in self.place.origins.items():
                published = sorted(each.id for each in origin.messages)
                self.run(until(lambda kind=kind, published=published: ids_of(self.place, kind) == published))
                history = self.place.store.triggers.history(KEYS[kind], 1000)
                assert sorted(shown_event(each.id) for each in history) == published
            nats = self.place.origins["nats"]
            self.run(until(lambda: nats.acknowledged == {each.id for each in nats.messages}))
            log = self.place.origins["files"].messages
            read = log[-1].watermark if log else ""
            states = self.place.store.triggers.for_events
            self.run(until(lambda: {each.key: each.watermark for each in states()}.get(KEYS["files"]) == read))
        finally:
            self.run(self.place.close())
            self.runner.close()


@pytest.mark.slow
def test_each_message_is_one_call() -> None:
    checks = [HealthCheck.too_slow]
    run_state_machine_as_test(
        OneCallEach,
        settings=settings(
            deadline=None,
            max_examples=40,
            stateful_step_count=30,
            suppress_health_check=checks,
            phases=UNSHRUNK,
        ),
    )


def test_a_call_is_given_the_event_that_its_message_is() -> None:
    async def test(place: EventPlace) -> None:
        origin = place.origins["nats"]
        for body, kind in ((b'{"n": 1}', "application/json"), (b"{", "application/json"), (b"\xff", "image/png")):
            origin.publish(body, kind)
        place.subscribe("nats", BROKER)
        place.start("nats")
        await until(lambda: len(ids_of(place, "nats")) == 3)
        await place.settle()
        given = [each for _, each in place.runner.held.values()]
        while len(given) < 3:
            for lease in [*place.runner.held]:
                place.runner.end(lease)
            await place.settle()
            given += [each for _, each in place.runner.held.values()]
        events = sorted(
            (msgspec.msgpack.decode(each.input.data, type=list[Event])[0] for each in given), key=lambda e: e.id
        )
        assert [each.data for each in events] == [{"n": 1}, b"{", b"\xff"]
        one = events[0]
        assert (one.id, one.source, one.type, one.subject) == ("id0", "nats://x/S", "swell.message", "s0")
        assert one.time is not None
        assert one.time.timestamp() == 900.0

    run(test)


def test_what_is_too_large_is_refused_and_shown_and_the_rest_comes() -> None:
    async def test(place: EventPlace) -> None:
        for kind in KEYS:
            origin = place.origins[kind]
            origin.publish()
            origin.publish(b"x" * INPUT_MAX, "image/png")
            origin.publish(b"x" * (INPUT_MAX + 1), "image/png")
            place.subscribe(kind, BROKER if kind == "nats" else LOG)
        for kind in KEYS:
            await until(lambda kind=kind: len(place.store.triggers.history(KEYS[kind], 9)) == 3)
            history = place.store.triggers.history(KEYS[kind], 9)
            firings = {shown_event(each.id): (each.how, bool(each.call)) for each in history}
            assert firings == {"id0": ("event", True), "id1": ("refused", False), "id2": ("refused", False)}
        await until(lambda: len(place.origins["nats"].acknowledged) == 3)
        states = {each.key: each for each in place.store.triggers.for_events()}
        assert states[KEYS["files"]].watermark == "000002"

    run(test)


def test_while_many_calls_wait_nothing_more_is_taken() -> None:
    async def test(place: EventPlace) -> None:
        place.waiting = feeds.WAITING_MAX
        place.origins["nats"].publish()
        place.subscribe("nats", BROKER)
        await until(lambda: KEYS["nats"] in place.events.live)
        live = place.events.live[KEYS["nats"]]
        await until(lambda: "1000 calls of the function wait" in live.held_back)
        assert not calls_of(place, "nats")
        place.waiting = 0
        await until(lambda: len(calls_of(place, "nats")) == 1)
        await until(lambda: not live.held_back)

    run(test)


def test_objects_that_are_wanted_from_the_deploy_on_are_so_after_a_restart_too() -> None:
    async def test(place: EventPlace) -> None:
        log = place.origins["objects"] = Origin(False)
        place.subscribe("files", Subscription(Objects("s3://inbox", since="new")))
        await until(lambda: len(log.connected) == 1)
        mark = new_since(place.clock.at)
        assert log.connected == [mark]
        place.clock.at += 100
        await place.crash()
        await place.open()
        await until(lambda: len(log.connected) == 2)
        assert log.connected[-1] == mark
        place.clock.at += 1
        place.subscribe("files", Subscription(Objects("s3://other")))
        await until(lambda: log.connected[-1] == "")

    run(test)


def test_what_is_read_otherwise_begins_anew_and_what_is_stopped_is_forgotten() -> None:
    async def test(place: EventPlace) -> None:
        log = place.origins["files"]
        log.publish()
        place.subscribe("files", LOG)
        await until(lambda: ids_of(place, "files") == ["id0"])
        place.clock.at += 1
        place.subscribe("files", Subscription(Files("/other")))
        # The same id is another's now.
        await until(lambda: ids_of(place, "files") == ["id0", "id0"])
        history = place.store.triggers.history(KEYS["files"], 9)
        assert {each.call for each in history} == {each.id for each in calls_of(place, "files")}, "each has its row"
        assert log.connected[-1] == ""
        place.stop("files")
        await until(lambda: not place.store.triggers.for_events())
        log.publish()
        place.clock.at += 1
        place.subscribe("files", LOG)
        await until(lambda: ids_of(place, "files") == ["id0", "id0", "id0", "id1"])

    run(test)


def test_a_password_that_is_another_one_is_used_once_the_source_is_away() -> None:
    async def test(place: EventPlace) -> None:
        origin = place.origins["nats"]
        place.secrets.clear()
        secret = SecretUse("default", "broker")
        place.subscribe("nats", Subscription(NatsStream("nats://x", "S", "swell"), secret))
        await until(lambda: KEYS["nats"] in place.events.live)
        live = place.events.live[KEYS["nats"]]
        await until(lambda: live.source is not None and "There is no secret broker" in live.source.why)
        assert not place.opened
        origin.up = False
        place.secrets["broker"] = "first"
        await until(lambda: place.opened == ["first"])
        place.secrets["broker"] = "second"
        await until(lambda: place.opened == ["first", "second"])
        origin.up = True
        origin.publish()
        await until(lambda: ids_of(place, "nats") == ["id0"])
        assert live.source is not None
        assert live.source.up

    run(test)


def test_portions_are_bounded_and_in_order() -> None:
    origin = Origin(True)
    for size in (1, 5, 3, 8, 1, 1):
        origin.publish(b"x" * size * 1024 * 1024)
    found = [[len(each.body) // 1024**2 for each in some] for some in feeds.portions(origin.messages)]
    assert found == [[1, 5], [3], [8], [1, 1]]
    assert list(feeds.portions([])) == []


def test_a_pause_reads_nothing_until_it_is_over() -> None:
    async def test(place: EventPlace) -> None:
        log = place.origins["files"]
        log.publish()
        place.subscribe("files", LOG)
        await until(lambda: ids_of(place, "files") == ["id0"])
        live = await place.events.pause(KEYS["files"], True)
        assert live is not None
        assert (live.reading, live.source) == (None, None)
        log.publish()
        await place.close()
        await place.open()
        await place.events.settled("default/files")
        assert place.events.live[KEYS["files"]].reading is None
        assert len(log.connected) == 1
        await place.events.pause(KEYS["files"], False)
        await until(lambda: ids_of(place, "files") == ["id0", "id1"])
        # It went on behind what it had read.
        assert log.connected == ["", "000000"]

    run(test)


async def read_one_and_paused(place: EventPlace) -> None:
    """A trigger that had one event of its source before it was paused."""
    place.origins["files"].publish()
    place.subscribe("files", LOG)
    await until(lambda: ids_of(place, "files") == ["id0"])
    await place.events.pause(KEYS["files"], True)


def test_an_app_that_is_stopped_and_deployed_at_once_begins_anew() -> None:
    async def test(place: EventPlace) -> None:
        await read_one_and_paused(place)
        # Nobody looked in between.
        place.stop("files")
        place.clock.at += 1
        place.subscribe("files", LOG)
        await until(lambda: ids_of(place, "files") == ["id0", "id0"])
        (state,) = place.store.triggers.for_events()
        assert (state.began_at, state.paused_at) == (place.clock.at, None)
        await until(lambda: len(place.store.triggers.history(KEYS["files"], 9)) == 1)

    run(test)


def test_a_stop_that_the_disk_refuses_forgets_nothing() -> None:
    async def test(place: EventPlace) -> None:
        await read_one_and_paused(place)
        before = place.store.triggers.for_events()
        # In one turn, as `when each was deployed` has no part in it until a stop is on disk.
        place.take(AppStopped(place.clock.at, "default", "files"))
        place.events.changed("default/files", place.clock.at)
        place.take(AppDeployed(place.clock.at, place.apps["files"]))
        place.events.changed("default/files", place.clock.at)
        await place.events.settled("default/files")
        assert place.store.triggers.for_events() == before
        live = place.events.live[KEYS["files"]]
        assert live.state.paused_at is not None

    run(test)


def test_sources_that_hang_are_waited_for_together_and_hold_up_no_other_app(monkeypatch: pytest.MonkeyPatch) -> None:
    ending: list[str] = []
    go = asyncio.Event()
    end = event_triggers.EventTriggers._end

    async def ends(self: event_triggers.EventTriggers, live: event_triggers.Live) -> None:
        ending.append(live.trigger.key)
        await go.wait()
        await end(self, live)

    async def test(place: EventPlace) -> None:
        for kind in KEYS:
            place.subscribe(kind, BROKER if kind == "nats" else LOG)
        await until(lambda: place.events.live.keys() == {*KEYS.values()})
        monkeypatch.setattr(event_triggers.EventTriggers, "_end", ends)
        for kind in KEYS:
            place.stop(kind)
        try:
            await until(lambda: {*ending} == {*KEYS.values()})
            async with asyncio.timeout(WAIT_S):
                await place.events.settled("default/other")
            monkeypatch.setattr(event_triggers, "SETTLED_S", 0.01)
            with pytest.raises(SwellError, match="not known yet"):
                await place.events.settled("default/nats")
        finally:
            go.set()
        monkeypatch.setattr(event_triggers, "SETTLED_S", WAIT_S)
        await place.events.settled("default/nats")
        assert not place.events.live

    run(test)


def test_what_json_cannot_say_is_a_result_too() -> None:
    async def test(place: EventPlace) -> None:
        place.origins["nats"].publish()
        place.subscribe("nats", BROKER)
        place.start("nats")
        await until(lambda: len(ids_of(place, "nats")) == 1)
        await place.settle()
        assert [each.accept for _, each in place.runner.held.values()] == [JSON_OR_PICKLE]

    run(test)


def test_one_whose_state_cannot_be_read_stops_alone_until_it_begins_anew() -> None:
    async def test(place: EventPlace) -> None:
        for kind in KEYS:
            place.origins[kind].publish()
            place.subscribe(kind, BROKER if kind == "nats" else LOG)
            await until(lambda kind=kind: ids_of(place, kind) == ["id0"])
        await place.close()
        states = place.store.triggers.for_events()
        place.store.triggers.put([replace(each, subscription=None) for each in states if each.key == KEYS["files"]])
        await place.open()
        for kind in KEYS:
            place.origins[kind].publish()
        await until(lambda: ids_of(place, "nats") == ["id0", "id1"])
        live = place.events.live[KEYS["files"]]
        assert (live.reading, live.held_back) == (None, event_triggers.UNREADABLE)
        # Neither by a pause that ends, nor by a deploy, is it known how far it came.
        for paused in (True, False):
            await place.events.pause(KEYS["files"], paused)
        place.subscribe("files", Subscription(Files("/other")))
        await place.events.settled("default/files")
        live = place.events.live[KEYS["files"]]
        assert (live.reading, live.held_back) == (None, event_triggers.UNREADABLE)
        assert ids_of(place, "files") == ["id0"]
        place.stop("files")
        await place.events.settled("default/files")
        place.clock.at += 1
        place.subscribe("files", LOG)
        await until(lambda: ids_of(place, "files") == ["id0", "id0", "id1"])

    run(test)


def test_what_the_queue_takes_for_too_large_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(place: EventPlace) -> None:
        for kind in KEYS:
            for size in (10, 100, 10):
                place.origins[kind].publish(b"x" * size, "image/png")
            place.subscribe(kind, BROKER if kind == "nats" else LOG)
        for kind in KEYS:
            await until(lambda kind=kind: len(place.store.triggers.history(KEYS[kind], 9)) == 3)
            history = place.store.triggers.history(KEYS[kind], 9)
            assert sorted((shown_event(each.id), each.how) for each in history) == [
                ("id0", "event"),
                ("id1", "refused"),
                ("id2", "event"),
            ]
        await until(lambda: len(place.origins["nats"].acknowledged) == 3)

    # As where it goes to every member of a gang.
    monkeypatch.setattr(accepting, "INPUT_MAX", 150)
    run(test)
