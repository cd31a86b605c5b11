"""What can be asked about queued calls over HTTP? What became of them, and that they end or are tried again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Literal

import msgspec

from swell.api.answers import Answer
from swell.api.port import CallsPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Holder, Need, lacks, may_see, whose_calls
from swell.model.call import Body, Members, Mine, State
from swell.model.errors import SwellError
from swell.model.key import ALL, Scope
from swell.model.names import check_names
from swell.model.unknown import unknown_call, unknown_group
from swell.model.workload import DEFAULT_NAMESPACE, app_of
from swell.wire.call_rows import AskedEnds, CallRow, EndRow, EndsPage, GroupEndRow, GroupPage, GroupRow, Retried
from swell.wire.calls import INPUT_MAX
from swell.wire.http import CALL_STATE, JSON, MSGPACK, OCTETS, PICKLE, VALUES, ErrorBody, error_body, read_as
from swell.wire.malformed import why_not_json

PAGE_MAX = 1000
WAIT_MAX_S = 60.0
"""How long one request may wait for a call's end."""
_INDEX = re.compile(r"\d{1,9}", re.ASCII)
ITS_APP = Need("call", somewhere=True, code=True)
"""Of which app a call is shows only when it is looked at. Who may call that app may see, cancel and retry what came
with the same API key; who may deploy it, all of its calls."""
ALL_OF = Need("call", "namespace", "app")
STATUS = {
    "bad_arguments": 422,
    "bad_body": 400,
    "bad_request": 400,
    "cancelled": 409,
    "deadline": 504,
    "lease_expired": 502,
    "replica_died": 502,
    "unknown_function": 404,
}
"""Of the answer to who asks for the result of a call that ended in such an error; 500 for any other."""


class CallsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calls."""

    namespace: str = DEFAULT_NAMESPACE
    app: str = ""
    """Empty: all apps of the namespace."""
    function: str = ""
    """One function of the app, or all methods of one class; empty: all."""
    state: State | Literal[""] = ""
    """Empty: any."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 20
    """The newest so many."""
    before: str = ""
    """Only calls that are older than the one of this id: the next page is of those before the last one."""
    jobs: bool = False
    """Only those that several replicas work on together."""


class RetryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters."""

    namespace: str = DEFAULT_NAMESPACE
    app: str = ""
    """Empty: of all apps of the namespace."""
    function: str = ""
    """As of those that are listed."""
    since: float = 0.0
    """Those that failed for good since then: seconds since the epoch."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 200
    """So many, the newest, are looked at in one request, and written together."""
    before: str = ""
    """Only those that came before the call of this id: where the last page ended."""


class CallQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long it may take."""

    wait_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)] = 0.0
    """For its end, where it has not ended."""


class LeastQuery(CallQuery, frozen=True, forbid_unknown_fields=True):
    """How long it may take, and for what."""

    least: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 1
    """Where some have ended and not so many, more are waited for, for a moment."""


class EndsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which ends of a group, and how long it may take."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Those with a number above this: the last one that was told."""
    most: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_MAX
    """So many of them; fewer where results are large."""
    least: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 1
    """Where there are some and not so many, more are waited for, for a moment."""
    had: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Those with a number up to this, which is no more than `after`, that came with the same key are forgotten: whoever
    sent them has what came of them."""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)] = 0.0
    """For the first, where there is none."""


class CallHandlers:
    """Answers, one method per route."""

    def __init__(self, calls: CallsPort) -> None:
        self._calls = calls

    def routes(self) -> list[Route]:
        all_of, one = "/api/calls", "/api/calls/{id}"
        rows, row = list[CallRow], CallRow
        return [
            Route("GET", all_of, "The newest queued calls.", self.calls, CallsQuery, gives=rows, needs=ALL_OF),
            # Before those of one: the first path that fits is taken.
            *self._retry_routes(),
            Route(
                "POST",
                f"{all_of}/ends",
                "What has ended of these queued calls, with results, in msgpack.",
                self.ends,
                LeastQuery,
                takes=AskedEnds,
                gives=Answer,
                waits=True,
                needs=ITS_APP,
            ),
            Route(
                "GET",
                one,
                "A queued call, with its result where that is JSON.",
                self.call,
                CallQuery,
                gives=row,
                waits=True,
                needs=ITS_APP,
            ),
            Route("DELETE", one, "End it, unless it has.", self.cancel_call, gives=row, needs=ITS_APP),
            Route("POST", f"{one}/forget", "Forget one that has ended.", self.forget_call, needs=ITS_APP),
            Route(
                "GET",
                f"{one}/result",
                "What the call itself would have been answered, or 202 while it has not ended.",
                self.call_result,
                CallQuery,
                gives=Answer,
                waits=True,
                needs=ITS_APP,
            ),
            *self._group_routes(),
        ]

    def _retry_routes(self) -> list[Route]:
        all_of, one = "/api/calls", "/api/calls/{id}"
        return [
            Route(
                "GET",
                f"{one}/input",
                "What a queued call is given, in the type that it came in, while it may be tried.",
                self.call_input,
                gives=Answer,
                needs=ITS_APP,
            ),
            Route(
                "POST",
                f"{one}/retry",
                "Try a dead letter again, with the body as its input where there is one.",
                self.retry_call,
                takes=bytes,
                gives=CallRow,
                needs=ITS_APP,
            ),
            Route(
                "POST",
                f"{all_of}/retry",
                "Try a page of dead letters again.",
                self.retry_calls,
                RetryQuery,
                gives=Retried,
                needs=ALL_OF,
            ),
        ]

    def _group_routes(self) -> list[Route]:
        group = "/api/calls/groups/{group}"
        return [
            Route(
                "GET",
                group,
                "A group of queued calls, in numbers.",
                self.group,
                gives=GroupRow,
                needs=ITS_APP,
            ),
            Route("DELETE", group, "End what has not ended of a group.", self.cancel_group, needs=ITS_APP),
            Route(
                "GET",
                f"{group}/ends",
                "What has ended of a group, with results, in msgpack.",
                self.group_ends,
                EndsQuery,
                gives=Answer,
                waits=True,
                needs=ITS_APP,
            ),
            Route(
                "GET",
                f"{group}/inputs/{{index}}",
                "The call of a group for the input of that number, without its result.",
                self.member,
                gives=CallRow,
                needs=ITS_APP,
            ),
        ]

    async def calls(self, request: ApiRequest) -> list[CallRow]:
        query: CallsQuery = request.query
        key = _chosen(query, request.holder)
        which = query.namespace, query.app, query.function
        return await self._calls.rows(*which, query.state or None, query.limit, query.before, key, query.jobs)

    async def call(self, request: ApiRequest) -> CallRow:
        id = await self._seen(request)
        return _there(id, await self._calls.row(id, request.query.wait_s, request.holder.id))

    async def cancel_call(self, request: ApiRequest) -> CallRow:
        id = await self._seen(request)
        return _there(id, await self._calls.cancel(id, request.holder.id))

    async def forget_call(self, request: ApiRequest) -> None:
        await self._calls.remove(await self._seen(request))

    async def call_result(self, request: ApiRequest) -> Answer:
        id = await self._seen(request)
        row = _there(id, await self._calls.row(id, request.query.wait_s, request.holder.id))
        if row.ended_at is None:
            return Answer(202, JSON, msgspec.json.encode(row), {CALL_STATE: row.state})
        body = await self._calls.result(id)
        answer = _answer(row, body)
        return answer._replace(file=await self._calls.file(id, body)) if body is not None and body.digest else answer

    async def ends(self, request: ApiRequest) -> Answer:
        query, mine = request.query, partial(_may_see, request.holder)
        found, unknown = await self._calls.ends(request.body.ids, query.least, query.wait_s, mine, request.holder.id)
        ends: list[EndRow] = []
        for row, body in found:
            answer, apart = _told_of(row, body)
            ends.append(EndRow(row.id, row.state, answer.status, answer.content_type, answer.body, apart))
        return Answer(200, MSGPACK, msgspec.msgpack.encode(EndsPage(tuple(ends), tuple(unknown))), {})

    async def call_input(self, request: ApiRequest) -> Answer:
        id = await self._seen(request)
        body = await self._calls.input(id)
        if body is None:
            words = f"The input of the call {id} is not kept: that of one that is done, or was cancelled, is not."
            raise SwellError("no_input", words, status=404)
        return Answer(200, body.content_type or JSON, body.data, {})

    async def retry_call(self, request: ApiRequest) -> CallRow:
        id, (namespace, app, _) = await self._seen_app(request)
        input = await _input(request)
        if input is not None and input.content_type == PICKLE:
            # As at the door: whatever is in the queue may be trusted.
            refused = lacks(request.holder, Scope("deploy", namespace, app))
            if refused is not None:
                raise refused
        return _there(id, await self._calls.retry(id, input))

    async def retry_calls(self, request: ApiRequest) -> Retried:
        query: RetryQuery = request.query
        key = _chosen(query, request.holder)
        which = query.namespace, query.app, query.function, query.since
        return await self._calls.retry_many(*which, query.limit, query.before, key)

    async def group(self, request: ApiRequest) -> GroupRow:
        group, mine = request.path["group"], await self._seen_group(request)
        members = _those(mine, await self._calls.members(group, ended=True))
        open = sum(each.open for each in members)
        return GroupRow(group, open + sum(each.ended for each in members), open)

    async def cancel_group(self, request: ApiRequest) -> None:
        group, holder = request.path["group"], request.holder
        # Inputs of it may still be on their way: so it is ended also where nothing of it is there.
        if not await self._calls.cancel_group(group, holder.id, partial(_may_see, holder)):
            raise unknown_group(group)

    async def member(self, request: ApiRequest) -> CallRow:
        group, index = request.path["group"], request.path["index"]
        if not _INDEX.fullmatch(index):
            raise SwellError("bad_request", f"An input of a group has a number from 0 on, not {index[:20]!r}.")
        row = await self._calls.member(group, int(index), partial(_may_see, request.holder))
        if row is None:
            raise unknown_group(group)
        return row

    async def group_ends(self, request: ApiRequest) -> Answer:
        group, query, by = request.path["group"], request.query, request.holder.id
        mine = await self._seen_group(request)
        if query.had:
            self._calls.forget(group, by, min(query.had, query.after))
        found = await self._calls.group_ends(group, query.after, query.most, query.least, query.wait_s, mine, by)
        ends: list[GroupEndRow] = []
        for row, end in found:
            answer, apart = _told_of(row, end.result)
            told = (answer.status, answer.content_type, answer.body, apart)
            ends.append(GroupEndRow(row.id, end.call.index, end.call.state, *told))
        last = found[-1][1].number if found else query.after
        open: int | None = None
        problem: ErrorBody | None = None
        if not found:
            waiting = _those(mine, await self._calls.members(group, ended=False))
            problems = [self._calls.problem(each.workload) for each in waiting]
            problem = problems[0] if problems and None not in problems else None
            open = sum(each.open for each in waiting)
        page = GroupPage(tuple(ends), last, open, problem)
        return Answer(200, MSGPACK, msgspec.msgpack.encode(page), {})

    async def _seen_group(self, request: ApiRequest) -> Mine:
        """Which calls of a group its caller may see. Where there are none of these, it is as one that is not there."""
        group, mine = request.path["group"], partial(_may_see, request.holder)
        if not await self._calls.has_any(group, mine):
            raise unknown_group(group)
        return mine

    async def _seen(self, request: ApiRequest) -> str:
        """The id, of a call that its caller may see. One that it may not is as one that is not there."""
        id, _ = await self._seen_app(request)
        return id

    async def _seen_app(self, request: ApiRequest) -> tuple[str, tuple[str, str, str]]:
        """And (namespace, app) that it is for, and the id of its API key."""
        id = request.path["id"]
        whose = await self._calls.whose(id)
        if whose is None or not _may_see(request.holder, *whose):
            raise unknown_call(id)
        return id, whose


def _chosen(query: CallsQuery | RetryQuery, holder: Holder) -> str | None:
    """Of which API key it may be those that are asked for; None: of all. SwellError where they cannot be any."""
    check_names(query.namespace, query.app)
    if query.function and not query.app:
        raise SwellError("bad_request", "A function is one of an app: give app, too.")
    return whose_calls(holder, query.namespace, query.app or ALL)


async def _input(request: ApiRequest) -> Body | None:
    """The body, as the input of a call; None where there is none. SwellError where it cannot be one."""
    data = bytearray()
    async for chunk in request.chunks:
        data += chunk
        if len(data) > INPUT_MAX:
            words = f"The input of a queued call has {INPUT_MAX} bytes at most; this one has more."
            raise SwellError("body_too_large", words, status=413)
    if not data:
        return None
    kind = read_as(request.content_type)
    if kind not in VALUES:
        raise SwellError("bad_request", f"An input is of the type {', '.join(VALUES)}, and not {kind[:80]!r}.")
    _check_arguments(kind, bytes(data))
    return Body(kind, bytes(data))


def _check_arguments(kind: str, data: bytes) -> None:
    """SwellError bad_body for what no function takes: the input that the call has is better than that."""
    if kind not in (JSON, MSGPACK):
        return
    try:
        given = msgspec.json.decode(data) if kind == JSON else msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        name, why = ("JSON", why_not_json(data, error)) if kind == JSON else ("msgpack", str(error))
        raise SwellError("bad_body", f"The input is no {name} that can be read: {why}.") from None
    if not isinstance(given, dict | list):
        alone = "null" if given is None else "a value"
        words = f"The input is {alone} alone: send an object of keyword arguments or an array of positional ones."
        raise SwellError("bad_body", f"{words} Without a body the call is tried again with the input that it has.")


def _may_see(holder: Holder, namespace: str, app: str, key: str) -> bool:
    """Calls of that app which came with that API key."""
    return may_see(holder, namespace, app) and whose_calls(holder, namespace, app) in (None, key)


def _those(mine: Mine, members: Iterable[Members]) -> list[Members]:
    return [each for each in members if mine(*app_of(each.workload), each.key)]


def _answer(row: CallRow, body: Body | None) -> Answer:
    """Of a call that has ended, what it would have been answered itself."""
    told = {CALL_STATE: row.state}
    if row.state == "done":
        if body is None:
            # It has expired this moment.
            raise unknown_call(row.id)
        return Answer(200, body.content_type, body.data, told)
    code, message = (row.error.code, row.error.message) if row.error is not None else ("internal", "")
    status = STATUS.get(code, 500)
    if body is None or not body.data:
        return Answer(status, JSON, error_body(code, message, request=row.id), told)
    return Answer(status, body.content_type or OCTETS, body.data, told)


def _told_of(row: CallRow, body: Body | None) -> tuple[Answer, bool]:
    """The same among others, and whether its result is apart. Who is too old to ask for that is told that it is."""
    if body is None or not body.digest:
        return _answer(row, body), False
    words = f"Its result is large, and this program's Swell is too old for that: GET /calls/{row.id}/result has it."
    return Answer(413, JSON, error_body("value_too_large", words, request=row.id), {}), True


def _there(id: str, row: CallRow | None) -> CallRow:
    if row is None:
        raise unknown_call(id)
    return row
