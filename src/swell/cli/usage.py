"""`swell usage`: what was used, and what it cost."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table
from swell.model.variant import base_of, is_variant
from swell.model.workload import revision_of, shown, workload_of

if TYPE_CHECKING:
    from swell.wire.api import KeyUsage, PoolUsage

KEY_HEADS = ("COST", "SHARE", "REQUESTS", "ERRORS", "CPU")
HEADS = ("COST", "SHARE", "REQUESTS", "ERRORS", "COLD", "CPU", "REPLICA", "TEMPLATE")
KEY_SUMS = ("requests", "errors", "cpu_s", "cost_usd")
NAME_MIN = 12
"""Columns that are enough for a name to go on in the next line."""
GROUPS = ("app", "workload", "pool")
MINUTE_S = 60.0
"""Use is kept by the minute."""
UNITS_USD = (("US dollars", 1.0), ("thousandths of a US dollar", 1e-3), ("millionths of a US dollar", 1e-6))
"""What costs may be counted in: in one unit, they compare."""
_RUN = re.compile(r"(?P<stem>.+)--[0-9a-f]{8}")
"""An app of `swell run`: its name is new at each run."""


@click.command(short_help="Show requests, time and cost of each workload.")
@click.option("--since", type=options.Duration(), default=0.0, help="Only the last 90s, 10m, 2d, …; all by default.")
@click.option("--by", type=click.Choice((*GROUPS, "key")), default="workload", help="A row for each … [workload]")
@options.as_json
@options.home
def usage(since: float, by: str, as_json: bool, home: str | None) -> None:
    """Show requests, time and cost, the dearest first; all runs (`swell run`) of a program are one row.

    SHARE is a row's part of the whole cost. CPU is processor time. REPLICA and TEMPLATE are how long they were
    there, summed. A pool is one revision of a workload. --json has more: the cost in dollars, seconds busy and
    starting, and GiB-seconds of memory.

    By key there are the requests that came with an API key, and what they themselves used: time in which replicas
    were idle or starting is no caller's.
    """
    begun = (time.time() - since) // MINUTE_S * MINUTE_S if since else 0.0
    client, since_s = options.connect(home), time.time() - begun if since else 0.0
    rows = by_key(client.key_usage(since_s)) if by == "key" else grouped(client.usage(since_s), by)
    if as_json:
        click.echo(json_text(rows))
        return
    if since:
        click.echo(time.strftime("Since %H:%M on %d %b (use is kept by the minute):\n", time.localtime(begun)))
    if rows:
        click.echo(key_listing(rows) if by == "key" else listing(rows, by))
    else:
        click.echo("Nothing came with an API key." if by == "key" else "Nothing was used.")


def by_key(pools: Iterable[KeyUsage]) -> list[dict[str, Any]]:
    """Sums of what came with each key, over all pools, the dearest first."""
    rows: dict[str, dict[str, Any]] = {}
    for pool in pools:
        row = rows.setdefault(pool.key, {"key": pool.key, "name": pool.name, **dict.fromkeys(KEY_SUMS, 0)})
        for field in KEY_SUMS:
            row[field] += getattr(pool, field)
    return sorted(rows.values(), key=lambda row: (-row["cost_usd"], row["key"]))


def key_listing(rows: list[dict[str, Any]]) -> str:
    """The same as a table."""
    total = {field: sum(row[field] for row in rows) for field in KEY_SUMS}
    unit, unit_usd = _unit(total["cost_usd"])
    named = [{**row, "key": f"{row['name']} ({row['key']})" if row["name"] else row["key"]} for row in rows]
    lines = [
        (
            *_cost_cells(row["cost_usd"], unit_usd, total["cost_usd"]),
            str(row["requests"]),
            str(row["errors"]),
            duration(row["cpu_s"]),
            row["key"],
        )
        for row in (*named, {**total, "key": "total"})
    ]
    shown = table((*KEY_HEADS, "KEY"), lines, right=KEY_HEADS, last_min=NAME_MIN)
    return f"{shown}\n\nCOST is in {unit}, of what the requests themselves used."


def grouped(pools: Iterable[PoolUsage], by: str) -> list[dict[str, Any]]:
    """Sums of the pools' use by "app", "workload" or "pool", the dearest first.

    Each row has its name under `by`; `runs` tells how many runs of `swell run` it sums up: 0 for what was deployed.
    """
    from msgspec.structs import asdict

    members: dict[tuple[str, bool], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for pool in pools:
        app = pool.pool.split("/")[1]
        members[_group(pool, by)][app].append(asdict(pool))
    rows = []
    for (name, of_runs), apps in members.items():
        parts = [part for parts in apps.values() for part in parts]
        sums = {field: sum(part[field] for part in parts) for field in parts[0] if field not in ("pool", "written")}
        rows.append({by: name, "runs": len(apps) if of_runs else 0, **sums})
    return sorted(rows, key=lambda row: (-row["cost_usd"], row[by]))


def _group(used: PoolUsage, by: str) -> tuple[str, bool]:
    """(name, is it one of runs) of the group that a pool ("namespace/app/workload@revision") is in. What a
    workload was used with, its pools tell."""
    pool = used.pool
    namespace, app, workload = base_of(workload_of(pool)).split("/", 2)
    run = _RUN.fullmatch(app)
    if by == "pool":
        written = f"{used.written}@{revision_of(pool)}" if is_variant(pool) and used.written else pool
        return written, run is not None
    app = run["stem"] if run else app
    return (f"{namespace}/{app}" if by == "app" else f"{namespace}/{app}/{workload}"), run is not None


def listing(rows: list[dict[str, Any]], by: str) -> str:
    """The rows as a table, their total, and the unit of their cost: the largest of which all together cost one."""
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in (by, "runs")}
    unit, unit_usd = _unit(total["cost_usd"])
    lines = [(*_cells(row, unit_usd, total["cost_usd"]), _shown(row, by)) for row in rows]
    lines.append((*_cells(total, unit_usd, total["cost_usd"]), "total"))
    shown = table((*HEADS, by.upper()), lines, right=HEADS, last_min=NAME_MIN)
    return f"{shown}\n\nCOST is in {unit}."


def _unit(whole_usd: float) -> tuple[str, float]:
    return next((each for each in UNITS_USD if whole_usd >= each[1]), UNITS_USD[-1])


def _cost_cells(cost_usd: float, unit_usd: float, whole_usd: float) -> tuple[str, str]:
    share = cost_usd / whole_usd if whole_usd else 0.0
    return amount(cost_usd / unit_usd), "< 1%" if 0 < share < 0.01 else f"{share:.0%}"


def _cells(row: dict[str, Any], unit_usd: float, whole_usd: float) -> tuple[str, ...]:
    return (
        *_cost_cells(row["cost_usd"], unit_usd, whole_usd),
        *(str(row[name]) for name in ("requests", "errors", "cold")),
        *(duration(row[name]) for name in ("cpu_s", "replica_s", "template_s")),
    )


def amount(value: float) -> str:
    """A number to compare with others, with at least two digits that count: "1,234", "12", "1.2", "0.0012"."""
    if value >= 10 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(1 - math.floor(math.log10(value)), 1)}f}"


def _shown(row: dict[str, Any], by: str) -> str:
    runs = row["runs"]
    mark = f" ({runs} run{'s' if runs != 1 else ''})" if runs and by != "pool" else ""
    return f"{shown(row[by])}{mark}"
