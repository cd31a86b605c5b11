"""How is an ASGI application served? Its lifespan around the replica's, and one task per request."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from swell.model.errors import SwellError
from swell.runtime.heads import Length, checked
from swell.runtime.http import ConnectionExchange
from swell.runtime.scope import App, Message, http_scope
from swell.runtime.shared import ReplicaContext
from swell.runtime.steps import Steps
from swell.runtime.telling import used_lines
from swell.runtime.tracebacks import summary, user_traceback
from swell.wire.context import Input
from swell.wire.http import TRAILERS

if TYPE_CHECKING:
    from swell.runtime.websocket import WebSocketCall

BODY_AHEAD_MAX = 256 * 1024
"""Bytes of a request's body that wait for the application before the connection is not read any more."""
RETURN_WAIT_S = 0.001
"""An answer's last piece waits this long for the application to return, so that its slot is free by the time the
caller has the answer. One that goes on in the background keeps its slot."""


class AsgiApp:
    """One application of the program's, with its lifespan."""

    def __init__(self, replica: ReplicaContext, name: str, app: App) -> None:
        self._replica = replica
        self._name = name
        self._app = app
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._lifespan: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run its start-up. An application without lifespan has none; one whose start-up fails is an enter_error."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._lifespan = asyncio.ensure_future(self._app(scope, self._inbox.get, self._outbox.put))
        await self._inbox.put({"type": "lifespan.startup"})
        answer = await self._lifespan_says()
        if answer is None:
            self._lifespan = None
        elif answer["type"] == "lifespan.startup.failed":
            message = answer.get("message") or "it gave no reason"
            raise SwellError(
                "enter_error", f"The start-up of the ASGI app of {self._name} failed.", status=500, detail=message
            )

    async def stop(self) -> None:
        """Run its shutdown."""
        if self._lifespan is not None and not self._lifespan.done():
            await self._inbox.put({"type": "lifespan.shutdown"})
            await self._lifespan_says()

    def open(self, exchange: ConnectionExchange) -> AsgiCall | WebSocketCall:
        """Take one admitted request."""
        if exchange.request.header(b"upgrade") == b"websocket":
            from swell.runtime.websocket import WebSocketCall

            return WebSocketCall(self._replica, exchange, self._app, self._state)
        return AsgiCall(self._replica, exchange, self._app, self._state)

    async def _lifespan_says(self) -> Message | None:
        """Its next message; None when it ended without one (it does not speak lifespan)."""
        assert self._lifespan is not None
        said = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({said, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        if said.done():
            return said.result()
        said.cancel()
        if not self._lifespan.cancelled():
            self._lifespan.exception()
        return None


class AsgiCall:
    """One request to an application."""

    def __init__(self, replica: ReplicaContext, exchange: ConnectionExchange, app: App, state: dict[str, Any]) -> None:
        request = exchange.request
        self.request = request.id
        self.deadline = request.deadline
        self.alone = True
        self.on_loop = True
        self._replica = replica
        self._exchange = exchange
        self._body: deque[bytes] = deque()
        self._body_size = 0
        self._whole = False
        self._body_told = False
        """The application has been given the end of the body."""
        self._gone = False
        self._news = asyncio.Event()
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._length: Length | None = None
        """Of the answer's body, until the application has said that no more comes."""
        self._begun = False
        self._ended = False
        """The application has given all that its caller waits for."""
        self._announced = False
        """Trailers follow the body."""
        self._trailers: list[tuple[bytes, bytes]] = []
        self._last: tuple[bytes, int, list[tuple[bytes, bytes]]] | None = None
        """Its last piece, with status and headers, until it is sent."""
        self._waiting: asyncio.TimerHandle | None = None
        self._stopping = False
        self._late = False
        """Its deadline passed before its answer began: nothing of its application is sent."""
        self._began_ns = perf_counter_ns()
        self._steps = Steps(self._run(app, http_scope(exchange, state)))
        self._task: asyncio.Task[None] = replica.loop.create_task(
            self._steps, context=replica.context_for(Input(self.request, self.deadline))
        )
        self._task.add_done_callback(self._over)

    # -- handler ------------------------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        self._body.append(chunk)
        self._body_size += len(chunk)
        if self._body_size > BODY_AHEAD_MAX:
            self._exchange.pause_reading()
        self._news.set()

    def complete(self) -> None:
        self._whole = True
        self._news.set()

    def disconnected(self) -> None:
        self._gone = True
        self._news.set()
        self._replica.slots.stop(self)

    # -- work ---------------------------------------------------------------------------------

    def interrupt(self, attempt: int) -> None:
        """An application that was told `http.disconnect` may end by itself at first; then it is cancelled."""
        self._stopping = True
        if attempt > 0:
            self._tell_late()
        if attempt > 0 or not self._gone:
            self._task.cancel()

    def expire(self) -> None:
        """What it has answered as a whole is sent. A part of an answer has no form of ours that could end in words."""
        if self._begun and not self._ended:
            self._exchange.abort()
        self._late = not (self._begun or self._ended)

    def _tell_late(self, spent: bytes = b"") -> None:
        """Answer, if its deadline has passed, with what it used where that is known."""
        if self._late:
            message = self._exchange.request.past_deadline("it ran; it was told to stop")
            self._exchange.refuse(504, "deadline", message, spent)

    def left(self, now: float) -> bool:
        return self.deadline <= now or self._exchange.left()

    # -- the application ----------------------------------------------------------------------

    async def _run(self, app: App, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        except BaseException as error:
            if self._stopping and isinstance(error, asyncio.CancelledError):
                return
            sys.stderr.write(user_traceback(error))
            self._broken(summary(error))
            return
        if not (self._ended or self._late or self._exchange.closed):
            sys.stderr.write("The ASGI app returned before its response was over.\n")
            self._broken("The ASGI app returned without a response.")

    def _broken(self, why: str) -> None:
        """It failed: its caller is told, unless that has its answer, or will be told that it is late."""
        if self._ended or self._late:
            return
        if self._begun:
            self._exchange.break_off()
        else:
            self._exchange.refuse(500, "exception", why, self._spent())

    async def _receive(self) -> Message:
        while not (self._body or self._whole or self._gone):
            self._news.clear()
            await self._news.wait()
        if self._body:
            chunk = b"".join(self._body)
            self._body.clear()
            self._body_size = 0
            self._exchange.resume_reading()
            self._body_told = self._whole
            return {"type": "http.request", "body": chunk, "more_body": not self._whole}
        if self._whole and not self._body_told and not self._gone:
            self._body_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not (self._gone or self._ended):
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if (self._exchange.closed or self._late) and not self._ended:
            # Nobody reads any more: the app hears of it by http.disconnect, or as it is cancelled, once the loop turns.
            await asyncio.sleep(0)
            return
        kind = message["type"]
        if kind == "http.response.start" and self._head is None:
            head = checked(message["status"], message.get("headers", ()))
            self._length = Length("ASGI", self._exchange.request.method, *head)
            self._head = head
            self._announced = message.get("trailers", False)
        elif kind == "http.response.body" and self._length is not None:
            await self._take(message.get("body", b""), message.get("more_body", False), self._length)
        elif kind == "http.response.trailers" and self._head is not None and self._announced:
            self._trailers = checked(200, [*self._trailers, *message.get("headers", ())])[1]
            if not message.get("more_trailers", False):
                self._announced = False
                self._length = None
                await self._send_body(b"", False, *self._head)
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of place here.")

    async def _take(self, body: bytes, more: bool, length: Length) -> None:
        """A piece of the body, which is to be as long as was announced."""
        assert self._head is not None
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"An ASGI app gives bytes, not {type(body).__name__}.")
        body = bytes(body)
        try:
            length.add(len(body))
        except RuntimeError:
            self._withdraw()
            raise
        if not more:
            length.end()
            if not self._announced:
                self._length = None
        # Whoever reads by the announced length has it all then, and may ask the next thing on this connection.
        await self._send_body(body, (more or self._announced) and not length.reached, *self._head)

    async def _send_body(self, body: bytes, more: bool, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        exchange = self._exchange
        if self._ended:
            await asyncio.sleep(0)
        elif more:
            if not self._begun:
                self._begun = True
                exchange.begin(status, headers, TRAILERS)
            exchange.write(body)
            await exchange.drained()
        else:
            self._ended = True
            self._news.set()
            self._last = (body, status, headers)
            self._waiting = self._replica.loop.call_later(RETURN_WAIT_S, self._end)

    def _withdraw(self) -> None:
        """Its answer was whole, but not sent yet, and is not what it should be."""
        if self._last is not None:
            assert self._waiting is not None
            self._waiting.cancel()
            self._last = None
            self._ended = False

    # -- its end ------------------------------------------------------------------------------

    def _spent(self) -> bytes:
        return used_lines(self._steps.used_ns(self.alone), perf_counter_ns() - self._began_ns)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._replica.ended(self)
        if self._late:
            self._tell_late(self._spent())
        elif self._ended:
            self._end()
        elif task.cancelled() and not self._exchange.closed:
            self._exchange.abort()

    def _end(self) -> None:
        """Send the answer's last piece, or the answer if it has only one."""
        if self._last is None:
            return
        assert self._waiting is not None
        self._waiting.cancel()
        (body, status, headers), self._last = self._last, None
        exchange = self._exchange
        if not self._begun:
            self._begun = True
            length = [] if any(name.lower() == b"content-length" for name, _ in headers) else [_length(body)]
            spent = [(name, value) for name, _, value in (line.partition(b": ") for line in self._spent().splitlines())]
            exchange.begin(status, [*headers, *length, *spent])
        exchange.write(body)
        exchange.end(b"".join(b"%s: %s\r\n" % line for line in self._trailers) + self._spent())


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length", str(len(body)).encode()
