"""Who sent a request, and may it go on, by the limits, the size and the time that are its?"""

from __future__ import annotations

from swell.decide.access import Caller, Holder
from swell.gateway.door import Pass
from swell.gateway.gate import Gate, let_in
from swell.gateway.heads import timeout_of
from swell.gateway.refusals import refuse
from swell.gateway.request import Request
from swell.model.errors import SwellError
from swell.model.key import Scope
from swell.model.workload import app_of
from swell.wire.http import TRUSTED

_TRUSTED_LINE = f"{TRUSTED}: 1\r\n".encode()


def to_call(workload: str) -> Scope:
    """What is needed to call something of a workload's app."""
    return Scope("call", *app_of(workload))


def caller_of(request: Request, holder: Holder) -> Caller:
    """What it shows of who sent it, whose key that is, and of which page."""
    origins = () if request.origin is None else (request.origin.decode("latin-1"),)
    return Caller(holder, request.host.decode("latin-1"), origins)


def note_key(request: Request, shown: Pass) -> tuple[Gate, ...]:
    """Note whose key came with it; returns the limits of that, where it has any."""
    if not shown.ours:
        return ()
    request.key = shown.holder.id
    if shown.trusted:
        request.extra = _TRUSTED_LINE
    return shown.gates


def admitted(request: Request, met: tuple[Gate, ...]) -> bool:
    """Is there room for it by these limits? Each counts it once: what only moves to another pool was let in when
    it came, and what was gathered before it was known what it is for, by its key's."""
    if request.gates:
        met = tuple(gate for gate in met if gate not in request.gates)
    if not met or request.pool is not None:
        return True
    refusal = let_in(met, request.shared.now())
    if refusal is not None:
        request.refuse(refusal)
        return False
    request.gates += met
    return True


def bounded(request: Request, waits: bool = True) -> bool:
    """Hold it to the size and the time that are its: False where it was over them already. `waits`: its caller does
    so for an answer."""
    request.body_max = request.shared.settings.body_max
    for gate in request.gates:
        request.within(gate.limits)
    # What came in chunks with its head was not counted yet.
    if request.length > request.body_max or request.size > request.body_max:
        request.fail(413, "body_too_large", request.body_limit)
        return False
    if request.timeout is not None and waits:
        try:
            request.wait_for(timeout_of(request.timeout))
        except SwellError as error:
            refuse(request, error)
            return False
    return True
