"""How is a process started, measured, and waited for?"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from swell.runtime import limits
from swell.wire.identity import stat

_FIRST_SPARE_FD = 32
"""Descriptors are first copied above the numbers a child is promised, so that none is overwritten."""


class Exit(msgspec.Struct, frozen=True):
    """How a process ended. What nobody could know is None."""

    status: int | None
    """As os.waitstatus_to_exitcode gives it: negative = signal."""
    cpu_s: float | None


def spawn(
    argv: Sequence[str],
    environ: Mapping[str, str],
    descriptors: Mapping[int, int],
    cwd: str = "/",
    membership: Sequence[str] = (),
    rlimits: limits.Rlimits = limits.RLIMITS,
) -> int:
    """Fork and exec; returns the pid. `descriptors`: number in the child → our descriptor.

    The child leads its own session, joins the cgroups and takes the limits before it becomes `argv`, so that its very
    first moments are limited and counted as well. If it cannot, it says so on its stderr and exits 127.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        spare = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for number, fd in descriptors.items()}
        for number, fd in spare.items():
            os.dup2(fd, number, inheritable=True)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        limits.enter(membership, rlimits)
        os.chdir(cwd)
        os.execve(argv[0], list(argv), dict(environ))
    except BaseException as error:
        os.write(2, f"{argv[0]} could not be started: {error}\n".encode())
    os._exit(127)


def cpu_s(pid: int, children: bool = True) -> float:
    """CPU seconds of the process, and of `children` it has waited for; 0.0 once it is gone."""
    fields = stat(pid)
    return sum(map(int, fields[11 : 15 if children else 13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def rss_mib(pid: int) -> float:
    """Resident memory, shared pages included; 0.0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError):
        return 0.0


def own_mib(pid: int) -> float:
    """Resident memory that is in no file (anonymous, and shared without one); 0.0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) / 1024


def kill_session(leader: int) -> None:
    """SIGKILL every process of the group a replica leads."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Reaper:
    """Waits for every child there is: ours, and the orphans a subreaper inherits."""

    def __init__(self, unclaimed: Callable[[int, Exit], None]) -> None:
        """`unclaimed(pid, exit)` is told of every child nobody awaits."""
        self._unclaimed = unclaimed
        self._awaited: dict[int, asyncio.Future[Exit]] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            exit = Exit(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)
            future = self._awaited.pop(pid, None)
            if future is None:
                self._unclaimed(pid, exit)
            elif not future.done():
                future.set_result(exit)

    async def wait(self, pid: int) -> Exit:
        """The end of a child that was just spawned."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._awaited[pid] = future
        return await future
