"""Which request asks whether calls have ended, and what does its answer say? One for many, or where the server is older
than that, one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args
from urllib.parse import quote

import msgspec

from swell.model.call import State
from swell.sdk import protocol
from swell.sdk.protocol import Answer, Request
from swell.wire import http
from swell.wire.call_rows import AskedEnds, EndRow, EndsPage

_STATE = http.CALL_STATE.lower()
_STATES: dict[str, State] = {state: state for state in get_args(State)}
NONE = EndsPage(())
"""Nothing has ended."""


def of_many(ids: Sequence[str], least: int, wait_s: float) -> Request:
    """Asks for the ends of these, once there is any; `least` are waited for where that is no matter of time."""
    path = f"/calls/ends?wait_s={wait_s:.3f}&least={least}"
    return Request("POST", path, {"content-type": http.JSON}, msgspec.json.encode(AskedEnds(tuple(ids))))


def of_one(id: str, wait_s: float) -> Request:
    """Asks for that of one."""
    return Request("GET", f"/calls/{quote(id, safe='')}/result?wait_s={wait_s:.3f}")


def told_of_one(id: str, answer: Answer) -> EndsPage | None:
    """What that says of it; None: nothing."""
    state = _STATES.get(answer.headers.get(_STATE, ""))
    if state is not None:
        ended = answer.status != 202
        return EndsPage((EndRow(id, state, answer.status, answer.content_type, answer.body),)) if ended else NONE
    unknown = answer.status == 404 and protocol.error_of(answer).code == "unknown_call"
    return EndsPage((), (id,)) if unknown else None


def cannot_be_many(answer: Answer) -> bool:
    """Is the server older than that question?"""
    return answer.status == 404 and protocol.error_of(answer).code == "unknown_path"


def answer_of(end: EndRow) -> Answer:
    """What the call would have been answered itself."""
    return Answer(end.status, {"content-type": end.content_type, _STATE: end.state}, end.body)
