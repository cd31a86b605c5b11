"""Which process is this, is it still there, and whose child is it? A pid alone may have been given to another since."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.02


class Identity(NamedTuple):
    """A process, told apart from a later one with the same pid."""

    pid: int
    start_ticks: int
    """When it started, in clock ticks after boot; 0 where the system does not say."""

    @property
    def alive(self) -> bool:
        """It exists and is not a zombie."""
        return identify(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process; nothing happens when it is over."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def wait(self, seconds: float) -> bool:
        """Wait until it is over, for at most this long; returns whether it is."""
        until = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_S)
        return True

    def write(self, path: Path) -> None:
        """Note it in a file, for a later process to find."""
        path.write_text(json.dumps({"pid": self.pid, "start_ticks": self.start_ticks}))


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or only its zombie."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return Identity(pid, 0)
    fields = stat(pid)
    return Identity(pid, int(fields[19])) if fields and fields[0] not in "ZX" else None


def myself() -> Identity:
    """This process."""
    found = identify(os.getpid())
    assert found is not None
    return found


def read(path: Path) -> Identity | None:
    """What `write`, or a runner's record of a replica, noted; None when it cannot be read."""
    try:
        noted = json.loads(path.read_text())
        return Identity(int(noted["pid"]), int(noted["start_ticks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def children(pid: int) -> Iterator[int]:
    """Pids of a process's children, zombies included. Linux only; elsewhere none are known."""
    for entry in Path("/proc").glob("[0-9]*"):
        fields = stat(int(entry.name))
        if fields and int(fields[1]) == pid:
            yield int(entry.name)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process is over; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that none can get out of sight. Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat(pid: int) -> list[str]:
    """Fields of /proc/{pid}/stat from the state on; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name before it is in parentheses and may hold anything.
    return text[text.rindex(")") + 2 :].split()
