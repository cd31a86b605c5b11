"""An app that belongs to a program ends with it, however the program ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_swell import PrivateSwell, unstarted_swell, wait_until
from swell.control.owners import OWNER_SILENT_S

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


@pytest.fixture(scope="module", autouse=True)
def programs(
    own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One that says that it is there, and one that does not any more: for as long as all other tests here take."""
    folder, begun = tmp_path_factory.mktemp("elsewhere"), dict[str, subprocess.Popen[str]]()
    try:
        # The one that goes on was there first, and would be given up first if it were not heard.
        for pid, name in enumerate(("heard", "silent"), start=2**30):
            begun[name] = elsewhere(own_swell, name, pid, folder / f"{name}.py")
        begun["silent"].send_signal(signal.SIGSTOP)
        assert len(apps(own_swell, *begun)) == 2
        yield begun
    finally:
        for program in begun.values():
            program.kill()
            program.wait()


def apps(swell: PrivateSwell, *names: str) -> list[dict[str, Any]]:
    """Those of these programs."""
    return [app for app in swell.get("/api/apps") if app["name"].partition("--")[0] in names]


def replicas(swell: PrivateSwell, name: str) -> list[dict[str, Any]]:
    """Those of this program's app."""
    return [one for one in swell.replicas() if one["workload"].startswith(f"default/{name}--")]


def test_a_killed_programs_app_is_stopped(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(file)], env=own_swell.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "1\n"
        assert [app["ephemeral"] for app in apps(own_swell, "mine")] == [True]
        program.send_signal(signal.SIGKILL)
        wait_until("its app is stopped", lambda: not apps(own_swell, "mine"), wait_s=120)
        wait_until("its replicas are gone", lambda: not replicas(own_swell, "mine"), wait_s=60)
    finally:
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


def test_a_program_on_another_machine_keeps_its_app_while_it_says_that_it_is_there(
    own_swell: PrivateSwell, programs: dict[str, subprocess.Popen[str]]
) -> None:
    def theirs() -> list[str]:
        return sorted(app["name"].partition("--")[0] for app in apps(own_swell, *programs))

    wait_until("the silent one is given up", lambda: "silent" not in theirs(), wait_s=OWNER_SILENT_S + 120)
    assert theirs() == ["heard"]
    programs["heard"].send_signal(signal.SIGINT)
    programs["heard"].wait()
    assert theirs() == []
