"""`swell key`: who else may use a server, for what, for how long and how much."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table

if TYPE_CHECKING:
    from swell.model.limits import Limits
    from swell.wire.api import KeyRow

HEADS = ("ID", "NAME", "STATE", "AGE", "EXPIRES", "MADE WITH", "LIMITS", "SCOPES")


class Parsed(click.ParamType[Any]):
    """A value that `parse` makes of words, or refuses in a sentence."""

    def __init__(self, name: str, parse: Callable[[object], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `parse` has it."""
        from swell.model.errors import SwellError

        try:
            return self._parse(int(value) if str(value).isdecimal() else value)
        except SwellError as error:
            self.fail(error.message, param, ctx)


def _rate(value: object) -> float:
    from swell.model.limits import rate_of

    return rate_of(value)


def _size(value: object) -> int:
    from swell.model.limits import size_of

    return size_of(value)


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command("create", short_help="Make an API key, and print it this once.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="What it may: call:NAMESPACE/APP, deploy:…, admin:… (* is all), or admin; may be repeated.",
)
@click.option("--expires", type=options.Duration(), default=None, help="It works for 12h, 30d, …; else until revoked.")
@click.option("--rate", type=Parsed("rate", _rate), default=None, help="Requests let in: 100/s, 30/min, 1000/h.")
@click.option(
    "--burst", metavar="N", type=click.IntRange(1), default=None, help="Requests that may come at once, with --rate."
)
@click.option(
    "--concurrency", metavar="N", type=click.IntRange(1), default=None, help="Requests under way at the same time."
)
@click.option("--body-max", type=Parsed("size", _size), default=None, help="Bytes of a request's body: 500KB, 10MiB.")
@click.option("--timeout", type=options.Duration(), default=0.0, help="How long a request may take, waiting included.")
@options.as_json
@options.home
def create(
    name: str,
    scopes: tuple[str, ...],
    expires: float | None,
    rate: float | None,
    burst: int | None,
    concurrency: int | None,
    body_max: int | None,
    timeout: float,
    as_json: bool,
    home: str | None,
) -> None:
    """Make an API key called NAME. It is printed this once: of its secret the server keeps a digest.

    `call` lets its holder call functions and see an app's logs, requests and usage; `deploy` also put it in place and
    take it away, and send pickles, which run code; `admin` also make keys. `admin` alone is everything.

    Made with an API key (SWELL_KEY), it gets no more than that one has: it ends when that ends, and its requests count
    at the limits of both.
    """
    from swell.model.limits import Limits
    from swell.wire.api import NewKey

    limits = Limits(rate or 0.0, burst or 0, concurrency or 0, body_max or 0, timeout)
    made = options.connect(home).make_key(NewKey(name, scopes, expires, limits))
    if as_json:
        click.echo(json_text(made))
        return
    click.echo(made.key)
    row = made.row
    lasts = row.expires_at - row.created_at if row.expires_at is not None else None
    until = f"for {duration(lasts)}" if lasts is not None else "until it is revoked"
    if row.made_by:
        until += f", and no longer than {row.made_by}, whose limits are its own, too"
    click.echo(
        f"Key {row.id} ({row.name}): {', '.join(row.scopes)}; works {until}; limits: {limits_text(limits)}. It is not "
        "shown again. Send it as `Authorization: Bearer KEY`, or set SWELL_KEY.",
        err=True,
    )


@key.command("list", short_help="List API keys, without their secrets.")
@options.as_json
@options.home
def list_keys(as_json: bool, home: str | None) -> None:
    """List API keys, those that expired or were revoked included. Their secrets are nowhere."""
    rows = options.connect(home).keys()
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
    else:
        click.echo("There is no API key. `swell key create NAME --scope call:default/APP` makes one.")


@key.command("revoke", short_help="Let an API key work no longer.")
@click.argument("named", metavar="KEY")
@options.home
def revoke(named: str, home: str | None) -> None:
    """Let KEY (its id, or its name) work no longer, nor any that was made with it. What they have begun may finish,
    and what they put into the queue is worked on; WebSockets are closed."""
    client = options.connect(home)
    row = client.revoke_key(named)
    also = made_with(client.keys(), row.id)
    more = f" So end the keys that were made with it: {', '.join(f'{r.id} ({r.name})' for r in also)}." if also else ""
    click.echo(f"Key {row.id} ({row.name}) is revoked.{more}")


def made_with(rows: Sequence[KeyRow], id: str) -> list[KeyRow]:
    """Keys, of these (oldest first), that were made with one, or with one that was."""
    known = {id}
    also = []
    for row in rows:
        if row.made_by in known:
            known.add(row.id)
            also.append(row)
    return also


def listing(rows: Sequence[KeyRow], now: float) -> str:
    """One line for each key."""
    cells = [
        (
            row.id,
            row.name,
            row.state,
            duration(now - row.created_at),
            "-" if row.expires_at is None else _until(row.expires_at - now),
            row.made_by or "-",
            limits_text(row.limits),
            " ".join(row.scopes),
        )
        for row in rows
    ]
    return table(HEADS, cells, right=("AGE",))


def _until(seconds: float) -> str:
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def limits_text(limits: Limits) -> str:
    """Limits in a few words."""
    from swell.decide.limit import rate_text

    words = [
        f"{rate_text(limits.rate_per_s)} (burst {limits.burst_max})" if limits.rate_per_s else "",
        f"{limits.concurrency} at once" if limits.concurrency else "",
        f"{limits.body_max} bytes" if limits.body_max else "",
        f"{limits.timeout_s:g} s" if limits.timeout_s else "",
    ]
    return ", ".join(filter(None, words)) or "none"
