"""`swell backup`: all that a server keeps, in one file."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import patience
from swell.cli.volume import size
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.model.backup import Manifest
    from swell.wire.settings import Settings


@click.command(short_help="Write all that a server keeps to a file.")
@click.argument("file", metavar="FILE")
@click.option("--key-files", is_flag=True, help="With the server's keys: who has the file can open its secrets then.")
@click.option("--force", is_flag=True, help="Also over a file that is there.")
@options.home
def backup(file: str, key_files: bool, force: bool, home: str | None) -> None:
    """Write all that the server keeps to FILE, or (-) to standard output, while it runs or is stopped.

    Apps with their source, secrets (sealed), volumes, dicts, queues, API keys, records and usage, as they are now. Logs
    and built environments are not in it. `swell restore FILE` makes a server of it.
    """
    chosen = options.chosen(home)
    with _target(file, force) as into, _source(chosen, key_files) as pieces:
        told, done = written(pieces, into, chosen.base_url if _is_up(chosen) else str(chosen.paths.root))
    where = "standard output" if file == "-" else file
    click.echo(f"All that the server keeps is in {where}: {size(done)}.", err=True)
    for words in notes(told):
        click.echo(words, err=True)


def notes(told: Manifest) -> Iterator[str]:
    """What who has the backup should know."""
    if told.key_files:
        yield f"The keys are in it ({', '.join(told.key_files)}): who has it can be the server, and open its secrets."
    else:
        yield "The keys are not: keep a copy of master.key elsewhere, without it no secret can be opened."
    if told.lost_count:
        yield f"Not there any more, and so not in it: {_some(told.lost, told.lost_count)}."


def _some(names: tuple[str, ...], count: int) -> str:
    shown = ", ".join(names[:3])
    return shown if count <= 3 else f"{shown} and {count - 3} more"


def written(pieces: Iterator[bytes], into: IO[bytes], source: str) -> tuple[Manifest, int]:
    """Write a backup, and look whether it is whole while it is written. Returns its manifest and bytes."""
    from swell.wire.archive import Reader

    arriving = Arriving(pieces, into)
    begun: list[Manifest] = []

    def look() -> str:
        return f"{size(arriving.count)} of {size(begun[0].size)}" if begun else "the database is copied"

    with patience("backing up", look):
        reader = Reader(arriving.read, f"What {source} sent")
        begun.append(reader.manifest)
        for _, member in reader.members():
            for _ in member:
                pass
        # What a tar ends with is written, too.
        while arriving.read(1 << 20):
            pass
    return reader.manifest, arriving.count


class Arriving:
    """Bytes that come in pieces, written down as they are read."""

    def __init__(self, pieces: Iterator[bytes], into: IO[bytes]) -> None:
        self._pieces = pieces
        self._into = into
        self._piece = memoryview(b"")
        self.count = 0
        """Bytes that came so far."""

    def read(self, most: int) -> bytes:
        """The next ones; none at the end."""
        if not self._piece:
            piece = next(self._pieces, b"")
            self._into.write(piece)
            self.count += len(piece)
            self._piece = memoryview(piece)
        found, self._piece = self._piece[:most], self._piece[most:]
        return bytes(found)


def _is_up(chosen: Settings) -> bool:
    from swell.supervise.lock import holder

    # Without a port it does not listen yet, or is no server: another backup of a stopped one, say, which has the lock.
    found = holder(chosen.paths)
    return bool(chosen.url or (found is not None and found.port))


@contextmanager
def _source(chosen: Settings, key_files: bool) -> Iterator[Iterator[bytes]]:
    """The backup as it comes: of a server that runs, from it; else of its state directory."""
    if _is_up(chosen):
        from swell.sdk.client import Client

        yield Client.from_settings(chosen).backup(key_files)
        return
    from swell import stopped
    from swell.supervise.lock import Lock

    if not stopped.has_state(chosen.paths, chosen.store):
        words = f"No server ever ran on {chosen.paths.root}: there is nothing to back up. --home names another."
        raise SwellError("no_state", words, status=404)
    lock = Lock(chosen.paths)
    try:
        with stopped.backed_up(chosen.paths, key_files, time.time, chosen.store) as pieces:
            yield pieces
    finally:
        lock.release()


@contextmanager
def _target(file: str, force: bool) -> Iterator[IO[bytes]]:
    """Where it is written. The file is there once all of it is, and on disk."""
    if file == "-":
        if sys.stdout.isatty():
            raise click.UsageError("A backup is nothing to look at: send it to a file, or to a program.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    _check_free(path, force)
    draft = path.with_name(f"{path.name}.part")
    fd = _drafted(draft)
    try:
        with open(fd, "wb") as into:
            yield into
            into.flush()
            os.fsync(fd)
            _check_free(path, force)
            draft.replace(path)
        _sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _drafted(draft: Path) -> int:
    """The file that is being written, for this user alone; of one that was killed, what it left is written over."""
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SwellError("not_writable", f"{draft} cannot be written: {error.strerror}.") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            raise SwellError("not_writable", f"{draft} is there, and is no file of yours: remove it.")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.stat(draft), found)
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise SwellError("file_exists", f"Another backup is being written to {draft} now.", status=409)
        os.fchmod(fd, 0o600)
        os.truncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_free(path: Path, force: bool) -> None:
    if path.is_dir():
        raise SwellError("file_exists", f"{path} is a directory: name a file in it.", status=409)
    if path.exists() and not force:
        raise SwellError("file_exists", f"{path} is here already: with --force it is written over.", status=409)


def _sync(folder: Path) -> None:
    """Have the file's name on disk, too; not every file system can be told."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
