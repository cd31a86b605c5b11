"""`swell why`: where a request's time and money went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

import click

from swell.cli import calls, options
from swell.cli.output import bar, clock, duration, json_text, money, patience, table, wrapped
from swell.model.call import is_call_id
from swell.model.errors import SwellError
from swell.model.variant import base_of
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import RequestRow, Why, WhyStep

FRESH_S = 2.5
"""A request's record is kept within two seconds of its end."""
LOOK_S = 0.2
CUT = ("replica_died", "connection_lost", "stream_cut")
"""What callers meet when a replica goes away: at the head of an answer, or in the midst of a stream."""
HEADS = ("REQUEST", "AGO", "FUNCTION", "ENDED", "MS", "COLD")
BAR = 8
"""Columns of a whole bar: what a step was stands beside it in a narrow terminal, too."""
SHORT_MS = 1.0
"""Steps shorter than this are told together."""
MILLION = 1_000_000
DEAR_USD = 0.01
"""A request that costs this much has a price of its own; others are counted by the million."""


@click.command(short_help="Explain a request: its steps, the decisions behind it, its cost.")
@click.argument("request", default="")
@click.option("--app", default="", metavar="APP", help="Without REQUEST: only requests of this app.")
@options.namespace
@options.as_json
@options.home
def why(request: str, app: str, namespace: str, as_json: bool, home: str | None) -> None:
    """Explain REQUEST (an id from the Swell-Request-Id header): its steps, the decisions behind it, its cost.

    Of a call in the queue (its id) it tells where it stands. Without REQUEST, list the newest requests that can be
    explained.
    """
    client = options.connect(home)
    if is_call_id(request):
        row = client.call(request)
        click.echo(json_text(row) if as_json else calls.story(row, time.time()))
        return
    if request:
        answer = found(client, options.request_id(request))
        click.echo(json_text(answer) if as_json else story(answer))
        return
    with options.app_named("swell why --app", app, namespace, client) as (space, name):
        rows = client.requests(name, namespace=space)
    click.echo(json_text(rows) if as_json else listing(rows, time.time()))


def found(client: Client, request: str) -> Why:
    """The answer. Who asks right after the request has ended does not meet its record on the way."""
    until = time.monotonic() + FRESH_S
    with patience(f"Looking for {request}", lambda: "its record may still be on its way"):
        while True:
            try:
                return client.why(request)
            except SwellError as error:
                if error.code != "not_yet" or time.monotonic() > until:
                    raise
            time.sleep(LOOK_S)


def note_end(client: Client, error: Exception, streamed: str = "") -> None:
    """Where a replica went away with a request, note on the error what ended it, once that is known and was not told.

    `streamed`: the request whose stream broke off, where the error does not tell.
    """
    request = (error.request or streamed) if isinstance(error, SwellError) and error.code in CUT else ""
    if not request:
        return
    until = time.monotonic() + FRESH_S
    with patience("The replica died", lambda: "its end may still be on its way"), suppress(SwellError):
        while not (ended := found(client, request).ended) and time.monotonic() < until:
            time.sleep(LOOK_S)
        if ended and ended not in str(error):
            error.add_note(f"What ended the replica: {ended}.")


def listing(rows: list[RequestRow], now: float) -> str:
    """Requests, one a line."""
    if not rows:
        return "No request is kept yet. One shows up within two seconds of its end."
    cells = [
        (
            row.id,
            duration(now - row.received_at),
            _target(row.workload, row.method, row.written),
            f"{row.status} {row.error}".strip(),
            f"{row.total_ms:.1f}",
            "cold" if row.cold else "",
        )
        for row in rows
    ]
    return f"{table(HEADS, cells, right=('AGO', 'MS'))}\n\n`swell why REQUEST` explains one."


def story(answer: Why) -> str:
    """The whole answer as text."""
    ended = f"{answer.status} {answer.error}".strip()
    woke = "cold" if answer.cold else "warm"
    target = _target(answer.workload, answer.method, answer.written)
    head = f"{answer.request}  {target}  {ended}  {answer.total_ms:.1f} ms  at {clock(answer.received_at)}, {woke}"
    parts = [wrapped(head)]
    if steps := _joined(answer.steps):
        rows = [(step.what, f"{step.ms:.1f} ms", bar(step.ms, answer.total_ms, BAR), step.note) for step in steps]
        parts.append(table(("STEP", "MS", "", ""), rows, right=("MS",), headless=True))
    reasons = (*answer.reasons, *([f"it came with the key {answer.key} (swell key list)"] if answer.key else []))
    parts.append("\n".join([*(wrapped(f"- {reason}", "  ") for reason in reasons), cost(answer)]))
    return "\n\n".join(parts)


def _joined(steps: Sequence[WhyStep]) -> list[WhyStep]:
    """The steps; several short ones that a start-up is made of are one, after its others."""
    from swell.wire.api import WhyStep

    shown: list[WhyStep] = []
    for within, same in groupby(steps, key=lambda step: step.what.startswith(" ")):
        found = list(same)
        short = [step for step in found if within and step.ms < SHORT_MS]
        if len(short) < 2:
            shown += found
            continue
        names = ", ".join(step.what.strip() for step in short)
        shown += [step for step in found if step not in short]
        shown.append(
            WhyStep(f"  {len(short)} more", sum(step.ms for step in short), f"each under {SHORT_MS:g} ms: {names}")
        )
    return shown


def _target(workload: str, method: str, written: str) -> str:
    """What was called, as `swell call` takes it: a function's only method has the function's name."""
    target = shown(written or workload)
    return (
        target
        if method == base_of(workload).rpartition("/")[2]
        else f"{target} {method}"
        if " " in method
        else f"{target}.{method}"
    )


def cost(answer: Why) -> str:
    """What the request cost, and what of it is for what: of one, or of a million like it."""
    whole = answer.marginal_usd + answer.idle_share_usd + answer.cold_share_usd
    if not whole:
        return "cost nothing: no replica worked on it"
    many, unit = (1, "for this request") if whole >= DEAR_USD else (MILLION, "per million such requests")
    own, idle, cold = (money(usd * many) for usd in (answer.marginal_usd, answer.idle_share_usd, answer.cold_share_usd))
    cpu = f"{answer.cpu_us / 1000:.1f} ms CPU" if answer.cpu_us >= 0 else "CPU not known"
    return wrapped(
        f"cost {money(whole * many)} {unit}: {own} its own work ({cpu}, and memory while it ran), "
        f"{idle} its share of idle time, {cold} of start-ups",
        "  ",
    )
