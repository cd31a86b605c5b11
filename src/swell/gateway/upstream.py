"""How does a request reach a replica, and the answer its caller? One kept connection to one replica.

What is read together is written together: a small answer leaves in one write. Nothing is buffered
beyond what the parser completes in one read, and each side is made to wait when the other is slow.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Protocol, cast

from swell.decide.price import marginal
from swell.gateway.answers import Answer, Answers, Broken, Switched, together
from swell.gateway.heads import (
    CHUNKED_LINE,
    CLOSE_LINE,
    COLD_LINE,
    CONTINUE,
    COST,
    CRLF,
    JOIN_MAX,
    KEEP_ALIVE_LINE,
    LAST_CHUNK,
    UPGRADE_LINES,
    answer_start,
    chunk,
    without,
)
from swell.gateway.pausing import Pausing
from swell.gateway.request import REPLAY_MAX, Framing, Request
from swell.gateway.shared import Shared
from swell.gateway.tunnel import Tunnel
from swell.model.request import Together
from swell.wire.hangup import half_closed
from swell.wire.http import COST_USD, REMAINING_MS, SERVER_TIMING

NONE, LENGTH, CHUNKED, CLOSE = Framing
"""Looked up once: members of an enum are slow to reach."""
READING_UPSTREAM = 1
"""Why a client is not read: the replica takes its body more slowly."""
ATOMIC_MAX = 16 * 1024
"""Bytes a unix socket takes, and gives to a reader with room for them, in one piece."""

# What differs each time comes first: the replica knows the rest again.
_HEAD = f"%b%b\r\n{REMAINING_MS}: %d\r\nhost: %b\r\n%b%b%b\r\n".encode()
_FOREIGN_HEAD = b"%b%b\r\nhost: %b\r\n%b%b\r\n"
_OWN_TRAILERS = f"{SERVER_TIMING}, {COST_USD}".encode()
_TRAILER_LINE = b"trailer: %b\r\n" % _OWN_TRAILERS
_TIMES = (
    f"{SERVER_TIMING}: held;dur=%.2f, connect;dur=%.2f%b, run;dur=%.2f, send;dur=%.2f, total;dur=%.2f%b\r\n".encode()
)
_BATCH_TIME = b", batch;dur=%.2f"
_TIMES_AND_COST = _TIMES + COST


class Owner(Protocol):
    """The replica it leads to: who gets the connection, and the slot, back."""

    gone: bool
    tunnels: set[Tunnel]

    @property
    def contended(self) -> bool:
        """Others may fill its slots."""
        ...

    def ended(self, upstream: Upstream | None, now: float) -> None: ...
    def busy(self, request: Request, upstream: Upstream | None) -> None: ...
    def died(self, request: Request, unread: bool) -> None: ...
    def broke_off(self, request: Request) -> None: ...
    def lost(self, upstream: Upstream) -> None: ...
    def reserve(self, request: Request, upstream: Upstream) -> None: ...


class Upstream(Pausing):
    """One connection. Carries one request at a time; `request` is None while it is idle."""

    def __init__(self, owner: Owner, native: bool, shared: Shared) -> None:
        self.owner = owner
        self.native = native
        self.request: Request | None = None
        self.idle_at = 0.0
        self.local = False
        """A unix socket."""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is sent
        self.answers = Answers(native, shared.answers)
        self.atomic = False
        """The whole request went out in one write so small that it is read whole or not at all."""
        self.cost_usd = 0.0
        self.batch: Together | None = None

    # -- to the replica -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.local = transport.get_extra_info("socket").family == socket.AF_UNIX

    def send(self, request: Request, now: float, has_slot: bool = False) -> None:
        """Send a request, with as much of its body as has arrived.

        `has_slot`: the replica keeps one for it. One that could not be sent again waits for that, where others may
        have filled the replica.
        """
        self.request = request
        request.upstream = self
        request.sent_at = now
        if self.native:
            # Rounded up, so that whatever a deadline ends in the replica, it has passed here too.
            remaining_ms = int((request.deadline - now) * 1000) + 1
            extra, limit = request.extra, request.limit_line
            head = _HEAD % (request.line, request.id, remaining_ms, request.host, extra, limit, request.head)
        else:
            head = _FOREIGN_HEAD % (request.line, request.id, request.host, request.extra, request.head)
        if request.complete and request.size <= JOIN_MAX and not request.chunked:
            request.sent = len(request.body)
            data = b"".join((head, *request.body)) if request.body else head
            self.atomic = self.local and len(data) <= ATOMIC_MAX
            self.transport.write(data)
            return
        long = request.chunked or request.length > REPLAY_MAX
        if long and self.native and not has_slot and self.owner.contended:
            self.owner.reserve(request, self)
            return
        if request.expects and not request.size and request.http11 and not request.complete:
            request.client.write(CONTINUE)
            request.expects = False
        self.transport.write(head)
        self.push_body()

    def push_body(self) -> None:
        """Send what has arrived of the body and was not sent."""
        request = self.request
        if request is None:
            return
        body = request.body
        pieces = body[request.sent :] if request.sent else body
        request.sent = len(body)
        if request.chunked:
            data = chunk(pieces)
            if request.complete:
                data += b"0\r\n%b\r\n" % request.trailers if request.trailers else LAST_CHUNK
            if data:
                self.transport.write(data)
        else:
            for piece in pieces:
                self.transport.write(piece)
        if request.size > REPLAY_MAX:
            request.body = []
            request.sent = 0
            request.replayable = False

    def late(self) -> bool:
        """A replica of ours answers for its own deadlines."""
        return self.native

    def abort(self) -> None:
        """Close at once: to a replica that is the order to cancel."""
        self.request = None
        self.transport.abort()

    def pause_writing(self) -> None:
        if self.request is not None:
            self.request.client.stop_reading(READING_UPSTREAM)

    def resume_writing(self) -> None:
        if self.request is not None:
            self.request.client.read_on(READING_UPSTREAM)

    # -- from the replica -----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        request = self.request
        if request is None:
            # Nothing was asked: whatever this is, the connection cannot be trusted.
            self.transport.abort()
            return
        answers = self.answers
        try:
            answer = answers.feed(data, request.method == b"HEAD")
        except Switched as switched:
            self._switch(request, answers.answer, switched.args[0])
            return
        except Broken:
            answer = answers.answer
            if not answer.ended:
                self._die(unread=False)
                return
            self.transport.abort()
        if answer.headed:
            self._relay(request, answer)

    def _relay(self, request: Request, answer: Answer) -> None:
        """Pass on what one read completed: the head, some of the body, the end."""
        client = request.client
        pieces = answer.pieces
        now = request.shared.now()
        if not request.answering:
            if answer.busy and answer.status == 503:
                self.owner.busy(request, self._detach(request, answer))
                return
            head = self._answer_head(request, answer, now)
            request.answering = True
        else:
            head = b""
        if request.framing is CHUNKED:
            data = head + chunk(pieces)
            if answer.ended:
                data = b"".join((data, b"0\r\n", self._metering(request, answer, now), *answer.trailers, CRLF))
            client.write(data)
        elif len(pieces) == 1 and len(pieces[0]) > JOIN_MAX:
            if head:
                client.write(head)
            client.write(pieces[0])
        elif pieces:
            client.write(b"".join((head, *pieces)))
        elif head:
            client.write(head)
        if answer.ended:
            self._end(request, answer, now)
            return
        self.answers.taken()
        if client.write_paused:
            self.pause()

    def _switch(self, request: Request, answer: Answer, rest: bytes) -> None:
        """From here on it is a WebSocket, and this connection its session's."""
        if not request.websocket:
            self._die(unread=False)
            return
        head = b"".join(
            (
                answer_start(101),
                request.id,
                CRLF,
                *without(answer.lines, answer.named),
                COLD_LINE if request.cold else b"",
                UPGRADE_LINES,
                self._metering(request, answer, request.shared.now()),
                CRLF,
            )
        )
        self.request = None
        tunnel = request.upstream = Tunnel(self.owner, request, self.transport)
        self.transport.set_protocol(tunnel)
        tunnel.open(head, rest)

    def _answer_head(self, request: Request, answer: Answer, now: float) -> bytes:
        status = answer.status
        lines = answer.lines
        if answer.named:
            lines = without(lines, [name for name in answer.named if name != b"content-length"])
        if request.method == b"HEAD" or status in (204, 304):
            framing = NONE
            if status == 204 and answer.length >= 0:
                lines = without(lines, (b"content-length",))
        elif answer.length >= 0:
            framing = LENGTH
        elif request.http11:
            framing = CHUNKED
            lines = [*lines, CHUNKED_LINE, _trailer_line(self.answers.announced)]
        else:
            framing = CLOSE
            request.keep_alive = False
        request.framing = framing
        request.decide_keep_alive()
        connection = b"" if request.http11 else KEEP_ALIVE_LINE
        if not request.keep_alive:
            connection = CLOSE_LINE
        return b"".join(
            (
                answer_start(status),
                request.id,
                CRLF,
                *lines,
                COLD_LINE if request.cold else b"",
                connection,
                self._metering(request, answer, now) if framing is LENGTH or framing is NONE else b"",
                CRLF,
            )
        )

    def _metering(self, request: Request, answer: Answer, now: float) -> bytes:
        """Server-Timing and, where the replica told its CPU time, the cost: header lines or trailers."""
        rest_ms = (now - request.sent_at) * 1e3
        run_ms = answer.run_us / 1e3 if answer.run_us >= 0 else rest_ms
        waited = b""
        if answer.batch:
            batch = self.batch = together(answer.batch)
            if batch is not None:
                # Each pays its share of the run, and all of them waited for it.
                run_ms, rest_ms = batch.run_ms, rest_ms - batch.waited_ms
                waited = _BATCH_TIME % batch.waited_ms
        send_ms = rest_ms - run_ms if rest_ms > run_ms else 0.0
        held_ms = (request.assigned_at - request.at) * 1e3
        connect_ms = (request.sent_at - request.assigned_at) * 1e3
        total_ms = (now - request.at) * 1e3
        start = b""
        if request.cold and request.replica is not None:
            phases = (f", start-{name};dur={ms:.2f}" for name, ms in request.replica.timings_ms)
            start = "".join(phases).encode("ascii", "replace")
        if answer.run_us < 0:
            return _TIMES % (held_ms, connect_ms, waited, run_ms, send_ms, total_ms, start)
        memory_mib = request.pool.memory_mib if request.pool is not None else 0
        self.cost_usd = marginal(request.shared.prices, max(answer.cpu_us, 0) / 1e6, answer.run_us / 1e6, memory_mib)
        return _TIMES_AND_COST % (held_ms, connect_ms, waited, run_ms, send_ms, total_ms, start, self.cost_usd)

    # -- the ends -------------------------------------------------------------------------

    def _end(self, request: Request, answer: Answer, now: float) -> None:
        """The whole answer was passed on."""
        status, error = answer.status, ""
        if answer.error:
            word, _, code = answer.error.partition(b" ")
            # User code can set any header: what is not as the runtime writes it is not from the runtime.
            if word.isdigit() and len(word) == 3:
                status, error = int(word), code.decode("latin-1")
        run_ms = answer.run_us / 1e3 if answer.run_us >= 0 else -1.0
        request.finish(now, status, error, answer.cpu_us, self.cost_usd, run_ms, self.batch)
        self.owner.ended(self._detach(request, answer), now)
        request.client.answered(request)

    def _detach(self, request: Request, answer: Answer) -> Upstream | None:
        """Let go of the request. The connection itself if it can carry another one, else None (and it is closed)."""
        self.request = None
        request.upstream = None
        if self.paused:
            self.resume()
        if not request.complete:
            request.client.read_on(READING_UPSTREAM)
        whole = answer.ended and request.complete and request.sent == len(request.body)
        if not whole or request.method == b"HEAD" or not answer.keeps or self.transport.is_closing():
            self.transport.abort()
            return None
        self.atomic = False
        self.cost_usd = 0.0
        self.batch = None
        self.answers.next()
        return self

    def _die(self, unread: bool) -> None:
        request = self.request
        if request is not None:
            self.abort()
            self.owner.died(request, unread)

    def eof_received(self) -> bool:
        request, answer = self.request, self.answers.answer
        if request is not None and answer.headed and not answer.ended and answer.length < 0 and not answer.coded:
            # An answer without a length ends with its connection.
            answer.ended = True
            self._relay(request, answer)
        elif request is not None and self.native and half_closed(self.transport):
            self.abort()
            self.owner.broke_off(request)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.request is None:
            self.owner.lost(self)
        else:
            # A unix socket is reset, rather than ended, exactly when it is closed with bytes that nobody read.
            reset = isinstance(error, (ConnectionResetError, BrokenPipeError))
            self._die(unread=reset and self.atomic and not self.answers.begun)


def _trailer_line(announced: Sequence[bytes]) -> bytes:
    """The header that says which trailers will come: ours, and those of the replica."""
    return b"trailer: %b\r\n" % b", ".join((_OWN_TRAILERS, *announced)) if announced else _TRAILER_LINE


def reset_on_close(transport: asyncio.Transport) -> None:
    """Make closing show as a reset: the only way to tell a reader-until-close that its answer is not whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
