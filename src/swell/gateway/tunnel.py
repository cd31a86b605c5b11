"""How do the bytes of an open WebSocket pass between a client and its replica, and how does a session end?

They pass as they are, and each side waits while the other is slow. Only where frames end is kept in mind: so a session
that ended with a Close is told from one that broke, and one that has to end (its time is up, its replica or the server
is to go) is told so, to both sides, by a Close of the gateway's own between two frames.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Protocol

from swell.gateway.pausing import Pausing
from swell.gateway.request import LAST_WORDS_S, Request
from swell.gateway.wheel import Slot
from swell.model.errors import SwellError
from swell.wire.hangup import hung_up
from swell.wire.websocket import GOING_AWAY, POLICY, PONG, Ends, close_frame, frame

READING_TUNNEL = 16
"""Why a client is not read: the replica takes what it sends more slowly."""
KEEPALIVE_S = 60
"""A connection on which nothing was heard for this long is asked by the system whether its peer is still there…"""
KEEPALIVE_TRIES = 4
"""…and broken off when that many such questions, KEEPALIVE_S / 4 apart, had no answer."""

_PONG = frame(PONG, b"")


class Owner(Protocol):
    """The replica at the other end."""

    gone: bool
    tunnels: set[Tunnel]

    def ended(self, upstream: None, now: float) -> None: ...
    def died(self, request: Request, unread: bool) -> None: ...


class Way:
    """The bytes that go one way, and the Close that may have to be put between them."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.ends = Ends()
        self.write = write
        self.last_words = b""
        """The Close to be said at the next end of a frame."""
        self.over = False
        """It was said: nothing that comes after it is passed on."""

    def carry(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.over:
            self.ends.feed(data)
        elif self.last_words:
            passed = self.ends.feed(data, once=True)
            self.write(data[:passed])
            self._speak()
            self.ends.feed(data[passed:])
        else:
            self.ends.feed(data)
            self.write(data)

    def leave(self, close: bytes) -> None:
        """Say Close as soon as no frame is under way, unless one was said."""
        if not (self.over or self.last_words or self.ends.closed):
            self.last_words = close
            self._speak()

    @property
    def open(self) -> bool:
        """A frame of the gateway's own may stand here, and would be heard."""
        return self.ends.between and not (self.over or self.ends.closed)

    def _speak(self) -> None:
        if self.open:
            self.over = True
            self.write(self.last_words)


class Tunnel(Pausing):
    """One session: the replica's side of it as a protocol, and what the client's connection tells it."""

    def __init__(self, owner: Owner, request: Request, transport: asyncio.Transport) -> None:
        self.owner = owner
        self.request = request
        self.transport = transport
        self.down = Way(request.client.write)
        """To the client."""
        self.up = Way(transport.write)
        """To the replica."""
        self.client_ended = False
        self.refused: SwellError | None = None
        """Why it has to end, where its key opens nothing any more."""
        self.slot: Slot | None = None

    def open(self, head: bytes, rest: bytes) -> None:
        """The replica has agreed: tell the client, and pass on what either sent behind the handshake."""
        request = self.request
        self.owner.tunnels.add(self)
        request.answering = True
        request.client.write(head)
        request.client.switch(self)
        if rest:
            self.data_received(rest)
        if self.owner.gone:
            self.leave(GOING_AWAY, "This version of the app is being replaced or stopped.")
        elif request.shared.closing:
            self.leave(GOING_AWAY, "The server is being stopped.")
        refused = request.shared.ended(request.key)
        if refused is not None:
            # It was held meanwhile.
            self.refuse(refused)

    def leave(self, code: int, reason: str) -> None:
        """It has to end: tell both sides, who then end it as they would have."""
        if self.request.done or hung_up(self.transport):
            # A replica that died is taken off the table, too: what ended the session is told by its end.
            return
        self.down.leave(close_frame(code, reason))
        self.up.leave(close_frame(code, reason, os.urandom(4)))

    def refuse(self, why: SwellError) -> None:
        """Its key opens nothing any more: both sides are told, and have a moment to end."""
        if self.refused is None:
            self.refused = why
            self.leave(POLICY, why.message)
            self.request.shared.wheel.add(self, self.request.shared.now() + LAST_WORDS_S)

    def due(self, _now: float) -> None:
        """Who was told to end has not; or a replica takes nothing of what a client that is gone had said."""
        if self.refused is not None and not self.request.done:
            self.request.fail(self.refused.status, self.refused.code, self.refused.message)
        self.transport.abort()

    # -- what a request asks of where it was sent ---------------------------------------------

    def push_body(self) -> None:
        """A handshake has no body."""

    def late(self) -> bool:
        """The deadline has passed: both sides are told, and have a moment to end."""
        self.leave(POLICY, f"The deadline of {self.request.limit} has passed.")
        return True

    def abort(self) -> None:
        """Close at once."""
        self.owner.tunnels.discard(self)
        self.transport.abort()

    # -- the replica --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.request.done:
            self.down.carry(data)
            if self.request.client.write_paused:
                self.pause()

    def pause_writing(self) -> None:
        if not self.request.done:
            self.request.client.stop_reading(READING_TUNNEL)

    def resume_writing(self) -> None:
        if not self.request.done:
            self.request.client.read_on(READING_TUNNEL)

    def connection_lost(self, _error: Exception | None) -> None:
        self.owner.tunnels.discard(self)
        request = self.request
        request.shared.wheel.discard(self)
        if request.done:
            return
        now = request.shared.now()
        if not (self._closed or self.client_ended):
            self.owner.died(request, False)
            return
        self._finish(now)
        self.owner.ended(None, now)
        request.client.answered(request)

    # -- the client ---------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """More of what the client sends."""
        if not self.transport.is_closing():
            self.up.carry(data)

    def nothing(self) -> bytes:
        """A Pong that nobody asked for: none is answered, and the system of a client that left says that it did."""
        return _PONG if self.down.open else b""

    def client_eof(self) -> None:
        """It sends nothing more; that is passed on."""
        self.client_ended = True
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def client_lost(self) -> None:
        """Its connection is gone. If it said Close before, the replica gets to read that, while it reads."""
        if self.request.done or not self._closed:
            return
        self.owner.tunnels.discard(self)
        now = self.request.shared.now()
        self._finish(now)
        self.resume()
        self.transport.close()
        shared = self.request.shared
        shared.wheel.add(self, now + shared.settings.idle_timeout_s)
        self.owner.ended(None, now)

    # -- its end ------------------------------------------------------------------------------

    @property
    def _closed(self) -> bool:
        """Somebody said Close: the session ends in order, whoever closes the connection first."""
        return self.down.ends.closed or self.up.ends.closed or self.down.over

    def _finish(self, now: float) -> None:
        if now >= self.request.deadline:
            # Its replica may have seen that, and said Close, a little before anybody looked here.
            self.request.finish(now, 504, "deadline")
        elif self._closed:
            self.request.finish(now, 101)
        else:
            self.request.finish(now, 499, "client_left")


def keep_alive(transport: asyncio.Transport) -> None:
    """Have the system notice a peer that went without a word: on a connection that may be silent nothing else would."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S // 4),
        ("TCP_KEEPCNT", KEEPALIVE_TRIES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
