"""When is a schedule due next, which due times were missed, and can there be any at all?

A cron line is read in local time. Where its hours are named, a local time that does not exist (clocks go forward) is
due as much later as they went, and one that comes twice (they go back) is due the first time. Where its hour starts
with "*", it goes by the hours that pass: each that exists, and both of those that have the same name.

Dates are reckoned with here, and zones looked up in the machine's tables; no clock is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain, groupby, islice, takewhile
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from swell.model.call import Keeping
from swell.model.errors import brief
from swell.model.schedule import UNITS, Cron, Period, Schedule

ALL_MAX = 1000
"""Missed due times that a schedule which makes up for all of them does so for: the newest."""
KEPT_MAX = 10_000
"""Of a schedule that is due very often about so many calls are kept after their end."""
LATE_S = 60.0
"""A firing that is later than this is one that was missed."""
PERIOD_MAX_S = 50 * 366 * 86_400.0
_LINE_MAX = 256
_DAY_S = 86_400.0
_MONTH_S = 30.436875 * _DAY_S
"""On average."""


class Owed(msgspec.Struct, frozen=True):
    """What a schedule has to make up for at some moment."""

    due: tuple[float, ...] = ()
    """Due times to fire for, in order."""
    missed_from: float | None = None
    """The first of those that have no firing of their own, all before `due`."""
    next_at: float | None = None
    """The next due time after that moment; None: there is none."""


def owed(schedule: Schedule, began_at: float, first: float, now: float) -> Owed:
    """What is due by now. `first`: the next due time after what was dealt with."""
    if first > now:
        return Owed(next_at=first)
    second = next_due(schedule, began_at, first)
    if second is None or second > now:
        skipped = schedule.missed == "skip" and now - first > LATE_S
        return Owed(() if skipped else (first,), first if skipped else None, second)
    next_at = next_due(schedule, began_at, now)
    due: tuple[float, ...]
    match schedule.missed:
        case "skip":
            back = chain(_back(schedule, began_at, first, now), (first,))
            due = tuple(takewhile(lambda at: now - at <= LATE_S, back))[::-1]
        case "once":
            due = (last_due(schedule, began_at, first, now) or second,)
        case "all":
            due = tuple(islice(_back(schedule, began_at, first, now), ALL_MAX))[::-1]
            due = due if len(due) == ALL_MAX else (first, *due)
    return Owed(due, None if first in due else first, next_at)


def due_times(schedule: Schedule, began_at: float, since: float, until: float) -> Iterator[float]:
    """Those after `since`, up to and with `until`."""
    at = next_due(schedule, began_at, since)
    while at is not None and at <= until:
        yield at
        at = next_due(schedule, began_at, at)


def next_due(schedule: Schedule, began_at: float, after: float) -> float | None:
    """The first due time after a moment; None where there is none in the next 50 years."""
    if isinstance(schedule, Period):
        return _next_period(schedule, began_at, after)
    zone = ZoneInfo(schedule.timezone)
    shift = _shift(zone, after)
    found: float | None = None
    end: datetime | None = None
    for local in _locals(schedule, _local(zone, after) - shift - timedelta(seconds=1)):
        if end is not None and local > end:
            break
        for at in _moments(schedule, zone, local):
            if at > after:
                found = at if found is None else min(found, at)
        if found is not None and end is None:
            # Where clocks change, the order of moments is not that of local times.
            end = local + _shift(zone, found)
            if end == local:
                break
    return found


def last_due(schedule: Schedule, began_at: float, after: float, until: float) -> float | None:
    """The last due time that is after a moment and not after another; None where there is none."""
    return next(_back(schedule, began_at, after, until), None)


def _back(schedule: Schedule, began_at: float, after: float, until: float) -> Iterator[float]:
    """Due times after `after`, up to and with `until`, the last one first."""
    if isinstance(schedule, Period):
        return _periods_back(schedule, began_at, after, until)
    return (at for at, _ in groupby(_cron_back(schedule, after, until)))


def kept_s(schedule: Schedule) -> float:
    """How long its calls are kept after their end where that is shorter than of other calls, in seconds; else 0."""
    if isinstance(schedule, Cron):
        return 0.0
    months, seconds = _parts(schedule)
    short_s = seconds * KEPT_MAX
    return short_s if not months and short_s < Keeping().result_s else 0.0


def problem(schedule: Schedule) -> str | None:
    """Why a schedule cannot be, in words that go on after its name; None where it can."""
    if isinstance(schedule, Period):
        return _period_problem(schedule)
    line, timezone = schedule.line, schedule.timezone
    fields = line.split()
    if len(line) > _LINE_MAX or len(fields) != 5:
        words = "a cron line has five: minute, hour, day of the month, month, day of the week"
        return f"{brief(line)!r} has {len(fields)} fields; {words}"
    wrong = _grammar_problem(fields)
    if wrong is not None:
        return f"{line!r} is no cron line: {wrong}"
    if timezone.startswith(_NO_ZONES) or not _is_zone(timezone):
        return f"there is no time zone {brief(timezone)!r}: they are named like 'Europe/Berlin'"
    if next_due(schedule, 0.0, 0.0) is None:
        return f"{line!r} never comes: there is no such date"
    return None


_NO_ZONES = ("posix/", "right/", "posixrules", "localtime")
"""Files that some machines have beside those of zones."""


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _grammar_problem(fields: list[str]) -> str | None:
    """Which field is wrong."""
    names = ("minute", "hour", "day of the month", "month", "day of the week")
    for number, name in enumerate(names):
        alone = ["*"] * 5
        alone[number] = fields[number]
        if not _reads(" ".join(alone)):
            return f"{fields[number]!r} is no {name}"
    return None


def _reads(line: str) -> bool:
    try:
        CronSim(line, datetime(2000, 1, 1))
    except (CronSimError, AssertionError, ValueError):
        return False
    return True


def _period_problem(period: Period) -> str | None:
    parts = [getattr(period, unit) for unit in UNITS]
    if not all(0 <= part < math.inf for part in parts):
        return "its parts are numbers from 0 on"
    if max(parts) > PERIOD_MAX_S:
        return "it is longer than 50 years"
    months, seconds = _parts(period)
    if not 1.0 <= months * _MONTH_S + seconds <= PERIOD_MAX_S:
        return "it is between one second and 50 years"
    return None


# -- names of moments -----------------------------------------------------------------------------


def written_time(at: float) -> str:
    """In UTC, with fractions where it is no whole second: "2027-01-31T09:00:00Z"."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


# -- local times ----------------------------------------------------------------------------------


def _locals(cron: Cron, begin: datetime, back: bool = False) -> Iterator[datetime]:
    """Local times of a line after one, or (`back`) before it, as a clock without a zone shows them."""
    try:
        yield from CronSim(cron.line, begin, reverse=back)
    except CronSimError:
        # It names a day that no month of it has.
        return


def _cron_back(cron: Cron, after: float, until: float) -> Iterator[float]:
    """Due times after `after`, up to and with `until`, the last one first; the same one maybe more than once."""
    zone = ZoneInfo(cron.timezone)
    begin = _local(zone, until) + _shift(zone, until) + timedelta(seconds=1)
    bottom = _local(zone, after) - _shift(zone, after)
    # Where clocks change, the order of moments is not that of local times: each waits until no local time is left that
    # may come later than it.
    found: list[tuple[float, datetime]] = []
    for local in takewhile(lambda local: local >= bottom, _locals(cron, begin, back=True)):
        for at in _moments(cron, zone, local):
            if after < at <= until:
                heappush(found, (-at, local - _shift(zone, at)))
        yield from _ripe(found, local)
    yield from _ripe(found, datetime.min)


def _ripe(found: list[tuple[float, datetime]], reached: datetime) -> Iterator[float]:
    """Take out those, the last one first, that wait for no local time before the one that is reached."""
    while found and found[0][1] >= reached:
        yield -heappop(found)[0]


def _moments(cron: Cron, zone: ZoneInfo, local: datetime) -> Iterator[float]:
    """When it is due for a local time."""
    first = local.replace(tzinfo=zone).timestamp()
    if not cron.line.split()[1].startswith("*"):
        yield first
        return
    second = local.replace(tzinfo=zone, fold=1).timestamp()
    for at in sorted({first, second}):
        # One that does not exist is another time when it is looked at again.
        if _local(zone, at) == local:
            yield at


def _local(zone: ZoneInfo, at: float) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


def _shift(zone: ZoneInfo, at: float) -> timedelta:
    """How far clocks go forward or back so near to a moment that it matters: no further away than they go."""
    far = _change(zone, at, _AROUND_S)
    return _change(zone, at, far.total_seconds() + 1.0) if far else far


def _change(zone: ZoneInfo, at: float, around_s: float) -> timedelta:
    before, now, later = (_local(zone, at + each_s) - _utc(at + each_s) for each_s in (-around_s, 0.0, around_s))
    return abs(now - before) + abs(later - now)


_AROUND_S = 26 * 3600.0
"""Clocks have gone forward by a whole day."""


# -- periods --------------------------------------------------------------------------------------


@lru_cache(1024)
def _parts(period: Period) -> tuple[int, float]:
    """Months, and seconds beside them."""
    days = 7 * period.weeks + period.days
    return 12 * period.years + period.months, days * _DAY_S + period.hours * 3600 + period.minutes * 60 + period.seconds


def _moment(period: Period, began_at: float, n: int) -> float:
    """When it is due for the n-th time (1 = first). Counted from the beginning each time: a month that was too short
    shortens no other."""
    months, seconds = _parts(period)
    if not months:
        return began_at + n * seconds
    began = datetime.fromtimestamp(began_at, UTC)
    year, month = divmod(began.year * 12 + began.month - 1 + n * months, 12)
    day = min(began.day, _days_of(year, month + 1))
    return began.replace(year=year, month=month + 1, day=day).timestamp() + n * seconds


def _days_of(year: int, month: int) -> int:
    first = datetime(year, month, 1)
    return ((first + timedelta(days=32)).replace(day=1) - first).days


def _count(period: Period, began_at: float, at: float) -> int:
    """How often it was due up to and with a moment."""
    months, seconds = _parts(period)
    n = max(0, math.floor((at - began_at) / (months * _MONTH_S + seconds)))
    while _moment(period, began_at, n + 1) <= at:
        n += 1
    while n > 0 and _moment(period, began_at, n) > at:
        n -= 1
    return n


def _next_period(period: Period, began_at: float, after: float) -> float | None:
    return _moment(period, began_at, _count(period, began_at, after) + 1)


def _periods_back(period: Period, began_at: float, after: float, until: float) -> Iterator[float]:
    for n in range(_count(period, began_at, until), 0, -1):
        at = _moment(period, began_at, n)
        if at <= after:
            return
        yield at
