"""`swell why`: where a request's time and money went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import bar, clock, duration, json_text, money, patience, table

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import RequestRow, Why

FRESH_S = 2.5
"""A request's record is kept within two seconds of its end."""
HEADS = ("REQUEST", "AGO", "FUNCTION", "ENDED", "MS", "COLD")
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

    Without REQUEST, list the newest requests that can be explained.
    """
    client = options.connect(home)
    if request:
        answer = _found(client, request)
        click.echo(json_text(answer) if as_json else story(answer))
        return
    space, name = options.split_app(app, namespace)
    rows = client.requests(name, namespace=space)
    click.echo(json_text(rows) if as_json else listing(rows, time.time()))


def _found(client: Client, request: str) -> Why:
    """The answer. Who asks right after the request has ended does not meet its record on the way."""
    from swell.model.errors import SwellError

    until = time.monotonic() + FRESH_S
    with patience(f"Looking for {request}", lambda: "its record may still be on its way"):
        while True:
            try:
                return client.why(request)
            except SwellError as error:
                if error.code != "not_kept" or time.monotonic() > until:
                    raise
            time.sleep(FRESH_S / 10)


def listing(rows: list[RequestRow], now: float) -> str:
    """Requests, one a line."""
    if not rows:
        return "No request is kept yet. One shows up within two seconds of its end."
    cells = [
        (
            row.id,
            duration(now - row.received_at),
            _target(row.workload, row.method),
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
    woke = "no replica was ready" if answer.cold else "a replica was ready"
    target = _target(answer.workload, answer.method)
    head = f"{answer.request}  {target}  {ended}  {answer.total_ms:.1f} ms  at {clock(answer.received_at)}, {woke}"
    rows = [(step.what, f"{step.ms:.1f}", bar(step.ms, answer.total_ms), step.note) for step in answer.steps]
    parts = [head]
    if rows:
        parts.append(table(("STEP", "MS", "", ""), rows, right=("MS",)))
    if answer.reasons:
        parts.append("\n".join(f"- {reason}" for reason in answer.reasons))
    parts.append(cost(answer))
    return "\n\n".join(parts)


def _target(workload: str, method: str) -> str:
    """What was called, as `swell call` takes it: a function's only method has the function's name."""
    target = workload.removeprefix("default/")
    return (
        target
        if method == workload.rpartition("/")[2]
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
    rows = [
        ("its own work", answer.marginal_usd, f"{answer.cpu_us / 1000:.1f} ms CPU, and memory while it ran"),
        ("idle share", answer.idle_share_usd, "of replicas and templates that waited for requests"),
        ("cold share", answer.cold_share_usd, "of start-ups"),
    ]
    parts = table(("PART", "USD", ""), [(name, money(usd * many), note) for name, usd, note in rows], right=("USD",))
    return f"cost {money(whole * many)} {unit}:\n{parts.partition(chr(10))[2]}"
