"""Which threads does this process have beyond the main one, and do they rest?

A fork copies the locks that other threads hold at that moment, and not the threads that would give them back. One
that waits for something outside seldom holds any; one that runs may hold a library's own, of which nobody here knows.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_TASKS = Path("/proc/self/task")
_ASLEEP = "S (sleeping)"
_LOOK_S = 0.001


def other_threads() -> tuple[str, ...]:
    """Names of the threads of this process beyond its main one, which asks: Python's, and for others the kernel's.

    One that a library started and gave no name has the kernel's name of the process: those are only counted.
    """
    return _named(_others())


def restless(patience_s: float) -> tuple[str, ...]:
    """Wait until the others rest, but not longer than this; names of those that do not even then.

    One rests that sleeps and has not run since the last look. Who only sleeps until the interpreter is free, or a lock
    of one that runs, does not: between two looks it gets the interpreter, and the other one is seen to run.
    """
    until = time.monotonic() + patience_s
    before = _look()
    while before:
        time.sleep(_LOOK_S)
        now = _look()
        moving = [task for task, seen in now.items() if _ASLEEP not in seen or seen != before.get(task)]
        if not moving:
            break
        if time.monotonic() >= until:
            return _named(moving)
        before = now
    return ()


def _look() -> dict[str, str]:
    """How each of the others is, and how often it went to sleep."""
    seen = {}
    for task in _others():
        try:
            lines = (_TASKS / task / "status").read_text().splitlines()
        except OSError:
            continue
        seen[task] = " ".join(line for line in lines if line.startswith(("State:", "voluntary_ctxt_switches:")))
    return seen


def _others() -> list[str]:
    mine = str(os.getpid())
    try:
        return [task for task in os.listdir(_TASKS) if task != mine]
    except OSError:
        return []


def _named(tasks: Iterable[str]) -> tuple[str, ...]:
    known = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    names = []
    for task in tasks:
        try:
            names.append(known.get(task) or _kernels_name(task))
        except OSError:
            continue
    process = _kernels_name(str(os.getpid())) if names else ""
    unnamed = names.count(process)
    told = sorted(name for name in names if name != process)
    return (*told, *([f"{unnamed} without a name, of a library"] if unnamed else []))


def _kernels_name(task: str) -> str:
    return (_TASKS / task / "comm").read_text().strip()
