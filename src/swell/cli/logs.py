"""`swell logs`: what apps printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import clock, show_line
from swell.model.workload import workload_of

if TYPE_CHECKING:
    from swell.wire.api import LogRow


def _lines(_: click.Context, __: click.Parameter, count: int | None) -> int | None:
    if count is not None and count < -1:
        raise click.BadParameter(f"{count} is no number of lines: give 0 or more, or -1 for all.")
    return count


@click.command(short_help="Print what an app (or every app) wrote.")
@click.argument("app", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with lines as they come, until Ctrl-C.")
@click.option("--since", type=options.Duration(), default=0.0, help="Only lines of the last 90s, 10m, 1h30m, 2d, …")
@click.option("--request", default="", metavar="ID", help="Only lines of this request.")
@click.option(
    "--tail", type=int, default=None, callback=_lines, metavar="N", help="Only the last N lines; -1 = all. [100]"
)
@options.namespace
@options.as_json
@options.home
def logs(
    app: str,
    follow: bool,
    since: float,
    request: str,
    tail: int | None,
    namespace: str,
    as_json: bool,
    home: str | None,
) -> None:
    """Print what APP (or all apps) wrote: the last 100 lines, or all that --since or --request name."""
    import msgspec

    if request:
        options.request_id(request)
    client = options.connect(home)
    last = tail if tail is not None else -1 if since or request else 100
    with options.app_named("swell logs", app, namespace, client) as (space, name):
        found = client.logs(
            name, namespace=space, since_s=since, request=request, tail=last, follow=follow, live=_mark_live
        )
        nothing = True
        for row in found:
            nothing = False
            if as_json:
                click.echo(msgspec.json.encode(row))
            else:
                show_line(_mark(row, bool(name)), row.text)
        if nothing:
            click.echo("Nothing was written.", err=True)


def _mark_live() -> None:
    """On a terminal, where what was written before ends."""
    if sys.stderr.isatty():
        click.secho("— live, Ctrl-C ends —", dim=True, err=True)


def _mark(row: LogRow, one_app: bool) -> str:
    """What stands before a line; the app is named where several are shown, the stream where it is not plain output."""
    _, app, workload = workload_of(row.pool).split("/")
    where = workload if one_app else f"{app}/{workload}"
    stream = "" if row.stream == "out" else f" {row.stream}"
    return f"{clock(row.at)} {where} {row.replica}{stream} | "
