"""How does a program read and write the volumes of a server? Names, trees and contents, over the control API.

Contents go up and come down in pieces, so that files may be larger than memory. What is there already (by its digest)
is not sent again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from swell.model.errors import SwellError
from swell.model.owner import Owner
from swell.model.volume import Entry, Quota
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk import protocol
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.client import Client
from swell.sdk.protocol import Answer, Request
from swell.wire import http
from swell.wire.api import Copies, FileRow, NewFiles, NewVolume, VolumeRow, VolumeSettings

T = TypeVar("T")

_USUAL = Quota()
PIECE = 1 << 20
"""Bytes read, hashed and sent at a time."""


class Readable(Protocol):
    """What is read from its beginning, and closed after that."""

    def read(self, size: int, /) -> bytes: ...

    def __enter__(self) -> Readable: ...

    def __exit__(self, *_: Any) -> None: ...


class Source:
    """A file's content that is to be in a volume: that of a file here, or of an open one."""

    def __init__(self, opened: Callable[[], Readable], executable: bool = False, at: float = 0.0) -> None:
        self.opened = opened
        """Called for each reading; what it gives is closed after it."""
        self.executable = executable
        self.at = at
        self.size = 0
        """Known once it was hashed."""

    @classmethod
    def of_file(cls, path: Path, mode: int | None = None) -> Source:
        """SwellError where it is none, or cannot be read."""
        try:
            found = path.stat()
            # A pipe would wait for somebody to write to it.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)):
                pass
        except OSError as error:
            raise SwellError("no_such_file", f"{path} cannot be read: {error.strerror}.") from None
        if not stat.S_ISREG(found.st_mode):
            raise SwellError("no_such_file", f"{path} is no file that could be kept in a volume: leave it out.")
        return cls(lambda: open(path, "rb"), bool((found.st_mode if mode is None else mode) & 0o100), found.st_mtime)

    def digest(self) -> str:
        """Of all of it."""
        digest, self.size = hashlib.sha256(), 0
        for piece in self._pieces():
            digest.update(piece)
            self.size += len(piece)
        return f"sha256-{digest.hexdigest()}"

    async def stream(self, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
        """Its pieces, on the loop that sends them."""
        for piece in self._pieces():
            yield piece
            sent(len(piece))

    def _pieces(self) -> Iterator[bytes]:
        with self.opened() as file:
            while piece := file.read(PIECE):
                yield piece


class Whole:
    """A body as it comes; what is wrong is raised."""

    def __init__(self, head: Answer) -> None:
        if not head.ok:
            raise protocol.failure(head)
        self._left = int(head.headers.get("content-length", "0"))

    def feed(self, data: bytes) -> Sequence[bytes]:
        self._left -= len(data)
        return (data,)

    def close(self) -> None:
        """It must have come to its end."""
        if self._left:
            raise SwellError("connection_lost", "The file did not come to its end: read it again.", status=502)


class Volumes:
    """The volumes of one namespace on a server."""

    def __init__(self, client: Client, namespace: str = DEFAULT_NAMESPACE) -> None:
        self.client = client
        self.namespace = namespace

    @operation
    async def rows(self) -> list[VolumeRow]:
        """Those there are."""
        return await self._ask("GET", f"/api/volumes?{urlencode({'namespace': self.namespace})}", list[VolumeRow])

    @operation
    async def create(
        self, name: str, quota: Quota = _USUAL, if_missing: bool = False, owner: Owner | None = None
    ) -> VolumeRow:
        """An empty one."""
        whose = () if owner is None else (owner.pid, owner.start_ticks, owner.machine)
        return await self._ask("PUT", self._at(name), VolumeRow, NewVolume(quota, if_missing, *whose))

    @operation
    async def alter(
        self, name: str, new_name: str | None = None, bytes_max: int | None = None, files_max: int | None = None
    ) -> VolumeRow:
        """Give it another name, or another quota."""
        return await self._ask("PATCH", self._at(name), VolumeRow, VolumeSettings(new_name, bytes_max, files_max))

    @operation
    async def delete(self, name: str, force: bool = False) -> None:
        """With all that is in it."""
        await self._ask("DELETE", f"{self._at(name)}?force={int(force)}", type(None))

    @operation
    async def listed(self, name: str, path: str = "", recursive: bool = False) -> list[FileRow]:
        """What a folder holds, or the file itself."""
        return await self._ask("GET", self._files(name, path, recursive), list[FileRow])

    @operation
    async def remove(self, name: str, path: str, recursive: bool = False) -> VolumeRow:
        """Take a file or folder away."""
        return await self._ask("DELETE", self._files(name, path, recursive), VolumeRow)

    @operation
    async def copy(self, name: str, sources: Sequence[str], to: str, recursive: bool = False) -> VolumeRow:
        """Files once more, under another name."""
        return await self._ask("POST", f"{self._at(name)}/copies", VolumeRow, Copies(tuple(sources), to, recursive))

    @operation
    async def put(
        self,
        name: str,
        files: Sequence[tuple[str, Source]],
        force: bool = False,
        sent: Callable[[int], None] = lambda _bytes: None,
    ) -> VolumeRow:
        """One version with all of these (path → content). `sent` hears of each piece that needs not be sent again."""
        put = [(path, await self._stored(source, sent)) for path, source in files]
        return await self._ask("POST", f"{self._at(name)}/files", VolumeRow, NewFiles(tuple(put), force))

    @stream_operation
    def read(self, name: str, path: str) -> AsyncGenerator[bytes, None]:
        """The content of a file, piece by piece."""
        request = Request("GET", f"{self._at(name)}/content?{urlencode({'path': path})}")
        return self.client.transport.stream(request, Whole)

    @operation
    async def fetch(self, name: str, path: str, into: IO[Any], got: Callable[[int], None] = lambda _bytes: None) -> int:
        """Write the content of a file into an open one; returns how many bytes it has. `got` hears of each piece."""
        total = 0
        async with aclosing(self.read.start(name, path)) as pieces:
            async for piece in pieces:
                into.write(piece)
                total += len(piece)
                got(len(piece))
        return total

    async def _stored(self, source: Source, sent: Callable[[int], None]) -> Entry:
        digest = source.digest()
        at = f"/api/volume-contents/{quote(self.namespace, safe='')}/{digest}"
        known = await self.client.transport.send(Request("HEAD", at))
        if known.ok:
            sent(source.size)
        elif known.status != 404:
            # What is answered to HEAD has no words.
            await self.rows.start()
        if not known.ok:
            headers = {"content-type": http.OCTETS}
            request = Request("PUT", at, headers, stream=lambda: source.stream(sent))
            answer = await self.client.transport.send(request)
            if not answer.ok:
                raise protocol.failure(answer)
        return Entry(digest=digest, size=source.size, executable=source.executable, at=source.at)

    async def _ask(self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T:
        headers = {} if body is None else {"content-type": http.JSON}
        content = b"" if body is None else msgspec.json.encode(body)
        answer = await self.client.transport.send(Request(method, path, headers, content))
        if not answer.ok:
            raise protocol.failure(answer)
        return msgspec.json.decode(answer.body or b"null", type=kind)

    def _at(self, name: str) -> str:
        return f"/api/volumes/{quote(self.namespace, safe='')}/{quote(name, safe='')}"

    def _files(self, name: str, path: str, recursive: bool) -> str:
        return f"{self._at(name)}/files?{urlencode({'path': path, 'recursive': int(recursive)})}"


def found(local: Path, remote: str) -> Iterator[tuple[str, Source]]:
    """The files below a folder here, and their paths in a volume; links are followed, but not to a folder they are
    in."""
    for parent, folders, names in os.walk(local, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not _is_around(Path(parent), name)]
        below = Path(parent).relative_to(local).as_posix()
        for name in sorted(names):
            yield "/".join((remote, below, name)), Source.of_file(Path(parent) / name)


def _is_around(parent: Path, name: str) -> bool:
    """Does it lead back to a folder that it is in?"""
    return os.path.islink(parent / name) and Path(os.path.realpath(parent)).is_relative_to(
        os.path.realpath(parent / name)
    )
