"""What is done with a state directory that no server runs on? It is backed up, and it is made of a backup.

Who calls this holds the directory's lock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from swell.model.backup import DATABASE, Manifest, digest_in, is_top
from swell.model.errors import SwellError
from swell.store import faults, kept, schema, snapshot, state_id
from swell.store.sqlite import SqliteStore
from swell.wire.archive import Reader
from swell.wire.paths import Home

_SHARED_MODE = 0o666
"""Of contents of volumes: replicas see these files (`store/volumes`)."""


class Restored(msgspec.Struct, frozen=True):
    """What came of a backup."""

    manifest: Manifest
    apps: int
    volumes: int
    sealed: tuple[tuple[str, str], ...]
    """Namespace and name of each secret that cannot be opened."""
    lacking: tuple[str, ...]
    """Names of files that the state names and that were not in the backup."""
    forward: bool
    """It was of an older schema and was brought forward."""
    paused: int
    """Triggers that fired, and are paused."""


@contextmanager
def backed_up(home: Home, key_files: bool, now: Callable[[], float], store: str = "") -> Iterator[Iterator[bytes]]:
    """The stream of a backup of a state directory, whose database is in it or (`store`) at an address."""
    from swell.control.backups import manifest, pieces

    copy = partial(kept.copied, store, home.root) if store else None
    taken = snapshot.StateFolder(home.root, copy).snapshot(key_files)
    try:
        yield pieces(taken, manifest(taken, now(), version("swell")))
    finally:
        taken.close()


def has_state(home: Home, store: str) -> bool:
    """Did a server ever run on it?"""
    return (home.root / state_id.FILE if store else home.database).exists()


def check_empty(home: Home, ours: Collection[Path]) -> None:
    """Refuse to restore into a directory that has anything in it, but for what is `ours` or a restore broke off."""
    with faults.as_swell_errors(home.root):
        there = sorted(home.root.iterdir()) if home.root.is_dir() else []
    kept = [path for path in there if path not in ours]
    # Whatever a restore broke off left is taken away by the next one.
    unfinished = home.restoring in kept and all(path == home.restoring or is_top(path.name) for path in kept)
    if kept and not unfinished:
        words = (
            f"{home.root} is not empty (there is {kept[0].name!r}), and a backup is restored into an empty directory "
            "only: move it away, or name another with --home."
        )
        raise SwellError("home_not_empty", words, status=409)


def restore(reader: Reader, home: Home, ours: Collection[Path], fires: bool = False, store: str = "") -> Restored:
    """Make a state directory of a backup: all of it, or nothing is changed. `ours` stays: what its caller has there.
    `fires`: its triggers are not paused, as they are otherwise, since what was backed up may run still. `store`: the
    address that its database is put to."""
    check_empty(home, ours)
    if store:
        kept.check_free(store)
    told = reader.manifest
    known = schema.migrations()[-1].number
    if told.schema > known:
        words = (
            f"The backup was made by Swell {told.version}, whose tables are newer (number {told.schema}, and here "
            f"{known} is the last). Restore it with that version, or a newer one."
        )
        raise SwellError("backup_newer", words)
    draft = home.restoring
    with faults.as_swell_errors(draft):
        _clear(home, ours)
        draft.mkdir(mode=0o700)
    try:
        for name, pieces in reader.members():
            _write(draft / name, pieces, _SHARED_MODE if name.startswith("volumes/") and digest_in(name) else 0o600)
        if not (draft / DATABASE).exists():
            raise SwellError("bad_backup", "There is no database in the backup: take another one.")
        paused_at = None if fires else told.made_at
        named, lacking, paused = snapshot.settle(draft, lambda name: (draft / name).exists(), paused_at)
        sealed = snapshot.sealed(draft, named.secrets)
        if store:
            _put_elsewhere(draft, store)
        _put_in_place(home)
    except BaseException:
        _clear(home, ours)
        raise
    forward = told.schema < known
    return Restored(told, len(named.apps), len(named.volumes), tuple(sealed), tuple(lacking), forward, paused)


def sealed(home: Home) -> list[tuple[str, str]]:
    """Namespace and name of each secret that a server could not open with the master key that is there. Nothing is
    changed, so this needs no lock; a database that cannot be read says nothing here."""
    try:
        return snapshot.sealed(home.root, snapshot.secrets(home.database))
    except SwellError:
        return []


def _clear(home: Home, ours: Collection[Path]) -> None:
    """Take away what a restore brought; what was unpacked goes last, since it says that the rest is not whole."""
    for path in sorted(home.root.iterdir(), key=lambda path: path == home.restoring):
        if path in ours:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write(path: Path, pieces: Iterator[bytes], mode: int) -> None:
    """One file of the backup."""
    with faults.as_swell_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fchmod(fd, mode)


def _put_elsewhere(draft: Path, store: str) -> None:
    """The database goes where it is to be, and the id that it shares with the files stays here. If nothing comes of the
    files after that, it may be put there once more: no server has run on it."""
    with closing(SqliteStore(draft / DATABASE)) as made:
        state_id.settle(draft, made.name, made, inside=True)
    kept.load(store, draft / DATABASE)
    (draft / DATABASE).unlink()


def _put_in_place(home: Home) -> None:
    """Give everything its name; the folder that says that it is not whole yet goes last."""
    with faults.as_swell_errors(home.root):
        # One call for all: there may be a hundred thousand files.
        os.sync()
        for path in sorted(home.restoring.iterdir()):
            path.rename(home.root / path.name)
        os.sync()
        home.restoring.rmdir()
        os.sync()
