"""What is a route? Its path, what it takes and what it gives, declared once: it answers and is documented by that."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from swell.api.answers import Answer, ByteStream, LineStream, content, left, refusal, result, written
from swell.api.auth import HOLDER, id_of
from swell.decide.access import Holder, Need, may_ask, may_see
from swell.model.errors import SwellError
from swell.model.unknown import UnknownApp
from swell.wire.malformed import why_not_json

log = logging.getLogger("swell.api")

JSON_MAX = 32 * 1024 * 1024
"""Bytes of a JSON body."""


class ApiRequest(NamedTuple):
    """One request, as its route declared it."""

    path: Mapping[str, str]
    query: Any
    body: Any
    """The decoded JSON; None where the route takes bytes or nothing."""
    chunks: AsyncIterator[bytes]
    """The body of a route that takes bytes."""
    holder: Holder
    """Whose key came with it."""
    content_type: str = ""
    """What its body is, as its header has it."""

    def seen(self, error: SwellError) -> SwellError:
        """An error as its caller is told of it."""
        return error.seen(partial(may_see, self.holder)) if isinstance(error, UnknownApp) else error

    @property
    def names(self) -> dict[str, str]:
        """Its fields, by which it is looked up who may send it."""
        asked = {} if self.query is None else msgspec.to_builtins(self.query)
        return {**asked, **self.path, **getattr(self.body, "names", {})}


class Route(NamedTuple):
    """One operation of the API."""

    method: str
    path: str
    does: str
    """In a sentence."""
    handle: Callable[[ApiRequest], Awaitable[Any]]
    """Returns what `gives` says; with `lines` an async generator of encoded ones."""
    query: type[msgspec.Struct] | None = None
    takes: Any = None
    """Type of the JSON body; `bytes`: any body, streamed; None: no body."""
    gives: Any = None
    """Type of the answer; None: 204 without a body; `bytes`: what is in the file whose path is returned;
    `Answer`: one that has its own status and content type."""
    lines: bool = False
    """The answer is a stream of lines, each one a `gives`."""
    needs: Need = Need("admin")
    """The scope that its caller's key must have."""
    streamed: bool = False
    """What `handle` returns is `Streamed`, and these bytes are the answer."""
    waits: bool = False
    """It may take as long as its caller waits: `handle` is cancelled when that leaves."""


class Resource:
    """The routes of one path, as an ASGI application."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = {route.method: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        route = self._routes.get(request.method)
        if route is None:
            allowed = ", ".join(sorted(self._routes))
            error = SwellError(
                "method_not_allowed", f"{request.url.path} takes {allowed}, not {request.method}.", status=405
            )
            return refusal(error, id_of(request.headers.raw), {"Allow": allowed})
        asked = None
        try:
            asked = await _read_request(route, request)
            refused = may_ask(asked.holder, route.needs, asked.names)
            if refused is not None:
                raise refused
            value = await (_while_there(route, asked, request) if route.waits else route.handle(asked))
        except SwellError as error:
            return refusal(error if asked is None else asked.seen(error), id_of(request.headers.raw))
        except ClientDisconnect:
            raise
        except Exception as error:
            id, told = unexpected(error, id_of(request.headers.raw))
            return refusal(told, id)
        if route.lines:
            return LineStream(value)
        if route.streamed:
            return ByteStream(value)
        if route.gives is bytes:
            return content(value)
        if route.gives is Answer:
            return written(value)
        return Response(status_code=204) if route.gives is None else result(value)


async def _while_there(route: Route, asked: ApiRequest, request: Request) -> Any:
    """The answer, unless whoever asked leaves before it is there."""
    answering = asyncio.ensure_future(route.handle(asked))
    leaves = asyncio.create_task(left(request.receive))
    try:
        await asyncio.wait({answering, leaves}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaves.cancel()


def unexpected(error: BaseException, id: str = "") -> tuple[str, SwellError]:
    """Log an error nobody foresaw; returns the id it is logged under, which is the request's if it has one, and what
    the client may know of it."""
    id = id or f"e-{secrets.token_hex(6)}"
    log.error("unexpected error %s", id, exc_info=error)
    words = f"Something unforeseen went wrong. The server's log says what, under {id}."
    return id, SwellError("internal", words, status=500)


async def _read_request(route: Route, request: Request) -> ApiRequest:
    if any("\0" in text for text in (*request.path_params.values(), *request.query_params.values())):
        # Not every database can be asked for such a text, and nothing that is kept has one.
        raise SwellError("bad_request", "There is a NUL character (%00) in the path or the query: leave it out.")
    query = _query(route.query, request) if route.query is not None else None
    body = None
    if route.takes is not None and route.takes is not bytes:
        body = _decode(route.takes, await _read(request))
    content_type = request.headers.get("content-type", "")
    return ApiRequest(request.path_params, query, body, request.stream(), request.scope[HOLDER], content_type)


def _query(kind: type[msgspec.Struct], request: Request) -> Any:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise SwellError("bad_request", f"The query cannot be used: {error}.") from None


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_MAX:
            raise SwellError("body_too_large", f"A JSON body may have {JSON_MAX} bytes; this one has more.", status=413)
    return bytes(body)


def _decode(kind: Any, body: bytes) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise SwellError("invalid", f"The document does not fit: {error}.", status=422) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SwellError("bad_body", f"The body is no JSON that can be read: {why_not_json(body, error)}.") from None
