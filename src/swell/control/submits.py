"""How is a gateway answered that wants a call queued? Once the call is on disk, or with why it is not accepted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from swell.model.errors import SwellError
from swell.wire.calls import Submitted
from swell.wire.frames import pack

log = logging.getLogger("swell.control")


class Told(Protocol):
    """A gateway's connection."""

    def write(self, frame: bytes) -> None: ...


class Submits:
    """Those that are under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, accept: Callable[[], Awaitable[str | tuple[str, ...]]], ask: int, gateway: Told) -> None:
        """In the background."""
        task = asyncio.get_running_loop().create_task(self._submit(accept, ask, gateway))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """What is not answered by now is not: its gateway sees the link end."""
        for task in self._tasks:
            task.cancel()

    async def _submit(self, accept: Callable[[], Awaitable[str | tuple[str, ...]]], ask: int, gateway: Told) -> None:
        try:
            accepted = await accept()
            answer = Submitted(ask, accepted) if isinstance(accepted, str) else Submitted(ask, ids=accepted)
        except SwellError as error:
            answer = Submitted(ask, "", error.status, error.code, error.message)
        except Exception:
            log.exception("a call could not be queued")
            answer = Submitted(ask, "", 500, "internal", "The server made a mistake; its log says which.")
        gateway.write(pack(answer))
