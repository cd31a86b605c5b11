"""`swell ps`: what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, mebibytes, table

if TYPE_CHECKING:
    from swell.wire.api import AppRow, ReplicaRow

HEADS = ("ID", "WORKLOAD", "REVISION", "ROLE", "PHASE", "NODE", "PID", "AGE", "IN FLIGHT", "MEMORY", "WHY")


@click.command()
@options.as_json
@options.home
def ps(as_json: bool, home: str | None) -> None:
    """List replicas and templates."""
    client = options.connect(home)
    replicas = client.replicas()
    if as_json:
        click.echo(json_text(replicas))
    elif replicas:
        rows = [_cells(replica) for replica in replicas]
        click.echo(table(HEADS, rows, right=("PID", "AGE", "IN FLIGHT", "MEMORY")))
    else:
        click.echo(_at_zero(client.apps()))


def _cells(replica: ReplicaRow) -> tuple[str, ...]:
    return (
        replica.id,
        replica.workload.removeprefix("default/"),
        replica.revision,
        replica.role,
        replica.phase,
        replica.node,
        str(replica.pid or "-"),
        duration(replica.age_s),
        str(replica.in_flight),
        mebibytes(replica.memory_mib),
        replica.why,
    )


def _at_zero(apps: list[AppRow]) -> str:
    if not apps:
        return "Nothing runs, and no app is deployed. `swell deploy FILE` deploys one."
    workloads = sum(len(app.workloads) for app in apps)
    what = "1 workload" if workloads == 1 else f"{workloads} workloads"
    return f"Nothing runs: {what} deployed, all at zero. The next request wakes what it needs."
