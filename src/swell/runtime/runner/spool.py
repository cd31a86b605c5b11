"""Where does what a replica prints go? From its pipe, line by line, into its app's log file.

The pipe is a named FIFO that the replica holds open for reading as well, so a runner that dies does not
break it: nothing the user's code prints fails, and the next runner opens the same FIFO and reads on.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from swell.model.request import BATCH_STREAM
from swell.model.workload import workload_of
from swell.runtime.runner.child_link import held
from swell.wire.loglines import ENDED, LINE_MAX, LogLine, unmark

log = logging.getLogger("swell.runner")

OPEN_MAX = 64
"""Log files that are kept open; another one is opened again when it is written to."""
SAY_S = 60.0
"""At most so often is it told that lines are lost."""
TAIL_LINES = 20
"""Last lines of a replica that are kept, to be told when it crashes: of those printed for
no request, or for one that was not over."""
_CHUNK = 64 * 1024
_encoder = msgspec.json.Encoder()


class Spool:
    """The log files of one server: `{namespace}/{app}.ndjson`, each turned over at `max_bytes`, one older kept.

    No app need be there for its file to be: what it said is kept as long as what is known of its requests.

    A line is written whole or not at all. What cannot be written (a full disk) is counted and, at most once in
    `SAY_S` seconds, told in the runner's own log: it never stops a replica.
    """

    def __init__(self, folder: Path, max_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.lost = 0
        """Lines that could not be written."""
        self._now = now
        self._said = 0
        """Of the lost ones, how many were told."""
        self._say_at = -math.inf
        self._why = ""
        self._files: OrderedDict[str, _File] = OrderedDict()
        """The one written to last is last."""

    def write(self, lines: list[LogLine]) -> None:
        """Append lines of one pool."""
        if not lines:
            return
        namespace, app, _ = workload_of(lines[0].pool).split("/", 2)
        key = f"{namespace}/{app}"
        data = b"".join(_encoder.encode(line) + b"\n" for line in lines)
        try:
            kept, error = self._file(key, len(data)).append(data)
        except OSError as failure:
            kept, error = 0, failure
        if error is not None:
            self._lose(key, data.count(b"\n", kept), error)

    def note(self, pool: str, replica: str, text: str) -> None:
        """A remark of Swell's own about a replica."""
        now = time.time()
        self.write([LogLine(now, pool, replica, "", "sys", line) for line in text.splitlines()])

    def forget(self, before: float) -> None:
        """Remove the files that were last written to before then (seconds since the epoch)."""
        for path in self.folder.glob("*/*.ndjson*"):
            try:
                if path.stat().st_mtime >= before:
                    continue
                self._close(f"{path.parent.name}/{path.name.removesuffix('.1').removesuffix('.ndjson')}")
                path.unlink()
            except OSError as error:
                log.warning("%s cannot be removed: %s", path, error.strerror)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._say()

    def _file(self, key: str, more: int) -> _File:
        """The app's file, with room for `more` bytes: a full one is put aside."""
        path = self.folder / f"{key}.ndjson"
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = _File(path)
        if file.size and file.size + more > self.max_bytes:
            self._close(key)
            path.replace(path.with_name(path.name + ".1"))
            file = self._files[key] = _File(path)
        self._files.move_to_end(key)
        if len(self._files) > OPEN_MAX:
            self._close(next(iter(self._files)))
        return file

    def _close(self, key: str) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            file.close()

    def _lose(self, key: str, lines: int, error: OSError) -> None:
        self.lost += lines
        self._why = f"{key}.ndjson: {error.strerror}"
        if self._now() >= self._say_at:
            self._say_at = self._now() + SAY_S
            self._say()

    def _say(self) -> None:
        if self.lost > self._said:
            more, self._said = self.lost - self._said, self.lost
            log.warning("%d lines that replicas printed are lost (%d in all): %s", more, self.lost, self._why)


class _File:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.size = os.fstat(self._descriptor).st_size

    def append(self, data: bytes) -> tuple[int, OSError | None]:
        """Write whole lines; returns how many bytes of them are kept, and what kept out the rest."""
        written, failure = 0, None
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            # Half a line would spoil the one that follows it.
            written, failure = data.rfind(b"\n", 0, written) + 1, error
            os.ftruncate(self._descriptor, self.size + written)
        self.size += written
        return written, failure

    def close(self) -> None:
        os.close(self._descriptor)


class Lines:
    """Bytes of a pipe into lines; an overlong line is cut, and says by how much."""

    def __init__(self, clean: Callable[[str], str] = str) -> None:
        """`clean` is given what is kept of each line, before what was cut of it is told."""
        self._clean = clean
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""
        self._cut = 0

    def feed(self, data: bytes, final: bool = False) -> list[str]:
        """The lines that `data` completes; with `final` the unfinished last one too."""
        *whole, rest = (self._decoder.decode(data, final)).split("\n")
        lines = []
        for piece in whole:
            self._add(piece)
            lines.append(self._take())
        self._add(rest)
        if final and (self._partial or self._cut):
            lines.append(self._take())
        return lines

    def _add(self, piece: str) -> None:
        room = LINE_MAX - len(self._partial)
        self._partial += piece[:room]
        self._cut += len(piece[room:])

    def _take(self) -> str:
        line = self._clean(self._partial.removesuffix("\r")) + (
            f" … [{self._cut} more characters]" if self._cut else ""
        )
        self._partial, self._cut = "", 0
        return line


class LogPipe:
    """One replica's FIFO, read on the event loop."""

    def __init__(self, path: Path, heard: Callable[[list[tuple[str, str, str]]], None]) -> None:
        """Opens (and makes, unless it is there) the FIFO. `heard` gets (stream, request, text) of new lines."""
        self.path = path
        self._tail: deque[tuple[str, str]] = deque(maxlen=TAIL_LINES)
        """Request and text of its last lines."""
        self._heard = heard
        self.redact: Callable[[str], str] | None = None
        """Takes secrets out of a line's text."""
        self._lines = Lines(self._without_secrets)
        if not path.exists():
            os.mkfifo(path, 0o600)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._reading, self._readable)

    def open_end(self) -> int:
        """The end to give to the replica as its stdout and stderr. Close it once it was given."""
        return os.open(self.path, os.O_RDWR)

    def last_words(self) -> list[str]:
        """What it printed last: for no request, or for one that was not over."""
        return [text for _, text in self._tail]

    def close(self) -> None:
        """Read what is left, hand over the unfinished line, and take the FIFO away.

        Only what is in it by now: what the replica started may be out of reach, hold it, and write on for ever.
        """
        left = held(self._reading)
        while left > 0 and (took := self._readable()):
            left -= took
        self._take(self._lines.feed(b"", final=True))
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        self.path.unlink(missing_ok=True)

    def _readable(self) -> int:
        """Read once; returns how many bytes."""
        try:
            data = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            # No writer: before the replica has its end, or after it closed it. `close` follows the latter.
            asyncio.get_running_loop().remove_reader(self._reading)
            return 0
        self._take(self._lines.feed(data))
        return len(data)

    def _without_secrets(self, line: str) -> str:
        if self.redact is None:
            return line
        begin = line.find("\x1f") + 1 if line.startswith("\x1e") else 0
        return line[:begin] + self.redact(line[begin:])

    def _take(self, lines: list[str]) -> None:
        parts = []
        for line in lines:
            part = stream, request, text = unmark(line)
            if stream == ENDED:
                self._tail = deque((kept for kept in self._tail if kept[0] != request), TAIL_LINES)
            else:
                parts.append(part)
                if stream != BATCH_STREAM:
                    self._tail.append((request, text))
        if parts:
            self._heard(parts)
