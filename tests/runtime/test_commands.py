"""Does a helper command get its input, is its end told, and is nothing left open whatever happens?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from swell.runtime.runner import commands
from swell.runtime.runner.processes import Reaper


def run(script: str, said: bytes = b"", timeout_s: float = 30.0) -> tuple[int | None, list[str]]:
    """(exit status, lines) of a Python program with this input."""

    async def main() -> tuple[int | None, list[str]]:
        reaper = Reaper(lambda _pid, _exit: None)
        reaper.start()
        lines: list[str] = []
        argv = [sys.executable, "-S", "-c", script]
        return await commands.run(reaper, argv, os.environ, lines.append, timeout_s, said=said), lines

    return asyncio.run(main())


def test_what_is_said_arrives_whole_however_long_it_is() -> None:
    said = b"x" * 300_000
    assert run("import sys; print(len(sys.stdin.buffer.read()))", said) == (0, ["300000"])
    assert run("import sys; print(sys.stdin.read() == '')") == (0, ["True"])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files of memory")
def test_what_is_said_is_written_to_no_disk() -> None:
    assert run("import os; print(os.readlink('/proc/self/fd/0').split(':')[0])", b"secret") == (0, ["/memfd"])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files of memory")
def test_it_arrives_where_files_of_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "memfd_create", refused)
    assert run("import sys; print(sys.stdin.read())", b"said") == (0, ["said"])


def test_exit_codes_signals_and_time_limits_are_told_apart() -> None:
    assert run("raise SystemExit(3)") == (3, [])
    assert run("import os; os.kill(os.getpid(), 11)") == (-11, [])
    assert run("import time; time.sleep(600)", timeout_s=0.2) == (None, [])


WITHOUT_PROCESSES = """
import asyncio, os, resource, sys
from swell.runtime.runner import commands

def held():
    found = set()
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.add(number)
    return found

async def main():
    before = held()
    for _ in range(3):
        try:
            await commands.run(None, [sys.executable], {}, print, 1.0, said=b"input")
        except BlockingIOError:
            print("refused")
    print(sorted(held() - before))

async def limited():
    # The limit does not hold for root.
    if os.getuid() == 0:
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    await main()

asyncio.run(limited())
"""


def test_a_command_that_cannot_be_started_leaves_nothing_open() -> None:
    argv = [sys.executable, "-c", WITHOUT_PROCESSES]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:4] == ["refused"] * 3 + ["[]"], done.stderr
