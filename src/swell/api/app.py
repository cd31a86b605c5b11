"""What can be asked of control over HTTP? The routes of `/api`, and the application that serves them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from swell.api.answers import refusal
from swell.api.auth import Auth, id_of
from swell.api.backups import backup_routes
from swell.api.calls import CallHandlers
from swell.api.keys import key_routes
from swell.api.kv import kv_routes
from swell.api.openapi import document
from swell.api.port import (
    BackupsPort,
    CallsPort,
    ControlPort,
    KvPort,
    LogReader,
    SecretsPort,
    TriggersPort,
    VolumesPort,
)
from swell.api.routes import ApiRequest, Resource, Route, unexpected
from swell.api.secrets import SecretHandlers
from swell.api.triggers import trigger_routes
from swell.api.validate import problems, tag_problems
from swell.api.variants import VariantHandlers
from swell.api.volumes import VolumeHandlers
from swell.decide.access import Need, check_put_in_place, may_see
from swell.model.errors import SwellError
from swell.model.names import check_names
from swell.model.owner import Owner
from swell.model.ports import Blobs
from swell.model.traffic import Traffic
from swell.model.unknown import UnknownApp
from swell.model.workload import DEFAULT_NAMESPACE, App, Revision, Scaling, app_of
from swell.wire.api import (
    AppRow,
    Deploy,
    DeployLine,
    Heard,
    KeyUsage,
    LimitRow,
    LogRow,
    PoolUsage,
    ReplicaRow,
    RequestRow,
    Rescale,
    Rollback,
    Strategy,
    VersionRow,
    Why,
)
from swell.wire.nodes import NodeRow

PROGRESS_MAX = 1000
"""Lines of progress kept for a client that reads slowly; further ones are dropped."""

SEES = Need("call", somewhere=True)
"""What is told is only what the key may see, or is no app's."""
SEES_APP = Need("call", "namespace", "app")
HISTORY = Need("call", "namespace", "name")
DEPLOYS = Need("deploy", "namespace", "app", somewhere=True)
OWNS = Need("deploy", somewhere=True, code=True)
DEPLOYS_APP = Need("deploy", "namespace", "name")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]


class AppsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of apps."""

    counts: bool = False
    """Wait a moment for how many replicas there are, where that is not known yet."""


class BlobQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which app it is for: to be named to whose key may deploy none."""

    namespace: str = ""
    app: str = ""


class LogsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which lines of output."""

    namespace: str = DEFAULT_NAMESPACE
    app: str = ""
    """Empty: all apps of the namespace."""
    since_s: Seconds = 0.0
    """Only lines of the last so many seconds; 0 = whenever."""
    from_at: Seconds = 0.0
    """Only lines of that time or later, in seconds since the epoch as a line tells its own: to go on where one was."""
    request: str = ""
    tail: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] = 100
    """Only the last so many lines; -1 = all."""
    follow: bool = False


class RequestsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which requests."""

    namespace: str = DEFAULT_NAMESPACE
    app: str = ""
    """Empty: all apps of the namespace."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    """The newest so many."""


class UsageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which time."""

    since_s: Seconds = 0.0
    """The last so many seconds; 0 = all that is kept."""


def make_api(
    control: ControlPort,
    blobs: Blobs,
    logs: LogReader,
    secrets: SecretsPort,
    volumes: VolumesPort,
    kv: KvPort,
    calls: CallsPort,
    backups: BackupsPort,
    triggers: TriggersPort,
    *,
    key: str,
    call_key: str = "",
    version: str = "0",
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] = (),
    any_address: bool = False,
) -> Starlette:
    """The application. Loopback hosts are always allowed, other addresses with `any_address`, names when they are
    named; an Origin only when it is named ("http://host:port"). `call_key`: that of code in replicas."""
    handlers = Handlers(control, blobs, logs)
    routes = [*handlers.routes(), *SecretHandlers(secrets).routes(), *VariantHandlers(control).routes()]
    routes += [*VolumeHandlers(volumes).routes(), *kv_routes(kv), *CallHandlers(calls).routes()]
    routes += [*backup_routes(backups), *trigger_routes(triggers)]
    handlers.openapi_document = msgspec.Raw(msgspec.json.encode(document(routes, version)))
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
    app = Starlette(
        routes=[Path(path, Resource(members)) for path, members in by_path.items()],
        middleware=[
            Middleware(
                Auth,
                key=key,
                call_key=call_key,
                known=control.key,
                allowed_hosts=allowed_hosts,
                allowed_origins=allowed_origins,
                any_address=any_address,
            ),
        ],
        exception_handlers={HTTPException: _not_found},
    )
    app.router.redirect_slashes = False
    return app


class Handlers:
    """Answers, one method per route, over the ports."""

    def __init__(self, control: ControlPort, blobs: Blobs, logs: LogReader) -> None:
        self._control = control
        self._blobs = blobs
        self._logs = logs
        self.openapi_document = msgspec.Raw(b"{}")

    def routes(self) -> list[Route]:
        """Every operation there is."""
        return [
            Route("GET", "/api/health", "State of control.", self.health, gives=dict[str, Any], needs=SEES),
            *self._deploying_routes(),
            *self._version_routes(),
            *self._seeing_routes(),
            *key_routes(self._control),
            Route("GET", "/api/limits", "Every limit there is.", self.limits, gives=list[LimitRow], needs=SEES),
            Route("PUT", "/api/owners", "A program is there.", self.heard, takes=Owner, gives=Heard, needs=OWNS),
            Route("GET", "/api/openapi.json", "This description.", self.openapi, gives=dict[str, Any], needs=SEES),
        ]

    def _deploying_routes(self) -> list[Route]:
        app, blob = "/api/apps/{namespace}/{name}", "/api/blobs/{digest}"
        return [
            Route("HEAD", blob, "Is this blob here? 404 if not.", self.has_blob, needs=DEPLOYS),
            Route("PUT", blob, "Store a blob of this digest.", self.put_blob, BlobQuery, takes=bytes, needs=DEPLOYS),
            Route("GET", "/api/apps", "The apps deployed.", self.apps, AppsQuery, gives=list[AppRow], needs=SEES),
            Route(
                "POST",
                "/api/apps",
                "Deploy an app as a whole, or change nothing. Ends with one line that is not progress.",
                self.deploy,
                takes=Deploy,
                gives=DeployLine,
                lines=True,
                needs=DEPLOYS_APP,
            ),
            Route("DELETE", app, "Stop an app; its replicas drain.", self.stop_app, needs=DEPLOYS_APP),
            Route(
                "GET",
                f"{app}/workloads/{{workload}}",
                "What the replicas of a workload run, without the values of secrets.",
                self.revision,
                gives=Revision,
                needs=DEPLOYS_APP,
            ),
            Route(
                "PATCH",
                f"{app}/workloads/{{workload}}",
                "Change how a workload is scaled, until the next deploy.",
                self.rescale,
                takes=Rescale,
                gives=Scaling,
                needs=DEPLOYS_APP,
            ),
        ]

    def _version_routes(self) -> list[Route]:
        app = "/api/apps/{namespace}/{name}"
        return [
            Route("GET", f"{app}/versions", "An app's history.", self.versions, gives=list[VersionRow], needs=HISTORY),
            Route(
                "POST",
                f"{app}/rollback",
                "Deploy an earlier version of an app again, as a new one.",
                self.rollback,
                takes=Rollback,
                gives=DeployLine,
                lines=True,
                needs=DEPLOYS_APP,
            ),
            Route(
                "PUT",
                f"{app}/traffic",
                "Have an app's traffic go to several of its versions.",
                self.traffic,
                takes=Traffic,
                gives=DeployLine,
                lines=True,
                needs=DEPLOYS_APP,
            ),
            Route(
                "POST",
                f"{app}/promote",
                "Give all the traffic to what was made ready beside it.",
                self.promote,
                gives=DeployLine,
                lines=True,
                needs=DEPLOYS_APP,
            ),
        ]

    def _seeing_routes(self) -> list[Route]:
        return [
            Route("GET", "/api/replicas", "Replicas and templates.", self.replicas, gives=list[ReplicaRow], needs=SEES),
            Route("GET", "/api/nodes", "What they run on.", self.nodes, gives=list[NodeRow], needs=SEES),
            Route(
                "GET",
                "/api/logs",
                "Lines of output; followed, an empty line stands before those that come.",
                self.logs,
                query=LogsQuery,
                gives=LogRow,
                lines=True,
                needs=SEES_APP,
            ),
            Route(
                "GET",
                "/api/requests",
                "The newest requests whose records are kept, newest first.",
                self.requests,
                query=RequestsQuery,
                gives=list[RequestRow],
                needs=SEES_APP,
            ),
            Route(
                "GET", "/api/requests/{id}", "Where a request's time and money went.", self.why, gives=Why, needs=SEES
            ),
            Route("GET", "/api/usage", "Use by pool.", self.usage, query=UsageQuery, gives=list[PoolUsage], needs=SEES),
            Route(
                "GET",
                "/api/usage/keys",
                "Requests by API key and pool, and what they used.",
                self.key_usage,
                query=UsageQuery,
                gives=list[KeyUsage],
                needs=SEES,
            ),
        ]

    async def health(self, request: ApiRequest) -> dict[str, object]:
        health = self._control.health()
        waiting = health.get("waiting")
        if isinstance(waiting, dict):
            seen = {pool: why for pool, why in waiting.items() if may_see(request.holder, *app_of(pool))}
            health = {**health, "waiting": seen}
        return health

    async def openapi(self, _: ApiRequest) -> msgspec.Raw:
        return self.openapi_document

    async def heard(self, request: ApiRequest) -> Heard:
        return self._control.heard(request.body)

    async def has_blob(self, request: ApiRequest) -> None:
        if not self._blobs.has(request.path["digest"]):
            raise SwellError("unknown_blob", "There is no such blob here: put it first.", status=404)

    async def put_blob(self, request: ApiRequest) -> None:
        await self._blobs.put(request.path["digest"], request.chunks)

    async def apps(self, request: ApiRequest) -> list[AppRow]:
        apps = await self._control.apps(counts=request.query.counts)
        return [row for row in apps if may_see(request.holder, row.namespace, row.name)]

    async def stop_app(self, request: ApiRequest) -> None:
        await self._control.stop_app(request.path["namespace"], request.path["name"])

    async def revision(self, request: ApiRequest) -> Revision:
        at = request.path
        return self._control.revision(at["namespace"], at["name"], at["workload"])

    async def rescale(self, request: ApiRequest) -> Scaling:
        at = request.path
        return await self._control.rescale(at["namespace"], at["name"], at["workload"], request.body)

    async def versions(self, request: ApiRequest) -> list[VersionRow]:
        return await self._control.versions(request.path["namespace"], request.path["name"])

    async def rollback(self, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        asked: Rollback = request.body
        at = (request.path["namespace"], request.path["name"])
        if not asked.to and self._control.newer(*at):
            return self._told(request, partial(self._control.withdraw, *at, holder=request.holder))
        version = await self._control.version(*at, asked.to)
        check_put_in_place(request.holder, version.app)
        if self._lacking(version.app):
            raise SwellError(
                "source_lost",
                f"The source of v{version.number} is not here any more, so it cannot be deployed again from here: "
                "deploy it from its files, or go back to another version.",
                status=409,
            )
        how = f"rollback to v{version.number}"

        def again(progress: Callable[[str], None]) -> Coroutine[Any, Any, DeployLine]:
            progress(f"deploying v{version.number} again")
            return self._control.deploy(version.app, progress, how, version.tag, holder=request.holder)

        return self._told(request, again)

    async def traffic(self, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        at = request.path["namespace"], request.path["name"]
        return self._told(request, partial(self._control.traffic, *at, request.body, holder=request.holder))

    async def promote(self, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        at = request.path["namespace"], request.path["name"]
        return self._told(request, partial(self._control.promote, *at, holder=request.holder))

    def _lacking(self, app: App) -> list[str]:
        """Digests of the source that is not here."""
        digests = sorted({revision.bundle for revision in app.revisions})
        return [digest for digest in digests if not self._blobs.has(digest)]

    async def replicas(self, request: ApiRequest) -> list[ReplicaRow]:
        replicas = await self._control.replicas()
        return [row for row in replicas if may_see(request.holder, *app_of(row.workload))]

    async def nodes(self, _: ApiRequest) -> list[NodeRow]:
        return await self._control.nodes()

    async def why(self, request: ApiRequest) -> Why:
        return await self._control.why(request.path["id"], request.holder)

    async def limits(self, request: ApiRequest) -> list[LimitRow]:
        return self._control.limits(request.holder)

    async def requests(self, request: ApiRequest) -> list[RequestRow]:
        query: RequestsQuery = request.query
        check_names(query.namespace, query.app)
        found = await self._control.requests(query.namespace, query.app, query.limit)
        if query.app and not found:
            self._check_deployed(query.namespace, query.app, "no request to one of that name is kept")
        return found

    async def usage(self, request: ApiRequest) -> list[PoolUsage]:
        rows = await self._control.usage(request.query.since_s)
        return [row for row in rows if may_see(request.holder, *app_of(row.pool))]

    async def key_usage(self, request: ApiRequest) -> list[KeyUsage]:
        names = {row.id: row.name for row in self._control.keys(request.holder)}
        return [
            KeyUsage(row.key, names.get(row.key, ""), row.pool, row.requests, row.errors, row.cpu_s, row.cost_usd)
            for row in await self._control.key_usage(request.query.since_s)
            if may_see(request.holder, *app_of(row.pool))
        ]

    async def logs(self, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        query: LogsQuery = request.query
        check_names(query.namespace, query.app)
        if query.app and not await self._has_lines(query.namespace, query.app):
            self._check_deployed(query.namespace, query.app, "none of that name has written anything")
        return _lines(self._logs, query)

    def _check_deployed(self, namespace: str, app: str, nothing: str) -> None:
        """Refuse an app that is not there; `nothing` says what one that was has not left."""
        deployed = self._control.deployed()
        if (namespace, app) not in deployed:
            raise UnknownApp(app, namespace, deployed, nothing)

    async def _has_lines(self, namespace: str, app: str) -> bool:
        """Has the app written anything that is kept, be it deployed or not?"""
        async with aclosing(self._logs(namespace, app, tail=1)) as found:
            return await anext(found, None) is not None

    async def deploy(self, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        app: App = request.body.app
        tag: str = request.body.tag
        wrong = [*problems(app), *tag_problems(tag)]
        if not wrong:
            wrong = [f"blob {digest} was not put" for digest in self._lacking(app)]
        if wrong:
            more = f" (the first of {len(wrong)} problems)" if len(wrong) > 1 else ""
            words = f"The app cannot be deployed as it is: {wrong[0]}{more}."
            raise SwellError("invalid", words, status=422, detail="\n".join(wrong) if more else "")
        check_put_in_place(request.holder, app)
        strategy: Strategy = request.body.strategy
        return self._told(
            request, partial(self._control.deploy, app, tag=tag, strategy=strategy, holder=request.holder)
        )

    async def _told(
        self, request: ApiRequest, do: Callable[[Callable[[str], None]], Coroutine[Any, Any, DeployLine]]
    ) -> AsyncGenerator[bytes, None]:
        """Progress and outcome, as lines. Closed before its end, it cancels the deploy and waits for that."""
        lines: asyncio.Queue[DeployLine | None] = asyncio.Queue()

        def progress(text: str) -> None:
            if lines.qsize() < PROGRESS_MAX:
                lines.put_nowait(DeployLine("progress", text))

        deploying = asyncio.create_task(do(progress))
        deploying.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield msgspec.json.encode(line)
            yield msgspec.json.encode(_outcome(deploying, request))
        finally:
            deploying.cancel()
            await asyncio.wait({deploying})


def _outcome(deploying: asyncio.Task[DeployLine], request: ApiRequest) -> DeployLine:
    """The last line of a deploy that is over."""
    if deploying.cancelled():
        return DeployLine("error", "The server is stopping; `swell app list` says what is in place.", code="stopping")
    error = deploying.exception()
    if error is None:
        return deploying.result()
    told = request.seen(error) if isinstance(error, SwellError) else unexpected(error)[1]
    return DeployLine("error", told.message, code=told.code, detail=told.detail)


async def _lines(logs: LogReader, query: LogsQuery) -> AsyncGenerator[bytes, None]:
    since = max(time.time() - query.since_s if query.since_s else 0.0, query.from_at)
    tail = query.tail if query.tail >= 0 else None
    found = logs(query.namespace, query.app, since=since, request=query.request, tail=tail, follow=query.follow)
    async with aclosing(found):
        async for line in found:
            yield line


async def _not_found(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our words: nothing but an unknown path is left to it."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = SwellError("unknown_path", f"There is nothing at {request.url.path}.", status=status)
    return refusal(told, id_of(request.headers.raw))
