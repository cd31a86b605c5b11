"""`swell node`: say of the machine that it is about to go, or that it stays after all."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import clock, duration, json_text, mebibytes, table
from swell.model.errors import SwellError
from swell.model.gpu import Gpu, there
from swell.wire.paths import Home

if TYPE_CHECKING:
    from swell.wire.nodes import NodeRow


HEADS = ("NODE", "STATE", "CPU", "MEMORY", "GPUS")


@click.group(short_help="List nodes; say that one goes, or stays.")
def node() -> None:
    """List what replicas run on; say that this machine is about to go, or stays.

    The latter is for machines that may be taken away with a notice, as spot instances are: what gets it runs this.
    """


@node.command("list", short_help="What replicas run on, and what is free of it.")
@options.as_json
@options.home
def list_(as_json: bool, home: str | None) -> None:
    """List nodes: whether they stay, and what nobody has of their CPU (times cpu_overcommit), memory and GPUs.

    --json has each GPU by its id.
    """
    nodes = options.connect(home).nodes()
    if as_json:
        click.echo(json_text(nodes))
    elif nodes:
        click.echo(table(HEADS, [_cells(row) for row in nodes]))
    else:
        click.echo("No node is there yet: control has just begun, and the runner has not told of it.")


def _cells(row: NodeRow) -> tuple[str, ...]:
    cpu = f"{row.cpu_left:.4g} free, {row.cpu:g} cores"
    memory = f"{mebibytes(row.memory_left_mib)} of {mebibytes(row.memory_mib)} free"
    gpus = [Gpu(gpu.id, gpu.model, gpu.memory_mib) for gpu in row.gpus]
    return row.id, _state(row), cpu, memory, there(gpus, {gpu.id: int(gpu.free) for gpu in row.gpus})


def _state(row: NodeRow) -> str:
    """ "there", "goes at 12:00:00.000, spot"."""
    state = "lost" if not row.alive else "there" if row.leaving_at is None else f"goes at {clock(row.leaving_at)}"
    return f"{state}, spot" if row.spot else state


@node.command(short_help="This machine goes in a while.")
@click.option(
    "--in", "in_s", type=options.Duration(), default="2m", show_default=True, help="So long it is there: 30s, 2m, …"
)
@options.home
def leave(in_s: float, home: str | None) -> None:
    """Have nothing more placed on this machine, and no queued call begun. Its jobs give way: they keep what they have
    done, within the time that is left, and go back to the queue. Other queued calls hear of it (swell.stopping()), and
    use up no attempt if they are not done by then. All else goes on until the machine goes."""
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
