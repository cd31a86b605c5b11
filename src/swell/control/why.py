"""Where did this request's time go, which decisions were behind it, and what did it cost?"""

from __future__ import annotations

import math

from swell.control.history import Story
from swell.decide.price import PoolCost
from swell.model.request import RequestRecord
from swell.model.workload import workload_of
from swell.model.world import Failures
from swell.wire.api import Why, WhyStep

ORDINARY_ENDS = frozenset({"idle", "superseded", "stopped", "reclaimed", "evicted", "over_max", "served", "shutdown"})
"""Ends that were ordered: they need no last words."""

NOTES = {
    "held": "waited at the gateway for a free replica",
    "connect": "reached the replica's socket",
    "run": "in the replica",
    "send": "answer on its way to the caller",
    "plan": "demand reached control and a replica was planned",
    "order": "the runner got the order and made its socket, pipe and limits ready",
    "template": "the template went on loading",
    "template_exec": "an interpreter was started for the template",
    "template_load": "the template imported the module and ran @enter(snap=True)",
    "exec": "an interpreter was started",
    "load": "it imported the module",
    "hand_over": "the template took the order up",
    "fork": "the loaded template was forked",
    "enter": "@enter hooks ran",
    "listen": "the event loop and the socket were made",
    "report": "orders and reports between control, runner and replica",
    "table": "the gateway learned of it and sent the request",
}
"""What each phase is, in words."""


def explain(
    record: RequestRecord, story: Story | None, cost: PoolCost, refused: str = "", failures: Failures | None = None
) -> Why:
    """Join what the gateway recorded with what is known of the replica that answered. Pure.

    `refused` says why templates of the pool may not be forked; empty when they may. `failures` are its
    failed starts in a row.
    """
    # Who never had a replica pays for none.
    requests = max(cost.requests, 1) if record.replica else math.inf
    return Why(
        request=record.id,
        workload=workload_of(record.pool),
        method=record.method,
        status=record.status,
        error=record.error,
        received_at=record.received_at,
        total_ms=record.total_ms,
        cold=record.cold,
        replica=record.replica,
        steps=tuple(_steps(record, story)),
        reasons=tuple(_reasons(record, story, refused, failures)),
        cpu_us=record.cpu_us,
        marginal_usd=record.cost_usd,
        idle_share_usd=cost.idle_usd / requests,
        cold_share_usd=cost.starting_usd / requests,
    )


def _steps(record: RequestRecord, story: Story | None) -> list[WhyStep]:
    """The gateway's phases; while held, the part of the replica's start that the request waited for."""
    steps: list[WhyStep] = []
    for name, ms in record.phases_ms:
        steps.append(WhyStep(name, ms, NOTES.get(name, "")))
        if name == "held" and record.cold and story is not None and story.ready_at is not None:
            steps += _wake_steps(record, story, ms)
    return steps


def _wake_steps(record: RequestRecord, story: Story, held_ms: float) -> list[WhyStep]:
    assert story.ready_at is not None
    planned_ms = max(story.planned_at - record.received_at, 0.0) * 1000
    ready_ms = max(story.ready_at - record.received_at, 0.0) * 1000
    parts = [("plan", planned_ms), *story.timings_ms]
    other_ms = ready_ms - planned_ms - sum(ms for _, ms in story.timings_ms)
    if other_ms > 0.05:
        parts.append(("report", other_ms))
    if held_ms > ready_ms:
        parts.append(("table", held_ms - ready_ms))
    return [WhyStep(f"  {name}", ms, NOTES.get(name, "")) for name, ms in parts]


def origin(story: Story, refused: str) -> str:
    """How a replica came to be, in words; with the reason where it was not forked because that does not work."""
    if story.template is not None and not story.unforked:
        return f"forked from template {story.template}"
    why = story.unforked or (f"its template is refused: {refused}" if refused else "")
    return f"a fresh process, since {why}" if why else "a fresh process"


def _reasons(record: RequestRecord, story: Story | None, refused: str, failures: Failures | None) -> list[str]:
    if not record.replica and failures is not None:
        times = "once" if failures.count == 1 else f"{failures.count} times in a row"
        last = failures.detail.strip().splitlines()[-1:]
        return [f"no replica: its start failed {times} ({failures.reason})", *last]
    if story is None:
        return [f"replica {record.replica}: no longer remembered"] if record.replica else []
    reasons = [f"{story.replica} was started ({origin(story, refused)}): {story.why}"]
    if not record.cold:
        reasons.append("it was ready when the request came")
    if story.ended_at is not None:
        because = f" ({story.stop_why})" if story.stop_why else ""
        reasons.append(f"it is gone since: {story.reason}{because}")
        reasons += story.detail.strip().splitlines()[-1:] if story.reason not in ORDINARY_ENDS else []
    return reasons
