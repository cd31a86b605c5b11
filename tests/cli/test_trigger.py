"""Is it plain what fires when, and are times understood as people write them?"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from swell.cli.trigger import FIRING_HEADS, HEADS, Moment, firings, listing, local, trigger
from swell.wire.triggers import FiringRow, TriggerRow

NOW = 1_700_000_000.0
ROW = TriggerRow("default", "jobs", "report", "schedule", "0 9 * * * (Asia/Tokyo)", "once", NOW - 9, NOW + 90)


def row(**changes: Any) -> TriggerRow:
    return msgspec.structs.replace(ROW, **changes)


def test_a_line_for_each_those_first_that_fire_first() -> None:
    rows = [
        row(name="resting", next_at=None, paused_at=NOW),
        row(namespace="team", next_at=NOW + 3600, fired_at=NOW - 5),
        ROW,
        row(name="over", next_at=None),
    ]
    heads, first, second, third, last = listing(rows, NOW).splitlines()
    assert heads.split() == list(HEADS)
    assert first.split() == ["jobs/report", *local(NOW + 90).split(), "1m30s", "-", "once", *ROW.schedule.split()]
    assert second.split()[:6] == ["team/jobs/report", *local(NOW + 3600).split(), "1h00m", *local(NOW - 5).split()]
    assert third.split()[:4] == ["jobs/resting", "paused", "-", "-"]
    assert last.split()[:4] == ["jobs/over", "never", "-", "-"]


def test_what_waits_at_a_source_is_told() -> None:
    read = row(kind="nats", schedule="nats nats://x S", missed="", next_at=None, up=True, since=NOW)
    rows = [
        msgspec.structs.replace(read, name="a", waiting=12, oldest_at=NOW - 90, why="1000 calls of the function wait"),
        msgspec.structs.replace(read, name="b", waiting=12),
        msgspec.structs.replace(read, name="c", oldest_at=NOW - 90),
        msgspec.structs.replace(read, name="d", waiting=0),
    ]
    lines = [each.partition("nats://x S")[2].strip() for each in listing(rows, NOW).splitlines()[1:]]
    assert lines == [
        ": 12 wait, the oldest for 1m30s: 1000 calls of the function wait",
        ": 12 wait",
        ": the oldest for 1m30s",
        "",
    ]


def test_a_line_for_each_firing() -> None:
    late_one = FiringRow("due", NOW, NOW + 70, "schedule", "fc-1", "done", NOW - 60)
    rows = [late_one, FiringRow("m", NOW, NOW, "manual", "x")]
    heads, late, manual = firings(rows).splitlines()
    assert heads.split() == list(FIRING_HEADS)[:-1]
    late_words = ["1m10s", "schedule", "done", "fc-1", "missed", "since", *local(NOW - 60).split()]
    assert late.split() == [*local(NOW).split(), *late_words]
    assert manual.split()[2:] == ["0.0s", "manual", "-", "x"]


def test_times_are_understood() -> None:
    moment = Moment()
    assert moment.convert("2027-01-31T09:00:00Z", None, None) == datetime(2027, 1, 31, 9, tzinfo=UTC).timestamp()
    here = datetime(2027, 1, 31, 9).timestamp()
    assert moment.convert("2027-01-31 09:00", None, None) == here
    before = time.time()
    assert before - 3600 <= moment.convert("1h", None, None) <= time.time() - 3600
    for wrong in ("soon", "", "2027-13-01", "99999-01-01"):
        with pytest.raises(click.BadParameter, match="is no time"):
            moment.convert(wrong, None, None)


@pytest.mark.parametrize("name", ["report", "a/b/c/d", "/report", "jobs/"])
def test_what_is_no_trigger_is_told(name: str) -> None:
    done = CliRunner().invoke(trigger, ["pause", name])
    assert done.exit_code == 2
    assert "one is named APP/NAME" in done.output
