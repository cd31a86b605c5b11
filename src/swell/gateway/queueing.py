"""Which calls are to be worked on later? They are read whole, given to control, and answered once they are on disk.

What control was asked and did not answer before the link to it broke may be on disk, or not: its caller is told so, and
can send it again with the same `Idempotency-Key`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from swell.gateway.bodies import Bodies
from swell.gateway.gate import at_once, let_in_all, let_in_more
from swell.gateway.heads import JSON_TYPE, header_of, headers_of, timeout_of
from swell.gateway.refusals import refuse
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.call import PRIORITY_MAX, Body, is_group_id
from swell.model.durations import seconds_of
from swell.model.errors import SwellError
from swell.model.key import Scope
from swell.model.subscription import Events
from swell.wire.calls import (
    DELAY_MAX_S,
    GROUP_BODY_MAX,
    GROUP_INPUTS_MAX,
    INPUT_MAX,
    KEEP_MAX_S,
    KEEP_MIN_S,
    Many,
    NewCall,
    NewEvent,
    Submitted,
)
from swell.wire.cloudevents import count, is_batch
from swell.wire.http import (
    ASYNC,
    DELAY,
    FIRST,
    FRAMES,
    GROUP,
    IDEMPOTENCY_KEY,
    ITEM_TYPE,
    JSON,
    KEEP,
    PICKLE,
    PRIORITY,
    VALUES,
    lower,
    media_type,
)
from swell.wire.malformed import must_be_plain

UNSENT_MAX = 64 * 1024 * 1024
"""Bytes that control may leave unread before more calls are refused."""

_WORDS = {b"true": True, b"1": True, b"?1": True, b"false": False, b"0": False, b"?0": False}
_NUMBER = re.compile(rb"[+-]?\d{1,4}")
_INDEX = re.compile(rb"\d{1,9}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_RETRY = b"retry-after: 1\r\n"
_TOO_LARGE = (
    f"What a call that waits in the queue is given may have {INPUT_MAX} bytes. Put what is larger into a volume and "
    f"pass its path; or call without {ASYNC}, where it is no event."
)
_GROUP_TOO_LARGE = (
    f"The inputs of a group that come in one request may have {GROUP_BODY_MAX} bytes together, and each {INPUT_MAX}. "
    f"Send the others in a request of their own, with {FIRST}."
)
_EACH_COUNTS = "Each event of a batch counts as a request."
_TOO_MUCH = "The gateway holds as many bytes of requests as it may (hold_bytes_max). Try again in a moment."
_AWAY = "Control, which keeps the queue, is away, so the call was not accepted. Try again in a moment."
_UNSURE = (
    "Control went away, or did not answer in time: whether the call was accepted is not known. Send it again; with the "
    f"same {IDEMPOTENCY_KEY} it is accepted once."
)


def _size_max(new: NewCall | NewEvent) -> tuple[int, str]:
    """Bytes that its body may have, and what is said of more."""
    is_group = isinstance(new, NewCall) and new.many is not None
    return (GROUP_BODY_MAX, _GROUP_TOO_LARGE) if is_group else (INPUT_MAX, _TOO_LARGE)


def is_later(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Do these headers of a call ask for it to be queued? SwellError where they make no sense."""
    given = dict(headers)
    if len(given) < len(headers):
        raise _bad("A header of a call that is queued stands there twice.")
    word = given.get(lower(ASYNC), b"false").lower()
    if word not in _WORDS:
        raise _bad(f"{ASYNC} is true or false.")
    if not _WORDS[word] and len(given) > (lower(ASYNC) in given):
        raise _bad(f"{PRIORITY}, {DELAY}, {KEEP} and {GROUP} are of calls that are queued: send {ASYNC}: true as well.")
    return _WORDS[word]


def new_call(request: Request, workload: str, method: str, trusted: bool) -> NewCall:
    """What a request asks to have queued, but for its arguments. SwellError where that makes no sense.

    A pickle is asked for, or brought, by those alone who may deploy (`trusted`): so whatever is in the queue may be
    trusted. Nor does a key that may only call put its calls before those of others.
    """
    given = dict(request.later)
    must_be_plain((header_of(request.head, "content-encoding") or "").encode("latin-1"))
    type_header = header_of(request.head, "content-type") or JSON
    group, many = _group(given, media_type(type_header))
    if many is not None:
        type_header = given.get(lower(ITEM_TYPE), JSON.encode()).decode("latin-1")
    if not trusted and media_type(type_header) == PICKLE:
        words = f"Pickled arguments need a key that may deploy. Send it, or send {JSON}."
        raise SwellError("no_key", words, status=401)
    accept = next(
        (kind for kind in map(media_type, (header_of(request.head, "accept") or "").split(",")) if kind in VALUES), ""
    )
    if accept == PICKLE and not trusted:
        words = f"Pickled results need a key that may deploy. Send it, or accept {JSON}."
        raise SwellError("no_key", words, status=401)
    key = header_of(request.head, lower(IDEMPOTENCY_KEY).decode())
    if key is not None and group:
        raise _bad(f"In a group the number of an input is its key: leave out {IDEMPOTENCY_KEY}.")
    if key is not None and not _KEY.fullmatch(key):
        raise _bad(f"{IDEMPOTENCY_KEY} takes 1 to 255 characters of ASCII, without spaces.")
    priority = _priority(given.get(lower(PRIORITY), b"0"))
    if priority > 0 and request.key and not trusted:
        raise _may_not_go_before(request.key, workload)
    return NewCall(
        workload=workload,
        method=method,
        input=Body(type_header),
        accept=accept,
        key=request.key,
        priority=priority,
        delay_s=_delay_s(given.get(lower(DELAY), b"0")),
        idempotency_key=key or "",
        group=group,
        many=many,
        keep_s=_keep_s(given.get(lower(KEEP))),
        timeout_s=timeout_of(request.timeout) if request.timeout is not None else 0.0,
    )


def _group(given: dict[bytes, bytes], kind: str) -> tuple[str, Many | None]:
    """The group's id, and where its inputs are numbered from; they themselves are still to come."""
    group, first = given.get(lower(GROUP), b"").decode("latin-1"), given.get(lower(FIRST), b"0")
    if not group and (kind == FRAMES or lower(FIRST) in given):
        raise _bad(f"Many inputs, and numbers of inputs, are of a group: send {GROUP} as well.")
    if not group:
        return "", None
    if not is_group_id(group):
        raise _bad(f"{GROUP} takes an id: fg- and 26 digits and capital letters without I, L, O and U.")
    if not _INDEX.fullmatch(first) or kind != FRAMES:
        raise _bad(f"A group's inputs come as {FRAMES}, and {FIRST} takes a whole number from 0 on.")
    return group, Many(int(first), ())


def inputs_of(body: bytes) -> tuple[bytes, ...]:
    """The inputs in the body of a group. SwellError bad_body where it is none."""
    at = 0
    found: list[bytes] = []
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        if end > len(body) or body[at + 4 : at + 5] != b"i":
            raise SwellError("bad_body", f"The body is no whole {FRAMES} of inputs (at byte {at}).")
        if len(found) == GROUP_INPUTS_MAX:
            break
        found.append(body[at + 5 : end])
        at = end
    # No further than to the first one too many: who sends millions would keep all others waiting.
    if at < len(body) or not found:
        words = f"A request brings 1 to {GROUP_INPUTS_MAX} inputs of a group, not {'more' if found else 'none'}."
        raise SwellError("bad_body", words)
    return tuple(found)


def _priority(value: bytes) -> int:
    if not _NUMBER.fullmatch(value) or not -PRIORITY_MAX <= int(value) <= PRIORITY_MAX:
        raise _bad(f"{PRIORITY} takes a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}.")
    return int(value)


def _may_not_go_before(key: str, workload: str) -> SwellError:
    """Of an API key that lacks the right to."""
    needed = Scope("deploy", *workload.split("/")[:2])
    words = (
        f"The key {key} may call, and not put its calls before those of others: {PRIORITY} above 0 needs the scope "
        f"{needed}, since it takes the room of what is lower. Leave it out, send 0 or less, or have a key made that "
        f"has it: `swell key create NAME --scope {needed}`."
    )
    return SwellError("no_scope", words, status=403)


def _delay_s(value: bytes) -> float:
    seconds = seconds_of(value.decode("latin-1").lower())
    if not 0 <= seconds <= DELAY_MAX_S:
        raise _bad(f"{DELAY} takes seconds, or a length of time such as 90s, 10m or 2d: 30 days at most.")
    return seconds


def _keep_s(value: bytes | None) -> float:
    if value is None:
        return 0.0
    seconds = seconds_of(value.decode("latin-1").lower())
    if not KEEP_MIN_S <= seconds <= KEEP_MAX_S:
        raise _bad(f"{KEEP} takes seconds, or a length of time such as 10m, 1h or 7d: 1m to 30d.")
    return seconds


def _bad(words: str) -> SwellError:
    return SwellError("bad_request", words)


class Queueing(Bodies):
    """Requests for calls that are to be queued: while their bodies come, and while control writes them."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.tell: Callable[[NewCall | NewEvent], int] = lambda _call: 0
        """Gives a call, or an event, to control; the number by which that will answer, or 0 where it is away."""
        self._news: dict[Request, NewCall | NewEvent] = {}
        """Those whose bodies are on their way."""
        self._asked: dict[int, Request] = {}
        """Those that control writes, by the numbers that it was asked with."""
        self._numbers: dict[Request, int] = {}
        self._groups: dict[Request, tuple[str, int]] = {}
        """Of those for a group, which and how many inputs of it."""

    def take(self, request: Request, workload: str, method: str, trusted: bool) -> None:
        """Queue what a request asks for, or say why not."""
        try:
            new = new_call(request, workload, method, trusted)
        except SwellError as error:
            refuse(request, error)
            return
        self._begin(request, new)

    def take_event(self, request: Request, workload: str, events: Events) -> None:
        """Queue the call of an event. `events`: those that are taken, as far as is known here."""
        try:
            if request.later:
                raise _bad(f"An event always waits in the queue: leave out {ASYNC} and the headers that go with it.")
            must_be_plain((header_of(request.head, "content-encoding") or "").encode("latin-1"))
        except SwellError as error:
            refuse(request, error)
            return
        self._begin(request, NewEvent(workload, headers_of(request.head), key=request.key, signed=events == "signed"))

    def _begin(self, request: Request, new: NewCall | NewEvent) -> None:
        most, words = _size_max(new)
        if max(request.length, request.size) > most:
            request.fail(413, "body_too_large", words)
            return
        self._news[request] = new
        self.submit(request)

    def submit(self, request: Request) -> None:
        """Take in a request, with as much of its body as came with it."""
        request.pool = self
        self.gather(request)

    def grown(self, request: Request) -> None:
        """More of its body came."""
        self.count(request)
        new = self._news.get(request)
        most, words = _size_max(new) if new is not None else (INPUT_MAX, _TOO_LARGE)
        if request.size > most:
            request.fail(413, "body_too_large", words)
        elif self.full:
            request.fail(429, "too_many_held", _TOO_MUCH, _RETRY)
        elif request.complete and new is not None:
            self._ask(request)

    def _ask(self, request: Request) -> None:
        call = self._news.pop(request)
        body = b"".join(request.body)
        if isinstance(call, NewEvent):
            events = count(body) if is_batch(header_of(request.head, "content-type") or "") else 1
            most = at_once(request.gates)
            # All of them or none: its sender knows of no part of a batch.
            if events > most:
                request.fail(413, "body_too_large", f"{_EACH_COUNTS} {most:g} may come at once: send fewer.")
                return
            if not let_in_all(request.gates, max(events - 1, 0), self.shared.now()):
                words = f"{_EACH_COUNTS} {events} are too many just now: try again in a moment."
                request.fail(429, "rate_limited", words, _RETRY)
                return
            call = msgspec.structs.replace(call, body=body)
        elif call.many is None:
            call = msgspec.structs.replace(call, input=Body(call.input.content_type, body))
        else:
            try:
                inputs = inputs_of(body)
            except SwellError as error:
                refuse(request, error)
                return
            # It was let in as one; as many more come with it as may. The others are to be sent again.
            more = let_in_more(request.gates, len(inputs) - 1, self.shared.now())
            call = msgspec.structs.replace(call, many=Many(call.many.first, inputs[: more + 1]))
            self._groups[request] = (call.group, more + 1)
        ask = self.tell(call)
        if ask:
            self._asked[ask] = request
            self._numbers[request] = ask
        else:
            request.fail(503, "control_down", _AWAY, _RETRY)

    def told(self, answer: Submitted) -> None:
        """Control has written a call, or says why not."""
        request = self._asked.get(answer.ask)
        if request is None:
            return
        if answer.ids is not None:
            group, inputs = self._groups.get(request, ("", 0))
            accepted = {"group": group, "accepted": inputs, "ids": answer.ids} if group else {"ids": answer.ids}
            self._accepted(request, accepted, f"groups/{group}" if group else "")
        elif answer.id:
            self._accepted(request, {"id": answer.id}, answer.id)
        else:
            retry = _RETRY if answer.status in (429, 503) else b""
            request.fail(answer.status, answer.code, answer.message, retry)

    def _accepted(self, request: Request, told: Mapping[str, object], place: str) -> None:
        self.drop(request)
        lines = b"location: /calls/%b\r\n" % place.encode() if place else b""
        request.answer(202, JSON_TYPE, msgspec.json.encode(told), lines)

    def lost(self) -> None:
        """Control went away with what it was asked."""
        for request in [*self._asked.values()]:
            request.fail(502, "control_down", _UNSURE)

    def overdue(self, request: Request, now: float) -> None:
        """End one whose body is not here, or that control did not answer, after all the time that it may wait."""
        if request in self._news:
            request.body_overdue(now)
        elif now >= request.until:
            words = f"The deadline of {request.callers_limit} passed while the call was being accepted."
            request.fail(504, "deadline", words)
        else:
            request.fail(502, "control_down", _UNSURE)

    def drop(self, request: Request) -> None:
        """It is over."""
        super().drop(request)
        self._news.pop(request, None)
        self._groups.pop(request, None)
        ask = self._numbers.pop(request, 0)
        self._asked.pop(ask, None)
