"""Is `swell shell` in what the function has, a terminal that behaves, and gone when either end is?"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from private_swell import PrivateSwell, private_swell, wait_until
from swell.model.isolation import LAYERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import swell

app = swell.App("garden", image=swell.Image.debian_slim().env({"PLACE": "the image"}))
TASTE = "mild"

@app.function(env={"OWN": "of leek"}, secrets=[swell.Secret.from_name("hub")], memory=(64, 300))
def leek() -> str:
    return TASTE

@app.cls(image=swell.Image.debian_slim().env({"OWN": "of the box"}))
class Box:
    @swell.method()
    def open(self) -> str:
        return "open"
"""
BROKEN = "import nowhere_to_be_found\n"
SECRET = "s3cr3t-of-the-hub"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def garden(own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("garden") / "garden.py"
    path.write_text(PROGRAM)
    own_swell.run("secret", "create", "hub", f"TOKEN={SECRET}")
    own_swell.run("deploy", str(path))
    return path


def piped(swell: PrivateSwell, *words: str, said: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """A shell without a terminal, that ends with this exit code."""
    done = subprocess.run(
        ["swell", "shell", *words], env=swell.environ, input=said, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def shells(swell: PrivateSwell) -> list[dict[str, object]]:
    return [one for one in swell.replicas() if re.search(r"--[0-9a-f]{8}/", str(one["workload"]))]


def gone(swell: PrivateSwell) -> None:
    """Neither replica nor app of a shell is left."""

    def none() -> bool:
        left = [one for one in swell.get("/api/apps") if "--" in one["name"]]
        return not left and all(one["phase"] == "gone" for one in shells(swell))

    wait_until("nothing is left of the shell", none, wait_s=WAIT_S)


class Terminal:
    """`swell shell` in a terminal of its own, as a person has it."""

    def __init__(self, swell: PrivateSwell, *words: str) -> None:
        self.master, slave = os.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            ["swell", "shell", *words],
            env={**swell.environ, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.heard = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown up to there, and no more is looked at again."""
        until = time.monotonic() + WAIT_S
        while (found := re.search(pattern, self.heard)) is None:
            if not select.select([self.master], [], [], max(0.0, until - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} was not shown: {self.heard!r}")
            self.heard += os.read(self.master, 65536).decode(errors="replace")
        shown, self.heard = self.heard[: found.end()], self.heard[found.end() :]
        return shown

    def end(self) -> int:
        """Its exit code; what it still shows is read meanwhile, or it would wait."""
        until = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < until:
            if select.select([self.master], [], [], 0.05)[0]:
                self.heard += os.read(self.master, 65536).decode(errors="replace")
        assert self.process.returncode is not None, self.heard
        return self.process.returncode

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before


# -- what it has ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "deployed"])
def test_it_has_what_the_function_has(own_swell: PrivateSwell, garden: Path, kind: str) -> None:
    reference = f"{garden}::leek" if kind == "file" else "garden/leek"
    code = (
        "import garden, os, resource, sys; print(garden.leek.local(), os.environ['PLACE'], os.environ['OWN'], "
        "os.environ['TOKEN'], os.path.exists('garden.py'), sys.executable)"
    )
    done = piped(own_swell, reference, "--cmd", f'python -c "{code}"')
    assert done.stdout.split() == ["mild", "the", "image", "of", "leek", SECRET, "True", sys.executable]
    # Neither the log nor anything else has what a secret is.
    assert SECRET not in done.stderr
    gone(own_swell)


def test_a_class_and_one_that_is_alone_need_no_more_words(
    own_swell: PrivateSwell, garden: Path, tmp_path: Path
) -> None:
    assert piped(own_swell, f"{garden}::Box", "--cmd", "printenv OWN").stdout == "of the box\n"
    assert piped(own_swell, "garden/Box.open", "--cmd", "printenv OWN").stdout == "of the box\n"
    alone = tmp_path / "alone.py"
    alone.write_text('import swell\napp = swell.App("alone")\n\n@app.function()\ndef f():\n    pass\n')
    assert piped(own_swell, str(alone), "--cmd", "echo here").stdout == "here\n"
    assert piped(own_swell, "--cmd", "python -c 'import sys; print(sys.executable)'").stdout.strip() == sys.executable


def test_limits_hold_in_it(own_swell: PrivateSwell, garden: Path) -> None:
    done = subprocess.run(
        ["swell", "shell", "garden/leek", "--cmd", "python -c 'x = bytearray(900 * 2**20); print(len(x))'"],
        env=own_swell.environ,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode != 0
    assert str(900 * 2**20) not in done.stdout


# -- without a terminal -----------------------------------------------------------------------------------


def test_what_is_piped_in_is_run_and_both_outputs_and_the_exit_code_come_back(
    own_swell: PrivateSwell, garden: Path
) -> None:
    done = piped(
        own_swell, "garden/leek", said="echo out; echo err >&2; read line; echo got $line; exit 7\nlast\n", code=7
    )
    assert done.stdout == "out\ngot last\n"
    assert done.stderr.endswith("err\n")
    big = "x" * 79 + "\n"
    done = piped(own_swell, "garden/leek", "--cmd", "cat", said=big * 20_000)
    assert done.stdout == big * 20_000
    piped(own_swell, "garden/leek", "--cmd", "sh -c 'kill -TERM $$'", code=128 + signal.SIGTERM)
    told = piped(own_swell, "--cmd", "nowhere-at-all; ls", code=127).stderr
    assert "nowhere-at-all; cannot be run: No such file" in told
    assert "sh -c 'a; b'" in told
    assert "/etc cannot be run: Permission denied" in piped(own_swell, "--cmd", "/etc", code=126).stderr
    with open(garden) as file:
        told = subprocess.run(
            ["swell", "shell", "--cmd", "cat"],
            env=own_swell.environ,
            stdin=file,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
    assert told.stdout == PROGRAM
    gone(own_swell)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["garden/nothing"], "App garden has no function 'nothing'. Choose from: Box, leek."),
        (["nowhere/leek"], "There is no app 'nowhere'"),
        (["nowhere.py"], "There is no file 'nowhere.py'"),
        (["r1-99"], "A shell cannot enter r1-99: a replica is its function's alone"),
        (["{garden}"], "Which one? Write {garden}::Box; choose from: Box, leek."),
        (["{garden}::carrot"], "There is no function 'carrot' in {garden}. Choose from: Box, leek."),
        (["{broken}"], "nowhere_to_be_found"),
    ],
)
def test_what_it_cannot_be_beside_is_said(
    own_swell: PrivateSwell, garden: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(BROKEN)
    places = {"garden": str(garden), "broken": str(broken)}
    done = piped(own_swell, *(word.format(**places) for word in words), "--cmd", "true", code=1)
    assert says.format(**places) in done.stderr


def test_a_replica_is_named_with_its_function(own_swell: PrivateSwell, garden: Path) -> None:
    own_swell.run("call", "garden/leek")
    replica = next(str(one["id"]) for one in own_swell.replicas() if one["workload"] == "default/garden/leek")
    assert "`swell shell garden/leek` opens one" in piped(own_swell, replica, code=1).stderr


def test_words_that_cannot_be_read_are_wrong_usage(own_swell: PrivateSwell) -> None:
    assert "No closing quotation" in piped(own_swell, "--cmd", "echo 'x", code=2).stderr


# -- in a terminal ------------------------------------------------------------------------------------


def test_a_terminal_is_one(own_swell: PrivateSwell, garden: Path) -> None:
    with Terminal(own_swell, "garden/leek") as terminal:
        terminal.until(r"garden-leek \$ ")
        assert terminal.raw
        terminal.type("tty; stty size\n")
        terminal.until(r"/dev/pts/\d+\r\n24 80\r\n")
        terminal.size(40, 100)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.type("until stty size | grep -q '40 100'; do sleep 0.1; done; echo res''ized\n")
        terminal.until("resized\r\n")
        # Ctrl-C is for what runs there, and the shell goes on.
        terminal.type("echo beg''un; sleep 1000\n")
        terminal.until("begun\r\n")
        # Only then the terminal is its.
        wait_until(
            "it runs",
            lambda: any("sleep 1000" in process.command for process in own_swell.processes()),
            wait_s=WAIT_S,
        )
        terminal.type("\x03")
        terminal.until(r"\^C[\s\S]*garden-leek \$ ")
        terminal.type("echo still $((1 + 1))\n")
        terminal.until("still 2\r\n")
        # Ctrl-D ends it, with the code of what ran last.
        terminal.type("(exit 5)\n")
        # Typed while that runs, it would be for that.
        terminal.until(r"\(exit 5\)\r\n[\s\S]*garden-leek \$ ")
        terminal.type("\x04")
        assert terminal.end() == 5
        assert terminal.restored
    gone(own_swell)


def test_a_python_prompt(own_swell: PrivateSwell, garden: Path) -> None:
    with Terminal(own_swell, f"{garden}::leek", "--cmd", "python -q") as terminal:
        terminal.until(">>> ")
        terminal.type("from garden import leek; leek.local() * 2\n")
        terminal.until("'mildmild'")
        terminal.type("raise SystemExit(3)\n")
        assert terminal.end() == 3
        assert terminal.restored


def test_in_a_sandbox_it_is_in_the_sandbox(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "caged.py"
    path.write_text(
        f"""import swell
app = swell.App("caged")

@app.function()
@swell.isolated(optional={sorted(LAYERS)})
def f():
    pass
"""
    )
    with Terminal(own_swell, str(path)) as terminal:
        terminal.until(r"f \$ ")
        (applied,) = [one["applied"] for one in shells(own_swell) if one["phase"] == "ready"]
        walls = next(words for words in applied if words.startswith("sandbox: "))
        terminal.type(f"echo user $(id -u) on $(tty) sees $(ls {own_swell.home}/key 2>/dev/null | wc -l)\n")
        shown = terminal.until(r"user \d+ on \S+ sees \d+\r\n")
        if "capabilities" in walls:
            assert "user 65534 " in shown
        if "mount" in walls:
            assert "on /dev/pts/0 sees 0" in shown
        terminal.type("exit 4\n")
        assert terminal.end() == 4
        assert terminal.restored
    gone(own_swell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_its_command_and_the_terminal_is_as_before(
    own_swell: PrivateSwell, garden: Path, number: int
) -> None:
    with Terminal(own_swell, "garden/leek") as terminal:
        terminal.until(r"garden-leek \$ ")
        terminal.process.send_signal(number)
        assert terminal.end() == 128 + number
        assert terminal.restored
    gone(own_swell)


def test_nothing_is_left_when_its_command_is_killed(own_swell: PrivateSwell, garden: Path) -> None:
    with Terminal(own_swell, "garden/leek") as terminal:
        terminal.until(r"garden-leek \$ ")
        # One in the background, one that does not listen, one that left the terminal.
        terminal.type(
            "sleep 12341 & (trap '' HUP TERM; sleep 12342) & nohup sleep 12343 >/dev/null 2>&1 & echo beg''un\n"
        )
        terminal.until("begun\r\n")
        wait_until(
            "all are there",
            lambda: sum("sleep 1234" in process.command for process in own_swell.processes()) >= 3,
            wait_s=WAIT_S,
        )
        terminal.process.kill()
        assert terminal.process.wait() == -signal.SIGKILL
        wait_until(
            "what it started is gone",
            lambda: not any("sleep 1234" in process.command for process in own_swell.processes()),
            wait_s=WAIT_S,
        )
    gone(own_swell)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_program_that_reads_nothing_of_its_input(
    own_swell: PrivateSwell, garden: Path, end: signal.Signals
) -> None:
    words = ["swell", "shell", "--cmd", "sh -c 'echo begun; exec sleep 1000'"]
    with (
        subprocess.Popen(["yes"], stdout=subprocess.PIPE) as source,
        subprocess.Popen(words, env=own_swell.environ, stdin=source.stdout, stdout=subprocess.PIPE) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            # Until nothing more of what is piped in is taken.
            before = -1
            while before != (before := _written(source.pid)):
                time.sleep(0.3)
            process.send_signal(end)
            process.wait(WAIT_S)
            gone(own_swell)
        finally:
            process.kill()
            source.kill()


def _written(pid: int) -> int:
    """Bytes that a process has written."""
    return int(re.search(r"wchar: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])  # type: ignore[index]


def test_more_is_piped_in_than_may_be_on_its_way(own_swell: PrivateSwell) -> None:
    assert piped(own_swell, "--cmd", "wc -c", said="x" * 3_000_000).stdout.strip() == "3000000"


def test_a_server_that_stops_says_so(garden: Path) -> None:
    with private_swell() as swell, Terminal(swell, "--pty") as terminal:
        terminal.until(r"shell \$ ")
        swell.run("down")
        terminal.until("The shell was ended: ")
        assert terminal.end() == 1
        assert terminal.restored


def test_a_server_is_started_for_it_where_there_is_none(idle: PrivateSwell, garden: Path) -> None:
    assert piped(idle, said="echo here; exit 9\n", code=9).stdout == "here\n"
    # What is deployed is nowhere without one.
    assert "No Swell server" in piped(idle, "garden/leek", code=1).stderr
    wait_until("the server has ended with it", lambda: not idle.processes(), wait_s=WAIT_S)


# -- who may ------------------------------------------------------------------------------------------


def test_a_key_that_may_call_opens_none_and_one_that_may_deploy_does(own_swell: PrivateSwell, garden: Path) -> None:
    for scope, code in (("call:default/*", 1), ("deploy:default/*", 0)):
        key = own_swell.run("key", "create", f"for-{scope[:4]}", "--scope", scope).strip()
        done = subprocess.run(
            ["swell", "shell", "garden/leek", "--cmd", "echo in"],
            env={**own_swell.environ, "SWELL_KEY": key, "SWELL_URL": f"http://127.0.0.1:{own_swell.port}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert ("deploy:default/garden" in done.stderr) is (code == 1)
        assert done.stdout == ("in\n" if code == 0 else "")
