"""`swell call`: one call from the shell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from swell.cli import options
from swell.cli.output import patience
from swell.cli.text import of_words
from swell.cli.why import found, note_end
from swell.model.errors import SwellError
from swell.model.variant import base_of
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.sdk.protocol import Answer, Frames
    from swell.wire.api import ReplicaRow

OF_THE_CALLER = frozenset(
    {
        *("unknown_app", "unknown_function", "unknown_path", "bad_arguments", "bad_body", "bad_request"),
        *("no_key", "bad_key", "method_not_allowed"),
        *("unknown_parameter", "missing_parameter", "bad_parameter", "unknown_variant"),
    }
)
"""Errors whose message is all there is to know: no code of the app had a part in them."""


@click.command(short_help="Call a function and print its result as JSON.")
@click.argument("target", metavar="APP/FUNCTION")
@click.argument("arguments", default="", metavar="[JSON]")
@options.parameters
@click.option("-v", "--verbose", is_flag=True, help="Show the request's id, timing and cost on stderr.")
@options.namespace
@options.home
def call(
    target: str, arguments: str, parameters: dict[str, str], verbose: bool, namespace: str, home: str | None
) -> None:
    """Call a function (or APP/CLASS.METHOD, or either behind NAMESPACE/) and print its result as JSON.

    The arguments are a JSON object of names or an array of positions: in the command line, in a file (@FILE),
    or on stdin (-). The items of a generator are printed line by line as they come. Parameters of a class are given
    with --param.
    """
    from swell.sdk.bridge import iterate
    from swell.sdk.protocol import Frames, Request
    from swell.wire import http

    at = whole_target(target, namespace)
    body = options.json_body(arguments)
    client = options.connect(home)
    headers = {"content-type": http.JSON, "accept": f"{http.FRAMES}, {http.JSON}"}
    request = Request("POST", f"/call/{quote(at)}{'?' * bool(parameters)}{urlencode(parameters)}", headers, body)

    whole = Whole()
    streamed = ""

    def reader(head: Answer) -> Whole | Frames:
        nonlocal streamed
        answered()
        if verbose:
            _tell(head)
        if not head.ok:
            raise _refusal(head, at)
        if head.content_type != http.FRAMES:
            return whole
        streamed = head.headers.get(http.REQUEST_ID.lower(), "")
        return Frames(head)

    try:
        with patience(f"Calling {target}", partial(_state, client, at)) as answered:
            for item in iterate(client.transport.stream(request, reader)):
                click.echo(json.dumps(item, ensure_ascii=False))
    except SwellError as error:
        if streamed:
            # What the client notes for a program, it is told here as of any call.
            error.__notes__ = []
            _with_ways(error, at)
        note_end(client, error, streamed)
        raise
    if whole.body:
        click.echo(bytes(whole.body))
    if streamed and verbose:
        _tell_use(client, streamed)


def whole_target(target: str, namespace: str) -> str:
    """ "namespace/app/function" of "app/function", or of that with another namespace in front."""
    parts = of_words(target, "What is to be called").strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise click.UsageError(f"{target!r} is not APP/FUNCTION: `swell app list` shows what there is.")
    return "/".join(parts if len(parts) == 3 else (namespace, *parts))


def _state(client: Client, at: str) -> str:
    """What a call that is not answered yet waits for."""
    app, _, name = at.rpartition("/")
    key = f"{app}/{name.partition('.')[0]}"
    try:
        rows = [row for row in client.replicas() if base_of(row.workload) == base_of(key)]
    except SwellError:
        return "waiting for an answer"
    return waiting_for(rows)


def waiting_for(rows: Sequence[ReplicaRow]) -> str:
    """What a call of their function waits for, short enough to stand beside its name. Pure."""
    serving = [row for row in rows if row.role == "serving"]
    if any(row.phase == "ready" for row in serving):
        return "a replica is ready; waiting for its answer"
    templates = [row for row in rows if row.role == "template" and row.phase != "ready"]
    # A replica that is to be forked goes on when its template is loaded.
    steps = [*(f"its template is {row.phase}" for row in templates), *(f"{row.id} is {row.phase}" for row in serving)]
    more = f", {len(serving) - 1} more" if len(serving) > 1 and not templates else ""
    return ": ".join(["waiting for a replica", *steps[:1]]) + more


class Whole:
    """Reads a body that is one value: it has no items on the way."""

    def __init__(self) -> None:
        self.body = bytearray()

    def feed(self, data: bytes) -> Iterable[Any]:
        """Add some of it."""
        self.body += data
        return ()

    def close(self) -> None:
        """It is complete."""


def _refusal(head: Answer, at: str) -> SwellError:
    """The server's error with the ways to learn more about this very request."""
    from swell.sdk.protocol import error_of, failed_request

    return _with_ways(failed_request(error_of(head), head.status), at)


def _with_ways(failed: SwellError, at: str) -> SwellError:
    if failed.request and failed.code not in OF_THE_CALLER:
        ways = f"`swell why {failed.request}`"
        # A request that code answered for may have printed something; the end of a replica is not in its lines.
        if failed.code == "exception":
            ways = f"`swell logs --request {failed.request}`, {ways}"
        elif failed.code == "no_replica":
            # What kept replicas from starting was of no request.
            ways = f"`swell logs {shown(at.rpartition('/')[0])}`, {ways}"
        if ways not in failed.message:
            failed.message = f"{failed.message.rstrip('.')}. More: {ways}."
    return failed


def _tell(head: Answer) -> None:
    from swell.wire import http

    click.echo(f"{http.REQUEST_ID}: {head.headers.get(http.REQUEST_ID.lower(), '-')}", err=True)
    for name in (http.COLD, http.SERVER_TIMING, http.COST_USD):
        if name.lower() in head.headers:
            click.echo(f"{name}: {head.headers[name.lower()]}", err=True)


def _tell_use(client: Client, request: str) -> None:
    """Timing and cost of a stream that is over, from its record: the HTTP client drops the trailers they are in."""
    from swell.wire import http

    try:
        kept = found(client, request)
    except SwellError as error:
        click.echo(error.message, err=True)
        return
    steps = (
        (f"start-{name}" if name != step.what else name, step.ms) for step in kept.steps if (name := step.what.strip())
    )
    timing = ", ".join(f"{name};dur={ms:.2f}" for name, ms in (*steps, ("total", kept.total_ms)))
    click.echo(f"{http.SERVER_TIMING}: {timing}", err=True)
    click.echo(f"{http.COST_USD}: {kept.marginal_usd:.12f}", err=True)
