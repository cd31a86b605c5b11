"""`swell run`: run a program whose functions run in replicas. A server is started for it where there is none."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import click

from swell.cli import options
from swell.cli.output import progress
from swell.cli.session import server, shower, told_to_end
from swell.cli.why import note_end
from swell.model.errors import SwellError

if TYPE_CHECKING:
    from swell.sdk.flags import Flag, Flags
    from swell.sdk.load import Target
    from swell.sdk.run import Running
    from swell.wire.api import LogRow


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run a program; the functions it calls run in replicas.",
)
@click.option("-d", "--detach", is_flag=True, help="Leave the app on the server at the end.")
@options.parameters
@click.option("-n", "--name", metavar="NAME", help="Begin the run's name with this instead of the app's.")
@options.namespace
@options.home
@click.argument("reference", metavar="FILE[::FUNCTION]")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--ARG VALUE]…")
def run(
    detach: bool,
    parameters: dict[str, str],
    name: str | None,
    namespace: str,
    home: str | None,
    reference: str,
    words: tuple[str, ...],
) -> None:
    """Run a local entry point here, or a function in a replica; print its output and result.

    FILE is a path or a module's name; FUNCTION may be left out where there is only one. The options below come
    before it. What comes after it are flags made from its arguments: `swell run FILE --help` lists them. Parameters
    of the class of a method are given with --param.
    """
    from swell.sdk import flags, load
    from swell.sdk.run import Running

    if home is not None:
        # Not only for us: the user's own code may look up deployed apps, too.
        os.environ["SWELL_HOME"] = home
    target = load.with_parameters(load.target(reference), parameters)
    if target.name in target.app.registered_web_endpoints:
        place = reference.partition("::")[0]
        raise SwellError(
            "is_web",
            f"{target.name} is a web endpoint: `swell serve {place}` puts it up while you work on it, "
            f"`swell deploy {place}` to stay.",
        )
    found = flags.flags(target.run, target.is_method)
    about = inspect.getdoc(target.run.__swell_raw__)
    args, kwargs = arguments(found, run, "swell run", reference, about, words)
    with told_to_end() as ending, ExitStack() as held:
        try:
            with ExitStack() as app:
                with progress(f"Starting {target.name}") as tell:
                    held.enter_context(server(tell))
                    running = Running(
                        target.app, name=name, namespace=namespace, detach=detach, progress=tell, log=_shower(target)
                    )
                    # Whatever happens from here on: what is left is told of.
                    held.callback(_say_left, running, home)
                    app.enter_context(running)
                with ending.program():
                    result = _call(target, args, kwargs)
        except _Failed as failed:
            _show_failure(failed.error)
            raise click.exceptions.Exit(1) from failed.error
        # Only now: what replicas printed on the way to it has been shown.
        if result is not None:
            click.echo(result)


def _say_left(running: Running[Any], home: str | None) -> None:
    with suppress(OSError):
        # After SIGHUP there may be no terminal.
        if left := running.left(home):
            click.echo(left, err=True)


class _Failed(Exception):
    """The user's program raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _call(target: Target, args: Sequence[str], kwargs: Mapping[str, Any]) -> Any:
    """Run it; returns its result. The items of a generator are printed as they come."""
    from swell.sdk.app import LocalEntrypoint
    from swell.sdk.function import is_generator

    runnable = target.run
    try:
        if isinstance(runnable, LocalEntrypoint):
            result = runnable(*args, **kwargs)
            if inspect.iscoroutine(result):
                import asyncio

                return asyncio.run(result)
            return result
        if not is_generator(runnable.__swell_raw__):
            return runnable.remote(*args, **kwargs)
        for item in runnable.remote_gen(*args, **kwargs):
            click.echo(item)
    except Exception as error:
        raise _Failed(error) from error
    return None


def _shower(target: Target) -> Callable[[LogRow], None]:
    """Shows what functions write. That of the one that is run, where it is clear, needs no mark."""
    declared = list(target.app.declared)
    return shower(declared[0] if len(declared) == 1 else target.name.partition(".")[0])


def _show_failure(error: Exception) -> None:
    """The user's traceback, without the frames of ours that lead to it, and without what the replica's log showed."""
    from swell.sdk.frames import RemoteTraceback, users

    note_end(options.connect(None), error)
    if isinstance(error.__cause__, RemoteTraceback):
        error.__cause__ = None
        error.__suppress_context__ = True
    user = users(error.__traceback__)
    if user is None and isinstance(error, SwellError):
        raise error
    for line in traceback.format_exception(type(error), error, user):
        sys.stderr.write(line)
    _show_why_not_now(error)


def _show_why_not_now(error: Exception) -> None:
    """Where we are sent to `swell why`, and the server that could answer is about to end with us."""
    from swell.supervise.lock import holder

    chosen = options.chosen(None)
    held = None if chosen.url else holder(chosen.paths)
    if held is not None and held.attached and any("swell why" in note for note in getattr(error, "__notes__", ())):
        click.echo("(The server of this run ends with it: `swell up -d` brings back one that can answer.)", err=True)


# -- flags -----------------------------------------------------------------------------------


def arguments(
    found: Flags, own: click.Command, called: str, reference: str, about: str | None, words: Sequence[str]
) -> tuple[Sequence[str], dict[str, Any]]:
    """(positional, by name) arguments of what a command, `own`, `called` so, runs, out of the words behind its name.
    `about` is for the help."""
    from swell.sdk import flags

    title = f"{called} {reference}"

    if found.variadic:
        return words, {}
    command = click.Command(title, help=about, params=[_option(flag) for flag in found.flags])
    command.context_settings = {"help_option_names": ["-h", "--help"]}
    try:
        context = command.make_context(title, list(words))
    except click.NoSuchOption as error:
        raise _misplaced(error, own, called) from None
    with context:
        given = {name: _texts(value) for name, value in context.params.items()}
        try:
            values = flags.arguments(found, {name: texts for name, texts in given.items() if texts})
            typed = {flag.name: _typed(flag, values[flag.name]) for flag in found.flags if flag.name in values}
        except SwellError as error:
            raise click.UsageError(error.message, context) from None
        return (), typed


def _misplaced(error: click.NoSuchOption, own: click.Command, called: str) -> click.UsageError:
    """An option of the command itself that stands among the flags of the program."""
    if any(error.option_name in parameter.opts for parameter in own.params):
        return click.UsageError(
            f"{error.option_name} is an option of `{called}` and comes before the file: "
            f"{called} {error.option_name} … FILE.",
            error.ctx,
        )
    return error


def _typed(flag: Flag, value: Any) -> Any:
    """What a flag's annotation makes of its value, as of that in the body of a call."""
    if flag.kind != "json":
        return value
    import msgspec

    from swell.runtime.arguments import Arguments
    from swell.wire.http import JSON

    def alone(**_: Any) -> None: ...

    only = inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, annotation=flag.hint)
    alone.__signature__ = inspect.Signature([only])  # type: ignore[attr-defined]
    alone.__annotations__ = {flag.name: flag.hint}
    try:
        _, made = Arguments(flag.option, alone).read(JSON.encode(), msgspec.json.encode({flag.name: value}), True)
    except SwellError as error:
        said = error.message.partition(". It takes ")[0]
        raise SwellError("bad_arguments", f"{flag.option}: {said[:1].lower()}{said[1:]}. Give {flag.wanted}.") from None
    return made[flag.name]


def _option(flag: Flag) -> click.Option:
    if flag.kind == "bool":
        return click.Option([f"{flag.option}/--no-{flag.option[2:]}", flag.name], default=None, help=flag.help)
    return click.Option([flag.option, flag.name], type=str, multiple=flag.repeated, metavar="VALUE", help=flag.help)


def _texts(value: Any) -> Sequence[Any]:
    if isinstance(value, tuple):
        return value
    return () if value is None else (value,)
