"""Is there one call of the code that finds events, and of the version that has the traffic, whatever dies meanwhile?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from control.calls_place import app_of
from control.event_place import EventPlace
from control.test_calls_machine import hasten
from control.test_control_link import until
from control.test_events import batch
from swell.control import event_triggers, own_sources
from swell.control.event_desk import row_of, samples
from swell.model.call import Call
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.metrics import SOURCE_UP, Sample, workload_labels
from swell.model.retrying import Retrying
from swell.model.subscription import DELIVER, OwnSource, Subscription
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.store.memory import MemoryStore
from unshrunk import UNSHRUNK

WAIT_S = 60.0
KEY = "default/mail/f:class"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(own_sources, "RETRYING", Retrying(initial_delay_s=0.001, max_delay_s=0.01))
    monkeypatch.setattr(own_sources, "LOOK_S", 0.01)
    monkeypatch.setattr(own_sources, "AGAIN_S", 0.001)
    monkeypatch.setattr(event_triggers, "AGAIN_S", 0.001)


def finding(timeout_s: float = 300.0) -> App:
    """An app with a class that finds the events of its function; of another timeout it is another revision."""
    made = app_of("mail")
    entry = Entry("m", "Mail", "cls", (Method(DELIVER),))
    found = Revision(
        Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, timeout_s=timeout_s, retrying=Retrying(0)
    )
    f = replace(made.workloads[0], subscription=Subscription(OwnSource("Mail")))
    # A replica that is started is of the first.
    return replace(
        made, workloads=(Workload("default", "mail", "Mail", found.id), f), revisions=(*made.revisions, found)
    )


def run(test: Callable[[EventPlace], Awaitable[None]]) -> None:
    """`test` with a place where that app is deployed."""

    async def running() -> None:
        place = EventPlace(MemoryStore(now=lambda: 0.0))
        await place.open()
        try:
            place.put(finding())
            await test(place)
        finally:
            await place.close()

    asyncio.run(running())


def open_calls(place: EventPlace) -> list[Call]:
    """Of the class."""
    calls = place.store.call_records.newest("default/mail/Mail", None, 1000)
    return [each for each in calls if each.ended_at is None]


async def settled(place: EventPlace, true: Callable[[], bool], step_s: float = 0.0) -> None:
    """Until it is so; what control says is heard meanwhile, and what runners say. Each look is so much later by
    control's clock."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            place.pass_time(step_s)
            await place.settle()
            await asyncio.sleep(0.001)


async def under_way(place: EventPlace) -> Call:
    """The one call, once a replica has it."""
    await settled(place, lambda: bool(held(place)) and [each.id for each in open_calls(place)] == held(place))
    return open_calls(place)[0]


def held(place: EventPlace) -> list[str]:
    """Ids of the calls that run."""
    return sorted(id for id, _ in place.runner.held)


def test_whenever_it_has_ended_it_is_begun_anew() -> None:
    async def test(place: EventPlace) -> None:
        await until(lambda: KEY in place.events.live)
        live = place.events.live[KEY]
        await settled(place, lambda: [each.state for each in open_calls(place)] == ["queued"])
        assert row_of(live).up is False
        assert "its replica is yet to start" in row_of(live).why
        place.start("mail")
        first = await under_way(place)
        await settled(place, lambda: bool(row_of(live).up))
        assert row_of(live).why == ""
        ((lease, (_, granted)),) = place.runner.held.items()
        assert (granted.method, msgspec.msgpack.decode(granted.input.data)) == (DELIVER, ["f"])
        place.runner.end(lease)
        await settled(place, lambda: bool(place.runner.held) and held(place) != [first.id])
        second = await under_way(place)
        (lease,) = place.runner.held
        place.runner.end(lease, "exception")
        await settled(place, lambda: bool(place.runner.held) and held(place) != [second.id])
        failed = place.store.call_records.get(second.id)
        assert failed is not None
        assert failed.state == "failed"
        assert failed.expires_at == place.clock.at + own_sources.KEEP_S, "its dead letters are not kept for a month"
        assert len(open_calls(place)) == 1

    run(test)


def test_why_it_failed_is_shown_until_it_is_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_sources, "RETRYING", Retrying(initial_delay_s=WAIT_S))

    async def test(place: EventPlace) -> None:
        place.start("mail")
        await under_way(place)
        live = place.events.live[KEY]
        (lease,) = place.runner.held
        place.runner.end(lease, "exception")
        await settled(place, lambda: row_of(live).why == "words")
        assert row_of(live).up is False
        assert [*samples([live], workload_labels, 0.0)] == [Sample(SOURCE_UP, ("default", "mail", "f"), 0.0)]
        assert not open_calls(place)

    run(test)


@pytest.mark.parametrize("killed", [False, True])
def test_it_outlives_control(killed: bool) -> None:
    async def test(place: EventPlace) -> None:
        place.start("mail")
        before = await under_way(place)
        await (place.crash() if killed else place.close())
        await place.open()
        await place.events.settled("default/mail")
        live = place.events.live[KEY]
        await settled(place, lambda: bool(row_of(live).up))
        assert [each.id for each in open_calls(place)] == [before.id]
        assert held(place) == [before.id]

    run(test)


def test_a_pause_and_a_stop_end_it() -> None:
    async def test(place: EventPlace) -> None:
        place.start("mail")
        first = await under_way(place)
        await place.events.pause(KEY, True)
        assert not open_calls(place)
        await settled(place, lambda: not place.runner.held)
        with pytest.raises(SwellError, match="paused") as raised:
            await place.desk.take(replace(batch("1"), workload="default/mail/f"))
        assert raised.value.status == 503
        await place.events.pause(KEY, False)
        assert (await under_way(place)).id != first.id
        place.stop("mail")
        await place.events.settled("default/mail")
        assert not open_calls(place)
        assert not place.store.triggers.for_events()

    run(test)


def test_a_deploy_moves_it_to_the_new_version_and_one_without_a_change_does_not() -> None:
    async def test(place: EventPlace) -> None:
        place.start("mail")
        first = await under_way(place)
        group = place.events.live[KEY].state.watermark
        place.put(finding())
        await place.events.settled("default/mail")
        await place.settle()
        assert held(place) == [first.id]
        place.put(finding(7.0))
        await place.events.settled("default/mail")
        place.start("mail")
        second = await under_way(place)
        assert second.id != first.id
        assert (second.timeout_s, second.pool) == (7.0, place.apps["mail"].workloads[0].pool)
        assert held(place) == [second.id]
        assert place.events.live[KEY].state.watermark == group, "that is what it goes on by"

    run(test)


def test_what_it_finds_waits_there_while_many_calls_wait_here() -> None:
    async def test(place: EventPlace) -> None:
        await place.events.settled("default/mail")
        found = replace(batch("1", "2"), workload="default/mail/f")
        place.waiting = event_triggers.WAITING_MAX
        with pytest.raises(SwellError, match="1000 calls of the function wait") as raised:
            await place.desk.take(found)
        assert (raised.value.status, raised.value.code) == (503, "busy")
        live = place.events.live[KEY]
        assert "1000 calls" in live.held_back
        place.waiting = 0
        ids = await place.desk.take(found)
        assert not live.held_back
        assert await place.desk.take(found) == ids
        assert {each.call for each in place.store.triggers.history(KEY, 9)} == {*ids}

    run(test)


class OneCall(RuleBasedStateMachine):
    """Control, replicas and the disk come and go, the code ends and fails, apps are deployed, paused and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = EventPlace(MemoryStore(now=lambda: 0.0))
        self.run(self.place.open())
        self.do(lambda: self.place.put(finding()))
        self.there = True
        self.paused = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(WAIT_S):
                return await work

        return self.runner.run(bounded())

    def do(self, what: Callable[[], Any]) -> None:
        """Within the event loop, as control hears of it."""

        async def done() -> None:
            what()

        self.run(done())

    @precondition(lambda self: self.there)
    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))
        self.run(self.place.settle())

    @precondition(lambda self: self.there and len(self.place.replicas) < 3)
    @rule()
    def replica_starts(self) -> None:
        self.do(lambda: self.place.start("mail"))

    @precondition(lambda self: self.there and self.place.replicas)
    @rule()
    def replica_dies(self) -> None:
        self.do(lambda: self.place.die(next(iter(self.place.replicas))))

    @precondition(lambda self: self.place.runner.held)
    @rule(code=st.sampled_from(["", "exception"]))
    def code_ends(self, code: str) -> None:
        self.place.runner.end(next(iter(self.place.runner.held)), code)

    @rule(how=st.sampled_from(["", "before", "after"]))
    def disk_fails(self, how: str) -> None:
        self.place.store.how = how

    @precondition(lambda self: self.there)
    @rule(killed=st.booleans())
    def control_ends(self, killed: bool) -> None:
        self.run(self.place.crash() if killed else self.place.close())
        self.there = False

    @precondition(lambda self: not self.there)
    @rule()
    def control_begins(self) -> None:
        self.run(self.place.open())
        self.there = True

    @precondition(lambda self: self.there)
    @rule(timeout_s=st.sampled_from([5.0, 300.0]))
    def deploy(self, timeout_s: float) -> None:
        self.do(lambda: self.place.put(finding(timeout_s)))

    @precondition(lambda self: self.there)
    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        before, self.place.store.how = self.place.store.how, ""
        self.run(until(lambda: KEY in self.place.events.live))
        self.run(self.place.events.pause(KEY, paused))
        self.place.store.how = before
        self.paused = paused

    def teardown(self) -> None:
        try:
            self.place.store.how = ""
            if not self.there:
                self.control_begins()
            for timeout_s in (5.0, 300.0):
                # Of every version there is a replica, so that whatever runs does.
                self.do(lambda timeout_s=timeout_s: self.place.put(finding(timeout_s)))
                self.do(lambda: self.place.start("mail"))
            pool = self.place.apps["mail"].workloads[0].pool
            expected = [] if self.paused else [("leased", pool)]

            def is_so() -> bool:
                found = open_calls(self.place)
                same = held(self.place) == [each.id for each in found]
                return same and [(each.state, each.pool) for each in found] == expected

            self.run(self.place.events.settled("default/mail"))
            # What was lost with a replica is tried again after a while.
            self.run(settled(self.place, is_so, step_s=0.5))
        finally:
            self.run(self.place.close())
            self.runner.close()


@pytest.mark.slow
def test_there_is_one_call_in_the_end() -> None:
    checks = [HealthCheck.too_slow]
    run_state_machine_as_test(
        OneCall,
        settings=settings(
            deadline=None,
            max_examples=25,
            stateful_step_count=25,
            suppress_health_check=checks,
            phases=UNSHRUNK,
        ),
    )
