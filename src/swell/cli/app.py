"""`swell app`: what is deployed."""

from __future__ import annotations

import time

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table

HEADS = ("APP", "WORKLOAD", "REVISION", "READY", "LIVE", "HELD", "IN FLIGHT", "AGE", "TAGS", "URL")


@click.group()
def app() -> None:
    """List and stop apps."""


@app.command("list")
@options.as_json
@options.home
def list_apps(as_json: bool, home: str | None) -> None:
    """List apps and their workloads."""
    apps = options.connect(home).apps()
    if as_json:
        click.echo(json_text(apps))
        return
    if not apps:
        click.echo("No app is deployed. `swell deploy FILE` deploys one.")
        return
    rows = [
        (
            row.name if row.namespace == "default" else f"{row.namespace}/{row.name}",
            workload.name,
            workload.revision,
            str(workload.ready),
            str(workload.live),
            str(workload.held),
            str(workload.in_flight),
            duration(time.time() - row.deployed_at) if row.deployed_at else "-",
            " ".join(f"{name}={value}" for name, value in row.tags) or "-",
            workload.url,
        )
        for row in apps
        for workload in row.workloads
    ]
    click.echo(table(HEADS, rows, right=("READY", "LIVE", "HELD", "IN FLIGHT", "AGE")))


@app.command("stop")
@click.argument("name")
@options.namespace
@options.home
def stop_app(name: str, namespace: str, home: str | None) -> None:
    """Take an app away: its replicas finish what they have, then end."""
    space, short = options.split_app(name, namespace)
    options.connect(home).stop(short, space)
    click.echo(f"{name} is stopped.")
