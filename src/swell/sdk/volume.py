"""Which files do functions share? A volume: by its name on the server, at a path of the functions that name it.

What a function writes there others see once it was committed, and they reload or start. From outside, a volume is read
and written as a whole: each operation is a version of its own.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, BinaryIO

from swell.model.errors import SwellError
from swell.model.volume import VolumeUse, mount_problems
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk import frames
from swell.sdk.bridge import Call, Pending, adopt, drive, operation, stream_operation
from swell.sdk.client import Client
from swell.sdk.marks import Given
from swell.sdk.presence import me
from swell.sdk.refusal import check_name, refuse
from swell.sdk.signatures import public
from swell.sdk.storage import Source, Volumes, found
from swell.sdk.unavailable import Later, stand_in
from swell.wire import context
from swell.wire.api import FileRow


class FileEntryType(IntEnum):
    """What is at a path of a volume."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3


_TYPES = {"file": FileEntryType.FILE, "dir": FileEntryType.DIRECTORY, "link": FileEntryType.SYMLINK}


@dataclass(frozen=True)
class FileEntry:
    """One file or folder of a volume."""

    path: str
    type: FileEntryType
    mtime: int
    size: int


class Volume:
    """Files that functions share: `volumes={"/data": swell.Volume.from_name("data")}`."""

    def __init__(self, name: str, namespace: str | None, create: bool, read_only: bool = False, sub_path: str = ""):
        """Made by its static methods."""
        self.name = name
        self.namespace = namespace
        self.create = create
        """It is made where it is not there."""
        self._read_only = read_only
        self._sub_path = sub_path

    def __repr__(self) -> str:
        return f"swell.Volume.from_name({self.name!r})"

    @staticmethod
    @public
    def from_name(
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        version: int | None = None,
        create_options: Any = None,
        client: None = None,
    ) -> Volume:
        """One that `swell volume create` made or, with `create_if_missing`, that is made when it is first used."""
        refuse(Given("Volume.from_name", locals().copy()))
        check_name("Volume.from_name", "volume", name, environment_name)
        return Volume(name, environment_name, create_if_missing)

    @staticmethod
    @public
    def ephemeral(
        client: None = None, environment_name: str | None = None, version: int | None = None
    ) -> EphemeralVolume:
        """`with swell.Volume.ephemeral() as volume:` is one that is deleted at the end, and when this program ends."""
        refuse(Given("Volume.ephemeral", locals().copy()))
        return EphemeralVolume(environment_name)

    # -- where it is mounted -----------------------------------------------------------------------

    @public
    def read_only(self) -> Volume:
        """The same for functions that do not write to it."""
        return self._as(read_only=True)

    @public
    def with_mount_options(
        self, *, read_only: bool | None = None, sub_path: str | PurePosixPath | None = None
    ) -> Volume:
        """The same, read-only, or only a folder of it."""
        return self._as(read_only=read_only, sub_path=None if sub_path is None else str(sub_path).strip("/"))

    def _as(self, read_only: bool | None = None, sub_path: str | None = None) -> Volume:
        only = self._read_only if read_only is None else read_only
        return Volume(self.name, self.namespace, self.create, only, self._sub_path if sub_path is None else sub_path)

    @operation
    async def commit(self) -> None:
        """In a function: what it wrote is now what others find when they reload or start."""
        await Pending(self._asked("commit"))

    @operation
    async def reload(self) -> None:
        """In a function: see what others committed. What was written here is committed by it. An error where files of
        the volume are open here, which names them."""
        await Pending(self._asked("reload"))

    def _asked(self, what: str) -> Future[None]:
        if not context.inside or not context.volumes:
            raise SwellError(
                "not_mounted",
                f"{self!r}.{what}() is for functions that have the volume at a path (volumes=), while they run. From "
                "outside, what is written is there at once.",
                status=409,
            )
        return context.volumes[0](what, self._space(), self.name)

    # -- from outside ------------------------------------------------------------------------------

    @operation
    async def listdir(self, path: str, *, recursive: bool = False) -> list[FileEntry]:
        """What a folder holds; with `recursive` all that is below it, too."""
        return [_entry(row) for row in await (await self._ready()).listed.start(self.name, str(path), recursive)]

    @stream_operation
    def iterdir(self, path: str, *, recursive: bool = True) -> AsyncGenerator[FileEntry, None]:
        """What is below a folder, one by one."""
        return self._each(str(path), recursive)

    async def _each(self, path: str, recursive: bool) -> AsyncGenerator[FileEntry, None]:
        for row in await (await self._ready()).listed.start(self.name, path, recursive):
            yield _entry(row)

    @stream_operation
    def read_file(self, path: str) -> AsyncGenerator[bytes, None]:
        """The content of a file, in pieces."""
        return self._pieces(str(path))

    async def _pieces(self, path: str) -> AsyncGenerator[bytes, None]:
        volumes = await self._ready()
        async with aclosing(volumes.read.start(self.name, path)) as pieces:
            async for piece in pieces:
                yield piece

    @operation
    async def read_file_into_fileobj(self, path: str, fileobj: IO[bytes]) -> int:
        """Write the content of a file into an open one; returns how many bytes it has."""
        return await (await self._ready()).fetch.start(self.name, str(path), fileobj)

    @operation
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Take a file away, or (with `recursive`) a folder and all in it."""
        await (await self._ready()).remove.start(self.name, str(path), recursive)

    @operation
    async def copy_files(self, src_paths: Iterable[str], dst_path: str, recursive: bool = False) -> None:
        """Copy files within the volume: into the folder `dst_path`, or one under that name."""
        sources = [str(each) for each in src_paths]
        await (await self._ready()).copy.start(self.name, sources, str(dst_path), recursive)

    @public
    def batch_upload(self, force: bool = False) -> Upload:
        """`with volume.batch_upload() as batch:` puts all that it is given into the volume at its end, at once.

        With `force` also over files that are there."""
        return Upload(self, force)

    def _space(self) -> str:
        inside = context.inside[0].app.rpartition("/")[0] if context.inside else ""
        return self.namespace or inside or DEFAULT_NAMESPACE

    async def _ready(self) -> Volumes:
        """The volumes that this one is of, itself among them where it is to be made."""
        volumes = _volumes(self._space())
        if self.create:
            await volumes.create.start(self.name, if_missing=True)
        return volumes

    objects = Later("objects", (), {"__doc__": "Volumes are made, listed and deleted with `swell volume`."})


class Upload:
    """Files that are about to be in a volume, all of them at once."""

    def __init__(self, volume: Volume, force: bool) -> None:
        self._volume = volume
        self._force = force
        self._files: list[tuple[str, Source]] = []

    def put_file(
        self, local_file: str | Path | BinaryIO, remote_path: str | PurePosixPath, mode: int | None = None
    ) -> None:
        """A file of this machine, or an open one, under this path; one that ends in a slash is a folder for it."""
        remote = str(remote_path)
        if isinstance(local_file, str | Path):
            if remote.endswith("/"):
                remote += Path(local_file).name
            self._files.append((remote, Source.of_file(Path(local_file), mode)))
            return
        if remote.endswith("/"):
            raise SwellError("bad_argument", f"put_file({remote!r}): an open file needs a name in the volume.")
        self._files.append((remote, Source(lambda: _Rewound(local_file), bool(mode and mode & stat.S_IXUSR))))

    def put_directory(self, local_path: str | Path, remote_path: str | PurePosixPath, recursive: bool = True) -> None:
        """A folder of this machine under this path; without `recursive` only the files right in it."""
        local = Path(local_path)
        if not local.is_dir():
            raise SwellError("no_such_file", f"put_directory: {local} is no folder here.")
        remote = str(remote_path)
        deep = len(PurePosixPath(remote).parts) + 1
        for path, source in found(local, remote):
            if recursive or len(PurePosixPath(posixpath.normpath(path)).parts) == deep:
                self._files.append((path, source))

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            with frames.hidden:
                drive(self._put())

    async def __aenter__(self) -> Upload:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            with frames.hidden:
                await adopt(self._put())

    async def _put(self) -> None:
        volumes = await self._volume._ready()
        await volumes.put.start(self._volume.name, self._files, self._force)


class _Rewound:
    """An open file of the user's, from where it stands, to be read again and never closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def __enter__(self) -> _Rewound:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(self._start)


class EphemeralVolume:
    """A volume between entering and leaving, for `with` and `async with`."""

    def __init__(self, namespace: str | None) -> None:
        self._present: Future[None] | None = None
        self._volume = Volume(f"ephemeral-{_token()}", namespace, False)

    def __enter__(self) -> Volume:
        with frames.hidden:
            return drive(self._make())

    def __exit__(self, *_: object) -> None:
        with frames.hidden:
            drive(self._end())

    async def __aenter__(self) -> Volume:
        with frames.hidden:
            return await adopt(self._make())

    async def __aexit__(self, *_: object) -> None:
        with frames.hidden:
            await adopt(self._end())

    async def _make(self) -> Volume:
        volumes, mine = _volumes(self._volume._space()), me()
        await volumes.create.start(self._volume.name, owner=mine)
        self._present = volumes.client.present(mine)
        return self._volume

    async def _end(self) -> None:
        if self._present is not None:
            self._present.cancel()
        await _volumes(self._volume._space()).delete.start(self._volume.name, force=True)


def use(volume: Volume, path: str, namespace: str) -> VolumeUse:
    """What a revision of an app in this namespace says of it."""
    return VolumeUse(volume.namespace or namespace, volume.name, path, volume._read_only, volume._sub_path)


def mounts(given: Given) -> dict[str, Volume]:
    """Path → volume, as `volumes=` says; SwellError for what cannot be."""
    where: dict[str, Volume] = {}
    named: Mapping[Any, Any] = given.values["volumes"] or {}
    if not isinstance(named, Mapping):
        raise SwellError("bad_argument", f"{given.callable}(volumes=…): give a dict of paths and swell.Volume objects.")
    for at, volume in named.items():
        path = str(at).rstrip("/")
        if not isinstance(volume, Volume):
            kind = type(volume).__name__
            words = f"{given.callable}(volumes={{{path!r}: …}}): give a swell.Volume, not an object of type {kind}."
            raise SwellError("bad_argument", words)
        wrong = mount_problems(use(volume, path, DEFAULT_NAMESPACE))
        if wrong:
            raise SwellError("bad_argument", f"{given.callable}(volumes={{{path!r}: …}}): {wrong[0]}.")
        where[path] = volume
    return where


def _volumes(namespace: str) -> Volumes:
    if context.inside:
        raise SwellError(
            "in_a_replica",
            "In a function, a volume is read and written where it is mounted (volumes=): open its files there.",
            status=409,
        )
    return Volumes(Client.from_settings(), namespace)


def _entry(row: FileRow) -> FileEntry:
    return FileEntry(row.path, _TYPES[row.kind], int(row.at), row.size)


def _token() -> str:
    import secrets

    return secrets.token_hex(6)


async def _delete(
    name: str, *, allow_missing: bool = False, client: None = None, environment_name: str | None = None
) -> None:
    """Delete a volume with all that is in it."""
    refuse(Given("Volume.delete", {"client": client}))
    check_name("Volume.delete", "volume", name, environment_name)
    try:
        await _volumes(environment_name or DEFAULT_NAMESPACE).delete.start(name)
    except SwellError as error:
        if error.code != "unknown_volume" or not allow_missing:
            raise


async def _rename(old_name: str, new_name: str, *, client: None = None, environment_name: str | None = None) -> None:
    """Give a volume another name."""
    refuse(Given("Volume.rename", {"client": client}))
    check_name("Volume.rename", "volume", old_name, environment_name)
    await _volumes(environment_name or DEFAULT_NAMESPACE).alter.start(old_name, new_name)


def _static(name: str, function: Callable[..., Any]) -> None:
    """Give the class an operation that needs no volume."""
    function.__name__, function.__qualname__ = name, f"Volume.{name}"
    setattr(Volume, name, Call(public(function)))


_static("delete", _delete)
_static("rename", _rename)
stand_in(
    Volume,
    {
        "create_deployed": "Volumes are made with `swell volume create`.",
        "from_id": "Volumes are found by their names: Volume.from_name(name).",
        "hydrate": "There is nothing to look up before a deploy: leave it out.",
        "info": "Volumes are listed with `swell volume list`.",
        "lookup": "Volume.lookup() is called Volume.from_name() now.",
        "persisted": "Volume.persisted() is called Volume.from_name(name, create_if_missing=True) now.",
    },
)
