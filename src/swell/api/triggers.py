"""What can be asked about triggers over HTTP? When they fire, when they did, and that they pause or fire now."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swell.api.port import TriggersPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need, whose_calls
from swell.model.names import check_names
from swell.model.trigger import FIRINGS_KEPT
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.triggers import Backfill, Backfilled, Fired, FiringRow, TriggerRow

SEES = Need("call", "namespace", "app")
SEES_ONE = Need("call", "namespace", "name")
DEPLOYS = Need("deploy", "namespace", "name")


class TriggersQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which triggers."""

    namespace: str = DEFAULT_NAMESPACE
    app: str = ""
    """Empty: all apps of the namespace."""


class FiringsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which firings."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=FIRINGS_KEPT)] = 20
    """The newest so many."""


def trigger_routes(triggers: TriggersPort) -> list[Route]:
    """Every operation there is."""

    async def rows(request: ApiRequest) -> list[TriggerRow]:
        query: TriggersQuery = request.query
        check_names(query.namespace, query.app)
        return await triggers.rows(query.namespace, query.app)

    async def firings(request: ApiRequest) -> list[FiringRow]:
        namespace, app, name = _named(request)
        found = await triggers.firings(namespace, app, name, request.query.limit)
        if whose_calls(request.holder, namespace, app) is None:
            return found
        # They came with no key: where none is needed, whoever knows the id of one can ask for its result. And the id of
        # an event is of what it brought: the key of a row, say.
        own = ("event", "refused")
        return [msgspec.structs.replace(each, call="", id="" if each.how in own else each.id) for each in found]

    async def pause(request: ApiRequest) -> TriggerRow:
        return await triggers.pause(*_named(request), True)

    async def resume(request: ApiRequest) -> TriggerRow:
        return await triggers.pause(*_named(request), False)

    async def fire(request: ApiRequest) -> Fired:
        return await triggers.fire(*_named(request))

    async def backfill(request: ApiRequest) -> Backfilled:
        return await triggers.backfill(*_named(request), request.body)

    all_of, one, row = "/api/triggers", "/api/apps/{namespace}/{name}/triggers/{trigger}", TriggerRow
    late = "Fire once for each due time that passed without it."
    history = "The newest firings."
    return [
        Route("GET", all_of, "The triggers there are.", rows, TriggersQuery, gives=list[TriggerRow], needs=SEES),
        Route("GET", f"{one}/firings", history, firings, FiringsQuery, gives=list[FiringRow], needs=SEES_ONE),
        Route("POST", f"{one}/pause", "Have it fire no more.", pause, gives=row, needs=DEPLOYS),
        Route("POST", f"{one}/resume", "Have it fire again.", resume, gives=row, needs=DEPLOYS),
        Route("POST", f"{one}/fire", "Fire now.", fire, gives=Fired, needs=DEPLOYS),
        Route("POST", f"{one}/backfill", late, backfill, takes=Backfill, gives=Backfilled, needs=DEPLOYS),
    ]


def _named(request: ApiRequest) -> tuple[str, str, str]:
    at = request.path
    return at["namespace"], at["name"], at["trigger"]
