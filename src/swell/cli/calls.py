"""`swell calls`: what was sent to be worked on later, what became of it, and another try of what failed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from swell.cli import options
from swell.cli.output import clock, duration, json_text, printable, table, wrapped
from swell.cli.values import shown
from swell.model.errors import brief
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
    """List, show, retry and cancel queued calls.

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


@calls.command(short_help="Show a call: where it stands, what failed, its result.")
@click.argument("id", metavar="ID")
@options.as_json
@options.home
def show(id: str, as_json: bool, home: str | None) -> None:
    """Show what is known of a call: where it stands, what failed last, its result."""
    client = options.connect(home)
    row = client.call(id)
    if as_json:
        click.echo(json_text(row))
        return
    click.echo(story(row, time.time()))
    if row.state == "done":
        click.echo("\n" + result(client, row))


@calls.command(short_help="Try a dead letter again.")
@click.argument("id", metavar="ID")
@options.home
def retry(id: str, home: str | None) -> None:
    """Put a call that failed for good back into the queue, with all the tries that its function has."""
    client = options.connect(home)
    client.retry_call(id)
    click.echo(f"{id} is queued again.")


@calls.command(short_help="Cancel a call.")
@click.argument("id", metavar="ID")
@options.home
def cancel(id: str, home: str | None) -> None:
    """Cancel a call: it is not begun any more or, where it runs, stopped. What it had done by then is done."""
    client = options.connect(home)
    row = client.cancel_call(id)
    click.echo(f"{id} is {row.state}." if row.state == "cancelled" else f"{id} had ended before: it is {row.state}.")


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


def result(client: Client, row: CallRow) -> str:
    """Its result in a line. No code of whoever made it runs here."""
    from swell.wire import http

    if row.result_type.partition(";")[0].strip() == http.JSON:
        return json.dumps(row.result, ensure_ascii=False)
    data = client.call_result(row.id)
    if len(data) > SHOWN_MAX or row.result_type not in (http.PICKLE, http.MSGPACK):
        return f'{len(data)} bytes of {row.result_type}: swell.FunctionCall.from_id("{row.id}").get()'
    if row.result_type == http.PICKLE:
        return shown(data)
    return json.dumps(msgspec.to_builtins(msgspec.msgpack.decode(data)), ensure_ascii=False)
