"""Does a server come up, stay up whatever dies, and go down with nothing of it left?"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from private_swell import Answer, Failed, PrivateSwell, private_swell, wait_until
from swell.wire.paths import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import os, time
import swell

app = swell.App("naps")

@app.function()
def nap(seconds: float = 0.0, gate: str = "") -> int:
    time.sleep(seconds)
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()

@app.cls()
class Leaver:
    @swell.method()
    def promise(self, path: str) -> int:
        self.path = path
        return os.getpid()

    @swell.exit()
    def leave(self) -> None:
        time.sleep(7)
        open(self.path, "w").close()
"""


@pytest.fixture(scope="module")
def naps(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("naps") / "naps.py"
    path.write_text(PROGRAM)
    return str(path)


@pytest.fixture(scope="module")
def lasting(naps: str) -> Iterator[PrivateSwell]:
    """One that goes on, whatever of it is killed."""
    with private_swell() as swell:
        swell.run("deploy", naps)
        yield swell


def attempt(swell: PrivateSwell, *words: str) -> tuple[int, str]:
    """Exit code and everything that was said."""
    done = subprocess.run(
        ["swell", *words], env=swell.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    return done.returncode, done.stdout


def supervisor(swell: PrivateSwell) -> int:
    found = [one.pid for one in swell.processes() if "swell.supervise" in one.command]
    assert len(found) == 1
    return found[0]


def nap(swell: PrivateSwell, **arguments: object) -> Answer:
    with swell.connect() as client:
        return client.call("naps/nap", arguments)


def test_up_in_the_background_and_down(idle: PrivateSwell, naps: str) -> None:
    said = idle.run("up", "-d")
    assert f"http://127.0.0.1:{idle.port} (pid {supervisor(idle)}, state in {idle.home})" in said
    assert len(idle.processes()) == 4
    code, refused = attempt(idle, "up", "-d")
    assert code == 1
    assert f"A server already runs on {idle.home}: pid {supervisor(idle)}" in refused
    idle.run("deploy", naps)
    nap(idle)
    pid = supervisor(idle)
    assert idle.run("down") == f"The server (pid {pid}) is stopped.\n"
    assert idle.processes() == []
    assert [path.name for path in (idle.home / "run").rglob("*") if path.is_socket()] == []
    assert idle.run("down") == f"No server runs on {idle.home}.\n"


def test_apps_outlive_the_server(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    idle.run("down")
    idle.run("up", "-d")
    assert nap(idle).status == 200


def test_in_the_foreground_until_an_interrupt(idle: PrivateSwell, naps: str) -> None:
    server = subprocess.Popen(
        ["swell", "up"],
        env=idle.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert f"pid {server.pid}" in server.stdout.readline()
    idle.run("deploy", naps)
    nap(idle)
    # As a terminal does it: to the whole foreground group.
    os.killpg(server.pid, signal.SIGINT)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in said
    assert idle.processes() == []


@pytest.mark.parametrize("name", ["control", "gateway", "runner"])
def test_a_killed_process_is_replaced_and_calls_go_on(lasting: PrivateSwell, name: str) -> None:
    replica = nap(lasting).value
    killed = lasting.server(name)
    os.kill(killed, signal.SIGKILL)
    wait_until(f"another {name}", lambda: _pid(lasting, name) not in (0, killed), wait_s=120)
    wait_until("an answer", lambda: _answers(lasting), wait_s=120)
    assert nap(lasting).value == replica


def test_a_killed_supervisor_takes_all_with_it(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d", "--set", "orphan_s=2")
    idle.run("deploy", naps)
    nap(idle)
    os.kill(supervisor(idle), signal.SIGKILL)
    wait_until("no process left", lambda: not idle.processes(), wait_s=120)


def test_down_after_a_kill_ends_what_is_left(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    nap(idle)
    runner = idle.server("runner")
    os.kill(supervisor(idle), signal.SIGKILL)
    code, said = attempt(idle, "down")
    assert code == 0
    assert f"runner (pid {runner})" in said
    assert idle.processes() == []


def test_down_after_everything_was_killed_ends_the_replicas(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    nap(idle)
    servers = [supervisor(idle), *map(idle.server, ("runner", "control", "gateway"))]
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    wait_until("servers gone", lambda: not any(one.pid in servers for one in idle.processes()))
    assert idle.processes() != []
    assert "leftovers of a killed one were cleaned up" in idle.run("down")
    assert idle.processes() == []
    assert list((idle.home / "run" / "p").iterdir()) == []


def test_up_after_a_kill_keeps_the_replicas(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    replica = nap(idle).value
    os.kill(supervisor(idle), signal.SIGKILL)
    idle.run("up", "-d")
    wait_until("an answer", lambda: _answers(idle), wait_s=120)
    assert nap(idle).value == replica


def test_down_lets_requests_finish(idle: PrivateSwell, naps: str, tmp_path: Path) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    nap(idle)
    answers: list[Answer] = []
    gate = tmp_path / "gate"
    caller = threading.Thread(target=lambda: answers.append(nap(idle, gate=str(gate))))
    caller.start()
    wait_until("it is in flight", lambda: any(one["in_flight"] for one in idle.serving()))
    pid = supervisor(idle)
    down = subprocess.Popen(["swell", "down"], env=idle.environ, stderr=subprocess.PIPE, text=True)
    wait_until("it is stopping", lambda: Home(idle.home).ending() == pid)
    refused, why = attempt(idle, "call", "naps/nap")
    assert down.stderr is not None
    for said in down.stderr:
        if "1 request runs, at most 30 s; `swell down --now` cuts" in said:
            break
    else:
        pytest.fail("it did not wait")
    gate.touch()
    caller.join(60)
    down.communicate(timeout=60)
    assert [answer.status for answer in answers] == [200]
    assert down.returncode == 0
    assert refused == 1
    assert f"(pid {pid}) is stopping" in why
    assert Home(idle.home).ending() is None


def test_down_gives_exit_hooks_their_time(idle: PrivateSwell, naps: str, tmp_path: Path) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    with idle.connect() as client:
        client.call("naps/Leaver.promise", {"path": str(tmp_path / "left")})
    idle.run("down")
    assert (tmp_path / "left").exists()


def test_down_does_not_wait_for_who_follows_a_log(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d", "--set", "drain_s=100")
    idle.run("deploy", naps)
    nap(idle)
    following = subprocess.Popen(
        ["swell", "logs", "-f", "naps"], env=idle.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        said = subprocess.run(["swell", "down"], env=idle.environ, timeout=60, capture_output=True, text=True)
        assert said.returncode == 0
        assert "at most" not in said.stderr
    finally:
        following.kill()
        following.wait()


def test_the_gateway_and_control_may_open_as_many_files_as_anyone(idle: PrivateSwell) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    subprocess.run(["bash", "-c", "ulimit -Sn 256; exec swell up -d"], env=idle.environ, check=True, timeout=120)
    for name in ("gateway", "control", "runner"):
        assert resource.prlimit(idle.server(name), resource.RLIMIT_NOFILE) == (hard, hard)


def test_down_now_does_not_wait(idle: PrivateSwell, naps: str) -> None:
    idle.run("up", "-d")
    idle.run("deploy", naps)
    nap(idle)
    caller = subprocess.Popen(
        ["swell", "call", "naps/nap", '{"seconds": 200}'],
        env=idle.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until("it is in flight", lambda: any(one["in_flight"] for one in idle.serving()))
    idle.run("down", "--now")
    _, said = caller.communicate(timeout=60)
    assert caller.returncode == 1
    assert said.startswith("Error: ")


def test_a_server_for_a_process_ends_with_it(idle: PrivateSwell) -> None:
    client = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    idle.run("up", "-d", "--attach-pid", str(client.pid))
    assert len(idle.processes()) == 4
    client.communicate(b"\n")
    wait_until("no process left", lambda: not idle.processes(), wait_s=120)


def test_a_server_comes_up_although_whoever_started_it_was_killed(idle: PrivateSwell) -> None:
    starting = subprocess.Popen(["swell", "up", "-d"], env=idle.environ, stderr=subprocess.DEVNULL)
    wait_until("the server begins", lambda: any("report-fd" in one.command for one in idle.processes()), wait_s=120)
    starting.kill()
    starting.wait()
    lock = idle.home / "lock"
    wait_until("it is up", lambda: lock.exists() and '"ready"' in lock.read_text(), wait_s=60)
    assert idle.run("ps", "--json").strip() == "[]"
    assert "Traceback" not in idle.log(200)


def _pid(swell: PrivateSwell, name: str) -> int:
    return next((one.pid for one in swell.processes() if name in one.command.split() or f".{name}" in one.command), 0)


def _answers(swell: PrivateSwell) -> bool:
    with suppress(Failed):
        return nap(swell).status == 200
    return False
