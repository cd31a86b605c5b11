"""Does the demo do what it says, and would the same decisions be made again? One run each way, and its log."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from journey.journal import actions, world_log
from swell.model.events import Event, PlanCommitted
from swell.model.plan import Start, Stop
from swell.sim.replay import replay

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
WAIT_S = 840

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Told(NamedTuple):
    """One run of the demo, as `make demo` starts it: what it printed, and the world log of its platform."""

    templates: bool
    text: str
    log: list[Event]


@pytest.fixture(scope="module", params=[True, False], ids=["templates", "no_templates"])
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    environ = {**os.environ, "SWELL_TEMPLATES": "1" if request.param else "0"}
    # Short, since the paths of unix sockets below it may not be long.
    with tempfile.TemporaryDirectory(prefix="sw", dir="/tmp") as home:
        words = [sys.executable, DEMO, "--home", home]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Told(request.param, done.stdout, world_log(Path(home)))


def test_everything_happens_as_promised(told: Told) -> None:
    for promised in ("at zero", "from zero", "Flat white", "its own work costs", "Everything happened as promised"):
        assert promised in told.text
    assert max(map(len, told.text.splitlines())) <= 80
    assert ("from parked" in told.text) == told.templates


def test_it_shows_who_runs_and_where_the_time_went(told: Told) -> None:
    servers, story = told.text.split("deploy ", 1)
    assert len(re.findall(r"pid \d+, running since \d\d:\d\d:\d\d", servers)) == 4
    assert len(re.findall(r"only a template: pid \d+, since \d\d:\d\d:\d\d", story)) == told.templates
    for phase in ("held", "connect", "run", "send", "total", "at the client"):
        assert len(re.findall(rf"^ +{phase} +\d+\.\d ms ", story, re.MULTILINE)) == 2, phase


def test_its_log_has_what_it_showed(told: Told) -> None:
    """Two wakes, and all that was started given back because nobody called."""
    starts = [action for action in actions(told.log) if isinstance(action, Start)]
    stops = [action for action in actions(told.log) if isinstance(action, Stop)]
    parked = [start.replica for start in starts if start.role == "template"]
    woken = [start for start in starts if start.role == "serving"]
    assert len(parked) == told.templates
    assert [start.template for start in woken] == [parked[0] if told.templates else None] * 2
    assert [stop.replica for stop in stops] == [*(start.replica for start in woken), *parked]
    assert {stop.reason for stop in stops} == {"idle"}


def test_its_log_replayed_gives_the_same_plans(told: Told) -> None:
    plans = [at for at, event in enumerate(told.log) if isinstance(event, PlanCommitted)]
    again = replay(told.log)
    assert again.plans == len(plans) > 0
    assert again.differences == ()


def test_an_action_that_was_not_decided_is_noticed_in_its_log(told: Told) -> None:
    for at, event in enumerate(told.log):
        if isinstance(event, PlanCommitted) and event.plan.actions:
            fewer = msgspec.structs.replace(event.plan, actions=event.plan.actions[:-1])
            other = [*told.log[:at], msgspec.structs.replace(event, plan=fewer)]
            (difference,) = replay(other).differences
            assert (difference.recorded, difference.replayed) == (fewer, event.plan)


READER = """
import swell

app = swell.App("ocr")

@app.cls(scaledown_window=WINDOW_S, min_containers=KEPT)
class Reader:
    @swell.method()
    def read(self, image: bytes) -> list[str]:
        return ["Flat white", "Almond cake", "11.70", TEXT]
"""
RIGHT = "'26.60'"
BAD = {
    "what does not import": ("import nowhere\n", "1", "0", RIGHT, "No module named 'nowhere'"),
    "a process at zero": (
        "import subprocess\nsubprocess.Popen(['sleep', '30'], start_new_session=True)\n",
        *("1", "0", RIGHT),
        r"(processes that were not there before the deploy: |`swell ps` lists \d+, and there is .*, )\d+ \(sleep 30\)",
    ),
    "a replica at zero": ("", "1", "1", RIGHT, "nothing was called, yet `swell ps` lists|found a warm replica"),
    "another text": ("", "1", "0", "'26.61'", r"the answer lacks \['26\.60'\]"),
    "one that stays": ("", "600", "0", RIGHT, "a template and nothing else: not after 15 s"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_happen_is_said_and_ends_it_with_code_1(bad: str, tmp_path: Path) -> None:
    """The same story over another reader."""
    before, window_s, kept, text, said = BAD[bad]
    here = tmp_path / "examples"
    here.mkdir()
    (tmp_path / "tests").symlink_to(DEMO.parents[1] / "tests")
    shutil.copy(DEMO.with_name("receipt.png"), here)
    patient = DEMO.read_text()
    assert "\nWAIT_S = 120.0\n" in patient
    (here / "demo.py").write_text(patient.replace("\nWAIT_S = 120.0\n", "\nWAIT_S = 15.0\n"))
    source = READER.replace("WINDOW_S", window_s).replace("KEPT", kept).replace("TEXT", text)
    (here / "ocr.py").write_text(before + source)
    done = subprocess.run([sys.executable, here / "demo.py"], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"It did not go as promised: (.|\n)*({said})", done.stdout), done.stdout
    assert "Everything happened as promised" not in done.stdout
    for left in re.findall(r"(\d+) \(sleep 30\)", done.stdout):
        with suppress(ProcessLookupError):
            os.kill(int(left), signal.SIGKILL)
