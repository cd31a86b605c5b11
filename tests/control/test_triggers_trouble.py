"""Is no trigger forgotten, held up or too much, where another one cannot be, very much is due, or code is wrong?"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from control.calls_place import new
from control.test_control_link import until
from control.test_triggers import HOUR_S, HOURLY, MINUTE_S, fired, hasten, pass_time, run
from control.triggers_place import TriggerPlace, key_of
from swell.control import trigger_desk as desk_module
from swell.control import triggers as module
from swell.model.call import CallError
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped
from swell.model.schedule import Cron, Period, Schedule
from swell.model.trigger import Delivery
from swell.wire.calls import NewCall
from swell.wire.http import JSON_OR_PICKLE
from swell.wire.triggers import Backfill


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr(module, "AGAIN_S", 0.001)


def missing_times(zones: Collection[str], schedule: Cron, *_: float) -> Iterator[float]:
    if schedule.timezone in zones:
        raise KeyError(schedule.timezone)
    yield 0.0


@pytest.mark.parametrize("name", ["next_due", "owed"])
def test_one_that_cannot_be_reckoned_with_is_nothing_to_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, zones = getattr(module, name), {"Asia/Tokyo"}

    def missing(schedule: Schedule, *args: float) -> Any:
        if isinstance(schedule, Cron) and schedule.timezone in zones:
            raise KeyError(schedule.timezone)
        return real(schedule, *args)

    async def test(place: TriggerPlace) -> None:
        monkeypatch.setattr(module, name, missing)
        monkeypatch.setattr(desk_module, "due_times", partial(missing_times, zones))
        place.schedule("a", Cron("* * * * *", "Asia/Tokyo"))
        place.schedule("b", Cron("* * * * *"))
        await place.fired()
        await pass_time(place, MINUTE_S)
        assert (len(fired(place)), len(fired(place, "b"))) == (0, 1)
        whys = [place.triggers.armed[key_of(app)].why for app in ("a", "b")]
        assert whys == ["when it is due cannot be told: KeyError('Asia/Tokyo')", ""]
        with pytest.raises(SwellError, match="When it was due cannot be told"):
            await place.desk.backfill("default", "a", "f", Backfill(0.0))
        zones.clear()
        await pass_time(place, module.PUT_OFF_S + MINUTE_S)
        assert (len(fired(place)), len(fired(place, "b"))) == (1, 2)

    run(test)


def test_after_a_round_that_failed_none_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Cron("0 * * * *", missed="skip"))
        place.schedule("b", Cron("0 * * * *"))
        await place.fired()
        real, failing = place.triggers._skip, [1]

        async def skip(*args: Any) -> None:
            if failing:
                failing.pop()
                raise RuntimeError
            await real(*args)

        monkeypatch.setattr(place.triggers, "_skip", skip)
        await pass_time(place, HOUR_S)
        assert not failing
        place.clock.at = (place.clock.at // HOUR_S + 1) * HOUR_S
        await place.fired()
        assert (len(fired(place)), len(fired(place, "b"))) == (1, 2)

    run(test)


@pytest.mark.slow
def test_others_get_their_turn_while_very_much_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    real_next, real_owed, counts = module.next_due, module.owed, [0]

    def next_counted(*args: Any) -> Any:
        counts[-1] += 1
        return real_next(*args)

    def owed_counted(*args: Any) -> Any:
        found = real_owed(*args)
        counts[-1] += len(found.due)
        return found

    async def turns() -> None:
        while True:
            counts.append(0)
            await asyncio.sleep(0)

    async def test(place: TriggerPlace) -> None:
        monkeypatch.setattr(module, "next_due", next_counted)
        monkeypatch.setattr(module, "owed", owed_counted)
        turning = asyncio.create_task(turns())
        for n in range(300):
            place.schedule(f"a{n}", Period(minutes=10, missed="all"))
        await place.fired()
        assert sum(counts) == 300
        assert max(counts) <= module.BREATH
        counts.clear()
        counts.append(0)
        # Each owes 10.
        place.clock.at += 100 * MINUTE_S
        place.ring()
        await until(lambda: sum(counts) >= 3000)
        turning.cancel()
        await place.fired()
        assert max(counts) <= module.BREATH + 10

    run(test)


def test_what_changes_does_not_wait_for_what_is_due() -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Cron("* * * * *", missed="all"))
        place.schedule("b", HOURLY)
        await place.fired()
        real = place.triggers._accept
        there: list[bool] = []

        async def accept(new: NewCall, delivery: Delivery) -> str:
            if len(there) == 3:
                place.stop("b")
            there.append(key_of("b") in place.triggers.armed)
            return await real(new, delivery)

        place.triggers._accept = accept
        await pass_time(place, 30 * MINUTE_S)
        assert len(there) >= 30
        assert there[0]
        assert not any(there[8:])

    run(test)


def test_while_very_many_of_its_calls_wait_a_schedule_makes_no_further_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(place: TriggerPlace) -> None:
        monkeypatch.setattr(module, "WAITING_MAX", 20)
        for app in ("a", "b"):
            place.schedule(app, Period(seconds=2))
        await place.fired()
        # Those of others are no reason.
        for _ in range(30):
            await place.keeper.accept(new("b"))
        for _ in range(60):
            await pass_time(place, 2.0)
            if len(fired(place, "b")) == 10:
                for each in place.store.call_records.newest(key_of("b"), "queued", 99):
                    await place.keeper.cancel(each.id, CallError("cancelled", "no"))
        assert len(fired(place, "b")) == 30
        assert len(fired(place)) == 20
        assert {row.app: row.why for row in await place.desk.rows("default", "a")} == {"a": "20 of its calls wait"}
        calls = place.store.call_records.newest(key_of("a"), "queued", 99)
        assert {(each.keeping.result_s, each.accept) for each in calls} == {(20_000.0, JSON_OR_PICKLE)}
        for each in calls:
            await place.keeper.cancel(each.id, CallError("cancelled", "no"))
        await until(lambda: key_of("a") not in place.keeper.hands.due)
        await pass_time(place, 2.0)
        assert place.triggers.armed[key_of("a")].why == ""
        newest, *_ = place.store.triggers.history(key_of("a"), 1)
        assert (newest.due_at, newest.missed_from) == (place.clock.at, place.clock.at - 2.0 * 40)

    run(test)


def test_those_that_have_very_many_calls_waiting_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(place: TriggerPlace) -> None:
        monkeypatch.setattr(module, "WAITING_MAX", 2)
        crowded = [f"c{n}" for n in range(25)]
        for app in crowded:
            place.schedule(app, Period(seconds=2))
        await place.fired()
        for _ in range(2):
            await pass_time(place, 2.0)
        assert all(len(fired(place, app)) == 2 for app in crowded)
        place.schedule("a", Period(seconds=2))
        await place.fired()
        looked: list[int] = []
        real = place.triggers._waiting

        def waiting(key: str) -> int:
            looked.append(len(fired(place)))
            return real(key)

        place.triggers._waiting = waiting  # type: ignore[method-assign]
        await pass_time(place, 12.0)
        await until(lambda: len(looked) >= 25)
        assert sum(not each for each in looked) <= module.LOOKED_MAX, "the others had their turn first"
        await pass_time(place, 2.0)
        assert all(len(fired(place, app)) == 2 for app in crowded)
        assert len(fired(place)) >= 2
        assert {row.why for app in crowded for row in await place.desk.rows("default", app)} == {"2 of its calls wait"}

    run(test)


def test_pauses_leave_nothing_behind() -> None:
    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Period(days=300))
        await place.fired()
        for n in range(400):
            await place.desk.pause("default", "a", "f", not n % 2)
        assert len(place.triggers._times) <= 2 + module.BREATH

    run(test)


def test_a_stop_that_the_disk_refuses_forgets_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is not tried once more while the disk takes it again and the deploy is not yet heard of.
    monkeypatch.setattr(module, "AGAIN_S", 3600.0)

    async def test(place: TriggerPlace) -> None:
        place.schedule("a", Period(days=300))
        await place.fired()
        await place.desk.pause("default", "a", "f", True)
        before = place.store.triggers.all()
        place.store.how = "before"
        app = place.apps["a"]
        place.take(AppStopped(place.clock.at, "default", "a"))
        place.triggers.changed("default/a", place.clock.at)
        await until(lambda: "triggers cannot be kept" in caplog.text)
        place.take(AppDeployed(place.clock.at, app))
        place.triggers.changed("default/a", place.clock.at)
        place.store.how = ""
        await place.fired()
        assert place.store.triggers.all() == before
        assert place.triggers.armed[key_of("a")].state.paused_at is not None

    run(test)


def test_one_whose_schedule_cannot_be_read_any_more_goes_on_with_what_is_deployed() -> None:
    async def test(place: TriggerPlace) -> None:
        for app in ("a", "b", "c"):
            place.schedule(app, HOURLY)
        await place.fired()
        await place.triggers.pause(key_of("c"), True)
        await pass_time(place, HOUR_S)
        await place.close()
        states = place.store.triggers.all()
        place.store.triggers.put([replace(each, schedule=None) for each in states if each.key != key_of("b")])
        await place.open()
        await pass_time(place, HOUR_S)
        assert [len(fired(place, app)) for app in ("a", "b", "c")] == [2, 2, 0]
        assert [each.schedule for each in place.store.triggers.all()] == [HOURLY] * 3

    run(test)
