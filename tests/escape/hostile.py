"""What tries to get out. Each attempt is a function's argument; what it saw is its answer, whatever that is."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import swell
from swell.wire.child import Reattach
from swell.wire.frames import pack

app = swell.App("hostile")
_libc = ctypes.CDLL(None, use_errno=True)


def called(result: int) -> str:
    """Of a system call: "done", or the error's name."""
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def syscall(number: int, *args: Any) -> str:
    return called(_libc.syscall(ctypes.c_long(number), *args))


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write("out")
    return "done"


def read(path: str) -> str:
    with open(path, "rb") as file:
        file.read(1)
    return "done"


def tell(path: str) -> str:
    with open(path) as file:
        return file.read()


def connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
    return "done"


def listen(name: str, over: str) -> str:
    """At a socket of that name, until there is this file."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        sock.listen()
        while not os.path.exists(over):
            time.sleep(0.02)
    return "done"


def pretend(path: str, replica: str, pid: int) -> str:
    """Say to the runner that this is another replica."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(pack(Reattach(replica=replica, pid=pid, ready=True)))
        return "told to end" if b"drain" in sock.recv(4096) else "done"


def tcp(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=5):
        return "done"


def kill(pid: int) -> str:
    os.kill(pid, 9)
    return "done"


def queue(key: int) -> str:
    """A message queue of System V that is there."""
    return called(_libc.msgget(key, 0))


def open_socket(family: int, kind: int, protocol: int) -> str:
    socket.socket(family, kind, protocol).close()
    return "done"


def mount(target: str) -> str:
    return called(_libc.mount(b"none", target.encode(), b"tmpfs", ctypes.c_ulong(0), None))


def remount(target: str) -> str:
    return called(_libc.mount(b"none", target.encode(), None, ctypes.c_ulong(0x1000 | 0x20), None))


def chroot(target: str) -> str:
    os.chroot(target)
    return "done"


def ptrace(pid: int) -> str:
    return called(_libc.ptrace(16, pid, None, None))


def namespace(flags: int) -> str:
    return called(_libc.unshare(flags))


def become_root() -> str:
    os.setuid(0)
    return "done"


def bomb_forks(most: int) -> str:
    """As many processes as it gets, all kept at once."""
    pids: list[int] = []
    try:
        while len(pids) < most:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            pids.append(pid)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        # The last ones may still be on their way to their first instruction: they are ended all the same.
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def bomb_memory(mib: int) -> str:
    kept = [b"x" * 2**20 for _ in range(mib)]
    return "done" if len(kept) == mib else ""


def fill(path: str, mib: int) -> str:
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(bytes(2**20))
    return "done"


ATTEMPTS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        write, read, tell, connect, listen, pretend, tcp, kill, queue, open_socket, mount, remount, chroot, ptrace,
        namespace, become_root, bomb_forks, bomb_memory, fill, syscall,
    )
}  # fmt: skip


def attempt(what: str, args: list[Any]) -> str:
    try:
        return ATTEMPTS[what](*args)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))


def look() -> dict[str, Any]:
    """Where it believes to be."""
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "root": sorted(os.listdir("/")),
        "tmp": sorted(os.listdir("/tmp")),
        "environ": dict(os.environ),
    }


@app.function(memory=(64, 256), scaledown_window=60)
@swell.isolated()
def caged(what: str, args: list[Any]) -> str:
    return attempt(what, args)


@app.function(scaledown_window=60)
@swell.isolated()
def looking() -> dict[str, Any]:
    return look()


@app.function(scaledown_window=60)
@swell.isolated()
def roomy(what: str, args: list[Any]) -> str:
    return attempt(what, args)


@app.function(scaledown_window=60)
@swell.isolated(network="node")
def connected(what: str, args: list[Any]) -> str:
    return attempt(what, args)


@app.function(scaledown_window=60)
def free(what: str, args: list[Any]) -> str:
    """The same without a sandbox: an attempt that fails here too would show nothing."""
    return attempt(what, args)


@app.function(scaledown_window=60)
@swell.isolated()
def calling() -> str:
    try:
        return str(free.remote("read", ["/etc/passwd"]))
    except swell.Error as error:
        return f"{error.code}: {error.message}"


@app.function(scaledown_window=60)
def bystander() -> int:
    return os.getpid()
