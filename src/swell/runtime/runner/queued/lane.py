"""How does a queued call reach its replica, and its answer us? One kept connection, as a gateway has them.

It carries one request at a time: a call, the question for a slot (`POST /slot`), or for the answer to a call that a
runner before sent (`POST /kept`). Closing its sending half is the order to stop what was sent on it; closed as a whole,
as by the death of its runner, it leaves that running.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
from pathlib import Path
from typing import Protocol

from swell.runtime.runner.queued.answer import Answer, Answers, Broken
from swell.wire.calls import Granted
from swell.wire.http import (
    HAND_OUT,
    JSON_OR_PICKLE,
    LIMIT,
    PEERS,
    PICKLE,
    RANK,
    REMAINING_MS,
    REQUEST_ID,
    TRUSTED,
    WAIT_MS,
    media_type,
)

WAIT_S = 5.0
"""How long a replica is waited for, at one asking."""
FETCH_S = 5.0
"""The answer to a call that runs at the replica already is waited for at least for so long: it may have ended by the
time that it is asked for. What has ended is there for whoever waits, however long another keeps the replica from
reading."""
LATE_S = 0.5
"""So long after a call's deadline a replica that has not answered is not waited for any more: it keeps them itself."""
ATOMIC_MAX = 16 * 1024
"""Bytes a unix socket takes, and gives to a reader with room for them, in one piece."""

# What differs each time comes first: the replica knows the rest again.
_HEAD = (
    f"POST /call/%b HTTP/1.1\r\n{REQUEST_ID}: %b\r\n{REMAINING_MS}: %d\r\n{HAND_OUT}: %d\r\nhost: swell\r\n"
    f"%b%b%b{LIMIT}: %b\r\n%bcontent-length: %d\r\n\r\n"
).encode()
_MEMBER = f"{RANK}: %d\r\n{PEERS}: %b\r\n".encode()
_TRUSTED = f"{TRUSTED}: 1\r\n".encode()
_ASK = (
    f"POST /slot HTTP/1.1\r\nhost: swell\r\n{WAIT_MS}: {int(WAIT_S * 1000)}\r\n"
    f"{HAND_OUT}: 1\r\ncontent-length: 0\r\n\r\n"
).encode()
_FETCH = (
    f"POST /kept HTTP/1.1\r\n{REQUEST_ID}: %b\r\n{HAND_OUT}: %d\r\nhost: swell\r\ncontent-length: 0\r\n\r\n".encode()
)
_UNREAD = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})
_METHOD = re.compile(r"[^\s/?#\x00-\x1f\x7f]+")
_PEER = re.compile(r"[\w.\-\[\]:]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


class Owner(Protocol):
    """The hand whose calls it carries."""

    def answered(self, lane: Lane, answer: Answer) -> None:
        """What was sent on it is answered, in whole or with more than is kept."""
        ...

    def late(self, lane: Lane) -> None:
        """The replica should have answered by now."""
        ...

    def lost(self, lane: Lane, unread: bool) -> None:
        """It is closed. `unread`: nothing of what was sent last was read."""
        ...


class Lane(asyncio.Protocol):
    """One connection to a replica of ours."""

    def __init__(self, owner: Owner, folder: Path) -> None:
        """`folder`: for large results."""
        self._owner: Owner | None = owner
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is sent
        self._answers = Answers(folder)
        self._busy = False
        self._atomic = False
        """What was sent is so small that it is read whole or not at all."""
        self._timer: asyncio.TimerHandle | None = None
        self.idle_at = 0.0
        self.given = False
        """It was given the slot for what it carries."""
        self.fetching = False
        """What it asks for is the answer to a call that is at the replica already."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    # -- to the replica ------------------------------------------------------------------------

    def send(self, call: Granted) -> None:
        """Send a call; its time begins."""
        self.fetching = False
        self._write(request_of(call), call.timeout_s)

    def fetch(self, call: Granted) -> None:
        """Ask for the answer to a call that the replica has. Its `timeout_s` is what is left of that; infinite: it has
        ended."""
        self.fetching = True
        self._write(_FETCH % (call.id.encode(), call.token), max(call.timeout_s, FETCH_S))

    def _write(self, data: bytes, within_s: float) -> None:
        self._busy = True
        self._atomic = len(data) <= ATOMIC_MAX
        if within_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(within_s + LATE_S, self._late)
        self._transport.write(data)
        # Closed already, it failed at the first byte.
        self._atomic = self._atomic or self._transport.is_closing()

    def ask(self) -> None:
        """Have the replica say when it has a slot for us."""
        self._busy = True
        self._atomic = True
        self._transport.write(_ASK)

    def cancel(self) -> None:
        """Have what was sent stopped, and say nothing more of it. The replica closes the rest."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            # What did not arrive as a whole is not begun.
            self.abort()
            return
        self._owner = None
        self._stop_timer()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close it at once, and say nothing more of it. What runs at the other end goes on."""
        self._owner = None
        self._stop_timer()
        self._transport.abort()

    # -- from the replica ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            return
        if not self._busy:
            # Nothing was asked: whatever this is, the connection cannot be trusted.
            self._die(unread=False)
            return
        try:
            answer = self._answers.feed(data)
        except Broken:
            self._die(unread=False)
            return
        if answer.ended or answer.too_large:
            self._over(answer)

    def drain(self) -> None:
        """Take in what has arrived: a replica may have answered just before it ended."""
        while self._owner is not None and self._busy:
            try:
                data = os.read(self._transport.get_extra_info("socket").fileno(), 1 << 18)
            except OSError:
                return
            if not data:
                return
            self.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        # A unix socket is reset, rather than ended, exactly when it is closed with bytes that nobody read.
        reset = isinstance(error, OSError) and error.errno in _UNREAD
        self._die(unread=reset and self._atomic and not self._answers.begun)
        self._answers.drop()

    def _over(self, answer: Answer) -> None:
        self._busy = False
        self._stop_timer()
        owner = self._owner
        assert owner is not None
        self._answers.next()
        if not answer.ended or not answer.keeps:
            self.abort()
        owner.answered(self, answer)

    def _late(self) -> None:
        if self._owner is not None:
            self._owner.late(self)

    def _die(self, unread: bool) -> None:
        owner = self._owner
        self.abort()
        if owner is not None:
            owner.lost(self, unread)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def limit(call: Granted) -> str:
    """What sets a call's deadline, in words for whom it ends."""
    if not call.method:
        return "its function (timeout=)"
    whose = f"{call.limited_by}= of the function" if call.limited_by else "timeout of this call"
    return f"{call.timeout_s:g} s ({whose})"


def sendable(call: Granted) -> bool:
    """Is it a call as the door lets them in? A line break in what is to be a header would begin another one."""
    headers = call.id, call.input.content_type, call.accept
    peers = call.member.peers if call.member is not None else ()
    method = _METHOD.fullmatch(call.method) and call.method.isascii()
    return bool(method) and all(map(_VALUE.fullmatch, headers)) and all(map(_PEER.fullmatch, peers))


def request_of(call: Granted) -> bytes:
    """The bytes that are sent for a call."""
    kind, accept = call.input.content_type, call.accept
    # Who may not send pickles, or get any, was refused at the door.
    pickled = PICKLE in (media_type(kind), accept) or accept == JSON_OR_PICKLE
    member = call.member
    head = _HEAD % (
        call.method.encode(),
        call.id.encode(),
        int(call.timeout_s * 1000),
        call.token,
        _MEMBER % (member.rank, ",".join(member.peers).encode()) if member is not None else b"",
        b"content-type: %b\r\n" % kind.encode("latin-1") if kind else b"",
        b"accept: %b\r\n" % accept.encode("latin-1") if accept else b"",
        limit(call).encode(),
        _TRUSTED if pickled else b"",
        len(call.input.data),
    )
    return head + call.input.data
