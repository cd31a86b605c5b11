"""How does a program talk both ways with what runs in a replica? A WebSocket's client, over asyncio's streams.

The frames are `wire/websocket.py`'s, which tests hold to what two other implementations read and write.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections import deque
from urllib.parse import urlsplit

import msgspec

from swell.model.errors import SwellError
from swell.wire.http import ErrorEnvelope
from swell.wire.websocket import (
    CLOSE,
    NORMAL,
    PING,
    PONG,
    Messages,
    Violation,
    accept_key,
    close_frame,
    closing,
    frame,
)

BODY_MAX = 1024 * 1024
CLOSE_WAIT_S = 2.0
"""The other side has this long to say Close, too."""


class Socket:
    """One session that is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._messages = Messages(masked=False)
        self._inbox: deque[tuple[int, bytes | str]] = deque()
        self.closed: tuple[int, str] | None = None
        """Code and reason of the Close that was heard."""

    @classmethod
    async def open(cls, url: str, path: str, key: str) -> Socket:
        """Shake hands at a path of a server; held there until a replica takes it. SwellError says why not."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
        except OSError as error:
            raise SwellError(
                "no_server", f"No server answers at {url}: {error.strerror or error}.", status=503
            ) from None
        try:
            nonce = base64.b64encode(os.urandom(16))
            writer.write(_handshake(parts.netloc, parts.path.rstrip("/") + path, key, nonce))
            await _agreed(reader, nonce)
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer)

    async def send(self, kind: int, payload: bytes) -> None:
        """Send a message. SwellError where the connection broke."""
        self._writer.write(frame(kind, payload, os.urandom(4)))
        try:
            await self._writer.drain()
        except OSError:
            raise _lost() from None

    async def receive(self) -> tuple[int, bytes | str] | None:
        """The next message; None when the session was closed, as `closed` says. SwellError where it broke."""
        while not self._inbox:
            if self.closed is not None:
                return None
            try:
                data = await self._reader.read(65536)
            except OSError:
                data = b""
            if not data:
                raise _lost()
            try:
                for kind, payload in self._messages.feed(data):
                    self._take(kind, payload)
            except Violation as violation:
                raise SwellError(
                    "bad_answer", f"The server sent no WebSocket: {violation.reason}", status=502
                ) from None
        return self._inbox.popleft()

    def _take(self, kind: int, payload: bytes | str) -> None:
        if kind == CLOSE:
            assert isinstance(payload, bytes)
            self.closed = closing(payload)
        elif kind == PING:
            assert isinstance(payload, bytes)
            self._writer.write(frame(PONG, payload, os.urandom(4)))
        elif kind != PONG:
            self._inbox.append((kind, payload))

    async def close(self) -> None:
        """Say Close and let go."""
        try:
            self._writer.write(close_frame(NORMAL, mask=os.urandom(4)))
            self._writer.close()
            await asyncio.wait_for(self._writer.wait_closed(), CLOSE_WAIT_S)
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def _lost() -> SwellError:
    return SwellError("connection_lost", "The connection to the server broke off.", status=502)


def _handshake(host: str, target: str, key: str, nonce: bytes) -> bytes:
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{authorization}Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {nonce.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def _agreed(reader: asyncio.StreamReader, nonce: bytes) -> None:
    """Read the answer to a handshake. SwellError where it is not what was asked for."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        raise _lost() from None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split()[1]) if first.startswith("HTTP/1.1 ") and first[9:12].isdigit() else 0
    if status == 101 and headers.get("sec-websocket-accept") == accept_key(nonce).decode():
        return
    body = await _body(reader, headers)
    try:
        error = msgspec.json.decode(body, type=ErrorEnvelope).error
    except msgspec.MsgspecError:
        raise SwellError("bad_answer", f"The server answered {status or 'no HTTP'} in place of a WebSocket.") from None
    raise SwellError(error.code, error.message, status=status, detail=error.detail, request=error.request)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Of a refusal, which ends the connection: with a length, or in chunks."""
    try:
        if headers.get("content-length", "").isdigit():
            return await reader.readexactly(min(int(headers["content-length"]), BODY_MAX))
        body = b""
        while len(body) < BODY_MAX and (size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)):
            body += (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
        return b""
    return body
