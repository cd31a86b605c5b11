"""`swell shell`: look around in what a function has."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import progress
from swell.cli.session import server, told_to_end
from swell.model.errors import SwellError
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.sdk.shell import Beside

_REPLICA = re.compile(r"r[0-9a-f]+-[0-9a-f]+")


@click.command(short_help="A shell or another program in what a function has.")
@click.option(
    "-c",
    "--cmd",
    metavar="COMMAND",
    default="",
    help="Run this instead of bash (or sh), without a shell: python, say, or \"sh -c 'a; b'\".",
)
@click.option(
    "--pty/--no-pty", "terminal", default=None, help="Give it a terminal; by default where this is run in one."
)
@options.namespace
@options.home
@click.argument("reference", metavar="[FILE[::FUNCTION] | APP/FUNCTION]", required=False)
def shell(cmd: str, terminal: bool | None, namespace: str, home: str | None, reference: str | None) -> None:
    """Open a shell in a replica of its own that is like those of FUNCTION.

    It has the interpreter and packages, source, variables, secrets, limits and sandbox of a function in FILE (a path,
    or a module's name), of one that is deployed, or, without either, the interpreter alone. Hooks are not run. Its exit
    code is the program's. It ends with this command, at the latest after a day. A key needs the scope deploy.
    """
    import asyncio

    from swell.cli import terminal as terminals

    if home is not None:
        # Not only for us: the user's own code may look up deployed apps while it is imported.
        os.environ["SWELL_HOME"] = home
    words = _words(cmd)
    wanted = terminals.is_terminal() if terminal is None else terminal
    with told_to_end(), ExitStack() as held:
        # It says so for as long as it takes to start, and not a moment longer.
        starting = held.enter_context(ExitStack())
        tell = starting.enter_context(progress(f"Starting a shell{f' beside {reference}' if reference else ''}"))
        if not _is_deployed(reference):
            held.enter_context(server(tell))
        client = options.connect(home)
        beside, stem = _beside(reference, namespace, client)
        path = _put_up(held, beside, namespace, stem, client, tell)

        async def attended() -> int:
            from swell.sdk.socket import Socket

            socket = await Socket.open(client.url, path, client.key)
            starting.close()
            for note in beside.notes:
                click.echo(f"Note: {note}.", err=True)
            try:
                return await terminals.attend(socket, words, wanted, f"{stem} $ ")
            finally:
                await socket.close()

        code = asyncio.run(attended())
    raise click.exceptions.Exit(code)


def _words(cmd: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(cmd))
    except ValueError as error:
        raise click.BadParameter(f"{cmd!r} cannot be read: {error}.", param_hint="--cmd") from None


def _is_deployed(reference: str | None) -> bool:
    """Is it an app and a function, and no file?"""
    return reference is not None and "/" in reference and "::" not in reference and not _is_file(reference)


def _is_file(reference: str) -> bool:
    return reference.endswith(".py") or Path(reference).exists()


def _beside(reference: str | None, namespace: str, client: Client) -> tuple[Beside, str]:
    """What the shell is to be like, and what it is called."""
    from swell.sdk import shell as shells
    from swell.sdk.bridge import drive

    if reference is None:
        return shells.plain(), "shell"
    if _REPLICA.fullmatch(reference):
        raise _serves(reference, client)
    if not _is_deployed(reference):
        found = drive(shells.of_source(reference, namespace, client))
        return found, found.workload
    *space, app, name = reference.split("/")
    # Of a class it is all its methods together that a replica has.
    workload = name.partition(".")[0]
    found = drive(shells.of_deployed(app, workload, "/".join(space) or namespace, client))
    return found, f"{app}-{workload}"


def _serves(replica: str, client: Client) -> SwellError:
    """Nothing enters a replica that has requests to answer; of its function a shell can be had."""
    rows = {row.id: row for row in client.replicas()}
    way = f"`swell shell {shown(rows[replica].workload)}`" if replica in rows else "`swell shell APP/FUNCTION`"
    return SwellError(
        "not_available",
        f"A shell cannot enter {replica}: a replica is its function's alone, and what is done there would be at the "
        f"cost of its requests. {way} opens one in a replica of its own, made in the same way.",
    )


def _put_up(
    held: ExitStack, beside: Beside, namespace: str, stem: str, client: Client, tell: Callable[[str], None]
) -> str:
    """Have it on the server for as long as this command lasts; returns where it is opened."""
    from swell.sdk import shell as shells
    from swell.sdk.bridge import drive
    from swell.sdk.presence import me

    space = beside.namespace or namespace
    name = shells.name_of(stem)

    def stop() -> None:
        # Where it cannot be stopped, it was never there, somebody else did, or the server is gone.
        with suppress(SwellError):
            client.stop(name, space)

    held.callback(stop)
    held.callback(client.present(me()).cancel)
    return drive(shells.put_up(beside, name, space, client, tell))
