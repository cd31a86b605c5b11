"""Does a sandbox hold what is in it? A hostile app on a real server tries to get out; what happened is looked at from
outside. That an attempt is a real one is shown, where it does no harm, by the same from a replica without a sandbox.

Where this machine cannot put up a layer, its tests see that a deploy that requires it is refused and names it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from escape.at_import import MARK
from private_swell import Failed, PrivateSwell, private_swell, wait_until
from swell.model.isolation import LAYERS
from swell.runtime.runner.secrets import files_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTILE = Path(__file__).with_name("hostile.py").read_text()
REFUSED = re.compile(r"lacks its layer '(\w+)'")


class Cage(NamedTuple):
    swell: PrivateSwell
    lacking: dict[str, str]
    """Layer this machine lacks → what the deploy that required it said."""
    tried: list[str]
    """What was attempted in a sandbox since the test began, and what came of it."""

    def attempt(self, function: str, what: str, *args: Any) -> str:
        with self.swell.connect() as client:
            outcome = str(client.call(f"hostile/{function}", {"what": what, "args": list(args)}).value)
        if function != "free":
            self.tried.append(f"{what} {outcome}")
        return outcome

    def ask(self, function: str) -> Any:
        with self.swell.connect() as client:
            return client.call(f"hostile/{function}").value


@pytest.fixture(scope="module")
def cage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cage]:
    program = tmp_path_factory.mktemp("hostile") / "hostile.py"
    lacking: dict[str, str] = {}
    with private_swell() as swell:
        while True:
            without = HOSTILE.replace("isolated(", f"isolated(optional={sorted(lacking)}, ")
            program.write_text(without)
            try:
                swell.run("deploy", str(program))
                break
            except Failed as error:
                refused = REFUSED.search(str(error))
                if refused is None or refused[1] in lacking:
                    raise
                lacking[refused[1]] = str(error)
        yield Cage(swell, lacking, [])


@pytest.fixture(autouse=True)
def counted(cage: Cage, record_property: Callable[[str, str], None]) -> Iterator[None]:
    """What was tried is shown when all is over (`Attempts` in tests/conftest.py)."""
    cage.tried.clear()
    yield
    for attempt in cage.tried:
        record_property("attempt", attempt)


def there(cage: Cage, *layers: str) -> bool:
    """Are all these layers there? What is not was refused, by name and with a reason."""
    missing = [layer for layer in layers if layer in cage.lacking]
    for layer in missing:
        assert layer in LAYERS
        assert "Name it in @swell.isolated(optional=…)" in cage.lacking[layer]
    return not missing


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the node's user."""
    path = tmp_path / "victim"
    path.write_text("untouched")
    path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("pytest", tmp_path.name)):
            folder.chmod(0o755)
    return path


def test_files_outside(cage: Cage, victim: Path) -> None:
    if not there(cage, "mount"):
        return
    assert cage.attempt("caged", "write", str(victim)) == "ENOENT"
    assert cage.attempt("caged", "read", str(victim)) == "ENOENT"
    assert victim.read_text() == "untouched"
    for path in filter(os.path.exists, ("/etc/shadow", "/etc/fstab", "/var/lib/dpkg/status")):
        assert cage.attempt("caged", "read", path) == "ENOENT"
        assert os.geteuid() or cage.attempt("free", "read", path) == "done"
    assert cage.attempt("caged", "write", "/proc/sys/kernel/hostname") in ("EROFS", "EACCES")
    assert cage.attempt("free", "write", str(victim)) == "done"
    assert victim.read_text() == "out"


def test_folders_of_the_system(cage: Cage) -> None:
    """Two walls keep them, each by itself: a root that is read-only, and landlock where there is no such root."""
    if there(cage, "mount"):
        refusal = "EROFS"
    elif there(cage, "landlock"):
        refusal = "EACCES"
    else:
        return
    paths = [Path(folder, "swell-escaped") for folder in ("/etc", "/usr", "/")]
    try:
        assert [cage.attempt("caged", "write", str(path)) for path in paths] == [refusal] * 3
        assert not any(path.exists() for path in paths)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def test_the_servers_own_files(cage: Cage) -> None:
    if not there(cage, "mount"):
        return
    home = cage.swell.home
    for path in (home / "key", home / "call-key", home / "control.db", home / "logs" / "swell.log", home / "lock"):
        assert cage.attempt("caged", "read", str(path)) == "ENOENT"
    assert cage.attempt("free", "read", str(home / "key")) == "done"
    seen = cage.ask("looking")
    assert not any((home / "key").read_text().strip() in value for value in seen["environ"].values())
    assert "key" not in " ".join(seen["environ"]).lower()


def test_sockets_of_the_server_and_of_other_replicas(cage: Cage) -> None:
    if not there(cage, "mount"):
        return
    assert cage.ask("bystander") > 1
    (other,) = (one["id"] for one in cage.swell.serving() if one["workload"].endswith("/bystander"))
    run = cage.swell.home / "run"
    for path in (run / "control.sock", run / "api.sock", run / "r" / f"{other}.s"):
        assert path.is_socket()
        assert cage.attempt("caged", "connect", str(path)) == "ENOENT"
    assert cage.attempt("free", "connect", str(run / "r" / f"{other}.s")) == "done"


def test_who_says_to_be_another_replica_is_hung_up_on(cage: Cage) -> None:
    """The one socket of the runner that is seen inside: who connects is known from the kernel, not by what it says."""
    if not there(cage, "mount"):
        return
    pid = cage.ask("bystander")
    (other,) = (one["id"] for one in cage.swell.serving() if one["workload"].endswith("/bystander"))
    back = cage.swell.home / "run" / "back" / "runner.sock"
    assert cage.attempt("caged", "pretend", str(back), other, pid) == "told to end"
    assert cage.ask("bystander") == pid


def test_processes_outside(cage: Cage) -> None:
    if not there(cage, "pid"):
        return
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as outside:
        try:
            for pid in (outside.pid, cage.swell.server("runner"), cage.swell.server("gateway"), cage.ask("bystander")):
                assert cage.attempt("caged", "kill", pid) == "ESRCH"
                assert cage.attempt("caged", "read", f"/proc/{pid}/environ") == "ENOENT"
            assert outside.poll() is None
            assert cage.attempt("free", "kill", outside.pid) == "done"
            assert outside.wait(30) == -9
        finally:
            outside.kill()
    seen = cage.ask("looking")
    assert len(seen["pids"]) <= 4
    for name in ("environ", "mem", "maps", "fd/0", "root/etc/passwd"):
        assert cage.attempt("caged", "read", f"/proc/1/{name}") in ("EACCES", "EPERM", "ENOENT"), name
    assert cage.attempt("caged", "tell", "/proc/1/cmdline").strip("\0") == "", "it was forked from the runner"


def test_the_template_of_the_same_sandbox(cage: Cage) -> None:
    if not there(cage, "landlock", "pid"):
        return
    templates = {one["id"]: one["pid"] for one in cage.swell.replicas() if one["role"] == "template"}
    if landlock_abi() >= 6:
        assert cage.attempt("caged", "kill", 2) == "EPERM"
    assert cage.attempt("caged", "kill", 1) in ("EPERM", "done"), "the kernel keeps signals from a first process"
    now = {one["id"]: one["pid"] for one in cage.swell.replicas() if one["role"] == "template"}
    assert templates.items() <= now.items()


def landlock_abi() -> int:
    from swell.runtime.runner.sandbox import kernel

    return kernel.landlock_abi()


def test_a_socket_without_a_file_of_another_replica_of_the_same_sandbox(cage: Cage, tmp_path: Path) -> None:
    if not there(cage, "landlock") or landlock_abi() < 6:
        return
    name, over = "\0swell-escaped", Path("/tmp", f"swell-{tmp_path.name}-{os.getpid()}")
    with ThreadPoolExecutor(1) as other:
        listening = other.submit(cage.attempt, "caged", "listen", name, str(over))
        try:
            outcome = "ECONNREFUSED"
            while outcome == "ECONNREFUSED" and not listening.done():
                outcome = cage.attempt("caged", "connect", name)
            assert outcome == "EPERM"
        finally:
            # They share /tmp.
            cage.attempt("caged", "write", str(over))
            assert listening.result() == "done"
            over.unlink(missing_ok=True)


def test_message_queues_outside(cage: Cage) -> None:
    """They have no names but their keys."""
    if not there(cage, "ipc"):
        return
    libc, key = ctypes.CDLL(None, use_errno=True), int.from_bytes(os.urandom(3), "big") + 1
    queue = libc.msgget(key, 0o1666)
    try:
        assert cage.attempt("caged", "queue", key) == "ENOENT"
        assert cage.attempt("free", "queue", key) == "done"
    finally:
        libc.msgctl(queue, 0, None)


@pytest.mark.shows("isolated", "network")
@pytest.mark.parametrize("function", ["caged", "connected"])
def test_the_network(cage: Cage, function: str) -> None:
    """`connected` has the node's network: there the loopback is reached, and that is what it asked for."""
    if not there(cage, "network"):
        return
    expected = "ECONNREFUSED" if function == "caged" else "done"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(1.0)
        for port in (cage.swell.port, listening.getsockname()[1]):
            assert cage.attempt(function, "tcp", "127.0.0.1", port) == expected
        if function == "caged":
            with pytest.raises(TimeoutError):
                listening.accept()
            assert cage.ask("looking")["interfaces"] == ["lo"]
            assert cage.attempt("caged", "tcp", "192.0.2.1", 80) == "ENETUNREACH"
        else:
            listening.accept()[0].close()


def test_calls_of_others_say_why_they_are_refused(cage: Cage) -> None:
    if not there(cage, "network"):
        return
    said = cage.ask("calling")
    assert said.startswith("isolated: ")
    assert "@swell.isolated(network='node')" in said


RAW = {"packet": (17, 3, 0x0300), "icmp": (2, 3, 1), "raw tcp": (2, 3, 6), "crypto": (38, 5, 0), "machine": (40, 1, 0)}


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("function", ["caged", "connected"])
def test_raw_sockets(cage: Cage, function: str, kind: str) -> None:
    if there(cage, "seccomp"):
        assert cage.attempt(function, "open_socket", *RAW[kind]) == "EPERM"


CALLS = {
    "mount": ("mount", "/tmp"),
    "remount": ("remount", "/usr"),
    "chroot": ("chroot", "/tmp"),
    "ptrace": ("ptrace", 2),
    "user namespace": ("namespace", 0x10000000),
    "mount namespace": ("namespace", 0x00020000),
}


@pytest.mark.parametrize("call", CALLS)
def test_system_calls(cage: Cage, call: str) -> None:
    if there(cage, "seccomp"):
        before = Path("/proc/self/mounts").read_text()
        assert cage.attempt("caged", *CALLS[call]) == "EPERM"
        assert Path("/proc/self/mounts").read_text() == before


@pytest.mark.parametrize(
    "name", ["bpf", "keyctl", "add_key", "io_uring_setup", "perf_event_open", "userfaultfd", "kexec_load", "setns",
             "init_module", "process_vm_readv", "open_by_handle_at", "fsopen", "pidfd_getfd", "reboot"],
)  # fmt: skip
def test_system_calls_by_number(cage: Cage, name: str) -> None:
    from swell.runtime.runner.sandbox import bpf

    if there(cage, "seccomp"):
        number = bpf.MACHINES[os.uname().machine].refused[name]
        assert cage.attempt("caged", "syscall", number, 0, 0, 0, 0, 0) == "EPERM"


def test_privileges(cage: Cage) -> None:
    if not there(cage, "capabilities"):
        return
    seen = cage.ask("looking")
    assert seen["uid"] == 65534
    assert set(seen["capabilities"]) == {"0000000000000000"}
    assert cage.attempt("caged", "become_root") in ("EPERM", "EINVAL")


def test_what_runs_at_import_is_in_the_sandbox_too(cage: Cage) -> None:
    if not there(cage, *LAYERS):
        return
    cage.swell.run("deploy", str(Path(__file__).with_name("at_import.py")))
    with cage.swell.connect() as client:
        user, saw = client.call("at-import/saw").value
    assert user == 65534
    assert "Read-only file system" in saw[0] or "Permission denied" in saw[0]
    assert not Path(MARK).exists()


def test_a_fork_bomb(cage: Cage) -> None:
    if not there(cage, "cgroups"):
        return
    before = cage.ask("bystander")
    assert cage.attempt("roomy", "bomb_forks", 2000) == "EAGAIN"
    assert cage.ask("bystander") == before


def test_a_memory_bomb(cage: Cage) -> None:
    if not there(cage, "cgroups"):
        return
    before = cage.ask("bystander")
    with pytest.raises(Failed, match="replica_died") as died:
        cage.attempt("caged", "bomb_memory", 2000)
    request = json.loads(str(died.value).partition(": ")[2])["error"]["request"]
    assert "its memory limit was reached" in cage.swell.run("why", request)
    assert cage.ask("bystander") == before
    assert cage.attempt("caged", "read", "/etc/passwd") == "done", "another replica took over"


def test_scratch_folders_have_an_end(cage: Cage) -> None:
    if not there(cage, "mount"):
        return
    for folder in ("/tmp", "/dev/shm"):
        assert cage.attempt("caged", "fill", f"{folder}/much", 2000) == "ENOSPC"
    assert "much" not in os.listdir("/tmp")
    assert cage.ask("looking")["tmp"] == [name for name in cage.ask("looking")["tmp"] if name != "much"]


def test_what_was_put_up_is_shown(cage: Cage) -> None:
    cage.ask("looking")
    rows = [one for one in cage.swell.replicas() if one["workload"].endswith("/looking")]
    assert rows
    for row in rows:
        (said,) = (words for words in row["applied"] if words.startswith("sandbox: "))
        assert set(said.removeprefix("sandbox: ").split(", ")) == set(LAYERS) - set(cage.lacking)
        assert any(words.startswith("sandbox without ") for words in row["applied"]) == bool(cage.lacking)


SECRETIVE = """
import os, subprocess, swell
app = swell.App("secretive", secrets=[swell.Secret.from_name("db"), swell.Secret.from_dict({{"TOKEN": "brought-1"}})])

@app.function(min_containers=2)
@swell.isolated(optional={optional})
def look() -> dict[str, object]:
    folder = os.environ.get("SWELL_SECRETS_DIR", "")
    said = subprocess.run(["sh", "-c", 'cat "$SWELL_SECRETS_DIR/db/PASSWORD"'], capture_output=True, text=True).stdout
    files = {{os.path.join(at, name)[len(folder):]: os.stat(os.path.join(at, name)).st_mode & 0o777
             for at, _, names in os.walk(folder) for name in names}} if folder else {{}}
    return {{"folder": folder, "shell": said, "now": os.environ["PASSWORD"], "files": files}}

"""


def test_secrets_are_files_in_a_sandbox_too(cage: Cage, tmp_path: Path) -> None:
    """New values as well, in each of its replicas, and after the runner was killed."""
    swell = cage.swell
    swell.run("secret", "create", "db", "PASSWORD=first-value-1", "OLD=goes-away")
    program = tmp_path / "secretive.py"
    program.write_text(SECRETIVE.format(optional=sorted(cage.lacking)))
    swell.run("deploy", str(program))

    def look() -> dict[str, Any]:
        with swell.connect() as client:
            found: dict[str, Any] = client.call("secretive/look").value
            return found

    def pids() -> set[int]:
        ready = (one for one in swell.serving() if one["phase"] == "ready")
        return {one["pid"] for one in ready if one["workload"].endswith("/look")}

    try:
        look()
        (applied, *_) = (one["applied"] for one in swell.replicas() if one["workload"].endswith("secretive/look"))
        if not there(cage, "mount"):
            assert "no secrets as files" in applied
            assert look()["folder"] == ""
            return
        assert "secrets as files" in applied
        wait_until("both are there", lambda: len(pids()) == 2)
        before = pids()
        names = {"/db/PASSWORD": 0o600, "/db/OLD": 0o600, "/secretive/TOKEN": 0o600}
        assert [(found["shell"], found["files"]) for found in (look(), look())] == [("first-value-1", names)] * 2
        outside = files_folder(swell.home)
        assert outside is None or not outside.exists(), "the node has no file of them"
        swell.run("secret", "rotate", "db", "PASSWORD=second-value-2", "--unset", "OLD")
        wait_until("the file is new", lambda: look()["shell"] == "second-value-2")
        wait_until("what is gone is gone", lambda: "/db/OLD" not in look()["files"])
        runner = swell.server("runner")
        os.kill(runner, 9)
        wait_until("there is another runner", lambda: {*swell.servers("runner")} - {runner})
        swell.run("secret", "rotate", "db", "PASSWORD=third-value-3")
        wait_until("it is told by the next runner", lambda: look()["shell"] == look()["now"] == "third-value-3")
        wait_until("they are the same processes", lambda: before == pids())
        assert cage.attempt("caged", "read", "/dev/shm/swell-secrets/db/PASSWORD") == "ENOENT", "in another sandbox"
    finally:
        swell.run("app", "stop", "secretive")


FOLDERS = """
import os, swell
app = swell.App("folders")

@app.function()
@swell.isolated(readable=["{read}"], writable=["{write}"], optional={optional})
def use() -> list[str]:
    said = [open("{read}/model").read()]
    for folder in ("{read}", "{write}"):
        try:
            with open(folder + "/made", "w") as file:
                file.write("by nobody")
            said.append("written")
        except OSError as error:
            said.append(str(error.errno))
    return said
"""


@pytest.mark.shows("isolated", "readable", "writable")
def test_folders_that_are_named(cage: Cage, tmp_path: Path) -> None:
    if not there(cage, "mount"):
        return
    read, write = tmp_path / "read", tmp_path / "write"
    for folder in (read, write):
        folder.mkdir()
    write.chmod(0o777)
    (read / "model").write_text("weights")
    program = tmp_path / "folders.py"
    program.write_text(FOLDERS.format(read=read, write=write, optional=sorted(cage.lacking)))
    cage.swell.run("deploy", str(program))
    with cage.swell.connect() as client:
        assert client.call("folders/use").value == ["weights", "30", "written"]
    assert (write / "made").read_text() == "by nobody"
    assert not (read / "made").exists()


@pytest.mark.parametrize("state", [True, False])
def test_a_folder_that_cannot_be_given_is_refused_at_deploy(cage: Cage, tmp_path: Path, state: bool) -> None:
    if not there(cage, "mount"):
        return
    program = tmp_path / "wrong.py"
    folder = cage.swell.home.parent if state else tmp_path / "not-there"
    program.write_text(FOLDERS.format(read=folder, write=tmp_path, optional=sorted(cage.lacking)))
    with pytest.raises(Failed, match="the server's state directory" if state else "which is not on this node: make it"):
        cage.swell.run("deploy", str(program))
