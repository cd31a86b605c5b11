"""What does a replica do that is a shell? It runs one program for whoever opened its WebSocket, until either ends.

It is the ASGI application of a revision that has all that a function's has but its code: `swell shell` deploys it. So
the program finds the same interpreter, variables, secrets, limits and walls. Only a key that may deploy opens it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from swell.runtime.scope import App, Message, Receive, Send
from swell.runtime.websocket import TRUSTED_EXTENSION
from swell.wire.http import error_body
from swell.wire.identity import stat
from swell.wire.shell import ERR, OUT, PIECE, Begin, Down, Ended, EndOfInput, Resize, Taken

_HANG_UP_S = 0.3
"""A program whose terminal went away has this long to end by itself."""
_QUIET_S = 0.5
"""What was printed last is waited for until nothing came for this long: something left behind may hold the terminal."""
_NOT_FOUND, _NOT_RUN = 127, 126
_EOT = b"\x04"
_DEFAULTS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCHLD)
_SESSION = 3
"""Where in `stat` the session stands."""


def shell() -> App:
    """The application: what the revision's entry names."""
    return serve


async def serve(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """One session for each WebSocket; it has no other answer."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 426, "headers": [(b"upgrade", b"websocket")]})
        await send({"type": "http.response.body", "body": b"A shell is opened over a WebSocket: `swell shell`.\n"})
    if scope["type"] != "websocket":
        return
    await receive()
    if TRUSTED_EXTENSION not in scope["extensions"]:
        body = error_body("no_scope", "A shell is opened with a key that may deploy.", "")
        headers = [(b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
        return
    await send({"type": "websocket.accept"})
    begin = await _next(receive)
    if not isinstance(begin, Begin):
        return
    try:
        session = Session(begin, send)
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN
        why = f"{_argv(begin)[0]} cannot be run: {error.strerror}"
        ended = Ended(code, f"{why}. What needs a shell (a; b, a | b, $A) is run by one: sh -c 'a; b'.")
    else:
        found = await session.live(receive)
        if found is None:
            return
        ended = Ended(found)
    await send({"type": "websocket.send", "text": msgspec.json.encode(ended).decode()})
    await send({"type": "websocket.close"})


async def _next(receive: Receive) -> Down | bytes | None:
    """What was said; None when there will be nothing more."""
    message: Message = await receive()
    if message["type"] != "websocket.receive":
        return None
    text = message.get("text")
    if text is None:
        return bytes(message["bytes"])
    try:
        said: Down = msgspec.json.decode(text, type=Down)
    except msgspec.MsgspecError:
        return None
    return said


def _argv(begin: Begin) -> tuple[str, ...]:
    if begin.command:
        return begin.command
    # Nothing of who runs the server: what the shell finds is what a function would.
    bash = shutil.which("bash")
    return (bash, "--noprofile", "--norc") if bash is not None else ("/bin/sh",)


def _environ(begin: Begin) -> dict[str, str]:
    """As of the function; and its source can be imported, as the function does."""
    before = os.environ.get("PYTHONPATH")
    own = {"PYTHONPATH": sys.path[0] + (f":{before}" if before else "")}
    if begin.terminal:
        own |= {"TERM": begin.term or "xterm", "PS1": begin.prompt or "$ "}
    return {**os.environ, **own}


def _become() -> None:
    """In the new process: signals as any program finds them; its terminal is the one it controls."""
    for number in _DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with suppress(OSError):
        # On pipes there is none.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Session:
    """One program with what it reads and writes."""

    def __init__(self, begin: Begin, send: Send) -> None:
        """Starts it. OSError where it cannot be."""
        self._send = send
        self._terminal = begin.terminal
        if begin.terminal:
            ours, theirs = os.openpty()
            _set_size(ours, begin.rows, begin.columns)
            self._outputs, self._input = {ours: OUT}, ours
            streams = (theirs, theirs, theirs)
        else:
            (reads, self._input), (out, out_end), (err, err_end) = os.pipe(), os.pipe(), os.pipe()
            self._outputs = {out: OUT, err: ERR}
            streams = (reads, out_end, err_end)
        try:
            self._process = subprocess.Popen(
                _argv(begin),
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                env=_environ(begin),
                start_new_session=True,
                preexec_fn=_become,
            )
        except BaseException:
            self._shut()
            raise
        finally:
            for each in set(streams):
                os.close(each)
        for each in {self._input, *self._outputs}:
            os.set_blocking(each, False)
        self._reading = 0
        """Outputs that have nothing to say at this moment."""
        self._heard = 0
        """Bytes of output so far."""
        self._typed = bytearray()
        """Input that the program has yet to take."""
        self._typed_all = False
        self._news = asyncio.Event()
        """There is more of it, or its end."""

    async def live(self, receive: Receive) -> int | None:
        """Carry both ways until it ends; returns its exit code, None when whoever opened it has gone."""
        loop = asyncio.get_running_loop()
        outputs = [loop.create_task(self._tell(fd, mark)) for fd, mark in self._outputs.items()]
        inputs = loop.create_task(self._hear(receive))
        feeding = loop.create_task(self._feed())
        ended = loop.create_task(asyncio.to_thread(self._process.wait))
        try:
            await asyncio.wait({inputs, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._signal(signal.SIGHUP)
                self._signal(signal.SIGCONT)
                await asyncio.wait({ended}, timeout=_HANG_UP_S)
                return None
            await self._last_words(outputs)
            status = self._process.returncode
            return 128 - status if status < 0 else status
        finally:
            for task in (inputs, feeding, *outputs):
                task.cancel()
            await asyncio.gather(inputs, feeding, *outputs, return_exceptions=True)
            self._shut()
            self._kill()

    async def _last_words(self, outputs: list[asyncio.Task[None]]) -> None:
        """Hear what it printed to the end; of what it left behind in its terminal, as long as that prints."""
        heard = -1
        while heard != self._heard or self._reading < sum(not task.done() for task in outputs):
            heard = self._heard
            _, pending = await asyncio.wait(outputs, timeout=_QUIET_S)
            if not pending:
                return

    # -- both ways --------------------------------------------------------------------------------

    async def _tell(self, fd: int, mark: bytes) -> None:
        while data := await self._read(fd):
            self._heard += len(data)
            await self._send({"type": "websocket.send", "bytes": mark + data})

    async def _read(self, fd: int) -> bytes:
        """What is printed next; empty when there will be nothing more."""
        while True:
            try:
                return os.read(fd, PIECE)
            except BlockingIOError:
                self._reading += 1
                try:
                    await _readable(fd)
                finally:
                    self._reading -= 1
            except OSError as error:
                # So Linux says that nobody has the terminal any more.
                if error.errno == errno.EIO:
                    return b""
                raise

    async def _hear(self, receive: Receive) -> None:
        """Do what is said, until there is nothing more to hear. Nothing here waits for the program: one that reads
        nothing would keep its end from being heard."""
        while (said := await _next(receive)) is not None:
            if isinstance(said, Resize) and self._terminal:
                _set_size(self._input, said.rows, said.columns)
            elif isinstance(said, bytes):
                self._typed += said
                self._news.set()
            elif isinstance(said, EndOfInput):
                self._typed_all = True
                self._news.set()

    async def _feed(self) -> None:
        """Give the program its input as it reads it, and say so: whoever sends it waits for that."""
        while self._typed or not self._typed_all:
            if not self._typed:
                self._news.clear()
                await self._news.wait()
                continue
            piece = bytes(self._typed[:PIECE])
            del self._typed[:PIECE]
            await self._write(piece)
            await self._send({"type": "websocket.send", "text": msgspec.json.encode(Taken(len(piece))).decode()})
        if self._terminal:
            await self._write(_EOT)
        elif self._input >= 0:
            os.close(self._input)
            self._input = -1

    async def _write(self, data: bytes) -> None:
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await _writable(self._input)
            except OSError:
                # It does not read any more.
                return

    # -- its end ----------------------------------------------------------------------------------

    def _shut(self) -> None:
        for each in {self._input, *self._outputs} - {-1}:
            os.close(each)
        self._input, self._outputs = -1, {}

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        """Nothing stays of its session: not what it put in the background either, which has groups of its own."""
        self._signal(signal.SIGKILL)
        for entry in Path("/proc").glob("[0-9]*"):
            fields = stat(int(entry.name))
            if fields and len(fields) > _SESSION and fields[_SESSION] == str(self._process.pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(int(entry.name), signal.SIGKILL)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _set_size(terminal: int, rows: int, columns: int) -> None:
    """Whoever has it in the foreground is told, by SIGWINCH."""
    size = struct.pack("HHHH", max(0, min(rows, 65535)), max(0, min(columns, 65535)), 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
