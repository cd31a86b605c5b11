"""What has to be copied so that a state can be had again? The database as it is at one moment, and the files it names.

What the database names is on disk before it does, and nothing of it is ever written again: so of all but a few small
files the copy is the files themselves, as long as nobody sweeps them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path

from swell.model.backup import DATABASE, KEY_FILES, LOST_MAX, MASTER_KEY, PRICES, Member
from swell.model.errors import SwellError
from swell.model.secret import SecretVersion
from swell.model.volume import Volume
from swell.store import faults, schema, state_id
from swell.store import statements as sql
from swell.store.calls import SqlCallRecords
from swell.store.sealing import MasterKeySealer
from swell.store.sqlite import SqliteStore, copy_database
from swell.store.tables import SqlSecrets
from swell.store.volumes import VolumeFolder

EPOCHS_APART = 1 << 14
"""A restored state begins with the next multiple of this: so often the server that it is a copy of may have been
started since, and still everything that it numbered by its epochs is older."""


class Named:
    """What a database names, read from a copy of it that is brought forward to the present schema."""

    def __init__(self, database: Path) -> None:
        store = SqliteStore(database)
        try:
            self.apps = store.world.apps()
            self.volumes: list[Volume] = store.volumes.all()
            self.secrets: list[SecretVersion] = store.secrets.versions()
            versions = [version.app for version in store.world.versions()]
        finally:
            store.close()
        revisions = (revision for app in (*self.apps, *versions) for revision in app.revisions)
        self.blobs = {revision.bundle for revision in revisions}
        self.results = _digests_of_calls(database)

    def trees(self) -> list[tuple[Volume, str]]:
        """Volumes that anything was ever put in, and the names of the files that say what is where."""
        return [(each, f"volumes/{each.namespace}/{each.id}/v{each.version}") for each in self.volumes if each.version]

    def contents(self, root: Path) -> Iterator[str]:
        """Names of the files whose names are digests, each once. What a tree that cannot be read names is left out."""
        yield from (f"blobs/{digest}" for digest in sorted(self.blobs))
        yield from (f"results/{digest}" for digest in sorted(self.results))
        files = VolumeFolder(root / "volumes")
        for namespace, volumes in groupby(self.volumes, lambda volume: volume.namespace):
            digests: set[str] = set()
            for volume in volumes:
                with suppress(SwellError):
                    digests.update(entry.digest for entry in files.read(volume).values() if entry.digest)
            yield from (f"volumes/{namespace}/files/{digest}" for digest in sorted(digests))


class Snapshot:
    """A state as it was at one moment. It is there until it is closed, while nothing is swept."""

    def __init__(self, root: Path, folder: Path, key_files: bool, copy: Callable[[Path], None]) -> None:
        """`folder`: for copies, made here; `copy` copies the database to a path."""
        self._root = root
        self._folder = folder
        with faults.as_swell_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        try:
            self._take(key_files, copy)
        except BaseException:
            self.close()
            raise

    def _take(self, key_files: bool, copy: Callable[[Path], None]) -> None:
        copied = self._folder / DATABASE
        copy(copied)
        self._named = Named(copied)
        # What people may write to meanwhile is copied, too.
        with faults.as_swell_errors(self._folder):
            for name in (PRICES, *(KEY_FILES if key_files else ())):
                with suppress(FileNotFoundError):
                    shutil.copyfile(self._root / name, self._folder / name)
        self.schema = schema.migrations()[-1].number
        self.lost: list[str] = []
        """Names of what should be there and cannot be read: the first of them."""
        self.lost_count = self.contents = self.contents_bytes = 0
        self.members = tuple(self._members())
        for _, size in self.contents_found(self._lose):
            self.contents += 1
            self.contents_bytes += size

    def _members(self) -> Iterator[Member]:
        for name in (DATABASE, PRICES, *KEY_FILES):
            if (self._folder / name).exists():
                yield self._member(name)
        files = VolumeFolder(self._root / "volumes")
        for volume, name in self._named.trees():
            try:
                files.read(volume)
            except SwellError:
                self._lose(name)
            else:
                yield self._member(name)

    def _member(self, name: str) -> Member:
        path = self.path(name)
        with faults.as_swell_errors(Path(path)), open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256")
            return Member(name, file.tell(), f"sha256-{found.hexdigest()}")

    def contents_found(self, lose: Callable[[str], None] = lambda _name: None) -> Iterator[tuple[str, int]]:
        """Name and size of each file of contents that is there; `lose` hears of the others."""
        for name in self._named.contents(self._root):
            try:
                yield name, os.stat(self.path(name)).st_size
            except OSError:
                lose(name)

    def path(self, name: str) -> str:
        """Where the file of that name is."""
        return str(self._root / name if "/" in name else self._folder / name)

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lose(self, name: str) -> None:
        self.lost_count += 1
        if len(self.lost) < LOST_MAX:
            self.lost.append(name)


class StateFolder:
    """The `State` port over a state directory: the database is copied by `copy`, or (none) is in it, and no server has
    it open."""

    def __init__(self, root: Path, copy: Callable[[Path], None] | None = None) -> None:
        self._root = root
        self._copy = copy or self._copied
        self._folder = root / "backup"
        # What a process left that was killed.
        shutil.rmtree(self._folder, ignore_errors=True)

    def snapshot(self, key_files: bool) -> Snapshot:
        """The state now: all that was written before, and of what is written meanwhile none of it."""
        return Snapshot(self._root, self._folder, key_files, self._copy)

    def _copied(self, target: Path) -> None:
        database = self._root / DATABASE
        if not database.exists():
            words = f"There is no state in {self._root} to back up: no server ever ran there. --home names another."
            raise SwellError("no_state", words, status=404)
        state_id.check_file(self._root, database)
        copy_database(database, target)


def settle(root: Path, present: Callable[[str], bool], paused_at: float | None) -> tuple[Named, list[str], int]:
    """Make a copy of a state, on which no server ever ran, one that a server can go on with: its schema is the present
    one, what it numbers by epochs is newer than whatever the original did, and its id another. Its triggers, which the
    original may have fire still, are paused since `paused_at`, if that is not None. Returns what it names, what of that
    is not `present`, and how many triggers it paused."""
    database = root / DATABASE
    named = Named(database)
    names = (*(name for _, name in named.trees()), *named.contents(root))
    lacking = [name for name in names if not present(name)]
    try:
        connection = sqlite3.connect(database, isolation_level=None)
        try:
            connection.execute(sql.NEXT_EPOCHS, (EPOCHS_APART,))
            connection.execute(sql.DROP_STATE_ID)
            paused = connection.execute(sql.PAUSE_TRIGGERS, (paused_at,)).rowcount if paused_at is not None else 0
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise faults.of_database(database, error) from error
    return named, lacking, paused


def secrets(database: Path) -> list[SecretVersion]:
    """Those of a database as it lies there, of whatever schema; none where there is none."""
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            read = SqlSecrets(lambda *_: 0, lambda words, *values: connection.execute(words, values).fetchall())
            return read.versions()
    except sqlite3.Error as error:
        raise faults.of_database(database, error) from error


def sealed(root: Path, secrets: Iterable[SecretVersion]) -> list[tuple[str, str]]:
    """Namespace and name of each secret whose newest version cannot be opened with the master key there is."""
    newest = {(each.namespace, each.name): each for each in secrets}
    if not (root / MASTER_KEY).exists():
        return sorted(newest)
    sealer = MasterKeySealer(root / MASTER_KEY)

    def opens(version: SecretVersion) -> bool:
        try:
            sealer.open(version.sealed, version.about)
        except SwellError:
            return False
        return True

    return sorted(key for key, version in newest.items() if not opens(version))


def _digests_of_calls(database: Path) -> set[str]:
    """Of the results of queued calls that are in files."""
    connection = sqlite3.connect(database)
    try:
        calls = SqlCallRecords(lambda statement, *values: connection.execute(statement, values).fetchall())
        return set(calls.digests())
    finally:
        connection.close()
