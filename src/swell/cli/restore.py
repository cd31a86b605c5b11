"""`swell restore`: a state directory out of a backup."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import patience
from swell.cli.volume import size
from swell.model.errors import SwellError
from swell.model.urls import shown

if TYPE_CHECKING:
    from swell.stopped import Restored
    from swell.wire.paths import Home


@click.command(short_help="Make a state directory of a backup.")
@click.argument("file", metavar="FILE")
@click.option("--fire", is_flag=True, help="Its triggers fire as they did: the former server is gone.")
@options.home
def restore(file: str, fire: bool, home: str | None) -> None:
    """Make a state directory of what `swell backup` wrote to FILE, or (-) of standard input.

    The directory must be empty, or not there; where SWELL_STORE names a database, the state is put into that, in which
    no server may have run. All of the backup is there at the end, checked, or nothing is. `swell up` starts the server.
    Its triggers are paused, since the former server may have them fire still; not so with --fire.
    """
    from swell import stopped
    from swell.supervise.lock import holder
    from swell.wire.archive import Reader

    chosen = options.chosen(home)
    paths = chosen.paths
    if holder(paths) is None:
        stopped.check_empty(paths, [paths.lock])
    with _opened(file) as source, _held(paths):
        stopped.check_empty(paths, [paths.lock])
        reader = Reader(source.read, "Standard input" if file == "-" else file)
        with patience("restoring", lambda: f"{size(reader.done)} of {size(reader.manifest.size)}"):
            done = stopped.restore(reader, paths, [paths.lock], fire, chosen.store)
    for words in told(done, paths, shown(chosen.store)):
        click.echo(words)


def told(done: Restored, paths: Home, store: str = "") -> Iterator[str]:
    """What came of it, and what its owner has to do yet."""
    from swell.model.backup import MASTER_KEY

    backup = done.manifest
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(backup.made_at))
    apps, volumes = _count(done.apps, "app"), _count(done.volumes, "volume")
    where = f"{paths.root}, with its state in {store}," if store else f"{paths.root}"
    yield f"{where} is as it was on {when}, with {apps} and {volumes}. `swell up --home {paths.root}` starts it."
    if done.forward:
        yield f"It was made by Swell {backup.version}, and was brought forward to this version."
    if "key" not in backup.key_files:
        yield "The server's own key was not in it: the first start makes another. API keys go on working."
    if done.sealed:
        way = "put the copy that you have of it there before the first start"
        if MASTER_KEY in backup.key_files:
            way = "the backup's is not the one that they were sealed with"
        yield f"Secrets that cannot be opened without their {paths.master_key}: {sealed_words(done.sealed)}; {way}."
    if done.paused:
        are = "is" if done.paused == 1 else "are"
        yield (
            f"{_count(done.paused, 'trigger')} {are} paused, since the former server may have them fire still: "
            "`swell trigger resume APP/NAME`, once this one is up."
        )
    if done.lacking:
        yield f"{_count(len(done.lacking), 'file')} had been lost before the backup, {done.lacking[0]} among them."


def sealed_words(sealed: Sequence[tuple[str, str]]) -> str:
    """Secrets that cannot be opened, as a list."""
    from swell.model.secret import APP_OWNED

    named = [f"{space}/{name}" for space, name in sealed if not name.startswith(APP_OWNED)]
    own = len(sealed) - len(named)
    what = [*([", ".join(named)] if named else []), *([f"what {_count(own, 'deploy')} brought along"] if own else [])]
    return ", and ".join(what)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SwellError("no_such_file", f"{file} cannot be read: {error.strerror}.") from None
    with source:
        try:
            yield source
        except IsADirectoryError:
            raise SwellError("no_such_file", f"{file} is a directory: name a backup.") from None


@contextmanager
def _held(paths: Home) -> Iterator[None]:
    """The directory, made where it is not there, and its lock. A directory that was made for nothing goes again."""
    from swell.supervise.lock import Lock, writing

    made = not paths.root.exists()
    with writing(paths):
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    had_lock = paths.lock.exists()
    with ExitStack() as undone:
        if made:
            undone.callback(shutil.rmtree, paths.root, ignore_errors=True)
        elif not had_lock:
            undone.callback(paths.lock.unlink, missing_ok=True)
        try:
            lock = Lock(paths)
        except SwellError as error:
            if error.code == "home_in_use":
                # Another has it since we looked: it is not ours to remove.
                undone.pop_all()
            raise
        try:
            yield
            undone.pop_all()
        finally:
            lock.release()
