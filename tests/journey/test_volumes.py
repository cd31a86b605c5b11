"""Do functions share files as they are told they do, whatever is killed? On a real platform, with real mounts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from private_swell import WAIT_S, Failed, PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
import os

import swell

app = swell.App("shelf")
data = swell.Volume.from_name("data", create_if_missing=True)
AT = os.environ.get("AT", "AT")


@app.function(volumes={AT: data}, scaledown_window=300)
def one(todo: list) -> object:
    return work(todo)


@app.function(volumes={AT: data}, scaledown_window=300)
def two(todo: list) -> object:
    return work(todo)


@app.function(volumes={AT: data.read_only()})
def reader(todo: list) -> object:
    return work(todo)


@app.function(volumes={"/data": data})
@swell.isolated()
def boxed(todo: list) -> object:
    return work(todo, "/data")


@app.function(volumes={AT: data.with_mount_options(sub_path="part")})
def part(todo: list) -> object:
    return work(todo)


@app.function(volumes={AT: data})
async def later(how: str) -> object:
    if how == "plain":
        data.commit()
    await data.commit.aio()
    await data.reload.aio()
    return sorted(os.listdir(AT))


@app.function(volumes={AT: data}, single_use_containers=True)
def once(name: str) -> None:
    with open(f"{AT}/{name}", "w") as file:
        file.write("once")


@app.function(volumes={AT: data}, scaledown_window=300)
def counter(number: int) -> int:
    for name in ("left", "right"):
        with open(f"{AT}/{name}", "w") as file:
            file.write(f"{number:06d}" * 1000)
    data.commit()
    return number


@app.cls(volumes={AT: data}, enable_memory_snapshot=True)
class Model:
    @swell.enter(snap=True)
    def load(self) -> None:
        self.weights = open(f"{AT}/weights").read()
        self.can_write = os.access(AT, os.W_OK)

    @swell.method()
    def tell(self) -> list:
        return [self.weights, self.can_write]


opened = []


def work(todo: list, at: str = AT) -> object:
    said = []
    for what, *words in todo:
        path = f"{at}/{words[0]}" if words else at
        if what == "write":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(words[1])
        elif what == "read":
            said.append(open(path).read() if os.path.exists(path) else None)
        elif what == "remove":
            os.unlink(path)
        elif what == "open":
            opened.append(open(path))
        elif what == "enter":
            os.chdir(at)
        elif what == "leave":
            os.chdir("/")
            while opened:
                opened.pop().close()
        elif what == "list":
            said.append(sorted(os.listdir(at)))
        elif what in ("commit", "reload"):
            getattr(data, what)()
        elif what == "pid":
            said.append(os.getpid())
    return said
"""


@pytest.fixture(scope="module")
def own_swell() -> Iterator[PrivateSwell]:
    """One that starts its processes again however often they are killed, also once it was stopped and started."""
    with private_swell({**os.environ, "SWELL_RESTARTS_WITHIN_S": "1"}) as swell:
        yield swell


@pytest.fixture
def shelf(own_swell: PrivateSwell, tmp_path: Path) -> Iterator[PrivateSwell]:
    """The program, deployed with an empty volume."""
    file = tmp_path / "shelf.py"
    file.write_text(PROGRAM.replace('"AT")', repr(f"{tmp_path}/at") + ")"))
    own_swell.run("deploy", str(file))
    yield own_swell
    with suppress(Failed):
        own_swell.run("app", "stop", "shelf")
    wait_until("the app is gone", lambda: not own_swell.replicas())
    for row in own_swell.get("/api/volumes"):
        own_swell.run("volume", "delete", row["name"])


def call(swell: PrivateSwell, function: str, *todo: list[str]) -> Any:
    with swell.connect() as client:
        return client.call(f"shelf/{function}", {"todo": todo}).value


def refused(swell: PrivateSwell, function: str, *todo: list[str]) -> str:
    """What the call failed with."""
    with pytest.raises(Failed) as raised:
        call(swell, function, *todo)
    return str(raised.value)


def files(swell: PrivateSwell) -> dict[str, str]:
    """What is in the newest version, as it is seen from outside."""
    volume = "/api/volumes/default/data"
    rows = swell.get(f"{volume}/files?recursive=true")
    with swell.connect() as client:
        return {
            row["path"]: client.get(f"{volume}/content?path={quote(row['path'])}").body.decode()
            for row in rows
            if row["kind"] == "file"
        }


def replica(swell: PrivateSwell, function: str) -> dict[str, Any]:
    (found,) = [row for row in swell.serving() if row["workload"].endswith(f"shelf/{function}")]
    return found


def views(swell: PrivateSwell) -> list[str]:
    return sorted(os.listdir(swell.home / "mounts" / "views"))


@pytest.mark.shows("App.function", "volumes")
def test_what_is_committed_is_seen_after_a_reload_and_nothing_else(shelf: PrivateSwell) -> None:
    assert call(shelf, "two", ["list"]) == [[]]
    call(shelf, "one", ["write", "a", "first"])
    assert call(shelf, "two", ["reload"], ["read", "a"]) == [None]
    call(shelf, "one", ["commit"])
    assert call(shelf, "two", ["read", "a"]) == [None]
    assert call(shelf, "two", ["reload"], ["read", "a"]) == ["first"]
    # Who starts finds it.
    assert call(shelf, "reader", ["list"], ["read", "a"]) == [["a"], "first"]
    call(shelf, "one", ["remove", "a"], ["write", "d/b", "second"], ["commit"])
    assert call(shelf, "reader", ["read", "a"], ["reload"], ["list"]) == ["first", ["d"]]
    assert files(shelf) == {"d/b": "second"}
    applied = replica(shelf, "two")["applied"]
    assert any(words.startswith("volume data v") for words in applied)


def test_two_that_commit_meet_file_by_file(shelf: PrivateSwell) -> None:
    call(shelf, "one", ["write", "both", "one"], ["write", "of-one", "1"], ["write", "gone", "x"], ["commit"])
    call(shelf, "two", ["reload"])
    call(shelf, "one", ["remove", "gone"], ["write", "both", "one again"])
    call(shelf, "two", ["write", "both", "two"], ["write", "of-two", "2"], ["commit"])
    call(shelf, "one", ["commit"])
    assert files(shelf) == {"both": "one again", "of-one": "1", "of-two": "2"}
    # What was committed once is not committed again: the other's is newer.
    call(shelf, "two", ["reload"], ["write", "both", "two is last"], ["commit"])
    call(shelf, "one", ["write", "new", "n"], ["commit"])
    assert files(shelf)["both"] == "two is last"
    assert call(shelf, "one", ["reload"], ["read", "both"]) == ["two is last"]


def test_a_reload_says_which_files_are_open(shelf: PrivateSwell, tmp_path: Path) -> None:
    call(shelf, "one", ["write", "a", "1"], ["commit"])
    call(shelf, "two", ["reload"], ["open", "a"])
    call(shelf, "one", ["write", "a", "2"], ["commit"])
    told = refused(shelf, "two", ["reload"])
    assert "volume 'data' cannot be reloaded while files of it are open here" in told
    assert f"{tmp_path}/at/a" in told
    call(shelf, "two", ["leave"], ["enter"])
    assert "the working directory" in refused(shelf, "two", ["reload"])
    assert call(shelf, "two", ["leave"], ["reload"], ["read", "a"]) == ["2"]


def test_what_may_not_be_is_refused(shelf: PrivateSwell) -> None:
    assert "Read-only file system" in refused(shelf, "reader", ["write", "x", "x"])
    assert "read-only here" in refused(shelf, "reader", ["commit"])
    with shelf.connect() as client:
        with pytest.raises(Failed, match=r"write `await volume\.commit\.aio\(\)`"):
            client.call("shelf/later", {"how": "plain"})
        assert client.call("shelf/later", {"how": "aio"}).value == []
    with pytest.raises(Failed, match="is used by shelf"):
        shelf.run("volume", "delete", "data")


def test_a_quota_is_kept_and_nothing_half_done(shelf: PrivateSwell) -> None:
    shelf.run("volume", "quota", "data", "--bytes-max", "1000", "--files-max", "3")
    call(shelf, "one", ["write", "a", "x" * 900], ["commit"])
    call(shelf, "one", ["write", "b", "y" * 50], ["write", "c", "z" * 51])
    told = refused(shelf, "one", ["commit"])
    assert "would have 1001 bytes, and may have 1000 (its own quota)" in told
    assert list(files(shelf)) == ["a"]
    call(shelf, "one", ["remove", "c"], ["commit"])
    assert list(files(shelf)) == ["a", "b"]
    call(shelf, "one", ["write", "d", ""], ["write", "e", ""])
    assert "4 files, and may have 3" in refused(shelf, "one", ["commit"])
    assert "already" not in shelf.run("volume", "quota", "data", "--bytes-max", "950")
    for less in (("--bytes-max", "10"), ("--bytes-max", "1000", "--files-max", "1")):
        assert "and 2 files already" in shelf.run("volume", "quota", "data", *less)


def test_a_sandbox_has_them_as_nobody(shelf: PrivateSwell) -> None:
    call(shelf, "one", ["write", "a", "1"], ["write", "d/b", "b"], ["commit"])
    assert call(shelf, "boxed", ["read", "a"], ["write", "d/b", "boxed"], ["write", "e/f", "new"], ["commit"]) == ["1"]
    assert files(shelf) == {"a": "1", "d/b": "boxed", "e/f": "new"}
    call(shelf, "one", ["write", "a", "2"], ["commit"])
    assert call(shelf, "boxed", ["reload"], ["read", "a"], ["read", "e/f"]) == ["2", "new"]
    # Its second wall for files knows the new one, too.
    call(shelf, "boxed", ["write", "a", "boxed again"], ["write", "g/h", "new"], ["remove", "e/f"], ["commit"])
    assert files(shelf) == {"a": "boxed again", "d/b": "boxed", "g/h": "new"}
    call(shelf, "one", ["reload"])
    call(shelf, "boxed", ["open", "a"])
    call(shelf, "one", ["write", "a", "3"], ["commit"])
    assert "/data/a" in refused(shelf, "boxed", ["reload"])


@pytest.mark.shows("Volume.with_mount_options", "sub_path", "read_only")
def test_a_part_of_it(shelf: PrivateSwell) -> None:
    assert call(shelf, "part", ["list"], ["write", "x/a", "1"], ["commit"]) == [[]]
    assert files(shelf) == {"part/x/a": "1"}
    call(shelf, "one", ["reload"], ["write", "part/y", "2"], ["write", "else", "3"], ["commit"])
    assert call(shelf, "part", ["reload"], ["list"]) == [["x", "y"]]


def test_what_ends_in_order_has_committed_and_what_is_killed_has_not(shelf: PrivateSwell) -> None:
    with shelf.connect() as client:
        client.call("shelf/once", {"name": "by-once"})
    wait_until("it is committed", lambda: "by-once" in files(shelf))
    call(shelf, "one", ["write", "lost", "x"])
    (pid,) = call(shelf, "one", ["pid"])
    os.kill(pid, signal.SIGKILL)
    wait_until("it is over", lambda: not [row for row in shelf.serving() if row["pid"] == pid])
    call(shelf, "two", ["write", "kept", "x"])
    shelf.run("app", "stop", "shelf")
    wait_until("the app is gone", lambda: not shelf.replicas())
    wait_until("it is committed", lambda: "kept" in files(shelf))
    assert files(shelf) == {"by-once": "once", "kept": "x"}
    wait_until("nothing is left of them", lambda: not views(shelf))


@pytest.mark.shows("App.cls", "volumes")
def test_a_template_loads_what_is_put_in_later(shelf: PrivateSwell, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("first")
    shelf.run("volume", "put", "data", str(weights))
    with shelf.connect() as client:
        assert client.call("shelf/Model.tell").value == ["first", False]
        (template,) = [row for row in shelf.replicas() if row["role"] == "template"]
        weights.write_text("second")
        shelf.run("volume", "put", "data", str(weights), "-f")
        wait_until("its template is disposed of", lambda: template["id"] not in [r["id"] for r in shelf.replicas()])
        pid = replica(shelf, "Model")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until("it is over", lambda: not [row for row in shelf.serving() if row["pid"] == pid])
        wait_until("another tells", lambda: client.call("shelf/Model.tell").value == ["second", False])


def test_a_runner_that_is_killed_leaves_what_runs_able_to_commit(shelf: PrivateSwell) -> None:
    call(shelf, "one", ["write", "a", "1"], ["commit"], ["write", "b", "2"])
    call(shelf, "two", ["write", "lost", "x"])
    runner, (pid,) = shelf.server("runner"), call(shelf, "two", ["pid"])
    os.kill(runner, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until("there is another runner", lambda: another(shelf, "runner", runner))
    wait_until("it has taken over", lambda: [row["workload"] for row in shelf.serving()] == ["default/shelf/one"])
    wait_until("what was the other's is gone", lambda: len(views(shelf)) == 1)
    wait_until("it is reached again", lambda: call(shelf, "one", ["read", "b"]) == ["2"])
    call(shelf, "one", ["commit"])
    assert files(shelf) == {"a": "1", "b": "2"}
    shelf.run("volume", "rm", "data", "a")
    assert call(shelf, "one", ["reload"], ["list"]) == [["b"]]


def test_what_another_runner_started_commits_at_its_end(shelf: PrivateSwell) -> None:
    """That one is not its parent, and is never told its exit status."""
    call(shelf, "one", ["write", "a", "1"])
    (pid,) = call(shelf, "two", ["write", "lost", "x"], ["pid"])
    runner = shelf.server("runner")
    os.kill(runner, signal.SIGKILL)
    wait_until("there is another runner", lambda: another(shelf, "runner", runner))
    wait_until("it is reached again", lambda: call(shelf, "one", ["read", "a"]) == ["1"])
    os.kill(pid, signal.SIGKILL)
    shelf.run("app", "stop", "shelf")
    wait_until("the app is gone", lambda: not shelf.replicas())
    wait_until("it is committed", lambda: files(shelf) == {"a": "1"})


def test_a_commit_waits_for_a_control_that_is_started_again(shelf: PrivateSwell) -> None:
    call(shelf, "one", ["write", "a", "1"])
    os.kill(shelf.server("control"), signal.SIGKILL)
    call(shelf, "one", ["commit"])

    def answers() -> bool:
        # It takes commits before it answers commands.
        with suppress(Failed):
            return bool(files(shelf))
        return False

    wait_until("control answers", answers)
    assert files(shelf) == {"a": "1"}


def test_what_runs_when_the_server_ends_has_committed(shelf: PrivateSwell) -> None:
    call(shelf, "one", ["write", "a", "1"])
    shelf.run("down")
    shelf.run("up", "-d")
    assert files(shelf) == {"a": "1"}


@pytest.mark.timeout(600)
def test_a_version_is_whole_whatever_is_killed_when(shelf: PrivateSwell) -> None:
    """Each commit writes two files that say the same. Whoever looks meets a pair, never a mix."""
    chance = random.Random(7)
    with shelf.connect() as client:
        client.call("shelf/counter", {"number": 0})
    for number in range(1, 9):
        victim = chance.choice(["control", "runner", "control"])
        pid = shelf.server(victim)
        env = {**os.environ, "SWELL_HOME": str(shelf.home)}
        argv = [sys.executable, "-m", "swell.cli.main", "call", "shelf/counter", json.dumps({"number": number})]
        calling = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 0.6))
        os.kill(pid, signal.SIGKILL)
        calling.wait(WAIT_S)
        wait_until(f"another {victim}", lambda pid=pid, victim=victim: another(shelf, victim, pid))
        wait_until("the API answers", lambda: answers(shelf))
        assert pair(shelf) <= number
    wait_until("it works again", lambda: commits(shelf, 99))
    assert pair(shelf) == 99


def pair(swell: PrivateSwell) -> int:
    """What both files of the newest version say. Asked for at once: a replica that ends meanwhile commits, too."""
    rows = json.loads(swell.run("volume", "ls", "data", "-r", "--json"))
    (said,) = {row["digest"] for row in rows}
    assert [row["path"] for row in rows] == ["left", "right"]
    numbers = {f"sha256-{hashlib.sha256(b'%06d' % number * 1000).hexdigest()}": number for number in range(100)}
    return numbers[said]


def another(swell: PrivateSwell, name: str, pid: int) -> bool:
    with suppress(Failed):
        return swell.server(name) != pid
    return False


def answers(swell: PrivateSwell) -> bool:
    with suppress(Failed):
        return bool(swell.get("/api/volumes"))
    return False


def commits(swell: PrivateSwell, number: int) -> bool:
    with swell.connect() as client, suppress(Failed):
        return client.call("shelf/counter", {"number": number}).status == 200
    return False


def test_large_files_pass_in_little_memory(shelf: PrivateSwell, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with open(large, "wb") as file:
        for number in range(300):
            file.write(bytes([number % 256]) * 2**20)
    before = {name: resident_mib(shelf.server(name)) for name in ("control", "gateway")}
    shelf.run("volume", "put", "data", str(large), "deep/large.bin", wait_s=120)
    shelf.run("volume", "get", "data", "deep/large.bin", str(tmp_path / "back"), wait_s=120)
    for name, mib in before.items():
        assert resident_mib(shelf.server(name)) < mib + 100, name
    assert digest(tmp_path / "back") == digest(large)


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_nothing_is_left_where_they_were_mounted(shelf: PrivateSwell, tmp_path: Path) -> None:
    call(shelf, "one", ["list"])
    assert (tmp_path / "at").is_dir()
    assert not os.listdir(tmp_path / "at")
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    shelf.run("app", "stop", "shelf")
    wait_until("the app is gone", lambda: not shelf.replicas())
    os.kill(shelf.server("runner"), signal.SIGKILL)
    wait_until("the next runner has removed it", lambda: not (tmp_path / "at").exists())
