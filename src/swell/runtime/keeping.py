"""What becomes of a queued call whose runner dies? It goes on, and its answer is kept for the next one.

Such a call answers on something of its own (`Keep`), which passes on to whoever listens what came and comes of it. A
connection that is closed as a whole leaves it running; one whose sending half alone is closed cancels it, which the
kernel tells even while user code blocks the loop. Its answer is kept until the runner has it safe and says so
(`Forget`), or no runner came back in time. What was sent by a runner that is gone is not begun any more: so the next
one knows from the list of what is kept what was.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable

from swell.runtime.http import BUSY_LINE, ConnectionExchange, Exchange, Handler
from swell.runtime.request import Request
from swell.wire.child import KeptCall
from swell.wire.http import KEPT_BYTES_MAX, RESULT_MAX, result_too_large

TARGET = b"/kept"
ANSWER_MAX = 2 * RESULT_MAX + 128 * 1024
"""Bytes that are kept of one answer, as it is sent: a result that may be recorded, in chunks, and a head."""
KEPT_MAX = 10_000
"""Calls that are kept, at most."""
FULL = "This replica keeps as much of queued calls as it may, until its runner has that safe."
EACH = 1024
"""Bytes that one is taken to have beside its answer."""

Lease = tuple[str, int]


class Keeping:
    """All queued calls of one replica that were begun, and are not known to be safe."""

    def __init__(self) -> None:
        self.bytes = 0
        self._kept: dict[Lease, Keep] = {}
        self._empty: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """No other is to be begun."""
        return self.bytes >= KEPT_BYTES_MAX or len(self._kept) >= KEPT_MAX

    def listed(self) -> tuple[KeptCall, ...]:
        """For a runner that comes."""
        now = time.monotonic()
        return tuple(keep.listed(now) for keep in self._kept.values())

    def has(self, request: Request) -> bool:
        """Is this call here already?"""
        return (request.id, request.token) in self._kept

    def fetch(self, exchange: ConnectionExchange) -> Handler | None:
        """Have the answer of one that is here go to whoever asks."""
        keep = self._kept.get((exchange.request.id, exchange.request.token))
        if keep is None:
            exchange.refuse(503, "busy", "This replica has no such call.", BUSY_LINE)
            return None
        return keep.listen(exchange)

    def add(self, keep: Keep) -> bool:
        """It begins. False where this hand-out came twice, and has begun."""
        if keep.lease in self._kept:
            return False
        self._kept[keep.lease] = keep
        self.bytes += EACH
        return True

    def remove(self, keep: Keep) -> None:
        if self._kept.get(keep.lease) is keep:
            del self._kept[keep.lease]
            self.bytes -= EACH
            if not self._kept and self._empty is not None and not self._empty.done():
                self._empty.set_result(None)

    def forget(self, leases: Iterable[Lease]) -> None:
        """Nobody needs these any more."""
        for lease in leases:
            keep = self._kept.get(lease)
            if keep is not None:
                keep.stop()

    def give_up(self) -> None:
        """Nobody will ask for any."""
        self.forget(list(self._kept))

    async def emptied(self) -> None:
        """Wait until all are safe, or given up."""
        if self._kept:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty


class Keep:
    """One call: what its code answers on, with somebody who listens or with nobody."""

    def __init__(self, keeping: Keeping, request: Request) -> None:
        self.lease = request.id, request.token
        self.begun_at = time.monotonic()
        self.exchange: Exchange = KeptExchange(self, request)
        """For its code; closed once it is answered, or nobody wants it."""
        self._keeping = keeping
        self._work: Handler | None = None
        self._listener: ConnectionExchange | None = None
        self._begun = False
        """What is answered before that, since its body does not come, is not kept."""
        self._pieces: list[bytes] = []
        self._size = 0
        """Bytes of all pieces."""
        self._whole = True
        """All that was answered is in the pieces."""

    def listed(self, now: float) -> KeptCall:
        """For a runner that comes; `now` is of the monotonic clock."""
        ended, left_s = self.exchange.closed, self.exchange.request.deadline - now
        remaining_s = 0.0 if ended or math.isinf(left_s) else max(0.0, left_s)
        return KeptCall(*self.lease, remaining_s, now - self.begun_at, ended)

    # -- who listens ----------------------------------------------------------------------------

    def bring(self, exchange: ConnectionExchange, work: Handler) -> Handler:
        """It was admitted as `work`; what comes on this connection is its body."""
        self._work = work
        self._attach(exchange)
        return Listening(self, exchange, work)

    def begin(self) -> bool:
        """Its code begins; False where it is not to, as this hand-out came twice."""
        self._begun = self._keeping.add(self)
        return self._begun

    def listen(self, exchange: ConnectionExchange) -> Handler | None:
        """Pass on what came, and what comes, to this one alone."""
        before = self._listener
        if before is not None:
            self.leave(before)
            before.abort()
        for piece in self._pieces:
            exchange.write(piece)
        if self.exchange.closed:
            exchange.end()
            return None
        self._attach(exchange)
        return Listening(self, exchange, None)

    def leave(self, exchange: ConnectionExchange) -> None:
        """This one is gone: nobody listens."""
        if self._listener is not exchange:
            return
        self._listener = None
        if not self._whole:
            self._lose()
        else:
            self._writable()

    def stop(self) -> None:
        """Nobody wants it, or its answer, any more."""
        self._keeping.remove(self)
        self._clear()
        listener, self._listener = self._listener, None
        self._stop_code()
        if listener is not None:
            listener.abort()

    def _attach(self, exchange: ConnectionExchange) -> None:
        self._listener = exchange
        exchange.on_writable = self._writable
        exchange.on_end = self._ended_sending

    def _ended_sending(self) -> None:
        listener = self._listener
        if listener is not None and listener.half_left():
            self.stop()

    def _writable(self) -> None:
        if self.exchange.on_writable is not None:
            self.exchange.on_writable()

    def _stop_code(self) -> None:
        exchange, work = self.exchange, self._work
        if not exchange.closed:
            exchange.closed = True
            self._writable()
            if work is not None:
                work.disconnected()

    # -- for its code's exchange, as a connection is ----------------------------------------------

    @property
    def full(self) -> bool:
        return self._listener is not None and not self._listener.writable

    def send(self, data: bytes) -> None:
        listener = self._listener
        if listener is not None:
            listener.write(data)
        if not (self._begun and self._whole):
            return
        if self._size + len(data) > ANSWER_MAX:
            self._whole = False
            self._clear()
            if listener is None:
                self._lose()
        elif listener is None and len(data) > EACH and self._keeping.bytes + len(data) > KEPT_BYTES_MAX:
            most = f"{KEPT_BYTES_MAX // 2**20} MiB"
            self._instead(
                502, "lease_expired", f"Its runner was away, and the {most} that are kept meanwhile were full."
            )
        else:
            self._pieces.append(data)
            self._size += len(data)
            self._keeping.bytes += len(data)

    def answered(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end()
        if not self._whole:
            self._lose()

    def hung_up(self) -> bool:
        """Who is gone leaves it to the next one; who waits for it no more says so with a half."""
        listener = self._listener
        return listener is not None and listener.half_left()

    def closing_line(self) -> bytes:
        return b""

    # -- details ----------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._keeping.bytes -= self._size
        self._pieces = []
        self._size = 0

    def _lose(self) -> None:
        self._instead(500, "bad_result", result_too_large(RESULT_MAX))

    def _instead(self, status: int, code: str, words: str) -> None:
        """Its answer cannot be kept: this is, and its code has nothing more to say."""
        self._clear()
        self._whole = True
        self._stop_code()
        Exchange(self, self.exchange.request).refuse(status, code, words)


class KeptExchange(Exchange):
    """That of a call which is kept, for its code."""

    __slots__ = ()

    def give_back(self, message: str) -> None:
        """Kept as any answer, for a runner that is to come: its code was not begun, and will not be."""
        self.refuse(503, "drained", message, BUSY_LINE)


class Listening:
    """The handler of one connection to a call that is kept: the one that brings it, or one that asks for its answer."""

    def __init__(self, keep: Keep, exchange: ConnectionExchange, work: Handler | None) -> None:
        self._keep = keep
        self._exchange = exchange
        self._work = work
        """Whose body comes yet."""

    def data(self, chunk: bytes) -> None:
        if self._work is not None:
            self._work.data(chunk)

    def complete(self) -> None:
        work, self._work = self._work, None
        if work is None:
            return
        if self._exchange.left() or not self._keep.begin():
            # Its runner is gone: the next one may know already that it was not begun. Or it was, as it came before.
            self._keep.stop()
        else:
            work.complete()

    def disconnected(self) -> None:
        if self._work is not None:
            self._keep.stop()
        else:
            self._keep.leave(self._exchange)
