"""Which of an app's source changed? It is looked at again and again: that works on every disk, and needs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from swell.sdk import bundle
from swell.sdk import image as images
from swell.sdk.disk import LocalPath, files
from swell.sdk.run import Deployable, file_of

LOOK_S = 0.15
"""Pause between two looks."""
SHARE_MAX = 0.1
"""Of the time that looking may take: where there are very many files, pauses are longer."""
SETTLE_S = 0.05
SETTLES_MAX = 20
"""What is being written is waited for, so often at most: editors and checkouts write in several steps."""

Stamps = Mapping[Path, tuple[int, int, int]]
"""File → what changes with its contents: time, size, and which file it is (it may be replaced by another)."""


def sources(app: Deployable) -> list[LocalPath]:
    """All that its deploy reads of the disk."""
    found: list[LocalPath] = []
    for declared in app.declared.values():
        image = images.read(declared.image or images.Image())
        found += [bundle.source(file_of(declared.raw)).local, *image.attached]
        for given in image.given:
            listed = [Path(path).absolute() for path in given.values.get("requirements") or ()]
            found += [LocalPath(path, PurePosixPath(path.name)) for path in listed]
    return list(dict.fromkeys(found))


def stamps(entries: Sequence[LocalPath]) -> Stamps:
    """All files that are there now. What goes away while it is looked at is not."""
    found = {}
    for entry in entries:
        with suppress(OSError):
            for _, path in files(entry):
                with suppress(OSError):
                    seen = path.stat()
                    found[path] = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
    return found


def different(before: Stamps, after: Stamps) -> list[Path]:
    """Files that are new, gone or not the same."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def changes(
    look: Callable[[], Stamps], before: Stamps, wanted: Callable[[], bool], sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[Path]]:
    """What changed, each time that something did, for as long as it is `wanted`."""
    seen = before
    while wanted():
        begun = time.monotonic()
        now = look()
        took = time.monotonic() - begun
        if now != seen:
            now = _settled(look, now, sleep)
            if paths := different(seen, now):
                yield paths
            seen = now
        sleep(max(LOOK_S, took * (1 / SHARE_MAX - 1)))


def _settled(look: Callable[[], Stamps], now: Stamps, sleep: Callable[[float], None]) -> Stamps:
    for _ in range(SETTLES_MAX):
        sleep(SETTLE_S)
        again = look()
        if again == now:
            break
        now = again
    return now
