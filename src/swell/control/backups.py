"""How does all that a server keeps become one stream? A snapshot is taken, and its files are read one after the other.

Nothing is swept meanwhile: the files that the snapshot names stay as long as it takes. One backup is made at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Generator, Iterator

from swell.control.sweeping import Held
from swell.model.backup import END, FORMAT, MANIFEST, End, Manifest, Snapshot, State, digest_in
from swell.model.errors import SwellError
from swell.model.ports import Clock
from swell.wire.archive import CLOSING, PIECE, document, header, padding

log = logging.getLogger("swell.control")


class BackupKeeper:
    """Makes backups, one at a time."""

    def __init__(self, state: State, held: Held, clock: Clock, version: str) -> None:
        """`held` keeps sweeps away; `version` is that of this Swell."""
        self._state = state
        self._held = held
        self._clock = clock
        self._version = version
        self._under_way = False

    async def open(self, key_files: bool) -> Backup:
        """A backup of what is there now; whoever asked closes it. SwellError backup_under_way while another is made."""
        if self._under_way:
            words = "A backup is being made already, and one is made at a time: try again when it is done."
            raise SwellError("backup_under_way", words, status=409)
        self._under_way = True
        try:
            await self._held.acquire()
        except BaseException:
            self._under_way = False
            raise
        taking = asyncio.ensure_future(asyncio.to_thread(self._state.snapshot, key_files))
        try:
            snapshot = await asyncio.shield(taking)
        except BaseException:
            if taking.done():
                self._unwanted(taking)
            else:
                # A thread cannot be stopped: what it takes is closed once it has it.
                taking.add_done_callback(self._unwanted)
            raise
        at = self._clock.now()
        log.info("a backup is made: %d files", len(snapshot.members) + snapshot.contents)
        return Backup(self, snapshot, pieces(snapshot, manifest(snapshot, at, self._version)))

    def _unwanted(self, taking: asyncio.Future[Snapshot]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            taking.result().close()
        self.closed()

    def closed(self) -> None:
        """The next one may begin."""
        self._held.release()
        self._under_way = False


class Backup:
    """A backup that is under way, until it is closed."""

    def __init__(self, keeper: BackupKeeper, snapshot: Snapshot, pieces: Generator[bytes, None, None]) -> None:
        self._keeper = keeper
        self._snapshot = snapshot
        self._pieces = pieces
        self._reading: asyncio.Future[bytes] | None = None
        self._closing: asyncio.Future[None] | None = None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """All of it, piece by piece."""
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        self._reading = asyncio.ensure_future(asyncio.to_thread(next, self._pieces, b""))
        return await asyncio.shield(self._reading)

    async def close(self) -> None:
        """Whether it came to its end or not, nothing is left of it here. It may be closed more than once."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._closed())
        await asyncio.shield(self._closing)

    async def _closed(self) -> None:
        try:
            if self._reading is not None:
                # A piece that is being read is read to its end.
                await asyncio.wait({self._reading})
            self._pieces.close()
            await asyncio.to_thread(self._snapshot.close)
        finally:
            self._keeper.closed()


def manifest(snapshot: Snapshot, at: float, version: str) -> Manifest:
    """What a backup begins with."""
    return Manifest(
        FORMAT,
        version,
        snapshot.schema,
        at,
        snapshot.members,
        snapshot.contents,
        snapshot.contents_bytes,
        tuple(snapshot.lost),
        snapshot.lost_count,
    )


def pieces(snapshot: Snapshot, told: Manifest) -> Generator[bytes, None, None]:
    """The whole stream in pieces of about `PIECE` bytes. Where a file is not what it should be, it ends with that."""
    piece = bytearray()
    for part in _parts(snapshot, told):
        piece += part
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _parts(snapshot: Snapshot, told: Manifest) -> Iterator[bytes]:
    yield document(MANIFEST, told, told.made_at)
    files = [(each.name, each.size, each.digest) for each in told.members]
    try:
        for name, size, digest in files:
            yield from _file(snapshot, name, size, digest, told.made_at)
        for name, size in snapshot.contents_found():
            yield from _file(snapshot, name, size, digest_in(name), told.made_at)
        end = End()
    except SwellError as error:
        log.error("%s", error.message)
        end = End(error.code, error.message)
    yield document(END, end, told.made_at)
    yield CLOSING


def _file(snapshot: Snapshot, name: str, size: int, digest: str, at: float) -> Iterator[bytes]:
    """A file with what stands before and behind it. SwellError backup_broken where it is not what was announced: as
    many bytes as were announced have come by then."""
    yield header(name, size, at)
    found, left, why = hashlib.sha256(), size, "its digest differs"
    try:
        with open(snapshot.path(name), "rb") as file:
            while left and (read := file.read(min(left, PIECE))):
                found.update(read)
                left -= len(read)
                yield read
    except OSError as error:
        why = error.strerror or str(error)
    while left:
        filling = min(left, PIECE)
        left -= filling
        yield bytes(filling)
    yield padding(size)
    if digest != f"sha256-{found.hexdigest()}":
        words = f"{snapshot.path(name)} is not what it should be ({why}). Whoever put it there can put it again."
        raise SwellError("backup_broken", words, status=500)
