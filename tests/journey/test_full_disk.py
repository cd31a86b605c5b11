"""What still works on a state directory whose disk is full or read-only, and what is refused?

Who may not mount a small disk does so in a namespace (conftest.py).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
from census import left_over
from shell import ended, going, launch, line, refusal
from traffic import PROGRAM, WAKING, OneCall

from private_swell import Answer, Failed, PrivateSwell, exchange, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.mounts]

WAIT_S = 60.0


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
        OneCall(idle, 0.0, tmp_path / "book-1").join()
        accepted = queue(idle, "").value["id"]
        fill(filler)
        # What runs goes on, what sleeps is woken, and what must be kept is refused.
        warm, woken = OneCall(idle, 0.0, tmp_path / "book-2"), tmp_path / "book-3"
        warm.join()
        assert warm.answer is not None, warm.failure
        with idle.connect() as client:
            arguments = {"id": "woken", "pause_s": 0.0, "book": str(woken)}
            assert client.call(f"fire/{WAKING}", arguments).value[0] == "woken"
        # More than the database has room for within its files.
        refused = queue(idle, "x" * 2**21)
        assert (refused.status, refused.error["code"]) == (507, "state_full")
        Path(program).write_text(PROGRAM + "\n# changed\n")
        said = refusal(idle, "deploy", program)
        assert "space" in said
        assert str(idle.home) in said
        filler.unlink()
        wait_until("it takes deploys again", lambda: deploys(idle, program), wait_s=WAIT_S)
        assert queue(idle, "").status == 202
        with idle.connect() as client:
            assert client.get(f"/calls/{accepted}").value["state"] == "queued"
        idle.run("down")
        assert left_over(idle) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_control_that_starts_anew_waits_for_room(
    idle: PrivateSwell, program: str, tmp_path: Path, number: signal.Signals
) -> None:
    """It begins with what it left open where it was killed, and with nothing but the database where it ended."""
    book = tmp_path / "book"
    with small_disk(idle), going(idle, "up") as server:
        assert line(server).startswith("Swell is up")
        idle.run("deploy", program)
        OneCall(idle, 0.0, book).join()
        filler = idle.home / "filler"
        fill(filler)
        for _ in range(2):
            os.kill(idle.server("control"), number)
            wait_for(server, "the control waits: There is no space left to write")
            warm = OneCall(idle, 0.0, book)
            warm.join()
            assert warm.answer is not None, warm.failure
            assert "There is no space left to write" in refusal(idle, "ps")
        filler.unlink()
        wait_for(server, "the control goes on")
        idle.run("deploy", program)
        with idle.connect() as client:
            arguments = {"id": "woken", "pause_s": 0.0, "book": str(book)}
            assert client.call(f"fire/{WAKING}", arguments).value[0] == "woken"
        idle.run("down")
        assert ended(server)[0] == 0
        assert left_over(idle) == []


def wait_for(server: Popen[str], words: str) -> None:
    """Until it says so on its terminal."""
    assert server.stderr is not None
    told = []
    for said in server.stderr:
        told.append(said)
        if words in said:
            return
    pytest.fail(f"it has ended: {told}")


def test_a_backup_where_there_is_no_room(idle: PrivateSwell, tmp_path: Path) -> None:
    with small_disk(idle):
        idle.run("up", "-d")
        idle.run("dict", "create", "d")
        idle.run("dict", "put", "d", "k", f'"{"x" * 100_000}"')
        filler = idle.home / "filler"
        fill(filler)
        assert "no space left" in refusal(idle, "backup", str(tmp_path / "f"))
        assert list(tmp_path.iterdir()) == []
        assert not (idle.home / "backup").exists()
        filler.unlink()
        wait_until("it can be backed up again", lambda: backed_up(idle, tmp_path / "f"), wait_s=WAIT_S)
        idle.run("down")
        fill(filler)
        said = refusal(idle, "restore", str(tmp_path / "f"), "--home", str(idle.home / "new"))
        assert "no space left" in said.lower()
        assert not (idle.home / "new").exists()
        said = refusal(idle, "backup", str(idle.home / "g"))
        assert "no space left" in said.lower()
        assert not {"g", "g.part", "backup"} & {path.name for path in idle.home.iterdir()}
        filler.unlink()
        idle.run("restore", str(tmp_path / "f"), "--home", str(idle.home / "new"))
        assert left_over(idle) == []


def backed_up(swell: PrivateSwell, file: Path) -> bool:
    try:
        swell.run("backup", str(file))
    except Failed:
        return False
    return True


def test_a_read_only_disk(idle: PrivateSwell) -> None:
    with small_disk(idle, "ro"):
        said = refusal(idle, "up", "-d")
        assert str(idle.home) in said
        assert "SWELL_HOME" in said
        assert idle.processes() == []


def queue(swell: PrivateSwell, book: str) -> Answer:
    """A call that is to be worked on tomorrow."""
    arguments = json.dumps({"id": "later", "pause_s": 0.0, "book": book}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=WAIT_S)
    try:
        later = {"Swell-Async": "true", "Swell-Delay": "1d"}
        return exchange(connection, "POST", f"/call/fire/{WAKING}", arguments, later)
    finally:
        connection.close()


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
    whole, disk = swell.home, swell.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},size=8m,mode=700", "tmpfs", str(disk)], check=True)
    swell.home = disk
    swell.environ["SWELL_HOME"] = str(disk)
    try:
        yield
    finally:
        if swell.processes():
            swell.run("down")
        subprocess.run(["umount", str(disk)], check=True)
        swell.home = whole  # All of it is removed at the end.
