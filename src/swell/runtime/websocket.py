"""How does an ASGI application talk over a WebSocket? Its messages as frames, from the handshake to the last Close.

The application has one task per session, which counts as one input for as long as it runs. Pings are answered here.
A peer that said Close leaves the application the time to end by itself; one that went without a word is a caller
that left: what still runs then is stopped.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from time import perf_counter_ns
from typing import Any

from swell.runtime.heads import checked
from swell.runtime.http import ConnectionExchange, Exchange
from swell.runtime.lookout import Lookout
from swell.runtime.scope import App, Message, http_scope
from swell.runtime.shared import ReplicaContext
from swell.runtime.steps import Steps
from swell.runtime.telling import used_lines
from swell.runtime.tracebacks import summary, user_traceback
from swell.wire.context import Input
from swell.wire.hangup import hung_up
from swell.wire.websocket import (
    ABNORMAL,
    BINARY,
    CLOSE,
    INTERNAL,
    NORMAL,
    PING,
    POLICY,
    PONG,
    TEXT,
    Messages,
    Violation,
    accept_key,
    close_frame,
    closing,
    frame,
)

AHEAD_MAX = 256 * 1024
"""Bytes of messages that wait for the application before the connection is not read any more."""
TRUSTED_EXTENSION = "swell.trusted"
"""Of a WebSocket's scope: its caller has a key that may deploy the app."""
CLOSE_WAIT_S = 10.0
"""A peer that was sent a Close has this long to answer with its own."""

_AGREED = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
_OWN = (b"sec-websocket-accept", b"sec-websocket-extensions", b"connection", b"upgrade")
"""Headers of the handshake's answer that are not the application's to give."""


class Gone(ConnectionResetError):
    """What an application gets that sends on a WebSocket which is over; ASGI wants it to be an OSError."""


class WebSocketCall(asyncio.Protocol):
    """One session: from its handshake on the handler of a request, and once accepted its connection's protocol."""

    def __init__(self, replica: ReplicaContext, exchange: ConnectionExchange, app: App, state: dict[str, Any]) -> None:
        request = exchange.request
        self.request = request.id
        self.deadline = request.deadline
        self.alone = True
        self.on_loop = True
        self._replica = replica
        self._exchange = exchange
        self._transport: Any = None
        """Set once the application accepted."""
        self._messages = Messages()
        self._inbox: deque[Message] = deque([{"type": "websocket.connect"}])
        self._inbox_size = 0
        self._ahead_max: float = AHEAD_MAX
        self._paused = False
        self._lookout: Lookout | None = None
        self._farewell: Message | None = None
        """What the application is told last: the session is over for it."""
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._denial: tuple[int, list[tuple[bytes, bytes]]] | None = None
        """The head of an HTTP answer in place of a session."""
        self._said_close = False
        self._lost = False
        self._stopping = False
        self._began_ns = perf_counter_ns()
        self._steps = Steps(self._run(app, _scope(exchange, state)))
        context = replica.context_for(Input(self.request, self.deadline))
        self._task: asyncio.Task[None] = replica.loop.create_task(self._steps, context=context)
        self._task.add_done_callback(self._over)

    # -- handler, until it is accepted ------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        """A handshake has no body."""

    def complete(self) -> None:
        """Nothing was waited for."""

    def disconnected(self) -> None:
        self.connection_lost(None)

    # -- work -------------------------------------------------------------------------------------

    def interrupt(self, attempt: int) -> None:
        """An application that was told of the end may come to its own at first; then it is cancelled."""
        self._stopping = True
        if attempt > 0 or self._farewell is None:
            self._task.cancel()

    def expire(self) -> None:
        message = self._exchange.request.past_deadline("it was open")
        if self._transport is None:
            self._exchange.refuse(504, "deadline", message, self._spent())
        self._close(POLICY, message)
        self._tell(POLICY, message)

    def left(self, now: float) -> bool:
        if self.deadline <= now:
            return True
        if self._transport is None:
            return self._exchange.left()
        return self._farewell is None and hung_up(self._transport)

    # -- the connection ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._messages.feed(data):
                self._take(kind, payload)
                if self._transport.is_closing():
                    return
        except Violation as violation:
            self._close(violation.code, violation.reason)
            self._tell(violation.code, violation.reason)
            # What comes after it cannot be understood either.
            self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        if self._farewell is None:
            self._tell(ABNORMAL, "")
            self._replica.slots.stop(self)

    def _take(self, kind: int, payload: bytes | str) -> None:
        if kind == CLOSE:
            assert isinstance(payload, bytes)
            code, reason = closing(payload)
            self._close(code, "")
            self._tell(code, reason)
            self._transport.close()
        elif kind == PING:
            assert isinstance(payload, bytes)
            if not self._said_close:
                self._transport.write(frame(PONG, payload))
        elif kind != PONG and self._farewell is None:
            text, data = (payload, None) if kind == TEXT else (None, payload)
            self._inbox.append({"type": "websocket.receive", "text": text, "bytes": data})
            self._inbox_size += len(payload)
            if self._inbox_size > self._ahead_max and not self._paused:
                self._paused = True
                if self._lookout is None:
                    self._lookout = Lookout(self._transport, self._gone)
                self._lookout.pause_reading()
            self._news.set()

    def _gone(self) -> None:
        """A peer that is gone is read to its end, however far behind the application is: little can be left of it."""
        self._paused, self._ahead_max = False, math.inf
        self._transport.resume_reading()

    def _tell(self, code: int, reason: str) -> None:
        """The application is to hear that it is over, behind what it has not heard yet."""
        if self._farewell is None:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._news.set()

    def _close(self, code: int, reason: str) -> None:
        """Say Close, once; then the peer has a while to say it, too."""
        if self._transport is None or self._said_close or self._lost:
            return
        self._said_close = True
        self._transport.write(close_frame(code, reason))
        if self._paused:
            self._transport.resume_reading()
        self._replica.loop.call_later(CLOSE_WAIT_S, self._transport.close)

    # -- the application --------------------------------------------------------------------------

    async def _run(self, app: App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        except BaseException as error:
            if self._stopping and isinstance(error, asyncio.CancelledError):
                return
            # That the other side had gone is no error, however a framework words it.
            if not (self._farewell is not None and isinstance(error.__context__ or error, Gone)):
                sys.stderr.write(user_traceback(error))
            self._end(INTERNAL, summary(error))
            return
        self._end(NORMAL, "The ASGI app returned without accepting the WebSocket or refusing it.")

    def _end(self, code: int, why: str) -> None:
        """The application is over; what it left open is closed."""
        if self._transport is not None:
            self._close(code, "")
            self._tell(code, "")
        elif self._denial is not None:
            self._exchange.break_off()
        elif not self._exchange.closed:
            self._exchange.refuse(500, "exception", why, self._spent())

    async def _receive(self) -> Message:
        while not self._inbox:
            if self._farewell is not None:
                return dict(self._farewell)
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        self._inbox_size -= len(message.get("text") or message.get("bytes") or b"")
        if self._paused and self._inbox_size <= AHEAD_MAX and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return message

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._transport is not None:
            await self._send_open(kind, message)
        elif self._farewell is not None:
            raise Gone("Whoever asked for this WebSocket has gone.")
        elif kind == "websocket.accept" and self._denial is None:
            self._accept(message)
        elif kind == "websocket.close" and self._denial is None:
            self._exchange.answer(403, b"text/plain", b"", self._spent())
            self._tell(ABNORMAL, "")
        elif kind == "websocket.http.response.start" and self._denial is None:
            self._denial = checked(message["status"], message.get("headers", ()))
            self._exchange.begin(*self._denial)
        elif kind == "websocket.http.response.body" and self._denial is not None:
            await self._deny(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of place here.")

    async def _deny(self, body: bytes, more: bool) -> None:
        self._exchange.write(bytes(body))
        if more:
            await self._exchange.drained()
        else:
            self._exchange.end()
            self._denial = None
            self._tell(ABNORMAL, "")

    def _accept(self, message: Message) -> None:
        _, headers = checked(200, message.get("headers") or ())
        chosen = message.get("subprotocol")
        if chosen:
            headers += checked(200, [(b"Sec-WebSocket-Protocol", chosen.encode())])[1]
        lines = [b"%s: %s\r\n" % (name, value) for name, value in headers if name.lower() not in _OWN]
        key = accept_key(self._exchange.request.header(b"sec-websocket-key"))
        self._transport = self._exchange.switch(_AGREED % key + b"".join(lines), self)

    async def _send_open(self, kind: str, message: Message) -> None:
        if kind == "websocket.close":
            code = message.get("code", NORMAL)
            self._close(code, message.get("reason") or "")
            self._tell(code, message.get("reason") or "")
        elif kind != "websocket.send":
            raise RuntimeError(f"ASGI message {kind!r} is out of place here.")
        elif self._farewell is not None:
            raise Gone("This WebSocket is closed.")
        else:
            text, data = message.get("text"), message.get("bytes")
            self._transport.write(frame(TEXT, text.encode()) if text is not None else frame(BINARY, bytes(data or b"")))
            # One turn of the loop at least: an application may do nothing but send, and has to hear that nobody reads.
            await (asyncio.sleep(0) if self._writable.is_set() else self._writable.wait())

    # -- its end ----------------------------------------------------------------------------------

    def _spent(self) -> bytes:
        return used_lines(self._steps.used_ns(self.alone), perf_counter_ns() - self._began_ns)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._replica.ended(self)
        if self._transport is not None:
            self._close(INTERNAL, "")
        elif task.cancelled() and not self._exchange.closed:
            self._exchange.abort()


def _scope(exchange: Exchange, state: dict[str, Any]) -> dict[str, Any]:
    """The scope of a WebSocket: as that of a request, with the protocols that its caller offers within it."""
    scope = http_scope(exchange, state)
    del scope["method"]
    offered = b",".join(value for name, value in exchange.request.headers if name == b"sec-websocket-protocol")
    words = [word.strip() for word in offered.decode("latin-1").split(",")]
    extensions: dict[str, dict[str, Any]] = {"websocket.http.response": {}}
    if exchange.request.trusted:
        extensions[TRUSTED_EXTENSION] = {}
    return scope | {
        "type": "websocket",
        "scheme": "wss" if scope["scheme"] == "https" else "ws",
        "subprotocols": [word for word in words if word],
        "extensions": extensions,
    }
