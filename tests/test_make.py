"""Do the Makefile and .ci/run do what the README says of them? In a folder of their own, whose environment is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import pytest

def test_one():
    pass

def test_another():
    {}
"""

NEEDED = ("conftest", "debian", "private_swell")
"""Of tests/, by any test."""

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile and what it needs, with an environment whose Python is this one and whose uv only says its words."""
    for name in ("Makefile", "pyproject.toml", ".ci/run", *(f"tests/{each}.py" for each in NEEDED)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, script in (("python", f'exec {sys.executable} "$@"'), ("uv", 'echo "uv $*"')):
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    (tmp_path / ".venv" / ".set-up").touch()
    return tmp_path


def run(folder: Path, *words: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and all that was said. Nothing of a make around this one is handed down."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    done = subprocess.run(
        words, cwd=cwd or folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100
    )
    return done.returncode, done.stdout


READY = "ready: . .venv/bin/activate\n"


def test_setting_up_again_does_nothing_until_what_is_needed_changes(folder: Path) -> None:
    assert run(folder, "make", "setup") == (0, READY)
    # As if pyproject.toml had been changed since.
    os.utime(folder / ".venv" / ".set-up", (0, 0))
    code, said = run(folder, "make", "setup")
    assert (code, said.splitlines(keepends=True)[-1]) == (0, READY)
    (installed,) = (line for line in said.splitlines() if line.startswith("uv pip install"))
    assert installed.endswith("-e .[dev,bench]")
    assert run(folder, "make", "setup") == (0, READY)


@pytest.mark.parametrize(
    ("line", "code", "counted"),
    [
        ("pass", 0, "2 passed"),
        ("assert False", 2, "1 failed, 1 passed"),
        ("pytest.skip('no')", 2, "1 passed, 1 skipped"),
    ],
)
def test_ci_runs_the_whole_suite_and_fails_with_it(folder: Path, line: str, code: int, counted: str) -> None:
    (folder / "tests" / "test_few.py").write_text(TESTS.format(line))
    ended, said = run(folder, str(folder / ".ci" / "run"), cwd=folder.parent)
    assert ended == code, said
    assert said.startswith("setup took ")
    assert counted in said


@pytest.mark.parametrize(("target", "marks"), [("test", "2 passed"), ("test-fast", "1 passed")])
def test_the_fast_part_leaves_out_what_is_slow(folder: Path, target: str, marks: str) -> None:
    slow = TESTS.format("pass").replace("def test_another", "@pytest.mark.slow\ndef test_another")
    (folder / "tests" / "test_few.py").write_text(slow)
    code, said = run(folder, "make", target)
    assert (code, marks in said) == (0, True), said


@pytest.mark.parametrize("code", [0, 2])
def test_the_demo_is_run_and_ends_as_it_does(folder: Path, code: int) -> None:
    (folder / "examples").mkdir()
    (folder / "examples" / "demo.py").write_text(f"print('told')\nraise SystemExit({code})\n")
    ended, said = run(folder, "make", "demo")
    assert (ended, said.splitlines()[0]) == (code, "told")


def test_simulated_clusters_are_run_by_their_seeds(folder: Path) -> None:
    code, said = run(folder, "make", "sim", "SEEDS=1-2")
    assert code == 0, said
    assert said.splitlines()[-1].startswith("2 seeds in ")
    assert said.splitlines()[-1].endswith(": every promise kept")


def test_what_was_built_or_measured_is_removed_and_nothing_else(folder: Path) -> None:
    before = {path for path in folder.rglob("*") if ".venv" not in path.parts}
    for name in ("build", "dist", "bench/out", ".mypy_cache", "tests/__pycache__"):
        (folder / name).mkdir(parents=True)
    assert run(folder, "make", "clean") == (0, "")
    assert set(folder.rglob("*")) == before | {folder / "bench"}
