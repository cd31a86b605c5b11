"""How does a sandboxed process come to be, and how does the runner know it? Three forks, and a pidfd back.

    runner → outside   new namespaces; ends when the next one is made
           → first     pid 1 in them; makes the root
           → program   walled in, and exec'ed

Where replicas are to be forked from the program it must not be pid 1: that one's end is the end of all. `first` then
stays to wait for what is left to it, has no descriptor, and ends with the last process of the sandbox. Elsewhere it is
itself the program, and whatever the program started ends with it.

In the sandbox pids are other numbers. What names a process across is a pidfd: the kernel says whose it is.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

import msgspec

from swell.model.errors import SwellError
from swell.runtime import limits
from swell.runtime.runner.sandbox import kernel, walls
from swell.runtime.runner.sandbox.walls import Walls
from swell.wire.identity import pid_of

_FIRST_SPARE_FD = 64
_WORDS_MAX = 4000
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_STARTED = b"started"


class Command(msgspec.Struct, frozen=True):
    """What is exec'ed, with what."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    descriptors: Mapping[int, int]
    """Number in the child → our descriptor."""
    cwd: str = "/"
    membership: Sequence[str] = ()
    rlimits: limits.Rlimits = limits.RLIMITS


def spawn(command: Command, around: Walls, forked: bool) -> tuple[int, int]:
    """Start it; returns its pid as the runner sees it, and a pidfd. `forked`: replicas are to be forked from it.

    Raises SwellError("environment") that says which wall could not be put up.
    """

    def become() -> NoReturn:
        try:
            os.chdir(command.cwd)
            os.execve(command.argv[0], list(command.argv), dict(command.environ))
        except BaseException as error:
            os.write(2, f"{command.argv[0]} could not be started: {error}\n".encode())
        os._exit(127)

    return run(around, forked, become, command.descriptors, command.membership, command.rlimits)


def run(
    around: Walls,
    forked: bool,
    become: Callable[[], object],
    descriptors: Mapping[int, int],
    membership: Sequence[str] = (),
    rlimits: limits.Rlimits = limits.RLIMITS,
) -> tuple[int, int]:
    """As `spawn`; `become` is what is called in the new process when all walls are up."""
    ours, theirs = socket.socketpair()
    with ours:
        pid = os.fork()
        if pid == 0:
            _outside(_Order(around, forked, become, descriptors, membership, rlimits, theirs))
        theirs.close()
        said, fds, _, _ = socket.recv_fds(ours, _WORDS_MAX, 1, _CLOEXEC)
        os.waitpid(pid, 0)
    if said != _STARTED:
        for descriptor in fds:
            os.close(descriptor)
        raise SwellError(
            "environment", f"The sandbox could not be made: {said.decode(errors='replace') or 'nothing says why'}."
        )
    (pidfd,) = fds
    return pid_of(pidfd), pidfd


class _Order(NamedTuple):
    around: Walls
    forked: bool
    become: Callable[[], object]
    descriptors: Mapping[int, int]
    membership: Sequence[str]
    rlimits: limits.Rlimits
    back: socket.socket


def _outside(order: _Order) -> NoReturn:
    """New namespaces, and their first process."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        # Opened here: neither the files nor the right to write to them are there inside.
        groups = [os.open(path, os.O_WRONLY) for path in order.membership]
        walls.leave(order.around)
        if os.fork() == 0:
            _first(order, groups)
    except BaseException as error:
        _complain(order, error)
    os._exit(0)


def _first(order: _Order, groups: Sequence[int]) -> NoReturn:
    try:
        walls.furnish(order.around)
        if order.forked:
            # It stays beside what is not to be trusted, with a copy of the runner's memory: shut before that is there.
            kernel.not_dumpable()
            kernel.forget_command()
            if os.fork():
                _wait_for_all()
        _program(order, groups)
    except BaseException as error:
        _complain(order, error)
    os._exit(127)


def _program(order: _Order, groups: Sequence[int]) -> NoReturn:
    spare = {n: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for n, fd in order.descriptors.items()}
    back = fcntl.fcntl(order.back.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD)
    groups = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD) for fd in groups]
    for number, fd in spare.items():
        os.dup2(fd, number, inheritable=True)
    limits.enter(groups, order.rlimits)
    walls.submit(order.around)
    with socket.socket(fileno=back) as said:
        pidfd = os.pidfd_open(os.getpid())
        socket.send_fds(said, [_STARTED], [pidfd])
        os.close(pidfd)
    order.become()
    os._exit(0)


def _wait_for_all() -> NoReturn:
    """Be the first process of a sandbox: reap what is left to us, hold nothing, and end with the last."""
    limits.name_process("sw:sandbox")
    os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)


def _complain(order: _Order, error: BaseException) -> None:
    with suppress(OSError):
        order.back.send(str(error).encode()[:_WORDS_MAX])
