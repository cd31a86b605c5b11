"""What is in a backup? The state of a server at one moment, as files under the names that they have in its state
directory.

First comes a manifest, then the files that it lists, then contents, whose names are their digests, then an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

import msgspec

FORMAT = 1
"""Of what a backup is made of. A later one may be something that this code cannot read."""
MANIFEST = "manifest.json"
END = "end.json"
BROKEN = "backup_broken"
"""Code of an end that says which file could not be read."""
DATABASE = "control.db"
PRICES = "prices.toml"
MASTER_KEY = "master.key"
KEY_FILES = ("key", "call-key", MASTER_KEY)
"""Who has these has the server and its secrets: they are in a backup only when that is asked for."""
LOST_MAX = 1000
"""Names of lost files that a manifest tells; of further ones only that there are more."""

_NAMESPACE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_DIGEST = r"sha256-[0-9a-f]{64}"
_CONTENT = re.compile(rf"(?:blobs|results|volumes/{_NAMESPACE}/files)/(?P<digest>{_DIGEST})\Z")
_TREE = re.compile(rf"volumes/{_NAMESPACE}/(?!files/)[A-Za-z0-9][A-Za-z0-9-]{{0,62}}/v[0-9]{{1,18}}\Z")


class Member(msgspec.Struct, frozen=True, gc=False):
    """One file."""

    name: str
    size: int
    """Bytes."""
    digest: str
    """Of what is in it: "sha256-…"."""


class Manifest(msgspec.Struct, frozen=True):
    """What is to come, told first."""

    format: int
    version: str
    """Of the Swell that made it."""
    schema: int
    """Number of the newest step that made the database's tables."""
    made_at: float
    """Seconds since the epoch."""
    members: tuple[Member, ...]
    """Database, prices, keys, and what is where in volumes; in the order in which they come."""
    contents: int = 0
    """How many files follow whose names are their digests: source of apps, large results of calls, and what is in
    volumes."""
    contents_bytes: int = 0
    lost: tuple[str, ...] = ()
    """What should be there too, and could not be read when the backup was made: the first `LOST_MAX`."""
    lost_count: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.contents_bytes + sum(member.size for member in self.members)

    @property
    def key_files(self) -> tuple[str, ...]:
        """The keys that are in it."""
        return tuple(member.name for member in self.members if member.name in KEY_FILES)


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last of it: it is whole, or this is why it is not."""

    code: str = ""
    message: str = ""


def is_listed(name: str) -> bool:
    """Can a file of this name be among a manifest's members?"""
    return name in (DATABASE, PRICES, *KEY_FILES) or _TREE.match(name) is not None


def is_top(name: str) -> bool:
    """Can a file or folder of this name be at the top of what is made of a backup?"""
    return name in (DATABASE, PRICES, *KEY_FILES, "state-id", "blobs", "results", "volumes")


def digest_in(name: str) -> str:
    """The digest of what is in a file of contents, which is in its name; empty: it is not the name of one."""
    found = _CONTENT.match(name)
    return "" if found is None else found["digest"]


class Snapshot(Protocol):
    """A state as it was at one moment: there until it is closed, while nothing is swept."""

    schema: int
    members: tuple[Member, ...]
    contents: int
    contents_bytes: int
    lost: list[str]
    """Names of files that should be there and cannot be read: the first `LOST_MAX`."""
    lost_count: int

    def contents_found(self) -> Iterator[tuple[str, int]]:
        """Name and size of each file of contents."""
        ...

    def path(self, name: str) -> str:
        """Where the file of that name is."""
        ...

    def close(self) -> None:
        """Remove what was copied for it."""
        ...


class State(Protocol):
    """What a server keeps on disk."""

    def snapshot(self, key_files: bool) -> Snapshot:
        """All that was written before, and of what is written meanwhile none. It takes as long as reading all trees of
        volumes and copying the database does."""
        ...
