"""Does `swell run` run a program as its author expects: flags, output, failures, interrupts, no server needed?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from journey.callers import opened_at_the_end
from journey.shell import begun, going, line
from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import sys, time
import swell

app = swell.App("tools")

def say(*words):
    # In one piece: what a replica prints may come at any time.
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

@app.function()
def add(a: int, b: float = 1.5, *, loud: bool = False, words: list[str] = []) -> str:
    "Sum up, and say some words."
    print("adding")
    return f"{a + b}{'!' if loud else ''}{'+'.join(words)}"

@app.function()
def count(to: int):
    yield from range(to)

@app.function()
def fail(code: int = 0):
    raise ValueError(f"no {code}")

@app.cls()
class Box:
    @swell.method()
    def open(self, name: str) -> str:
        return f"opened {name}"

@app.cls()
class Ledger:
    @swell.method()
    def add(self, row: str) -> str:
        return f"added {row}"

    @swell.exit()
    def close(self):
        time.sleep(1)
        print("closed")

@app.local_entrypoint()
def main(code: int = 0, remote: bool = False):
    say("here", add.remote(1))
    if remote:
        fail.remote(code)
    if code == 7:
        raise KeyError("mine")
    sys.exit(code)

@app.function(retries=swell.Retries(max_retries=2, initial_delay=0.0))
def flaky(folder: str):
    import pathlib
    tries = pathlib.Path(folder) / "tries"
    tries.write_text((tries.read_text() if tries.exists() else "") + "x")
    if tries.read_text() == "x":
        raise ValueError("no luck\\nat all")
    if tries.read_text() == "xx":
        crash.local()
    return "luck"

@app.function()
def ticks(folder: str):
    import pathlib
    yield 0
    for number in range(1, 4):
        print("tick", number)
        while not (pathlib.Path(folder) / str(number)).exists():
            time.sleep(0.02)

@app.function()
def crash():
    import os
    os._exit(3)

@app.local_entrypoint()
def wait():
    print("waiting", flush=True)
    time.sleep(200)

@app.local_entrypoint()
async def later(*words: str):
    say("words", *words, await add.remote.aio(2))
"""


STUBBORN = """
import time
import swell

app = swell.App("stubborn")

@app.local_entrypoint()
def main():
    said = "begun"
    while True:
        try:
            print(said, flush=True)
            time.sleep(100)
        except KeyboardInterrupt:
            said = "caught"
"""

THREADED = """
import pathlib, threading, time
import swell

app = swell.App("threaded")

@app.local_entrypoint()
def main(printed: str, seconds: int = 200):
    def go_on():
        threading.main_thread().join()
        print("on")
        time.sleep(1)
        pathlib.Path(printed).touch()
        time.sleep(seconds)
        print("through")
    threading.Thread(target=go_on).start()
    print("done")
"""

SLOW_END = """
import os, time
import swell

app = swell.App("slow-end")

@app.cls()
class Slow:
    @swell.method()
    def work(self):
        return "begun"

    @swell.exit()
    def close(self):
        while not os.path.exists(GATE):
            time.sleep(0.05)

@app.local_entrypoint()
def main():
    print(Slow().work.remote(), flush=True)
    time.sleep(200)
"""


@pytest.fixture
def tools(tmp_path: Path) -> str:
    path = tmp_path / "tools.py"
    path.write_text(PROGRAM)
    return str(path)


def swell_run(swell: PrivateSwell, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["swell", "run", *words], env=swell.environ, capture_output=True, text=True, timeout=120)


def test_a_function_runs_in_a_replica_with_typed_flags(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::add", "--a", "2", "--b=0.5", "--loud", "--words", "x", "--words", "y")
    assert done.returncode == 0, done.stderr
    # What the function printed on the way to its result stands before it.
    assert done.stdout.splitlines() == ["adding", "2.5!x+y"]


def test_a_generator_prints_its_items_and_a_method_its_result(own_swell: PrivateSwell, tools: str) -> None:
    assert swell_run(own_swell, f"{tools}::count", "--to", "3").stdout == "0\n1\n2\n"
    assert swell_run(own_swell, f"{tools}::Box.open", "--name", "it").stdout == "opened it\n"


def test_what_exit_hooks_print_is_shown_before_the_command_ends(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::Ledger.add", "--row", "one")
    assert done.stdout.splitlines() == ["closed", "added one"], done.stderr


def test_an_asynchronous_entry_point_takes_bare_words(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::later", "-x", "y")
    assert "words -x y 3.5" in done.stdout.splitlines()


def test_help_lists_the_flags_and_starts_nothing(tools: str) -> None:
    with unstarted_swell() as swell:
        done = swell_run(swell, f"{tools}::add", "--help")
        assert done.returncode == 0
        for word in ("--a", "--b", "--loud / --no-loud", "--words", "a whole number", "required", "1.5", "Sum up, and"):
            assert word in done.stdout
        assert not (swell.home / "lock").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["::add"], "--a is missing"),
        (["::add", "--a", "two"], "a whole number"),
        (["::add", "--a", "2", "--c", "3"], "No such option"),
    ],
)
def test_wrong_flags_are_code_2(own_swell: PrivateSwell, tools: str, words: list[str], said: str) -> None:
    done = swell_run(own_swell, tools + words[0], *words[1:])
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_there_is_is_listed_where_it_is_not_clear(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, tools)
    assert done.returncode == 1
    assert "later, main, wait" in done.stderr
    done = swell_run(own_swell, f"{tools}::nothing")
    assert done.returncode == 1
    assert "Box.open" in done.stderr


def test_a_web_endpoint_is_not_run_but_deployed(tmp_path: Path) -> None:
    path = tmp_path / "pages.py"
    path.write_text("import swell\napp = swell.App('site')\n@app.function()\n@swell.asgi_app()\ndef web(): ...\n")
    with unstarted_swell() as swell:
        done = swell_run(swell, str(path))
        assert done.returncode == 1
        assert done.stderr == (
            f"Error: web is a web endpoint: `swell serve {path}` puts it up while you work on it, "
            f"`swell deploy {path}` to stay.\n"
        )
        assert not (swell.home / "lock").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_the_programs_exit_code_is_ours(own_swell: PrivateSwell, tools: str, code: int) -> None:
    done = swell_run(own_swell, f"{tools}::main", "--code", str(code))
    assert done.returncode == code, done.stderr
    assert "here 2.5" in done.stdout.splitlines()


def test_the_users_traceback_and_nothing_of_ours(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::main", "--code", "7")
    assert done.returncode == 1
    trace = done.stderr[done.stderr.index("Traceback") :]
    assert trace.splitlines()[-1] == "KeyError: 'mine'"
    assert 'raise KeyError("mine")' in trace
    assert "swell/cli" not in trace


@pytest.mark.parametrize("words", [["::fail", "--code", "5"], ["::main", "--code", "5", "--remote"]])
def test_what_failed_in_a_replica_fails_here(own_swell: PrivateSwell, tools: str, words: list[str]) -> None:
    done = swell_run(own_swell, tools + words[0], *words[1:])
    assert done.returncode == 1
    assert "ValueError: no 5" in done.stderr
    assert done.stderr.count('raise ValueError(f"no {code}")') == 1
    assert "swell/sdk" not in done.stderr
    assert "swell/cli" not in done.stderr


def test_lines_name_their_function_where_several_may_write(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::main", "--code", "5", "--remote")
    assert "add | adding" in done.stdout.splitlines()
    assert "fail | ValueError: no 5" in done.stderr.splitlines()
    assert "here 2.5" in done.stdout.splitlines()


def test_each_try_after_a_failed_one_is_said(own_swell: PrivateSwell, tools: str, tmp_path: Path) -> None:
    done = swell_run(own_swell, f"{tools}::flaky", "--folder", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "luck\n"), done.stderr
    assert [line for line in done.stderr.splitlines() if "; try " in line] == [
        "flaky failed with ValueError: no luck; try 2 of 3 now",
        "flaky lost its replica; try 3 of 3 now",
    ]


def test_what_ended_a_replica_is_said(own_swell: PrivateSwell, tools: str) -> None:
    done = swell_run(own_swell, f"{tools}::crash")
    assert done.returncode == 1
    assert "(its process crashed: exit code 3)" in done.stderr
    assert (done.stderr.count("exit code 3"), done.stderr.count("swell why")) == (1, 1)


def test_a_file_that_does_not_import_shows_where(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import swell\nx = 1 / 0\n")
    done = swell_run(own_swell, str(path))
    assert done.returncode == 1
    assert "x = 1 / 0" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "swell/" not in done.stderr.replace(str(path), "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_app_is_gone_afterwards_also_after_an_interrupt(
    own_swell: PrivateSwell, tools: str, number: signal.Signals
) -> None:
    running = subprocess.Popen(
        ["swell", "run", f"{tools}::wait"],
        env=own_swell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    names = [row["name"] for row in json.loads(own_swell.run("app", "list", "--json"))]
    assert len(names) == 1
    assert names[0].startswith("tools--")
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "Traceback" not in said
    assert said.splitlines()[-1] == ("Interrupted." if number == signal.SIGINT else f"Ended by {number.name}.")
    assert json.loads(own_swell.run("app", "list", "--json")) == []


@pytest.fixture
def alone() -> Iterator[PrivateSwell]:
    """No server."""
    with unstarted_swell() as swell:
        yield swell


def test_without_a_server_one_is_started_and_ends_with_the_program(alone: PrivateSwell, tools: str) -> None:
    done = swell_run(alone, f"{tools}::add", "--a", "1")
    assert "2.5" in done.stdout.splitlines(), done.stderr
    wait_until("no process left", lambda: not alone.processes(), wait_s=120)


def test_a_failure_says_how_to_ask_why_once_the_server_has_ended_too(alone: PrivateSwell, tools: str) -> None:
    done = swell_run(alone, f"{tools}::fail", "--code", "5")
    asked = re.search(r"`swell why (\S+)` tells more", done.stderr)
    assert asked is not None
    assert "`swell up -d` brings back one that can answer" in done.stderr
    alone.run("up", "-d")
    assert "exception" in alone.run("why", asked[1])
    again = swell_run(alone, f"{tools}::fail", "--code", "5")
    assert "brings back" not in again.stderr


def test_a_program_that_does_not_end_is_ended_by_another_signal(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "stubborn.py"
    path.write_text(STUBBORN)
    with going(own_swell, "run", str(path)) as running:
        assert line(running) == "begun\n"
        running.send_signal(signal.SIGTERM)
        assert line(running) == "caught\n"
        end = time.monotonic() + 60
        while running.poll() is None:
            assert time.monotonic() < end
            running.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        assert running.returncode == -signal.SIGTERM


def test_a_thread_that_goes_on_at_the_end_can_be_interrupted_and_nothing_printed_is_lost(
    own_swell: PrivateSwell, tmp_path: Path
) -> None:
    path = tmp_path / "threaded.py"
    path.write_text(THREADED)
    # Without what would write out each line at once.
    words = ["env", "-u", "PYTHONUNBUFFERED", "swell", "run", str(path), "--printed", str(tmp_path / "printed")]
    with begun(words, own_swell) as running:
        wait_until("the thread goes on", (tmp_path / "printed").exists, wait_s=60)
        while running.poll() is None:
            running.send_signal(signal.SIGINT)
            time.sleep(0.5)
        said, _ = running.communicate()
    # What was never flushed, too: by the program, and by its thread.
    assert (running.returncode, said.splitlines()) == (130, ["done", "on"])


def test_a_ctrl_c_that_was_ignored_stays_so(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "threaded.py"
    path.write_text(THREADED)
    # As a shell without job control starts what it puts in the background.
    shell = 'trap "" INT; exec swell run "$0" --printed "$1" --seconds 3'
    with begun(["sh", "-c", shell, str(path), str(tmp_path / "printed")], own_swell) as running:
        wait_until("the thread goes on", (tmp_path / "printed").exists, wait_s=60)
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=60)
    assert (running.returncode, said.splitlines()) == (0, ["done", "on", "through"])


def test_a_second_signal_ends_the_waiting_for_hooks_in_order(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path, gate = tmp_path / "slow.py", tmp_path / "gate"
    path.write_text(SLOW_END.replace("GATE", repr(str(gate))))
    with going(own_swell, "run", str(path)) as running, opened_at_the_end(gate):
        assert line(running) == "begun\n"
        running.send_signal(signal.SIGTERM)
        # The app is taken away: what goes on is ours.
        wait_until("no app", lambda: own_swell.get("/api/apps") == [], wait_s=60)
        time.sleep(2.5)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said.splitlines()[-1]) == (128 + signal.SIGTERM, "Ended by SIGTERM.")


def test_programs_at_once_share_one_server_until_the_last_ends(alone: PrivateSwell, tools: str) -> None:
    words = ["swell", "run", f"{tools}::add", "--a"]
    running = [
        subprocess.Popen([*words, str(n)], env=alone.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    said = [one.communicate(timeout=120) for one in running]
    assert [sorted(out.splitlines())[0] for out, _ in said] == ["1.5", "2.5", "3.5"], said
    wait_until("no process left", lambda: not alone.processes(), wait_s=120)


def test_output_is_shown_though_control_is_away_for_longer_than_the_run_is_old(
    own_swell: PrivateSwell, tools: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    with going(own_swell, "run", f"{tools}::ticks", "--folder", str(tmp_path)) as running:
        assert sorted((line(running), line(running))) == ["0\n", "tick 1\n"]
        killed = own_swell.server("control")
        os.kill(killed, signal.SIGKILL)
        wait_until("control is there again", lambda: any(pid != killed for pid in own_swell.servers("control")))
        stopped = own_swell.server("control")
        os.kill(stopped, signal.SIGSTOP)
        try:
            (tmp_path / "1").touch()
            # It is asked for the output now, and hears of that later.
            time.sleep(time.monotonic() - began + 1)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert line(running) == "tick 2\n"
        for number in (2, 3):
            (tmp_path / str(number)).touch()
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, "tick 3\n"), err


def test_output_is_shown_once_and_whole_also_when_control_is_killed_meanwhile(
    own_swell: PrivateSwell, tools: str, tmp_path: Path
) -> None:
    with going(own_swell, "run", f"{tools}::ticks", "--folder", str(tmp_path)) as running:
        assert sorted((line(running), line(running))) == ["0\n", "tick 1\n"]
        for number in (1, 2):
            os.kill(own_swell.server("control"), signal.SIGKILL)
            (tmp_path / str(number)).touch()
            assert line(running) == f"tick {number + 1}\n"
        (tmp_path / "3").touch()
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, ""), err
