"""What does a process of ours tell its supervisor, and how does it hear from it? By lines, signals, and an end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("swell")


class Up:
    """A process's relation to its supervisor: says when it is ready and what it waits for, hears when to stop.

    `cut` is called when what it waits for is to be cut short.
    """

    def __init__(self, ready_fd: int, supervisor_fd: int) -> None:
        self.cut: Callable[[], None] = lambda: None
        self._ready_fd = ready_fd
        self._supervisor_fd = supervisor_fd
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def listen(self) -> None:
        """Hear SIGTERM, SIGINT (stop, and wait for nothing), and the end of the supervisor, which means the same."""
        loop = self._loop
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop_now)
        if self._supervisor_fd >= 0:
            os.set_blocking(self._supervisor_fd, False)
            loop.add_reader(self._supervisor_fd, self._supervisor_said)

    def ready(self) -> None:
        self.say("ready")

    def say(self, line: str) -> None:
        """To the supervisor, and after "ready" by it to people."""
        if self._ready_fd >= 0:
            # Without a supervisor nobody listens.
            with suppress(OSError):
                os.write(self._ready_fd, f"{line}\n".encode())

    async def stopped(self) -> None:
        await self._stop.wait()

    def end_soon(self) -> None:
        """From any thread: it is to end, and the supervisor to start it again."""
        self._loop.call_soon_threadsafe(self._stop_now)

    def _stop_now(self) -> None:
        self._stop.set()
        self.cut()

    def _supervisor_said(self) -> None:
        if os.read(self._supervisor_fd, 64) == b"":
            asyncio.get_running_loop().remove_reader(self._supervisor_fd)
            log.error("the supervisor is gone; ending")
            self._stop_now()
