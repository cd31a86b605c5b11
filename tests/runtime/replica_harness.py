"""A real replica in a process of its own, and the test as its gateway and its runner."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from swell.model.environment import Environment
from swell.model.workload import Entry, Method, Revision
from swell.wire.child import Down, Failed, ForkStarted, Launch, Mount, Ready, Up
from swell.wire.frames import Unpacker, pack
from swell.wire.loglines import ENDED, unmark

WAIT_S = 60.0

CHILD = """
import msgspec, os, socket, sys, time
from swell.runtime import load, replica
from swell.wire.child import Launch
started = time.monotonic()
launch = msgspec.msgpack.decode(open(sys.argv[1], "rb").read(), type=Launch)
program = load.load(launch.revision, launch.bundle_dir, snap=sys.argv[4] == "fork")
if sys.argv[4] == "fork" and os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)
listener = socket.socket(fileno=int(sys.argv[3])) if int(sys.argv[3]) >= 0 else None
replica.run(program, launch, socket.socket(fileno=int(sys.argv[2])), listener, started, [("load", 1.0)])
os._exit(0)
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the replica's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("replica", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(self._path)


class ReplicaProcess:
    """`source` is the user's module; its one entry is `entry`. `mounts` are what it takes for mounted."""

    def __init__(
        self,
        source: str,
        entry: Entry,
        *,
        fork: bool = False,
        listen: bool = True,
        cancel_grace_s: float = 0.5,
        orphan_s: float = 10.0,
        gateway_url: str = "http://gateway",
        checkpoints: str = "",
        mounts: tuple[Mount, ...] = (),
        **revision: Any,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        (self.folder / "user_code.py").write_text(textwrap.dedent(source))
        self.path = str(self.folder / "r.s")
        self.runner_path = str(self.folder / "runner.s")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        self.channel, theirs = socket.socketpair()
        launch = Launch(
            replica="r1-1",
            pool="default/app/thing@rv-1",
            role="serving",
            revision=Revision(Environment(sys.executable, "3.11"), "bundle", entry, **revision),
            bundle_dir=str(self.folder),
            runner_socket=self.runner_path,
            address=f"unix:{self.path}",
            gateway_url=gateway_url,
            call_key="call-key",
            orphan_s=orphan_s,
            cancel_grace_s=cancel_grace_s,
            checkpoints=checkpoints,
            mounts=mounts,
        )
        (self.folder / "launch").write_bytes(msgspec.msgpack.encode(launch))
        fds = (theirs.fileno(), listener.fileno())
        arguments = (self.folder / "launch", fds[0], fds[1] if listen else -1, "fork" if fork else "fresh")
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *map(str, arguments)],
            pass_fds=fds,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        listener.close()
        self.lines: list[tuple[str, str, str]] = []
        """(stream, request, text) of everything it printed."""
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        self._unpacker: Unpacker[Up] = Unpacker(Up)
        self._heard: list[Up] = []

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            part = unmark(line.decode().removesuffix("\n"))
            if part[0] != ENDED:
                self.lines.append(part)

    # -- as its runner ------------------------------------------------------------------------

    def hear(self, channel: socket.socket | None = None) -> Up | None:
        """Its next message (that a fork is alive is passed over); None when it has closed the channel."""
        channel = channel or self.channel
        channel.settimeout(WAIT_S)
        while not self._heard:
            data = channel.recv(65536)
            if not data:
                return None
            self._heard += [message for message in self._unpacker.feed(data) if not isinstance(message, ForkStarted)]
        return self._heard.pop(0)

    def ready(self) -> Ready:
        message = self.hear()
        assert isinstance(message, Ready), (message, self.lines)
        return message

    def failed(self) -> Failed:
        message = self.hear()
        assert isinstance(message, Failed), message
        return message

    def tell(self, message: Down) -> None:
        self.channel.sendall(pack(message))

    def wait(self) -> int:
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return status

    # -- as its gateway -----------------------------------------------------------------------

    def connect(self) -> UnixConnection:
        return UnixConnection(self.path)

    def request(
        self, target: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers with lower-case names, body) over a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, target, body=body, headers={"Swell-Request-Id": "q1", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def call(self, method: str, arguments: Any = None, **headers: str) -> Any:
        """The decoded JSON answer; the status must be 200."""
        body = b"" if arguments is None else msgspec.json.encode(arguments)
        status, _, answer = self.request(
            f"/call/{method}", body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        assert status == 200, answer
        return msgspec.json.decode(answer)

    def begin(self, target: str, body: bytes = b"", headers: str = "", method: str = "POST") -> socket.socket:
        """Send a request and hand back the raw connection without waiting for the answer."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(WAIT_S)
        sock.connect(self.path)
        sock.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nSwell-Request-Id: q9\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return sock

    def begin_incomplete(self, target: str, headers: str = "") -> socket.socket:
        """Send the head of a request and one byte of a body of ten."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(WAIT_S)
        sock.connect(self.path)
        sock.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n{headers}\r\n[".encode())
        return sock

    def printed(self, text: str) -> list[tuple[str, str, str]]:
        return [line for line in self.lines if text in line[2]]

    # -- end ----------------------------------------------------------------------------------

    def __enter__(self) -> ReplicaProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.channel.close()
        shutil.rmtree(self.folder)


@contextmanager
def ready_replica(source: str, entry: Entry, **options: Any) -> Iterator[ReplicaProcess]:
    """A replica that has said it is ready."""
    with ReplicaProcess(source, entry, **options) as replica:
        replica.ready()
        yield replica


def function(name: str = "thing", **method: Any) -> Entry:
    """The entry of a module-level function."""
    return Entry("user_code", name, "function", (Method(name, **method),))


def cls(*methods: str, **hooks: tuple[str, ...]) -> Entry:
    """The entry of the class `Thing` with these plain methods."""
    return Entry("user_code", "Thing", "cls", tuple(Method(name) for name in methods), **hooks)


def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait, within bounds, for something to become true."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def stops_growing(path: Path) -> bool:
    """The external counter: code that appends to a file has stopped when the file is the same after a while."""
    before = os.path.getsize(path)
    time.sleep(0.3)
    return os.path.getsize(path) == before
