"""How is a backup written as one stream? As a tar, a manifest first, so that it is checked while it is read.

It is written and read in order and piece by piece: neither needs more memory for more data. What is read may be
anything: only plain files with names that a backup has are taken, and nothing is believed that was not told before.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from swell.model.backup import BROKEN, END, FORMAT, MANIFEST, End, Manifest, Member, digest_in, is_listed
from swell.model.errors import SwellError

BLOCK = 512
"""Bytes; a tar is made of these."""
PIECE = 1 << 20
"""Bytes read, hashed and written at a time."""
MANIFEST_MAX = 64 << 20
"""Bytes of a manifest: a volume takes some 200 of them."""
CLOSING = bytes(2 * BLOCK)
"""What a tar ends with."""
_SMALL = 8**11
"""Sizes from here on are written in binary."""

T = TypeVar("T")


def header(name: str, size: int, at: float) -> bytes:
    """What stands before a file of this name and size (bytes), last changed at that time."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = 0o600, int(at)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"%011o\0" % size if size < _SMALL else b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padding(size: int) -> bytes:
    """What stands behind a file of so many bytes."""
    return bytes(-size % BLOCK)


def document(name: str, value: Manifest | End, at: float) -> bytes:
    """The manifest, or the end."""
    body = msgspec.json.encode(value)
    return header(name, len(body), at) + body + padding(len(body))


class Reader:
    """A backup that is read from its beginning to its end. SwellError bad_backup says what is wrong with it."""

    def __init__(self, read: Callable[[int], bytes], source: str) -> None:
        """`read` gives at most so many bytes, none at the end; `source` is what its user calls it."""
        self._read = read
        self._source = source
        self.done = 0
        """Bytes read so far."""
        self._ending = 0
        name, size = self._head()
        if name != MANIFEST:
            raise self._foreign(f"it begins with {name[:80]!r}")
        if size > MANIFEST_MAX:
            raise self._foreign("it begins with too much")
        body = self._document(name, size)
        # Of a later format nothing but that number may be as it is here.
        if isinstance(format := self._decode(body, dict[str, object]).get("format"), int) and format > FORMAT:
            words = (
                f"{source} was made by a newer Swell, and cannot be read by this one. Use that version, or a newer one."
            )
            raise SwellError("backup_newer", words)
        self.manifest = self._decode(body, Manifest)
        if not all(is_listed(each.name) and each.size >= 0 for each in self.manifest.members):
            raise self._foreign("its manifest lists files that no backup has")

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The name of each file and its pieces, which are to be read before the next. All is as it should be once this
        has come to its end."""
        for member in self.manifest.members:
            name, size = self._next()
            if (name, size) != (member.name, member.size):
                raise self._damaged(f"where {member.name} should be, there is {name[:80]!r}")
            yield name, self._pieces(member)
        contents = contents_bytes = 0
        while (head := self._next(ending=True))[0] != END:
            name, size = head
            if not (digest := digest_in(name)):
                raise self._damaged(f"{name[:80]!r} is in it, which no backup has")
            contents, contents_bytes = contents + 1, contents_bytes + size
            yield name, self._pieces(Member(name, size, digest))
        self._whole()
        if (contents, contents_bytes) != (self.manifest.contents, self.manifest.contents_bytes):
            raise self._damaged(f"it has {contents} contents of files, and should have {self.manifest.contents}")

    def _whole(self) -> None:
        """What the end says."""
        end = self._decode(self._document(END, self._ending), End)
        if end.code:
            raise SwellError(end.code, f"The backup is not whole: {end.message}", status=500)

    def _next(self, ending: bool = False) -> tuple[str, int]:
        """The name and size of the file that comes; of the end only where it may be (`ending`), else it is raised."""
        name, size = self._head()
        if name == END:
            self._ending = min(size, MANIFEST_MAX)
            if not ending:
                self._whole()
                raise self._damaged("it ends before all is there that its manifest lists")
        return name, size

    def _head(self) -> tuple[str, int]:
        block = self._exactly(BLOCK, "the name of a file")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            raise self._foreign("it is no tar") if self.done == BLOCK else self._damaged("it is no tar there") from None
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise self._damaged(f"{info.name[:80]!r} in it is no plain file")
        return info.name, info.size

    def _pieces(self, member: Member) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), member.size
        while left:
            piece = self._exactly(min(left, PIECE), member.name)
            digest.update(piece)
            left -= len(piece)
            yield piece
        self._exactly(-member.size % BLOCK, member.name)
        if member.digest != f"sha256-{digest.hexdigest()}":
            self._explain()
            raise self._damaged(f"{member.name} is not what was put there, its digest differs")

    def _explain(self) -> None:
        """Where whoever made it could not read a file, the end that comes next says so."""
        try:
            self._next()
        except SwellError as error:
            if error.code == BROKEN:
                raise

    def _document(self, name: str, size: int) -> bytes:
        body = self._exactly(size, name)
        self._exactly(-size % BLOCK, name)
        return body

    def _decode(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._foreign(f"what it says of itself cannot be read: {error}") from None

    def _exactly(self, size: int, what: str) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self._read(size - len(found))
            if not piece:
                if not self.done:
                    raise self._foreign("it is no tar" if found else "it is empty")
                raise self._short(what)
            found += piece
        self.done += size
        return bytes(found)

    def _short(self, what: str) -> SwellError:
        words = f"{self._source} is not whole: it ends in the middle of {what}. Make the backup again, or take another."
        return SwellError("bad_backup", words)

    def _damaged(self, what: str) -> SwellError:
        return SwellError("bad_backup", f"{self._source} is damaged, or was changed: {what}. Take another backup.")

    def _foreign(self, what: str) -> SwellError:
        return SwellError("bad_backup", f"{self._source} is no backup that `swell backup` made: {what}.")
