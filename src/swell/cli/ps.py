"""`swell ps`: what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, mebibytes, table

if TYPE_CHECKING:
    from swell.wire.api import AppRow, ReplicaRow

HEADS = ("ID", "WORKLOAD", "ROLE", "PHASE", "PID", "AGE", "BUSY", "MEMORY", "WHY")


@click.command(short_help="List replicas and templates.")
@options.as_json
@options.home
def ps(as_json: bool, home: str | None) -> None:
    """List replicas and templates: what each is for, and why it is there or going.

    BUSY is the number of requests it works on. --json has more: revision, node, what limits it.
    """
    client = options.connect(home)
    replicas = client.replicas()
    if as_json:
        click.echo(json_text(replicas))
    elif replicas:
        rows = [_cells(replica) for replica in replicas]
        click.echo(table(HEADS, rows, right=("PID", "AGE", "BUSY", "MEMORY")))
    else:
        click.echo(_at_zero(client.apps()))


def _cells(replica: ReplicaRow) -> tuple[str, ...]:
    return (
        replica.id,
        replica.workload.removeprefix("default/"),
        replica.role,
        replica.phase,
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
