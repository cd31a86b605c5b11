"""Does a function that has a schedule run by itself, once for each due time, whatever is killed meanwhile?"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until
from swell.model.schedule import UNITS

pytestmark = [pytest.mark.slow]

PROGRAM = """
import swell

app = swell.App("timed")

@app.function(schedule=swell.Period(seconds=1, missed="all"))
def often():
    return {1, 2}

@app.function(schedule=swell.Cron("30 9 * * *", "Asia/Kathmandu", missed="skip"))
def daily(day="today"):
    return day
"""
EACH = "\n".join(f"@app.function(schedule=swell.Period({unit}=7))\ndef in_{unit}():\n    pass\n" for unit in UNITS)
KILLS = 3
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("timed") / "timed.py"
    file.write_text(PROGRAM + EACH)
    with unstarted_swell() as swell:
        swell.run("up", "-d")
        swell.run("deploy", str(file))
        yield swell


def asked(swell: PrivateSwell, path: str) -> Any:
    """What a path answers; asked again while control is away."""
    answers: list[Any] = []

    def answered() -> bool:
        with suppress(Failed):
            answers.append(swell.get(path))
        return bool(answers)

    wait_until(path, answered, pause_s=0.1)
    return answers[-1]


def firings(swell: PrivateSwell, name: str) -> list[dict[str, Any]]:
    app, _, trigger = name.partition("/")
    path = f"/api/apps/default/{app}/triggers/{trigger}/firings?limit=1000"
    found: list[dict[str, Any]] = asked(swell, path)
    return found


@pytest.mark.shows("App.function", "schedule")
def test_whatever_dies_each_due_time_has_its_one_call(there: PrivateSwell) -> None:
    seed = int(os.environ.get("SWELL_KILL_SEED", "0")) or random.randrange(1 << 30)
    chance = random.Random(seed)
    wait_until("it fires", lambda: firings(there, "timed/often"))
    for _ in range(KILLS):
        before = len(firings(there, "timed/often"))
        wait_until("it fires", lambda before=before: len(firings(there, "timed/often")) > before)
        server = chance.choice(["control", "control", "gateway", "runner"])
        old = there.server(server)
        os.kill(old, signal.SIGKILL)
        anew = partial(there.servers, server)
        wait_until(f"another {server} (seed {seed})", lambda anew=anew, old=old: anew() not in ([], [old]))
    count = len(firings(there, "timed/often"))
    wait_until("it goes on", lambda: len(firings(there, "timed/often")) > count + 2)
    there.run("trigger", "pause", "timed/often")
    wait_until("all ran", lambda: {each["state"] for each in firings(there, "timed/often")} == {"done"})
    found = firings(there, "timed/often")
    due = [round(each["due_at"] - found[-1]["due_at"]) for each in found][::-1]
    assert due == list(range(len(due))), f"seed {seed}"
    calls = {each["call"] for each in found}
    assert len(calls) == len(found)
    made = json.loads(there.run("calls", "list", "timed", "-n", "1000", "--json"))
    assert {each["id"] for each in made if each["function"] == "often"} == calls
    # JSON has no sets.
    assert sorted(json.loads(there.run("calls", "show", found[0]["call"], "--json"))["result"]) == [1, 2]


@pytest.mark.shows("Cron", "cron_string", "timezone", "missed")
@pytest.mark.shows("Period", *UNITS, "missed")
def test_each_is_due_when_its_schedule_says(there: PrivateSwell) -> None:
    rows = {row["name"]: row for row in json.loads(there.run("trigger", "list", "timed", "--json"))}
    assert (rows["often"]["missed"], rows["daily"]["missed"], rows["in_days"]["missed"]) == ("all", "skip", "once")
    # There it is 5:45 later than in UTC.
    assert rows["daily"]["next_at"] % DAY_S == 3 * HOUR_S + 45 * 60
    lengths = {name: rows[f"in_{name}"]["next_at"] - rows[f"in_{name}"]["began_at"] for name in UNITS[2:-1]}
    assert lengths == {"weeks": 49 * DAY_S, "days": 7 * DAY_S, "hours": 7 * HOUR_S, "minutes": 420.0}
    days = {name: (rows[f"in_{name}"]["next_at"] - rows[f"in_{name}"]["began_at"]) / DAY_S for name in UNITS[:2]}
    assert 7 * 365 <= round(days["years"]) <= 7 * 365 + 2
    assert 212 <= round(days["months"]) <= 215
    seventh = (rows["in_seconds"]["next_at"] - rows["in_seconds"]["began_at"]) / 7
    assert seventh == pytest.approx(round(seventh), abs=1e-6)


def test_a_program_that_runs_has_no_triggers(tmp_path: Path, there: PrivateSwell) -> None:
    file = tmp_path / "once.py"
    main = "\n@app.local_entrypoint()\ndef main():\n    daily.remote()\n"
    file.write_text(PROGRAM.replace('"timed"', '"once"') + main)
    there.run("run", str(file))
    assert json.loads(there.run("calls", "list", "once", "--json")) == []
