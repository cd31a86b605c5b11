"""Whose turn is it on a client's connection? Order, timeouts, and how a connection ends.

Requests are answered in the order they came: while one is under way the next is parsed at most as far as
one read brought it, and then the connection is not read. A client that closed only its sending side
still gets its answers; since a client that left altogether looks the same, it is probed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from swell.gateway.heads import CONTINUE, Malformed
from swell.gateway.inbound import Inbound, Switching
from swell.gateway.request import DRAIN_MAX, Framing, Request, TunnelSide
from swell.gateway.shared import Shared
from swell.gateway.tunnel import READING_TUNNEL, keep_alive
from swell.gateway.upstream import READING_UPSTREAM, reset_on_close
from swell.gateway.wheel import Slot
from swell.wire.hangup import hung_up

log = logging.getLogger("swell.gateway")

READING_ORDER = 4
"""Why a client is not read: it already sent the next request."""
READING_EARLY = 8
"""Why a client is not read: it sends frames, and more of them than are kept, before its WebSocket is open."""
EARLY_MAX = 64 * 1024
"""Bytes that are kept of those."""
LINGER_S = 5.0
"""After a last answer what the client still sends is read and thrown away until nothing came for this long: it may read
the answer only once it has sent all it has, and a reset before would destroy it. One that sends 300 MB may pause for
more than a second to copy them…"""
LINGER_MAX_S = 30.0
"""…but no longer than this,"""
LINGER_MAX = 1024 * 1024 * 1024
"""and no more bytes than these."""
REFUSED_MAX = 64
"""Connections, beyond those that may be, that are told so at the same time; more are closed without a word."""
PROBE_S = 0.1
"""Wait before the first two probes of a half-closed connection, since most requests are answered by then; 1 s after
that."""
PROBES_MAX = 8
"""Probes per request: a chunk's size may start with zeros, but peers bound its length."""
CONTINUED_AT = frozenset({1, 4, 16, 64})
"""At which looks at a client that is not read it is told to continue, where it expects to be: few, since peers bound
that."""


class Client(asyncio.Protocol):
    """One connection from a client. `start` is given each request when its turn has come."""

    def __init__(self, shared: Shared, clients: set[Client], start: Callable[[Request], None]) -> None:
        self.shared = shared
        self.clients = clients
        self.start = start
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is received
        self.inbound: Inbound = None  # type: ignore[assignment]  # made with the connection
        self.slot: Slot | None = None
        self.current: Request | None = None
        self.advancing = False
        self.unread = 0
        """Reasons not to read, as bits."""
        self.write_paused = False
        """The client reads more slowly than it is written to: its next request has to wait."""
        self.unsent = 0
        """Bytes it had not taken when that was last looked at."""
        self.heard_at = 0.0
        """When it last did what was waited for: send more of a body that is wanted, or take more of its answers."""
        self.discarding = False
        """Nothing that still comes is a request: it belongs to a WebSocket, or is thrown away."""
        self.early = b""
        """What came behind a handshake that is not answered yet."""
        self.tunnel: TunnelSide | None = None
        """The WebSocket it carries, or did."""
        self.lingering_until = 0.0
        """When a connection that only waits for the client's end is closed; 0: it is in use."""
        self.lingering_since = 0.0
        self.thrown_away = 0
        """Bytes that came since then."""
        self.half_closed = False
        self.probes = 0

    # -- the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.clients.add(self)
        self.heard_at = self.shared.now()
        self.inbound = Inbound(self.shared, self, self.heard_at)
        self.shared.wheel.add(self, self.heard_at + self._check_s)
        if len(self.clients) > self.shared.connections_max:
            self._refuse_connection()

    def data_received(self, data: bytes) -> None:
        now = self.shared.now()
        if self.discarding:
            self._take(data, now)
            return
        # Asked before: the read that completes its body may bring what is behind it, too.
        growing = self.current is not None and not self.current.complete
        try:
            self.inbound.feed(data, now)
        except Malformed as malformed:
            self._refuse_rest(*malformed.args)
        except Switching as switching:
            self.discarding = True
            self.early = switching.args[0]
        self._heard(growing)
        if self.current is not None and not self.current.done:
            self.heard_at = now

    def eof_received(self) -> bool:
        self.half_closed = True
        self.heard_at = self.shared.now()
        last = self.inbound.last
        if self.tunnel is not None and not self.lingering_until:
            self.tunnel.client_eof()
            return True
        waiting = self.inbound.queue or (self.current is not None and not self.current.done)
        if not waiting or last is None or not last.complete or last.websocket:
            return False
        self.shared.wheel.add(self, self.heard_at + PROBE_S)
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        self.clients.discard(self)
        self.shared.wheel.discard(self)
        if self.shared.full and len(self.clients) < self.shared.connections_max * 0.9:
            self.shared.full = False
        self.inbound.queue.clear()
        if self.tunnel is not None:
            self.tunnel.client_lost()
        current, self.current = self.current, None
        if current is not None:
            current.abandon()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.heard_at = self.shared.now()
        current = self.current
        # Asked of who is told its answer: others may wait for that, too.
        if current is not None and current.upstream is not None and current.client.write_paused:
            current.upstream.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.current is not None and self.current.upstream is not None:
            self.current.upstream.resume()
        self._advance()

    # -- what cannot be served ------------------------------------------------------------

    def _refuse_connection(self) -> None:
        """There are as many as may be: say so, whatever it would ask for."""
        shared = self.shared
        most = f"{shared.connections_max:.0f}"
        if not shared.full:
            shared.full = True
            log.warning("%s connections are open, which is what the limit of open files allows; more are refused", most)
        if len(self.clients) > shared.connections_max + REFUSED_MAX:
            self.transport.abort()
            return
        message = f"The gateway has {most} connections, which is all it may have. Try again in a moment."
        refusal = (503, "busy", message, b"retry-after: 1\r\n")
        request = self.current = self.inbound.refused(refusal)
        self.inbound.queue.clear()
        self.discarding = True
        request.fail(*refusal)

    def _refuse_rest(self, status: int, code: str, message: str, lines: bytes = b"") -> None:
        """Nothing more can be read: what was read before is answered, then this refusal, then the end."""
        request = self.inbound.refused((status, code, message, lines))
        self.discarding = True
        if request is self.current:
            if request.done:
                self.current = None
                self._end()
            else:
                request.fail(status, code, message, lines)

    # -- a WebSocket ----------------------------------------------------------------------

    def switch(self, tunnel: TunnelSide) -> None:
        """From here on this connection is a WebSocket's."""
        self.tunnel = tunnel
        keep_alive(self.transport)
        early, self.early = self.early, b""
        self.read_on(READING_EARLY)
        if early:
            tunnel.take(early)
        if self.write_paused:
            tunnel.pause()

    def _take(self, data: bytes, now: float) -> None:
        """Bytes that are no request."""
        if self.lingering_until:
            self._throw_away(len(data), now)
        elif self.tunnel is not None:
            self.tunnel.take(data)
        elif self.inbound.last is not None and self.inbound.last.websocket:
            self.early += data
            if len(self.early) > EARLY_MAX:
                self.stop_reading(READING_EARLY)

    # -- turns ----------------------------------------------------------------------------

    def _heard(self, growing: bool) -> None:
        """After each read: start what can start, pass on what came of a body (if one was due), or stop reading."""
        current = self.current
        if current is None:
            self._advance()
            current = self.current
        elif current.done:
            self._drained(current)
        elif growing:
            if current.upstream is not None:
                current.upstream.push_body()
            elif current.pool is not None:
                current.pool.grown(current)
        if self.inbound.queue:
            self.stop_reading(READING_ORDER)

    def _advance(self) -> None:
        """Start requests while none is under way and answers are taken. A loop, since many may be refused in a row."""
        if self.advancing:
            return
        self.advancing = True
        while self.current is None and self.inbound.queue and not self.write_paused and not self.transport.is_closing():
            request = self.current = self.inbound.queue.popleft()
            self.probes = 0
            if request.refusal is not None:
                request.fail(*request.refusal)
            else:
                self.start(request)
        self.advancing = False
        if not self.inbound.queue and self.unread:
            self.read_on(READING_ORDER)

    def write(self, data: bytes) -> None:
        self.probes = 0
        self.transport.write(data)

    def answered(self, request: Request) -> None:
        """The current request's answer was written whole."""
        if not request.keep_alive:
            self.current = None
            self.inbound.queue.clear()
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
        # Whatever else kept it from being read was about the body of the one that is over.
        self.read_on(~READING_ORDER)
        if self.inbound.queue:
            self._advance()
        elif self.half_closed:
            self._close()

    def _drained(self, request: Request) -> None:
        """Some more of an unwanted body came."""
        if request.complete:
            self._next()
        elif (request.size if request.chunked else request.length - request.size) > DRAIN_MAX:
            self.current = None
            self._end()

    def cut(self, request: Request) -> None:
        """Break the connection off: an answer was begun that cannot be finished."""
        if self.tunnel is not None:
            # A Close that was said arrives; without one the end itself shows that the session broke.
            self.current = None
            self._close()
            return
        if request.framing is Framing.CLOSE:
            reset_on_close(self.transport)
        self.current = None
        self.transport.abort()

    def _end(self) -> None:
        """No more answers. Wait a little for the client to close, so that it gets to read the last one."""
        if self.transport.is_closing():
            return
        last = self.inbound.last
        if self.half_closed or (last is not None and last.complete and last.refusal is None and not last.websocket):
            self._close()
            return
        self.discarding = True
        self.lingering_since = self.shared.now()
        self.lingering_until = self.lingering_since + LINGER_S
        self.read_on(~0)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.shared.wheel.add(self, self.lingering_until)

    def _throw_away(self, size: int, now: float) -> None:
        """More came after the last answer: wait on, within bounds, for the client to have sent all it wants to."""
        self.thrown_away += size
        if self.thrown_away > LINGER_MAX:
            self.transport.abort()
        else:
            self.lingering_until = min(now + LINGER_S, self.lingering_since + LINGER_MAX_S)

    def _close(self) -> None:
        """Close once the client took what it was told; `due` ends it if it does not."""
        self.heard_at = self.shared.now()
        self.transport.close()

    def stop_reading(self, why: int) -> None:
        if not self.unread and not self.transport.is_closing():
            self.transport.pause_reading()
        self.unread |= why

    def read_on(self, why: int) -> None:
        if self.unread:
            self.unread &= ~why
            if not self.unread and not self.transport.is_closing():
                self.heard_at = self.shared.now()
                if self.inbound.head_since:
                    self.inbound.head_since = self.heard_at
                self.transport.resume_reading()

    # -- time -----------------------------------------------------------------------------

    @property
    def _check_s(self) -> float:
        s = self.shared.settings
        return min(1.0, s.header_timeout_s / 4, s.body_timeout_s / 4, s.idle_timeout_s / 4)

    def due(self, now: float) -> None:
        """Look whether the client has been silent, or has not read, for too long."""
        settings = self.shared.settings
        current = self.current
        if self.lingering_until:
            if self.lingering_until <= now:
                self.transport.abort()
            else:
                self.shared.wheel.add(self, self.lingering_until)
        elif self.transport.is_closing():
            if self._idle(now):
                self.transport.abort()
        elif current is None:
            if self.write_paused or not self.inbound.head_since:
                if self._idle(now):
                    self._close()
            elif now - self.inbound.head_since > settings.header_timeout_s:
                if not self.inbound.in_head:
                    self._close()
                else:
                    self._refuse_rest(408, "slow_client", "The head of the request did not arrive in time.")
                    self._advance()
        elif self.write_paused:
            # Not every request has a deadline, and a far one is no reason to keep a replica from others.
            if self._idle(now):
                self.transport.abort()
        elif self.unread & (READING_TUNNEL | READING_UPSTREAM):
            self._stuck(current)
        elif self._body_stalled(current, now):
            self._refuse_rest(408, "slow_client", "The body of the request did not arrive in time.")
        if current is not None and not self.transport.is_closing() and (self.half_closed or self._ended_unread()):
            self._probe()
        elif self.slot is None:
            self.shared.wheel.add(self, now + self._check_s)

    def _idle(self, now: float) -> bool:
        """For too long the client neither did what was waited for nor took any of what it was told."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent:
            self.unsent = unsent
            self.heard_at = now
        return now - self.heard_at > self.shared.settings.idle_timeout_s

    def _body_stalled(self, request: Request, now: float) -> bool:
        """The rest of its body is due, and nothing came of it for too long."""
        waiting = request is self.inbound.last and not request.complete and not request.expects and not self.unread
        return waiting and now - self.heard_at > self.shared.settings.body_timeout_s

    def _stuck(self, request: Request) -> None:
        """Its replica takes nothing of what it says, so that its end is not read either: is it still there?"""
        if hung_up(self.transport):
            # What is left of it is as much as the system keeps, and its end.
            self.probes = 0
            self.read_on(READING_TUNNEL | READING_UPSTREAM)
        elif self.tunnel is not None:
            self.transport.write(self.tunnel.nothing())
        elif self.inbound.expecting is request and not request.answering:
            # Where more of its body waits on its side the end comes behind that, and is not known here: to what is
            # written the system of one that left says so. Others may take this for their answer.
            self.probes += 1
            if self.probes in CONTINUED_AT:
                self.transport.write(CONTINUE)

    def _ended_unread(self) -> bool:
        """It sends no more, behind what is not read before its turn: further requests may stand there."""
        return bool(self.unread & READING_ORDER) and hung_up(self.transport)

    def _probe(self) -> None:
        """Write something that means nothing: to a client that left, the second write fails, and ends the request."""
        request = self.current
        if self.tunnel is not None:
            self.transport.write(self.tunnel.nothing())
        elif request is not None and request.http11 and self.probes < PROBES_MAX:
            if not request.answering:
                self.transport.write(CONTINUE)
            elif request.framing is Framing.CHUNKED:
                # A chunk's size may begin with zeros, so one is always right between chunks.
                self.transport.write(b"0")
        self.probes += 1
        self.shared.wheel.add(self, self.shared.now() + (PROBE_S if self.probes < 2 else 1.0))
