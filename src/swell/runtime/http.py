"""How does a replica speak HTTP/1.1? One request at a time per connection, kept alive, answered in order.

Gateways and our runner are at the other end, and do not pipeline. That a connection closed while its request is worked
on is passed on as `Handler.disconnected`: it is a cancel, but of a queued call, which goes on (`keeping`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

import httptools

from swell.runtime.lookout import Lookout
from swell.runtime.request import Head, Request
from swell.runtime.telling import error_line
from swell.wire.hangup import half_closed, hung_up
from swell.wire.http import BUSY, HAND_OUT, JSON, REMAINING_MS, REQUEST_ID, ErrorShape, error_body, lower

DISCARD_MAX = 256 * 1024
"""Bytes of an unwanted body that are read away to keep the connection; a longer one costs the connection."""
LINGER_S = 5.0
"""How long an answered connection with a long unread body is drained before it is closed."""
KNOWN_HEADS_MAX = 256
KNOWN_HEAD_MAX = 4096
"""Bytes of a head that is remembered."""
WRITE_HIGH = 64 * 1024
"""Unsent bytes of one connection above which a stream waits for its reader."""

Headers = Iterable[tuple[bytes, bytes]]

_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}
_JSON = JSON.encode()
_ID = f"{REQUEST_ID}: ".encode()
_ID_AT = len(_ID)
_REMAINING = f"{REMAINING_MS}: ".encode()
_REMAINING_AT = len(_REMAINING)
_TOKEN = f"{HAND_OUT}: ".encode()
_TOKEN_AT = len(_TOKEN)
_UNLIKE = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests whose heads are not worth remembering."""
_REQUEST_ID, _REMAINING_MS, _HAND_OUT = map(lower, (REQUEST_ID, REMAINING_MS, HAND_OUT))
BUSY_LINE = f"{BUSY}: 1\r\n".encode()


class Handler(Protocol):
    """What takes one admitted request from its body to its answer."""

    def data(self, chunk: bytes) -> None: ...

    def complete(self) -> None:
        """The body has arrived as a whole."""
        ...

    def disconnected(self) -> None:
        """The connection was closed before the answer was over."""
        ...


class Kept(Protocol):
    """What a connection has for the request that comes next on it."""

    def accept(self, exchange: ConnectionExchange) -> Handler | None:
        """That request is here."""
        ...

    def lost(self) -> None:
        """None will come."""
        ...


class Carrier(Protocol):
    """What an answer goes out on: a connection, or what keeps it for one."""

    @property
    def full(self) -> bool: ...
    def send(self, data: bytes) -> None: ...
    def closing_line(self) -> bytes: ...
    def answered(self) -> None: ...
    def hung_up(self) -> bool: ...


class Exchange:
    """One request and its answer: `answer`, or `begin`, `write`… and `end`. Loop thread only."""

    __slots__ = ("_carrier", "_chunked", "_silent", "closed", "on_end", "on_writable", "request")

    def __init__(self, carrier: Carrier, request: Request) -> None:
        self._carrier = carrier
        self._chunked = False
        self._silent = request.method == "HEAD"
        self.request = request
        self.closed = False
        """The answer is over or nobody is there to read it: writes are dropped."""
        self.on_writable: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        """Called when whoever asked sends nothing any more. It may be there to hear yet: `half_left` tells."""

    def answer(self, status: int, content_type: bytes, body: bytes, head: bytes = b"") -> None:
        """The whole answer at once. `head`: further header lines, each with its CRLF."""
        if self.closed:
            return
        # The further lines come last: what they say differs each time, and the gateway knows the rest again.
        lead = b"%sContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n" % (
            _LINES[status],
            content_type,
            len(body),
            self._carrier.closing_line(),
            head,
        )
        self._carrier.send(lead if self._silent else lead + body)
        self._finish()

    def refuse(
        self,
        status: int,
        code: str,
        message: str,
        head: bytes = b"",
        detail: str = "",
        shape: ErrorShape = error_body,
    ) -> None:
        """An error of Swell's own."""
        body = shape(code, message, self.request.id, detail)
        self.answer(status, _JSON, body, head + error_line(status, code))

    def give_back(self, message: str) -> None:
        """Refused after all, as busy: nothing of it was begun, and it may be tried elsewhere."""
        self.refuse(503, "busy", message, BUSY_LINE)

    def begin(self, status: int, headers: Headers, trailers: bytes = b"") -> None:
        """Start an answer; chunked unless the headers name its length. `trailers`: names that `end` will send."""
        if self.closed:
            return
        lines = [_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        bodiless = status < 200 or status in (204, 304)
        self._chunked = not bodiless and not self._silent
        for name, value in headers:
            if name.lower() == b"content-length":
                self._chunked = False
            if name.lower() not in (b"transfer-encoding", b"connection"):
                lines.append(b"%s: %s\r\n" % (name, value))
        self._silent = self._silent or bodiless
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
            if trailers:
                lines.append(b"Trailer: %s\r\n" % trailers)
        lines += (self._carrier.closing_line(), b"\r\n")
        self._carrier.send(b"".join(lines))

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if self.closed or self._silent or not data:
            return
        self._carrier.send(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def end(self, trailers: bytes = b"") -> None:
        """The answer is over. `trailers`: lines, each with its CRLF; dropped where the body is not chunked."""
        if self.closed:
            return
        if self._chunked:
            self._carrier.send(b"0\r\n%s\r\n" % trailers)
        self._finish()

    @property
    def writable(self) -> bool:
        """Less than `WRITE_HIGH` waits to be sent, or nobody reads any more."""
        return self.closed or not self._carrier.full

    async def drained(self) -> None:
        """Wait until `writable`, and for one turn of the loop at least: code that never waits for anything else must
        leave it to others, and hear that its caller has gone."""
        if self.writable:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_writable = lambda: None if waiter.done() else waiter.set_result(None)
        await waiter

    def left(self) -> bool:
        """Has whoever waits for the answer hung up? From any thread, for when the loop cannot say."""
        return not self.closed and self._carrier.hung_up()

    def _finish(self) -> None:
        self.closed = True
        self._carrier.answered()


class ConnectionExchange(Exchange):
    """One that has its connection for itself, and may do with it what it likes."""

    # One is made for each request: without an `__init__` of its own that takes a third of the time.
    __slots__ = ()
    _carrier: Connection

    def abort(self) -> None:
        """The answer cannot be ended as it was begun: only a broken connection tells the reader."""
        if not self.closed:
            self.closed = True
            self._carrier.abort()

    def break_off(self) -> None:
        """As `abort`, since user code failed: only our side is closed, behind what was sent. Who dies closes both."""
        if not self.closed:
            self.closed = True
            self._carrier.half_close()

    def pause_reading(self) -> None:
        """Take no more of the body until `resume_reading`."""
        if not self.closed:
            self._carrier.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed:
            self._carrier.resume_reading()

    def half_left(self) -> bool:
        """Has who asked closed its sending half alone? From any thread."""
        return not self.closed and self._carrier.half_left()

    def keep(self, kept: Kept | None) -> None:
        """Something is kept for the next request on this connection: that goes by it. None: no more."""
        self._carrier.keep(kept)

    def switch(self, head: bytes, protocol: asyncio.Protocol) -> Any:
        """Answer 101 with these header lines, and give the connection up to another protocol: its transport."""
        self.closed = True
        return self._carrier.switch(_LINES[101] + head + b"\r\n", protocol)


class Connection(asyncio.Protocol):
    """One connection from a gateway, or from our runner. `accept` gets each request's head and returns what handles it,
    or None when it answered at once (the body is then read away). `heads` are those seen before, on any connection."""

    def __init__(
        self,
        accept: Callable[[ConnectionExchange], Handler | None],
        connections: set[Connection],
        heads: dict[tuple[bytes, bytes], Head],
    ) -> None:
        self._accept = accept
        self._connections = connections
        self._heads = heads
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._exchange: ConnectionExchange | None = None
        self._handler: Handler | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._raw: tuple[bytes, bytes] | None = None
        """Lines that others like the head which is read now have too, if it came whole and they are not known yet."""
        self._reading = False
        self._last = False
        self.full = False
        self._kept: Kept | None = None
        """A slot, for the request that comes next."""
        self._usual = accept
        self._lookout: Lookout | None = None

    # -- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._reading and self._seen_before(data):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = True
        except httptools.HttpParserError:
            self._broken()

    def eof_received(self) -> None:
        if self._exchange is not None and self._exchange.on_end is not None:
            self._exchange.on_end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._connections.discard(self)
        if self._kept is not None:
            self._kept.lost()
        exchange, handler = self._exchange, self._handler
        self._exchange = self._handler = None
        if exchange is not None:
            exchange.closed = True
            if exchange.on_writable is not None:
                exchange.on_writable()
            if handler is not None:
                handler.disconnected()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        exchange = self._exchange
        if exchange is not None and exchange.on_writable is not None:
            exchange.on_writable()

    # -- requests -----------------------------------------------------------------------------

    def _seen_before(self, data: bytes) -> bool:
        """Take in one whole request whose head, but for its id, time left and token, was parsed before; else note how
        it looks. Who sends it writes these right after the first line."""
        head, end, body = data.partition(b"\r\n\r\n")
        parts = head.split(b"\r\n", 3)
        self._raw = None
        if not end or len(parts) < 4 or self._exchange is not None or self._last:
            return False
        line, id, remaining, rest = parts
        if id[:_ID_AT] != _ID or remaining[:_REMAINING_AT] != _REMAINING or len(rest) > KNOWN_HEAD_MAX:
            return False
        token = b""
        if rest.startswith(_TOKEN):
            token, _, rest = rest[_TOKEN_AT:].partition(b"\r\n")
        known = self._heads.get((line, rest))
        if known is None:
            self._raw = (line, rest)
            return False
        if len(body) != known.length:
            return False
        self._open(Request(known, id[_ID_AT:], remaining[_REMAINING_AT:], token))
        if body:
            self.on_body(body)
        self.on_message_complete()
        return True

    def _open(self, request: Request) -> None:
        exchange = self._exchange = ConnectionExchange(self, request)
        handler = self._accept(exchange)
        if not exchange.closed:
            self._handler = handler

    # -- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._exchange is not None or self._last:
            raise ValueError("a request arrived before the one before it was answered")
        self._target = b""
        self._headers = []
        self._reading = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._last = not parser.should_keep_alive()
        head = Head(parser.get_method().decode(), self._target, self._headers)
        fields = head.fields
        # Of this head alone: what was refused at its head may have its body come together with the next one.
        raw, self._raw = self._raw, None
        if raw is not None and not self._last and not _UNLIKE.intersection(fields):
            if len(self._heads) >= KNOWN_HEADS_MAX:
                self._heads.clear()
            self._heads[raw] = head
        self._open(Request(head, *(fields.get(name, b"") for name in (_REQUEST_ID, _REMAINING_MS, _HAND_OUT))))
        if self._handler is not None and fields.get(b"expect", b"").lower() == b"100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._handler is not None:
            self._handler.data(body)

    def on_message_complete(self) -> None:
        self._reading = False
        if self._handler is not None:
            self._handler.complete()
        elif self._exchange is None and self._last:
            self._transport.close()

    # -- for the exchange ---------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def closing_line(self) -> bytes:
        """The header line that ends the connection with this answer, where it has to."""
        if self._reading and not self._last:
            length = self._exchange.request.header(b"content-length") if self._exchange is not None else b""
            chunked = self._exchange is not None and self._exchange.request.header(b"transfer-encoding") != b""
            self._last = chunked or int(length or 0) > DISCARD_MAX
        return b"Connection: close\r\n" if self._last else b""

    def answered(self) -> None:
        """The answer is over: take the next request, or close."""
        self._exchange = self._handler = None
        self._transport.resume_reading()
        if not self._last:
            return
        if self._reading:
            # Closing with unread bytes would reset the connection and could lose the answer on its way.
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def pause_reading(self) -> None:
        if self._lookout is None:
            self._lookout = Lookout(self._transport, self._gone)
        self._lookout.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _gone(self) -> None:
        """Its end is heard, though what was sent before it is not read: nobody waits for what is made of that."""
        if self._exchange is not None:
            self.eof_received()
            self._transport.close()

    def hung_up(self) -> bool:
        """Asked of the kernel: the loop has yet to hear of it."""
        return hung_up(self._transport)

    def half_left(self) -> bool:
        return half_closed(self._transport)

    def switch(self, answer: bytes, protocol: asyncio.Protocol) -> Any:
        """Write a last answer; what comes from now on is another protocol's. The transport."""
        self._exchange = self._handler = None
        self._connections.discard(self)
        self._transport.set_protocol(protocol)
        self._transport.write(answer)
        return self._transport

    def keep(self, kept: Kept | None) -> None:
        self._kept = kept
        self._accept = self._usual if kept is None else kept.accept

    def abort(self) -> None:
        self._transport.abort()

    def half_close(self) -> None:
        """The gateway closes the other half: until then what it sends is read, and nobody takes it."""
        self._last = True
        self._parser = _ReadAway()
        self._transport.write_eof()
        self._transport.resume_reading()

    @property
    def unsent(self) -> bool:
        """Is there an answer, or the rest of one, that was not taken yet?"""
        under_way = self._exchange is not None and not self._exchange.closed
        return under_way or bool(self._transport.get_write_buffer_size())

    def close(self) -> None:
        """Once the answer that is under way is over, and what was said is taken."""
        self._last = True
        if self._exchange is None or self._exchange.closed:
            self._transport.close()

    def _broken(self) -> None:
        """Not HTTP, or pipelined: answer if no answer is under way, and close."""
        if self._exchange is None and not self._last:
            self._last = True
            body = error_body("bad_request", "The request is not well-formed HTTP/1.1, or came before its turn.")
            self.send(
                b"%sContent-Type: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (_LINES[400], _JSON, len(body), body)
            )
            self._transport.close()
        else:
            self._transport.abort()


class _ReadAway:
    """In place of the parser: nobody takes what comes behind an answer that was broken off."""

    def feed_data(self, data: bytes) -> None: ...
