"""When is a function called by itself? What schedule= takes, and what of that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from swell.model import schedule as model
from swell.model.errors import SwellError
from swell.model.schedule import Missed
from swell.sdk.cls import Cls
from swell.sdk.marks import Given
from swell.sdk.quantities import bad
from swell.sdk.signatures import public
from swell.sdk.subscriptions import Events


class Cron:
    """At the times of a cron line: minute, hour, day of the month, month, day of the week.

    `Cron("0 9 * * mon-fri", timezone="Europe/Berlin")` is each working day at nine, there. `missed` says what becomes
    of times at which the server was not there: "once" (one call makes up for all of them), "all" or "skip".
    """

    @public
    def __init__(self, cron_string: str, timezone: str = "UTC", *, missed: Missed = "once") -> None:
        for name, value in (("cron_string", cron_string), ("timezone", timezone)):
            if not isinstance(value, str):
                raise SwellError("bad_argument", f"Cron({name}={value!r}): give text.")
        self.schedule = model.Cron(cron_string, timezone, _policy("Cron", missed))

    def __repr__(self) -> str:
        return f"Cron({self.schedule.line!r}, timezone={self.schedule.timezone!r}{_but_once(self.schedule.missed)})"


class Period:
    """Once in so much time, counted from when it was deployed; deployed again without a change, it goes on as it was.

    `missed` says what becomes of times at which the server was not there: "once", "all" or "skip".
    """

    @public
    def __init__(
        self,
        *,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
        missed: Missed = "once",
    ) -> None:
        whole = {"years": years, "months": months, "weeks": weeks, "days": days, "hours": hours, "minutes": minutes}
        for name, value in (*whole.items(), ("seconds", seconds)):
            kinds = int | float if name == "seconds" else int
            if isinstance(value, bool) or not isinstance(value, kinds):
                number = "a number" if name == "seconds" else "a whole number"
                raise SwellError("bad_argument", f"Period({name}={value!r}): give {number}.")
        self.schedule = model.Period(**whole, seconds=float(seconds), missed=_policy("Period", missed))

    def __repr__(self) -> str:
        given = ((name, getattr(self.schedule, name)) for name in model.UNITS)
        words = ", ".join(f"{name}={value:g}" for name, value in given if value)
        return f"Period({words}{_but_once(self.schedule.missed)})"


def scheduled(given: Given) -> model.Schedule | None:
    """What schedule= means, or trigger= where that is one; nothing of a class."""
    value, trigger = given.values.get("schedule"), given.values.get("trigger")
    if value is not None and not isinstance(value, Cron | Period):
        raise bad(given, "schedule", "give swell.Cron('0 9 * * *') or swell.Period(hours=1)")
    if trigger is None:
        return None if value is None else value.schedule
    if value is not None:
        raise bad(given, "trigger", "a function has one, and schedule= is given: make a second function of it")
    if isinstance(trigger, Cron | Period):
        return trigger.schedule
    if not isinstance(trigger, Events | Cls):
        kinds = "swell.HttpEvents(), Files, NatsStream, Objects, RedisStream, Rows, Cron, Period"
        raise bad(given, "trigger", f"give {kinds}, or a swell.Source of the app")
    return None


def check(given: Given, name: str, needed: Sequence[str], streams: bool, web: bool) -> None:
    """Refuse a schedule of what cannot be called without arguments, and return once. `needed`: those that it needs."""
    if scheduled(given) is None:
        return
    if streams or web:
        what = "a web endpoint" if web else "a generator"
        raise bad(given, "schedule", f"{name} is {what}, and what a schedule calls returns once")
    if needed:
        takes = ", ".join(needed)
        raise bad(given, "schedule", f"{name} needs {takes}, and a schedule gives no arguments: give a default")


def _policy(kind: str, missed: Any) -> Missed:
    if missed not in get_args(Missed):
        raise SwellError("bad_argument", f"{kind}(missed={missed!r}): choose from 'once', 'all', 'skip'.")
    policy: Missed = missed
    return policy


def _but_once(missed: Missed) -> str:
    return "" if missed == "once" else f", missed={missed!r}"
