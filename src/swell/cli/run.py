"""`swell run`: run a program whose functions run in replicas. A server is started for it where there is none."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import progress
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.flags import Flag, Flags
    from swell.sdk.load import Target
    from swell.wire.api import LogRow

OWN_CODE = str(Path(__file__).parents[1])


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Leave the app on the server at the end.")
@click.option("-n", "--name", metavar="NAME", help="Begin the run's name with this instead of the app's.")
@options.namespace
@options.home
@click.argument("reference", metavar="FILE[::FUNCTION]")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--ARG VALUE]…")
def run(
    detach: bool, name: str | None, namespace: str, home: str | None, reference: str, words: tuple[str, ...]
) -> None:
    """Run a local entry point here, or a function in a replica; print its output and result.

    FILE is a path or a module's name; FUNCTION may be left out where there is only one. What comes after it are
    flags made from its arguments: `swell run FILE --help` lists them.
    """
    from swell.sdk import flags, load
    from swell.sdk.run import Running

    if home is not None:
        # Not only for us: the user's own code may look up deployed apps, too.
        os.environ["SWELL_HOME"] = home
    target = load.target(reference)
    args, kwargs = _arguments(flags.flags(target.run, target.is_method), f"swell run {reference}", words)
    with ExitStack() as stack:
        with progress(f"Starting {target.name}") as tell:
            stack.enter_context(_server(tell))
            running = Running(target.app, name=name, namespace=namespace, detach=detach, progress=tell, log=_show)
            stack.enter_context(running)
        try:
            _call(target, args, kwargs)
        except Exception as error:
            _show_failure(error)
            raise click.exceptions.Exit(1) from error


@contextmanager
def _server(tell: Any) -> Iterator[None]:
    """A server on this state directory for as long as we need one, unless settings lead to one elsewhere.

    One that was started for us has ended on return: the next command does not meet it dying.
    """
    import msgspec

    from swell.supervise import background

    chosen = options.chosen(None)
    if chosen.url:
        yield
        return
    background.ensure(msgspec.to_builtins(chosen), os.getpid(), tell)
    try:
        yield
    finally:
        background.leave(chosen.paths, os.getpid())


def _call(target: Target, args: Sequence[str], kwargs: Mapping[str, Any]) -> None:
    """Run it and print what it gives."""
    from swell.sdk.app import LocalEntrypoint
    from swell.sdk.function import is_generator

    runnable = target.run
    if isinstance(runnable, LocalEntrypoint):
        result = runnable(*args, **kwargs)
        if inspect.iscoroutine(result):
            import asyncio

            result = asyncio.run(result)
    elif is_generator(runnable.__swell_raw__):
        for item in runnable.remote_gen(*args, **kwargs):
            click.echo(item)
        return
    else:
        result = runnable.remote(*args, **kwargs)
    if result is not None:
        click.echo(result)


def _show(row: LogRow) -> None:
    """A line that a replica wrote, where the user's own output goes."""
    click.echo(row.text, err=row.stream != "out")


def _show_failure(error: Exception) -> None:
    """The user's traceback, without the frames of ours that lead to it."""
    user = error.__traceback__
    while user is not None and user.tb_frame.f_code.co_filename.startswith(OWN_CODE):
        user = user.tb_next
    if user is None and isinstance(error, SwellError):
        raise error
    for line in traceback.format_exception(type(error), error, _without_own(user)):
        sys.stderr.write(line)


def _without_own(tb: TracebackType | None) -> TracebackType | None:
    """The frames up to where the user's code calls ours."""
    if tb is None or tb.tb_frame.f_code.co_filename.startswith(OWN_CODE):
        return None
    return TracebackType(_without_own(tb.tb_next), tb.tb_frame, tb.tb_lasti, tb.tb_lineno)


# -- flags -----------------------------------------------------------------------------------


def _arguments(found: Flags, title: str, words: Sequence[str]) -> tuple[Sequence[str], dict[str, Any]]:
    """(positional, by name) arguments out of the words of the command line."""
    from swell.sdk import flags

    if found.variadic:
        return words, {}
    command = click.Command(title, params=[_option(flag) for flag in found.flags])
    command.context_settings = {"help_option_names": ["-h", "--help"]}
    with command.make_context(title, list(words)) as context:
        given = {name: _texts(value) for name, value in context.params.items()}
        try:
            return (), flags.arguments(found, {name: texts for name, texts in given.items() if texts})
        except SwellError as error:
            raise click.UsageError(error.message, context) from None


def _option(flag: Flag) -> click.Option:
    if flag.kind == "bool":
        return click.Option([f"{flag.option}/--no-{flag.option[2:]}", flag.name], default=None, help=flag.help)
    return click.Option([flag.option, flag.name], type=str, multiple=flag.repeated, metavar="VALUE", help=flag.help)


def _texts(value: Any) -> Sequence[Any]:
    if isinstance(value, tuple):
        return value
    return () if value is None else (value,)
