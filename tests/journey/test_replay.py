"""Does the planner decide what it decided, given what it was given? A live run, decided again from its log."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from journey.journal import actions, world_log
from private_swell import Failed, PrivateSwell, private_swell, wait_until
from swell.model.events import AppDeployed, Opened, PlanCommitted, ReplicaAdopted
from swell.model.plan import Start, Stop
from swell.sim.replay import replay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = """
import os, time
import swell

app = swell.App("replayed")

@app.function(scaledown_window=2, max_containers=3)
def slow(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return VERSION

@app.function(scaledown_window=2)
@swell.concurrent(max_inputs=10)
async def quick() -> int:
    return VERSION

@app.cls(scaledown_window=2)
class Counter:
    @swell.enter()
    def begin(self) -> None:
        self.calls = 0

    @swell.method()
    def add(self) -> int:
        self.calls += 1
        return self.calls
"""


def test_a_live_run_replayed_gives_the_same_plans(tmp_path: Path) -> None:
    program = tmp_path / "replayed.py"
    with private_swell(template_idle_s=4) as swell:
        deploy(swell, program, 1)
        assert call_all(swell) == {1}
        wait_until("all at zero", lambda: swell.serving() == [], wait_s=120)
        deploy(swell, program, 2)
        assert call_all(swell) == {2}
        control = swell.server("control")
        os.kill(control, signal.SIGKILL)
        wait_until("another control", lambda: another(swell, control), wait_s=120)
        assert call_all(swell) == {2}
        wait_until("all at zero, templates too", lambda: swell.replicas() == [], wait_s=60)
        swell.run("down")
        events = world_log(swell.home)
    kinds = [type(event) for event in events]
    assert kinds.count(Opened) == 2
    assert kinds.count(AppDeployed) == 2
    assert ReplicaAdopted in kinds
    assert sum(isinstance(action, Start) for action in actions(events)) >= 8
    assert sum(isinstance(action, Stop) for action in actions(events)) >= 8
    again = replay(events)
    assert again.plans == kinds.count(PlanCommitted) > 0
    assert again.differences == ()


def deploy(swell: PrivateSwell, program: Path, version: int) -> None:
    program.write_text(PROGRAM.replace("VERSION", str(version)))
    swell.run("deploy", str(program))


def call_all(swell: PrivateSwell) -> set[int]:
    """Four slow ones at once, for three replicas, and one of each other."""
    versions: list[int] = []

    def slow() -> None:
        with swell.connect() as client:
            versions.append(client.call("replayed/slow", {"seconds": 0.5}).value)

    callers = [threading.Thread(target=slow) for _ in range(4)]
    for caller in callers:
        caller.start()
    with swell.connect() as client:
        assert client.call("replayed/Counter.add").value >= 1
        versions.append(client.call("replayed/quick").value)
    for caller in callers:
        caller.join(60)
    assert len(versions) == 5
    return set(versions)


def another(swell: PrivateSwell, control: int) -> bool:
    """Does a control that is not this process answer?"""
    try:
        swell.replicas()
        return swell.server("control") != control
    except Failed:
        return False
