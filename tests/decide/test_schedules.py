"""Is a schedule due when its author would say so, each time once, also where clocks go forward and back?"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.decide import schedules as schedules_module
from swell.decide.schedules import (
    ALL_MAX,
    LATE_S,
    due_times,
    kept_s,
    last_due,
    next_due,
    owed,
    problem,
    written_time,
)
from swell.model.schedule import UNITS, Cron, Missed, Period, Schedule, written

MINUTE_S = 60
HOUR_S = 3600.0
DAY_S = 86_400.0
CHANGES = {
    "Europe/Berlin": ("2026-03-28", "2026-10-24"),
    "America/New_York": ("2026-03-07", "2026-10-31"),
    # By half an hour.
    "Australia/Lord_Howe": ("2026-04-04", "2026-10-03"),
    # At midnight.
    "America/Santiago": ("2026-04-04", "2026-09-05"),
    # A whole day was left out.
    "Pacific/Apia": ("2011-12-29", "2011-09-23"),
    "Asia/Kathmandu": ("2026-03-28", "2026-12-31"),
    "UTC": ("2026-03-28", "2026-02-27"),
}
DAYS = 3


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


# -- an oracle that looks at every minute ---------------------------------------------------------


def numbers(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        body, _, step = term.partition("/")
        first, _, last = (f"{low}-{high}" if body == "*" else body).partition("-")
        end = int(last or (high if step else first))
        found |= set(range(int(first), end + 1, int(step or 1)))
    return found


class Line:
    """A cron line, read by other code."""

    def __init__(self, text: str) -> None:
        self.text = text
        minute, hour, day, month, weekday = self.fields = text.split()
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days, self.months = numbers(day, 1, 31), numbers(month, 1, 12)
        self.weekdays = {each % 7 for each in numbers(weekday, 0, 7)}

    def has(self, local: datetime) -> bool:
        """Is this a local time that the line names?"""
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        both = self.fields[2].startswith("*") or self.fields[4].startswith("*")
        named = (day and weekday) if both else (day or weekday)
        return named and (local.minute in self.minutes and local.hour in self.hours and local.month in self.months)


def looked_up(line: Line, zone: str, since: float, until: float) -> list[float]:
    """Due times in (since, until], found by looking at each minute, and at how far clocks are from UTC in it."""
    found: list[float] = []
    there = ZoneInfo(zone)
    by_hours = line.fields[1].startswith("*")
    left_out: dict[datetime, datetime] = {}
    """Local times that are shown in the place of others which do not exist."""
    begin = math.floor(since / MINUTE_S) * MINUTE_S - 2 * DAY_S
    before = datetime.fromtimestamp(begin, there).utcoffset()
    for second in range(int(begin), int(until) + 1, MINUTE_S):
        shown = datetime.fromtimestamp(second, there)
        offset, local = shown.utcoffset(), shown.replace(tzinfo=None, fold=0)
        assert offset is not None
        assert before is not None
        for minute in range(max(0, int((offset - before).total_seconds()) // MINUTE_S)):
            missing = local - (offset - before) + timedelta(minutes=minute)
            left_out[missing + (offset - before)] = missing
        before = offset
        in_place_of = None if by_hours else left_out.pop(local, None)
        due = line.has(local) if by_hours else not shown.fold and line.has(local)
        if (due or (in_place_of is not None and line.has(in_place_of))) and since < second <= until:
            found.append(float(second))
    return found


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    steps = st.tuples(st.sampled_from(["*", f"{low}-{high}"]), st.integers(1, high)).map(
        lambda two: f"{two[0]}/{two[1]}"
    )
    lists = st.lists(number, min_size=1, max_size=4).map(lambda all: ",".join(map(str, all)))
    return st.one_of(st.just("*"), lists, lists, spans, steps)


# Hours at which clocks change are met often.
hours = st.one_of(fields(0, 23), st.sampled_from(["*", "2", "1,2,3", "0-3", "0", "*/2", "23"]))
lines = st.tuples(
    fields(0, 59),
    hours,
    st.one_of(st.just("*"), st.just("*"), fields(1, 31)),
    st.sampled_from(["*", "*", "3-4", "9-12"]),
    st.one_of(st.just("*"), st.just("*"), fields(0, 7)),
).map(" ".join)
changes = st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days])


@pytest.mark.slow
@given(lines, changes, st.lists(st.floats(0, DAYS * DAY_S), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_it_is_due_when_looking_at_each_minute_says_so(
    text: str, change: tuple[str, str], moments: list[float]
) -> None:
    zone, day = change
    since = at(day, zone)
    until = since + DAYS * DAY_S
    cron = Cron(text, zone)
    expected = looked_up(Line(text), zone, since, until)
    if next_due(cron, 0.0, since) is None:
        assert expected == []
        return
    assert list(due_times(cron, 0.0, since, until)) == expected
    back, before = [], until
    while len(back) < 100 and (last := last_due(cron, 0.0, since, before)) is not None:
        back.append(last)
        before = math.nextafter(last, -math.inf)
    assert back == expected[::-1][:100]
    if expected:
        assert list(owed(Cron(text, zone, "all"), 0.0, expected[0], until).due) == expected[-ALL_MAX:]
    for moment in (since + each for each in moments):
        later = [each for each in expected if each > moment]
        if later:
            assert next_due(cron, 0.0, moment) == later[0]
        assert last_due(cron, 0.0, since, moment) == max((e for e in expected if e <= moment), default=None)


def test_what_people_ask_about_clocks_that_change() -> None:
    spring, autumn = at("2026-03-29", "Europe/Berlin"), at("2026-10-25", "Europe/Berlin")

    def times(line: str, begin: float) -> list[str]:
        cron = Cron(line, "Europe/Berlin", "all")
        found = list(due_times(cron, 0.0, begin - 1, begin + 4 * HOUR_S))
        assert list(owed(cron, 0.0, found[0], begin + 4 * HOUR_S).due) == found
        return [datetime.fromtimestamp(each, ZoneInfo("Europe/Berlin")).strftime("%H:%M %Z") for each in found]

    assert times("30 2 * * *", spring) == ["03:30 CEST"]
    assert times("30 2 * * *", autumn) == ["02:30 CEST"]
    assert times("0,30 2,3 * * *", spring) == ["03:00 CEST", "03:30 CEST"]
    assert times("0 * * * *", autumn) == ["00:00 CEST", "01:00 CEST", "02:00 CEST", "02:00 CET", "03:00 CET"]
    assert times("0 * * * *", spring) == ["00:00 CET", "01:00 CET", "03:00 CEST", "04:00 CEST", "05:00 CEST"]


# -- periods --------------------------------------------------------------------------------------

periods = st.builds(
    Period,
    months=st.sampled_from([0, 0, 0, 1, 5]),
    days=st.sampled_from([0, 0, 1, 40]),
    minutes=st.sampled_from([0, 1, 90]),
    seconds=st.sampled_from([1.0, 0.25 + 7, 59.5]),
)
begins = st.floats(at("2025-01-28"), at("2028-03-01"))


@given(periods, begins, st.floats(0, 400 * DAY_S))
def test_a_period_is_due_again_and_again_from_its_beginning(period: Period, began_at: float, after_s: float) -> None:
    after = began_at + after_s
    first = next_due(period, began_at, after)
    assert first is not None
    assert first > after
    assert last_due(period, began_at, -math.inf, first) == first
    before = last_due(period, began_at, began_at, math.nextafter(first, -math.inf))
    assert before is None or before <= after
    if not period.months:
        length = period.days * DAY_S + period.minutes * 60 + period.seconds
        assert (first - began_at) / length == pytest.approx(round((first - began_at) / length), abs=1e-6)


def test_a_month_that_is_short_shortens_no_other() -> None:
    due = due_times(Period(months=1), at("2027-01-31T09:00"), at("2027-02-01"), at("2027-06-01"))
    days = ["2027-02-28T09:00:00Z", "2027-03-31T09:00:00Z", "2027-04-30T09:00:00Z", "2027-05-31T09:00:00Z"]
    assert [written_time(each) for each in due] == days


# -- what is owed -----------------------------------------------------------------------------------


class Server:
    """What fires when it is awake, and remembers how far it came."""

    def __init__(self, schedule: Schedule, began_at: float) -> None:
        self.schedule, self.began_at, self.to = schedule, began_at, began_at
        self.fired: list[float] = []

    def wakes(self, now: float) -> None:
        first = next_due(self.schedule, self.began_at, self.to)
        assert first is not None
        found = owed(self.schedule, self.began_at, first, now)
        assert found.next_at == next_due(self.schedule, self.began_at, max(now, math.nextafter(first, 0)))
        assert list(found.due) == sorted(set(found.due))
        if self.schedule.missed == "skip":
            there = due_times(self.schedule, self.began_at, self.to, now)
            assert list(found.due) == [each for each in there if now - each <= LATE_S]
        if first <= now:
            assert (found.missed_from is None) == (first in found.due)
            self.to = now
        self.fired += found.due


schedules = st.builds(
    lambda line, missed: (
        Cron(line, "Europe/Berlin", missed) if " " in line else Period(seconds=int(line), missed=missed)
    ),
    st.sampled_from(["*/10 * * * *", "0 2 * * *", "30 * * * *", "420", "25"]),
    st.sampled_from(["skip", "once", "all"]),
)


@given(schedules, st.lists(st.floats(-2 * HOUR_S, 6 * HOUR_S), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_clock_that_jumps_fires_nothing_twice_and_all_that_policy_says(
    schedule: Schedule, steps: list[float]
) -> None:
    now = began_at = at("2026-10-24T22:13:20")
    server = Server(schedule, began_at)
    for step in steps:
        now += step
        server.wakes(now)
    assert server.fired == sorted(set(server.fired))
    due = list(due_times(schedule, began_at, began_at, server.to))
    assert set(server.fired) <= set(due)
    if schedule.missed == "all":
        assert server.fired == due
    elif schedule.missed == "once" and due:
        assert server.fired[-1] == due[-1]


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1), ("all", 3)])
def test_what_was_missed_is_made_up_for_as_its_policy_says(missed: Missed, count: int) -> None:
    hourly = Cron("0 * * * *", missed=missed)
    found = owed(hourly, 0.0, HOUR_S, 3 * HOUR_S + LATE_S + 1)
    assert found.due == (HOUR_S, 2 * HOUR_S, 3 * HOUR_S)[3 - count :]
    assert found.missed_from == (None if missed == "all" else HOUR_S)
    assert found.next_at == 4 * HOUR_S
    # What is a little late is not missed.
    assert owed(hourly, 0.0, HOUR_S, HOUR_S + LATE_S).due == (HOUR_S,)


def test_of_very_many_that_were_missed_the_newest_are_made_up_for() -> None:
    found = owed(Cron("* * * * *", missed="all"), 0.0, 60.0, 60.0 * (ALL_MAX + 50))
    assert found.due == tuple(60.0 * n for n in range(51, ALL_MAX + 51))
    assert found.missed_from == 60.0


def test_what_is_due_together_is_found_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    class Counted(schedules_module.CronSim):  # type: ignore[misc]
        def __init__(self, line: str, *args: object, **options: object) -> None:
            begun.append(line)
            super().__init__(line, *args, **options)

    monkeypatch.setattr(schedules_module, "CronSim", Counted)
    for zone in ("UTC", "Europe/Berlin"):
        found = owed(Cron("* * * * *", zone, "all"), 0.0, 60.0, 60.0 * (ALL_MAX + 50))
        assert len(found.due) == ALL_MAX
    assert len(begun) < 20


def test_what_is_due_very_often_is_kept_for_less_long() -> None:
    assert kept_s(Period(seconds=2)) == 20_000.0
    for schedule in (Period(hours=1), Period(months=1, seconds=1), Cron("* * * * *")):
        assert kept_s(schedule) == 0.0


# -- what cannot be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Cron("0 9 * *"), "has 4 fields; a cron line has five"),
        (Cron("@daily"), "has 1 fields"),
        (Cron("0 0 9 * * *"), "has 6 fields"),
        (Cron("60 9 * * *"), "'60' is no minute"),
        (Cron("0 9 * * MOON"), "'MOON' is no day of the week"),
        (Cron("0 9 L-3 * *"), "'L-3' is no day of the month"),
        (Cron("* " * 300 + "*"), "has 301 fields"),
        (Cron("0 0 30 2 *"), "never comes: there is no such date"),
        (Cron("0 0 31 4,6,9,11 *"), "never comes"),
        (Cron("0 9 * * *", "Europe/Berlim"), "there is no time zone 'Europe/Berlim'"),
        (Cron("0 9 * * *", "../../etc/passwd"), "there is no time zone"),
        (Cron("0 9 * * *", "posix/Europe/Berlin"), "there is no time zone"),
        (Cron("0 9 * * *", "localtime"), "there is no time zone"),
        (Cron("0 9 * * *", ""), "there is no time zone"),
        (Cron("0 9 * * *", "a\0b"), "there is no time zone"),
        (Period(), "it is between one second and 50 years"),
        (Period(seconds=0.5), "it is between one second"),
        (Period(years=51), "it is between one second and 50 years"),
        (Period(days=10**400), "it is longer than 50 years"),
        (Period(days=-1, hours=48), "its parts are numbers from 0 on"),
        (Period(seconds=math.nan), "its parts are numbers from 0 on"),
        (Period(seconds=math.inf), "its parts are numbers from 0 on"),
    ],
)
def test_what_cannot_be_is_said_in_words(schedule: Schedule, words: str) -> None:
    assert words in (problem(schedule) or "")


@pytest.mark.parametrize(
    "line", ["0 9 * * mon-fri", "0 0 L * *", "0 0 29 2 *", "0 0 LW * *", "0 0 * * 5L", "5/10 * * * *"]
)
def test_what_can_be_is_not_refused(line: str) -> None:
    assert problem(Cron(line, "Asia/Tokyo")) is None


@given(st.one_of(st.text("0123456789*/-,L#W? MONJAN", max_size=24), st.text(max_size=12)))
def test_whatever_is_written_it_is_due_or_refused(text: str) -> None:
    cron = Cron(text)
    if problem(cron) is None:
        assert next_due(cron, 0.0, at("2026-01-01")) is not None


def test_it_is_shown_as_people_read_it() -> None:
    assert written(Cron("0 9 * * *", "Asia/Tokyo")) == "0 9 * * * (Asia/Tokyo)"
    assert written(Period(hours=1, minutes=30)) == "every 1 hour 30 minutes"
    assert UNITS[-1] == "seconds"
    assert written_time(at("2026-01-01T00:00:00.5")) == "2026-01-01T00:00:00.500000Z"
    assert datetime.fromisoformat(written_time(1.0)).astimezone(UTC).timestamp() == 1.0
