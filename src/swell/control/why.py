"""Where did this request's time go, which decisions were behind it, and what did it cost?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from swell.control.history import ReplicaHistory
from swell.control.rolling import story
from swell.control.table import in_short
from swell.decide.price import PoolCost
from swell.decide.retry import failed
from swell.model.ends import ORDERED, WAYS_OUT, in_words
from swell.model.failures import Failures
from swell.model.replica import Phase
from swell.model.request import Led, RequestRecord, Start, Together
from swell.model.workload import revision_of, shown, workload_of
from swell.model.world import World
from swell.wire.api import Why, WhyStep

HELD_MS = 1.0
"""A request that was held for less did not wait: it is what taking it in costs."""

SEEN_MS = 0.05
"""What is less is not told apart from nothing."""

BEGUN = ", begun before the request came"
"""Of a step that is shown with the rest of its time."""

NOTES = {
    "held": "waited at the gateway for a free replica",
    "cache": "looked for an answer that is kept, or waited for that of an equal call",
    "connect": "reached the replica's socket",
    "batch": "waited to be worked on together with others",
    "run": "in the replica",
    "send": "answer on its way to the caller",
    "plan": "demand reached control, a replica was planned",
    "order": "the runner made its socket, pipe and limits",
    "template": "the template went on loading",
    "template_exec": "an interpreter was started for a template",
    "template_load": "imported the module, ran @enter(snap=True)",
    "exec": "an interpreter was started",
    "load": "it imported the module",
    "hand_over": "the template took the order up",
    "fork": "the loaded template was forked",
    "enter": "@enter hooks ran",
    "listen": "the event loop, the socket and any web application were made",
    "report": "words between control, runner and replica",
    "table": "the gateway learned of it, and had a slot of it to give",
}
"""What each phase is, in words."""


def complete(
    record: RequestRecord,
    past: ReplicaHistory | None,
    *,
    unforkable: str = "",
    failures: Failures | None = None,
    waiting: str = "",
    full: str = "",
    siblings: Iterable[ReplicaHistory] = (),
    now: str = "",
) -> RequestRecord:
    """A gateway's record with what control knows of the replica that answered. Pure.

    `unforkable` says why replicas of the pool are not forked; empty when they may be. `failures` are its failed
    starts in a row, `waiting` is what the pool waits for, `full` what keeps it from having more replicas, `siblings`
    are its replicas and templates, `now` says where the traffic of its workload goes or is about to, if not there.
    """
    start = None
    if record.cold and past is not None and past.ready_at is not None:
        start = Start(past.planned_at, past.ready_at, past.timings_ms)
    if record.reused is not None:
        reused = record.reused
        reasons = [f"answered with what {reused.request} was answered {reused.age_s} s before: @cached keeps it"]
    elif record.replica:
        reasons = _reasons(record, past, unforkable, waiting or full)
    elif failures is not None:
        reasons = [f"no replica: {failed(failures)}", in_short(failures.detail)]
    else:
        reasons = _in_vain(record, waiting, coming(siblings, record.received_at + record.total_ms / 1000), full)
    led = [] if record.led is None else _led(record.led, record.pool, now)
    return msgspec.structs.replace(record, start=start, reasons=(*led, *reasons))


def _led(led: Led, pool: str, now: str) -> list[str]:
    """Which version it went to, and why there."""
    if not led.version:
        # Of an app that belongs to a program: it has one at a time.
        return [now] if now else []
    there = f"went to v{led.version} ({revision_of(pool)})"
    match led.by:
        case "tag":
            return [f"{there}: it was asked for as {led.name!r}"]
        case "header":
            return [f"{there}: requests with its {led.name} do"]
        case "hash":
            return [f"{there}, as all with the same {led.name}: {led.percent:g} % of the traffic is its share"]
        case "lot":
            lacks = f" (the request had no {led.name})" if led.name else ""
            return [f"{there}, by lot{lacks}: {led.percent:g} % of the traffic is its share"]
    return [f"{there}, which had the traffic{now and f'; {now}'}"]


def traffic_now(world: World, pool: str) -> str:
    """Where the traffic of a pool's workload goes now, or is about to, if not there; else empty."""
    key = workload_of(pool)
    workload = world.serving(key)
    if workload is None or workload.pool == pool:
        return story(world, key)
    return f"v{workload.version} has it since" if workload.version else ""


def held_ms(record: RequestRecord) -> float:
    """How long it waited for a replica; 0.0 where that was no more than taking it in."""
    ms = dict(record.phases_ms).get("held", 0.0)
    return ms if ms >= HELD_MS else 0.0


def _in_vain(record: RequestRecord, waiting: str, coming: str, full: str) -> list[str]:
    """What a request without a replica waited for until it was ended, or why it was not even held."""
    waited_ms = held_ms(record)
    if not waited_ms:
        why = waiting or full
        return [f"no replica: {why}"] if why else []
    # A pool that has as many as it may, of which none is starting, has them all at work.
    taken = "every slot was taken" if full or not record.cold else ""
    why = waiting or coming or ": ".join(filter(None, (taken, full)))
    return [f"no replica, held {waited_ms:.0f} ms{why and f': {why}'}"]


def coming(replicas: Iterable[ReplicaHistory], at: float) -> str:
    """Which of a pool's replicas was being started at that moment, or the template of one; empty if none was."""
    going = [r for r in replicas if r.planned_at <= at and not any(t is not None and t <= at for t in _turns(r))]
    for role, words in (("serving", "a replica was starting"), ("template", "its template was being loaded")):
        found = next((r for r in going if r.role == role), None)
        if found is not None:
            return f"{words} ({found.replica}, begun {(at - found.planned_at) * 1000:.0f} ms before)"
    return ""


def _turns(past: ReplicaHistory) -> tuple[float | None, float | None]:
    """When it was starting no more: ready, or gone."""
    return past.ready_at, past.ended_at


def at_most(world: World, pool: str) -> str:
    """What keeps a pool from having another replica, where it has as many as it may; else empty."""
    workload = world.workload(pool)
    if workload is None:
        return ""
    # One that drains is in nobody's way: the next is started beside it.
    serving = sum(one.role == "serving" and one.phase is not Phase.DRAINING for one in world.in_pool(pool))
    most = workload.scaling.max_replicas
    return f"max_containers={most} allows no more replicas" if serving >= most else ""


def explain(record: RequestRecord, past: ReplicaHistory | None, cost: PoolCost) -> Why:
    """What a person is told of a request. `past`: what has become of its replica, if that is remembered. Pure."""
    # Who never had a replica pays for none.
    requests = max(cost.requests, 1) if record.replica else math.inf
    fatal = past is not None and _died_with(record, past)
    told = _ending(record, past) if past is not None and fatal else []
    since = [line for line in told if line not in record.reasons]
    return Why(
        request=record.id,
        workload=record.workload,
        method=record.method,
        status=record.status,
        error=record.error,
        received_at=record.received_at,
        total_ms=record.total_ms,
        cold=record.cold,
        replica=record.replica,
        steps=tuple(_steps(record)),
        reasons=(*record.reasons, *since),
        ended=_end(past) if past is not None and fatal else "",
        key=record.key,
        cpu_us=record.cpu_us,
        marginal_usd=record.cost_usd,
        idle_share_usd=cost.idle_usd / requests,
        cold_share_usd=cost.starting_usd / requests,
    )


def _steps(record: RequestRecord) -> list[WhyStep]:
    """The gateway's phases; while held, the part of the replica's start that the request waited for."""
    steps: list[WhyStep] = []
    for name, ms in record.phases_ms:
        steps.append(WhyStep(name, ms, NOTES.get(name, "")))
        if name == "held" and record.start is not None:
            steps += _wake_steps(record, record.start, ms)
    return steps


def _wake_steps(record: RequestRecord, start: Start, waited_ms: float) -> list[WhyStep]:
    """What of the start the request waited for, as much as it was held in all: a start may have been under way when it
    came, and clocks may differ."""
    planned_ms, ready_ms = ((at - record.received_at) * 1000 for at in (start.planned_at, start.ready_at))
    other_ms = ready_ms - planned_ms - sum(ms for _, ms in start.timings_ms)
    parts = [*start.timings_ms, *([("report", other_ms)] if other_ms > SEEN_MS else [])]
    first_ms = min(max(planned_ms, 0.0), waited_ms)
    last_ms = max(waited_ms - max(ready_ms, first_ms), 0.0)
    # From the end: what is missing is what was over when it came.
    left_ms = waited_ms - first_ms - last_ms
    steps: list[WhyStep] = []
    for name, ms in reversed(parts):
        taken = min(max(ms, 0.0), left_ms)
        left_ms -= taken
        if taken:
            begun = BEGUN if ms - taken > SEEN_MS else ""
            steps.append(WhyStep(f"  {name}", taken, NOTES.get(name, "") + begun))
    ends = [WhyStep(f"  {name}", ms, NOTES[name]) for name, ms in (("plan", first_ms + left_ms), ("table", last_ms))]
    return [step for step in (ends[0], *reversed(steps), ends[1]) if step.ms]


def origin(past: ReplicaHistory, unforkable: str) -> str:
    """How a replica came to be, in words; with the reason where it was not forked because that does not work."""
    if past.template is not None and not past.unforked:
        return f"forked from template {past.template}"
    why = past.unforked or unforkable
    return f"a fresh process, since {why}" if why else "a fresh process"


def _reasons(record: RequestRecord, past: ReplicaHistory | None, unforkable: str, waiting: str) -> list[str]:
    if past is None:
        return [f"replica {record.replica}: not remembered when this record came"]
    reasons = [f"replica {past.replica}, {origin(past, unforkable)}, {past.why}"]
    if not record.cold and held_ms(record):
        reasons.append(f"every slot was taken when the request came{f': {waiting}' if waiting else ''}")
    elif not record.cold:
        reasons.append("it was ready when the request came")
    elif past.waited:
        reasons.append(f"it could not be started at once: {past.waited}")
    if past.applied:
        reasons.append(f"what held it: {'; '.join(past.applied)}")
    if record.status == 101:
        reasons.append("it was a WebSocket: `run` is how long it was open")
    if record.attempts > 1:
        sent = f"sent {record.attempts} times"
        reasons.append(f"{sent}: what it was sent to before was busy or gone, and had taken nothing of it")
    if record.batch is not None:
        reasons.append(_together(record.batch))
    if record.error == "exception":
        target = shown(record.workload.rpartition("/")[0])
        reasons.append(f"user code raised; the traceback: swell logs {target} --request {record.id}")
    return reasons + (_ending(record, past) if _died_with(record, past) else [])


def _together(batch: Together) -> str:
    """The batch it was in."""
    others = batch.size - 1
    with_others = f"batched with {others} other{'s' if others > 1 else ''}" if others else "in a batch of its own"
    return f"{with_others}, waited {batch.waited_ms:.1f} ms for it to begin"


def _died_with(record: RequestRecord, past: ReplicaHistory) -> bool:
    """Was it under way when its replica ended, or what ended it? To all others that end means nothing."""
    return record.error == "replica_died" or record.id in _stuck(past)


def _stuck(past: ReplicaHistory) -> list[str]:
    """The requests whose inputs could not be stopped, where that ended the replica."""
    return past.detail.removeprefix("request ").split(", ") if past.reason == "stuck" else []


def _end(past: ReplicaHistory) -> str:
    """What ended a replica that was not told to end, in a line; empty where nothing did."""
    if past.ended_at is None or past.reason in ORDERED:
        return ""
    more = WAYS_OUT.get(past.reason) or " ".join(in_short(past.detail).split())
    return ": ".join(filter(None, (in_words(past.reason), more)))


def _ending(record: RequestRecord, past: ReplicaHistory) -> list[str]:
    """How a replica ended; nothing while it lives."""
    if past.ended_at is None:
        return []
    ended = in_words(past.reason, past.stop_why)
    if stuck := _stuck(past):
        others = ", ".join(id for id in stuck if id != record.id)
        if record.id in stuck:
            return [f"it is gone since: this request could not be stopped{others and f', nor could {others}'}"]
        return [f"it is gone since: {ended} (request {others})"]
    last_words = in_short(past.detail) if past.reason not in ORDERED else ""
    return [f"it is gone since: {ended}", *filter(None, (last_words,))]
