"""`swell secret`: what replicas are told and nobody else is to see."""

from __future__ import annotations

import os
import time
from typing import IO, TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table
from swell.cli.text import of_stdin, of_stream, of_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swell.wire.api import SecretRow

HEADS = ("SECRET", "V", "AGE", "VARIABLES", "APPS")


@click.group()
def secret() -> None:
    """Make, list, rotate and delete secrets. Their values are never shown again.

    A function takes one with secrets=[swell.Secret.from_name("NAME")] and finds its variables in os.environ.
    """


def variables(command: options.F) -> options.F:
    """What the values come from."""
    command = click.argument("pairs", metavar="[KEY=VALUE…]", nargs=-1)(command)
    command = click.option(
        "--from-dotenv", "dotenv", metavar="FILE", type=click.File("r", encoding="utf-8"), help="Read KEY=VALUE lines."
    )(command)
    return click.option("--from-stdin", is_flag=True, help="Read such lines from standard input.")(command)


def given(pairs: Sequence[str], dotenv: IO[str] | None, from_stdin: bool) -> dict[str, str]:
    """The variables that the command line names; a KEY alone is asked for."""
    from swell.sdk.dotenv import parse

    values: dict[str, str] = {}
    if dotenv is not None:
        values |= parse(of_stream(dotenv, dotenv.name), dotenv.name)
    if from_stdin:
        values |= parse(of_stdin(), "standard input")
    for pair in pairs:
        key, is_pair, value = of_words(pair, "One of the KEY=VALUE").partition("=")
        values[key] = value if is_pair else _typed(key)
    return values


def _typed(key: str) -> str:
    """What is typed on the terminal for a variable, unseen."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        ways = f"give {key}=VALUE, --from-dotenv FILE or --from-stdin"
        raise click.UsageError(f"{key} has no value, and there is no terminal to ask for it on: {ways}.") from None
    return of_words(str(click.prompt(key, hide_input=True, err=True)), f"The value of {key}")


@secret.command(short_help="Make a secret.")
@click.argument("name", metavar="NAME")
@variables
@options.namespace
@options.home
def create(
    name: str, pairs: Sequence[str], dotenv: IO[str] | None, from_stdin: bool, namespace: str, home: str | None
) -> None:
    """Make a secret of variables: KEY=VALUE, or KEY alone, which is asked for.

    What stands on a command line can be seen by others on this machine while it runs, and by who reads the shell's
    history: a KEY alone, --from-dotenv and --from-stdin spare that.
    """
    values = given(pairs, dotenv, from_stdin)
    if not values:
        raise click.UsageError("Give KEY=VALUE, KEY, --from-dotenv FILE or --from-stdin.")
    options.connect(home).create_secret(name, values, namespace)
    click.echo(f"{name} is made: {', '.join(sorted(values))}.")


@secret.command(short_help="Give a secret new values.")
@click.argument("name", metavar="NAME")
@variables
@click.option("--unset", metavar="KEY", multiple=True, help="A variable it has no more; may be repeated.")
@options.namespace
@options.home
def rotate(
    name: str,
    pairs: Sequence[str],
    dotenv: IO[str] | None,
    from_stdin: bool,
    unset: Sequence[str],
    namespace: str,
    home: str | None,
) -> None:
    """Give variables of a secret new values: a new version of it. Those that are not named are as they were.

    Replicas that run have them at once, in os.environ and as files. The newest 10 versions are kept.
    """
    values = given(pairs, dotenv, from_stdin)
    if not values and not unset:
        raise click.UsageError("Give KEY=VALUE, KEY, --from-dotenv FILE, --from-stdin or --unset KEY.")
    row = options.connect(home).rotate_secret(name, values, unset, namespace)
    click.echo(f"{name} is v{row.version} now: {', '.join(row.keys)}.")


@secret.command("list", short_help="List secrets, without their values.")
@options.namespace
@options.as_json
@options.home
def list_secrets(namespace: str, as_json: bool, home: str | None) -> None:
    """List secrets: the newest version, its age, its variables, and the apps that use it."""
    rows = options.connect(home).secrets(namespace)
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
    else:
        click.echo("There is no secret. `swell secret create NAME KEY=VALUE` makes one.")


def listing(rows: Sequence[SecretRow], now: float) -> str:
    """One line for each."""
    from swell.model.workload import shown

    cells = [
        (
            row.name,
            f"v{row.version}",
            duration(now - row.at),
            " ".join(row.keys),
            " ".join(map(shown, row.apps)) or "-",
        )
        for row in rows
    ]
    return table(HEADS, cells, right=("AGE",))


@secret.command(short_help="Delete a secret, or one version of it.")
@click.argument("name", metavar="NAME")
@click.option("--version", metavar="N", type=click.IntRange(min=1), default=None, help="Only this version.")
@click.option("--force", is_flag=True, help="Also where apps use it: what has it is drained, and new starts fail.")
@options.namespace
@options.home
def delete(name: str, version: int | None, force: bool, namespace: str, home: str | None) -> None:
    """Delete a secret, or one version of it. Without the newest version, the one before it counts again."""
    options.connect(home).delete_secret(name, version or 0, force, namespace)
    click.echo(f"{name}{f' v{version}' if version else ''} is deleted.")
