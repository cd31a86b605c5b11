"""Does a map give each result once whatever is killed under it, and does little run on where its caller is?

What ran is told by the function itself, in a file. `SWELL_KILL_SEED` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from private_swell import PrivateSwell, unstarted_swell, wait_until
from swell.sdk.mapping import QUEUED_MIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INPUTS = 600
BACK_S = 60.0
"""How long what was killed may take to be there again."""
END_S = 180.0

PROGRAM = """
import os, time
import swell

app = swell.App("mapped")

@app.function()
@swell.concurrent(max_inputs=4)
def double(x):
    with open({file!r}, "a") as file:
        file.write(f"{{x}} {{os.getpid()}}\\n")
    time.sleep(0.02)
    return 2 * x
"""

CALLER = """
import itertools, sys, swell
inputs = range(int(sys.argv[1])) if sys.argv[1:] else itertools.count()
for result in swell.Function.from_name("mapped", "double").map(inputs):
    print(result, flush=True)
"""


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[tuple[PrivateSwell, Path]]:
    """A server with the function, and the file in which that tells what it does."""
    script, file = tmp_path / "mapped.py", tmp_path / "told"
    file.touch()
    script.write_text(PROGRAM.format(file=str(file)))
    with unstarted_swell() as swell:
        swell.environ["SWELL_RESTARTS_WITHIN_S"] = "1"
        swell.run("up", "-d")
        swell.run("deploy", str(script))
        yield swell, file
        swell.run("down")


def begun(swell: PrivateSwell, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, *words],
        env={**os.environ, **swell.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_map_gives_each_result_once_whatever_is_killed(mapped: tuple[PrivateSwell, Path]) -> None:
    swell, file = mapped
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    chance = random.Random(seed)
    caller = begun(swell, str(INPUTS))
    for victim in ("control", "replica", "gateway", "runner", "control"):
        done = len(file.read_text().splitlines())
        wait_until("some more ran", lambda done=done: len(file.read_text().splitlines()) > done, wait_s=BACK_S)
        time.sleep(chance.uniform(0.0, 0.1))
        pid = swell.server(victim) if victim != "replica" else int(file.read_text().split()[-1])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    out, errors = caller.communicate(timeout=END_S)
    assert caller.returncode == 0, errors
    assert [int(line) for line in out.split()] == [2 * x for x in range(INPUTS)]
    ran = Counter(int(line.split()[0]) for line in file.read_text().splitlines())
    assert set(ran) == set(range(INPUTS))
    # What was running where something was killed ran once more; all else once.
    assert sum(ran.values()) < 1.5 * INPUTS
    # Its last answers alone may still be there: it ended before it had said that it has them.
    assert len(json.loads(swell.run("calls", "list", "mapped", "-n", "1000", "--json"))) < INPUTS // 2


def test_where_the_caller_is_killed_no_more_runs_than_was_accepted(mapped: tuple[PrivateSwell, Path]) -> None:
    swell, file = mapped
    caller = begun(swell)
    assert caller.stdout is not None
    had = [int(caller.stdout.readline()) for _ in range(20)]
    caller.kill()
    rest, _ = caller.communicate()
    given = len(had) + len(rest.split())

    def idle() -> bool:
        return not any(swell.get(f"/api/calls?app=mapped&state={state}") for state in ("queued", "leased"))

    wait_until("what was accepted is done", idle, wait_s=END_S)
    assert len(set(file.read_text().splitlines())) <= QUEUED_MIN + 2 * (given + 1)
