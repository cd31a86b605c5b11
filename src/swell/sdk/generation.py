"""How does one state of a program's source get onto a server, for `swell serve`?

Each in a process of its own, since what was imported cannot be imported anew with nothing of it left: imports the
program, deploys it, and then tells when its source changes. What it tells are lines of JSON on a pipe; the program's
own output goes where that of `swell serve` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from swell.model.errors import SwellError
from swell.model.owner import Owner

SUFFIX = "-dev"
"""Of the app's name on the server: what is deployed to stay is beside it."""


class Task(msgspec.Struct, frozen=True):
    """What is to be served."""

    reference: str
    name: str
    """On the server; empty: made of the app's own."""
    namespace: str
    owner: Owner


class Said(msgspec.Struct, frozen=True, tag="said"):
    """How the deploy goes."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It cannot be imported or deployed; nothing changed on the server."""

    code: str
    message: str
    detail: str = ""
    notes: tuple[str, ...] = ()


class Live(msgspec.Struct, frozen=True, tag="live"):
    """It serves."""

    name: str
    urls: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    hooked: tuple[str, ...]
    """Workloads that have exit hooks."""
    files: int
    """How many are watched."""


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """Its source did; the paths are those of the files."""

    paths: tuple[str, ...]


Told = Said | Failed | Live | Changed


def main(words: Sequence[str]) -> int:
    """`words`: a Task as JSON, and the number of the pipe."""
    task = msgspec.json.decode(words[0], type=Task)
    told = os.fdopen(int(words[1]), "wb", buffering=0)
    parent = os.getppid()
    try:
        return _serve(task, partial(_tell, told), parent)
    except SwellError as error:
        _tell(told, Failed(error.code, error.message, error.detail, tuple(getattr(error, "__notes__", ()))))
    except BrokenPipeError:
        # Nobody listens any more.
        pass
    return 1


def _tell(told: BinaryIO, message: Told) -> None:
    told.write(msgspec.json.encode(message) + b"\n")


def _serve(task: Task, tell: partial[None], parent: int) -> int:
    from swell.sdk import load, run, watch
    from swell.sdk.bridge import drive

    app = load.app(task.reference)
    name = task.name or f"{app.name or Path(run.shown_source(app)).stem or 'app'}{SUFFIX}"
    notes: list[str] = []
    # Before it is packed: what changes from here on is a change.
    entries = watch.sources(app) if app.declared else []
    before = watch.stamps(entries)
    done = drive(
        run.deploy(
            app,
            name=name,
            namespace=task.namespace,
            owner=task.owner,
            progress=lambda text: tell(Said(text)),
            note=notes.append,
        )
    )
    tell(Live(name, tuple(done.urls), tuple(notes), tuple(run.hooked(app)), len(before)))
    look = partial(watch.stamps, entries)
    for paths in watch.changes(look, before, lambda: os.getppid() == parent):
        tell(Changed(tuple(os.path.relpath(path) for path in paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
