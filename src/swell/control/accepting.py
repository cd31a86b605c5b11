"""May this input be worked on later, and what is the call that is queued then?"""

from __future__ import annotations

from swell.model.call import Call, check
from swell.model.errors import SwellError
from swell.model.workload import Method, Revision, shown
from swell.wire.calls import DELAY_MAX_S, INPUT_MAX, NewCall
from swell.wire.link import Route


def queued(new: NewCall, route: Route | None, revision: Revision | None, now: float, id: str) -> Call:
    """The call as it is queued. Raises SwellError. `revision`: what the route's pool runs."""
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
    if problem:
        raise SwellError("bad_request", problem)
    if len(new.input.data) > INPUT_MAX:
        words = f"The input of a queued call has {INPUT_MAX} bytes at most; this one has {len(new.input.data)}."
        raise SwellError("body_too_large", words, status=413)
    call = Call(
        id=id,
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
        timeout_s=revision.longest_s,
    )
    check(call)
    return call


def _problem(method: Method) -> str:
    """Why the method cannot be called later; empty where it can."""
    if method.web is not None:
        return f"{method.name} is a web endpoint: it answers requests when they come, and cannot be queued."
    if method.generator:
        return f"{method.name} is a generator: it gives many results, and a queued call has one."
    return ""
