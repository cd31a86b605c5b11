"""How does a generator become a body? Items as server-sent events or as frames, and a bounded way to the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, NoReturn

from swell.runtime.http import Exchange
from swell.runtime.results import Accepted, encode_item
from swell.wire.http import FRAMES, ITEM_TYPE, JSON, PICKLE, SSE

AHEAD_MAX = 64 * 1024
"""Encoded bytes a synchronous generator may be ahead of what the connection took."""


class Format:
    """The bytes of a stream's parts, in the form the caller accepts."""

    def __init__(self, wanted: Accepted) -> None:
        self.frames = wanted.frames
        kind = self.kind = (wanted.kind or JSON) if wanted.frames else JSON
        """The type that items are written in."""
        self._encode: Callable[[Any], bytes] = encode_item(kind)
        self.pickled = kind == PICKLE
        self.headers = (
            [(b"Content-Type", FRAMES.encode()), (ITEM_TYPE.encode(), kind.encode())]
            if wanted.frames
            else [(b"Content-Type", SSE.encode()), (b"Cache-Control", b"no-cache")]
        )

    def item(self, value: Any) -> bytes:
        """One item. Raises what the encoder raises."""
        data = self._encode(value)
        return _frame(b"i", data) if self.frames else b"data: %s\n\n" % data

    def error(self, body: bytes) -> bytes:
        """The generator raised; nothing follows."""
        return _frame(b"e", body) if self.frames else b"event: error\ndata: %s\n\n" % body

    def end(self) -> bytes:
        """The generator is over."""
        return _frame(b"z", b"") if self.frames else b"event: end\ndata:\n\n"


class Pipe:
    """Bytes from a worker thread to an exchange, by way of `post` (calls on the loop, from any thread).

    `put` waits while the reader is too far behind. `stop` raises InputCancellation where it meets the end (`Job.stop`).
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], object], exchange: Exchange, stop: Callable[[], NoReturn]
    ) -> None:
        self._post = post
        self._exchange = exchange
        self._stop = stop
        self._ahead: deque[bytes] = deque()
        self._put = 0
        """Bytes handed over; only the worker adds to it."""
        self._taken = 0
        """Bytes taken out; only the loop adds to it."""
        self._progress = threading.Lock()
        """Held = nothing was taken out since the worker last looked."""
        self._progress.acquire()
        self._awake = False
        self._end: Callable[[], None] | None = None
        """What follows the last byte; only the loop knows it."""
        self.closed = False
        """What was not passed on yet never is. Set by `close`, or by the worker itself before its next `put`."""

    def put(self, data: bytes) -> None:
        """Worker: hand over bytes. Raises InputCancellation once the pipe was closed."""
        self._ahead.append(data)
        self._put += len(data)
        if not self._awake:
            self._awake = True
            self._post(self.flush)
        while self._put - self._taken > AHEAD_MAX and not self.closed:
            self._progress.acquire()
        if self.closed:
            self._stop()

    def close(self) -> None:
        """Loop: nobody reads any more; what was not passed on yet never is."""
        self.closed = True
        self._signal()

    def flush(self) -> None:
        """Loop: pass on what the connection has room for."""
        self._awake = False
        if self.closed:
            self._ahead.clear()
        while self._ahead and self._exchange.writable:
            data = self._ahead.popleft()
            self._exchange.write(data)
            self._taken += len(data)
        self._exchange.on_writable = self.flush
        if self._end is not None and not self._ahead:
            self._exchange.on_writable = None
            end, self._end = self._end, None
            end()
        self._signal()

    def finish(self, end: Callable[[], None]) -> None:
        """Loop, after the worker's last `put`: pass on the rest, then call `end`."""
        self._end = end
        self.flush()

    def _signal(self) -> None:
        """Loop alone: nobody else lets the lock go, so what is locked here is locked in the next line."""
        if self._progress.locked():
            self._progress.release()


async def each(items: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """Items that are there without waiting, for who awaits each."""
    for item in items:
        yield item


def _frame(kind: bytes, payload: bytes) -> bytes:
    return (1 + len(payload)).to_bytes(4, "big") + kind + payload
