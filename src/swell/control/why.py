"""Where did this request's time go, which decisions were behind it, and what did it cost?"""

from __future__ import annotations

from swell.control.history import Story
from swell.decide.price import PoolCost
from swell.model.request import RequestRecord
from swell.model.workload import workload_of
from swell.wire.api import Why, WhyStep

NOTES = {
    "held": "waited at the gateway for a free replica",
    "connect": "reached the replica's socket",
    "run": "in the replica",
    "send": "answer on its way to the caller",
}


def explain(record: RequestRecord, story: Story | None, cost: PoolCost, refused: str = "") -> Why:
    """Join what the gateway recorded with what is known of the replica that answered. Pure.

    `refused` says why templates of the pool may not be forked; empty when they may.
    """
    requests = max(cost.requests, 1)
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
        reasons=tuple(_reasons(record, story, refused)),
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
    steps = [WhyStep("  plan", planned_ms, "demand reached control and a replica was planned")]
    told_ms = 0.0
    for name, ms in story.timings_ms:
        told_ms += ms
        steps.append(WhyStep(f"  {name}", ms, ""))
    other_ms = ready_ms - planned_ms - told_ms
    if other_ms > 0.05:
        steps.append(WhyStep("  hand-over", other_ms, "orders and reports between control, runner and replica"))
    if held_ms > ready_ms:
        steps.append(WhyStep("  table", held_ms - ready_ms, "the gateway learned of it and sent the request"))
    return steps


def origin(story: Story, refused: str) -> str:
    """How a replica came to be, in words; with the reason where it was not forked because that does not work."""
    if story.template is not None and not story.unforked:
        return f"forked from template {story.template}"
    why = story.unforked or (f"its template is refused: {refused}" if refused else "")
    return f"a fresh process, since {why}" if why else "a fresh process"


def _reasons(record: RequestRecord, story: Story | None, refused: str) -> list[str]:
    if story is None:
        return [f"replica {record.replica}: no longer remembered"] if record.replica else []
    reasons = [f"{story.replica} was started ({origin(story, refused)}): {story.why}"]
    if not record.cold:
        reasons.append("it was ready when the request came")
    if story.ended_at is not None:
        because = f" ({story.stop_why})" if story.stop_why else ""
        reasons.append(f"it is gone since: {story.reason}{because}")
    return reasons
