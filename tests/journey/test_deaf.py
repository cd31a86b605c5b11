"""Does a queued call that ignores its cancellation end, and nothing with it? On a real platform."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journey.callers import ask, call
from private_swell import private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import os
import time
import swell

app = swell.App("deaf")

@app.function(timeout=600)
@swell.concurrent(max_inputs=2)
def work(mark: str, gate: str = "") -> int:
    with open(mark, "w") as file:
        file.write(str(os.getpid()))
    while not gate:
        time.sleep(600)
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cancelled_call_that_goes_on_ends_with_its_replica_and_costs_its_neighbour_nothing(tmp_path: Path) -> None:
    program, one, other, gate = (tmp_path / name for name in ("deaf.py", "one", "other", "gate"))
    program.write_text(PROGRAM)
    with private_swell(stop_grace_s=2) as own:
        own.run("deploy", str(program))

        def spawned(**arguments: str) -> str:
            return str(call(own, "deaf/work", arguments, swell_async="true").value["id"])

        deaf = spawned(mark=str(one))
        wait_until("it runs", lambda: one.exists() and one.read_text(), wait_s=60)
        beside = spawned(mark=str(other), gate=str(gate))
        wait_until("the other runs beside it", lambda: other.exists() and other.read_text(), wait_s=60)
        pid = int(one.read_text())
        assert int(other.read_text()) == pid
        assert ask(own, "DELETE", f"/calls/{deaf}").value["state"] == "cancelled"

        def phases() -> dict[int, tuple[str, str]]:
            return {row["pid"]: (row["phase"], row["why"]) for row in own.serving()}

        wait_until("its replica takes nothing new", lambda: phases()[pid][0] == "draining", wait_s=60)
        assert phases()[pid][1].startswith("an input could not be stopped")
        # Others are served meanwhile, elsewhere; what runs there is let be.
        gate.touch()
        served = call(own, "deaf/work", {"mark": str(tmp_path / "new"), "gate": str(gate)})
        assert (served.status, served.value != pid) == (200, True)
        kept = ask(own, "GET", f"/calls/{beside}?wait_s=60").value
        assert (kept["state"], kept["result"], kept["attempts"]) == ("done", pid, 1)
        wait_until("its process has ended", lambda: not alive(pid), wait_s=60)
        assert ask(own, "GET", f"/calls/{deaf}").value["state"] == "cancelled"
