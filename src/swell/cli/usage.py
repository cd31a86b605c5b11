"""`swell usage`: what each pool used and cost."""

from __future__ import annotations

import click

from swell.cli import options
from swell.cli.output import duration, json_text, money, table

HEADS = ("POOL", "REQUESTS", "ERRORS", "COLD", "CPU", "BUSY", "REPLICA", "STARTING", "TEMPLATE", "GIB HOURS", "COST")


@click.command()
@click.option("--since", type=options.Duration(), default=0.0, help="Only the last 90s, 10m, 2d, …; all by default.")
@options.as_json
@options.home
def usage(since: float, as_json: bool, home: str | None) -> None:
    """Show requests, time, memory and cost by pool (one revision of one workload)."""
    pools = options.connect(home).usage(since)
    if as_json:
        click.echo(json_text(pools))
        return
    if not pools:
        click.echo("Nothing was used.")
        return
    rows = [
        (
            pool.pool.removeprefix("default/"),
            str(pool.requests),
            str(pool.errors),
            str(pool.cold),
            *map(duration, (pool.cpu_s, pool.busy_s, pool.replica_s, pool.starting_s, pool.template_s)),
            f"{pool.memory_gib_s / 3600:.3f}",
            money(pool.cost_usd),
        )
        for pool in pools
    ]
    click.echo(table(HEADS, rows, right=HEADS[1:]))
    click.echo(f"total {money(sum(pool.cost_usd for pool in pools))}")
