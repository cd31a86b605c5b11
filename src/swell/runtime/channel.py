"""How does a replica hear its runner, and find the next one when it dies?"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

from swell.runtime import secrets
from swell.wire.child import Down, Drain, Forget, Leaving, Reattach, Secrets, Up, VolumeDone
from swell.wire.context import leaving, stopping
from swell.wire.frames import Unpacker, pack

_SEND_S = 1.0
"""A runner that does not read for this long is not waited for."""
_RETRY_S = 0.05


class Channel(asyncio.Protocol):
    """The replica's end of the link. `reattach` makes what is said to a new runner; `end(reason)` is called once,
    when a drain is ordered or no runner adopts us within `orphan_s`. `answered` hears what became of what was asked
    about volumes; None: there is another runner, who has to be asked anew. `forget` hears of queued calls that nobody
    needs from here any more; None: of all, since no runner came back."""

    def __init__(
        self,
        sock: socket.socket,
        runner_socket: str,
        orphan_s: float,
        reattach: Callable[[], Reattach],
        end: Callable[[str], None],
    ) -> None:
        self._sock = sock
        self._runner_socket = runner_socket
        self._orphan_s = orphan_s
        self._reattach = reattach
        self._end = end
        self.answered: Callable[[VolumeDone | None], None] = lambda _message: None
        self.forget: Callable[[Forget | None], None] = lambda _message: None
        self._unpacker: Unpacker[Down] = Unpacker(Down)
        self._seeking: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Start to hear."""
        # The transport owns a copy of the descriptor: ours stays good for sending at once, without the loop.
        loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        await loop.connect_accepted_socket(lambda: self, self._sock.dup())

    def send(self, message: Up) -> None:
        """Say it now, before returning. Lost when the runner is gone or does not read: it then hears `reattach`."""
        data = memoryview(pack(message))
        try:
            while data:
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    if not self._writable():
                        # What was not sent, half a message perhaps, is made good over another connection.
                        self._sock.shutdown(socket.SHUT_RDWR)
                        return
        except (OSError, ValueError):
            return

    def _writable(self) -> bool:
        """Wait until the runner has read some of what it was told."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(_SEND_S * 1000))

    def data_received(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            if isinstance(message, Drain):
                if message.soon:
                    stopping.set()
                self._end(message.reason)
            elif isinstance(message, Secrets):
                secrets.apply(message)
            elif isinstance(message, VolumeDone):
                self.answered(message)
            elif isinstance(message, Forget):
                self.forget(message)
            elif isinstance(message, Leaving):
                leaving.set() if message.soon else leaving.clear()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self._sock.close()
        # A runner that does not want us says Drain first: this one died, perhaps while we came back to it.
        self._seeking = asyncio.get_running_loop().create_task(self._seek())

    async def _seek(self) -> None:
        """Connect to the next runner, or end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._orphan_s
        while loop.time() < until:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(self._runner_socket)
            except OSError:
                sock.close()
                await asyncio.sleep(_RETRY_S)
                continue
            self._sock = sock
            self._unpacker = Unpacker(Down)
            # Who runs it now says so anew, where it is so still.
            leaving.clear()
            self.send(self._reattach())
            await self.listen()
            self.answered(None)
            return
        self.forget(None)
        self._end(f"no runner came back within {self._orphan_s:g} s")
