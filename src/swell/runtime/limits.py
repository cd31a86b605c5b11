"""What does a new process do to itself before it runs a user's code? Groups, limits, privileges.

The same few calls are made by a process that is about to be exec'ed and by one that was just forked
from a template, so both get the same limits, in the same order, and none needs the runner's help.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

RLIMITS: tuple[tuple[int, int, int], ...] = ((resource.RLIMIT_CORE, 0, 0),)
"""(resource, soft, hard) every replica gets: a crash must not fill the disk with a model's memory."""

RLIMITS_APPLIED = ("no core dumps", "no new privileges") if _libc else ("no core dumps",)


def enter(groups: Iterable[str] = (), rlimits: Iterable[tuple[int, int, int]] = RLIMITS) -> None:
    """Lead a new session, join the cgroups whose membership files are named, and take the limits.

    Must be called while the process has one thread. "0" means the writer itself: on cgroup v1 that
    spares the kernel a lock that is sometimes held for 10 ms and more.
    """
    os.setsid()
    for path in groups:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)
    for kind, soft, hard in rlimits:
        resource.setrlimit(kind, (soft, hard))
    if _libc is not None:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become_subreaper() -> None:
    """Processes whose parent dies below us become our children, instead of init's. Linux only."""
    if _libc is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    assert _libc is not None
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
