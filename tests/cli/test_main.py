"""Is the command line light, does it say what went wrong in a sentence, and does it end with the right code?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from swell.cli.main import COMMANDS
from swell.cli.main import swell as program

HEAVY = ("rich", "httpx2", "httptools", "uvloop", "starlette", "uvicorn", "prometheus_client", "asyncio")
OURS = ("api", "control", "decide", "engines", "gateway", "runtime", "sdk", "serve", "store", "supervise")


def swell(*words: str, said: str = "", cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell", *words],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("SWELL_")}, **environ},
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_imports_no_server_and_nothing_heavy(words: list[str]) -> None:
    program = f"import sys, json; from swell.cli.main import run; run({words}); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    *shown, modules = done.stdout.splitlines()
    assert shown[0].startswith("Usage: swell")
    loaded = json.loads(modules)
    unwanted = [*HEAVY, *(f"swell.{name}" for name in OURS)]
    assert [
        name for name in loaded if name.startswith(tuple(f"{each}." for each in unwanted)) or name in unwanted
    ] == []


def test_the_help_lists_every_command_with_a_sentence() -> None:
    shown = swell("--help").stdout
    listed = [line.split() for line in shown.partition("Commands:")[2].splitlines() if line.strip()]
    assert [words[0] for words in listed] == list(COMMANDS)
    assert all(len(words) > 3 for words in listed)
    # None is cut, however narrow the terminal of the usual kind is.
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_whatever_lists_or_shows_something_can_do_so_in_json() -> None:
    """`swell call` prints JSON anyway."""
    commands = {name: program.get_command(click.Context(program), name) for name in COMMANDS}
    every = {
        f"{name} {part}".strip(): command
        for name, whole in commands.items()
        for part, command in getattr(whole, "commands", {"": whole}).items()
    }
    shows = {
        name: command for name, command in every.items() if re.match("List|Show|Explain|Print", command.help or "")
    }
    assert {"app list", "ps", "logs", "why", "usage", "key list"} <= shows.keys()
    told = {name for name, command in shows.items() if any("--json" in one.opts for one in command.params)}
    assert shows.keys() - told == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command"),
        (["depoly"], "Did you mean 'deploy'?"),
        (["app", "lits"], "Did you mean 'list'?"),
        (["ps", "--nonsense"], "No such option"),
        (["logs", "--since", "yesterday"], "1h30m"),
        (["logs", "--since", "0"], "above 0"),
        (["logs", "--tail", "-3"], "-3 is no number of lines: give 0 or more, or -1 for all."),
        (["usage", "--since", "0s"], "above 0"),
        (["call", "no-slash"], "APP/FUNCTION"),
        (["call", "a/b/c/d"], "APP/FUNCTION"),
        (["call", "a/"], "APP/FUNCTION"),
        (["call", "a/f", "{"], "not JSON"),
        (["call", "a/f", "3"], "one bare value"),
        (["call", "a/f", "@/nonexistent"], "/nonexistent cannot be read: No such file or directory."),
        (["up", "--port", "many"], "not a valid integer"),
    ],
)
def test_wrong_usage_is_code_2_and_says_how(words: list[str], said: str, tmp_path: Path) -> None:
    done = swell(*words, SWELL_HOME=str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        ["app", "list"],
        ["app", "stop", "x"],
        ["call", "a/f"],
        ["logs"],
        ["why", "0b30b5fa04e1-2b"],
        ["why"],
        ["usage", "--json"],
    ],
)
def test_without_a_server_each_command_says_so(words: list[str], tmp_path: Path) -> None:
    done = swell(*words, SWELL_HOME=str(tmp_path), SWELL_PORT="1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: No Swell server at http://127.0.0.1:1.")
    assert "swell up" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logs", "shop", "--request", "nope"], "'nope' is no request's id"),
        (["why", "a/b"], "'a/b' is no request's id"),
        (["app", "stop", "../x"], "namespace '..' is no name"),
        (["down", "--home", "{there}/file"], "The state directory {there}/file cannot be used: it is a file, not a"),
        (["deploy", "missing.py"], "There is no file 'missing.py' (in {there})."),
        (["deploy", "missing.txt"], "There is no file or module 'missing.txt' (in {there})."),
        (["deploy", "file"], "file is not a Python file: its name has to end in .py."),
        (["run", "folder"], "folder is a folder: name a file in it, like folder/app.py."),
        (["run", "folder/"], "folder/ is a folder: name a file in it, like folder/app.py."),
        (["run", "my-app"], "There is no file 'my-app' (in {there}). Did you mean my-app.py?"),
        (["run", "json.nosuch"], "There is no file or module 'json.nosuch' (in {there})."),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "my-app.py").write_text("")
    (tmp_path / "folder").mkdir()
    done = swell(*[word.format(there=tmp_path) for word in words], cwd=tmp_path, SWELL_HOME=str(tmp_path / "h"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if not line.endswith("…")]
    assert line.startswith(f"Error: {said.format(there=tmp_path)}")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["missing.py", "missing.py::app", "nowhere_at_all"])
def test_nothing_is_begun_for_a_program_that_is_not_there(place: str, tmp_path: Path) -> None:
    done = swell("serve", place, cwd=tmp_path, SWELL_HOME=str(tmp_path / "h"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: There is no file ")
    assert not (tmp_path / "h").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("SWELL_URL", "nowhere", 2, "url is 'nowhere'; it must begin with http:// or https://"),
        ("SWELL_KEY", "one\ntwo", 1, "SWELL_KEY holds what no key does"),
        ("SWELL_KEY", "schlüssel", 1, "SWELL_KEY holds what no key does"),
    ],
)
def test_what_leads_to_no_server_is_named(name: str, value: str, code: int, said: str, tmp_path: Path) -> None:
    done = swell("ps", SWELL_HOME=str(tmp_path), **{name: value})
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_machines_server_needs_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-local\n")
    done = swell("ps", SWELL_HOME=str(tmp_path), SWELL_URL="http://far.example:8470")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Whether the server at http://far.example:8470 is the one on")
    assert "Set SWELL_KEY" in done.stderr
    assert "sk-local" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "nonsense=1"], 2, "Error: --set: there is no setting called 'nonsense'"),
        (["--set", "templates"], 2, "name=value"),
        (["--set", "hold_s=soon"], 2, "hold_s is 'soon'"),
        (["--port", "70000"], 2, "65535"),
        (["-d", "--port", "70000"], 2, "65535"),
        (["--home", "/proc/nothing"], 1, "cannot be used"),
        (["-d", "--home", "/proc/nothing"], 1, "cannot be used"),
        (["-d", "--home", "/tmp/" + "h" * 120], 1, "too long for unix sockets"),
        (["--attach-pid", "4194304"], 1, "no process 4194304"),
        (["--host", "192.0.2.1"], 1, "192.0.2.1"),
        (["-d", "--host", "192.0.2.1"], 1, "192.0.2.1"),
    ],
)
def test_up_refuses_in_a_sentence(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = swell("up", *words, SWELL_HOME=str(tmp_path / "h"))
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    # What was not there before is not there now.
    assert not (tmp_path / "h").exists()


def test_down_without_a_server_is_fine(tmp_path: Path) -> None:
    done = swell("down", "--home", str(tmp_path / "none"))
    assert done.returncode == 0
    assert done.stdout == f"No server runs on {tmp_path / 'none'}.\n"


@pytest.mark.slow
def test_a_traceback_of_ours_only_for_those_who_ask(tmp_path: Path) -> None:
    done = swell("ps", SWELL_HOME=str(tmp_path), SWELL_PORT="1", SWELL_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["ps"], 1), (["down"], 0), (["deploy", "no.py"], 1), (["nonsense"], 2)]
)
def test_without_stdin_stdout_or_stderr_it_does_the_same(
    closed: str, words: list[str], code: int, tmp_path: Path
) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "swell", *words]
    environ = {"SWELL_HOME": str(tmp_path), "SWELL_PORT": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ)
    assert (done.returncode, "Swell itself failed" in done.stderr) == (code, False)


@pytest.mark.slow
def test_where_no_home_can_be_found_it_is_said_what_to_set(tmp_path: Path) -> None:
    for words, environ in ((["ps"], {"SWELL_HOME": "~nobody-has-this-name/x"}), (["ps", "--home", "~nobody/x/~"], {})):
        done = swell(*words, **environ, HOME=str(tmp_path), SWELL_PORT="1")
        assert done.returncode > 0
        assert "Swell itself failed" not in done.stderr
    assert swell("ps", SWELL_HOME="~nobody-has-this-name/x").stderr == (
        "Error: No state directory: '~nobody-has-this-name/x' leads nowhere. Set SWELL_HOME (or --home) to a path.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"), [(["ps"], "No Swell server"), (["deploy", "x.py"], "(`cd`)"), (["run", "x"], "(`cd`)")]
)
def test_a_working_directory_that_is_gone_is_no_fault_of_ours(words: list[str], said: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, "-m", "swell", *words]
    environ = {**os.environ, "SWELL_HOME": str(tmp_path), "SWELL_PORT": "1"}
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, cwd=gone, env=environ)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Swell itself failed" not in done.stderr


@pytest.mark.slow
def test_what_is_done_does_not_depend_on_whether_anybody_reads_how_far_it_is(tmp_path: Path) -> None:
    shell = ["sh", "-c", '"$@" 2>&1 >out | true', "sh", sys.executable, "-m", "swell.cli.main", "down"]
    subprocess.run(shell, timeout=60, cwd=tmp_path, env={**os.environ, "SWELL_HOME": str(tmp_path)}, check=True)
    assert (tmp_path / "out").read_text() == f"No server runs on {tmp_path}.\n"


@pytest.mark.slow
def test_output_that_cannot_be_written_is_said_to_be_lost() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "swell.cli.main", "--help"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "Error: Output cannot be written: No space left on device.\n")


def main_after(first: str, command: str) -> subprocess.CompletedProcess[str]:
    """The command line, once the process itself has done what comes first."""
    program = f"import atexit, os, signal, sys, click; from swell.cli import main; {first}; main.main()"
    return subprocess.run([sys.executable, "-c", program, command], capture_output=True, text=True, timeout=60)


def test_a_ctrl_c_after_the_end_is_known_changes_nothing() -> None:
    done = main_after("atexit.register(os.kill, os.getpid(), signal.SIGINT)", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("swell 0.")


@pytest.mark.slow
def test_a_ctrl_c_while_one_is_told_of_is_the_same_one() -> None:
    kill = "kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    done = main_after(f"{kill}; click.echo = main.swell.main = kill", "ps")
    assert (done.returncode, done.stderr) == (130, "")


def test_the_version() -> None:
    assert swell("--version").stdout.startswith("swell 0.")
