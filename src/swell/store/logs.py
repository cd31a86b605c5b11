"""What did an app print? Reads the log files the runner writes: `{folder}/{namespace}/{app}.ndjson`.

One JSON object a line, in the order of their times; one older file (`.ndjson.1`) is kept when a
file is turned over. Files are read in blocks off the event loop, from the end when only the last
lines are wanted.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import ExitStack
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from swell.model.errors import SwellError
from swell.model.request import BATCH_STREAM
from swell.store import faults

POLL_S = 0.1
"""How often files that are followed are looked at."""
BLOCK = 64 * 1024
"""Bytes of one read."""
STEP = 4 * 1024 * 1024
"""Bytes of one file that one look takes at most; more than any line has."""
BATCH = 500
"""Lines handed to the event loop at a time."""


class Line(NamedTuple):
    """A line as it stands in the file, and its time."""

    at: float
    raw: bytes


class Wanted:
    """Which lines are asked for."""

    def __init__(self, since: float, request: str) -> None:
        self.since = since
        self.request = request
        self.ids = {request}
        """It, and the batches that it was worked on in: as far as was read."""

    def concerns(self, raw: bytes) -> bool:
        """May a line be of the request? Asked before it is decoded."""
        return any(id.encode() in raw for id in self.ids)


class Place(NamedTuple):
    """Up to where a log was read: a file (by inode; it may have been turned over since) and an offset in it."""

    inode: int
    offset: int


START = Place(0, 0)


class _Head(msgspec.Struct, frozen=True):
    at: float
    request: str = ""
    stream: str = ""


class _Members(msgspec.Struct, frozen=True):
    text: str


_members = msgspec.json.Decoder(_Members)
_head = msgspec.json.Decoder(_Head)


async def lines(
    folder: Path,
    namespace: str,
    app: str,
    *,
    since: float = 0,
    request: str = "",
    tail: int | None = 100,
    follow: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Lines of one app, or (app "") of all apps of the namespace in the order of their times.

    `since` is seconds since the epoch; `request` keeps one request's lines; `tail` only the last so
    many (None = all). With `follow` it goes on, over turned-over files and new apps, until closed; an empty
    line stands where what was written before ends. A line is yielded without its newline; one that is not
    whole, or no JSON, is not.
    """
    for name in (namespace, app):
        if "/" in name or name.startswith("."):
            raise SwellError("bad_name", f"{name!r} is no name of a namespace or app.")
    wanted = Wanted(since, request)
    places: dict[Path, Place] = {}
    with ExitStack() as files:
        found = await asyncio.to_thread(_past, _logs(folder, namespace, app), wanted, tail, places, files)
        while batch := await asyncio.to_thread(lambda: list(islice(found, BATCH))):
            for line in batch:
                yield line.raw
    if follow:
        yield b""
    while follow:
        fresh = await asyncio.to_thread(lambda: _fresh(_logs(folder, namespace, app), wanted, places))
        for line in fresh:
            yield line.raw
        if not fresh:
            await asyncio.sleep(POLL_S)


def _logs(folder: Path, namespace: str, app: str) -> list[Path]:
    """The present log files asked for, whether they exist or not."""
    if app:
        return [folder / namespace / f"{app}.ndjson"]
    return sorted((folder / namespace).glob("*.ndjson"))


# -- what was written before --------------------------------------------------------------------


def _past(
    logs: list[Path], wanted: Wanted, tail: int | None, places: dict[Path, Place], files: ExitStack
) -> Iterator[Line]:
    """Lines there are, in order. Notes in `places` where each log ended; leaves open files to `files`."""
    if tail is None or wanted.request:
        # Who is in a batch stands in front of its lines: those of a request are found on the way forward alone.
        found = merge(*[_all(log, wanted, places, files) for log in logs], key=lambda line: line.at)
        return found if tail is None else iter(deque(found, maxlen=tail))
    newest: deque[Line] = deque(maxlen=tail)
    ends = [_last(log, wanted, tail, places) for log in logs]
    newest.extend(merge(*ends, key=lambda line: line.at))
    return iter(newest)


def _all(log: Path, wanted: Wanted, places: dict[Path, Place], files: ExitStack) -> Iterator[Line]:
    """Every line of one log, oldest first. The files are opened now, the lines read later."""
    parts = [(files.enter_context(file), end) for file, end in _open(log, places)]
    return _chosen((raw for file, end in parts for raw in _forward(file, 0, end)), wanted)


def _last(log: Path, wanted: Wanted, most: int, places: dict[Path, Place]) -> list[Line]:
    """The last lines of one log, oldest first, read from its end."""
    with ExitStack() as files:
        parts = [(files.enter_context(file), end) for file, end in _open(log, places)]
        backward = (raw for file, end in reversed(parts) for raw in _backward(file, end))
        newest = list(islice(_chosen(backward, wanted, newest_first=True), most))
    return newest[::-1]


def _open(log: Path, places: dict[Path, Place]) -> list[tuple[BinaryIO, int]]:
    """The older and the present file, each with the end of its last whole line."""
    found: list[tuple[BinaryIO, int]] = []
    present = _file(log)
    older = _file(_older(log))
    if older is not None and present is not None and os.path.sameopenfile(older.fileno(), present.fileno()):
        # Turned over between the two: what we hold as the present file is the older one by now.
        older.close()
        older = None
    for file in (older, present):
        if file is not None:
            found.append((file, _end(file, 0, os.fstat(file.fileno()).st_size)))
            places[log] = Place(os.fstat(file.fileno()).st_ino, found[-1][1])
    return found


# -- what is written from now on ----------------------------------------------------------------


def _fresh(logs: list[Path], wanted: Wanted, places: dict[Path, Place]) -> list[Line]:
    """Whole lines added since the last look, in the order of their times."""
    fresh: list[Line] = []
    for log in logs:
        raws, places[log] = _advance(log, places.get(log, START))
        fresh.extend(_chosen(raws, wanted))
    return sorted(fresh, key=lambda line: line.at)


def _advance(log: Path, place: Place) -> tuple[list[bytes], Place]:
    """What was added after `place`: first the rest of a file that was turned over, then the present one."""
    present = _file(log)
    if present is None:
        return [], place
    with present:
        inode = os.fstat(present.fileno()).st_ino
        if inode == place.inode or place == START:
            return _take(present, place.offset)
        older = _file(_older(log))
        if older is not None:
            with older:
                same = os.fstat(older.fileno()).st_ino == place.inode
                raws, rest = _take(older, place.offset if same else 0)
                if raws:
                    return raws, rest
        return _take(present, 0)


def _take(file: BinaryIO, offset: int) -> tuple[list[bytes], Place]:
    """Whole lines from `offset` on, one step at most, and where they end."""
    stat = os.fstat(file.fileno())
    if stat.st_size < offset:
        offset = 0
    end = _end(file, offset, min(stat.st_size, offset + STEP))
    return list(_forward(file, offset, end)), Place(stat.st_ino, end)


# -- bytes and lines ----------------------------------------------------------------------------


def _chosen(raws: Iterable[bytes], wanted: Wanted, newest_first: bool = False) -> Iterator[Line]:
    """The lines that are wanted. Newest first, the first one that is too old ends it."""
    for raw in raws:
        if not wanted.concerns(raw):
            continue
        try:
            head = _head.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if head.stream == BATCH_STREAM:
            if wanted.request in _members.decode(raw).text.split():
                wanted.ids.add(head.request)
        elif head.at < wanted.since:
            if newest_first:
                return
        elif not wanted.request or head.request in wanted.ids:
            yield Line(head.at, raw)


def _forward(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """Lines between two offsets that are both at the start of a line."""
    rest = b""
    while start < end:
        file.seek(start)
        block = file.read(min(BLOCK, end - start))
        if not block:
            return
        start += len(block)
        *whole, rest = (rest + block).split(b"\n")
        yield from whole


def _backward(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Lines before an offset that is at the start of a line, the last one first."""
    rest = b""
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        first, *whole = (file.read(end - start) + rest).split(b"\n")
        yield from reversed(whole)
        rest, end = first, start
    yield rest


def _end(file: BinaryIO, start: int, stop: int) -> int:
    """Where the last whole line between two offsets ends; `start` if there is none."""
    while stop > start:
        before = max(start, stop - BLOCK)
        file.seek(before)
        newline = file.read(stop - before).rfind(b"\n")
        if newline >= 0:
            return before + newline + 1
        stop = before
    return start


def _older(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def _file(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise faults.of_file(path, error) from error
