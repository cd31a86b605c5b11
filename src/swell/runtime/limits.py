"""What does a new process do to itself before its work begins? Groups, limits, privileges.

Before it runs a user's code, the same few calls are made by one that is about to be exec'ed and by one that was just
forked from a template, so both get the same limits, in the same order, and none needs the runner's help.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Rlimits = tuple[tuple[int, int, int], ...]
"""(resource, soft, hard) of each limit."""

RLIMITS: Rlimits = ((resource.RLIMIT_CORE, 0, 0),)
"""What every replica gets: a crash must not fill the disk with a model's memory."""

RLIMITS_APPLIED = ("no core dumps", "no new privileges") if _libc else ("no core dumps",)


def enter(groups: Iterable[str | int] = (), rlimits: Rlimits = RLIMITS) -> None:
    """Lead a new session, join the cgroups whose membership files are named (or open, to write), and take the limits.

    Must be called while the process has one thread. "0" means the writer itself: on cgroup v1 that
    spares the kernel a lock that is sometimes held for 10 ms and more.
    """
    os.setsid()
    for path in groups:
        descriptor = path if isinstance(path, int) else os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)
    for kind, soft, hard in rlimits:
        resource.setrlimit(kind, (soft, hard))
    if _libc is not None:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def address_space(limit_mib: int | None) -> tuple[Rlimits, tuple[str, ...]]:
    """What stands in for a memory limit that no control group enforces: limits, and what to say of them.

    It bounds each process by itself, and counts what is reserved as well as what is used: an allocation beyond
    it fails (MemoryError) where a control group would have the process killed. Linux only.
    """
    if limit_mib is None or _libc is None:
        return (), ()
    size = limit_mib * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    words = f"{size // 2**20} MiB of address space per process instead (rlimit)"
    return ((resource.RLIMIT_AS, size, size),), (words,)


def take_descriptors() -> None:
    """Have as many open files as the hard limit allows: the usual soft one is for programs that call select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "unlimited" and does not mean it.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def refuse_core_dumps() -> None:
    """For the server's own processes: some hold secrets. No file is made of so little as a byte, and on Linux that very
    number keeps it from a program that collects core dumps, too, which 0 would not."""
    # Where it is 0 already, it cannot be more.
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def name_process(name: str) -> None:
    """What `top` and `ps -o comm` call this process: the first 15 bytes of it. Linux only."""
    if _libc is not None:
        _prctl(_PR_SET_NAME, name.encode())


def hide_memory() -> None:
    """No core dumps, not even to a program that collects them, and other processes of this user may neither trace this
    one nor read its memory. Root may. Linux only; what this process starts is not hidden."""
    if _libc is not None:
        _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int | bytes) -> None:
    assert _libc is not None
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
