"""Is nothing of a sandbox left on the node, however it ended?"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from journey.census import left_over, walls
from private_swell import Failed, private_swell, wait_until
from swell.model.isolation import LAYERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEFT = """
import os, swell
app = swell.App("left", secrets=[swell.Secret.from_dict({{"TOKEN": "brought-1"}})])
data = swell.Volume.from_name("data", create_if_missing=True)

@app.function({volumes})
@swell.isolated(optional={optional})
def who() -> int:
    return os.getpid()
"""


@pytest.mark.parametrize("way", ["down", "killed"])
def test_nothing_is_left_of_a_sandbox(tmp_path: Path, way: str) -> None:
    """Not after a `down`, be it that the runner was killed before and another took over; nor of those that nobody ended
    in order, once there was a next server."""
    program = tmp_path / "left.py"
    with private_swell() as swell:
        for volumes in ('volumes={"/data": data}', ""):
            program.write_text(LEFT.format(volumes=volumes, optional=sorted(LAYERS)))
            try:
                swell.run("deploy", str(program))
                break
            except Failed as error:
                # Where nobody can mount, volumes are refused.
                if not volumes or "volume" not in str(error):
                    raise
        with swell.connect() as client:
            client.call("left/who")
        runner = swell.server("runner")
        pids = {one["id"]: one["pid"] for one in swell.replicas()}
        had = walls(swell)
        assert bool(had) == any("sandbox: mount" in words for one in swell.replicas() for words in one["applied"])
        if way == "down":
            os.kill(runner, 9)
            wait_until("there is another runner", lambda: {*swell.servers("runner")} - {runner})
            wait_until(
                "it took the sandboxed ones over",
                lambda: {one["id"]: one["pid"] for one in swell.replicas() if one["phase"] == "ready"} == pids,
            )
            with swell.connect() as client:
                client.call("left/who")
        else:
            for one in reversed(swell.processes()):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, 9)
            wait_until("nobody lives", lambda: not swell.processes())
            swell.run("up", "-d")
        assert str(swell.home) not in Path("/proc/self/mounts").read_text()
        had |= walls(swell)
        seen = {line.partition(" ")[0] for line in left_over(swell, had)}
        assert seen >= ({"process", "socket", "namespace", "mount"} if had and way == "down" else {"process"})
        swell.run("down")
        wait_until("nothing is left", lambda: not left_over(swell, had), wait_s=120)
