"""An app that belongs to a program ends with it, however the program ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_swell import PrivateSwell, private_swell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
import time
import swell

app = swell.App("mine")


@app.function()
def f() -> int:
    return 1


if __name__ == "__main__":
    with app.run():
        print(f.remote(), flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def own_swell() -> Iterator[PrivateSwell]:
    """One that gives up programs on other machines soon."""
    with private_swell(template_idle_s=60, owner_silent_s=8) as swell:
        yield swell


def test_a_killed_programs_app_is_stopped(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(file)], env=own_swell.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "1\n"
        with own_swell.connect() as client:
            assert [app["ephemeral"] for app in client.get("/api/apps").value] == [True]
            program.send_signal(signal.SIGKILL)
            wait_until("its app is stopped", lambda: client.get("/api/apps").value == [], wait_s=120)
            wait_until("its replicas are gone", lambda: own_swell.replicas() == [], wait_s=60)
    finally:
        program.kill()
        program.wait()


ELSEWHERE = """
from swell.model.owner import Owner
from swell.sdk import run

run.me = lambda: Owner(PID, 1, "another machine")
"""


def elsewhere(swell: PrivateSwell, name: str, pid: int, file: Path) -> subprocess.Popen[str]:
    """The program as if it were on another machine, once its app is there. Of such a pid there is no process here."""
    head, tail = PROGRAM.replace("mine", name).split("\n\n\nif ")
    file.write_text(f"{head}\n{ELSEWHERE.replace('PID', str(pid))}\nif {tail}")
    program = subprocess.Popen([sys.executable, str(file)], env=swell.environ, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "1\n"
    return program


def test_a_program_on_another_machine_keeps_its_app_while_it_says_that_it_is_there(
    own_swell: PrivateSwell, tmp_path: Path
) -> None:
    programs: list[subprocess.Popen[str]] = []
    try:
        # The one that goes on was there first, and would be given up first if it were not heard.
        for pid, name in enumerate(("heard", "silent"), start=2**30):
            programs.append(elsewhere(own_swell, name, pid, tmp_path / f"{name}.py"))
        heard, silent = programs
        silent.send_signal(signal.SIGSTOP)
        with own_swell.connect() as client:

            def apps() -> list[str]:
                return sorted(app["name"].partition("--")[0] for app in client.get("/api/apps").value)

            assert apps() == ["heard", "silent"]
            wait_until("the silent one is given up", lambda: "silent" not in apps(), wait_s=120)
            assert apps() == ["heard"]
            heard.send_signal(signal.SIGINT)
            heard.wait()
            assert apps() == []
    finally:
        for program in programs:
            program.kill()
            program.wait()


TOP_LEVEL = PROGRAM.replace('if __name__ == "__main__":', "if True:")


def test_a_program_that_runs_its_app_when_imported_is_told_so(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TOP_LEVEL)
    done = subprocess.run([sys.executable, str(file)], env=own_swell.environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr


def test_a_start_from_nothing_tells_how_long_the_template_loaded(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text('import swell\napp = swell.App("one")\n\n\n@app.function()\ndef f() -> int:\n    return 1\n')
    own_swell.run("deploy", str(file))
    with own_swell.connect() as client:
        phases = client.call("one/f").phases_ms
    assert {"start-order", "start-template_exec", "start-template_load", "start-fork"} <= phases.keys()
    assert sum(ms for name, ms in phases.items() if name.startswith("start-")) <= phases["held"] + 1
    own_swell.run("app", "stop", "one")


def test_a_program_of_local_entry_points_only_runs(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "here.py"
    file.write_text(
        'import swell\napp = swell.App("here")\n\n\n@app.local_entrypoint()\ndef main() -> None:\n    print(3)\n'
    )
    assert own_swell.run("run", str(file)) == "3\n"


def test_a_server_started_for_a_run_has_ended_when_the_run_has(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text('import swell\napp = swell.App("two")\n\n\n@app.function()\ndef f() -> int:\n    return 2\n')
    with unstarted_swell() as swell:
        assert swell.run("run", str(file)) == "2\n"
        assert swell.processes() == []
