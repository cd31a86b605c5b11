"""What does the kernel say processes used? CPU and memory, read from outside."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, all its threads, from the scheduler's own nanoseconds."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return _ticks_s(pid, 11, 12)


def children_cpu_s(pid: int) -> float:
    """CPU seconds of the children it has waited for, and theirs. The kernel adds up nanoseconds and shows ticks
    (usually 10 ms), so that the difference of two readings is as exact as one tick however many children it is of."""
    return _ticks_s(pid, 13, 14)


def family_cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes and of all their children that are over."""
    return sum(cpu_s(pid) + children_cpu_s(pid) for pid in pids)


def cores() -> int:
    """How many this process, and so all it starts, may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ticks_s(pid: int, *fields: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(values[field]) for field in fields) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> dict[str, float]:
    """`rss`, `pss` and `private` memory of a process, MiB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        sizes[name.rstrip(":")] = int(value) / 1024
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "private": sizes["Private_Clean"] + sizes["Private_Dirty"]}
