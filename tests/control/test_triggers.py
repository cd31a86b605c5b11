"""Does each trigger fire once for each due time, whatever dies, fails, is deployed or is asked for meanwhile?"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from control.test_calls_machine import hasten
from control.test_control_link import until
from control.triggers_place import TriggerPlace, key_of, scheduled
from swell.control import triggers as module
from swell.control.triggers import firing_id
from swell.decide.schedules import due_times
from swell.model.call import CallError, Cancel
from swell.model.errors import SwellError
from swell.model.events import PlanCommitted
from swell.model.plan import Plan
from swell.model.ports import Store
from swell.model.schedule import Cron, Period, Schedule
from swell.model.trigger import FIRINGS_KEPT, Delivery, Firing
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore
from swell.wire.triggers import Backfill, TriggerRow

WAIT_S = 60.0
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
APPS = ("a", "b")
SCHEDULES: tuple[Schedule, ...] = (
    Cron("*/10 * * * *", missed="all"),
    Cron("0 * * * *", "Asia/Kathmandu", missed="once"),
    Cron("0 * * * *", missed="skip"),
    Period(minutes=7, missed="all"),
    Period(minutes=7, missed="once"),
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(module, "AGAIN_S", 0.001)


def run(test: Callable[[TriggerPlace], Awaitable[None]], store: Store | None = None) -> None:
    """`test` with a place whose control runs."""

    async def running() -> None:
        place = TriggerPlace(store or MemoryStore(now=lambda: 0.0))
        await place.open()
        try:
            await test(place)
        finally:
            await place.close()

    asyncio.run(asyncio.wait_for(running(), WAIT_S))


def fired(place: TriggerPlace, app: str = "a") -> list[float]:
    """Due times that it fired for, oldest first."""
    firings = place.store.triggers.history(key_of(app), 1000)
    return [each.due_at for each in firings if each.how != "manual"][::-1]


async def pass_time(place: TriggerPlace, seconds: float) -> None:
    place.clock.at += seconds
    await place.fired()


class Machine(RuleBasedStateMachine):
    """Control dies, its clock is set back, its disk is full, and people do as they like."""

    def opened(self, folder: Path) -> Store:
        return MemoryStore(now=lambda: 0.0)

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        hasten(self.patches)
        self.patches.setattr(module, "AGAIN_S", 0.001)
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.place = TriggerPlace(self.opened(Path(self.folder.name)))
        self.place.clock.at = 100 * DAY_S
        self.do(self.place.open())
        self.schedules: dict[str, Schedule] = {}
        self.since: dict[str, float] = {}
        """From when on what is due is to be fired for."""
        self.began: dict[str, float] = {}
        self.paused: set[str] = set()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, WAIT_S))

    def teardown(self) -> None:
        try:
            self.place.store.how = ""
            self.do(self.place.fired())
            self.all_is_well()
        finally:
            self.do(self.place.close())
            self.loop.close()
            self.place.store.store.close()
            self.folder.cleanup()
            self.patches.undo()

    @rule(app=st.sampled_from(APPS), schedule=st.sampled_from(SCHEDULES))
    def deploy(self, app: str, schedule: Schedule) -> None:
        before = self.schedules.get(app)
        changed = before != schedule
        # With another policy alone, it is due as it was.
        anew = before is None or replace(before, missed=schedule.missed) != schedule
        self.do(self.settled(lambda: self.place.schedule(app, schedule)))
        if changed:
            since = self.since.get(app, 0.0)
            self.schedules[app] = schedule
            self.since[app] = max(self.place.clock.at, since, *fired(self.place, app))
        if anew:
            self.began[app] = self.place.clock.at

    @rule(app=st.sampled_from(APPS), how=st.sampled_from(["stop", "none", "owned"]))
    def undeploy(self, app: str, how: str) -> None:
        if app not in self.place.apps:
            return
        schedule, owned = (self.schedules.get(app), True) if how == "owned" else (None, False)
        undo = self.place.stop if how == "stop" else partial(self.place.schedule, schedule=schedule, owned=owned)
        self.do(self.settled(lambda: undo(app)))
        for kept in (self.schedules, self.since, self.began):
            kept.pop(app, None)
        self.paused.discard(app)

    async def settled(self, do: Callable[[], None] = lambda: None) -> None:
        self.place.store.how = ""
        do()
        await self.place.fired()

    @rule(seconds=st.sampled_from([1.0, MINUTE_S, 9 * MINUTE_S, HOUR_S, 5 * HOUR_S]), settle=st.booleans())
    def time_passes(self, seconds: float, settle: bool) -> None:
        self.place.clock.at += seconds
        self.place.ring()
        if settle:
            self.do(self.settled())

    @rule(how=st.sampled_from(["before", "after"]))
    def disk_fails(self, how: str) -> None:
        self.place.store.how = how

    @rule(turns=st.integers(0, 12), back_s=st.sampled_from([0.0, 0.0, 30.0, 2 * HOUR_S]))
    def killed(self, turns: int, back_s: float) -> None:
        """At any moment; the next control has a clock of its own."""
        self.do(self.dies(turns))
        self.place.clock.at -= back_s
        self.do(self.place.open())

    async def dies(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await self.place.crash()

    @precondition(lambda self: self.schedules)
    @rule(pick=st.integers(0, 9), paused=st.booleans())
    def pause(self, pick: int, paused: bool) -> None:
        app = sorted(self.schedules)[pick % len(self.schedules)]
        self.do(self.settled())
        row: TriggerRow = self.do(self.place.desk.pause("default", app, "f", paused))
        assert (row.paused_at is not None, row.next_at is None) == (paused, paused)
        if not paused and app in self.paused:
            self.since[app] = max(self.place.clock.at, self.since[app], *fired(self.place, app))
        (self.paused.add if paused else self.paused.discard)(app)

    @precondition(lambda self: self.schedules)
    @rule(pick=st.integers(0, 9))
    def fire(self, pick: int) -> None:
        app = sorted(self.schedules)[pick % len(self.schedules)]
        self.do(self.settled())
        before = fired(self.place, app)
        made = self.do(self.place.desk.fire("default", app, "f"))
        assert self.place.store.call_records.get(made.call) is not None
        assert fired(self.place, app) == before

    @precondition(lambda self: self.schedules)
    @rule(pick=st.integers(0, 9), since_s=st.sampled_from([MINUTE_S, HOUR_S, 8 * HOUR_S]))
    def backfill(self, pick: int, since_s: float) -> None:
        app = sorted(self.schedules)[pick % len(self.schedules)]
        self.do(self.settled())
        now = self.place.clock.at
        before = fired(self.place, app)
        there = {call.id for call in self.place.store.call_records.newest("", None, 9999)}
        done = self.do(self.place.desk.backfill("default", app, "f", Backfill(now - since_s)))
        assert not there.intersection(done.calls)
        due = list(due_times(self.schedules[app], self.began[app], now - since_s - 1e-3, now))
        assert len(done.calls) + done.fired_before == len(due)
        assert set(fired(self.place, app)) == {*before, *due}

    @invariant()
    def nothing_fires_twice_and_each_firing_has_its_call(self) -> None:
        records = self.place.store.call_records
        calls = records.newest("", None, 9999)
        assert len({(each.workload, each.idempotency_key) for each in calls}) == len(calls)
        for app in APPS:
            firings = self.place.store.triggers.history(key_of(app), 9999)
            assert len({each.id for each in firings}) == len(firings)
            for each in firings:
                call = records.get(each.call)
                assert call is not None
                assert (call.workload, call.idempotency_key.endswith(f" {each.id}")) == (key_of(app), True)
            assert len({each.call for each in firings}) == len(firings)

    def all_is_well(self) -> None:
        """Once nothing is left to do: what was due was fired for, as its policy says, and nothing else."""
        now = self.place.clock.at
        assert set(self.place.triggers.armed) == {key_of(app) for app in self.schedules}
        for app, schedule in self.schedules.items():
            due = list(due_times(schedule, self.began[app], self.since[app], now))
            done = {at for at in fired(self.place, app) if at > self.since[app]}
            assert done <= set(due_times(schedule, self.began[app], self.since[app], max(now, *done, now)))
            if app in self.paused or not due:
                continue
            if schedule.missed == "all":
                assert set(due) <= done
            elif schedule.missed == "once":
                # Or for a later one, before the clock was set back.
                assert max(done, default=0.0) >= due[-1]


class MachineOnDisk(Machine):
    def opened(self, folder: Path) -> Store:
        return SqliteStore(folder / "control.db", now=lambda: 0.0)


TestMachine = pytest.mark.slow(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMachineOnDisk = pytest.mark.slow(MachineOnDisk.TestCase)
TestMachineOnDisk.settings = settings(
    max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_thousand_that_are_due_together_are_one_write_and_none_waits_for_another() -> None:
    async def test(place: TriggerPlace) -> None:
        for n in range(1000):
            place.schedule(f"a{n}", Cron("* * * * *"))
        await place.fired()
        before = place.store.commits
        await pass_time(place, MINUTE_S)
        assert place.store.commits == before + 1
        assert all(fired(place, f"a{n}") for n in range(1000))

    run(test)


def test_a_period_keeps_its_phase_over_deploys_that_do_not_change_it() -> None:
    async def test(place: TriggerPlace) -> None:
        place.clock.at = 5000.0
        place.schedule("a", Period(minutes=10))
        await place.fired()
        await pass_time(place, 3 * MINUTE_S)
        # Another policy, and other code, are no other times.
        place.schedule("a", Period(minutes=10, missed="all"), timeout_s=9.0)
        await pass_time(place, 7 * MINUTE_S)
        assert fired(place) == [5600.0]
        place.schedule("a", Period(minutes=20))
        await pass_time(place, 20 * MINUTE_S)
        assert fired(place) == [5600.0, 6800.0]

    run(test)


def test_when_it_fires_next_is_known() -> None:
    async def test(place: TriggerPlace) -> None:
        place.clock.at = 5000.0
        place.schedule("a", Period(minutes=10))
        await place.fired()
        for due_at in (5600.0, 6200.0):
            (row,) = await place.desk.rows("default", "a")
            assert row.next_at == place.desk.next_at(key_of("a")) == due_at
            await pass_time(place, 10 * MINUTE_S)
        assert place.desk.next_at(key_of("b")) is None
        await place.desk.pause("default", "a", "f", True)
        (row,) = await place.desk.rows("default", "a")
        assert row.next_at is place.desk.next_at(key_of("a")) is None

    run(test)


def test_what_is_deployed_in_the_moment_control_dies_is_not_missed() -> None:
    async def test(place: TriggerPlace) -> None:
        place.clock.at = HOUR_S - 1
        place.schedule("a", Cron("0 * * * *"))
        await place.crash()
        place.clock.at = HOUR_S + 10
        await place.open()
        await place.fired()
        assert fired(place) == [HOUR_S]

    run(test)


def test_an_app_of_a_program_that_runs_fires_nothing() -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Cron("* * * * *"), owned=True)
        await pass_time(place, HOUR_S)
        assert place.store.call_records.newest("", None, 9) == []
        assert await place.desk.rows("default", "") == []

    run(test)


def test_a_backfill_says_what_it_cannot_do() -> None:
    async def test(place: TriggerPlace) -> None:
        place.clock.at = now = 100 * DAY_S
        place.schedule("a", Cron("* * * * *"))
        await place.fired()
        for since, until_at, words in (
            (now - 31 * DAY_S, None, "is known from 1970-03-12T00:00:00Z on"),
            (now - DAY_S, None, "is due more than 1000 times"),
            (now - HOUR_S, now + 1, "is yet to come"),
            (float("nan"), None, "are times"),
        ):
            with pytest.raises(SwellError, match=words) as refused:
                await place.desk.backfill("default", "a", "f", Backfill(since, until_at))
            assert refused.value.code == "bad_request"
        done = await place.desk.backfill("default", "a", "f", Backfill(now - HOUR_S, now - HOUR_S))
        assert (len(done.calls), done.fired_before) == (1, 0)
        for app, name, code in (("a", "g", "unknown_trigger"), ("b", "f", "unknown_app")):
            with pytest.raises(SwellError) as unknown:
                await place.desk.fire("default", app, name)
            assert unknown.value.code == code

    run(test)


def test_a_history_tells_what_came_of_each_call() -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Cron("0 * * * *"))
        await place.fired()
        await pass_time(place, 3 * HOUR_S)
        (row,) = await place.desk.firings("default", "a", "f", 9)
        assert (row.id, row.how, row.state) == (firing_id("schedule", row.due_at), "schedule", "queued")
        assert row.missed_from == row.due_at - 2 * HOUR_S
        place.store.calls.change([Cancel(row.call, place.clock.at, CallError("cancelled", "no"))])
        (row,) = await place.desk.firings("default", "a", "f", 9)
        assert row.state == "cancelled"

    run(test)


def test_what_wakes_it_is_the_next_due_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(place: TriggerPlace) -> None:
        assert place.triggers._wait_s() is None
        place.schedule("a", Cron("* * * * *"))
        await place.fired()
        left_s = MINUTE_S - place.clock.at % MINUTE_S
        assert place.triggers._wait_s() == left_s
        monkeypatch.setattr(module, "CLOCK_LOOK_S", 0.01)
        place.ring()
        # Nobody rings: it looks at the clock.
        place.clock.at += MINUTE_S
        await until(lambda: fired(place))

    run(test)


HOURLY = Cron("0 * * * *")


@pytest.mark.parametrize("soon", [False, True])
def test_an_app_that_was_stopped_and_is_deployed_again_begins_anew(soon: bool) -> None:
    async def test(place: TriggerPlace) -> None:
        calls: list[str] = []
        # The clock was ahead, and is set right.
        for _ in range(2):
            place.clock.at = HOUR_S - 1
            place.schedule("a", HOURLY)
            await place.fired()
            await pass_time(place, 10.0)
            (row,) = await place.desk.firings("default", "a", "f", 9)
            assert (row.due_at, row.state) == (HOUR_S, "queued")
            done = await place.desk.backfill("default", "a", "f", Backfill(0.0, HOUR_S - 1))
            calls += [row.call, *done.calls]
            place.stop("a")
            if not soon:
                await place.fired()
        assert len(calls) == len(set(calls)) == 4
        assert {each.id for each in place.store.call_records.newest("", None, 9)} == set(calls)

    run(test)


def test_a_history_has_the_call_that_is_kept() -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", HOURLY)
        await place.fired()
        armed = place.triggers.armed[key_of("a")]
        firings = [Firing(key_of("a"), firing_id("backfill", 0.0), 0.0), Firing(key_of("a"), "m", 1.0)]
        kept = await place.triggers.deliver(armed, firings[0])
        place.store.triggers.remove([key_of("a")])
        place.store.triggers.put([armed.state])
        # With another call in the same write.
        answers = await asyncio.gather(*(place.triggers.deliver(armed, each) for each in firings[::-1]))
        assert answers[1] == kept
        assert [each.call for each in place.store.triggers.history(key_of("a"), 9)] == [kept, answers[0]]

    run(test)


def test_a_backfill_of_long_ago_does_not_make_it_known_what_was_fired_for_since() -> None:
    async def test(place: TriggerPlace) -> None:
        place.clock.at = 90 * DAY_S
        place.schedule("a", Cron("0 0 * * *"))
        await place.fired()
        await place.desk.pause("default", "a", "f", True)
        place.clock.at = now = 100 * DAY_S
        rows = [Firing(key_of("a"), f"{n}", now - 20 * DAY_S, now - HOUR_S, "backfill") for n in range(FIRINGS_KEPT)]
        place.store.triggers.deliver([Delivery(each, moves=False) for each in rows])
        with pytest.raises(SwellError, match="is known from 1970-04-04T00:00:00Z on"):
            await place.desk.backfill("default", "a", "f", Backfill(now - 8 * DAY_S))
        assert len((await place.desk.backfill("default", "a", "f", Backfill(now - 6 * DAY_S))).calls) == 7

    run(test)


def test_while_a_version_does_not_serve_the_schedule_is_that_of_the_one_that_does() -> None:
    async def test(place: TriggerPlace) -> None:
        old = scheduled("a", HOURLY)
        place.put(old)
        await place.fired()
        for after in (scheduled("a", Period(minutes=7), timeout_s=9.0), scheduled("a", None, timeout_s=8.0)):
            place.put(replace(after, previous=old.workloads, revisions=(*old.revisions, *after.revisions)))
            await place.fired()
            assert place.triggers.armed[key_of("a")].state.schedule == HOURLY
            place.take(PlanCommitted(place.clock.at, Plan(place.clock.at, (), moves=(key_of("a"),))))
            place.triggers.changed("default/a", place.clock.at)
            await place.fired()
            schedules = [each.state.schedule for each in place.triggers.armed.values()]
            assert schedules == [each.schedule for each in after.workloads if each.schedule is not None]
            place.put(old)
            await place.fired()

    run(test)
