"""`swell limits`: every limit there is, how high it is, whose it is, and who said so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import json_text, table

if TYPE_CHECKING:
    from swell.wire.api import LimitRow

HEADS = ("OWNER", "LIMIT", "VALUE", "UNIT", "SOURCE", "OVER IT")


@click.command(short_help="List every limit, its value, whose it is and where it was said.")
@options.as_json
@options.home
def limits(as_json: bool, home: str | None) -> None:
    """List every limit: of the server, of functions and services, of API keys.

    SOURCE says where a value comes from: default, flag, environment, file:…, the program that was deployed, or fixed,
    which cannot be set. OVER IT is the code of the error that is met there; - is none: it just ends there.
    """
    rows = options.connect(home).limits()
    click.echo(json_text(rows) if as_json else listing(rows))


def listing(rows: Sequence[LimitRow]) -> str:
    """One line for each limit."""
    cells = [(row.owner, row.name, *_measured(row), row.source, ", ".join(row.codes) or "-") for row in rows]
    return table(HEADS, cells, right=("VALUE",))


def _measured(row: LimitRow) -> tuple[str, str]:
    """Value and unit. Of a moment, date and time."""
    if row.name.endswith("_at"):
        return datetime.fromtimestamp(row.value, UTC).strftime("%Y-%m-%d %H:%M:%S"), "UTC"
    return f"{row.value:,.0f}" if row.value == int(row.value) else f"{row.value:g}", row.unit
