"""`swell app history` and `swell app rollback`: what was deployed before, and back to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, progress, table, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swell.wire.api import VersionRow

HEADS = ("VERSION", "AGE", "HOW", "TAG", "SOURCE", "CHANGES")


class Number(click.ParamType[int]):
    """A version: "v3" or "3"."""

    name = "version"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Its number."""
        text = str(value).removeprefix("v")
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
            self.fail(f"{value!r} is no version: one is written v3 or 3.", param, ctx)
        return int(text)


@click.command(short_help="List the versions of an app.")
@click.argument("name", metavar="APP")
@options.namespace
@options.as_json
@options.home
def history(name: str, namespace: str, as_json: bool, home: str | None) -> None:
    """List the versions of an app, the newest first: each deploy and each rollback makes one.

    The one that has the traffic is marked with *: the one before, where a new version does not start; several, where
    their functions differ in that. The newest 20 are kept (setting versions_kept).
    """
    client = options.connect(home)
    with options.app_named("swell app history", name, namespace, client) as (space, short):
        rows = client.versions(short, space)
    click.echo(json_text(rows) if as_json else listing(rows, time.time()))


def listing(rows: Sequence[VersionRow], now: float) -> str:
    """One line for each version; below, what does not have its traffic yet."""
    cells = [
        (
            f"v{row.version}{'*' if row.current else ''}",
            duration(now - row.at),
            row.how,
            row.tag or "-",
            row.source or "-",
            _changes(row),
        )
        for row in rows
    ]
    return "\n\n".join(
        [table(HEADS, cells, right=("AGE",)), *(wrapped(f"{why}.") for row in rows for why in row.rolling)]
    )


def _changes(row: VersionRow) -> str:
    """The workloads that are not as they were, by what became of them."""
    words = {"new": "+{}", "changed": "{}", "removed": "-{}"}
    return " ".join(words[change].format(name) for name, change in row.changes if change in words) or "-"


@click.command(short_help="Go back to an earlier version of an app.")
@click.argument("name", metavar="APP")
@click.argument("version", metavar="[vN]", type=Number(), required=False)
@options.namespace
@options.home
def rollback(name: str, version: int | None, namespace: str, home: str | None) -> None:
    """Deploy an earlier version of an app again: vN, or the one that had the traffic before.

    Without vN, versions that never had it or did not start are passed over, and those that are the same as what is
    there. It becomes a new version, so the history only grows. An environment that is gone is built again.
    """
    client = options.connect(home)
    with (
        options.app_named("swell app rollback", name, namespace, client) as (space, short),
        progress(f"Rolling back {name}") as tell,
    ):
        done = client.rollback(short, space, version or 0, progress=tell)
    click.echo(table(("WORKLOAD", "CHANGE"), done.changes))
    click.echo(f"\n{name} is v{done.version} now.")
    for note in done.notes:
        click.echo(f"Note: {note}.", err=True)
