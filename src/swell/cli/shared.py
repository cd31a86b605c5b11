"""What can be done with every dict and every queue? Make, list and delete them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table

if TYPE_CHECKING:
    from swell.sdk.shared import Shared
    from swell.wire.kv import CollectionRow


def add_commands(group: click.Group, kind: str, holds: str, named: Callable[[str | None, str, str], Shared]) -> None:
    """Give the group create, list and delete.

    `kind` is the noun ("dict"), `holds` what it has in it ("entries"), `named(home, namespace, name)` one on the server
    that is meant.
    """

    @group.command(short_help=f"Make a {kind}.", help=f"Make a {kind} with nothing in it.")
    @click.argument("name", metavar="NAME")
    @options.namespace
    @options.home
    def create(name: str, namespace: str, home: str | None) -> None:
        named(home, namespace, name)._make()
        click.echo(f'{name} is made. A program has it by swell.{kind.capitalize()}.from_name("{name}").')

    @group.command("list", short_help=f"List {kind}s.", help=f"List {kind}s, and how many {holds} each has.")
    @options.namespace
    @options.as_json
    @options.home
    def list_all(namespace: str, as_json: bool, home: str | None) -> None:
        rows = named(home, namespace, "any")._rows()
        if as_json:
            click.echo(json_text(rows))
        elif rows:
            click.echo(_listing(kind.upper(), holds.upper(), rows, time.time()))
        else:
            click.echo(f"There is no {kind}. `swell {kind} create NAME` makes one.")

    @group.command(
        short_help=f"Delete a {kind} and all that is in it.",
        help=f"Delete a {kind} with all that is in it. There is no way back.",
    )
    @click.argument("name", metavar="NAME")
    @options.namespace
    @options.home
    def delete(name: str, namespace: str, home: str | None) -> None:
        named(home, namespace, name)._remove()
        click.echo(f"{name} is deleted.")


def _listing(kind: str, holds: str, rows: Sequence[CollectionRow], now: float) -> str:
    """One line for each."""
    cells = [(row.name, str(row.size), duration(now - row.made_at), row.id) for row in rows]
    return table((kind, holds, "AGE", "ID"), cells, right=(holds, "AGE"))
