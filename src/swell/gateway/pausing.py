"""Is a replica read? Not while the client takes more slowly what it says."""

from __future__ import annotations

import asyncio


class Pausing(asyncio.Protocol):
    """A connection to a replica."""

    transport: asyncio.Transport
    paused = False

    def pause(self) -> None:
        """The client is slower than the replica."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """It has caught up."""
        if self.paused and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()
