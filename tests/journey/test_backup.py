"""Is a server that was restored the one that was backed up: while others wrote, whatever was killed meanwhile?"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from private_swell import Failed, PrivateSwell, private_swell, unstarted_swell, wait_until
from swell.supervise.lock import Lock
from swell.wire.paths import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BACK_S = 60.0
"""How long control may take to be there again."""
LARGE_MIB = 64
"""More than the sockets on the way to a client take: who does not read holds up the backup."""

PROGRAM = """
import os

import swell

app = swell.App("kept")
data = swell.Volume.from_name("data", create_if_missing=True)


@app.function()
def large() -> str:
    return "large " * 1_000_000


@app.function(volumes={"AT": data.read_only()}, secrets=[swell.Secret.from_name("db")])
def look(name: str) -> list:
    with open("AT/" + name) as file:
        return [file.read(), os.environ["PASSWORD"]]
"""


SPAWN = """
import swell

call = swell.Function.from_name("kept", "large").spawn()
call.get(timeout=60)
print(call.object_id)
"""


@pytest.fixture
def swell(tmp_path: Path) -> Iterator[PrivateSwell]:
    """With an app that reads a volume and a secret, a dict, a queue and an API key."""
    with private_swell() as swell:
        fill(swell, tmp_path)
        yield swell


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    """The same with a large file in its volume. It is backed up again and again, and nothing of it is changed."""
    folder: Path = tmp_path_factory.mktemp("heavy")
    with private_swell() as swell:
        fill(swell, folder)
        (folder / "large").write_bytes(os.urandom(LARGE_MIB << 20))
        swell.run("volume", "put", "data", str(folder / "large"))
        yield swell


def fill(swell: PrivateSwell, folder: Path) -> None:
    (folder / "a.txt").write_text("in a volume")
    swell.run("volume", "create", "data")
    swell.run("volume", "put", "data", str(folder / "a.txt"))
    swell.run("secret", "create", "db", "PASSWORD=hunter2")
    (folder / "kept.py").write_text(PROGRAM.replace("AT", str(folder / "data")))
    swell.run("deploy", str(folder / "kept.py"))
    swell.run("dict", "create", "settings")
    swell.run("dict", "put", "settings", "colour", '"red"')
    swell.run("queue", "create", "work")
    swell.run("queue", "put", "work", "1", "2")


def said(swell: PrivateSwell, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, however it ends."""
    return subprocess.run(["swell", *words], env=swell.environ, capture_output=True, text=True, timeout=BACK_S * 2)


@contextmanager
def restored(file: Path, *words: str, started: bool = True, **environ: str) -> Iterator[PrivateSwell]:
    """Another platform, made of a backup."""
    with unstarted_swell() as other:
        home = other.home / "state"
        other.home = home
        other.environ |= {"SWELL_HOME": str(home), **environ}
        try:
            other.words = other.run("restore", str(file), *words)  # type: ignore[attr-defined]
            if started:
                other.run("up", "-d")
            yield other
            if started:
                other.run("down")
        finally:
            other.home = home.parent


def test_what_was_there_is_there_again(swell: PrivateSwell, tmp_path: Path) -> None:
    key = swell.run("key", "create", "ci", "--scope", "call:default/*").strip()
    words = [sys.executable, "-c", SPAWN]
    id = subprocess.run(words, env=swell.environ, check=True, capture_output=True, text=True).stdout.strip()
    file = tmp_path / "all.backup"
    done = said(swell, "backup", str(file), "--key-files")
    assert done.returncode == 0, done.stderr
    assert "The keys are in it (key, call-key, master.key)" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    # What comes later is not in it.
    swell.run("dict", "put", "settings", "colour", '"blue"')
    swell.run("volume", "rm", "data", "a.txt")
    swell.run("down")
    with restored(file) as other:
        assert "with 1 app and 1 volume" in other.words  # type: ignore[attr-defined]
        assert (other.home / "key").read_text() == (swell.home / "key").read_text()
        with other.connect() as client:
            assert client.call("kept/look", {"name": "a.txt"}).value == ["in a volume", "hunter2"]
            # It is in a file, which the database names.
            assert pickle.loads(client.get(f"/calls/{id}/result").body) == "large " * 1_000_000
        assert other.run("dict", "get", "settings", "colour").strip() == '"red"'
        assert other.run("queue", "get", "work").strip() == "1"
        assert "ci" in other.run("key", "list")
        other.environ["SWELL_KEY"] = key
        assert json.loads(other.run("call", "kept/look", '{"name": "a.txt"}'))[0] == "in a volume"
        del other.environ["SWELL_KEY"]
        assert other.run("logs", "kept").strip() == ""


def test_without_keys_the_secrets_are_named_and_come_back_with_the_master_key(
    swell: PrivateSwell, tmp_path: Path
) -> None:
    swell.run("down")
    # Nobody serves it: it is read by the command itself.
    file = tmp_path / "all.backup"
    done = said(swell, "backup", str(file))
    assert "keep a copy of master.key elsewhere" in done.stderr
    with tarfile.open(file) as tar:
        assert not {"key", "call-key", "master.key"} & set(tar.getnames())
    with restored(file, started=False) as other:
        assert "Secrets that cannot be opened without their" in other.words  # type: ignore[attr-defined]
        assert "default/db; put the copy that you have of it there" in other.words  # type: ignore[attr-defined]
        (other.home / "master.key").write_bytes((swell.home / "master.key").read_bytes())
        (other.home / "master.key").chmod(0o600)
        other.run("up", "-d")
        with other.connect() as client:
            assert client.call("kept/look", {"name": "a.txt"}).value[1] == "hunter2"
        other.run("down")


WRITER = """
import sys
from pathlib import Path
import swell

stop, n = Path(sys.argv[1]), 0
numbers = swell.Dict.from_name("numbers", create_if_missing=True)
items = swell.Queue.from_name("items", create_if_missing=True)
while not stop.exists():
    numbers[n] = n
    items.put(n)
    print(n, flush=True)
    n += 1
"""


def test_what_was_acknowledged_before_it_began_is_in_it(swell: PrivateSwell, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    (tmp_path / "writer.py").write_text(WRITER)
    words = [sys.executable, str(tmp_path / "writer.py"), str(stop)]
    writer = subprocess.Popen(words, env=swell.environ, stdout=subprocess.PIPE, text=True)
    told: list[int] = []

    def listen() -> None:
        assert writer.stdout is not None
        told.extend(int(line) for line in writer.stdout)

    def deploys() -> None:
        n = 0
        while not stop.exists():
            n += 1
            (tmp_path / "kept.py").write_text(f"{PROGRAM.replace('AT', str(tmp_path / 'data'))}\nN = {n}\n")
            swell.run("deploy", str(tmp_path / "kept.py"))

    threads = [threading.Thread(target=each) for each in (listen, deploys)]
    for thread in threads:
        thread.start()
    try:
        wait_until("something was written", lambda: len(told) > 50)
        before = told[-1]
        swell.run("backup", str(tmp_path / "all.backup"))
    finally:
        stop.touch()
        for thread in threads:
            thread.join()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    with restored(tmp_path / "all.backup") as other:
        held = [
            int(line.partition(": ")[0]) for line in other.run("dict", "items", "numbers", "-n", "100000").splitlines()
        ]
        assert held == list(range(len(held)))
        assert len(held) > before
        queued = int(other.run("queue", "len", "items"))
        # An item is put after its number; of the last one only the number may have been there.
        assert len(held) - 1 <= queued <= len(held)
        assert queued > before
        # Its source is there, whichever of the deploys it was.
        assert "kept" in other.run("app", "list")
        bundles = {path.name for path in (other.home / "blobs").iterdir()}
        assert bundles
        # It goes on: what came without its key is deleted, and a new one made.
        other.run("secret", "delete", "db", "--force")
        other.run("secret", "create", "other", "A=1")


@contextmanager
def begun(swell: PrivateSwell) -> Iterator[socket.socket]:
    """A backup whose client reads its beginning and then nothing."""
    with socket.create_connection(("127.0.0.1", swell.port)) as client:
        key = (swell.home / "key").read_text().strip()
        client.sendall(f"GET /api/backup HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


def test_one_at_a_time_and_a_client_that_leaves_ends_it(heavy: PrivateSwell, tmp_path: Path) -> None:
    with begun(heavy):
        assert (heavy.home / "backup" / "control.db").exists()
        refused = said(heavy, "backup", str(tmp_path / "second"))
        assert refused.returncode == 1
        assert "A backup is being made already" in refused.stderr
        assert not (tmp_path / "second").exists()
        assert not (tmp_path / "second.part").exists()
    wait_until("its copy is gone", lambda: not (heavy.home / "backup").exists(), wait_s=BACK_S)
    heavy.run("backup", str(tmp_path / "second"))
    # Over itself only where that is meant.
    again = said(heavy, "backup", str(tmp_path / "second"))
    assert "with --force it is written over" in again.stderr
    heavy.run("backup", str(tmp_path / "second"), "--force")


def test_a_server_that_is_stopped_does_not_wait_for_one(heavy: PrivateSwell, tmp_path: Path) -> None:
    with begun(heavy):
        heavy.run("down", "--now")
        assert not (heavy.home / "backup").exists()
    heavy.run("backup", str(tmp_path / "all.backup"))
    heavy.run("up", "-d")


def test_control_is_killed_in_the_middle(heavy: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "all.backup"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Its output is read by nobody yet: it is in the middle for as long as that is so.
    running = subprocess.Popen(
        ["sh", "-c", f"swell backup - > '{fifo}'"], env=heavy.environ, stderr=subprocess.PIPE, text=True
    )
    with open(fifo, "rb") as output:
        assert output.read(512)
        os.kill(heavy.server("control"), signal.SIGKILL)
        wait_until("control answers", lambda: answers(heavy), wait_s=BACK_S)
        while output.read(1 << 20):
            pass
    _, words = running.communicate(timeout=BACK_S)
    assert running.returncode == 1, words
    assert "broke off" in words or "is not whole" in words
    assert not (heavy.home / "backup").exists()
    heavy.run("backup", str(file))
    with restored(file) as other, other.connect() as client:
        assert other.run("dict", "get", "settings", "colour").strip() == '"red"'
        assert client.get("/api/volumes").value[0]["size_bytes"] == (LARGE_MIB << 20) + len("in a volume")


def test_a_file_that_is_not_whole_is_not_there(heavy: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "all.backup"
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            if (heavy.home / "backup").exists():
                os.kill(heavy.server("control"), signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    done = said(heavy, "backup", str(file))
    stop.set()
    killer.join()
    # It may have been too late to matter; half of a file there never is.
    assert done.returncode == 0 or not file.exists()
    assert not (tmp_path / "all.backup.part").exists()
    wait_until("control answers", lambda: answers(heavy), wait_s=BACK_S)
    assert not (heavy.home / "backup").exists()


def test_one_that_is_interrupted_leaves_nothing(heavy: PrivateSwell, tmp_path: Path) -> None:
    file, part = tmp_path / "all.backup", tmp_path / "all.backup.part"
    with launched(heavy, "backup", str(file)) as running:
        wait_until("it is being written", lambda: part.exists() or running.poll() is not None)
        running.send_signal(signal.SIGINT)
        running.wait(BACK_S)
        # It may have been done just then.
        assert running.returncode in (0, 130)
        assert file.exists() is (running.returncode == 0)
    assert not part.exists()
    wait_until("its copy is gone", lambda: not (heavy.home / "backup").exists(), wait_s=BACK_S)
    # What one left that was killed is written over.
    part.write_bytes(b"x" * 1000)
    heavy.run("backup", str(file), "--force")
    assert not part.exists()
    assert file.read_bytes()[:13] == b"manifest.json"


@contextmanager
def launched(swell: PrivateSwell, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(["swell", *words], env=swell.environ, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def answers(swell: PrivateSwell) -> bool:
    """Does control?"""
    try:
        with swell.connect() as client:
            return client.get("/api/volumes").status == 200
    except Failed:
        return False


def test_what_is_not_to_be_is_refused_in_a_sentence(idle: PrivateSwell, tmp_path: Path) -> None:
    nothing = said(idle, "backup", str(tmp_path / "f"), "--home", str(tmp_path / "none"))
    assert nothing.returncode == 1
    assert f"No server ever ran on {tmp_path}/none: there is nothing to back up." in nothing.stderr
    assert not (tmp_path / "none").exists()
    (tmp_path / "text").write_text("no backup")
    for words, expected in {
        ("restore", f"{tmp_path}/text", "--home", f"{tmp_path}/none"): "is no backup that `swell backup` made",
        ("restore", f"{tmp_path}/gone", "--home", f"{tmp_path}/none"): "cannot be read: No such file",
        ("restore", f"{tmp_path}", "--home", f"{tmp_path}/none"): "directory",
        ("restore", f"{tmp_path}/text", "--home", str(tmp_path)): "is not empty",
    }.items():
        refused = said(idle, *words)
        assert refused.returncode == 1, refused
        assert expected in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "none").exists()
    (tmp_path / "link.part").symlink_to(tmp_path / "text")
    idle.run("up", "-d")
    for file, expected in {
        "link": "cannot be written: Too many levels of symbolic links",
        "no/f": "cannot be written: No such file",
        ".": "is a directory: name a file in it",
    }.items():
        refused = said(idle, "backup", f"{tmp_path}/{file}")
        assert refused.returncode == 1
        assert expected in refused.stderr
    assert (tmp_path / "text").read_text() == "no backup"
    running = said(idle, "restore", f"{tmp_path}/text")
    assert "A server already runs on" in running.stderr
    idle.run("down")
    # Nobody serves it, and nobody begins to while it is read or written.
    lock = Lock(Home(idle.home))
    for words in (("backup", f"{tmp_path}/f"), ("restore", f"{tmp_path}/text"), ("up", "-d")):
        held = said(idle, *words)
        assert held.returncode == 1
        assert f"A server already runs on {idle.home}: pid {os.getpid()}" in held.stderr, held
    lock.release()
    (idle.home / "restore.part").mkdir()
    half = said(idle, "up", "-d")
    assert half.returncode == 1
    assert "A backup was not wholly restored into" in half.stderr
