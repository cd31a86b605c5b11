"""Can a server be stopped, or kept from starting, in any way that is not clean? Only what shows from outside."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from census import left_over, supervisor
from traffic import ONCE, PROGRAM, SINGLE, STEADY, WAKING, traffic

from private_swell import Answer, Failed, PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CALLERS = [STEADY] * 44 + [SINGLE] * 12 + [ONCE] * 2 + [WAKING] * 4
IN_FLIGHT_MIN = 50
WAIT_S = 60.0
LONG_S = 120.0
"""Longer than a stopping gateway waits."""


@pytest.fixture
def idle() -> Iterator[PrivateSwell]:
    """A platform that is not started; whatever a test does with it, nothing of it may be left."""
    with unstarted_swell() as swell:
        yield swell


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "fire.py"
    path.write_text(PROGRAM)
    return str(path)


def launch(swell: PrivateSwell, *words: str) -> subprocess.Popen[str]:
    """`swell …` in a group of its own, as a shell starts it."""
    return subprocess.Popen(
        ["swell", *words],
        env=swell.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and everything that was said."""
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out + err


def refusal(swell: PrivateSwell, *words: str) -> str:
    """What was said by a command that refused in a sentence, with nothing of it left."""
    code, said = ended(launch(swell, *words))
    assert code == 1, said
    assert any(line.startswith("Error: ") for line in said.splitlines()), said
    assert "Traceback" not in said
    return said


class Caller:
    """One request on a thread of its own."""

    def __init__(self, swell: PrivateSwell, pause_s: float, book: Path) -> None:
        self._swell = swell
        self._arguments = {"id": "long", "pause_s": pause_s, "book": str(book)}
        self.answer: Answer | None = None
        self.failure = ""
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        wait_until("it has begun", lambda: book.exists() and "long" in book.read_text().split(), wait_s=WAIT_S)

    def _call(self) -> None:
        try:
            with self._swell.connect() as client:
                self.answer = client.call(f"fire/{STEADY}", self._arguments)
        except Failed as failure:
            self.failure = str(failure)

    def join(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "it hangs"


# -- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["down", "interrupt"])
def test_a_stop_under_load_answers_or_refuses_all_in_flight(
    idle: PrivateSwell, program: str, tmp_path: Path, way: str
) -> None:
    server = None
    if way == "down":
        idle.run("up", "-d")
    else:
        server = launch(idle, "up")
        assert server.stdout is not None
        assert "Swell is up" in server.stdout.readline()
    idle.run("deploy", program)
    book = tmp_path / "book"
    long = Caller(idle, LONG_S, tmp_path / "long")
    with traffic(idle.port, book, random.Random(0), CALLERS) as calls:
        wait_until("it runs", lambda: sum(one.answered for one in calls.outcomes) > IN_FLIGHT_MIN, wait_s=WAIT_S)
        wait_until("many in flight", lambda: len(calls.in_flight) >= IN_FLIGHT_MIN, wait_s=WAIT_S, pause_s=0.001)
        told_at = time.monotonic()
        if server is None:
            idle.run("down")
        else:
            os.killpg(server.pid, signal.SIGINT)
            code, said = ended(server)
            assert (code, "Traceback" in said) == (0, False)
    long.join()
    assert "answered 503" in long.failure
    assert "stopping" in long.failure
    before = [one for one in calls.outcomes if one.begun < told_at]
    assert [str(one) for one in before if not one.answered] == []
    after = [one for one in calls.outcomes if one.begun >= told_at]
    assert [str(one) for one in after if not (one.answered or one.refused or one.broken)] == []
    assert left_over(idle) == []
    assert "did not end within its grace" not in idle.log(10_000)


def test_two_stops_at_once_do_not_hurry(idle: PrivateSwell, program: str, tmp_path: Path) -> None:
    idle.run("up", "-d")
    idle.run("deploy", program)
    pid = supervisor(idle)
    call = Caller(idle, 3.0, tmp_path / "book")
    stops = [launch(idle, "down") for _ in range(2)]
    for stop in stops:
        code, said = ended(stop)
        assert code == 0, said
        assert f"The server (pid {pid}) is stopped." in said
    call.join()
    assert call.answer is not None, call.failure
    assert left_over(idle) == []


def test_two_starts_at_once_make_one_server(idle: PrivateSwell) -> None:
    codes = sorted(ended(start) for start in [launch(idle, "up", "-d") for _ in range(3)])
    assert [code for code, _ in codes] == [0, 1, 1]
    pid = supervisor(idle)
    assert all(f"A server already runs on {idle.home}: pid {pid}" in said for _, said in codes[1:])
    assert len(idle.processes()) == 4
    idle.run("down")
    assert left_over(idle) == []


# -- not starting ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_port_in_use(idle: PrivateSwell, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", idle.port)):
        said = refusal(idle, *words)
        assert f"Port {idle.port} on 127.0.0.1 is in use" in said
        assert f"(pid {os.getpid()})" in said
    assert left_over(idle) == []
    idle.run("up", "-d")


@pytest.mark.parametrize("words", [["up"], ["up", "-d"], ["run", "PROGRAM"]])
@pytest.mark.parametrize("place", ["file", "under a file", "/proc/swell", "long"])
def test_a_home_that_cannot_be(idle: PrivateSwell, tmp_path: Path, program: str, words: list[str], place: str) -> None:
    (tmp_path / "file").write_text("")
    homes = {"file": tmp_path / "file", "under a file": tmp_path / "file" / "home", "long": tmp_path / ("h" * 120)}
    idle.environ["SWELL_HOME"] = home = str(homes.get(place, Path(place)))
    said = refusal(idle, *(program + "::single" if word == "PROGRAM" else word for word in words), *flags(words))
    assert home in said
    assert "SWELL_HOME" in said
    assert idle.processes() == []


def flags(words: list[str]) -> list[str]:
    return ["--id", "x", "--pause-s", "0", "--book", "/dev/null"] if words[0] == "run" else []


# -- a disk that is full, or read-only ---------------------------------------------------------


def test_a_full_disk(idle: PrivateSwell, program: str, tmp_path: Path) -> None:
    with small_disk(idle):
        filler = idle.home / "filler"
        fill(filler)
        said = refusal(idle, "up", "-d")
        assert f"The state directory {idle.home} cannot be used: No space left on device. Free some space" in said
        assert idle.processes() == []
        filler.unlink()
        idle.run("up", "-d")
        idle.run("deploy", program)
        Caller(idle, 0.0, tmp_path / "book-1").join()
        fill(filler)
        # What runs goes on, what sleeps is woken, and what must be kept is refused.
        warm, woken = Caller(idle, 0.0, tmp_path / "book-2"), tmp_path / "book-3"
        warm.join()
        assert warm.answer is not None, warm.failure
        with idle.connect() as client:
            arguments = {"id": "woken", "pause_s": 0.0, "book": str(woken)}
            assert client.call(f"fire/{WAKING}", arguments).value[0] == "woken"
        Path(program).write_text(PROGRAM + "\n# changed\n")
        said = refusal(idle, "deploy", program)
        assert "space" in said
        assert str(idle.home) in said
        filler.unlink()
        wait_until("it takes deploys again", lambda: deploys(idle, program), wait_s=WAIT_S)
        idle.run("down")
        assert left_over(idle) == []


def test_a_read_only_disk(idle: PrivateSwell) -> None:
    with small_disk(idle, "ro"):
        said = refusal(idle, "up", "-d")
        assert str(idle.home) in said
        assert "SWELL_HOME" in said
        assert idle.processes() == []


def deploys(swell: PrivateSwell, program: str) -> bool:
    return ended(launch(swell, "deploy", program))[0] == 0


def fill(filler: Path) -> None:
    """Until nothing more goes in."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@contextmanager
def small_disk(swell: PrivateSwell, options: str = "rw") -> Iterator[None]:
    """Its state directory on a small disk of its own."""
    disk = swell.home / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},size=8m,mode=700", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("disks cannot be mounted here")
    swell.home = disk
    swell.environ["SWELL_HOME"] = str(disk)
    try:
        yield
    finally:
        if swell.processes():
            swell.run("down")
        subprocess.run(["umount", str(disk)], check=True)
