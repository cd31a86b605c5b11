"""Is a blocked loop seen in time? What needs the machinery of a whole replica is in test_replica_cancel.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swell.runtime import watchdog
from swell.runtime.tracebacks import user_stack
from swell.runtime.watchdog import Onlooker

GRACE_S = 1.0


@pytest.mark.slow
def test_where_it_blocks_is_read_as_soon_as_a_caller_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the source takes long beside code that holds the interpreter: nothing may wait for it at the end."""
    read: list[float] = []
    told: list[float] = []
    over = threading.Event()

    def reading(thread: int) -> str:
        read.append(time.monotonic())
        return user_stack(thread)

    def blocked(works: object) -> None:
        told.append(time.monotonic())
        over.set()

    async def block() -> None:
        onlooker.begin()
        assert over.wait(30)
        onlooker.pause()

    monkeypatch.setattr(watchdog, "user_stack", reading)
    loop = asyncio.new_event_loop()
    onlooker = Onlooker(loop, GRACE_S, lambda: ["work"], blocked)
    loop.run_until_complete(block())
    loop.close()
    assert len(read) == len(told) == 1
    assert told[0] - read[0] > GRACE_S / 2


def test_a_long_grace_makes_nobody_see_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()

    def reading(thread: int) -> str:
        seen.set()
        return user_stack(thread)

    async def block() -> bool:
        onlooker.begin()
        in_time = seen.wait(10)
        onlooker.pause()
        return in_time

    monkeypatch.setattr(watchdog, "user_stack", reading)
    loop = asyncio.new_event_loop()
    onlooker = Onlooker(loop, 60.0, lambda: ["work"], lambda _works: None)
    assert loop.run_until_complete(block())
    loop.close()


FULL = """
import asyncio, contextlib, os, sys, time
from swell.runtime import watchdog
os.mkfifo(sys.argv[1])
log = os.open(sys.argv[1], os.O_RDWR)
os.set_blocking(log, False)
with contextlib.suppress(BlockingIOError):
    while os.write(log, b"x" * 4096):
        pass
os.set_blocking(log, True)
os.dup2(log, 2)
watchdog.SLACK_S = 0.05
async def main():
    watchdog.Watchdog(asyncio.get_running_loop(), 0.0, list, list).expect(time.monotonic())
    time.sleep(600)
asyncio.run(main())
"""


def test_a_log_that_is_full_and_that_nobody_reads_does_not_keep_a_process_from_its_end(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", FULL, str(tmp_path / "log")]
    assert subprocess.run(argv, timeout=60, check=False).returncode == 1
