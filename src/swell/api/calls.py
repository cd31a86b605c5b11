"""What can be asked about queued calls over HTTP? What became of them, and that they end or are tried again."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from swell.api.answers import Answer
from swell.api.port import CallsPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need, may_see, whose_calls
from swell.model.call import State
from swell.model.key import ALL
from swell.model.names import check_names
from swell.model.unknown import unknown_call
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.call_rows import CallRow
from swell.wire.http import CALL_STATE, JSON, OCTETS, error_body

PAGE_MAX = 1000
WAIT_MAX_S = 60.0
"""How long one request may wait for a call's end."""
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
    state: State | Literal[""] = ""
    """Empty: any."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = 20
    """The newest so many."""
    before: str = ""
    """Only calls that are older than the one of this id: the next page is of those before the last one."""


class CallQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long it may take."""

    wait_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)] = 0.0
    """For its end, where it has not ended."""


class CallHandlers:
    """Answers, one method per route."""

    def __init__(self, calls: CallsPort) -> None:
        self._calls = calls

    def routes(self) -> list[Route]:
        all_of, one = "/api/calls", "/api/calls/{id}"
        rows, row = list[CallRow], CallRow
        return [
            Route("GET", all_of, "The newest queued calls.", self.calls, CallsQuery, gives=rows, needs=ALL_OF),
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
            Route("POST", f"{one}/retry", "Try a dead letter again.", self.retry_call, gives=row, needs=ITS_APP),
        ]

    async def calls(self, request: ApiRequest) -> list[CallRow]:
        query: CallsQuery = request.query
        check_names(query.namespace, query.app)
        key = whose_calls(request.holder, query.namespace, query.app or ALL)
        return await self._calls.rows(query.namespace, query.app, query.state or None, query.limit, query.before, key)

    async def call(self, request: ApiRequest) -> CallRow:
        id = await self._seen(request)
        return _there(id, await self._calls.row(id, request.query.wait_s))

    async def cancel_call(self, request: ApiRequest) -> CallRow:
        id = await self._seen(request)
        return _there(id, await self._calls.cancel(id, request.holder.id))

    async def call_result(self, request: ApiRequest) -> Answer:
        id = await self._seen(request)
        row = _there(id, await self._calls.row(id, request.query.wait_s))
        told = {CALL_STATE: row.state}
        if row.ended_at is None:
            return Answer(202, JSON, msgspec.json.encode(row), told)
        body = await self._calls.result(id)
        if row.state == "done":
            if body is None:
                # It has expired this moment.
                raise unknown_call(id)
            return Answer(200, body.content_type, body.data, told)
        code, message = (row.error.code, row.error.message) if row.error is not None else ("internal", "")
        status = STATUS.get(code, 500)
        if body is None or not body.data:
            return Answer(status, JSON, error_body(code, message, request=id), told)
        return Answer(status, body.content_type or OCTETS, body.data, told)

    async def retry_call(self, request: ApiRequest) -> CallRow:
        id = await self._seen(request)
        return _there(id, await self._calls.retry(id))

    async def _seen(self, request: ApiRequest) -> str:
        """The id, of a call that its caller may see. One that it may not is as one that is not there."""
        id = request.path["id"]
        whose = await self._calls.whose(id)
        if whose is None:
            raise unknown_call(id)
        *app, key = whose
        if not may_see(request.holder, *app) or whose_calls(request.holder, *app) not in (None, key):
            raise unknown_call(id)
        return id


def _there(id: str, row: CallRow | None) -> CallRow:
    if row is None:
        raise unknown_call(id)
    return row
