"""Both ends of an upstream connection without sockets: what reached the replica, what reached the caller."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.gateway.upstream import Upstream
from swell.wire.settings import Settings

TIMES = re.compile(rb"server-timing: [^\r]*", re.IGNORECASE)


class UnixSocket:
    family = socket.AF_UNIX

    @staticmethod
    def fileno() -> int:
        return -1


class Wire:
    """The transport to the replica."""

    def __init__(self, ends: list[str]) -> None:
        self.sent = b""
        self.ends = ends

    def get_extra_info(self, _name: str) -> Any:
        return UnixSocket

    def is_closing(self) -> bool:
        return "aborted" in self.ends

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.ends.append("aborted")


class Ends:
    """The client, and the replica that owns the connection."""

    contended = False
    """Nobody else fills that replica."""

    def __init__(self, loop: asyncio.AbstractEventLoop, native: bool = True, shared: Shared | None = None) -> None:
        self.shared = shared or Shared(Settings(home="/"), "g1", loop)
        self.told = b""
        self.write_paused = False
        self.ends: list[str] = []
        self.wire = Wire(self.ends)
        self.upstream = Upstream(self, native, shared=self.shared)
        self.upstream.connection_made(self.wire)  # type: ignore[arg-type]  # all of a transport that is used

    # as a client

    def write(self, data: bytes) -> None:
        self.told += data

    def answered(self, _request: Request) -> None:
        self.ends.append("answered")

    def cut(self, _request: Request) -> None:
        self.ends.append("cut")

    def read_on(self, _why: int) -> None: ...

    # as the replica

    def ended(self, upstream: Upstream | None, _now: float) -> None:
        self.ends.append("kept" if upstream is not None else "not kept")

    def busy(self, _request: Request, upstream: Upstream | None) -> None:
        self.ends.append("busy, kept" if upstream is not None else "busy")

    def lost(self, _upstream: Upstream) -> None: ...

    def died(self, request: Request, unread: bool) -> None:
        self.ends.append("died")
        request.fail(502, "replica_died", f"unread: {unread}")

    def broke_off(self, request: Request) -> None:
        self.ends.append("broke off")
        request.fail(500, "exception", "")

    def ask(
        self, method: bytes, pieces: list[bytes], eof: bool = False, http11: bool = True
    ) -> tuple[bytes, list[str]]:
        """What the caller is told of an answer in these pieces, times left out, and what it came to."""
        request = Request(self.shared, self, 0.0, method, b"/call/f", b"q1")  # type: ignore[arg-type]  # as above
        request.complete = True
        request.http11 = http11
        request.deadline = 1e12
        self.told = b""
        self.ends.clear()
        self.upstream.send(request, 0.0)
        for piece in pieces:
            if self.upstream.request is not None:
                self.upstream.data_received(piece)
        if eof and self.upstream.request is not None:
            self.upstream.eof_received()
            self.upstream.connection_lost(None)
        return TIMES.sub(b"", self.told), list(self.ends)
