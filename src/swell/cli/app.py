"""`swell app`: what is deployed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table, wrapped
from swell.cli.traffic import promote, traffic
from swell.cli.versions import history, rollback

if TYPE_CHECKING:
    from swell.wire.api import AppRow, WorkloadRow

HEADS = ("APP", "V", "WORKLOAD", "READY", "HELD", "BUSY", "AGE", "WEB", "TAGS")
NEXT_PLACE = HEADS.index("WEB")


@click.group()
def app() -> None:
    """List and stop apps; look at their versions, and go back to one."""


app.add_command(history)
app.add_command(rollback)
app.add_command(traffic)
app.add_command(promote)


@app.command("list", short_help="List apps and their workloads.")
@options.as_json
@options.home
def list_apps(as_json: bool, home: str | None) -> None:
    """List apps and their workloads.

    V is the version that takes the traffic (`swell app history` has the others). READY is how many replicas are, of
    those there are (? = not known yet, just after a restart); HELD and BUSY are requests that wait and that are worked
    on. NEXT, where something has a schedule, is how long it is until that calls it.
    --json has more: URLs, revisions, methods.
    """
    client = options.connect(home)
    apps = client.apps(counts=True)
    if as_json:
        click.echo(json_text(apps))
    elif apps:
        click.echo(listing(apps, time.time()))
        for row in apps:
            for workload in row.workloads:
                if workload.rolling:
                    why = f"{row.name}/{workload.written or workload.name}: {workload.rolling}."
                    click.echo(f"\n{wrapped(why)}")
        click.echo(f"\n{wrapped(f'Calls go to {client.url}/call/APP/FUNCTION, or /call/APP/CLASS.METHOD.')}")
    else:
        click.echo("No app is deployed. `swell deploy FILE` deploys one.")


def listing(apps: Sequence[AppRow], now: float) -> str:
    """One line for each workload; how long it is until its schedule calls it only where something has one."""
    scheduled = any(workload.next_at is not None for row in apps for workload in row.workloads)
    heads = (*HEADS[:NEXT_PLACE], "NEXT", *HEADS[NEXT_PLACE:]) if scheduled else HEADS
    rows = [
        (
            row.name if row.namespace == "default" else f"{row.namespace}/{row.name}",
            str(workload.traffic[0].version if workload.traffic else row.version or "-"),
            workload.written or workload.name,
            _ready(workload),
            str(workload.held),
            str(workload.in_flight),
            duration(now - row.deployed_at) if row.deployed_at else "-",
            *([_next(workload, now)] if scheduled else []),
            # Where calls go follows from the names; where web endpoints are does not.
            path if (path := urlsplit(workload.url).path).startswith("/web/") else "-",
            " ".join(f"{name}={value}" for name, value in row.tags) or "-",
        )
        for row in apps
        for workload in row.workloads
    ]
    return table(heads, rows, right=("V", "READY", "HELD", "BUSY", "AGE", "NEXT"))


def _next(workload: WorkloadRow, now: float) -> str:
    return "-" if workload.next_at is None else duration(workload.next_at - now)


def _ready(workload: WorkloadRow) -> str:
    if workload.live is None:
        return "?"
    return f"{workload.ready}/{workload.live}" if workload.live else "0"


@app.command("stop")
@click.argument("name", metavar="APP")
@options.namespace
@options.home
def stop_app(name: str, namespace: str, home: str | None) -> None:
    """Take an app away: its replicas finish what they have, then end."""
    client = options.connect(home)
    with options.app_named("swell app stop", name, namespace, client) as (space, short):
        client.stop(short, space)
    click.echo(f"{name} is stopped.")
