"""`swell queue`: values that programs pass on, first in, first out."""

from __future__ import annotations

import queue as queues
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from swell.cli import options, shared
from swell.cli.values import read, shown
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.queue import Queue

WRITTEN = "VALUE is JSON, or text where it is none: 1 is a number, '\"1\"' and a are text."


@click.group(epilog=WRITTEN)
def queue() -> None:
    """Make, fill, empty and delete queues.

    A queue is values that programs pass on, first in, first out. A program has one by swell.Queue.from_name("NAME").
    """


def partition_option(command: options.F) -> options.F:
    """Which partition."""
    return click.option("-p", "--partition", metavar="NAME", help="Which one; default: the one without a name.")(
        command
    )


def named(home: str | None, namespace: str, name: str) -> Queue:
    """A queue on the server that is meant."""
    from swell.sdk.queue import Queue

    return Queue(name, namespace)._on(options.connect(home))


shared.add_commands(queue, "queue", "items", named)


@queue.command("len", short_help="Count the items.")
@click.argument("name", metavar="NAME")
@partition_option
@click.option("--total", is_flag=True, help="In all partitions.")
@options.namespace
@options.home
def length(name: str, partition: str | None, total: bool, namespace: str, home: str | None) -> None:
    """Count the items of a queue."""
    click.echo(named(home, namespace, name).len(partition=partition, total=total))


@queue.command(short_help="Look at the first items.")
@click.argument("name", metavar="NAME")
@partition_option
@click.option("-n", "most", metavar="N", type=click.IntRange(min=1), default=10, help="So many; default: 10.")
@options.namespace
@options.home
def peek(name: str, partition: str | None, most: int, namespace: str, home: str | None) -> None:
    """Look at the first items of a queue, a line of JSON each. They stay in it."""
    for item in islice(named(home, namespace, name)._raw_items(partition), most):
        click.echo(shown(item))


@queue.command(short_help="Put items in.", epilog=WRITTEN)
@click.argument("name", metavar="NAME")
@click.argument("values", metavar="VALUE…", nargs=-1, required=True)
@partition_option
@options.namespace
@options.home
def put(name: str, values: Sequence[str], partition: str | None, namespace: str, home: str | None) -> None:
    """Put items in at the end: all of them, or none where the partition is full."""
    try:
        named(home, namespace, name).put_many([read(value) for value in values], False, partition=partition)
    except queues.Full as error:
        raise SwellError("queue_full", str(error), status=409) from None
    click.echo(f"{len(values)} {'item is' if len(values) == 1 else 'items are'} in {name}.")


@queue.command(short_help="Get items out.")
@click.argument("name", metavar="NAME")
@partition_option
@click.option("-n", "most", metavar="N", type=click.IntRange(min=1), default=1, help="So many; default: 1.")
@click.option("--wait", "wait_s", metavar="SECONDS", type=click.FloatRange(min=0), default=0.0, help="For the first.")
@options.namespace
@options.home
def get(name: str, partition: str | None, most: int, wait_s: float, namespace: str, home: str | None) -> None:
    """Get the first items out of a queue, for good, and print them, a line each. Where there is none it fails."""
    try:
        found = named(home, namespace, name)._raw_take(most, wait_s, partition)
    except queues.Empty:
        raise SwellError("not_found", f"There is no item in the queue {name!r}.", status=404) from None
    for item in found:
        click.echo(shown(item))


@queue.command(short_help="Take all items out.")
@click.argument("name", metavar="NAME")
@partition_option
@click.option("--all", "everything", is_flag=True, help="Of all partitions.")
@options.namespace
@options.home
def clear(name: str, partition: str | None, everything: bool, namespace: str, home: str | None) -> None:
    """Take all items out of a partition, or of all of them. There is no way back."""
    named(home, namespace, name).clear(partition=partition, all=everything)
    click.echo("It is empty." if everything or partition is None else f"{partition} is empty.")
