"""`swell why`: where a request's time and money went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import bar, clock, json_text, money, table

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import Why

FRESH_S = 2.5
"""A request's record is kept within two seconds of its end."""


@click.command()
@click.argument("request")
@options.as_json
@options.home
def why(request: str, as_json: bool, home: str | None) -> None:
    """Explain REQUEST (an id from the Swell-Request-Id header): its steps, the decisions behind it, its cost."""
    answer = _found(options.connect(home), request)
    click.echo(json_text(answer) if as_json else story(answer))


def _found(client: Client, request: str) -> Why:
    """The answer. Who asks right after the request has ended does not meet its record on the way."""
    from swell.model.errors import SwellError

    until = time.monotonic() + FRESH_S
    while True:
        try:
            return client.why(request)
        except SwellError as error:
            if error.code != "not_kept" or time.monotonic() > until:
                raise
        time.sleep(FRESH_S / 10)


def story(answer: Why) -> str:
    """The whole answer as text."""
    ended = f"{answer.status} {answer.error}".strip()
    woke = "no replica was ready" if answer.cold else "a replica was ready"
    target = f"{answer.workload.removeprefix('default/')} {answer.method}"
    head = f"{answer.request}  {target}  {ended}  {answer.total_ms:.1f} ms  at {clock(answer.received_at)}, {woke}"
    rows = [(step.what, f"{step.ms:.1f}", bar(step.ms, answer.total_ms), step.note) for step in answer.steps]
    parts = [head]
    if rows:
        parts.append(table(("STEP", "MS", "", ""), rows, right=("MS",)))
    if answer.reasons:
        parts.append("\n".join(f"- {reason}" for reason in answer.reasons))
    parts.append(_cost(answer))
    return "\n\n".join(parts)


def _cost(answer: Why) -> str:
    whole = answer.marginal_usd + answer.idle_share_usd + answer.cold_share_usd
    shares = ", ".join(
        f"{name} {money(usd)}"
        for name, usd in (
            (f"its own work ({answer.cpu_us / 1000:.1f} ms CPU)", answer.marginal_usd),
            ("share of start-ups", answer.cold_share_usd),
            ("share of idle time", answer.idle_share_usd),
        )
    )
    return f"cost {money(whole)}: {shares}"
