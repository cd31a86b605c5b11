"""`swell app traffic` and `swell app promote`: which versions of an app its requests go to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import json_text, progress, table, wrapped
from swell.model.variant import is_variant
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import AppRow, WorkloadRow

_SHARE = re.compile(r"v?(\d{1,9})=(\d+(?:\.\d+)?)%?\Z")
_HEADER = re.compile(r"([^=:]+)=(.*):v?(\d{1,9})\Z")
_TAG = re.compile(r"([^:]+):v?(\d{1,9})\Z")


@click.command(short_help="Show or change which versions requests go to.")
@click.argument("name", metavar="APP[/FUNCTION]")
@click.argument("shares", metavar="[vN=PERCENT]...", nargs=-1)
@click.option("--hash-header", metavar="NAME", default="", help="Same value of this header, same version.")
@click.option("--header", "headers", metavar="NAME=VALUE:vN", multiple=True, help="Such requests go to vN.")
@click.option("--tag", "tags", metavar="TAG:vN", multiple=True, help="An address that leads to vN alone.")
@options.namespace
@options.as_json
@options.home
def traffic(
    name: str,
    shares: Sequence[str],
    hash_header: str,
    headers: Sequence[str],
    tags: Sequence[str],
    namespace: str,
    as_json: bool,
    home: str | None,
) -> None:
    """Show which versions of an app its requests go to, or say it: swell app traffic APP v4=10 v3=90

    What is said is the whole of it: a version that is not named has no share, header or tag afterwards. Without shares
    the version that has the traffic takes all of it. `swell app rollback APP` takes newer versions out again.
    """
    from swell.model.traffic import ByHeader, ByTag, Traffic

    *space, app, function = name.split("/") if "/" in name else (name, "")
    space_name = space[0] if space else namespace
    client = options.connect(home)
    if not (shares or headers or tags or hash_header):
        _show(client, app, function, space_name, as_json)
        return
    asked = Traffic(
        tuple((int(v), float(share)) for v, share in _read(_SHARE, shares, "v4=10")),
        hash_header,
        tuple(ByHeader(n, value, int(v)) for n, value, v in _read(_HEADER, headers, "X-Variant=b:v4")),
        tuple(ByTag(tag, int(v)) for tag, v in _read(_TAG, tags, "canary:v4")),
        function,
    )
    with progress(f"Changing the traffic of {name}") as tell:
        done = client.traffic(app, asked, space_name, progress=tell)
    _show(client, app, function, space_name, as_json)
    for note in done.notes:
        click.echo(f"Note: {note}.", err=True)


def _read(form: re.Pattern[str], words: Sequence[str], example: str) -> list[tuple[str, ...]]:
    found = [(word, form.match(word)) for word in words]
    wrong = next((word for word, match in found if match is None), None)
    if wrong is not None:
        raise click.UsageError(f"{wrong!r} is not understood: it is written as {example}.")
    return [match.groups() for _, match in found if match is not None]


def _show(client: Client, app: str, function: str, namespace: str, as_json: bool) -> None:
    row = options.deployed(client, app, namespace)
    if as_json:
        click.echo(json_text({each.name: each.traffic for each in row.workloads if _told(each, function)}))
        return
    click.echo(listing(row, function))
    for each in row.workloads:
        if each.rolling and _told(each, function):
            click.echo(f"\n{wrapped(f'{each.name}: {each.rolling}.')}")
    tags = sorted({share.tag for each in row.workloads for share in each.traffic if share.tag})
    where = shown(f"{namespace}/{app}")
    for tag in tags:
        click.echo(f"\n{tag}: {client.url}/call/{where}@{tag}/FUNCTION, {client.url}/web/{tag}--LABEL/")


def listing(row: AppRow, function: str = "") -> str:
    """One line for each version that requests of a workload go to."""
    cells = [
        (
            each.name,
            f"v{share.version}",
            f"{share.percent:g}%",
            " ".join(filter(None, (share.header, f"tag {share.tag}" if share.tag else ""))) or "-",
        )
        for each in row.workloads
        if _told(each, function)
        for share in each.traffic
    ]
    return table(("WORKLOAD", "VERSION", "SHARE", "REACHED BY"), cells, right=("SHARE",))


def _told(workload: WorkloadRow, function: str) -> bool:
    """Variants go with what they are of."""
    return not is_variant(workload.name) and function in ("", workload.name)


@click.command(short_help="Give the traffic to what a blue-green deploy made ready.")
@click.argument("name", metavar="APP")
@options.namespace
@options.home
def promote(name: str, namespace: str, home: str | None) -> None:
    """Give all the traffic to the version that a deploy made ready with `--strategy blue-green`.

    `swell app rollback APP` instead takes it away.
    """
    client = options.connect(home)
    with (
        options.app_named("swell app promote", name, namespace, client) as (space, short),
        progress(f"Promoting {name}") as tell,
    ):
        done = client.promote(short, space, progress=tell)
    click.echo(f"{name} is v{done.version} now.")
