"""Is what a run leaves (`run -d`, `detach=True`) told of, and does it stay, with the server it is on?"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from journey.shell import begun, ended, going, launch, line
from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import json, os, pathlib, subprocess, threading, time
import swell

app = swell.App("tools")

@app.function()
def add(a: int, b: float = 1.5) -> str:
    print("adding")
    return a + b

@app.function()
def fail():
    raise ValueError("no")

@app.local_entrypoint()
def wait():
    print("waiting", flush=True)
    time.sleep(200)

@app.local_entrypoint()
def brief():
    print("over", flush=True)

@app.function()
def busy():
    time.sleep(20)

@app.local_entrypoint()
def end():
    "The server is told to end while it has to do."
    threading.Thread(target=lambda: busy.remote(), daemon=True).start()
    home = pathlib.Path(os.environ["SWELL_HOME"])
    while not any(row["in_flight"] for row in json.loads(subprocess.check_output(["swell", "ps", "--json"]))):
        time.sleep(0.1)
    subprocess.Popen(["swell", "down"])
    while '"stopping"' not in (home / "lock").read_text():
        time.sleep(0.02)

if __name__ == "__main__":
    with app.run(detach=True):
        print(add.remote(1))
"""


UNKEPT = """
import json, os, pathlib
import swell

app = swell.App("unkept")

@app.function()
def one():
    return 1

if __name__ == "__main__":
    run = pathlib.Path(os.environ["SWELL_HOME"]) / "run" / "attached"
    try:
        with app.run(detach=True):
            # Where a note would be written, there is something else.
            taken = run / f'{json.loads((run.parent.parent / "lock").read_text())["pid"]}.new'
            taken.mkdir()
    except swell.Error as error:
        print(f"{error.code}: {error.message.partition(' be told')[0][-9:]}")
    finally:
        taken.rmdir()
"""


@pytest.fixture
def alone() -> Iterator[PrivateSwell]:
    """No server."""
    with unstarted_swell() as swell:
        yield swell


@pytest.fixture
def tools(tmp_path: Path) -> str:
    path = tmp_path / "tools.py"
    path.write_text(PROGRAM)
    return str(path)


def run_python(swell: PrivateSwell, file: str) -> tuple[int, str]:
    with begun([sys.executable, file], swell) as program:
        return ended(program)


def told(said: str) -> list[str]:
    """The apps that are said to be left."""
    return re.findall(r"`swell app stop (\S+)` ends it", said)


def listed(swell: PrivateSwell) -> list[str]:
    """The apps that are there."""
    return [row["name"] for row in json.loads(swell.run("app", "list", "--json"))]


def lock(swell: PrivateSwell) -> dict[str, object]:
    """What the server says of itself; nothing where there is none."""
    text = (swell.home / "lock").read_text() if (swell.home / "lock").exists() else ""
    found: dict[str, object] = json.loads(text or "{}")
    return found


def test_an_app_that_is_left_is_named_and_its_server_stays(alone: PrivateSwell, tools: str) -> None:
    code, said = ended(launch(alone, "run", "-d", f"{tools}::add", "--a", "1"))
    assert code == 0, said
    assert told(said) == listed(alone)
    assert "`swell down` ends it" in said
    wait_until("a server for whoever comes", lambda: lock(alone)["attached"] is False, wait_s=120)
    # It does not end with the next run, and that one does not say so.
    code, said = ended(launch(alone, "run", f"{tools}::fail"))
    assert code == 1
    assert "`swell why" in said
    assert "brings back" not in said
    # It is no longer anybody's in particular; so `swell down` is not told of once more.
    code, said = ended(launch(alone, "run", "-d", f"{tools}::add", "--a", "2"))
    assert len(told(said)) == 1
    assert "swell down" not in said
    assert len(listed(alone)) == 2


def test_an_app_is_left_also_on_the_server_of_another_run_and_on_another_port(alone: PrivateSwell, tools: str) -> None:
    with socket.create_server(("127.0.0.1", alone.port)), going(alone, "run", f"{tools}::wait") as other:
        assert line(other) == "waiting\n"
        code, said = ended(launch(alone, "run", "-d", f"{tools}::add", "--a", "1"))
        assert code == 0, said
        other.send_signal(signal.SIGINT)
        other.communicate(timeout=60)
        assert told(said) == listed(alone) != []


def test_an_app_is_named_also_where_its_result_cannot_be_shown(alone: PrivateSwell, tools: str) -> None:
    with going(alone, "run", "-d", f"{tools}::add", "--a", "1") as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        said = running.stderr.read()
        running.wait(timeout=60)
    assert told(said) == listed(alone) != []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_app_is_named_or_gone_when_the_end_is_interrupted(
    alone: PrivateSwell, tools: str, number: signal.Signals
) -> None:
    with going(alone, "run", "-d", f"{tools}::brief") as running:
        assert line(running) == "over\n"
        time.sleep(0.1)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    left = told(said)
    if not left:
        wait_until("no server", lambda: not alone.processes(), wait_s=120)
        alone.run("up", "-d")
    assert listed(alone) == left


def test_a_run_that_failed_leaves_no_server(alone: PrivateSwell, tools: str) -> None:
    assert ended(launch(alone, "run", "-d", f"{tools}::fail"))[0] == 1
    wait_until("no process left", lambda: not alone.processes(), wait_s=120)


def test_a_program_of_its_own_leaves_its_app_too(alone: PrivateSwell, tools: str) -> None:
    code, said = run_python(alone, tools)
    assert code == 0, said
    wait_until("a server for whoever comes", lambda: lock(alone).get("attached") is False, wait_s=120)
    assert [name.partition("--")[0] for name in listed(alone)] == ["tools"]


def test_an_app_whose_server_cannot_be_kept_is_stopped(alone: PrivateSwell, tools: str, tmp_path: Path) -> None:
    path = tmp_path / "unkept.py"
    path.write_text(UNKEPT)
    code, said = run_python(alone, str(path))
    assert (code, said) == (0, "server_failed: it cannot\n"), said
    wait_until("no process left", lambda: not alone.processes(), wait_s=120)
    alone.run("up", "-d")
    assert listed(alone) == []


def test_only_the_server_that_the_app_is_on_is_kept(own_swell: PrivateSwell, alone: PrivateSwell, tools: str) -> None:
    elsewhere = {
        **alone.environ,
        "SWELL_URL": f"http://127.0.0.1:{own_swell.port}",
        "SWELL_KEY": (own_swell.home / "key").read_text().strip(),
    }
    with going(alone, "run", f"{tools}::wait") as other:
        assert line(other) == "waiting\n"
        words = ["swell", "run", "-d", f"{tools}::add", "--a", "1"]
        done = subprocess.run(words, env=elsewhere, capture_output=True, text=True, timeout=120)
        assert told(done.stderr) == listed(own_swell) != []
        assert os.listdir(alone.home / "run" / "attached") == [str(other.pid)]
    wait_until("no process left", lambda: not alone.processes(), wait_s=120)
    own_swell.run("app", "stop", *told(done.stderr))


def test_a_server_that_is_stopping_is_not_said_to_stay(alone: PrivateSwell, tools: str) -> None:
    alone.run("up", "-d")
    code, said = ended(launch(alone, "run", "-d", f"{tools}::end"))
    assert code == 0, said
    assert "its server is stopping" in said
    assert len(told(said)) == 1
    alone.run("down")
    alone.run("up", "-d")
    assert listed(alone) == told(said)
