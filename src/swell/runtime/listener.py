"""How is a process of the user's that listens by itself started, watched and ended?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.runtime.load import enter_error

_PROBE_S = 0.02
_SETTLE_S = 0.2
"""After a child ended: the time a server that restarts its workers has to listen again."""
_TERM_S = 3.0
"""Children that were sent SIGTERM are killed after this long."""


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
        started = asyncio.ensure_future(run())
        loop = asyncio.get_running_loop()
        until = loop.time() + self._startup_timeout_s
        while not await self._accepts():
            if started.done() and started.exception() is not None:
                raise enter_error(self._name, started.exception() or RuntimeError())
            if loop.time() > until:
                raise SwellError(
                    "not_listening",
                    f"Nothing listens on 127.0.0.1:{self._port} {self._startup_timeout_s:g} s after {self._name} "
                    f"was run. Listen on that port, or raise startup_timeout.",
                    status=500,
                )
            await asyncio.sleep(_PROBE_S)
        for pid in _children(os.getpid()):
            self._watch(pid, ended)

    def _watch(self, pid: int, ended: Callable[[str], None]) -> None:
        descriptor = _pidfd(pid)
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


async def end_children() -> None:
    """SIGTERM to the processes this one started, then SIGKILL to whatever of them and theirs is left."""
    direct = _children(os.getpid())
    family = [*direct, *(grandchild for child in direct for grandchild in _descendants(child))]
    handles = {pid: _pidfd(pid) for pid in family}
    for pid in direct:
        _signal(pid, handles[pid], signal.SIGTERM)
    loop = asyncio.get_running_loop()
    until = loop.time() + _TERM_S
    while loop.time() < until and any(_runs(pid) for pid in direct):  # noqa: ASYNC110 — nothing tells us of it
        await asyncio.sleep(_PROBE_S)
    for pid in family:
        _signal(pid, handles[pid], signal.SIGKILL)


def _signal(pid: int, handle: int | None, number: signal.Signals) -> None:
    """To exactly that process, where the system can tell it from a later one with its pid."""
    try:
        if handle is not None:
            signal.pidfd_send_signal(handle, number)
        elif sys.platform != "linux":
            os.kill(pid, number)
    except ProcessLookupError:
        return


def _runs(pid: int) -> bool:
    """It is there, and not only waiting to be reaped."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return sys.platform != "linux"


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _descendants(pid: int) -> list[int]:
    found = []
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting += _children(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        if sys.platform == "linux":
            return []
    asked = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
    rows = [line.split() for line in asked.stdout.splitlines()]
    return [int(row[0]) for row in rows if row[1] == str(pid)]
