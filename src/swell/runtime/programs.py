"""Which programs has this process started, and how do they end? By SIGTERM; what is left of them, by SIGKILL."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from swell.wire.identity import Identity, children, identify

TERM_S = 3.0
"""Programs that were sent SIGTERM are killed after this long."""
LOOK_S = 0.02


class Programs:
    """Those that there are now."""

    def __init__(self) -> None:
        self._direct = _processes(children(os.getpid()))
        self._family: list[Identity] = []
        """They, and what they had started, when they were told to end."""

    def __bool__(self) -> bool:
        return bool(self._direct)

    @property
    def alive(self) -> bool:
        """Has any of them not ended? What they started in turn is not asked after."""
        return any(process.alive for process in self._direct)

    def terminate(self) -> None:
        """Tell each to end."""
        # Looked for now: once one has ended, what it had started is nobody's any more.
        self._family = [*self._direct, *_processes(pid for one in self._direct for pid in _descendants(one.pid))]
        for process in self._direct:
            process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End what is left of those that were told to, and of what they had started."""
        for process in self._family:
            process.signal(signal.SIGKILL)


def end() -> bool:
    """End all of them, and wait for that. Were there any?"""
    programs = Programs()
    programs.terminate()
    until = time.monotonic() + TERM_S
    while time.monotonic() < until and programs.alive:
        time.sleep(LOOK_S)
    programs.kill()
    return bool(programs)


def _processes(pids: Iterable[int]) -> list[Identity]:
    return [process for process in map(identify, pids) if process is not None]


def _descendants(pid: int) -> list[int]:
    found = []
    waiting = children(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting += children(child)
    return found
