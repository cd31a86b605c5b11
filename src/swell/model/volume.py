"""What is a volume? A named tree of files that functions share. It has versions; one never changes once it is made.

Contents are named by their digests and stand elsewhere: a tree says what is where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from swell.model.errors import SwellError
from swell.model.owner import Owner

PATH_MAX = 2048
"""Bytes of a path in a volume: in the folders that are mounted there is another before it."""
DEPTH_MAX = 128
"""Names in a path."""
TARGET_MAX = 4095
"""Bytes of where a link points."""
NAME_MAX = 255
"""Bytes of one name in it."""

RESERVED = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr")
"""No volume stands in one of these: programs and the system are found there."""
SYSTEM = ("/home", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")
"""Nor at one of these, where others have their files; in one of them it may."""

Kind = Literal["file", "dir", "link"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is at one path."""

    kind: Kind = "file"
    digest: str = ""
    """Of a file's content: "sha256-…"."""
    size: int = 0
    """Bytes of a file."""
    executable: bool = False
    target: str = ""
    """Where a link points, as it was written."""
    at: float = 0.0
    """When a file was last written."""


Tree = dict[str, Entry]
"""Path, without a slash in front → what is there. Folders that only hold something need no entry of their own."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is other than in the version before. Paths it does not name stay as they are then."""

    put: tuple[tuple[str, Entry], ...] = ()
    removed: tuple[str, ...] = ()
    """Of what is not there any more nothing is said."""

    def __bool__(self) -> bool:
        return bool(self.put or self.removed)


class Quota(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a volume may hold. 0: what the server says (`volume_bytes_max`, `volume_files_max`)."""

    bytes_max: int = 0
    files_max: int = 0
    """Files, links and folders."""


class Committed(msgspec.Struct, frozen=True, array_like=True):
    """A commit that a replica made."""

    id: str
    at: float
    """When it was done."""


class Volume(msgspec.Struct, frozen=True):
    """A volume and its newest version."""

    namespace: str
    name: str
    id: str
    """Of this volume alone, whatever it is called."""
    made_at: float
    version: int = 0
    """0: nothing was ever put in it."""
    at: float = 0.0
    """When that was made."""
    size_bytes: int = 0
    files: int = 0
    quota: Quota = Quota()
    owner_pid: int = 0
    """It is deleted when this program has ended; 0: it stays."""
    owner_ticks: int = 0
    """When that started, as `Owner.start_ticks`."""
    owner_machine: str = ""
    """And where, as `Owner.machine`."""
    committed: tuple[Committed, ...] = ()
    """The latest commits, the newest last, those that changed nothing included: one of which the answer was lost is not
    done twice."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def owner(self) -> Owner | None:
        return Owner(self.owner_pid, self.owner_ticks, self.owner_machine) if self.owner_pid else None


class VolumeUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A revision finds a volume at this path."""

    namespace: str
    name: str
    path: str
    read_only: bool = False
    sub_path: str = ""
    """Only this folder of it."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


class VolumeState(msgspec.Struct, frozen=True):
    """What a runner has to know of a volume."""

    namespace: str
    name: str
    id: str = ""
    """Empty: there is no such volume any more."""
    version: int = 0
    by: str = ""
    """Pool of the replica that made this version; empty where a person did."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


def clean(path: str, root: bool = False) -> str:
    """A path in a volume as its tree has it. SwellError bad_path for what is none; `root`: the top itself is meant,
    too, and is empty."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    why = ""
    if ".." in parts:
        why = "it leads out of the volume"
    elif not parts and not root:
        why = "it names no file"
    elif "\0" in path or not _is_text(path):
        why = "it has characters that no path here can have"
    elif any(len(part.encode()) > NAME_MAX for part in parts) or len("/".join(parts).encode()) > PATH_MAX:
        why = f"a path may have {PATH_MAX} bytes, and each name in it {NAME_MAX}"
    elif len(parts) > DEPTH_MAX:
        why = f"a path may have {DEPTH_MAX} names, and this one has {len(parts)}"
    if why:
        raise SwellError("bad_path", f"{path[:200]!r} is no path in a volume: {why}.", status=422)
    return "/".join(parts)


def pointing(path: str, target: str) -> str:
    """Where a link at this path points, as it may. SwellError bad_path for what no link can say."""
    if not target or "\0" in target or not _is_text(target) or len(target.encode()) > TARGET_MAX:
        words = f"{path[:200]!r} is a link, and where it points is none: give UTF-8 of 1 to {TARGET_MAX} bytes."
        raise SwellError("bad_path", words, status=422)
    return target


def mount_problems(use: VolumeUse) -> list[str]:
    """What keeps a volume from being where it is to be, each a phrase."""
    found = []
    parts = use.path.split("/")[1:]
    if not use.path.startswith("/") or "" in parts or "." in parts or ".." in parts:
        found.append(f"{use.path[:200]!r} is no absolute path of a folder, like '/data'")
    elif "\0" in use.path or not _is_text(use.path) or any(each in use.path for each in ",:\\\n"):
        found.append(f"{use.path[:200]!r} has characters that the path of a mount cannot have")
    elif parts[0] in RESERVED or use.path in SYSTEM:
        found.append(f"{use.path} belongs to the system: choose another path, like '/data'")
    try:
        clean(use.sub_path, root=True)
    except SwellError as error:
        found.append(error.message.rstrip("."))
    return found


def parents(path: str) -> Iterator[str]:
    """The folders it lies in, the innermost first; not the top."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _is_text(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)
