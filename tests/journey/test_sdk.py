"""Does a program written for Modal do here what it does there?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from journey.callers import APPS, call, command
from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = APPS / "plain.py"


def run(swell: PrivateSwell, entry: str, *flags: str) -> Any:
    """What an entry point of the program showed."""
    said = command(swell, "run", f"{PROGRAM}::{entry}", *flags)
    assert said.code == 0, said.err
    # What it printed last; only lines of replicas that end come after it.
    return json.loads([line for line in said.out.splitlines() if not line.startswith("Counter | ")][-1])


@pytest.mark.shows("Image.env", "vars")
def test_calls(own_swell: PrivateSwell) -> None:
    assert run(own_swell, "calls", "--n", "4", "--name", "Ada", "--loud", "--ratio", "0.25") == {
        "flags": [4, "Ada", True, 0.25],
        "remote": 16,
        "local": 16,
        "keyword": 16,
        "inner": 16 + 14,
        "remote_gen": [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}],
        "remote_gen_async": [0, 1, 2, 3],
        "methods": [1, 5],
        "method_gen": [5, 6],
        "packaged": "hello 3.0 MB",
    }
    assert run(own_swell, "calls")["flags"] == [3, "nobody", False, 0.5]


def test_flags_have_their_types(own_swell: PrivateSwell) -> None:
    said = command(own_swell, "run", f"{PROGRAM}::calls", "--n", "many")
    assert said.code == 2
    assert "--n" in said.err
    said = command(own_swell, "run", f"{PROGRAM}::calls", "--help")
    assert all(flag in said.out for flag in ("--n", "--name", "--loud", "--ratio"))


def test_maps(own_swell: PrivateSwell) -> None:
    assert run(own_swell, "maps") == {
        "map": [n * n for n in range(30)],
        "unordered": [n * n for n in range(10)],
        "two": [8, 9],
        "kwargs": [2, 3],
        "starmap": [32, 9],
        "kept": [0, "TooOdd", 2],
    }


def test_asyncio_forms(own_swell: PrivateSwell) -> None:
    assert run(own_swell, "aios") == {
        "remote": 16,
        "gathered": [0, 1, 4, 9, 16],
        "remote_gen": [0, 1, 2],
        "map": [1, 4, 9],
        "starmap": [8],
        "method": 5,
    }


@pytest.mark.shows("App.function", "retries")
def test_failures_and_what_is_not_there_yet(own_swell: PrivateSwell) -> None:
    found = run(own_swell, "failures")
    assert (found["itself"], found["in_map"], found["retried"], found["gave_up"]) == (7, 3, 3, "try 3")
    assert (found["spawned"], found["spawned_map"], found["in_a_call"]) == ([9, 16], [9, 16], 7)
    assert "Sandboxes are not available yet" in found["sandbox"]


def test_what_failed_in_a_replica_shows_its_line(own_swell: PrivateSwell) -> None:
    found = run(own_swell, "tracebacks")
    assert (found["call"]["grade"], found["stream"]["grade"]) == (3, 2)
    for text in (found["call"]["text"], found["stream"]["text"], found["kept"]):
        there, here = text.split("The above exception was the direct cause")
        assert there.startswith("swell.RemoteTraceback: in a replica\nTraceback (most recent call last):\n")
        assert 'File "plain.py", line' in there
        assert '    raise Sour(grade, fruit="lemon")' in there
        assert "swell why " in here.splitlines()[-1]
        assert "bundles" not in there
        assert "swell/" not in there.replace(str(PROGRAM), "")


def test_logs_name_files_as_their_author_does(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(PROGRAM))
    assert call(own_swell, "plain/taste", {"grade": 1}).status == 500
    wait_until("the traceback", lambda: "raise Sour" in command(own_swell, "logs", "plain", "--tail", "-1").out, 30)
    logged = command(own_swell, "logs", "plain", "--tail", "-1").out
    assert 'File "plain.py", line' in logged
    assert str(own_swell.home) not in logged
    own_swell.run("app", "stop", "plain")


def test_arrays_go_there_and_back(own_swell: PrivateSwell) -> None:
    assert run(own_swell, "arrays") == {"type": "ndarray", "dtype": "float32", "values": [0.6, 0.8]}


def test_exit_hooks_run(own_swell: PrivateSwell) -> None:
    own_swell.run("deploy", str(PROGRAM))
    assert call(own_swell, "plain/Counter.add", {"step": 5}).value[0] == 5
    own_swell.run("app", "stop", "plain")
    wait_until(
        "its last words", lambda: "counter leaves at 5" in command(own_swell, "logs", "plain", "--tail", "-1").out, 30
    )


FROM_OUTSIDE = """
import asyncio, json, tempfile
import swell as modal

square = modal.Function.from_name("plain", "square")
Counter = modal.Cls.from_name("plain", "Counter")
even = modal.Function.from_name("plain", "even")
flaky = modal.Function.from_name("plain", "flaky")
folder = tempfile.mkdtemp()

def told(call):
    try:
        call()
    except modal.Error as error:
        return str(error)

try:
    even.remote(1)
    refused = None
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
try:
    modal.Function.from_name("plain", "sqare").remote(1)
except modal.Error as error:
    unknown = str(error)
print(json.dumps({
    "remote": square.remote(9),
    "map": list(square.map([1, 2])),
    "aio": asyncio.run(square.remote.aio(3)),
    "method": Counter().add.remote(2)[0],
    "generated": list(modal.Function.from_name("plain", "count").remote_gen(2)),
    "refused": refused,
    "unknown": unknown,
    "retried": [flaky.remote(f"{folder}/a", 2), asyncio.run(flaky.remote.aio(f"{folder}/b", 2))],
    "in_map": list(flaky.map([f"{folder}/c"], [1])),
    "of_a_generator": told(lambda: modal.Function.from_name("plain", "count").remote(2)),
    "of_none": told(lambda: list(Counter().add.remote_gen(2))),
}))
"""


def test_a_deployed_app_is_called_from_another_program(own_swell: PrivateSwell, tmp_path: Path) -> None:
    own_swell.run("deploy", str(PROGRAM))
    file = tmp_path / "outside.py"
    file.write_text(FROM_OUTSIDE)
    done = subprocess.run(
        [sys.executable, str(file)], env=own_swell.environ, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["remote"], found["map"], found["aio"], found["method"]) == (81, [1, 4], 9, 2)
    assert found["generated"] == [{"n": 0}, {"n": 1}]
    assert "TooOdd" in found["refused"]
    assert "square" in found["unknown"]
    assert (found["retried"], found["in_map"]) == ([3, 3], [2])
    assert found["of_a_generator"] == "count is a generator: use .remote_gen()."
    assert found["of_none"] == "Counter.add is not a generator: use .remote()."
    own_swell.run("app", "stop", "plain")


def test_without_a_server_one_is_started_and_nothing_is_left() -> None:
    with unstarted_swell() as swell:
        assert run(swell, "arrays")["values"] == [0.6, 0.8]
        wait_until("no process left", lambda: not swell.processes(), wait_s=120)
        assert [path.name for path in (swell.home / "run").rglob("*") if path.is_socket()] == []
        assert command(swell, "ps").code == 1


def test_a_plain_script_runs_with_app_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with unstarted_swell() as swell:
        done = subprocess.run(
            [sys.executable, str(script)], env=swell.environ, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout) == (0, "42 True\n"), done.stderr
        wait_until("no process left", lambda: not swell.processes(), wait_s=120)


SCRIPT = """
import os
import swell as modal

app = modal.App("script")

@app.function()
def there(x):
    return x * 2, os.getpid()

if __name__ == "__main__":
    with app.run():
        value, pid = there.remote(21)
        print(value, pid != os.getpid())
"""


@pytest.mark.shows("App.function", "timeout")
def test_what_goes_wrong_is_caught_by_the_names_of_modals_api(own_swell: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "caught.py"
    program.write_text(CAUGHT)
    said = command(own_swell, "run", str(program))
    assert said.code == 0, said.err
    found = json.loads(said.out.splitlines()[-1])
    assert found["late"] == ["FunctionTimeoutError", "deadline", True]
    assert found["nowhere"] == ["NotFoundError", "unknown_app", True]
    assert found["misfit"] == ["InvalidError", "bad_arguments", True]
    assert found["gone"] == ["RemoteError", "replica_died", True]
    assert "(its process crashed: exit code 3)" in found["words"]
    assert "`swell why " in found["words"]
    assert found["unsendable"] == ["SerializationError", "bad_result", True]
    assert found["said"].startswith("There is no argument 'q'")
    assert found["as_it_is"] == "int"


CAUGHT = """
import json
import os
import threading
import time
import swell as modal

app = modal.App("caught")

@app.function(timeout=1)
def late():
    time.sleep(30)

@app.function()
def add(a: float):
    return type(a).__name__

@app.function()
def gone():
    os._exit(3)

@app.function()
def unsendable():
    return threading.Lock()

def caught(call, kind):
    try:
        call()
    except kind as error:
        assert isinstance(error, modal.Error)
        return [type(error).__name__, error.code, bool(error.request)]

@app.local_entrypoint()
def main():
    try:
        add.remote(q=1)
    except modal.exception.InvalidError as error:
        said = str(error)
    try:
        gone.remote()
    except modal.exception.RemoteError as error:
        words = str(error)
    print(json.dumps({
        "late": caught(late.remote, modal.exception.FunctionTimeoutError),
        "nowhere": caught(modal.Function.from_name("nowhere", "f").remote, modal.exception.NotFoundError),
        "misfit": caught(lambda: add.remote(q=1), modal.exception.InvalidError),
        "gone": caught(gone.remote, modal.exception.RemoteError),
        "unsendable": caught(unsendable.remote, modal.exception.SerializationError),
        "said": said,
        "words": words,
        "as_it_is": add.remote(1),
    }))
"""
