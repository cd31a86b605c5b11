"""`swell calls`: what was sent to be worked on later, what became of it, and another try of what failed."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from swell.cli import options
from swell.cli.output import clock, duration, json_text, printable, table, wrapped
from swell.cli.values import Plain, shown
from swell.model.errors import SwellError, brief
from swell.model.workload import shown as shown_as

if TYPE_CHECKING:
    from swell.model.call import State
    from swell.sdk.client import Client
    from swell.wire.call_rows import CallRow
    from swell.wire.calls import Progress

STATES = ("queued", "leased", "done", "failed", "cancelled")
HEADS = ("CALL", "STATE", "AGO", "TRIES", "FUNCTION", "PROGRESS/ERROR")
WAITS = "it waits for a replica"
SHOWN_MAX = 64 * 1024
"""Bytes of a result that are printed in one line; of a longer one it is said how long it is."""


@click.group()
def calls() -> None:
    """List, show, retry, cancel and forget queued calls.

    They are sent with `Swell-Async: true` over HTTP, or with FUNCTION.spawn(…) from Python.
    """


@calls.command("list", short_help="List calls, the newest first.")
@click.argument("app", default="", metavar="[APP]")
@click.option(
    "--state", type=click.Choice(STATES), default=None, help="Only those in this state; failed: dead letters."
)
@click.option("-n", "most", metavar="N", type=click.IntRange(1, 1000), default=20, help="So many; default: 20.")
@click.option("--before", metavar="ID", default="", help="The next page: those that came before this one.")
@options.namespace
@options.as_json
@options.home
def list_calls(
    app: str, state: State | None, most: int, before: str, namespace: str, as_json: bool, home: str | None
) -> None:
    """List calls that are kept, the newest first: of APP, or of all apps of the namespace."""
    client = options.connect(home)
    with options.app_named("swell calls list", app, namespace, client) as (space, name):
        rows = client.calls(name, namespace=space, state=state, limit=most, before=before)
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
        if len(rows) == most:
            click.echo(wrapped(f"More: --before {rows[-1].id}"), err=True)
    else:
        chosen = " of those that were asked for: `swell calls list` alone shows all" if state or app or before else ""
        click.echo(f"No call is kept here{chosen}.")


@calls.command(short_help="Show a call: where it stands, what failed, its input or result.")
@click.argument("id", metavar="ID")
@click.option(
    "--input",
    "file",
    metavar="FILE",
    type=click.File("wb", lazy=True),
    help="Write its input there, byte by byte (-: to stdout), and show nothing.",
)
@options.as_json
@options.home
def show(id: str, file: IO[bytes] | None, as_json: bool, home: str | None) -> None:
    """Show what is known of a call: where it stands, what failed last, its result.

    Of one that is done there is the result, of one that is not the input: as JSON, as far as it is plain data. An input
    that was pickled by a program may be more than that: no code is run here to show it.
    """
    client = options.connect(home)
    if file is not None:
        _, data = client.call_input(id)
        file.write(data)
        return
    row = client.call(id)
    given = _given(client, row)
    if as_json:
        about = {} if given is None else {"input_type": given[0], "input": plain(*given)}
        click.echo(json_text({**msgspec.to_builtins(row), **about}))
        return
    click.echo(story(row, time.time()))
    if row.state == "done":
        click.echo("\n" + result(client, row))
    elif given is not None:
        click.echo("\n" + printable(f"input: {told(id, *given)}", False))


@calls.command(short_help="Try dead letters again: one, or many.")
@click.argument("id", default="", metavar="[ID]")
@click.option("--input", "words", metavar="JSON", default=None, help="With this input, or @FILE with what is in that.")
@click.option("--app", default="", metavar="APP", help="All of this app.")
@click.option("--function", default="", metavar="NAME", help="Of the app, only those of this function or class.")
@click.option("--state", type=click.Choice(("failed",)), default=None, help="All that failed for good; no others can.")
@click.option(
    "--since", type=options.Duration(), default=None, metavar="TIME", help="Only those that failed in the last 2h, say."
)
@options.namespace
@options.home
def retry(
    id: str,
    words: str | None,
    app: str,
    function: str,
    state: str | None,
    since: float | None,
    namespace: str,
    home: str | None,
) -> None:
    """Put calls that failed for good back into the queue, with all the tries that their function has: one by its ID, or
    all of an app, of a function, of the namespace (--state failed), or those that failed of late (--since).

    --input is a JSON object of names or an array of positions. A file may also have what `swell calls show ID --input
    FILE` wrote, changed or not: what is no JSON is of the type that the input had.
    """
    many = bool(app or function or state or since is not None)
    if bool(id) == many:
        raise click.UsageError("Give the ID of one call, or --app, --function, --state failed or --since for many.")
    if words is not None and many:
        raise click.UsageError("--input is of one call: give its ID.")
    if function and not app:
        raise click.UsageError("--function is one of an app: give --app, too.")
    client = options.connect(home)
    if id:
        client.retry_call(id, None if words is None else _new_input(client, id, words))
        click.echo(f"{id} is queued again.")
        return
    with options.app_named("swell calls retry --app", app, namespace, client) as (space, name):
        _retry_many(client, space, name, function, time.time() - since if since is not None else 0.0)


def _retry_many(client: Client, namespace: str, app: str, function: str, since: float) -> None:
    """Page by page."""
    from swell.wire.call_rows import Retried

    page = Retried(0)
    queued, more = 0, True
    while more:
        try:
            page = client.retry_calls(app, namespace=namespace, function=function, since=since, before=page.before)
        except SwellError as error:
            if queued:
                error.add_note(f"{queued} were queued again before that.")
            raise
        queued, more = queued + page.retried, bool(page.before)
    click.echo(f"{queued} {'call is' if queued == 1 else 'calls are'} queued again.")


def _new_input(client: Client, id: str, words: str) -> tuple[str, bytes]:
    """The content type and the bytes that somebody wants it to have."""
    from swell.wire import http

    if not words.startswith("@"):
        return http.JSON, options.json_body(words) or b"{}"
    try:
        data = Path(words[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{words[1:]} cannot be read: {error.strerror}.") from None
    if not data:
        raise click.UsageError(f"{words[1:]} is empty. {{}} is an input without arguments.")
    own, _ = client.call_input(id)
    return own if own == http.OCTETS or not _is_json(data) else http.JSON, data


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


@calls.command(short_help="Cancel a call.")
@click.argument("id", metavar="ID")
@options.home
def cancel(id: str, home: str | None) -> None:
    """Cancel a call: it is not begun any more or, where it runs, stopped. What it had done by then is done."""
    client = options.connect(home)
    row = client.cancel_call(id)
    click.echo(f"{id} is {row.state}." if row.state == "cancelled" else f"{id} had ended before: it is {row.state}.")


@calls.command(short_help="Forget calls that have ended.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@options.home
def forget(ids: tuple[str, ...], home: str | None) -> None:
    """Forget calls that have ended, with their inputs, results and checkpoint folders, before their time is over.

    A dead letter that is forgotten cannot be tried again.
    """
    client = options.connect(home)
    for id in dict.fromkeys(ids):
        client.forget_call(id)
        click.echo(f"{id} is forgotten.")


def listing(rows: Sequence[CallRow], now: float) -> str:
    """One line for each."""
    cells = [
        (
            row.id,
            row.state,
            duration(now - row.accepted_at),
            str(row.attempts),
            called(row),
            _last_word(row),
        )
        for row in rows
    ]
    return table(HEADS, cells, right=("AGO", "TRIES"))


def _last_word(row: CallRow) -> str:
    """How far it is, or what failed."""
    if row.progress is not None:
        return amount(row.progress)
    return printable(brief(row.error.message), False) if row.error is not None else ""


def amount(progress: Progress) -> str:
    """How far that is, in a line."""
    done, total = progress.done, progress.total
    parts = [_number(done)] if done is not None else []
    if done is not None and total is not None:
        parts = [f"{_number(done)} of {_number(total)}"]
        if 0 <= done <= total and total:
            parts.append(f"{done / total:.0%}")
    if progress.message:
        parts.append(printable(progress.message, False))
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:g}"


def called(row: CallRow) -> str:
    """What was called, as `swell call` takes it."""
    return shown_as(f"{row.namespace}/{row.app}/{row.function}")


def story(row: CallRow, now: float) -> str:
    """All that is known of one."""
    head = f"{row.id}  {called(row)}  {row.state}"
    parts = [f"accepted at {clock(row.accepted_at)}, {duration(now - row.accepted_at)} ago"]
    if row.key:
        parts.append(f"it came with the key {row.key} (swell key list)")
    if row.priority:
        parts.append(f"its priority is {row.priority}")
    if row.attempts:
        tries = "1 try" if row.attempts == 1 else f"{row.attempts} tries"
        if row.state == "leased":
            tries = f"try {row.attempts}" + (f" of {row.tries_max}" if row.attempts <= row.tries_max else "")
        used = f", {row.cpu_us / 1000:.1f} ms CPU in {duration(row.run_us / 1e6)}" if row.run_us else ""
        last = f", the last at {row.replica}" if row.replica and row.state != "leased" else ""
        parts.append(f"{tries}{last}{used}")
    parts += _stands(row, now)
    return "\n".join([wrapped(head), *(wrapped(f"- {part}", "  ") for part in parts)])


def _stands(row: CallRow, now: float) -> list[str]:
    """Where it stands, and what comes next."""
    error = row.error
    failed = f"{error.code}: {printable(error.message, False)}" if error is not None else ""
    if row.ended_at is None:
        last = [f"the last try failed with {failed}"] if failed else []
        if row.state == "leased":
            return [*last, *_runs(row, now)]
        if row.due_at > now:
            return [*last, f"it is due in {duration(row.due_at - now)}"]
        return [*last, f"it waits for a replica: {printable(row.waits, False)}" if row.waits else WAITS]
    found = [f"ended at {clock(row.ended_at)}, {duration(now - row.ended_at)} ago"]
    if failed:
        found.append(f"it failed with {failed}" if row.state == "failed" else failed)
    if row.expires_at is not None:
        found.append(f"it is kept for another {duration(row.expires_at - now)}")
    if row.state == "failed":
        found.append(f"`swell calls retry {row.id}` tries it again")
    return found


def _runs(row: CallRow, now: float) -> list[str]:
    """Since when it runs, and how that goes."""
    heard = f", heard of {duration(now - row.heard_at)} ago" if row.heard_at is not None else ""
    if row.begun_at is None:
        return [f"{row.replica} has it{heard}"]
    found = [f"it runs at {row.replica} since {clock(row.begun_at)}, {duration(now - row.begun_at)} ago{heard}"]
    if row.progress is not None:
        said = amount(row.progress) or "it goes on"
        found.append(f"progress: {said} (said {duration(now - row.progress.at)} ago)")
    if row.deadline_at is not None:
        ahead_s = row.deadline_at - now
        found.append(f"its deadline is in {duration(ahead_s)}" if ahead_s > 0 else "its deadline has passed")
    return found


def _given(client: Client, row: CallRow) -> tuple[str, bytes] | None:
    """The content type and the bytes of its input, where that is kept."""
    if row.state in ("done", "cancelled"):
        return None
    try:
        return client.call_input(row.id)
    except SwellError as error:
        # It has ended since.
        if error.status != 404:
            raise
        return None


def told(id: str, content_type: str, data: bytes) -> str:
    """An input in a line."""
    # Arguments are never null.
    value = plain(content_type, data)
    text = json.dumps(value, ensure_ascii=False) if value is not None else ""
    if not text:
        text = f"{len(data)} bytes of {content_type}"
    elif len(text) <= SHOWN_MAX:
        return text
    else:
        text = f"{text[:SHOWN_MAX]}… ({len(data)} bytes)"
    return f"{text}: `swell calls show {id} --input FILE` writes all of it"


def plain(content_type: str, data: bytes) -> Any:
    """The arguments, by name or by position, as far as they are plain data; None: they are not. Of those that a program
    sent both ways, the two."""
    from swell.wire import http

    kind = http.read_as(content_type)
    try:
        if kind == http.JSON:
            return json.loads(data) if data else {}
        if kind == http.MSGPACK:
            return msgspec.to_builtins(msgspec.msgpack.decode(data))
        if kind == http.PICKLE:
            args, kwargs = Plain(io.BytesIO(data)).load()
            value = [args, kwargs] if args and kwargs else kwargs or args
            # No more than JSON has: what is a tuple, say, is not told from a list.
            return json.loads(json.dumps(value))
    except Exception:
        return None
    return None


def result(client: Client, row: CallRow) -> str:
    """Its result in a line. No code of whoever made it runs here."""
    from swell.wire import http

    if row.result_apart:
        return f'large, of {row.result_type}: swell.FunctionCall.from_id("{row.id}").get()'
    if row.result_type.partition(";")[0].strip() == http.JSON:
        return json.dumps(row.result, ensure_ascii=False)
    data = client.call_result(row.id)
    if len(data) > SHOWN_MAX or row.result_type not in (http.PICKLE, http.MSGPACK):
        return f'{len(data)} bytes of {row.result_type}: swell.FunctionCall.from_id("{row.id}").get()'
    if row.result_type == http.PICKLE:
        return shown(data)
    return json.dumps(msgspec.to_builtins(msgspec.msgpack.decode(data)), ensure_ascii=False)
