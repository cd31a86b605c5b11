"""How is this terminal that of a program elsewhere? What is typed goes there, what it prints comes here, as bytes.

The terminal is raw meanwhile, so that a Ctrl-C is for the program; however it ends, it is put back as it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from swell.cli.output import show_error
from swell.model.errors import SwellError
from swell.wire.shell import ERR, PIECE, WINDOW, Begin, EndOfInput, Resize, Taken, Up
from swell.wire.websocket import BINARY, TEXT

if TYPE_CHECKING:
    from swell.sdk.socket import Socket

_SIZE = (80, 24)


def is_terminal() -> bool:
    """Are input and output of this program one?"""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


async def attend(socket: Socket, command: tuple[str, ...], terminal: bool, prompt: str) -> int:
    """Run a program at the other end; returns its exit code. `terminal`: it has one, ours where we have one."""
    columns, rows = _size()
    begin = Begin(command, terminal, rows, columns, os.environ.get("TERM", ""), prompt)
    with _raw(terminal and sys.stdin.isatty()):
        await socket.send(TEXT, msgspec.json.encode(begin))
        window = _Window()
        tasks = [asyncio.ensure_future(_typed(socket, window))]
        resized = asyncio.Event()
        loop = asyncio.get_running_loop()
        if terminal:
            loop.add_signal_handler(signal.SIGWINCH, resized.set)
            tasks.append(asyncio.ensure_future(_resizes(socket, resized)))
        try:
            return await _shown(socket, window)
        finally:
            if terminal:
                loop.remove_signal_handler(signal.SIGWINCH)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Every key as it is pressed, and no echo; afterwards as before."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        # What was typed ahead is for the shell that comes back.
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> tuple[int, int]:
    """(columns, rows)."""
    for fd in (1, 0, 2):
        with suppress(OSError):
            return tuple(os.get_terminal_size(fd))  # type: ignore[return-value]
    return _SIZE


async def _resizes(socket: Socket, resized: asyncio.Event) -> None:
    while True:
        await resized.wait()
        resized.clear()
        columns, rows = _size()
        await socket.send(TEXT, msgspec.json.encode(Resize(rows, columns)))


class _Window:
    """How much more input may be sent before the program has read some."""

    def __init__(self) -> None:
        self._left = WINDOW
        self._given = asyncio.Event()

    async def take(self, size: int) -> None:
        self._left -= size
        while self._left < 0:
            self._given.clear()
            await self._given.wait()

    def give(self, size: int) -> None:
        self._left += size
        self._given.set()


async def _typed(socket: Socket, window: _Window) -> None:
    """Send what comes on standard input, to its end."""
    while data := await _read():
        await window.take(len(data))
        await socket.send(BINARY, data)
    await socket.send(TEXT, msgspec.json.encode(EndOfInput()))


async def _read() -> bytes:
    """The next bytes of standard input; empty at its end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(0, _set, ready)
    except OSError:
        # A file is always ready, and what is closed is at its end.
        pass
    else:
        try:
            await ready
        finally:
            loop.remove_reader(0)
    try:
        return os.read(0, PIECE)
    except OSError:
        return b""


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _shown(socket: Socket, window: _Window) -> int:
    """Print what comes, until the program has ended; returns its exit code."""
    while (message := await socket.receive()) is not None:
        kind, payload = message
        if isinstance(payload, bytes):
            _print(2 if payload[:1] == ERR else 1, payload[1:])
        elif kind == TEXT:
            said: Up = msgspec.json.decode(payload, type=Up)
            if isinstance(said, Taken):
                window.give(said.size)
            else:
                if said.why:
                    show_error(said.why, "", ())
                return said.code
    assert socket.closed is not None
    code, reason = socket.closed
    raise SwellError("connection_lost", f"The shell was ended: {reason or f'the server closed it ({code})'}")


def _print(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
