"""`swell dict`: values that programs share by a key."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table
from swell.cli.values import WRITTEN, read, shown
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.dict import Dict
    from swell.wire.kv import CollectionRow


@click.group(epilog=WRITTEN)
def dict() -> None:
    """Make, read, write and delete dicts.

    A dict is values by their keys, which programs share. A program has one by swell.Dict.from_name("NAME").
    """


def named(home: str | None, namespace: str, name: str) -> Dict:
    """A dict on the server that is meant."""
    from swell.sdk.dict import Dict

    return Dict(name, namespace)._on(options.connect(home))


def pickled(text: str) -> bytes:
    """A key or value that was written so."""
    return pickle.dumps(read(text), protocol=5)


@dict.command(short_help="Make a dict.")
@click.argument("name", metavar="NAME")
@options.namespace
@options.home
def create(name: str, namespace: str, home: str | None) -> None:
    """Make a dict with nothing in it."""
    named(home, namespace, name)._make()
    click.echo(f'{name} is made. A program has it by swell.Dict.from_name("{name}").')


@dict.command("list", short_help="List dicts.")
@options.namespace
@options.as_json
@options.home
def list_dicts(namespace: str, as_json: bool, home: str | None) -> None:
    """List dicts, and how many entries each has."""
    rows = named(home, namespace, "any")._rows()
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing("DICT", "ENTRIES", rows, time.time()))
    else:
        click.echo("There is no dict. `swell dict create NAME` makes one.")


def listing(kind: str, what: str, rows: Sequence[CollectionRow], now: float) -> str:
    """One line for each."""
    cells = [(row.name, str(row.size), duration(now - row.made_at), row.id) for row in rows]
    return table((kind, what, "AGE", "ID"), cells, right=(what, "AGE"))


@dict.command(short_help="Get the value of a key.", epilog=WRITTEN)
@click.argument("name", metavar="NAME")
@click.argument("key", metavar="KEY")
@options.namespace
@options.home
def get(name: str, key: str, namespace: str, home: str | None) -> None:
    """Get the value of a key, printed as JSON. An object of a class is not made here: read it from Python."""
    found = named(home, namespace, name)._raw_get(pickled(key))
    if found is None:
        raise SwellError("not_found", f"There is no key {key!r} in the dict {name!r}.", status=404)
    click.echo(shown(found))


@dict.command(short_help="Go through keys and values.")
@click.argument("name", metavar="NAME")
@click.option("-n", "most", metavar="N", type=click.IntRange(min=1), default=100, help="So many; default: 100.")
@options.namespace
@options.home
def items(name: str, most: int, namespace: str, home: str | None) -> None:
    """Go through keys and their values, a line of JSON each, those that were put first on top."""
    for count, (key, value) in enumerate(named(home, namespace, name)._raw_items()):
        if count == most:
            click.echo(f"… and more: -n {most * 10} shows them.", err=True)
            break
        click.echo(f"{shown(key)}: {shown(value)}")


@dict.command(short_help="Set the value of a key.", epilog=WRITTEN)
@click.argument("name", metavar="NAME")
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="VALUE")
@click.option("--skip-if-exists", is_flag=True, help="Leave a value that is there as it is.")
@options.namespace
@options.home
def put(name: str, key: str, value: str, skip_if_exists: bool, namespace: str, home: str | None) -> None:
    """Set the value of a key."""
    made = named(home, namespace, name).put(read(key), read(value), skip_if_exists=skip_if_exists)
    click.echo("Put." if made else "It is there already, and stays as it is.")


@dict.command(short_help="Remove a key.", epilog=WRITTEN)
@click.argument("name", metavar="NAME")
@click.argument("key", metavar="KEY")
@options.namespace
@options.home
def rm(name: str, key: str, namespace: str, home: str | None) -> None:
    """Remove a key and its value."""
    if not named(home, namespace, name)._raw_pop(pickled(key)).found:
        raise SwellError("not_found", f"There is no key {key!r} in the dict {name!r}.", status=404)
    click.echo("Removed.")


@dict.command(short_help="Remove all keys.")
@click.argument("name", metavar="NAME")
@options.namespace
@options.home
def clear(name: str, namespace: str, home: str | None) -> None:
    """Remove all keys and their values. There is no way back."""
    named(home, namespace, name).clear()
    click.echo(f"{name} is empty.")


@dict.command(short_help="Delete a dict and all that is in it.")
@click.argument("name", metavar="NAME")
@options.namespace
@options.home
def delete(name: str, namespace: str, home: str | None) -> None:
    """Delete a dict with all that is in it. There is no way back."""
    named(home, namespace, name)._remove()
    click.echo(f"{name} is deleted.")
