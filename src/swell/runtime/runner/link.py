"""How does a runner stay in touch with control? Connects, says who it is, and connects again for ever."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from pathlib import Path

from swell.wire import link as wire
from swell.wire.frames import Unpacker, pack

log = logging.getLogger("swell.runner")

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between attempts; the last one repeats."""


class RunnerLink:
    """The connection to control. Until control has welcomed us, what is sent is dropped, and `send` says so: every
    fact is said again with the welcome. An inventory before it would have control order what it can send nobody yet."""

    def __init__(self, path: Path, heard: Callable[[wire.Down], None], left: Callable[[], None] = lambda: None) -> None:
        """`heard` gets each message, on the loop; `Welcome` is the first one after every connect. `left` is called when
        the connection is over after that."""
        self.path = path
        self.heard = heard
        self.left = left
        self.hello = wire.Hello(role="runner", incarnation=uuid.uuid4().hex)
        self._transport: asyncio.Transport | None = None
        self._welcomed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    def send(self, message: wire.Up) -> bool:
        """Say something; False when nobody listens."""
        if self._transport is None or not self._welcomed or self._transport.is_closing():
            return False
        self._transport.write(pack(message))
        if self._transport.get_write_buffer_size() > wire.UNSENT_MAX:
            log.warning("control does not read what it is sent; the link is cut")
            self._transport.abort()
        return True

    def opened(self, transport: asyncio.Transport) -> None:
        """From the connection: control is there, and is told who speaks."""
        self._transport = transport
        transport.write(pack(self.hello))

    def received(self, message: wire.Down) -> None:
        """From the connection: control has said something, first of all that we are welcome."""
        self._welcomed = True
        self.heard(message)

    def lost(self) -> bool:
        """From the connection: it is over. Were we welcome?"""
        welcomed = self._welcomed
        self._transport = None
        self._welcomed = False
        if welcomed:
            self.left()
        return welcomed

    async def close(self) -> None:
        """Send what is still buffered, for a second at most, and hang up."""
        if self._task is not None:
            self._task.cancel()
        transport = self._transport
        if transport is None:
            return
        transport.close()
        for _ in range(100):
            if self._transport is None:
                return
            await asyncio.sleep(0.01)
        transport.abort()

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            ended = asyncio.get_running_loop().create_future()
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: _Peer(self, ended), str(self.path))  # noqa: B023
            except OSError:
                await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
                continue
            welcomed = await ended
            attempt = 0 if welcomed else attempt + 1
            # A control that hangs up at once must not be called in a tight loop.
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])


class _Peer(asyncio.Protocol):
    def __init__(self, link: RunnerLink, ended: asyncio.Future[bool]) -> None:
        self.link = link
        self.ended = ended
        self.unpacker: Unpacker[wire.Down] = Unpacker(wire.Down)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.opened(transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self.unpacker.feed(data):
                self.link.received(message)
        except Exception:
            log.exception("control sent what cannot be used; connecting again")
            if self.transport is not None:
                self.transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        welcomed = self.link.lost()
        if not self.ended.done():
            self.ended.set_result(welcomed)
