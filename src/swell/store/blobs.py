"""Where are the bytes that have this digest? In a folder of files named by the digest of their content."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
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
PIECE = 1024 * 1024
"""Bytes gathered before they are hashed and written."""

_DIGEST = re.compile(r"sha256-[0-9a-f]{64}\Z")
_UNFINISHED = ".put-"


def check_digest(digest: str) -> None:
    """Refuse what is not "sha256-" and 64 hex digits, and so any path in its place."""
    if not _DIGEST.match(digest):
        raise SwellError(
            "bad_digest", f"{digest[:80]!r} is no digest: it must be sha256- and 64 lower-case hex digits."
        )


class BlobFolder:
    """The `Blobs` port over a directory. Memory stays bounded whatever the size of a blob."""

    def __init__(self, folder: Path, most: int = BLOB_MAX) -> None:
        self.folder = folder
        self.most = most
        self._moving = threading.Lock()
        """A blob comes, is asked for, or goes: one at a time."""
        with faults.as_swell_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in folder.glob(f"{_UNFINISHED}*"):
                left.unlink()

    def has(self, digest: str) -> bool:
        """Is it there, whole? Who asks is about to need it, which its file's time remembers."""
        path = self.path(digest)
        with self._moving:
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
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                found = await self._copy(chunks, file)
                if found != digest:
                    raise SwellError(
                        "wrong_digest", f"The content sent as {digest} has the digest {found}: send it again."
                    )
                await asyncio.to_thread(self._settle, file, name, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)

    def sweep(self, needed: Collection[str], before: float) -> int:
        """Remove those that are not `needed` and were neither put nor asked for since `before`; returns how many."""
        removed = 0
        with faults.as_swell_errors(self.folder):
            for name in os.listdir(self.folder):
                if _DIGEST.match(name) and name not in needed:
                    removed += self._remove(self.folder / name, before)
        return removed

    def _remove(self, path: Path, before: float) -> bool:
        with self._moving:
            old = path.stat().st_mtime < before
            if old:
                path.unlink()
            return old

    async def _copy(self, chunks: AsyncIterator[bytes], file: BinaryIO) -> str:
        """Write a stream to a file; returns its digest."""
        digest = hashlib.sha256()
        total = 0
        piece = bytearray()
        async for chunk in chunks:
            total += len(chunk)
            if total > self.most:
                raise SwellError("blob_too_large", f"A blob may have {self.most} bytes; this one has more.", status=413)
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

    def _settle(self, file: BinaryIO, name: str, target: str) -> None:
        """Give a whole file its name, so that both last."""
        with faults.as_swell_errors(self.folder):
            os.fsync(file.fileno())
            os.utime(file.fileno())
            with self._moving:
                os.replace(name, target)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
