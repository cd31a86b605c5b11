"""Does every call that was accepted have its one result, whatever is killed meanwhile?

What ran and how often is told by the functions themselves, in a file. `SWELL_KILL_SEED` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from census import supervisor

from private_swell import Answer, Failed, PrivateSwell, exchange, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow]

CALLS = 400
SLOTS = 4
CLIENTS = 8
BACK_S = 60.0
"""How long what was killed may take to be there again."""
END_S = 180.0

PROGRAM = """
import os, time
import swell

app = swell.App("later")

def told(words):
    with open({file!r}, "a") as file:
        file.write(words + "\\n")

@app.function()
@swell.concurrent(max_inputs={slots})
def double(x):
    told(f"{{x}} {{os.getpid()}}")
    time.sleep(0.05)
    return 2 * x

@app.function(retries=swell.Retries(max_retries=2, initial_delay=0.01, backoff_coefficient=1.0))
def third_time(x):
    told(f"third {{x}}")
    if open({file!r}).read().count(f"third {{x}}\\n") < 3:
        raise ValueError("not yet")
    return x

@app.function()
def never(x):
    raise KeyError(x)

@app.function(timeout=600)
def held(x):
    told(f"held {{x}} {{os.getpid()}}")
    while not os.path.exists({file!r} + f".{{x}}"):
        time.sleep(0.02)
    return x

@app.function(timeout=1)
def endless():
    told("begun")
    while True:
        time.sleep(0.1)
"""


class Caller:
    """Asks, and asks again where it was not answered."""

    def __init__(self, swell: PrivateSwell) -> None:
        self.swell = swell
        self.key = (swell.home / "key").read_text().strip()

    def ask(self, method: str, path: str, body: object = None, **more: str) -> Answer:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        until = time.monotonic() + END_S
        while True:
            connection = HTTPConnection("127.0.0.1", self.swell.port, timeout=90.0)
            with suppress(OSError, HTTPException):
                answer = exchange(connection, method, path, b"" if body is None else json.dumps(body).encode(), headers)
                connection.close()
                own = "swell-call-state" in answer.headers
                if own or answer.status not in (502, 503):
                    return answer
            assert time.monotonic() < until, "nobody answered in time"
            time.sleep(0.05)

    def spawn(self, function: str, *arguments: object, **more: str) -> str:
        """The id of a call that is accepted once, however often that is asked for."""
        key = uuid.uuid4().hex
        more = {"Swell_Async": "true", "Idempotency_Key": key, **more}
        answer = self.ask("POST", f"/call/later/{function}", list(arguments), **more)
        assert answer.status == 202, answer.body
        return str(answer.value["id"])

    def result(self, id: str) -> Answer:
        """What came of it."""
        until = time.monotonic() + END_S
        while True:
            answer = self.ask("GET", f"/calls/{id}/result?wait_s=10")
            if answer.status != 202:
                return answer
            assert time.monotonic() < until, f"{id} does not end: {answer.body!r}"

    def row(self, id: str) -> dict[str, object]:
        found: dict[str, object] = self.ask("GET", f"/calls/{id}").value
        return found


@pytest.fixture
def later(tmp_path: Path) -> Iterator[tuple[PrivateSwell, Path]]:
    """A server with these functions, and the file in which they tell what they do."""
    script, file = tmp_path / "later.py", tmp_path / "told"
    file.touch()
    script.write_text(PROGRAM.format(file=str(file), slots=SLOTS))
    with unstarted_swell() as swell:
        swell.environ["SWELL_RESTARTS_WITHIN_S"] = "1"
        up(swell)
        swell.run("deploy", str(script))
        yield swell, file
        swell.run("down")


def up(swell: PrivateSwell) -> None:
    """What is left of it waits for it for longer than any stall of the machine."""
    swell.run("up", "-d", "--set", "orphan_s=60")


@pytest.mark.timeout(600)
def test_every_accepted_call_has_one_result_whatever_is_killed(later: tuple[PrivateSwell, Path]) -> None:
    swell, file = later
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    chance, caller = random.Random(seed), Caller(swell)
    with ThreadPoolExecutor(CLIENTS) as clients:
        accepting = [clients.submit(caller.spawn, "double", x) for x in range(CALLS)]
        for victim in ("control", "runner", "replica", "control", "runner", "control"):
            # Or all of them: how many run between two kills is the machine's business.
            enough = min(len(file.read_text().splitlines()) + 1, CALLS)
            wait_until("more ran", lambda n=enough: len(file.read_text().splitlines()) >= n, wait_s=BACK_S)
            time.sleep(chance.uniform(0.0, 0.2))
            pid = swell.server(victim) if victim != "replica" else int(file.read_text().split()[-1])
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ids = [each.result(END_S) for each in accepting]
        assert len(set(ids)) == CALLS
        answers = list(clients.map(caller.result, ids))
    assert [(answer.status, answer.value) for answer in answers] == [(200, 2 * x) for x in range(CALLS)]
    ran = Counter(int(line.split()[0]) for line in file.read_text().splitlines())
    assert set(ran) == set(range(CALLS))
    # What was running in the replica that was killed ran once more; all else once.
    assert sum(ran.values()) - CALLS <= SLOTS
    rows = caller.ask("GET", "/api/calls?app=later&limit=1000").value
    assert Counter(row["state"] for row in rows) == {"done": CALLS}


@pytest.mark.timeout(600)
def test_a_call_that_runs_goes_on_whatever_but_its_replica_is_killed(later: tuple[PrivateSwell, Path]) -> None:
    swell, file = later
    caller = Caller(swell)
    everything = ("control", "gateway", "runner")
    for number, victims in enumerate((("runner",), ("runner", "control"), ("supervisor", *everything))):
        id = caller.spawn("held", number)
        wait_until("it runs", lambda number=number: f"held {number} " in file.read_text(), wait_s=BACK_S)
        killed = [supervisor(swell) if victim == "supervisor" else swell.server(victim) for victim in victims]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if "supervisor" in victims:
            up(swell)
        # It ends before there is another runner, or after.
        if number:
            wait_until("another runner", lambda killed=killed: has_runner_beside(swell, killed), wait_s=BACK_S)
        file.with_name(f"{file.name}.{number}").touch()
        assert (caller.result(id).status, caller.result(id).value) == (200, number)
        assert caller.row(id)["attempts"] == 1
        assert file.read_text().count(f"held {number} ") == 1


def has_runner_beside(swell: PrivateSwell, killed: list[int]) -> bool:
    try:
        return swell.server("runner") not in killed
    except Failed:
        return False


@pytest.mark.timeout(600)
def test_a_call_is_tried_again_put_off_cancelled_and_kept_when_it_failed(later: tuple[PrivateSwell, Path]) -> None:
    swell, file = later
    caller = Caller(swell)
    third, never = caller.spawn("third_time", 7), caller.spawn("never", 1)
    endless, put_off = caller.spawn("endless"), caller.spawn("double", 1, Swell_Delay="3600")
    unwanted = caller.spawn("endless")
    assert caller.result(third).value == 7
    assert caller.row(third)["attempts"] == 3
    dead = caller.result(never)
    assert (dead.status, dead.error["code"]) == (500, "exception")
    assert caller.row(never)["state"] == "failed"
    assert caller.ask("POST", f"/api/calls/{never}/retry").value["state"] in ("queued", "leased")
    assert caller.result(never).error["code"] == "exception"
    assert caller.ask("DELETE", f"/calls/{unwanted}").value["state"] == "cancelled"
    assert caller.result(unwanted).error["code"] == "cancelled"
    late = caller.result(endless)
    assert (late.status, late.error["code"]) == (504, "deadline")
    assert caller.row(put_off)["state"] == "queued"
    assert caller.ask("DELETE", f"/calls/{put_off}").value["state"] == "cancelled"
    assert "1 " not in file.read_text()


@pytest.mark.timeout(600)
def test_calls_of_an_app_that_is_stopped_wait_until_it_is_deployed_again(
    later: tuple[PrivateSwell, Path], tmp_path: Path
) -> None:
    swell, _ = later
    caller = Caller(swell)
    # Once more with a longer delay, where stopping it was not over by then.
    for delay_s in (3, 15, 60):
        ids = [caller.spawn("double", x, Swell_Delay=str(delay_s)) for x in range(3)]
        swell.run("app", "stop", "later")
        due_at = [float(str(caller.row(id)["due_at"])) for id in ids]
        if time.time() < min(due_at):
            break
        swell.run("deploy", str(tmp_path / "later.py"))
    wait_until("all are due", lambda: time.time() > max(due_at))
    assert {caller.row(id)["state"] for id in ids} == {"queued"}
    swell.run("down")
    swell.run("up", "-d")
    swell.run("deploy", str(tmp_path / "later.py"))
    assert [caller.result(id).value for id in ids] == [0, 2, 4]
