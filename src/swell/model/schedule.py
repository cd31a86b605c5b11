"""When is something to happen, again and again?"""

from __future__ import annotations

from typing import Literal

import msgspec

Missed = Literal["skip", "once", "all"]
"""What becomes of due times at which the server was not there: none of them is made up for, all of them together are by
one firing, or each is by its own."""


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """At local times of a time zone."""

    line: str
    """Minute, hour, day of the month, month, day of the week."""
    timezone: str = "UTC"
    missed: Missed = "once"


class Period(msgspec.Struct, frozen=True, tag="period"):
    """Once in so much time, counted from when it was deployed. Months are those of UTC, and so long as they are."""

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: float = 0.0
    missed: Missed = "once"


Schedule = Cron | Period
UNITS = ("years", "months", "weeks", "days", "hours", "minutes", "seconds")
"""What a period is given in."""


def written(schedule: Schedule) -> str:
    """As people read it: "0 9 * * * (Europe/Berlin)", "every 1 hour 30 minutes"."""
    match schedule:
        case Cron(line=line, timezone=timezone):
            return f"{line} ({timezone})"
        case Period():
            parts = ((unit, getattr(schedule, unit)) for unit in UNITS)
            words = (f"{value:g} {unit[:-1] if value == 1 else unit}" for unit, value in parts if value)
            return f"every {' '.join(words)}"
