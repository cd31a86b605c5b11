"""May this input be worked on later, and what is the call that is queued then? And why can none be worked on now?"""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from swell.model.call import Body, Call, Keeping, Work, call_id, check, member_key
from swell.model.errors import SwellError
from swell.model.variant import is_variant
from swell.model.workload import Method, Revision, Variant, app_of, shown
from swell.model.world import World
from swell.wire.calls import DELAY_MAX_S, GROUP_INPUTS_MAX, INPUT_MAX, KEEP_MAX_S, KEEP_MIN_S, NewCall
from swell.wire.link import Route

GANG_INPUT_MAX = 32 * 1024 * 1024
"""Bytes of the input of a call for all members of its gang together: they may all be on one node, whose runner is sent
all of them at once."""

TIMEOUT_MIN_S = 0.001
"""Of a call of its own: replicas are told milliseconds."""


def queued(
    new: NewCall, route: Route | None, world: World, now: float, chance: Random
) -> tuple[list[Work], Variant | None]:
    """The calls as they are queued, one at least, and what their workload is where it is a variant. Raises SwellError.
    `route`: the workload's. `chance`: what ids are drawn from."""
    revision = _checked(new, route, world)
    app, workload = world.apps.get("/".join(app_of(new.workload))), world.workloads.get(new.workload)

    def new_id() -> str:
        return call_id(int(now * 1000), chance.randbytes(10))

    call = Call(
        id=new_id(),
        workload=new.workload,
        method=new.method,
        accepted_at=now,
        due_at=now + new.delay_s,
        accept=new.accept,
        key=new.key,
        priority=new.priority,
        idempotency_key=new.idempotency_key,
        group=new.group,
        retrying=revision.retrying,
        timeout_s=min(max(new.timeout_s, TIMEOUT_MIN_S), revision.longest_s) if new.timeout_s else revision.longest_s,
        keeping=Keeping(new.keep_s, new.keep_s) if new.keep_s else Keeping(),
        members=revision.gang.size if revision.gang is not None else 0,
        owned=app is not None and app.owner is not None,
    )
    check(call)
    variant = workload.variant if workload is not None and is_variant(workload.name) else None
    if new.many is None:
        return [Work(call, new.input)], variant
    # Of calls that are due at the same time the one of the smaller id goes first.
    ids = sorted(new_id() for _ in new.many.inputs)
    kind, first = new.input.content_type, new.many.first
    works = [
        Work(replace(call, id=id, idempotency_key=member_key(new.group, first + at)), Body(kind, data))
        for at, (id, data) in enumerate(zip(ids, new.many.inputs, strict=True))
    ]
    return works, variant


def _checked(new: NewCall, route: Route | None, world: World) -> Revision:
    """What it runs. Raises SwellError."""
    revision = world.revision(route.pool) if route is not None else None
    if route is None or revision is None:
        words = f"There is no function or class {shown(new.workload)[:200]} here: `swell app list` shows what there is."
        raise SwellError("unknown_function", words, status=404)
    method = next((each for each in route.methods if each.name == new.method), None)
    if method is None:
        words = f"{shown(new.workload)[:200]} has no method {new.method[:80]!r}."
        raise SwellError("unknown_function", words, status=404)
    problem = _problem(method)
    if not 0 <= new.delay_s <= DELAY_MAX_S:
        problem = problem or f"A call may be put off by up to {DELAY_MAX_S:g} s, not by {new.delay_s:g} s."
    if new.keep_s and not KEEP_MIN_S <= new.keep_s <= KEEP_MAX_S:
        problem = problem or f"A call is kept for {KEEP_MIN_S:g} to {KEEP_MAX_S:g} s after its end, not {new.keep_s:g}."
    if new.many is not None and not 1 <= len(new.many.inputs) <= GROUP_INPUTS_MAX:
        problem = problem or f"1 to {GROUP_INPUTS_MAX} inputs are accepted together, not {len(new.many.inputs)}."
    if problem:
        raise SwellError("bad_request", problem)
    longest = max(map(len, (new.input.data, *(new.many.inputs if new.many is not None else ()))))
    check_size(longest, revision.gang.size if revision.gang is not None else 0)
    return revision


def check_size(input: int, members: int) -> None:
    """May an input have so many bytes, of a call that so many members of a gang get (0: none)? Raises SwellError."""
    most = min(INPUT_MAX, GANG_INPUT_MAX // max(members, 1))
    if input > most:
        whose = f" that goes to {members} replicas" if most < INPUT_MAX else ""
        words = f"The input of a queued call{whose} has {most} bytes at most; this one has {input}."
        raise SwellError("body_too_large", words, status=413)


def _problem(method: Method) -> str:
    """Why the method cannot be called later; empty where it can."""
    if method.web is not None:
        return f"{method.name} is a web endpoint: it answers requests when they come, and cannot be queued."
    if method.generator:
        return f"{method.name} is a generator: it gives many results, and a queued call has one."
    return ""
