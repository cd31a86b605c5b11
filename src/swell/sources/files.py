"""Which files of a folder are whole, and were not delivered yet?

What counts is the time of a file's last change of any kind (ctime): the file system sets it also when a file is moved
into the folder, where the time of its content says when it was written, elsewhere. Files are delivered by that time and
then by path, so how far that went is a watermark of two values. A file that is not whole yet holds back those that
changed after it, not for long: with each write it becomes the newest. A folder that is moved here as a whole leaves the
times of its files as they were: while this runs it is known which folders are new, and all their files are delivered.
Of one that came while nothing ran, those files are missed that are older than the newest that was delivered.

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
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from watchfiles import watch

from swell.model.source import Files, Message, folder_pattern, path_pattern
from swell.sources.threads import OwnThread

log = logging.getLogger("swell.sources")

KNOWN_MAX = 10_000
"""Files that one look brings, the first of all."""
ANSWER_S = 30.0
"""For the file system to say what is in the folder itself, or how a few files are."""
LOOK_S = 600.0
"""For it to be looked through."""
PARTING_S = 1.0
"""What tells of changes is given so long to end."""


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


class Looked(NamedTuple):
    """What there was when it was looked through."""

    files: list[Found]
    """The first ones to deliver, in order."""
    folders: dict[str, tuple[int, int]]
    """Device and inode of each, by its path."""
    late: set[str]
    """Paths of files to deliver though they are not behind the mark: they are in folders that are new here."""
    unread: set[str]
    """Folders that may not be read."""


class FileSource:
    """The port, for a folder."""

    def __init__(self, config: Files) -> None:
        self._config = config
        self._asking = OwnThread("swell-files")
        self._watching = OwnThread("swell-watch")
        self._seen = Seen()

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[_Folder]:
        """See the port."""
        folder = _Folder(self._config, after, self._asking, self._seen)
        await self._asking.run(partial(os.listdir, self._config.folder), ANSWER_S)
        moved = partial(asyncio.get_running_loop().call_soon_threadsafe, folder.moved.set)
        # To begin it goes through the whole folder; where that hangs, it does so for nobody else.
        watching = asyncio.create_task(self._watching.run(partial(_watch, self._config, moved, folder.closed)))
        try:
            yield folder
        finally:
            folder.closed.set()
            await asyncio.wait([watching], timeout=PARTING_S)
            watching.cancel()
            await asyncio.wait([watching])


class Seen:
    """What is known of a folder, whatever connection found it."""

    def __init__(self) -> None:
        self.folders: dict[str, tuple[int, int]] | None = None
        """As of `Looked`; None: it was never looked through."""
        self.late: set[str] = set()
        self.unread: set[str] = set()


def _watch(config: Files, moved: Callable[[], object], closed: threading.Event) -> None:
    """In a thread: tell of each change. Where nothing tells of changes the folder is still looked through."""
    try:
        # It also says when a second has passed, and so that it has begun: what came before that is looked for once.
        begun = False
        changed = watch(
            config.folder,
            watch_filter=None,
            debounce=200,
            rust_timeout=1000,
            yield_on_timeout=True,
            stop_event=closed,
            raise_interrupt=False,
            recursive=any("/" in each or each == "**" for each in config.patterns),
            ignore_permission_denied=True,
        )
        for changes in changed:
            if begun and not changes:
                continue
            begun = True
            moved()
    except Exception as error:
        if not closed.is_set():
            log.warning("changes in %s are found every %g s only: %s", config.folder, config.rescan_s, error)


class _Folder:
    """What was seen of it."""

    hold_s = None

    def __init__(self, config: Files, after: str, asking: OwnThread, seen: Seen) -> None:
        self._config = config
        self._root = Path(config.folder)
        self._patterns = [path_pattern(each) for each in config.patterns]
        self._folders = [folder_pattern(each) for each in config.patterns]
        self._after = msgspec.json.decode(after, type=Mark) if after else Mark(-1, "")
        self._asking = asking
        self._seen = seen
        self._since: dict[Found, float] = {}
        """Since when each was seen as it is."""
        self._whole: deque[Found] = deque()
        """To be delivered next."""
        self._due = 0
        """Files to be delivered that were seen, these among them."""
        self.moved = asyncio.Event()
        self.closed = threading.Event()

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        wait_s = 0.0
        if not self._whole:
            self.moved.clear()
            wait_s = await self._find()
        if self._whole:
            some = [self._whole.popleft() for _ in range(min(most, len(self._whole)))]
            self._due -= len(some)
            return await self._messages(some)
        settling = bool(self._since)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                # While one settles, what changes besides can wait as long.
                await (asyncio.sleep(wait_s) if settling else self.moved.wait())
        return []

    async def waiting(self) -> int | None:
        """See the port: as it was seen last, up to `KNOWN_MAX`."""
        return self._due

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port: the watermark is all there is to remember."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port: nobody else gets them."""

    # -- what is there -----------------------------------------------------------------------

    async def _find(self) -> float:
        """Look for files that are whole; returns after how long to look again where none is."""
        looked = await self._asking.run(self._look, LOOK_S)
        for folder in sorted(looked.unread - self._seen.unread):
            log.warning("%s of %s is not looked through: it may not be read", _shown(folder), self._config.folder)
        self._seen.folders, self._seen.late, self._seen.unread = looked.folders, looked.late, looked.unread
        now = time.monotonic()
        self._since = {each: self._since.get(each, now) for each in looked.files}
        self._due = len(looked.files)
        for each in looked.files:
            left_s = self._since[each] + self._config.settle_s - now
            if left_s > 0:
                return min(self._config.rescan_s, left_s)
            self._whole.append(each)
        return self._config.rescan_s

    def _look(self) -> Looked:
        """In a thread."""
        looked = Looked([], {}, set(), set())
        root = os.stat(self._root)
        found = self._walk("", (root.st_dev, root.st_ino), looked)
        looked.files.extend(heapq.nsmallest(KNOWN_MAX, found))
        return looked

    def _walk(self, below: str, identity: tuple[int, int], looked: Looked) -> Iterator[Found]:
        """What is to be delivered of a folder, whose path ends in a slash, and of those in it."""
        if self.closed.is_set():
            # Nobody waits for it any more.
            raise ConnectionError("closed")
        try:
            with os.scandir(self._root / below) as entries:
                listed = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            if not below:
                raise
            # It went while we looked.
            return
        except PermissionError:
            if not below:
                raise
            looked.unread.add(below)
            return
        looked.folders[below] = identity
        new = self._seen.folders is not None and self._seen.folders.get(below) != identity
        for entry in listed:
            path = below + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if any(pattern.fullmatch(f"{path}/") for pattern in self._folders):
                        seen = entry.stat(follow_symlinks=False)
                        yield from self._walk(f"{path}/", (seen.st_dev, seen.st_ino), looked)
                elif any(pattern.fullmatch(path) for pattern in self._patterns):
                    found = _found(path, entry.stat(follow_symlinks=False))
                    if found is not None and self._is_due(found.mark, new, looked):
                        yield found
            except FileNotFoundError:
                continue
            except PermissionError:
                # Its names may be read, and nothing about them.
                if not below:
                    raise
                looked.unread.add(below)
                looked.folders.pop(below, None)

    def _is_due(self, mark: Mark, new: bool, looked: Looked) -> bool:
        """Is it to be delivered? `new`: its folder is."""
        if mark > self._after:
            return True
        if new or mark.path in self._seen.late:
            looked.late.add(mark.path)
            return True
        return False

    # -- what is delivered -------------------------------------------------------------------

    async def _messages(self, some: Sequence[Found]) -> list[Message]:
        """Of files that were whole when they were seen, those that are as they were then. The others are found anew:
        behind these, or should one be as it was once more, though it is not."""
        unchanged = await self._asking.run(lambda: [each for each in some if self._is_still(each)], ANSWER_S)
        self._seen.late.update(each.mark.path for each in some)
        messages = []
        for each in unchanged:
            # Of one that is late it goes no way back.
            self._after = max(self._after, each.mark)
            messages.append(self._message(each, self._after))
            self._seen.late.discard(each.mark.path)
        return messages

    def _is_still(self, found: Found) -> bool:
        """In a thread."""
        try:
            return _found(os.fsdecode(_bytes(found.mark.path)), os.lstat(self._path(found))) == found
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False

    def _path(self, found: Found) -> Path:
        return self._root / os.fsdecode(_bytes(found.mark.path))

    def _message(self, found: Found, after: Mark) -> Message:
        path = self._path(found)
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
            watermark=msgspec.json.encode(after).decode(),
        )


def _found(path: str, seen: os.stat_result) -> Found | None:
    """None: it is no file."""
    if not stat.S_ISREG(seen.st_mode):
        return None
    return Found(Mark(seen.st_ctime_ns, _shown(path)), seen.st_mtime_ns, seen.st_size, seen.st_ino)


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
