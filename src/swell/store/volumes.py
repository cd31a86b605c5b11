"""Where is what is in volumes? Contents in files named by their digests, and per version a tree: what of them is where.

A version comes to be when the database names it: contents and tree are on disk by then, and a tree that nobody came to
name is swept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.model.errors import SwellError
from swell.model.volume import Tree, Volume
from swell.store import faults
from swell.store.blobs import BlobFolder, sync_folder

FILE_MAX = 1 << 40
"""Bytes of one file."""
_MODE = 0o666
"""Whoever sees a file in a replica may write to it there, which is to a copy. On the node nobody gets to it: the state
directory is its owner's alone."""
_VERSION = re.compile(r"v[0-9]+\Z")
_tree = msgspec.msgpack.Decoder(Tree)


class VolumeFolder:
    """The `VolumeFiles` port over a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._contents: dict[str, BlobFolder] = {}

    def contents(self, namespace: str) -> BlobFolder:
        """Of one namespace: who may write there must not come to another's files by knowing their digests."""
        if namespace not in self._contents:
            self._contents[namespace] = BlobFolder(self.folder / namespace / "files", FILE_MAX, mode=_MODE)
        return self._contents[namespace]

    def read(self, volume: Volume) -> Tree:
        """The tree of its newest version."""
        if not volume.version:
            return {}
        path = self._path(volume)
        try:
            return _tree.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            words = f"Version {volume.version} of the volume {volume.name!r} cannot be read ({path}: {error})."
            raise SwellError("state_unreadable", f"{words} Restore it from a backup.", status=500) from error

    def write(self, volume: Volume, tree: Tree) -> None:
        """Keep the tree of what is about to be its newest version."""
        path = self._path(volume)
        with faults.as_swell_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_suffix(".new")
            with open(draft, "wb") as file:
                file.write(msgspec.msgpack.encode(tree))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            for folder in (path.parent, path.parent.parent):
                sync_folder(folder)

    def sweep(self, volumes: Collection[Volume], before: float) -> int:
        """Remove trees that are no volume's newest version, and then contents that no tree names. Of a namespace with
        a tree that cannot be read all contents stay; the others are swept, and then that is raised."""
        newest = {self._path(volume) for volume in volumes}
        removed = 0
        unreadable: msgspec.DecodeError | None = None
        with faults.as_swell_errors(self.folder):
            for namespace in sorted(_folders(self.folder)):
                for folder in _folders(namespace):
                    if folder.name != "files":
                        _prune(folder, newest, before)
                try:
                    needed = {digest for tree in self._trees(namespace) for digest in _digests(tree)}
                except msgspec.DecodeError as error:
                    unreadable = error
                else:
                    removed += self.contents(namespace.name).sweep(needed, before)
        if unreadable is not None:
            raise unreadable
        return removed

    def _path(self, volume: Volume) -> Path:
        return self.folder / volume.namespace / volume.id / f"v{volume.version}"

    def _trees(self, namespace: Path) -> Iterator[Tree]:
        for path in namespace.glob("*/v*"):
            if _VERSION.match(path.name):
                yield _tree.decode(path.read_bytes())


def _prune(folder: Path, newest: Collection[Path], before: float) -> None:
    """Old versions go, and with the last one the folder; not one that somebody may be about to write to."""
    unused = folder.stat().st_mtime < before
    for path in folder.iterdir():
        # A tree that is being written has its name only once it is whole: its draft is gone then.
        with suppress(FileNotFoundError):
            if path not in newest and path.stat().st_mtime < before:
                path.unlink()
    if unused:
        # It is not empty as long as a version is kept.
        with suppress(OSError):
            folder.rmdir()


def _digests(tree: Tree) -> Iterator[str]:
    return (entry.digest for entry in tree.values() if entry.digest)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
