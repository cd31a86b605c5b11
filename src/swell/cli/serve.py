"""`swell serve`: an app on a server while its author works on it; each change that is saved is live at once.

Each state of the source is a process of its own (`sdk/generation.py`): it imports, deploys, and tells of changes. The
last one that could be deployed goes on telling while the next is under way, and where that fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, progress, show_error, table
from swell.cli.session import server, shower, told_to_end
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.generation import Changed, Failed, Live, Task, Told
    from swell.sdk.presence import Presence

NAMED_MAX = 3
"""Changed files that are named; of more it is said how many."""
END_S = 2.0
"""A generation has this long to end when it is told to."""


@click.command(short_help="Try an app out; each change you save is live at once.")
@click.argument("reference", metavar="FILE[::APP]")
@click.option("--name", metavar="NAME", default="", help="Serve under this name instead of the app's own and -dev.")
@options.namespace
@options.home
def serve(reference: str, name: str, namespace: str, home: str | None) -> None:
    """Put the app in FILE (a path, or a module's name) on a server until Ctrl-C, and again whenever its source changes.

    Where a change cannot be imported or deployed, the error is shown and what was there before goes on. A server is
    started where there is none.
    """
    from swell.sdk import load
    from swell.sdk.generation import Task
    from swell.sdk.presence import me

    # Before anything is begun for it.
    load.find(reference.partition("::")[0])
    if home is not None:
        # Not only for us: the user's own code may look up deployed apps, too.
        os.environ["SWELL_HOME"] = home
    with told_to_end(), ExitStack() as held:
        with progress(f"Starting {reference}") as tell:
            held.enter_context(server(tell))
        serving = _Serving(Task(reference, name, namespace, me()))
        held.callback(serving.end)
        serving.begin(f"Serving {reference}")
        while True:
            serving.step()


class _Generation:
    """One process, and what it tells."""

    def __init__(self, task: Task, heard: SimpleQueue[tuple[_Generation, Told | None]]) -> None:
        import msgspec

        reads, writes = os.pipe()
        words = [msgspec.json.encode(task).decode(), str(writes)]
        # A group of its own: a Ctrl-C is for us, and we tell it. -P as for `swell` itself: no folder but the program's.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "swell.sdk.generation", *words],
            stdin=subprocess.DEVNULL,
            pass_fds=(writes,),
            process_group=0,
        )
        os.close(writes)
        self._heard = heard
        Thread(target=self._read, args=(reads,), daemon=True).start()

    def _read(self, reads: int) -> None:
        import msgspec

        from swell.sdk.generation import Told

        decoder: msgspec.json.Decoder[Told] = msgspec.json.Decoder(Told)
        with os.fdopen(reads, "rb") as lines:
            for line in lines:
                self._heard.put((self, decoder.decode(line)))
        self._heard.put((self, None))

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Serving:
    """What serves, what is to follow it, and what changed meanwhile."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._heard: SimpleQueue[tuple[_Generation, Told | None]] = SimpleQueue()
        self._live: _Generation | None = None
        self._coming: _Generation | None = None
        self._missed: list[str] = []
        """Files that changed since what is coming was begun."""
        self._begun_at = 0.0
        self._saying = ExitStack()
        self._presence: Presence | None = None
        self._hooked: tuple[str, ...] = ()
        self._noted: tuple[str, ...] = ()

    def begin(self, title: str) -> None:
        """Import and deploy the source as it is now."""
        self._missed, self._begun_at = [], time.monotonic()
        self._tell = self._saying.enter_context(progress(title))
        self._coming = _Generation(self.task, self._heard)

    def step(self) -> None:
        """Wait for the next that is told, and act on it."""
        from swell.sdk.generation import Changed, Failed, Live, Said

        who, told = self._heard.get()
        if who is self._coming:
            match told:
                case Said():
                    self._tell(told.text)
                case Live():
                    self._serves(who, told)
                case Failed():
                    self._failed(who, told)
                case None:
                    code = who.process.wait()
                    self._failed(who, Failed("import", f"Importing {self.task.reference} ended with exit code {code}."))
        elif who is self._live:
            if isinstance(told, Changed):
                self._changed(told)
            elif told is None:
                raise SwellError("watch_lost", "What watched the source is gone: start `swell serve` again.")

    def _changed(self, told: Changed) -> None:
        if self._coming is not None:
            self._missed += told.paths
            return
        self.begin(f"{_named(told.paths)} changed: reloading")

    def _serves(self, who: _Generation, told: Live) -> None:
        self._saying.close()
        first, before = self._live is None, self._live
        self._live, self._coming, self._hooked = who, None, told.hooked
        if before is not None:
            before.end()
        if first:
            self._show(told)
        else:
            click.echo(f"Reloaded in {duration(time.monotonic() - self._begun_at)}.", err=True)
        for note in told.notes:
            if note not in self._noted:
                click.echo(f"Note: {note}.", err=True)
        self._noted = told.notes
        # What it did not import it packed, or it sees itself that it changed.
        self._again([path for path in self._missed if path.endswith(".py")])

    def _show(self, told: Live) -> None:
        """Where it answers; and from now on what it writes."""
        import msgspec

        from swell.sdk.client import Client
        from swell.sdk.presence import Presence

        # However its author may call it from now on, it stays the same app.
        self.task = msgspec.structs.replace(self.task, name=told.name)
        client, task = Client.from_settings(), self.task
        self._presence = Presence(client, task.namespace, told.name, task.owner, self._begun_at)
        self._presence.follow(shower())
        click.echo(table(("WORKLOAD", "URL"), sorted(told.urls)))
        click.echo(f"Watching {told.files} {'file' if told.files == 1 else 'files'}; Ctrl-C ends it.", err=True)

    def _failed(self, who: _Generation, told: Failed) -> None:
        self._saying.close()
        self._coming = None
        who.end()
        if self._live is None:
            error = SwellError(told.code, told.message, detail=told.detail)
            error.__notes__ = list(told.notes)
            raise error
        show_error(told.message, told.detail, told.notes)
        click.echo("What was there before still serves.", err=True)
        self._again(self._missed)

    def _again(self, paths: Sequence[str]) -> None:
        if paths:
            self.begin(f"{_named(paths)} changed meanwhile: reloading")

    def end(self) -> None:
        """Stop watching, then the app; exit hooks are heard."""
        from swell.sdk.bridge import drive

        self._saying.close()
        for each in (self._coming, self._live):
            if each is not None:
                each.end()
        if (there := self._presence) is None:
            return
        try:
            # Where it cannot be stopped, somebody else did, or the server is gone.
            drive(there.stop(self._hooked))
            drive(there.hear_out())
        finally:
            there.close()


def _named(paths: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(paths))
    return ", ".join(distinct) if len(distinct) <= NAMED_MAX else f"{len(distinct)} files"
