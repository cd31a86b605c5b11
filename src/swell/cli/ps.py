"""`swell ps`: what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, mebibytes, table
from swell.model.variant import is_variant
from swell.model.workload import DEFAULT_NAMESPACE, shown

if TYPE_CHECKING:
    from swell.wire.api import AppRow, ReplicaRow

HEADS = ("ID", "WORKLOAD", "ROLE", "PHASE", "PID", "AGE", "BUSY", "MEMORY", "WHY")
SHOWN_MAX = 5
"""Rows of one workload and role that are shown, unless all are asked for."""


@click.command(short_help="List replicas and templates.")
@click.argument("app", default="")
@click.option("--all", "everything", is_flag=True, help=f"Also those beyond the first {SHOWN_MAX} of a workload.")
@partial(options.namespace, default=None)
@options.as_json
@options.home
def ps(app: str, everything: bool, namespace: str | None, as_json: bool, home: str | None) -> None:
    """List replicas and templates (of APP): what each is for, and why it is there or going.

    BUSY is the number of requests it works on. --json has all, and more: revision, node, what limits it.
    """
    client = options.connect(home)
    replicas = client.replicas()
    if app:
        with options.app_named("swell ps", app, namespace or DEFAULT_NAMESPACE, client) as (space, name):
            replicas = [row for row in replicas if row.workload.startswith(f"{space}/{name}/")]
            apps = [] if replicas else [options.deployed(client, name, space)]
    else:
        replicas = [row for row in replicas if namespace in (None, row.workload.partition("/")[0])]
        apps = [] if replicas else [row for row in client.apps() if namespace in (None, row.namespace)]
    if as_json:
        click.echo(json_text(replicas))
    elif replicas:
        click.echo(listing(replicas, everything))
    else:
        click.echo(_at_zero(apps))


def listing(replicas: Sequence[ReplicaRow], everything: bool) -> str:
    """Replicas as a table; of one workload and role only the first few and how many more there are."""
    rows: list[tuple[str, ...]] = []
    ordered = sorted(replicas, key=lambda row: (row.workload, row.role))
    for _, same in groupby(ordered, key=lambda row: (row.workload, row.role)):
        found = list(same)
        # One that would stand for just one more is no shorter than that one.
        shown = len(found) if everything or len(found) == SHOWN_MAX + 1 else SHOWN_MAX
        rows += [_cells(replica) for replica in found[:shown]]
        if found[shown:]:
            rows.append(_more(found[shown:]))
    return table(HEADS, rows, right=("PID", "AGE", "BUSY", "MEMORY"))


def _cells(replica: ReplicaRow) -> tuple[str, ...]:
    return (
        replica.id,
        shown(replica.written or replica.workload),
        replica.role,
        replica.phase,
        str(replica.pid or "-"),
        duration(replica.age_s),
        str(replica.in_flight),
        mebibytes(replica.memory_mib),
        replica.why,
    )


def _more(replicas: Sequence[ReplicaRow]) -> tuple[str, ...]:
    """One row that stands for the rest of a workload's."""
    first = replicas[0]
    phases = ", ".join(f"{count} {phase}" for phase, count in Counter(row.phase for row in replicas).most_common())
    busy = sum(row.in_flight for row in replicas)
    memory_mib = sum(row.memory_mib for row in replicas)
    words = f"{len(replicas)} more (--all): {phases}"
    return (
        "…",
        shown(first.written or first.workload),
        first.role,
        "",
        "",
        "",
        str(busy),
        mebibytes(memory_mib),
        words,
    )


def _at_zero(apps: Sequence[AppRow]) -> str:
    if not apps:
        return "Nothing runs, and no app is deployed. `swell deploy FILE` deploys one."
    workloads = sum(not is_variant(workload.name) for app in apps for workload in app.workloads)
    what = "1 workload" if workloads == 1 else f"{workloads} workloads"
    return f"Nothing runs: {what} deployed, all at zero. The next request wakes what it needs."
