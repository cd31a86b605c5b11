"""An attempt of a call ended in no result: is it tried again and when, or what else becomes of the call? Pure."""

from __future__ import annotations

import msgspec

from swell.model.call import LOSSES, Again, Call, CallError, Cancelled, Failed

FAILURES = frozenset({"exception", "deadline"})
"""Of the code itself: it raised, or took longer than its timeout. Tried again as often as its `retries` say."""
LOST_RETRIES = 3
"""A call that was lost with its replica is tried again at least so often, whatever its `retries`: that it was accepted
is a promise. Not for ever: it may be what kills the replicas. Each of these tries it has alone (`Call.is_suspect`), so
of calls that others took along none is used up."""
NOT_BEGUN = frozenset({"busy", "drained"})
"""It was handed to one that has no room after all, or handed back by one that ends in order. That is no attempt, and
it keeps its place."""
PREEMPTED = "preempted"
"""What had it was stopped for others, or with the server, before it was done. That is no attempt either."""
CANCELLED = "cancelled"


class End(msgspec.Struct, frozen=True):
    """How a hand-out ended. Codes that are not listed above are final, since another attempt would end alike: the
    arguments do not fit, its app is gone."""

    id: str
    token: int
    """The call's, and the fencing token that it was handed out with."""
    code: str
    message: str
    body: bytes = b""
    """The error as its caller is told it."""
    content_type: str = "application/json"
    cpu_us: int = 0
    run_us: int = 0


def after(call: Call, end: End, now: float, chance: float) -> Again | Failed | Cancelled | None:
    """What becomes of a leased call. None: nothing, since the end is not that of the lease it has now; it came late, or
    is another call's. `chance`: a random number, 0 ≤ chance < 1."""
    if call.state != "leased" or (call.id, call.token) != (end.id, end.token):
        return None
    error, used = CallError(end.code, end.message), (end.cpu_us, end.run_us)
    if end.code == CANCELLED:
        return Cancelled(call.id, call.token, now, error, *used)
    if end.code in NOT_BEGUN or end.code == PREEMPTED:
        return Again(call.id, call.token, call.due_at, None, False, *used)
    if call.attempts <= _retries(call, end.code):
        return Again(call.id, call.token, now + delay_s(call, chance), error, True, *used)
    if call.attempts > 1:
        error = CallError(end.code, f"{end.message} (the last of {call.attempts} attempts)")
    return Failed(call.id, call.token, now, error, end.body, end.content_type, *used)


def delay_s(call: Call, chance: float) -> float:
    """What a call waits before it is tried again: longer after each attempt, and less by a part that chance has, so
    that calls that failed together do not all come back together."""
    return call.retrying.delay_s(call.attempts) * (1 - call.jitter * chance)


def _retries(call: Call, code: str) -> int:
    """How often it is tried again at most after such an end."""
    if code in FAILURES:
        return call.retrying.max_retries
    return max(call.retrying.max_retries, LOST_RETRIES) if code in LOSSES else 0
