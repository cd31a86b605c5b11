"""Which files of a folder are whole, and were not delivered yet?

What counts is the time of a file's last change of any kind (ctime): the file system sets it also when a file is moved
into the folder, where the time of its content says when it was written, elsewhere. Files are delivered by that time and
then by path, so how far that went is a watermark of two values. A file that is not whole yet holds back those that
changed after it, not for long: with each write it becomes the newest.

The folder is looked through at the start and every so often; what tells of changes (watchfiles) only makes that sooner.
It may miss some, as file systems do over a network, and gives up at a name that is no UTF-8. Not found is what changed,
by a clock that was set back since, before the newest that was delivered. A file whose owner or mode changes is
delivered again, with the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from watchfiles import awatch

from swell.model.source import Files, Message, path_pattern

log = logging.getLogger("swell.sources")

KNOWN_MAX = 10_000
"""Files that one look brings, the first of all."""


class Mark(NamedTuple):
    """How far it went: the order that files are delivered in."""

    changed_ns: int
    path: str


class Found(NamedTuple):
    """A file as it was seen."""

    mark: Mark
    written_ns: int
    size: int
    inode: int


class FileSource:
    """The port, for a folder."""

    def __init__(self, config: Files) -> None:
        self._config = config

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[_Folder]:
        """See the port."""
        folder = _Folder(self._config, after)
        await asyncio.to_thread(os.listdir, self._config.folder)
        watching = asyncio.create_task(self._watch(folder.moved))
        try:
            yield folder
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self, moved: asyncio.Event) -> None:
        """Set the event at each change. Where nothing tells of changes the folder is still looked through."""
        try:
            # It also says when a second has passed, and so that it has begun: what came before that is looked for once.
            begun = False
            watch = awatch(
                self._config.folder, watch_filter=None, debounce=200, rust_timeout=1000, yield_on_timeout=True
            )
            async for changes in watch:
                if begun and not changes:
                    continue
                begun = True
                moved.set()
        except Exception as error:
            log.warning(
                "changes in %s are found every %g s only: %s", self._config.folder, self._config.rescan_s, error
            )


class _Folder:
    """What was seen of it."""

    hold_s = None

    def __init__(self, config: Files, after: str) -> None:
        self._config = config
        self._root = Path(config.folder)
        self._patterns = [path_pattern(each) for each in config.patterns]
        self._after = msgspec.json.decode(after, type=Mark) if after else Mark(-1, "")
        self._since: dict[Found, float] = {}
        """Since when each was seen as it is."""
        self.moved = asyncio.Event()

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        self.moved.clear()
        found = await asyncio.to_thread(self._look)
        now = time.monotonic()
        self._since = {each: self._since.get(each, now) for each in found}
        whole: list[Found] = []
        wait_s = self._config.rescan_s
        for each in found[:most]:
            left_s = self._since[each] + self._config.settle_s - now
            if left_s > 0:
                wait_s = min(wait_s, left_s)
                break
            whole.append(each)
        if whole:
            self._after = whole[-1].mark
            return [self._message(each) for each in whole]
        settling = bool(found)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                # While one settles, what changes besides can wait as long.
                await (asyncio.sleep(wait_s) if settling else self.moved.wait())
        return []

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port: the watermark is all there is to remember."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port: nobody else gets them."""

    def _look(self) -> list[Found]:
        """The first files after the mark, in order. Runs in a thread."""
        return heapq.nsmallest(KNOWN_MAX, (each for each in self._walk("") if each.mark > self._after))

    def _walk(self, below: str) -> Iterator[Found]:
        try:
            with os.scandir(self._root / below) as entries:
                listed = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            if not below:
                raise
            # It went while we looked.
            return
        for entry in listed:
            path = below + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(f"{path}/")
                elif any(pattern.fullmatch(path) for pattern in self._patterns):
                    seen = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(seen.st_mode):
                        mark = Mark(seen.st_ctime_ns, _shown(path))
                        yield Found(mark, seen.st_mtime_ns, seen.st_size, seen.st_ino)
            except FileNotFoundError:
                continue

    def _message(self, found: Found) -> Message:
        path = self._root / os.fsdecode(_bytes(found.mark.path))
        named = hashlib.sha256(found.mark.path.encode()).hexdigest()[:32]
        body = {
            "path": str(path).encode("utf-8", "backslashreplace").decode(),
            "uri": path.as_uri(),
            "size": found.size,
            "modified_at": found.written_ns / 1e9,
        }
        return Message(
            id=f"{named}-{found.written_ns}-{found.size}",
            body=msgspec.json.encode(body),
            content_type="application/json",
            at=found.mark.changed_ns / 1e9,
            subject=found.mark.path,
            watermark=msgspec.json.encode(found.mark).decode(),
        )


def _shown(path: str) -> str:
    """A name may be any bytes: those that are no text are escaped, and so is what would look like that."""
    return path.replace("\\", "\\\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _bytes(shown: str) -> bytes:
    """The name that is shown so."""
    made = bytearray()
    i = 0
    while i < len(shown):
        if shown[i] != "\\":
            made += shown[i].encode()
            i += 1
        elif shown[i + 1] == "\\":
            made += b"\\"
            i += 2
        else:
            made.append(int(shown[i + 2 : i + 4], 16))
            i += 4
    return bytes(made)
