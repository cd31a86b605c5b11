"""How is a process of the user's that listens by itself started, watched and ended?"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Container
from typing import Any

from swell.model.errors import SwellError
from swell.runtime.load import enter_error
from swell.runtime.programs import TERM_S, Programs
from swell.wire.identity import children, how_ended, open_pidfd

_PROBE_S = 0.02
_SETTLE_S = 0.2
"""After a child ended: the time a server that restarts its workers has to listen again."""


class Listener:
    """The server that one function starts on `port`."""

    def __init__(self, name: str, port: int, startup_timeout_s: float) -> None:
        self._name = name
        self._port = port
        self._startup_timeout_s = startup_timeout_s
        self._looking: asyncio.Task[None] | None = None

    async def start(self, run: Callable[[], Awaitable[Any]], ended: Callable[[str], None]) -> None:
        """Run the function and wait until its port accepts; `ended(why)` is called when it stops to later.

        The function may return once the server is started, or be the server and never return. Raises
        SwellError "not_listening" or "enter_error".
        """
        if await self._accepts():
            raise SwellError("not_listening", f"Port {self._port} is already taken by another process.", status=500)
        before = frozenset([*children(os.getpid()), *_threads()])
        started = asyncio.ensure_future(run())
        loop = asyncio.get_running_loop()
        until = loop.time() + self._startup_timeout_s
        while not await self._accepts():
            if started.done() and started.exception() is not None:
                raise enter_error(self._name, started.exception() or RuntimeError())
            # Tried once more after it: by then it may have left one behind that listens.
            if started.done() and (why := _failed(before)) and not await self._accepts():
                raise SwellError(
                    "not_listening",
                    f"The process that {self._name} started ended ({why}) before 127.0.0.1:{self._port} took a "
                    "connection.",
                    status=500,
                )
            if loop.time() > until:
                raise SwellError(
                    "not_listening",
                    f"127.0.0.1:{self._port} took no connection within {self._startup_timeout_s:g} s of {self._name} "
                    f"being run. Listen there, or raise startup_timeout.",
                    status=500,
                )
            await asyncio.sleep(_PROBE_S)
        for pid in children(os.getpid()):
            self._watch(pid, ended)

    def _watch(self, pid: int, ended: Callable[[str], None]) -> None:
        descriptor = open_pidfd(pid)
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()

        async def look() -> None:
            await asyncio.sleep(_SETTLE_S)
            if not await self._accepts():
                ended(f"process {pid}, which {self._name} started, ended, and nothing listens on port {self._port}")

        def gone() -> None:
            loop.remove_reader(descriptor)
            self._looking = loop.create_task(look())

        loop.add_reader(descriptor, gone)

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True


def _failed(before: Container[object]) -> str:
    """How the last child of this process ended, where that was in failure and nothing else is left; else empty.

    `before`: those that do not count. One that ended well may go on in the background, as another process that listens;
    a thread that is left may be about to.
    """
    if any(thread not in before for thread in _threads()):
        return ""
    statuses = [_status(pid) for pid in children(os.getpid()) if pid not in before]
    return how_ended(statuses[-1]) if statuses and all(statuses) else ""


def _threads() -> list[threading.Thread]:
    """Those of this process that are not ours."""
    return [thread for thread in threading.enumerate() if not thread.name.startswith("swell-")]


def _status(pid: int) -> int | None:
    """The exit status (minus the signal) of a child that is over; None of one that is not, or where nobody tells.

    It stays to be asked by whoever started it.
    """
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (AttributeError, ChildProcessError):
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


async def end_children() -> None:
    """SIGTERM to the processes this one started, then SIGKILL to whatever of them and theirs is left."""
    programs = Programs()
    programs.terminate()
    loop = asyncio.get_running_loop()
    until = loop.time() + TERM_S
    while loop.time() < until and programs.alive:  # noqa: ASYNC110 — nothing tells us of it
        await asyncio.sleep(_PROBE_S)
    programs.kill()
