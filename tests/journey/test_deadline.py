"""Does work stop when nobody waits for it any more? Counted outside, in a file every step is written to."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from journey.callers import APPS, call, command, events, why
from private_swell import Answer, PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KINDS = ["loop", "wait", "generate", "generate_async"]
STREAMED = KINDS[2:]
QUIET_S = 1.0
"""Work that takes no step for so long has stopped: they take one every few milliseconds."""
LIMIT_S = 2.0
"""The functions' own timeout. In the app `patient` it is longer than any test waits."""


@pytest.fixture(scope="module")
def endless(own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> PrivateSwell:
    program = (APPS / "endless.py").read_text()
    patient = tmp_path_factory.mktemp("patient") / "patient.py"
    patient.write_text(program.replace('"endless"', '"patient"').replace("LIMIT_S = 2\n", "LIMIT_S = 600\n"))
    file = tmp_path_factory.mktemp("warm") / "steps"
    for source in (APPS / "endless.py", patient):
        own_swell.run("deploy", str(source))
        for kind in KINDS:
            reply = call(own_swell, f"{source.stem}/{kind}", {"file": str(file), "turns": 1}, swell_timeout="60")
            assert reply.status == 200, reply.body
    return own_swell


def steps(file: Path) -> list[str]:
    """The request that each step was for."""
    return file.read_text().splitlines() if file.exists() else []


def leave(swell: PrivateSwell, function: str, arguments: dict[str, object], works: Callable[[], bool]) -> None:
    """Call, and hang up once it works."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=30)
    connection.request("POST", f"/call/{function}", json.dumps(arguments))
    wait_until("it works", works, wait_s=60)
    connection.close()


def assert_stopped(file: Path) -> None:
    """It worked, and takes no more steps: nothing but being stopped ends it."""

    def quiet() -> bool:
        seen = len(steps(file))
        time.sleep(QUIET_S)
        return len(steps(file)) == seen

    wait_until("no step is taken any more", quiet, wait_s=60)
    assert len(steps(file)) > 1


def assert_refused(kind: str, reply: Answer) -> None:
    """A call is answered 504; a stream that has begun ends with the same as an event. Both name the request."""
    error = events(reply.body)[-1][1]["error"] if kind in STREAMED else reply.error
    assert reply.status == (200 if kind in STREAMED else 504)
    assert (error["code"], error["request"]) == ("deadline", reply.request)
    if kind in STREAMED:
        assert events(reply.body)[-1][0] == "error"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("header", [None, "1.5"])
def test_deadline_stops_the_work(endless: PrivateSwell, tmp_path: Path, kind: str, header: str | None) -> None:
    file = tmp_path / "steps"
    began = time.time()
    headers = {"swell_timeout": header} if header else {}
    reply = call(endless, f"endless/{kind}", {"file": str(file)}, **headers)
    took_s = time.time() - began
    limit_s = float(header) if header else LIMIT_S
    assert_refused(kind, reply)
    assert limit_s <= took_s
    record = why(endless, reply.request)
    assert (record["status"], record["error"]) == (504, "deadline")
    assert_stopped(file)


QUEUED = """
import time
import swell

app = swell.App("queued")


@app.function(max_containers=1, timeout=4)
def work(x):
    time.sleep(0.7)
    return x


@app.cls(timeout=4)
class Slow:
    @swell.enter()
    def begin(self):
        time.sleep(5)

    @swell.method()
    def get(self, x):
        return x


@app.local_entrypoint()
def main():
    print(list(work.map(range(8))), Slow().get.remote(8))
"""


def test_neither_waiting_nor_a_start_takes_any_of_a_timeout(own_swell: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "queued.py"
    program.write_text(QUEUED)
    said = command(own_swell, "run", str(program))
    assert (said.code, said.out.splitlines()[-1:]) == (0, ["[0, 1, 2, 3, 4, 5, 6, 7] 8"]), said.err


def test_who_is_ended_while_a_replica_starts_is_told_that_it_was_starting(
    own_swell: PrivateSwell, tmp_path: Path
) -> None:
    program = tmp_path / "queued.py"
    program.write_text(QUEUED)
    own_swell.run("deploy", str(program))
    reply = call(own_swell, "queued/Slow.get", [1], swell_timeout="3")
    assert (reply.status, reply.error["code"]) == (504, "deadline")
    assert "waited for a free replica" in reply.error["message"]
    (_, reason) = why(own_swell, reply.request)["reasons"]
    assert "a replica was starting" in reason or "its template was being loaded" in reason


def test_calls_that_are_held_too_long_are_sent_again(tmp_path: Path) -> None:
    program = tmp_path / "queued.py"
    program.write_text(QUEUED)
    with private_swell(hold_s="0.5") as swell:
        swell.run("deploy", str(program))
        reply = call(swell, "queued/Slow.get", [1])
        assert (reply.status, reply.error["code"]) == (503, "held_too_long")
        said = command(swell, "call", "queued/Slow.get", "[5]")
        assert (said.code, said.out.strip()) == (0, "5"), said.err


@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_that_leaves_stops_the_work(endless: PrivateSwell, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "steps"
    leave(endless, f"patient/{kind}", {"file": str(file)}, lambda: len(steps(file)) > 1)
    assert_stopped(file)
    record = why(endless, steps(file)[0])
    assert record["status"] == 499


def test_code_that_blocks_the_loop_stops_with_its_replica_when_its_caller_leaves(
    endless: PrivateSwell, tmp_path: Path
) -> None:
    file = tmp_path / "steps"
    pid = call(endless, "endless/spin", {"file": str(tmp_path / "warm"), "turns": 1}).value
    leave(endless, "endless/spin", {"file": str(file)}, lambda: len(steps(file)) > 1)
    assert_stopped(file)
    wait_until("its process has ended", lambda: not alive(pid), wait_s=60)
    assert why(endless, steps(file)[0])["status"] == 499
    lines = command(endless, "logs", "endless", "--tail", "100").out
    assert "blocks the event loop" in lines
    assert 'File "endless.py", line ' in lines.split("blocks the event loop")[1]
    assert "sha256-" not in lines


def test_code_that_blocks_the_loop_beside_others_is_listed(endless: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "steps"
    pid = call(endless, "endless/block_beside", {"file": str(file)}).value
    done = len(steps(file))
    leave(endless, "endless/block_beside", {"file": str(file), "seconds": 6}, lambda: len(steps(file)) > done)
    wait_until("it is listed", lambda: "cannot be stopped" in listed(endless, pid)["why"], wait_s=60)
    # It was not ended for it: it took its last step, is listed no more, and takes others.
    wait_until("it has ended", lambda: len(steps(file)) == done + 2, wait_s=60)
    wait_until("it is listed no more", lambda: "cannot be stopped" not in listed(endless, pid)["why"], wait_s=60)
    assert call(endless, "endless/block_beside", {"file": str(file)}).value == pid


@pytest.mark.parametrize("kind", KINDS)
def test_the_replica_goes_on_serving(endless: PrivateSwell, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "steps"
    before = {one["pid"] for one in endless.serving() if one["workload"].endswith(f"endless/{kind}")}
    call(endless, f"endless/{kind}", {"file": str(file)}, swell_timeout="0.5")
    reply = call(endless, f"endless/{kind}", {"file": str(file), "turns": 1})
    assert reply.status == 200
    after = {one["pid"] for one in endless.serving() if one["workload"].endswith(f"endless/{kind}")}
    # Another one may have been started for the moment in which the first was still being stopped.
    assert before <= after


def test_what_cannot_be_stopped_ends_its_replica(endless: PrivateSwell) -> None:
    pid = call(endless, "endless/nap").value
    reply = call(endless, "endless/nap", {"seconds": 30}, swell_timeout="1")
    assert (reply.status, reply.error["code"]) == (504, "deadline")
    wait_until("its process has ended", lambda: not alive(pid), wait_s=60)
    other = call(endless, "endless/nap")
    assert other.status == 200
    assert other.value != pid
    assert why(endless, reply.request)["status"] == 504


def test_what_cannot_be_stopped_beside_others_is_listed(endless: PrivateSwell) -> None:
    pid = call(endless, "endless/nap_beside").value
    beside: list[Answer] = []
    other = threading.Thread(target=lambda: beside.append(call(endless, "endless/nap_beside", {"seconds": 6})))
    other.start()
    reply = call(endless, "endless/nap_beside", {"seconds": 30}, swell_timeout="1")
    assert reply.status == 504
    wait_until("it is listed", lambda: "cannot be stopped" in listed(endless, pid)["why"], wait_s=60)
    assert call(endless, "endless/nap_beside").value == pid
    other.join(60)
    assert [one.value for one in beside] == [pid]
    assert "1 input" in listed(endless, pid)["why"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def listed(swell: PrivateSwell, pid: int) -> dict[str, str]:
    """The row of a process, as `swell ps --json` has it."""
    return next(row for row in swell.replicas() if row["pid"] == pid)
