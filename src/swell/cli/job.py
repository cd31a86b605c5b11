"""`swell job`: calls that several replicas work on together, from their start to their end."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from swell.cli import options
from swell.cli.call import whole_target
from swell.cli.calls import STATES, amount, called, result
from swell.cli.output import clock, duration, json_text, progress, show_line, table, wrapped
from swell.cli.run import arguments
from swell.model.call import PRIORITY_MAX
from swell.model.errors import SwellError, brief
from swell.model.replica import Phase
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.sdk.protocol import Request
    from swell.wire.api import LogRow, WorkloadRow
    from swell.wire.call_rows import CallRow

HEADS = ("JOB", "STATE", "AGO", "TRIES", "NODES", "FUNCTION", "PROGRESS/ERROR")
LOOK_S = 1.0
"""How often it is looked how far a job is."""
AWAY_S = 60.0
"""For so long a server that does not answer is asked again."""
AWAY = ("no_server", "connection_lost", "control_down", "server_failed", "no_answer", "busy")
"""Errors that tell nothing of the job."""


@click.group()
def job() -> None:
    """Run, list, show and stop jobs.

    A job is a call of a function with nodes= or @clustered: several replicas work on it, which start together or not
    at all. It is a queued call, so `swell calls` knows it, too.
    """


@job.command(
    context_settings={"allow_interspersed_args": False}, short_help="Start a job, and show it until it has ended."
)
@click.option("-d", "--detach", is_flag=True, help="Only start it, and print its id.")
@click.option(
    "--priority",
    type=click.IntRange(-PRIORITY_MAX, PRIORITY_MAX),
    default=0,
    metavar="N",
    help=(
        f"Higher ones go first, and may take the room of lower ones: -{PRIORITY_MAX} to {PRIORITY_MAX}. Above 0 an API "
        "key needs deploy."
    ),
)
@options.namespace
@options.home
@click.argument("reference", metavar="FILE::FUNCTION | APP/FUNCTION")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--ARG VALUE]… | [JSON]")
def run(detach: bool, priority: int, namespace: str, home: str | None, reference: str, words: tuple[str, ...]) -> None:
    """Deploy the app of FILE and start FUNCTION there, or start one that is deployed (APP/FUNCTION).

    Arguments are flags made from those of the function (`swell job run FILE::FUNCTION --help` lists them); for one that
    is deployed they are JSON, as of `swell call`. What the replicas print is shown until the job has ended; Ctrl-C
    leaves it running.
    """
    if home is not None:
        # Not only for us: the user's own code may look up deployed apps while it is imported.
        os.environ["SWELL_HOME"] = home
    client = options.connect(home)
    place = reference.partition("::")[0]
    is_file = "::" in reference or place.endswith(".py") or Path(place).is_file() or "/" not in place
    made = _of_file(reference, words, namespace) if is_file else _deployed(client, reference, words, namespace)
    from swell.sdk.bridge import drive
    from swell.sdk.call import spawned
    from swell.sdk.queueing import Queueing

    began = time.monotonic()
    id = drive(spawned(client, made, how=Queueing(priority=priority))).object_id
    if detach:
        click.echo(id)
        return
    click.echo(f"{id} is accepted", err=True)
    _follow(client, id, None, began)


@job.command("list", short_help="List jobs, the newest first.")
@click.argument("app", default="", metavar="[APP]")
@click.option("--state", type=click.Choice(STATES), default=None, help="Only those in this state.")
@click.option("-n", "most", metavar="N", type=click.IntRange(1, 1000), default=20, help="So many; default: 20.")
@options.namespace
@options.as_json
@options.home
def list_jobs(app: str, state: Any, most: int, namespace: str, as_json: bool, home: str | None) -> None:
    """List jobs that are kept, the newest first: of APP, or of all apps of the namespace."""
    client = options.connect(home)
    with options.app_named("swell job list", app, namespace, client) as (space, name):
        rows = client.calls(name, namespace=space, state=state, limit=most, jobs=True)
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
    else:
        click.echo(wrapped("There is no job. @app.function(nodes=2) makes one of each call: `swell job run --help`."))


@job.command(short_help="Print what a job's replicas wrote.")
@click.argument("id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@click.option("--rank", type=click.IntRange(0), default=None, metavar="N", help="Only of that member.")
@options.as_json
@options.home
def logs(id: str, follow: bool, rank: int | None, as_json: bool, home: str | None) -> None:
    """Print what all members of a job wrote, in all its attempts; each line says whose it is."""
    client = options.connect(home)
    row = client.call(options.request_id(id))
    if follow and not as_json:
        _follow(client, id, rank, None)
        return
    import msgspec

    for line in client.logs(row.app, namespace=row.namespace, request=id, tail=-1, follow=follow):
        if rank is not None and line.rank != rank:
            continue
        if as_json:
            click.echo(msgspec.json.encode(line))
        else:
            _show(line)


@job.command(short_help="Stop a job.")
@click.argument("id", metavar="ID")
@options.home
def stop(id: str, home: str | None) -> None:
    """Stop a job, and wait until nothing of it runs any more. What it had done by then is done."""
    client = options.connect(home)
    row = client.cancel_call(id)
    with progress(f"Stopping {id}"):
        while row.replica and any(
            each.gang == row.replica and each.phase in (Phase.STARTING, Phase.READY, Phase.DRAINING)
            for each in client.replicas()
        ):
            time.sleep(LOOK_S / 4)
    click.echo(f"{id} is {row.state}." if row.state == "cancelled" else f"{id} had ended before: it is {row.state}.")


# -- starting ----------------------------------------------------------------------------------


def _of_file(reference: str, words: Sequence[str], namespace: str) -> Request:
    """Put the app of a file on the server; the call of its function."""
    from swell.sdk import flags, load, protocol
    from swell.sdk import run as running
    from swell.sdk.bridge import drive
    from swell.sdk.function import Function

    target = load.target(reference)
    function = target.run
    if not isinstance(function, Function) or target.is_method or not function.is_job:
        why = f"{target.name} is no job: a function is one with @app.function(nodes=…) or @swell.clustered(size=…)"
        raise SwellError("bad_function", f"{why}. `swell run {reference}` runs others.")
    found = flags.flags(function, False)
    about = inspect.getdoc(function.__swell_raw__)
    args, kwargs = arguments(found, run, "swell job run", reference, about, words)
    with progress(f"Deploying {reference}") as tell:
        drive(running.deploy(target.app, namespace=namespace, progress=tell))
    at = target.app.binding.resolve(target.name)
    return protocol.call(at.target(target.name), args, kwargs)


def _deployed(client: Client, reference: str, words: Sequence[str], namespace: str) -> Request:
    """The call of a function that is deployed."""
    from swell.sdk import protocol
    from swell.wire import http

    if len(words) > 1:
        raise click.UsageError("The arguments of what is deployed are one piece of JSON, like '{\"epochs\": 3}'.")
    at = whole_target(reference, namespace)
    space, app, name = at.split("/")
    workloads: dict[str, WorkloadRow] = {row.name: row for row in options.deployed(client, app, space).workloads}
    if name not in workloads or not workloads[name].nodes:
        jobs = ", ".join(each.name for each in workloads.values() if each.nodes) or "none"
        raise SwellError("unknown_function", f"{shown(at)} is no job. Of {app} these are: {jobs}.", status=404)
    headers = {"content-type": http.JSON, "accept": http.JSON}
    return protocol.Request("POST", f"/call/{quote(at)}", headers, options.json_body(words[0] if words else ""))


# -- looking on --------------------------------------------------------------------------------


def _follow(client: Client, id: str, rank: int | None, began: float | None) -> None:
    """Show what a job prints, and how far it is, until it has ended. `began`: when (monotonic), where that was now."""
    from swell.sdk.bridge import drive
    from swell.sdk.presence import Presence

    row = client.call(id)
    since = time.monotonic() - (time.time() - row.accepted_at) if began is None else began
    with closing(Presence(client, row.namespace, row.app, None, since)) as output:
        output.follow(lambda line: _show(line) if _is_of(line, id, rank) else None)
        try:
            row = _ended(client, row)
            drive(output.hear_out())
        except KeyboardInterrupt:
            words = f"`swell job logs -f {id}` shows it again, `swell job stop {id}` ends it"
            click.echo(f"\n{id} goes on: {words}.", err=True)
            raise
    _tell_end(client, row)


def _ended(client: Client, row: CallRow) -> CallRow:
    """The job once it has ended. What becomes of it until then is said on stderr."""
    told, heard_at = "", time.monotonic()
    while True:
        said = standing(row)
        if said != told:
            click.echo(f"{clock(time.time())} {said}", err=True)
            told = said
        if row.ended_at is not None:
            return row
        try:
            row, heard_at = client.call(row.id, wait_s=LOOK_S), time.monotonic()
        except SwellError as error:
            # It goes on without control, and outlives a restart.
            if error.code not in AWAY or time.monotonic() > heard_at + AWAY_S:
                raise
            time.sleep(LOOK_S)


def _tell_end(client: Client, row: CallRow) -> None:
    """Its result, or why there is none: exit code 1."""
    if row.state == "done":
        click.echo(result(client, row))
        return
    error = row.error
    words = f"{error.code}: {error.message}" if error is not None else row.state
    more = f" `swell calls retry {row.id}` starts it again, from its last checkpoint." if row.state == "failed" else ""
    raise SwellError("exception" if row.state == "failed" else "cancelled", f"{row.id} {row.state}: {words}{more}")


def standing(row: CallRow) -> str:
    """How it stands, in a line."""
    last = f", after {brief(row.error.message)}" if row.error is not None and row.ended_at is None else ""
    if row.state == "queued":
        return f"{row.id} waits{last}" + (f": {row.waits}" if row.waits else "")
    if row.state != "leased":
        return f"{row.id} is {row.state}"
    far = amount(row.progress) if row.progress is not None else ""
    return f"{row.id} runs, try {row.attempts}{last}" + (f": {far}" if far else "")


def listing(rows: Sequence[CallRow], now: float) -> str:
    """One line for each job."""
    cells = [
        (
            row.id,
            row.state,
            duration(now - row.accepted_at),
            str(row.attempts),
            str(row.nodes),
            called(row),
            amount(row.progress) if row.progress else brief(row.error.message) if row.error else "",
        )
        for row in rows
    ]
    return table(HEADS, cells, right=("AGO", "TRIES", "NODES"))


def _is_of(line: LogRow, id: str, rank: int | None) -> bool:
    return line.request == id and rank in (None, line.rank)


def _show(line: LogRow) -> None:
    mark = f"rank {line.rank} | " if line.rank is not None else ""
    show_line(click.style(mark, dim=True), line.text, err=line.stream == "err")
