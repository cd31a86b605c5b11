"""`swell dict`: values that programs share by a key."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import click

from swell.cli import options, shared
from swell.cli.values import WRITTEN, read, shown
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.dict import Dict


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


shared.add_commands(dict, "dict", "entries", named)


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
