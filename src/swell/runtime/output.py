"""How does a printed line find its request? stdout and stderr become writers that mark every line.

A line is written to the pipe as a whole, so that lines of several threads and tasks never mix. What has
no newline yet is kept apart per thread and input, and is written when the input ends.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Sequence

# Kept by name: user code may put others in their place (gevent), which hand over to other code while a line is written.
from select import PIPE_BUF, POLLOUT, poll
from threading import RLock
from typing import Any

from swell.wire.context import current
from swell.wire.loglines import LINE_MAX, mark, mark_batch, mark_end

FULL_S = 5.0
"""A pipe that is full for so long is not read."""
LOST = "[what was printed here is lost: nobody read the log]"
SPEAKING_MAX = 1000
"""Inputs remembered to have printed something. Those that go on to print after their end are never taken off."""


class Outlet:
    """The pipe to the log, which both streams of a process lead to: one writes at a time, and none waits for ever."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a fork: a thread that wrote is not there."""
        # A signal's handler, or what the garbage collection finds, may print while its own thread does. Its lines go
        # between two pieces then.
        self._lock = RLock()
        self._unread = False
        """The pipe was full when it was written to last."""
        self._half = False
        """What was written last may be half a line, which would spoil the one that follows it."""
        self._owed = ""
        """What is written before anything else: that lines were lost."""

    def put(self, descriptor: int, lines: str, lost: str) -> None:
        """Write lines; where they do not fit, one of them says `lost` before the next that do."""
        with self._lock:
            try:
                data = ("\n" * self._half + self._owed + lines).encode("utf-8", "backslashreplace")
                self._owed = ""
                at = 0
                while at < len(data) and self._has_room(descriptor):
                    end = _piece_end(data, at)
                    self._half = True
                    at += os.write(descriptor, data[at:end])
                    self._half = not data.endswith(b"\n", 0, at)
                if at < len(data):
                    self._owed = lost
            except OSError:
                return  # Whoever read our log is gone: losing lines must not break user code.
            except BaseException:
                # Of an input that is cut off while it prints, or of a signal's handler.
                self._owed = lost
                raise

    def _has_room(self, descriptor: int) -> bool:
        """Can the pipe take a piece? It is open for reading here, too, so that writing to a full one that nobody reads
        would wait for ever: its lines are lost, after a moment of waiting, and without one until it is read again."""
        asked = poll()
        asked.register(descriptor, POLLOUT)
        found = asked.poll(0 if self._unread else FULL_S * 1000)
        self._unread = not found
        return bool(found)


class MarkedText(io.TextIOBase):
    """A text stream on a descriptor, whose lines carry the request they were printed for."""

    def __init__(self, stream: str, descriptor: int, outlet: Outlet | None = None) -> None:
        """`outlet`: of the other stream that leads there as well."""
        self._stream = stream
        self._descriptor = descriptor
        self._outlet = outlet or Outlet()
        self.buffer = MarkedBytes(self)
        self.forget()

    def forget(self) -> None:
        """In a fork: what others were printing is theirs, and a thread that held the lock is not there."""
        self._outlet.forget()
        self._lock = threading.Lock()
        self._partial: dict[tuple[int, str], str] = {}
        self._speaking: dict[str, None] = {}
        """Inputs that printed something, oldest first."""
        self._batches: dict[str, Sequence[str]] = {}
        """Requests of batches that are worked on: told once one of those prints something."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        now = current.get()
        request = now.logged if now is not None else ""
        key = (threading.get_ident(), request)
        held = self._partial.pop(key, "") + text
        *lines, rest = held.split("\n")
        if len(rest) > LINE_MAX:
            lines.append(rest)
        elif rest:
            self._partial[key] = rest
        if lines:
            head = self._spoken(request)
            self._put(head + "".join([mark(self._stream, request, line) + "\n" for line in lines]))
        return len(text)

    def begin_batch(self, id: str, requests: Sequence[str]) -> None:
        """What is printed for `id` until that ends is of all these requests."""
        self._batches[id] = requests

    def _spoken(self, request: str) -> str:
        """Lines to go in front of the first that is printed for a batch: who is in it."""
        if not request or request in self._speaking:
            return ""
        with self._lock:
            self._speaking[request] = None
            if len(self._speaking) > SPEAKING_MAX:
                del self._speaking[next(iter(self._speaking))]
        members = self._batches.get(request, ())
        return "".join([line + "\n" for line in mark_batch(request, members)]) if members else ""

    def end_input(self, request: str) -> None:
        """Write what an input printed without a newline, and, if it printed anything, that it has ended."""
        if not (self._partial or self._speaking):
            self._batches.pop(request, None)
            return
        rests = [self._partial.pop(key, "") for key in list(self._partial) if key[1] == request]
        lines = [mark(self._stream, request, rest) for rest in rests if rest]
        head = self._spoken(request) if lines else ""
        if request and (request in self._speaking or lines):
            with self._lock:
                self._speaking.pop(request, None)
            lines.append(mark_end(request))
        if lines:
            self._put(head + "\n".join(lines) + "\n")
        self._batches.pop(request, None)

    def end(self) -> None:
        """Write every partial line: the process ends."""
        for _, request in list(self._partial):
            self.end_input(request)

    def _put(self, lines: str) -> None:
        self._outlet.put(self._descriptor, lines, mark(self._stream, "", LOST) + "\n")

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Whole lines are already written; a partial one waits for its end."""

    def reconfigure(self, **_options: Any) -> None:
        """Takes what programs ask of a terminal or file; lines and UTF-8 are what there is."""

    def close(self) -> None:
        """Stays open: user code that closes sys.stdout must not lose the lines of others."""

    @property
    def name(self) -> str:
        return "<stdout>" if self._stream == "o" else "<stderr>"


def _piece_end(data: bytes, at: int) -> int:
    """Where a piece ends that begins there and is written whole to a pipe that has room: behind a line, where one ends
    in it."""
    end = min(len(data), at + PIPE_BUF)
    return data.rfind(b"\n", at, end) + 1 or end


class MarkedBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes that are lines of text like any other."""

    def __init__(self, text: MarkedText) -> None:
        self._text = text

    def write(self, data: Any, /) -> int:
        view = bytes(data)
        self._text.write(view.decode("utf-8", "backslashreplace"))
        return len(view)

    def fileno(self) -> int:
        return self._text.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stays open, as the text stream does."""


_installed: list[tuple[MarkedText, MarkedText]] = []


def install() -> tuple[MarkedText, MarkedText]:
    """Replace sys.stdout and sys.stderr, also in log handlers that already hold the old ones.

    In a process where that was done before, and in its forks, by the same two.
    """
    if not _installed:
        outlet = Outlet()
        _installed.append((MarkedText("o", 1, outlet), MarkedText("e", 2, outlet)))
        for stream in _installed[0]:
            os.register_at_fork(after_in_child=stream.forget)
    out, err = _installed[0]
    successor: dict[int, MarkedText] = {}
    for before, after in ((sys.__stdout__, out), (sys.__stderr__, err), (sys.stdout, out), (sys.stderr, err)):
        if before is not None:
            before.flush()
            successor[id(before)] = after
    sys.stdout, sys.stderr = out, err
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in successor:
            handler.setStream(successor[id(handler.stream)])
    return out, err
