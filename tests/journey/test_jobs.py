"""Does training that is killed, or has to give way, in its middle end as if nothing had been?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import swell
from private_swell import PrivateSwell, unstarted_swell, wait_until
from swell.runtime.runner.capacity import cores
from swell.sdk.client import Client

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "train.py"
STEPS = 40
UP = ("--set", "cpu_overcommit=1.0")
HELD = {
    'swell.App("train")': 'swell.App("held")',
    "seconds_each: float = 0.0": "hold: int = 0",
    "time.sleep(seconds_each)": "while chief and done == hold and not swell.stopping(): time.sleep(0.01)",
}
"""What is otherwise in the program that stays at one step until something is done to it. The next attempt goes on
behind that."""

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def own_server() -> Iterator[PrivateSwell]:
    """The platform of this module, whose cores are given once; and the one that the SDK in this process talks to."""
    with unstarted_swell() as made, pytest.MonkeyPatch.context() as patch:
        made.run("up", "-d", *UP)
        patch.setenv("SWELL_URL", f"http://127.0.0.1:{made.port}")
        patch.setenv("SWELL_KEY", (made.home / "key").read_text().strip())
        yield made


@pytest.fixture(scope="module")
def held(own_server: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> swell.Function:
    """The example, but for `hold`: the step that it stays at."""
    source = EXAMPLE.read_text()
    for was, becomes in HELD.items():
        assert source.count(was) == 1
        source = source.replace(was, becomes)
    program = tmp_path_factory.mktemp("held") / "held.py"
    program.write_text(source)
    own_server.run("deploy", str(program))
    return swell.Function.from_name("held", "train")


@pytest.fixture(scope="module")
def loss(own_server: PrivateSwell) -> float:
    """What it ends with when nothing happens."""
    own_server.run("deploy", str(EXAMPLE))
    found: float = swell.Function.from_name("train", "train").remote(STEPS)
    assert 0 < found < 5, "it learned nothing"
    return found


def client() -> Client:
    return Client.from_settings()


def members(call: swell.FunctionCall) -> dict[int, int]:
    """Rank → pid, of those that work on a call."""
    leader = client().call(call.object_id).replica
    return {row.rank: row.pid for row in client().replicas() if row.gang == leader and row.rank is not None and row.pid}


def far(home: Path, call: swell.FunctionCall, steps: int) -> Callable[[], bool]:
    """It has kept so many steps."""
    checkpoint = home / "checkpoints" / call.object_id / "state.json"
    return lambda: checkpoint.exists() and json.loads(checkpoint.read_text())[0] >= steps


def begins(home: Path, call: str) -> list[tuple[int, int]]:
    """(rank, step) at which each member of each attempt began."""
    log = home / "logs" / "default" / "held.ndjson"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found = (
        re.fullmatch(r"rank (\d+) of 2 begins at step (\d+)", row["text"]) for row in lines if row["request"] == call
    )
    return [(int(each[1]), int(each[2])) for each in found if each]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_member_that_is_killed_changes_nothing_about_the_end(
    own_server: PrivateSwell, held: swell.Function, loss: float, rank: int
) -> None:
    call = held.spawn(STEPS, every=5, hold=10)
    wait_until("it is far enough", far(own_server.home, call, 10))
    os.kill(members(call)[rank], signal.SIGKILL)
    assert call.get(timeout=120) == loss
    begun = begins(own_server.home, call.object_id)
    assert begun[:2] in ([(0, 0), (1, 0)], [(1, 0), (0, 0)])
    assert len(begun) == 4
    # It went on from its checkpoint, and did not do all again.
    assert {step for _, step in begun[2:]} == {10}
    assert client().call(call.object_id).attempts == 2


def test_a_job_is_run_read_and_stopped_from_the_shell(own_server: PrivateSwell, held: swell.Function) -> None:
    target = f"{EXAMPLE}::train"
    said = own_server.run("job", "run", target, "--steps", "3", "--every", "1")
    assert {f"rank {rank} | rank {rank} of 2 begins at step 0" for rank in range(2)} <= set(said.splitlines())
    id = own_server.run("job", "run", "-d", "--priority", "5", "held/train", '{"hold": 1}').strip()
    wait_until("both work", lambda: len(begins(own_server.home, id)) == 2)
    (row,) = [row for row in json.loads(own_server.run("job", "list", "--json")) if row["id"] == id]
    assert (row["state"], row["priority"]) == ("leased", 5)
    only = own_server.run("job", "logs", id, "--rank", "1").splitlines()
    assert only == ["rank 1 | rank 1 of 2 begins at step 0"]
    assert (own_server.home / "checkpoints" / id).is_dir()
    assert f"{id} is cancelled." in own_server.run("job", "stop", id)
    assert not [row for row in client().replicas() if row.gang]


def test_who_leaves_a_job_leaves_it_running(own_server: PrivateSwell, held: swell.Function) -> None:
    argv = [sys.executable, "-m", "swell", "job", "run", "held/train", '{"hold": 1}']
    follower = subprocess.Popen(argv, env=own_server.environ, stderr=subprocess.PIPE, text=True)
    assert follower.stderr is not None
    id = follower.stderr.readline().split()[0]
    wait_until("both work", lambda: len(begins(own_server.home, id)) == 2)
    follower.send_signal(signal.SIGINT)
    said = follower.communicate(timeout=60)[1]
    assert follower.returncode == 130
    assert f"{id} goes on" in said
    assert client().call(id).state == "leased"
    own_server.run("job", "stop", id)


def test_without_the_queue_it_is_refused(own_server: PrivateSwell, held: swell.Function) -> None:
    done: Any = subprocess.run(
        [sys.executable, "-m", "swell", "call", "held/train"],
        env=own_server.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "swell job run" in done.stderr


def test_a_job_gives_way_to_one_of_a_higher_priority_and_goes_on_where_it_was(
    own_server: PrivateSwell, held: swell.Function, loss: float
) -> None:
    # It takes all the cores there are.
    call = held.with_options(cpu=cores() / 2).spawn(STEPS, every=10, hold=10)
    wait_until("it is far enough", far(own_server.home, call, 10))
    said = own_server.run("job", "run", "--priority", "10", "train/train", '{"steps": 3}')
    assert re.fullmatch(r"0\.\d+|\d+\.\d+", said.splitlines()[-1])
    assert call.get(timeout=120) == loss
    begun = begins(own_server.home, call.object_id)
    assert len(begun) == 4
    # What it had done by then it kept as it was told to end; and that was no attempt.
    assert all(step >= 10 for _, step in begun[2:])
    assert client().call(call.object_id).attempts == 1


def test_a_job_leaves_a_machine_that_goes_and_goes_on_where_it_was(
    own_server: PrivateSwell, held: swell.Function, loss: float
) -> None:
    call = held.spawn(STEPS, every=10, hold=10)
    wait_until("it is far enough", far(own_server.home, call, 10))
    assert "This machine goes at" in own_server.run("node", "leave", "--in", "1h")
    wait_until("it is seen to go", lambda: "  goes at " in own_server.run("node", "list"))
    wait_until("it waits", lambda: client().call(call.object_id).state == "queued")
    wait_until("nothing of it runs", lambda: not members(call))
    assert client().call(call.object_id).waits
    own_server.run("node", "stay")
    assert call.get(timeout=120) == loss
    begun = begins(own_server.home, call.object_id)
    assert all(step >= 10 for _, step in begun[2:])
    assert (len(begun), client().call(call.object_id).attempts) == (4, 1)


def test_a_server_that_is_stopped_and_started_goes_on_with_its_jobs(
    own_server: PrivateSwell, held: swell.Function, loss: float
) -> None:
    call = held.spawn(STEPS, every=10, hold=10)
    wait_until("it is far enough", far(own_server.home, call, 10))
    own_server.run("down")
    own_server.run("up", "-d", *UP)
    assert call.get(timeout=120) == loss
    begun = begins(own_server.home, call.object_id)
    assert {step for _, step in begun[2:]} == {10}
    assert (len(begun), client().call(call.object_id).attempts) == (4, 1)


ELASTIC = """
import os
import swell

app = swell.App("elastic")

@app.function(nodes=5, min_nodes=2, cpu=CPU)
def f():
    return os.environ["WORLD_SIZE"], len(swell.get_cluster_info().peers)
"""


def test_one_that_may_be_smaller_starts_with_as_many_as_there_is_room_for(
    own_server: PrivateSwell, tmp_path: Path
) -> None:
    program = tmp_path / "elastic.py"
    program.write_text(ELASTIC.replace("CPU", str(cores() / 3)))
    own_server.run("deploy", str(program))
    assert swell.Function.from_name("elastic", "f").remote() == ("3", 3)
    # What was a job is listed as one, whatever became of its function.
    own_server.run("app", "stop", "elastic")
    (row,) = json.loads(own_server.run("job", "list", "elastic", "--json"))
    assert (row["state"], row["function"], row["nodes"]) == ("done", "f", 5)
