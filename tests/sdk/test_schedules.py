"""Is a schedule deployed as it is written?"""

from __future__ import annotations

import pytest

import swell
from sdk.test_arguments import FIELD, differences, with_function
from swell.model.schedule import UNITS, Cron, Period
from swell.sdk import arguments

WHOLE = {unit: number for number, unit in enumerate(UNITS, 2)}


@pytest.mark.parametrize("name", [*UNITS, "missed"])
def test_each_part_of_a_period_counts(name: str) -> None:
    value = {**WHOLE, "missed": "all"}[name]
    before = with_function(schedule=swell.Period(weeks=9))
    after = with_function(schedule=swell.Period(**{"weeks": 9, name: value}))
    assert list(differences(before, after)) == [f"Period.{name}"]
    assert f"Period.{name}" in FIELD.findall(arguments.EFFECTS["Period"][name])


@pytest.mark.parametrize(("name", "field"), [("cron_string", "line"), ("timezone", "timezone"), ("missed", "missed")])
def test_each_part_of_a_cron_line_counts(name: str, field: str) -> None:
    other = {"cron_string": "0 8 * * *", "timezone": "Asia/Tokyo", "missed": "skip"}[name]
    before = with_function(schedule=swell.Cron("0 9 * * *"))
    after = with_function(schedule=swell.Cron(**{"cron_string": "0 9 * * *", name: other}))
    assert list(differences(before, after)) == [f"Cron.{field}"]
    assert f"Cron.{field}" in FIELD.findall(arguments.EFFECTS["Cron"][name])


def test_what_is_written_is_what_is_shown() -> None:
    cron, period = swell.Cron("0 9 * * *", "Asia/Tokyo", missed="skip"), swell.Period(hours=1, seconds=0.5)
    assert repr(cron) == "Cron('0 9 * * *', timezone='Asia/Tokyo', missed='skip')"
    assert repr(period) == "Period(hours=1, seconds=0.5)"
    app = with_function(schedule=cron)
    assert app.workloads[0].schedule == Cron("0 9 * * *", "Asia/Tokyo", "skip")
    assert with_function(schedule=period).workloads[0].schedule == Period(hours=1, seconds=0.5)
    assert with_function().workloads[0].schedule is None
    # When it is called is no part of what runs.
    assert app.revisions == with_function().revisions
