"""Which environments and unpacked bundles may go? Those that nothing uses, the longest unused first.

Both are named by their content and can be made again. What goes is first given another name, in one step, so that
nobody ever uses what is half removed; what a killed runner did not get to remove, the next one does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from swell.wire.paths import Home

log = logging.getLogger("swell.runner")

FRESH_S = 3600.0
"""What was made or used within this time stays: it may be of a deploy that is not over."""
_DAY_S = 86400.0
_GONE = ".gone-"


class Item(msgspec.Struct, frozen=True):
    """One environment or unpacked bundle."""

    folder: Path
    size_bytes: int
    used_at: float
    """When it was last seen in use, in seconds since the epoch."""


def surplus(items: Sequence[Item], held: Set[Path], now: float, days: float, max_bytes: float) -> list[Item]:
    """What goes: all that was not used for `days`, then the longest unused until the rest fits into `max_bytes`.

    Never what is `held`, nor what was used within `FRESH_S`.
    """
    left_bytes = sum(item.size_bytes for item in items)
    going = []
    for item in sorted(items, key=lambda item: item.used_at):
        unused_s = now - item.used_at
        if item.folder in held or unused_s < FRESH_S:
            continue
        if unused_s > days * _DAY_S or left_bytes > max_bytes:
            going.append(item)
            left_bytes -= item.size_bytes
    return going


class Cache:
    """The folders `envs/` and `bundles/` of one server."""

    def __init__(self, home: Home, days: float, max_gib: float) -> None:
        self._folders = (home.environments, home.bundles)
        self._days = days
        self._max_bytes = max_gib * 2**30
        self._sizes: dict[Path, int] = {}
        self._collecting = False

    def remains(self) -> list[Path]:
        """What an earlier runner left half made or half removed. To be asked before anything is made."""
        return [path for folder in self._folders for path in _folders_in(folder) if path.name.startswith(".")]

    async def collect(self, held: Callable[[], Iterable[Path]]) -> None:
        """Remove what is surplus. `held()` names what is used or wanted; it is asked when all is measured."""
        if self._collecting:
            return
        self._collecting = True
        try:
            items = await asyncio.to_thread(self._measure)
            # From here to the last rename nothing else happens on the loop: what is not held now stays so.
            going = self._put_aside(items, frozenset(held()))
            await remove(going)
        finally:
            self._collecting = False

    def _measure(self) -> list[Item]:
        items = []
        for folder in (path for parent in self._folders for path in _folders_in(parent)):
            if folder.name.startswith("."):
                continue
            if folder not in self._sizes:
                self._sizes[folder] = _size_bytes(folder)
            try:
                items.append(Item(folder, self._sizes[folder], folder.stat().st_mtime))
            except FileNotFoundError:
                continue
        return items

    def _put_aside(self, items: Sequence[Item], held: Set[Path]) -> list[Path]:
        for folder in held:
            touch(folder)
        aside = []
        for item in surplus(items, held, time.time(), self._days, self._max_bytes):
            gone = item.folder.with_name(_GONE + item.folder.name)
            try:
                os.rename(item.folder, gone)
            except OSError as error:
                log.warning("%s cannot be removed: %s", item.folder, error.strerror)
                continue
            log.info("nothing uses %s any more; it is removed", item.folder)
            self._sizes.pop(item.folder, None)
            aside.append(gone)
        return aside


async def remove(folders: Iterable[Path]) -> None:
    """Take folders away that nobody uses by their names any more."""
    for folder in folders:
        await asyncio.to_thread(erase, folder)


def erase(top: Path) -> None:
    """Take a folder away with all in it, as far as that can be. What is in its folders may be deeper than any path or
    stack, since code that is not to be trusted made it: folders are lifted to the top before they are emptied. Should
    such code live still, no link that it puts in a folder's place is followed."""
    with suppress(OSError), _opened(str(top)) as root:
        waiting = _cleared(root, root)
        while waiting:
            name = waiting.pop()
            with suppress(OSError):
                with _opened(name, root) as folder:
                    waiting += _cleared(folder, root)
                os.rmdir(name, dir_fd=root)
    with suppress(OSError):
        os.rmdir(top)


@contextmanager
def _opened(name: str, within: int | None = None) -> Iterator[int]:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    try:
        yield folder
    finally:
        os.close(folder)


def _cleared(folder: int, root: int) -> list[str]:
    """Remove the files of a folder, and lift the folders in it: under which names those are in `root` now."""
    folders = []
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        with suppress(OSError):
            name = entry.name
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(name, dir_fd=folder)
                continue
            if folder != root:
                name = f".{secrets.token_hex(8)}"
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=root)
            folders.append(name)
    return folders


def touch(folder: Path) -> None:
    """It is used now."""
    try:
        os.utime(folder)
    except OSError:
        return  # Not made yet, or on a disk that is read-only: then nothing can be removed from it either.


def _folders_in(parent: Path) -> Iterator[Path]:
    return (path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else iter(())


def _size_bytes(folder: Path) -> int:
    """What it takes on disk."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
