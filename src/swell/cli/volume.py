"""What does `swell volume` do? Makes volumes, and reads and writes the files in them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, printable, progress, table
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.storage import Volumes
    from swell.wire.api import FileRow, VolumeRow

HEADS = ("VOLUME", "V", "CHANGED", "SIZE", "FILES", "APPS")
TELL_BYTES = 8 << 20
"""How far it is, is said anew after so many."""
_KINDS = {"file": "-", "dir": "d", "link": "l"}


@click.group()
def volume() -> None:
    """Make volumes, and read and write their files.

    A function has one with volumes={"/data": swell.Volume.from_name("NAME")}. Each command that writes makes a version:
    functions that start find it, those that run when they reload().
    """


def quota_options(command: options.F) -> options.F:
    """How much it may hold."""
    command = click.option("--files-max", metavar="N", type=click.IntRange(min=0), help="Files; 0: the server's.")(
        command
    )
    return click.option("--bytes-max", metavar="SIZE", help="Bytes, like 500MB or 10GiB; 0: the server's.")(command)


def connect(home: str | None, namespace: str) -> Volumes:
    """The volumes of a namespace."""
    from swell.sdk.storage import Volumes

    return Volumes(options.connect(home), namespace)


def bytes_of(text: str | None) -> int | None:
    """Of a size as people write it."""
    from swell.model.limits import size_of

    return None if text is None else 0 if text == "0" else size_of(text)


@volume.command(short_help="Make a volume.")
@click.argument("name", metavar="NAME")
@quota_options
@options.namespace
@options.home
def create(name: str, bytes_max: str | None, files_max: int | None, namespace: str, home: str | None) -> None:
    """Make an empty volume."""
    from swell.model.volume import Quota

    connect(home, namespace).create(name, Quota(bytes_of(bytes_max) or 0, files_max or 0))
    click.echo(f'{name} is made. A function has it with volumes={{"/data": swell.Volume.from_name("{name}")}}.')


@volume.command("list", short_help="List volumes.")
@options.namespace
@options.as_json
@options.home
def list_volumes(namespace: str, as_json: bool, home: str | None) -> None:
    """List volumes: their version, how much they hold, and the apps that use them."""
    rows = connect(home, namespace).rows()
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
    else:
        click.echo("There is no volume. `swell volume create NAME` makes one.")


def listing(rows: Sequence[VolumeRow], now: float) -> str:
    """One line for each."""
    from swell.model.workload import shown

    cells = [
        (
            row.name,
            f"v{row.version}",
            duration(now - row.at),
            size(row.size_bytes),
            str(row.files),
            " ".join(map(shown, row.apps)) or "-",
        )
        for row in rows
    ]
    return table(HEADS, cells, right=("CHANGED", "SIZE", "FILES"))


@volume.command("ls", short_help="List the files in a volume.")
@click.argument("name", metavar="NAME")
@click.argument("path", metavar="[PATH]", default="/")
@click.option("-r", "--recursive", is_flag=True, help="With all that is below.")
@options.namespace
@options.as_json
@options.home
def ls(name: str, path: str, recursive: bool, namespace: str, as_json: bool, home: str | None) -> None:
    """List what a folder of a volume holds."""
    rows = connect(home, namespace).listed(name, path, recursive)
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(table(("", "SIZE", "CHANGED", "PATH"), [_cells(row) for row in rows], right=("SIZE",)))
    else:
        click.echo("It is empty.")


def _cells(row: FileRow) -> tuple[str, str, str, str]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.at)) if row.at else "-"
    ends = {"dir": "/", "link": f" -> {row.target}"}.get(row.kind, "")
    return _KINDS[row.kind], size(row.size) if row.kind == "file" else "-", when, printable(row.path + ends, False)


@volume.command(short_help="Put a file or folder into a volume.")
@click.argument("name", metavar="NAME")
@click.argument("local", metavar="LOCAL", type=click.Path(exists=True, path_type=Path))
@click.argument("remote", metavar="[PATH]", default="/")
@click.option("-f", "--force", is_flag=True, help="Also over files that are there.")
@options.namespace
@options.home
def put(name: str, local: Path, remote: str, force: bool, namespace: str, home: str | None) -> None:
    """Put a file into a volume, or a folder with all that is in it. A PATH that ends in a slash is a folder for a file.

    All of it is there at the end, or nothing has changed. What is there already is not sent again.
    """
    from swell.sdk.storage import Source, found

    if local.is_dir():
        files = list(found(local, remote))
    else:
        files = [(f"{remote}{local.name}" if remote.endswith("/") else remote, Source.of_file(local))]
    with progress(f"putting {len(files)} {'file' if len(files) == 1 else 'files'}") as tell:
        connect(home, namespace).put(name, files, force, counting(tell))
    click.echo(f"{len(files)} {'file is' if len(files) == 1 else 'files are'} in {name}.")


@volume.command(short_help="Get a file or folder out of a volume.")
@click.argument("name", metavar="NAME")
@click.argument("remote", metavar="PATH")
@click.argument("local", metavar="[LOCAL]", default=".")
@click.option("-f", "--force", is_flag=True, help="Also over files that are here.")
@options.namespace
@options.home
def get(name: str, remote: str, local: str, force: bool, namespace: str, home: str | None) -> None:
    """Get a file out of a volume, or a folder with all that is in it; `-` writes the content of a file to standard
    output."""
    volumes = connect(home, namespace)
    if local == "-":
        volumes.fetch(name, remote, sys.stdout.buffer)
        return
    rows = [row for row in volumes.listed(name, remote, True) if row.kind == "file"]
    if not rows:
        raise SwellError("no_such_file", f"There is no file in {remote!r} of {name}.", status=404)
    places = [(row.path, place(row.path, remote.strip("/"), Path(local))) for row in rows]
    taken = next((path for _, path in places if path.exists()), None)
    if taken is not None and not force:
        raise SwellError("file_exists", f"{taken} is here already: with --force it is written over.", status=409)
    with progress(f"getting {len(rows)} {'file' if len(rows) == 1 else 'files'}") as tell:
        for (path, here), row in zip(places, rows, strict=True):
            here.parent.mkdir(parents=True, exist_ok=True)
            draft = here.with_name(f".{here.name}.part")
            try:
                with open(draft, "wb") as file:
                    volumes.fetch(name, path, file, counting(tell))
                draft.chmod(0o755 if row.executable else 0o644)
                draft.replace(here)
            finally:
                draft.unlink(missing_ok=True)
    click.echo(f"{len(rows)} {'file is' if len(rows) == 1 else 'files are'} here.")


def place(path: str, asked: str, local: Path) -> Path:
    """Where a file of a volume goes that was asked for by itself, or by a folder it is in."""
    if path == asked:
        return local / PurePosixPath(path).name if local.is_dir() else local
    top = PurePosixPath(asked).parent if asked else PurePosixPath()
    return local / PurePosixPath(path).relative_to(top)


def counting(tell: Callable[[str], None]) -> Callable[[int], None]:
    """Says on a terminal now and then how much it is by now; elsewhere that would be a line each time."""
    done = told = 0

    def more(count: int) -> None:
        nonlocal done, told
        done += count
        if done - told >= TELL_BYTES and sys.stderr.isatty():
            told = done
            tell(size(done))

    return more


@volume.command(short_help="Remove a file or folder from a volume.")
@click.argument("name", metavar="NAME")
@click.argument("path", metavar="PATH")
@click.option("-r", "--recursive", is_flag=True, help="A folder with all that is in it.")
@options.namespace
@options.home
def rm(name: str, path: str, recursive: bool, namespace: str, home: str | None) -> None:
    """Remove a file or folder."""
    row = connect(home, namespace).remove(name, path, recursive)
    click.echo(f"{path} is removed: {name} has {row.files} files.")


@volume.command(short_help="Copy files within a volume.")
@click.argument("name", metavar="NAME")
@click.argument("sources", metavar="PATH…", nargs=-1, required=True)
@click.argument("to", metavar="TO")
@click.option("-r", "--recursive", is_flag=True, help="Folders, too.")
@options.namespace
@options.home
def cp(name: str, sources: Sequence[str], to: str, recursive: bool, namespace: str, home: str | None) -> None:
    """Copy files within a volume: into the folder TO, or one under that name. It takes no room on the disk."""
    connect(home, namespace).copy(name, sources, to, recursive)
    click.echo(f"Copied to {to}.")


@volume.command(short_help="Give a volume another name.")
@click.argument("name", metavar="NAME")
@click.argument("new_name", metavar="NEW")
@options.namespace
@options.home
def rename(name: str, new_name: str, namespace: str, home: str | None) -> None:
    """Give a volume that no app uses another name."""
    connect(home, namespace).alter(name, new_name)
    click.echo(f"{name} is called {new_name} now.")


@volume.command(short_help="How much a volume may hold.")
@click.argument("name", metavar="NAME")
@quota_options
@options.namespace
@options.home
def quota(name: str, bytes_max: str | None, files_max: int | None, namespace: str, home: str | None) -> None:
    """Say how much a volume may hold. What is in it stays, also where that is more."""
    if bytes_max is None and files_max is None:
        raise click.UsageError("Give --bytes-max SIZE or --files-max N.")
    row = connect(home, namespace).alter(name, None, bytes_of(bytes_max), files_max)
    click.echo(f"{name} may hold {size(row.bytes_max)} and {row.files_max} files.")
    if row.size_bytes > row.bytes_max or row.files > row.files_max:
        held = f"{size(row.size_bytes)} and {row.files} files"
        click.echo(f"It holds {held} already: they stay, and nothing can be added before there is less.")


@volume.command(short_help="Delete a volume and all that is in it.")
@click.argument("name", metavar="NAME")
@click.option("--force", is_flag=True, help="Also where apps use it: what is to start there fails.")
@options.namespace
@options.home
def delete(name: str, force: bool, namespace: str, home: str | None) -> None:
    """Delete a volume with all its files. There is no way back."""
    connect(home, namespace).delete(name, force)
    click.echo(f"{name} is deleted.")


def size(count: int) -> str:
    """ "312 B", "4.0 KiB", "1.5 GiB"."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
