"""`swell node`: say of the machine that it is about to go, or that it stays after all."""

from __future__ import annotations

import os
import time

import click

from swell.cli import options
from swell.cli.output import clock, duration
from swell.model.errors import SwellError
from swell.wire.paths import Home


@click.group()
def node() -> None:
    """Say that this machine is about to go, or stays.

    For machines that may be taken away with a notice, as spot instances are: what gets that notice runs this.
    """


@node.command(short_help="This machine goes in a while.")
@click.option(
    "--in", "in_s", type=options.Duration(), default="2m", show_default=True, help="So long it is there: 30s, 2m, …"
)
@options.home
def leave(in_s: float, home: str | None) -> None:
    """Have nothing more placed on this machine, and its jobs give way: they keep what they have done, within the time
    that is left, and go back to the queue. All else goes on until the machine goes."""
    place, at = _running(home), time.time() + in_s
    fresh = place.leaving.with_suffix(".tmp")
    fresh.write_text(f"{at:.3f}\n")
    os.replace(fresh, place.leaving)
    click.echo(f"This machine goes at {clock(at)}, in {duration(in_s)}. `swell node stay` takes that back.")


@node.command(short_help="This machine stays after all.")
@options.home
def stay(home: str | None) -> None:
    """Take back what `swell node leave` said. A server that is started anew knows nothing of it either."""
    _running(home).leaving.unlink(missing_ok=True)
    click.echo("This machine stays.")


def _running(home: str | None) -> Home:
    """The state directory of the server that runs here."""
    from swell.supervise.lock import holder

    chosen = options.chosen(home)
    if chosen.url or holder(chosen.paths) is None:
        words = "No server runs on this machine with this state directory (--home): only its own machine can say so."
        raise SwellError("no_server", words)
    return chosen.paths
