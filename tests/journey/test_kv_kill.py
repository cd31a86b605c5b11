"""Control is killed again and again while several programs put and get: is anything lost, or anything given twice?

`SWELL_KILL_SEED` repeats a run; `SWELL_KV_KILLS` makes it longer. What was put, got and claimed is reconciled from what
the programs themselves say.
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
from pathlib import Path

import pytest

from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow]

KILLS = int(os.environ.get("SWELL_KV_KILLS", "8"))
PUTTERS = GETTERS = CLAIMERS = 2
BACK_S = 60.0
"""How long control may take to be there again."""

PROGRAM = """
import json, queue, sys
from pathlib import Path
import swell

role, me, stop = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
items = swell.Queue.from_name("items", create_if_missing=True)
claims = swell.Dict.from_name("claims", create_if_missing=True)
n, told = 0, []
while not stop.exists():
    if role == "put":
        lot = [[me, n], [me, n + 1]]
        items.put(lot[0])
        items.put_many(lot[1:])
        told += lot
        n += 2
    elif role == "claim":
        if claims.put(n, me, skip_if_exists=True):
            told.append(n)
        n += 1
    else:
        try:
            told += items.get_many(3, timeout=1)
        except queue.Empty:
            pass
print(json.dumps(told))
"""


def program(swell: PrivateSwell, script: Path, role: str, me: int, stop: Path) -> subprocess.Popen[str]:
    words = [sys.executable, str(script), role, str(me), str(stop)]
    return subprocess.Popen(words, env=swell.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(running: subprocess.Popen[str]) -> list[object]:
    out, err = running.communicate(timeout=BACK_S * 2)
    assert running.returncode == 0, err
    found: list[object] = json.loads(out)
    return found


@pytest.mark.timeout(300 + 90 * KILLS)
def test_nothing_acknowledged_is_lost_and_nothing_is_given_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    chance = random.Random(seed)
    script, stop_filling, stop_getting = tmp_path / "program.py", tmp_path / "full", tmp_path / "empty"
    script.write_text(PROGRAM)
    with unstarted_swell() as swell:
        swell.environ["SWELL_RESTARTS_WITHIN_S"] = "1"
        swell.run("up", "-d")
        swell.run("queue", "create", "items")
        swell.run("dict", "create", "claims")
        filling = {
            (role, me): program(swell, script, role, me, stop_filling)
            for role, count in (("put", PUTTERS), ("claim", CLAIMERS))
            for me in range(count)
        }
        getting = [program(swell, script, "get", me, stop_getting) for me in range(GETTERS)]
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 1.2))
            os.kill(swell.server("control"), signal.SIGKILL)
            wait_until("control answers", lambda: answers(swell), wait_s=BACK_S)
        time.sleep(0.5)
        stop_filling.touch()
        said = {who: told(running) for who, running in filling.items()}
        wait_until("all is got", lambda: swell.run("queue", "len", "items") == "0\n", wait_s=BACK_S)
        stop_getting.touch()
        got = Counter(tuple(item) for running in getting for item in told(running))  # type: ignore[arg-type]
        put = {tuple(item) for (role, _), items in said.items() if role == "put" for item in items}  # type: ignore[arg-type]
        assert len(put) > KILLS, "something was done between the kills"
        assert put - got.keys() == set(), "acknowledged, and never given"
        assert [item for item, times in got.items() if times > 1] == []
        assert got.keys() - put == set(), "nobody said that it was put"
        claimed = Counter(n for me in range(CLAIMERS) for n in said["claim", me])
        assert [n for n, times in claimed.items() if times > 1] == []
        held = swell.run("dict", "items", "claims", "-n", "1000000").splitlines()
        by = {int(key): int(value) for key, _, value in (line.partition(": ") for line in held)}
        assert by == {n: me for me in range(CLAIMERS) for n in said["claim", me]}, "whoever has it was told so"
        swell.run("down")


def answers(swell: PrivateSwell) -> bool:
    """Does control, with its store?"""
    with swell.connect() as client:
        return client.get("/api/queues/default/items/partitions").status == 200
