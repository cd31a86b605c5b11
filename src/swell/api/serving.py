"""How is the control API served on its socket, until it is over?"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp


async def serve_api(api: ASGIApp, listener: socket.socket, over: asyncio.Event) -> None:
    """Serve it on a listening socket, which is closed, until it is over."""

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are the process's own business."""
            yield

        async def main_loop(self) -> None:
            """Look ten times less often than usual: a server at rest is to rest. A tick sets the answers' date."""
            while not over.is_set():
                await self.on_tick(0)
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 1.0)

    # A client that follows a log never ends by itself: it gets a second.
    config = uvicorn.Config(
        api, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1
    )
    await Server(config).serve([listener])
