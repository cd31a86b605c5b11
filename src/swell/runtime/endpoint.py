"""How does a plain function answer as a web endpoint? Through FastAPI where the environment has it, else as a call.

Without FastAPI the arguments come from the query and from a JSON object; the result is answered as that
of a call is: JSON, bytes as they are, a generator as server-sent events.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from swell.model.errors import SwellError
from swell.model.workload import Web
from swell.runtime.arguments import Given, bad_body
from swell.runtime.call import Call, Callee
from swell.runtime.http import Exchange
from swell.runtime.load import Program
from swell.runtime.request import Request
from swell.runtime.results import accepted
from swell.runtime.scope import App
from swell.runtime.shared import ReplicaContext
from swell.wire.http import JSON
from swell.wire.malformed import must_be_plain


class EndpointCallee(Callee):
    """A function whose arguments come from a web request."""

    def read(self, request: Request, body: bytes) -> Given:
        """The arguments of this request. Raises SwellError."""
        must_be_plain(request.header(b"content-encoding"))
        query = request.target.partition(b"?")[2].decode("latin-1")
        fields: Any = {}
        if body:
            try:
                fields = msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise bad_body(JSON, body, error) from None
            if not isinstance(fields, dict):
                raise SwellError("bad_body", "The body must be a JSON object with the fields this endpoint takes.")
        return self.arguments.from_query(parse_qsl(query, keep_blank_values=True), fields)


class Endpoint:
    """A function behind one path and one HTTP method, without a framework."""

    def __init__(self, replica: ReplicaContext, callee: EndpointCallee, web: Web) -> None:
        self._replica = replica
        self._callee = callee
        self._method = web.http_method.upper()

    def open(self, exchange: Exchange) -> Call | None:
        """Take one request, or refuse it at once."""
        request = exchange.request
        path = request.target.partition(b"?")[0]
        if path not in (b"", b"/"):
            exchange.refuse(404, "not_found", f"{self._callee.name} answers on / only.")
            return None
        if request.method != self._method:
            allow = b"Allow: %s\r\n" % self._method.encode()
            exchange.refuse(405, "method_not_allowed", f"{self._callee.name} takes {self._method} only.", allow)
            return None
        wanted = accepted(request.header(b"accept"), request.trusted)
        return Call(self._replica, exchange, self._callee, wanted)


def has_fastapi() -> bool:
    """Does the user's environment have FastAPI?"""
    return has("fastapi")


def has(package: str) -> bool:
    """Does the user's environment have this package?"""
    return importlib.util.find_spec(package) is not None


def prepare(program: Program) -> None:
    """Do what is the same in every fork of a template: read the signatures, import what web endpoints will need."""
    for method in program.entry.methods:
        if method.web is not None and method.web.kind != "endpoint":
            continue
        program.arguments(method.name)
        if method.stacked:
            importlib.import_module("swell.runtime.batched_models")
        if method.tensors is not None:
            importlib.import_module("swell.runtime.inference")
        if method.openai is not None:
            importlib.import_module("swell.runtime.openai")
        if method.web is not None and has_fastapi():
            importlib.import_module("fastapi")


def fastapi_app(replica: ReplicaContext, callee: Callee, web: Web) -> App:
    """The function as the only route of a FastAPI app; if it is synchronous, on our worker thread."""
    import fastapi

    app = fastapi.FastAPI(
        title=callee.name,
        docs_url="/docs" if web.docs else None,
        redoc_url="/redoc" if web.docs else None,
        openapi_url="/openapi.json" if web.docs else None,
    )
    handler = callee.function if callee.asynchronous else _on_worker(replica, callee.function)
    app.add_api_route("/", handler, methods=[web.http_method.upper()])
    made: App = app
    return made


def _on_worker(replica: ReplicaContext, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def handler(*args: Any, **kwargs: Any) -> Any:
        return await replica.workers.call(functools.partial(function, *args, **kwargs))

    return handler
