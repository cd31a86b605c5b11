"""Has each of many threads that spawn and wait at once its own result, whatever is killed under them?

What ran is told by the function itself, in a file. `SWELL_KILL_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from private_swell import unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

THREADS = 200
EACH = 2
BACK_S = 60.0
"""How long what was killed may take to be there again."""
END_S = 180.0

PROGRAM = """
import os, time
import swell

app = swell.App("waited")

@app.function()
@swell.concurrent(max_inputs=8)
def double(x):
    with open({file!r}, "a") as file:
        file.write(f"{{x}}\\n")
    time.sleep(0.05)
    return 2 * x
"""

CALLER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import swell

threads, each = map(int, sys.argv[1:])
double = swell.Function.from_name("waited", "double")
together = threading.Barrier(threads)

def work(number):
    together.wait(60)
    return [double.spawn(x).get(timeout=150) for x in range(number * each, (number + 1) * each)]

with ThreadPoolExecutor(threads) as pool:
    print(*[result for found in pool.map(work, range(threads)) for result in found])
"""


def test_each_of_many_that_wait_has_its_own_result_whatever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    chance = random.Random(seed)
    script, file = tmp_path / "waited.py", tmp_path / "told"
    file.touch()
    script.write_text(PROGRAM.format(file=str(file)))
    with unstarted_swell() as swell:
        swell.environ["SWELL_RESTARTS_WITHIN_S"] = "1"
        swell.run("up", "-d")
        swell.run("deploy", str(script))
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, str(THREADS), str(EACH)],
            env={**os.environ, **swell.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for victim in chance.sample(("control", "gateway"), 2):

                def more(done: int = len(file.read_text().splitlines())) -> bool:
                    return len(file.read_text().splitlines()) > done or caller.poll() is not None

                wait_until("some more ran", more, wait_s=BACK_S)
                wait_until("it is there", lambda victim=victim: swell.servers(victim), wait_s=BACK_S)
                time.sleep(chance.uniform(0.0, 0.2))
                with suppress(ProcessLookupError):
                    os.kill(swell.server(victim), signal.SIGKILL)
            out, errors = caller.communicate(timeout=END_S)
        finally:
            caller.kill()
            caller.wait()
        assert caller.returncode == 0, errors
        assert [int(word) for word in out.split()] == [2 * x for x in range(THREADS * EACH)]
        ran = Counter(map(int, file.read_text().split()))
        assert set(ran) == set(range(THREADS * EACH))
        assert sum(ran.values()) == THREADS * EACH, "none was accepted twice, and no replica died"
        swell.run("down")
