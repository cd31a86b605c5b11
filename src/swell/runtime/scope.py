"""What is an ASGI application told of a request? And how do the two talk, in types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from swell.runtime.http import Exchange
from swell.wire.http import REQUEST_ID, ROOT_PATH, lower

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_REQUEST_ID, _ROOT_PATH = lower(REQUEST_ID), lower(ROOT_PATH)


def http_scope(exchange: Exchange, state: dict[str, Any]) -> dict[str, Any]:
    """The HTTP scope, from which that of a WebSocket is made. `path` has `root_path` in front, as ASGI wants it."""
    request = exchange.request
    root = request.header(_ROOT_PATH).decode("latin-1").rstrip("/")
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.header(b"x-forwarded-proto").decode("latin-1") or "http",
        "path": root + unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": root.encode("latin-1") + path,
        "query_string": query,
        "root_path": root,
        "headers": [(_REQUEST_ID, request.id.encode("latin-1")), *request.headers],
        "client": None,
        "server": None,
        "state": state.copy(),
        "extensions": {"http.response.trailers": {}},
    }
