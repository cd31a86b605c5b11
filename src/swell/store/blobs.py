"""Where are the bytes that have this digest? In a folder of files named by the digest of their content."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from swell.model.errors import SwellError
from swell.store import faults

BLOB_MAX = 4 * 1024**3
"""Bytes one blob may have."""
BLOCK = 4096
"""A file takes its bytes, rounded up to so many."""
PIECE = 1024 * 1024
"""Bytes gathered before they are hashed and written."""

_DIGEST = re.compile(r"sha256-[0-9a-f]{64}\Z")
_UNFINISHED = ".put-"
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""Why a file cannot have a second name."""


def check_digest(digest: str) -> None:
    """Refuse what is not "sha256-" and 64 hex digits, and so any path in its place."""
    if not _DIGEST.match(digest):
        raise SwellError(
            "bad_digest", f"{digest[:80]!r} is no digest: it must be sha256- and 64 lower-case hex digits."
        )


class BlobFolder:
    """The `Blobs` port over a directory. Memory stays bounded whatever the size of a blob."""

    def __init__(self, folder: Path, most: int = BLOB_MAX, all_max: float = math.inf, mode: int = 0o600) -> None:
        """`most`: bytes that one may have; `all_max`: those of all together, what is on its way included.
        `mode`: of its files."""
        self.folder = folder
        self.most = most
        self.all_max = all_max
        self.mode = mode
        self.moving = threading.Lock()
        """A blob comes, is asked for, or goes: one at a time."""
        self.coming = 0
        """Bytes that are on their way; written while `moving` is held."""
        with faults.as_swell_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in folder.glob(f"{_UNFINISHED}*"):
                left.unlink()
            self._kept = self._sum()
            """Bytes of those that are there."""

    @property
    def size(self) -> int:
        """What all together take, with those that are on their way; known where that is bounded."""
        return self._kept + self.coming

    def has(self, digest: str) -> bool:
        """Is it there, whole? Who asks is about to need it, which its file's time remembers."""
        path = self.path(digest)
        with self.moving:
            if not os.path.exists(path):
                return False
            # Where times cannot be written, nothing can be removed either.
            with suppress(OSError):
                os.utime(path)
            return True

    def path(self, digest: str) -> str:
        """The file that holds it, or would."""
        check_digest(digest)
        return str(self.folder / digest)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a stream. It shows only once it is whole, has that digest, and is on disk."""
        target = self.path(digest)
        with faults.as_swell_errors(self.folder):
            descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self.folder)
        room = Room(self)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                found = await self._copy(chunks, file, room)
                if found != digest:
                    raise SwellError(
                        "wrong_digest", f"The content sent as {digest} has the digest {found}: send it again."
                    )
                await asyncio.to_thread(self._settle, file, name, target, room)
        finally:
            room.leave()
            with suppress(FileNotFoundError):
                os.unlink(name)

    @property
    def full(self) -> bool:
        """All together take what they may."""
        return self.size >= self.all_max

    def take(self, digest: str, path: str) -> None:
        """Have what is in a file of ours that nobody writes to any more, however full it is; the file stays. Both that
        and the name are on disk before it returns. SwellError wrong_digest."""
        target = self.path(digest)
        with faults.as_swell_errors(self.folder):
            if not self.has(digest):
                with open(path, "rb") as file:
                    found = f"sha256-{hashlib.file_digest(file, 'sha256').hexdigest()}"
                    if found != digest:
                        raise SwellError("wrong_digest", f"What was to have the digest {digest} has {found}.")
                    os.fsync(file.fileno())
                    size = file.tell()
                with self.moving:
                    _link(path, target)
                    os.utime(target)
                    self._kept += taken(size)
            sync_folder(self.folder)

    def sweep(self, needed: Collection[str], before: float) -> int:
        """Remove those that are not `needed` and were neither put nor asked for since `before`; returns how many."""
        removed = 0
        with faults.as_swell_errors(self.folder):
            for name in os.listdir(self.folder):
                if _DIGEST.match(name) and name not in needed:
                    removed += self._remove(self.folder / name, before)
            with self.moving:
                self._kept = self._sum()
        return removed

    def _remove(self, path: Path, before: float) -> bool:
        with self.moving:
            old = path.stat().st_mtime < before
            if old:
                path.unlink()
            return old

    def _sum(self) -> int:
        """Bytes of all that are there. Where they are not bounded nobody asks, and there may be very many."""
        if self.all_max == math.inf:
            return 0
        with os.scandir(self.folder) as found:
            return sum(taken(each.stat().st_size) for each in found if _DIGEST.match(each.name))

    async def _copy(self, chunks: AsyncIterator[bytes], file: BinaryIO, room: Room) -> str:
        """Write a stream to a file; returns its digest."""
        digest = hashlib.sha256()
        total = 0
        piece = bytearray()
        async for chunk in chunks:
            total += len(chunk)
            if total > self.most:
                raise SwellError("blob_too_large", f"A blob may have {self.most} bytes; this one has more.", status=413)
            room.take(total)
            piece += chunk
            if len(piece) >= PIECE:
                await asyncio.to_thread(self._write, file, piece, digest)
                piece = bytearray()
        await asyncio.to_thread(self._write, file, piece, digest)
        return f"sha256-{digest.hexdigest()}"

    def _write(self, file: BinaryIO, piece: bytearray, digest: hashlib._Hash) -> None:
        digest.update(piece)
        rest = memoryview(piece)
        with faults.as_swell_errors(self.folder):
            while rest:
                rest = rest[file.write(rest) :]

    def _settle(self, file: BinaryIO, name: str, target: str, room: Room) -> None:
        """Give a whole file its name, so that both last."""
        with faults.as_swell_errors(self.folder):
            os.fchmod(file.fileno(), self.mode)
            os.fsync(file.fileno())
            os.utime(file.fileno())
            with self.moving:
                before = taken(os.stat(target).st_size) if os.path.exists(target) else 0
                os.replace(name, target)
                self._kept += taken(os.stat(target).st_size) - before
                room.give_back()
            sync_folder(self.folder)


class Room:
    """What one blob that is on its way takes of the room there is for all."""

    def __init__(self, blobs: BlobFolder) -> None:
        self._blobs = blobs
        self._taken = 0

    def take(self, size: int) -> None:
        """It has so many bytes by now. SwellError blobs_full where that is too much."""
        blobs = self._blobs
        with blobs.moving:
            more = taken(size) - self._taken
            fits = blobs.size + more <= blobs.all_max
            if fits:
                self._taken += more
                blobs.coming += more
        if not fits:
            raise SwellError(
                "blobs_full",
                f"The source that is kept here takes {blobs.size} bytes, and all of it may take {blobs.all_max:.0f} "
                "(blobs_max_gib). What no app has any more is removed within two hours; else stop apps, keep fewer "
                "versions (versions_kept), or have the server's operator allow more.",
                status=507,
            )

    def leave(self) -> None:
        """It is there now, or will not be."""
        with self._blobs.moving:
            self.give_back()

    def give_back(self) -> None:
        """The same, while `moving` is held. Said again it means nothing: a put whose caller left may still settle."""
        self._blobs.coming -= self._taken
        self._taken = 0


def _link(path: str, target: str) -> None:
    """The same file under another name; a copy where that cannot be."""
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=os.path.dirname(target))
        with os.fdopen(descriptor, "wb") as copy, open(path, "rb") as file:
            shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(name, target)


def sync_folder(folder: Path) -> None:
    """Have the names in it on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def taken(size: int) -> int:
    """What a file of so many bytes takes on disk, its name included."""
    return (size // BLOCK + 1) * BLOCK
