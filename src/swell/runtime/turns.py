"""Who gets the next slot of this replica, where several gateways wait for one? They take turns.

A gateway that was refused asks again with `POST /slot`, and is answered when a slot is free: the connection that it is
answered on has the slot, and the next request on it takes it. Closing the connection gives up what it has, the place in
the line or the slot. While nobody waits, nothing of this is used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from swell.runtime.http import BUSY_LINE, ConnectionExchange, Handler
from swell.wire.http import FREE, HOLD, JSON, WAIT_MS, lower

TARGET = b"/slot"
WAIT_MAX_S = 60.0
"""Nobody waits longer without asking again: what a gateway that hangs has forgotten goes away by itself."""
KEPT_S = 1.0
"""How long a slot is kept for who was given it and does not use it: longer than a gateway is ever late, and short for
those who wait behind one that hangs."""

_WAIT_MS, _HOLD = lower(WAIT_MS), lower(HOLD)
_JSON = JSON.encode()

T = TypeVar("T")


class Line(Generic[T]):
    """Those that wait, in the order in which they came, and those that have a slot which they do not use yet. Pure."""

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.given: set[T] = set()

    def next(self) -> T:
        """Give a slot to the one that waits longest."""
        one = self.waiting.popleft()
        self.given.add(one)
        return one

    def leave(self, one: T) -> None:
        """It wants nothing more: neither the place nor the slot."""
        if one in self.given:
            self.given.discard(one)
        elif one in self.waiting:
            self.waiting.remove(one)


class Lined(Protocol):
    """The slots that are waited for."""

    def ask(self, turn: Turn) -> None: ...
    def leave(self, turn: Turn) -> None: ...
    def redeem(self, turn: Turn) -> None:
        """A request takes its slot now, if it is admitted; `leave` follows."""
        ...


class Turn:
    """One gateway's question for a slot, on one connection; and the slot, until a request takes it."""

    def __init__(
        self, exchange: ConnectionExchange, slots: Lined, accept: Callable[[ConnectionExchange], Handler | None]
    ) -> None:
        """`accept` is asked of the request that comes with the slot, as of any other."""
        self._exchange = exchange
        self._slots = slots
        self._accept = accept
        self._timer: asyncio.TimerHandle | None = None
        self.wait_s = _seconds(exchange.request.header(_WAIT_MS))
        self.holds = exchange.request.header(_HOLD) == b"1"
        """Its slot is for an input that comes elsewhere, for as long as the connection is open."""

    # -- handler ------------------------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        """It has no body."""

    def complete(self) -> None:
        self._slots.ask(self)

    def disconnected(self) -> None:
        self._stop_timer()
        self._slots.leave(self)

    # -- for the slots ------------------------------------------------------------------------

    def wait(self) -> None:
        """It has to: for as long as it would."""
        self._within(self.wait_s, self._in_vain)

    def give(self, free: int, waiting: int) -> None:
        """It has a slot: beside it so many are `free`, and so many others wait."""
        self._stop_timer()
        self._exchange.keep(self)
        if not self.holds:
            self._within(KEPT_S, self.lost)
        self._exchange.answer(200, _JSON, b"{}", f"{FREE}: {free} {waiting}\r\n".encode())

    def refuse(self, status: int, message: str) -> None:
        """There is none: 503 not now, 410 never again."""
        self._stop_timer()
        self._exchange.refuse(status, "busy", message, BUSY_LINE)

    def _in_vain(self) -> None:
        self._slots.leave(self)
        self.refuse(503, "No slot was free for as long as you would wait.")

    # -- kept for the next request --------------------------------------------------------------

    def accept(self, exchange: ConnectionExchange) -> Handler | None:
        """The slot is free for this request to take. Where it is not admitted, others have it."""
        self._stop_timer()
        self._exchange.keep(None)
        self._slots.redeem(self)
        try:
            return self._accept(exchange)
        finally:
            self._slots.leave(self)

    def lost(self) -> None:
        """Its connection is closed, or it took too long: a request that still comes is one like any other."""
        self._stop_timer()
        self._exchange.keep(None)
        self._slots.leave(self)

    def _within(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _seconds(wait_ms: bytes) -> float:
    return min(int(wait_ms) / 1000, WAIT_MAX_S) if wait_ms.isdigit() and len(wait_ms) < 9 else 0.0
