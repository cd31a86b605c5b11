"""What does a client say, and may it? One client connection: parsing, framing checks, limits, timeouts, order.

Requests are answered in the order they came: while one is under way the next is parsed at most as far as
one read brought it, and then the connection is not read. A client that closed only its sending side
still gets its answer; since a client that left altogether looks the same, it is probed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from swell.gateway.heads import COLON, CONTINUE, CRLF, NOT_FORWARDED, tokens, without
from swell.gateway.request import DRAIN_MAX, Framing, Request
from swell.gateway.shared import Shared
from swell.gateway.upstream import reset_on_close
from swell.gateway.wheel import Timed
from swell.wire.http import HEADER_MAX, HEADERS_MAX_COUNT

READING_ORDER = 4
"""Why a client is not read: it already sent the next request."""
LINGER_S = 1.0
"""After a last answer the client's rest is thrown away for this long, so that a reset does not destroy the answer."""
PROBE_S = 0.1
"""First wait between two probes of a half-closed connection; 1 s after that."""
PROBES_MAX = 8
"""Probes per request: a chunk's size may start with zeros, but peers bound its length."""

_SPECIAL = NOT_FORWARDED | {b"host", b"content-length", b"authorization"}
_HOST_BAD = b"/\\@?#, \t\"<>'"


class Malformed(Exception):
    """The bytes are not a request that can be served: (status, code, message)."""


class Client(asyncio.Protocol):
    """One connection from a client. `start` is given each request when its turn has come."""

    def __init__(self, shared: Shared, clients: set[Client], start: Callable[[Request], None]) -> None:
        self.shared = shared
        self.clients = clients
        self.start = start
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is received
        self.parser = httptools.HttpRequestParser(self)
        self.slot: set[Timed] | None = None
        self.queue: deque[Request] = deque()
        """Parsed as far as they came, waiting for their turn."""
        self.current: Request | None = None
        self.last: Request | None = None
        """The newest request: the one whose body is being read."""
        self.advancing = False
        self.unread = 0
        """Reasons not to read, as bits."""
        self.clogged = False
        """The client reads more slowly than it is written to."""
        self.heard_at = 0.0
        self.head_since = 0.0
        """When the head being read began; 0: none is."""
        self.deaf = False
        """Nothing that still comes can be understood: it is thrown away."""
        self.lingering_until = 0.0
        """When a connection that only waits for the client's end is closed; 0: it is in use."""
        self.half_closed = False
        self.probes = 0
        self._clear()

    def _clear(self) -> None:
        """Ready for the next head."""
        self.in_head = False
        self.head_bytes = 0
        self.url = b""
        self.lines: list[bytes] = []
        self.headers = 0
        self.hosts: list[bytes] = []
        self.length = -1
        self.coding = b""
        self.named: list[bytes] = []
        self.expects = False
        self.upgrade = b""
        self.authorization: bytes | None = None
        self.timeout: bytes | None = None

    # -- the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.clients.add(self)
        self.heard_at = self.head_since = self.shared.now()
        self.shared.wheel.add(self, self.heard_at + self._check_s)

    def data_received(self, data: bytes) -> None:
        now = self.heard_at = self.shared.now()
        if self.deaf:
            return
        last = self.last
        if not self.head_since and (last is None or last.complete):
            self.head_since = now
        began = self.in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # What was asked to change was ignored; the parser stopped because it cannot know that.
            self.parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
            if rest:
                self.data_received(rest)
                return
        except httptools.HttpParserError as error:
            self._not_understood(error)
        if self.in_head and began:
            self.head_bytes += len(data)
            if self.head_bytes > HEADER_MAX:
                self._refuse_rest(431, "headers_too_large", _TOO_LARGE)
        self._heard()

    def eof_received(self) -> bool:
        self.half_closed = True
        last = self.last
        waiting = self.queue or (self.current is not None and not self.current.done)
        if not waiting or last is None or not last.complete:
            return False
        self._probe()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        self.clients.discard(self)
        self.shared.wheel.discard(self)
        self.queue.clear()
        current, self.current = self.current, None
        if current is not None:
            current.abandon()

    def pause_writing(self) -> None:
        self.clogged = True
        if self.current is not None and self.current.upstream is not None:
            self.current.upstream.pause()

    def resume_writing(self) -> None:
        self.clogged = False
        if self.current is not None and self.current.upstream is not None:
            self.current.upstream.resume()

    # -- parsing --------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.in_head = True
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # a trailer: nothing downstream could use it
        self.headers += 1
        name = name.lower()
        if name in _SPECIAL or name[:6] == b"swell-":
            self._special(name, value)
        else:
            self.lines += (name, COLON, value, CRLF)

    def _special(self, name: bytes, value: bytes) -> None:
        """Headers the gateway itself reads. Those about the connection, and Swell's own, go no further."""
        if name == b"host":
            self.hosts.append(value)
        elif name == b"content-length":
            self.length = int(value)
            self.lines += (name, COLON, value, CRLF)
        elif name == b"authorization":
            if self.authorization is not None:
                raise Malformed(400, "bad_request", "The request has more than one Authorization header.")
            self.authorization = value
        elif name == b"connection":
            self.named += tokens(value)
        elif name == b"transfer-encoding":
            self.coding = value.strip().lower()
        elif name == b"expect":
            self.expects = value.strip().lower() == b"100-continue"
        elif name == b"upgrade":
            self.upgrade = value.strip().lower()
        elif name == b"swell-timeout":
            self.timeout = value

    def on_headers_complete(self) -> None:
        parser = self.parser
        method = parser.get_method()
        http11 = parser.get_http_version() == "1.1"
        if self.named:
            self.lines = without(self.lines, [n for n in self.named if n != b"content-length"])
        if self.coding:
            self.lines += (b"transfer-encoding", COLON, b"chunked", CRLF)
        head = b"".join(self.lines)
        self._check_head(method, http11, len(head) + len(self.url))
        request = Request(self.shared, self, self.heard_at, method, self.url)
        request.http11 = http11
        request.keep_alive = parser.should_keep_alive()
        request.head = head
        if self.hosts:
            request.host = self.hosts[0].strip()
        if self.coding:
            request.chunked = True
        elif self.length > 0:
            request.length = self.length
        request.expects = self.expects and http11 and (self.length > 0 or request.chunked)
        request.authorization = self.authorization
        request.timeout = self.timeout
        self.last = request
        self.queue.append(request)
        self.head_since = 0.0
        self._clear()

    def _check_head(self, method: bytes, http11: bool, size: int) -> None:
        """What the parser lets pass and HTTP (or this gateway) does not. Raises Malformed."""
        if not http11 and self.parser.get_http_version() != "1.0":
            raise Malformed(505, "bad_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if self.headers > HEADERS_MAX_COUNT:
            raise Malformed(431, "headers_too_large", f"A request may have {HEADERS_MAX_COUNT} headers.")
        if size > HEADER_MAX:
            raise Malformed(431, "headers_too_large", _TOO_LARGE)
        if len(self.hosts) != 1 and (http11 or self.hosts):
            raise Malformed(400, "bad_request", "A request needs exactly one Host header.")
        if self.hosts and self.hosts[0].translate(None, _HOST_BAD) != self.hosts[0]:
            raise Malformed(400, "bad_request", "The Host header is not a host name with an optional port.")
        if self.coding and not http11:
            raise Malformed(400, "bad_request", "HTTP/1.0 has no Transfer-Encoding.")
        if self.coding not in (b"", b"chunked"):
            raise Malformed(501, "bad_request", "The only Transfer-Encoding taken is chunked.")
        if method == b"CONNECT":
            raise Malformed(501, "bad_request", "CONNECT is not served here.")
        if self.upgrade and (self.upgrade == b"websocket" or self.length > 0 or self.coding):
            raise Malformed(501, "bad_request", "Upgrading the connection (WebSocket) is not served here.")

    def on_body(self, piece: bytes) -> None:
        request = self.last
        assert request is not None
        request.size += len(piece)
        if not request.done:
            if request.size > request.body_max:
                raise Malformed(413, "body_too_large", _too_long(request.body_max))
            request.body.append(piece)

    def on_message_complete(self) -> None:
        if self.last is not None:
            self.last.complete = True

    def _not_understood(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, Malformed):
            self._refuse_rest(*cause.args)
        elif isinstance(error, httptools.HttpParserCallbackError):
            raise error
        elif not (self.last is not None and self.last.complete and not self.last.keep_alive):
            self._refuse_rest(400, "bad_request", f"The request is not valid HTTP/1.1: {error}.")

    def _refuse_rest(self, status: int, code: str, message: str) -> None:
        """Nothing more can be read: what was read before is answered, then this refusal, then the end."""
        request = self.last
        if request is None or request.complete:
            request = Request(self.shared, self, self.heard_at, b"", b"")
            request.complete = True
            self.last = request
            self.queue.append(request)
        request.refusal = (status, code, message)
        request.keep_alive = False
        self.head_since = 0.0
        self.in_head = False
        self.deaf = True
        if request is self.current:
            if request.done:
                self.current = None
                self._end()
            else:
                request.fail(status, code, message)

    # -- turns ----------------------------------------------------------------------------

    def _heard(self) -> None:
        """After each read: start what can start, pass on what came of a body, or stop reading."""
        current = self.current
        if current is None:
            self._advance()
            current = self.current
        elif current.done:
            self._drained(current)
        elif current is self.last:
            if current.upstream is not None:
                current.upstream.push_body()
            elif current.pool is not None:
                current.pool.grown(current)
        if self.queue:
            self.stop_reading(READING_ORDER)

    def _advance(self) -> None:
        """Start requests while none is under way. A loop and not a recursion: many may be refused in a row."""
        if self.advancing:
            return
        self.advancing = True
        while self.current is None and self.queue and not self.transport.is_closing():
            request = self.current = self.queue.popleft()
            self.probes = 0
            if request.refusal is not None:
                request.fail(*request.refusal)
            else:
                self.start(request)
        self.advancing = False
        if not self.queue and self.unread:
            self.read_on(READING_ORDER)

    def write(self, data: bytes) -> None:
        self.probes = 0
        self.transport.write(data)

    def answered(self, request: Request) -> None:
        """The current request's answer was written whole."""
        if not request.keep_alive:
            self.current = None
            self.queue.clear()
            self._end()
            return
        if not request.complete:
            # Its body is not wanted any more; it is read to where the next request begins.
            request.body = []
            self.read_on(~0)
            self._drained(request)
            return
        self._next()

    def _next(self) -> None:
        self.current = None
        self.heard_at = self.shared.now()
        if self.queue:
            self._advance()
        elif self.half_closed:
            self.transport.close()

    def _drained(self, request: Request) -> None:
        """Some more of an unwanted body came."""
        if request.complete:
            self._next()
        elif (request.size if request.chunked else request.length - request.size) > DRAIN_MAX:
            self.current = None
            self._end()

    def cut(self, request: Request) -> None:
        """Break the connection off: an answer was begun that cannot be finished."""
        if request.framing is Framing.CLOSE:
            reset_on_close(self.transport)
        self.current = None
        self.transport.abort()

    def _end(self) -> None:
        """No more answers. Wait a little for the client to close, so that it gets to read the last one."""
        if self.transport.is_closing():
            return
        if self.half_closed or (self.last is not None and self.last.complete and self.last.refusal is None):
            self.transport.close()
            return
        self.deaf = True
        self.lingering_until = self.shared.now() + LINGER_S
        self.read_on(~0)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.shared.wheel.add(self, self.lingering_until)

    def stop_reading(self, why: int) -> None:
        if not self.unread and not self.transport.is_closing():
            self.transport.pause_reading()
        self.unread |= why

    def read_on(self, why: int) -> None:
        if self.unread:
            self.unread &= ~why
            if not self.unread and not self.transport.is_closing():
                self.heard_at = self.shared.now()
                self.transport.resume_reading()

    # -- time -----------------------------------------------------------------------------

    @property
    def _check_s(self) -> float:
        s = self.shared.settings
        return min(1.0, s.header_timeout_s / 4, s.body_timeout_s / 4, s.idle_timeout_s / 4)

    def due(self, now: float) -> None:
        """Look whether the client has been silent for too long."""
        settings = self.shared.settings
        current = self.current
        if self.lingering_until:
            if self.lingering_until <= now:
                self.transport.abort()
                return
        elif current is None:
            if self.head_since:
                if now - self.head_since > settings.header_timeout_s:
                    if not self.in_head:
                        self.transport.close()
                        return
                    self._refuse_rest(408, "slow_client", "The head of the request did not arrive in time.")
                    self._advance()
            elif now - self.heard_at > settings.idle_timeout_s:
                self.transport.close()
                return
        elif self._body_stalled(current, now):
            self._refuse_rest(408, "slow_client", "The body of the request did not arrive in time.")
        if self.half_closed and current is not None:
            self._probe()
        elif self.slot is None and not self.transport.is_closing():
            self.shared.wheel.add(self, now + self._check_s)

    def _body_stalled(self, request: Request, now: float) -> bool:
        """The rest of its body is due, and nothing came of it for too long."""
        waiting = request is self.last and not request.complete and not request.expects and not self.unread
        return waiting and now - self.heard_at > self.shared.settings.body_timeout_s

    def _probe(self) -> None:
        """Write something that means nothing: to a client that left, the second write fails, and ends the request."""
        request = self.current
        if request is not None and request.http11 and self.probes < PROBES_MAX:
            if not request.answering:
                self.transport.write(CONTINUE)
            elif request.framing is Framing.CHUNKED:
                # A chunk's size may begin with zeros, so one is always right between chunks.
                self.transport.write(b"0")
        self.probes += 1
        self.shared.wheel.add(self, self.shared.now() + (PROBE_S if self.probes == 1 else 1.0))


_TOO_LARGE = f"The head of a request may have {HEADER_MAX} bytes."


def _too_long(most: float) -> str:
    return f"A body may have {most:.0f} bytes (body_max)."
