"""When has a replica that was full a slot again? It is asked, and the connection that it answers on has the slot.

`POST /slot` is answered when it is our turn, 200 with `Swell-Free`; the next request on the connection takes the slot,
and closing it gives it back. 503 says that there was none for as long as we would wait, 410 that there will be none; a
replica of an earlier version answers something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from swell.decide.room import Told
from swell.gateway.answers import Answer, Answers, Broken, Switched
from swell.wire.http import FREE, HOLD, WAIT_MS, lower

if TYPE_CHECKING:
    from swell.gateway.upstream import Upstream

WAIT_S = 5.0
"""How long a replica is waited for, at one asking."""

_ASK = f"POST /slot HTTP/1.1\r\nhost: swell\r\n{WAIT_MS}: %d\r\n{HOLD}: %d\r\ncontent-length: 0\r\n\r\n".encode()
_FREE = lower(FREE)


class Asker(Protocol):
    """Who wants the slot."""

    def given(self, upstream: Upstream, told: Told) -> None:
        """The connection has a slot."""
        ...

    def denied(self, upstream: Upstream | None, status: int) -> None:
        """It has none. The connection, if it can still be used; the answer's status, 0 if there was none."""
        ...


class Asking(asyncio.Protocol):
    """One question, on a connection that carries nothing else meanwhile."""

    def __init__(self, asker: Asker, upstream: Upstream, wait_s: float = WAIT_S, hold: bool = False) -> None:
        """`hold`: the slot is for what is sent elsewhere, as long as the connection is open."""
        self._asker: Asker | None = asker
        self._upstream = upstream
        self._answers = Answers(native=True, known={})
        self._transport = upstream.transport
        self._transport.set_protocol(self)
        self._transport.write(_ASK % (int(wait_s * 1000), hold))

    def withdraw(self) -> None:
        """It is not wanted any more: its place in the line is given up, and so is the slot if that is on its way."""
        self._asker = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._answers.feed(data, bodiless=False)
        except (Broken, Switched):
            self._transport.abort()
            self._over(None)
            return
        if answer.ended:
            self._transport.set_protocol(self._upstream)
            self._over(answer)

    def connection_lost(self, _error: Exception | None) -> None:
        self._over(None)

    def _over(self, answer: Answer | None) -> None:
        asker, self._asker = self._asker, None
        if asker is None:
            return
        told = _told(answer.lines) if answer is not None and answer.status == 200 and answer.keeps else None
        if told is not None:
            asker.given(self._upstream, told)
        elif answer is not None and answer.keeps:
            asker.denied(self._upstream, answer.status)
        else:
            self._transport.abort()
            asker.denied(None, answer.status if answer is not None else 0)


def _told(lines: Sequence[bytes]) -> Told | None:
    """What `Swell-Free` says, among header lines as name, colon, value and line end each."""
    for name, value in zip(lines[::4], lines[2::4], strict=False):
        free, _, waiting = value.partition(b" ")
        if name == _FREE and free.isdigit() and waiting.isdigit():
            return Told(int(free), int(waiting))
    return None
