"""`swell trigger`: what calls functions by itself, when it did, and when it will."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from swell.cli import options
from swell.cli.output import duration, json_text, table, wrapped
from swell.model.durations import seconds_of
from swell.model.workload import shown

if TYPE_CHECKING:
    from swell.sdk.triggers import Triggers
    from swell.wire.triggers import FiringRow, TriggerRow

HEADS = ("TRIGGER", "NEXT", "IN", "LAST", "MISSED", "SCHEDULE")
FIRING_HEADS = ("DUE", "LATE", "HOW", "STATE", "CALL", "")


class Moment(click.ParamType[float]):
    """A time: "2027-01-31 09:00" here, "2027-01-31T09:00:00Z", or how long ago it was: "3h"."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds since the epoch."""
        if isinstance(value, float):
            return value
        ago_s = seconds_of(value)
        if math.isfinite(ago_s):
            return time.time() - ago_s
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            words = f"{value!r} is no time: give one like 2027-01-31T09:00, or how long ago it was, like 3h."
            self.fail(words, param, ctx)


@click.group()
def trigger() -> None:
    """List, pause, resume and fire what calls functions by itself.

    A function gets a schedule with @app.function(schedule=swell.Cron("0 9 * * *")), or is called for events with
    trigger=swell.HttpEvents(); its trigger is called as it is.
    """


@trigger.command("list", short_help="List triggers, and when they fire next.")
@click.argument("app", default="", metavar="[APP]")
@options.namespace
@options.as_json
@options.home
def list_triggers(app: str, namespace: str, as_json: bool, home: str | None) -> None:
    """List the triggers of APP, or of all apps of the namespace: when each fires next, and did last, in local time.

    MISSED says what becomes of due times at which the server was not there: once, all, skip. NEXT of what reads a
    source says since when that is reached, or is not, and SCHEDULE how many messages wait, and for how long.
    """
    client = options.connect(home)
    with options.app_named("swell trigger list", app, namespace, client) as (space, name):
        if name:
            options.deployed(client, name, space)
        rows = _triggers(home, space).rows(name)
    if as_json:
        click.echo(json_text(rows))
    elif rows:
        click.echo(listing(rows, time.time()))
    else:
        click.echo(wrapped("There is no trigger. schedule=swell.Period(hours=1) of a function makes one."))


@trigger.command(short_help="Have it fire no more.")
@click.argument("name", metavar="APP/NAME")
@options.namespace
@options.home
def pause(name: str, namespace: str, home: str | None) -> None:
    """Have a trigger fire no more, until it is resumed: over deploys, too. What is due meanwhile is not made up for."""
    there, app, short = _named(name, namespace, home)
    there.pause(app, short)
    click.echo(f"{name} is paused. `swell trigger resume {name}` has it fire again.")


@trigger.command(short_help="Have it fire again.")
@click.argument("name", metavar="APP/NAME")
@options.namespace
@options.home
def resume(name: str, namespace: str, home: str | None) -> None:
    """Have a trigger fire again. `swell trigger backfill` makes up for what was due meanwhile."""
    there, app, short = _named(name, namespace, home)
    row = there.resume(app, short)
    click.echo(f"{name} fires again" + (f", next at {local(row.next_at)}." if row.next_at is not None else "."))


@trigger.command(short_help="Fire now.")
@click.argument("name", metavar="APP/NAME")
@options.namespace
@options.as_json
@options.home
def fire(name: str, namespace: str, as_json: bool, home: str | None) -> None:
    """Fire once, now, also a trigger that is paused. Nothing else changes: it fires again when it is due."""
    there, app, short = _named(name, namespace, home)
    fired = there.fire(app, short)
    click.echo(json_text(fired) if as_json else f"{name} fired: `swell calls show {fired.call}`")


@trigger.command(short_help="List when it fired, and what came of that.")
@click.argument("name", metavar="APP/NAME")
@click.option("-n", "most", metavar="N", type=click.IntRange(1, 1000), default=20, help="So many; default: 20.")
@options.namespace
@options.as_json
@options.home
def history(name: str, most: int, namespace: str, as_json: bool, home: str | None) -> None:
    """List when a trigger fired, the newest first: the newest 1,000 firings of the last 30 days are kept.

    LATE is how long after it was due the call was in the queue; STATE is that of the call, while it is kept.
    """
    there, app, short = _named(name, namespace, home)
    rows = there.firings(app, short, most)
    if as_json:
        click.echo(json_text(rows))
    else:
        click.echo(firings(rows) if rows else f"No firing of {name} is known.")


@trigger.command(short_help="Fire for what was missed.")
@click.argument("name", metavar="APP/NAME")
@click.option("--since", metavar="TIME", type=Moment(), required=True, help="2027-01-31T09:00, or how long ago: 3h.")
@click.option("--until", metavar="TIME", type=Moment(), default=None, help="Likewise; default: now.")
@options.namespace
@options.as_json
@options.home
def backfill(name: str, since: float, until: float | None, namespace: str, as_json: bool, home: str | None) -> None:
    """Fire once for each time that a trigger was due, and did not fire, between --since and --until: 1,000 at most.

    Where this is interrupted, the same command goes on with what is left.
    """
    there, app, short = _named(name, namespace, home)
    done = there.backfill(app, short, since, until)
    if as_json:
        click.echo(json_text(done))
        return
    times = "once" if len(done.calls) == 1 else f"{len(done.calls)} times"
    before = f"; for {done.fired_before} other due times it had before" if done.fired_before else ""
    click.echo(f"{name} fired {times}{before}.")


def listing(rows: Sequence[TriggerRow], now: float) -> str:
    """One line for each, those first that fire first."""
    ordered = sorted(rows, key=lambda row: (row.next_at is None, row.next_at or 0.0))
    cells = [
        (
            shown(f"{row.namespace}/{row.app}/{row.name}"),
            _when(row),
            duration(row.next_at - now) if row.next_at is not None else "-",
            local(row.fired_at) if row.fired_at is not None else "-",
            row.missed or "-",
            ": ".join(filter(None, (row.schedule, _lag(row, now), row.why))),
        )
        for row in ordered
    ]
    return table(HEADS, cells, right=("IN",))


def firings(rows: Sequence[FiringRow]) -> str:
    """One line for each."""
    cells = [
        (
            local(row.due_at),
            duration(max(row.at - row.due_at, 0.0)),
            row.how,
            row.state or "-",
            row.call or "-",
            _about(row),
        )
        for row in rows
    ]
    return table(FIRING_HEADS, cells, right=("LATE",))


def _when(row: TriggerRow) -> str:
    if row.paused_at is not None:
        return "paused"
    if row.up is not None and row.since is not None:
        return f"{'up' if row.up else 'down'} since {local(row.since)}"
    if row.kind != "schedule":
        return "on events"
    return local(row.next_at) if row.next_at is not None else "never"


def _lag(row: TriggerRow, now: float) -> str:
    """What of its source waits; empty where nothing does, as far as is known."""
    oldest = f"the oldest for {duration(max(now - row.oldest_at, 0.0))}" if row.oldest_at is not None else ""
    return ", ".join(filter(None, (f"{row.waiting} wait" if row.waiting else "", oldest)))


def _about(row: FiringRow) -> str:
    if row.how == "refused":
        return f"{row.id}: too large for the queue"
    if row.how == "event":
        return row.id
    return f"missed since {local(row.missed_from)}" if row.missed_from is not None else ""


def local(at: float) -> str:
    """Local date and time of day."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _triggers(home: str | None, namespace: str) -> Triggers:
    from swell.sdk.triggers import Triggers

    return Triggers(options.connect(home), namespace)


def _named(name: str, namespace: str, home: str | None) -> tuple[Triggers, str, str]:
    """Where the trigger is that a command was given: its app, and its name there."""
    parts = name.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise click.UsageError(f"{name!r} is no trigger: one is named APP/NAME, as `swell trigger list` has it.")
    from swell.model.names import check_names

    space = parts[0] if len(parts) == 3 else namespace
    check_names(space, parts[-2])
    return _triggers(home, space), parts[-2], parts[-1]
