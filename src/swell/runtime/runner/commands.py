"""How is a helper command run from the runner's loop? Its lines as they come, its end, and a time limit."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, cast

from swell.runtime.runner import processes
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.sandbox import start
from swell.runtime.runner.sandbox.start import Command
from swell.runtime.runner.sandbox.walls import Walls
from swell.runtime.runner.spool import Lines
from swell.wire.identity import send_signal

_LAST_WORDS_S = 1.0


async def run(
    reaper: Reaper,
    argv: Sequence[str],
    environ: Mapping[str, str],
    heard: Callable[[str], None],
    timeout_s: float,
    cwd: str = "/",
    said: bytes = b"",
    around: Walls | None = None,
    membership: Sequence[str] = (),
) -> int | None:
    """Run to the end, in the walls of a sandbox where there are any; `heard` gets each line of its stdout and stderr,
    `said` is its stdin.

    Returns the exit status (negative = signal), None when it was killed for taking longer than `timeout_s`.
    """
    with _unnamed() as source:
        source.write(said)
        source.seek(0)
        reading, writing = os.pipe()
        try:
            descriptors = {0: source.fileno(), 1: writing, 2: writing}
            if around is None:
                pid = processes.spawn(argv, environ, descriptors, cwd, membership)
            else:
                pid, pidfd = start.spawn(Command(argv, environ, descriptors, cwd, membership), around, forked=False)
                os.close(pidfd)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
    output = asyncio.ensure_future(_lines(reading, heard))
    ended = asyncio.ensure_future(reaper.wait(pid))
    try:
        return (await asyncio.wait_for(asyncio.shield(ended), timeout_s)).status
    except TimeoutError:
        return None
    finally:
        if not ended.done():
            send_signal(pid, None, signal.SIGKILL)
        processes.kill_session(pid)
        # A process it left in another session may hold the pipe for ever: that one is not waited for.
        await asyncio.wait([output], timeout=_LAST_WORDS_S)
        output.cancel()


def _unnamed() -> BinaryIO:
    """A file without a name: of memory, where the system has such, since what is said may be secret."""
    if hasattr(os, "memfd_create"):
        # Refused by `vm.memfd_noexec=2` and by filters of system calls: then there are none, as on macOS.
        with suppress(OSError):
            return os.fdopen(os.memfd_create("said"), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile())


async def _lines(reading: int, heard: Callable[[str], None]) -> None:
    """Read a pipe to its end, and close it."""
    loop = asyncio.get_running_loop()
    lines = Lines()
    over = loop.create_future()

    def readable() -> None:
        data = os.read(reading, 65536)
        for line in lines.feed(data, final=not data):
            heard(line)
        if not data:
            loop.remove_reader(reading)
            over.set_result(None)

    loop.add_reader(reading, readable)
    try:
        await over
    finally:
        loop.remove_reader(reading)
        os.close(reading)
