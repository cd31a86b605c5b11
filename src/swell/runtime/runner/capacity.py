"""How much of this machine may replicas be promised? What the kernel would really give us."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

MEMORY_SHARE = 0.8
"""Of what is available at start: the rest is for the page cache, ourselves, and who else is here."""
_UNLIMITED = 1 << 60


def cores() -> int:
    """Cores we may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_mib(root: Path = Path("/")) -> int:
    """A share of what is available, or of the limit of the group we are in if that is less."""
    available = _available(root)
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):
            continue
        if limit < _UNLIMITED:
            available = min(available, limit)
    return int(available * MEMORY_SHARE) // 2**20


def _available(root: Path) -> int:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
