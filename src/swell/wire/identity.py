"""Which process is this, is it still there, and whose child is it? A pid alone may have been given to another since."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import cache
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
        pidfd = open_pidfd(self.pid)
        # Asked after the pidfd was opened: from here on it is this very process, or none.
        if self.alive:
            send_signal(self.pid, pidfd, number)
        if pidfd is not None:
            os.close(pidfd)

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


@cache
def machine() -> str:
    """Where a pid names one process alone: one boot of a machine and, where there are containers, one of them.

    A system that does not say is a machine that nobody else is on.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return uuid.uuid4().hex


def read(path: Path) -> Identity | None:
    """What `write`, or a runner's record of a replica, noted; None when it cannot be read."""
    try:
        noted = json.loads(path.read_text())
        return Identity(int(noted["pid"]), int(noted["start_ticks"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def children(pid: int) -> list[int]:
    """Pids of a process's children, zombies included."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for thread in threads for word in (thread / "children").read_text().split()]
    except OSError:
        # It is over, one of its threads ended just now, or this system keeps no such lists.
        return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent."""
    if sys.platform == "linux":
        for entry in Path("/proc").glob("[0-9]*"):
            if fields := stat(int(entry.name)):
                yield int(entry.name), int(fields[1])
        return
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        rows = [line.split() for line in asked.stdout]
    yield from ((int(pid), int(parent)) for pid, parent in rows if int(pid) != asked.pid)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process is over; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def pid_of(pidfd: int) -> int:
    """Whose pidfd it is, as this process sees it: the kernel says so, whatever number the process itself knows.

    Raises OSError where it is nobody's, or of one that is over.
    """
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise OSError(f"descriptor {pidfd} is of no process that lives")


def send_signal(pid: int, pidfd: int | None, number: signal.Signals) -> None:
    """To this very process, where there is a pidfd of it; nothing happens when it is over."""
    try:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def how_ended(status: int | None) -> str:
    """The exit status of a process (minus the signal that killed it) as a person may read it."""
    if status is None:
        return "it is not known how"
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


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
