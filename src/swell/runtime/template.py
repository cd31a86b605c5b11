"""How does a loaded program wait to be forked? One thread, one blocking loop, no event loop.

What a fork inherits must be quiet: a thread that holds a lock at the moment of the fork holds it for
ever in the child. So a template starts no thread of its own, reports those that the user's code started and
forks only while they rest, and refuses to be forked where that is known to break (an initialised CUDA driver).
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from swell.model.errors import SwellError
from swell.runtime import endpoint, limits, replica, secrets
from swell.runtime.load import Program
from swell.runtime.threads import other_threads, restless
from swell.wire.child import Down, Drain, Exited, Fork, Forked, Launch, Ready, Reattach, Secrets, Unforked
from swell.wire.frames import Unpacker, pack
from swell.wire.identity import open_pidfd

T = TypeVar("T")

_FDS_PER_FORK = 3
_CUDA_NOT_INITIALIZED = 3
"""What every function of the driver answers before its cuInit was called."""
_RECONNECT_PAUSE_S = 0.05
_NO_PIDFD_POLL_MS = 100
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def serve(program: Program, launch: Launch, channel: socket.socket, timings: list[tuple[str, float]]) -> NoReturn:
    """Say that the program is loaded, then fork on order until told to end. Never returns."""
    endpoint.prepare(program)
    # Collected once and then frozen: a collection in a child would touch, and so copy, every page.
    gc.collect()
    gc.disable()
    gc.freeze()
    channel.sendall(
        pack(Ready(pid=os.getpid(), timings_ms=tuple(timings), threads=other_threads(), refused=unforkable()))
    )
    _Template(program, launch, channel).loop()


def unforkable() -> str:
    """Why this process must not be forked; empty when nothing is known against it."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return "torch has initialised a CUDA context, which does not survive a fork: do that in enter()"
    return next((why for path in _cuda_drivers() if (why := _initialised(path))), "")


def _cuda_drivers() -> list[str]:
    """Files of the CUDA driver that this process has loaded, whichever library wanted it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return sorted({line[line.index("/") :] for line in lines if "/libcuda.so" in line})


def _initialised(driver: str) -> str:
    """Why a loaded driver forbids a fork; empty where nobody has initialised it: then a fork still can."""
    try:
        status = ctypes.CDLL(driver).cuDeviceGetCount(ctypes.byref(ctypes.c_int()))
    except (OSError, AttributeError) as error:
        return f"libcuda is loaded and cannot be asked whether it is initialised ({error}): do that in enter()"
    if status == _CUDA_NOT_INITIALIZED:
        return ""
    return "the CUDA driver is initialised, which does not survive a fork: do that in enter()"


class _Template:
    def __init__(self, program: Program, launch: Launch, channel: socket.socket) -> None:
        self.program = program
        self.launch = launch
        self.channel = channel
        self.unpacker: Unpacker[Down] = Unpacker(Down)
        self.fds: deque[int] = deque()
        self.children: dict[int, tuple[str, int | None]] = {}
        """Pid → (replica, pidfd)."""
        self.enclose: Callable[[], None] | None = None
        """What a fork does to keep to itself, in a sandbox."""
        self.refused = ""
        """Why it is not forked any more."""
        if launch.revision.isolation is not None:
            from swell.runtime.runner.sandbox.kernel import enclose

            self.enclose = enclose
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)

    def loop(self) -> NoReturn:
        while True:
            blind = any(pidfd is None for _, pidfd in self.children.values())
            events = self.poll.poll(_NO_PIDFD_POLL_MS if blind else None)
            if any(fd == self.channel.fileno() for fd, _ in events):
                self.read()
            if blind or len(events) > 1 or (events and events[0][0] != self.channel.fileno()):
                self.reap()

    def read(self) -> None:
        """Take in what the runner says."""
        received = time.monotonic()
        try:
            data, fds, _, _ = socket.recv_fds(self.channel, 65536, 64, _CLOEXEC)
        except OSError:
            data, fds = b"", []
        self.fds.extend(fds)
        if not data:
            self.reconnect()
            return
        for message in self.unpacker.feed(data):
            if isinstance(message, Fork):
                self.fork(message, received)
            elif isinstance(message, Drain):
                os._exit(0)

    def fork(self, order: Fork, received: float) -> None:
        fds = [self.fds.popleft() for _ in range(_FDS_PER_FORK + order.groups)]
        if not self.refused and (moving := restless(order.rest_s)):
            held = "what they hold at a fork stays locked in it: start them in enter()"
            self.refused = f"threads of it do not rest ({', '.join(moving)}), and {held}"
        if self.refused:
            for fd in fds:
                os.close(fd)
            self.send(Unforked(replica=order.replica, why=self.refused))
            return
        pid = os.fork()
        if pid == 0:
            self.become(order, fds, received)
        for fd in fds:
            os.close(fd)
        pidfd = open_pidfd(pid)
        self.children[pid] = (order.replica, pidfd)
        if pidfd is not None:
            self.poll.register(pidfd, select.POLLIN)
        self.send(Forked(replica=order.replica, pid=pid), [pidfd] if pidfd is not None else [])

    def become(self, order: Fork, fds: list[int], received: float) -> NoReturn:
        """In the fork: be the replica, and leave without running what the template registered for its exit."""
        status = 1
        try:
            own, listening, output, *groups = fds
            limits.enter((*order.cgroup_procs, *groups), order.rlimits)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            self.channel.close()
            for fd in self.fds:
                os.close(fd)
            for _, pidfd in self.children.values():
                if pidfd is not None:
                    os.close(pidfd)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                # What a job set for its end it is told of.
                job = self.launch.revision.gang is not None
                if number != signal.SIGTERM or not job or not callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            if order.mounts:
                from swell.runtime import volumes

                volumes.enter(order.mounts)
            if self.enclose is not None:
                self.enclose()
            gc.enable()
            os.environ.update(order.environ)
            channel = socket.socket(fileno=own)
            if self.launch.revision.secrets:
                secrets.apply(read_frame(channel, Secrets))
            launch = msgspec.structs.replace(
                self.launch,
                replica=order.replica,
                role="serving",
                address=order.address,
                listener_fd=listening,
                mounts=order.mounts,
            )
            run_replica(self.program, launch, channel, received, [("fork", _ms_since(received))])
            status = 0
        except BaseException:
            report_crash()
        finally:
            flush_and_exit(status)

    def reap(self) -> None:
        """Report the forks that have ended, with the CPU the kernel accounted to them."""
        for pid, (name, pidfd) in list(self.children.items()):
            try:
                reaped, status, used = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:
                # A module has children waited for by itself, or by nobody (SIG_IGN): how it ended is not known.
                reaped, status, used = pid, None, None
            if not reaped:
                continue
            del self.children[pid]
            if pidfd is not None:
                self.poll.unregister(pidfd)
                os.close(pidfd)
            self.send(
                Exited(
                    replica=name,
                    pid=pid,
                    status=None if status is None else os.waitstatus_to_exitcode(status),
                    cpu_s=0.0 if used is None else used.ru_utime + used.ru_stime,
                )
            )

    def send(self, message: Forked | Unforked | Exited | Reattach, fds: list[int] | None = None) -> None:
        """Tell the runner. If it is gone, the next one asks for nothing that is lost here."""
        try:
            frame = pack(message)
            if fds:
                sent = socket.send_fds(self.channel, [frame], fds)
                self.channel.sendall(frame[sent:])
            else:
                self.channel.sendall(frame)
        except OSError:
            pass

    def reconnect(self) -> None:
        """The runner is gone: wait `orphan_s` for the next, or end."""
        self.poll.unregister(self.channel)
        self.channel.close()
        while self.fds:
            os.close(self.fds.popleft())
        self.unpacker = Unpacker(Down)
        until = time.monotonic() + self.launch.orphan_s
        while time.monotonic() < until:
            self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.channel.connect(self.launch.runner_socket)
            except OSError:
                self.channel.close()
                time.sleep(_RECONNECT_PAUSE_S)
                continue
            self.poll.register(self.channel, select.POLLIN)
            self.send(Reattach(replica=self.launch.replica, pid=os.getpid(), ready=True))
            return
        os._exit(0)


def read_frame(channel: socket.socket, kind: type[T]) -> T:
    """The first frame, and not a byte more: what follows is for whoever owns the channel then."""
    size = int.from_bytes(_exactly(channel, 4), "big")
    return msgspec.msgpack.decode(_exactly(channel, size), type=kind)


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            raise SwellError("no_launch", "The runner went away before it said what to run.")
        data += piece
    return data


def run_replica(
    program: Program, launch: Launch, channel: socket.socket, started: float, timings: list[tuple[str, float]]
) -> None:
    """Serve until the replica is over. `started`: monotonic time its start-up began."""
    listener = socket.socket(fileno=launch.listener_fd) if launch.listener_fd >= 0 else None
    replica.run(program, launch, channel, listener, started, timings)


def report_crash() -> None:
    """The traceback of what is being handled, to the log pipe."""
    sys.excepthook(*sys.exc_info())


def flush_and_exit(status: int) -> NoReturn:
    """End without destructors or atexit: threads they would join do not exist in a fork."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status)


def _ms_since(moment: float) -> float:
    return (time.monotonic() - moment) * 1000
