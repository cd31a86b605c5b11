"""How is a result, a stream or an error written as an HTTP response?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

import msgspec
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from swell.model.errors import SwellError
from swell.wire.http import JSON, OCTETS, error_body

log = logging.getLogger("swell.api")

NDJSON = "application/x-ndjson"
STALL_S = 300.0
"""A client that takes nothing of a stream for this long is given up: what is read for it is kept for it alone."""


class Streamed(Protocol):
    """Bytes that are made as they are read; closed by whoever reads them, however that ends, once or more often."""

    def stream(self) -> AsyncGenerator[bytes, None]: ...

    async def close(self) -> None: ...


def result(value: Any) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), media_type=JSON)


def content(path: str) -> Response:
    """What is in a file, piece by piece; of a part of it (Range) just that."""
    return FileResponse(path, media_type=OCTETS)


class Answer(NamedTuple):
    """One whose status and content type are not those of its route."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]
    file: str = ""
    """The path of what has the body, where that is not here."""


def written(answer: Answer) -> Response:
    """Bytes of the type they are said to have, and of no other that a browser might take them for."""
    headers = {**answer.headers, "X-Content-Type-Options": "nosniff"}
    if answer.file:
        return FileResponse(answer.file, answer.status, headers, answer.content_type)
    return Response(answer.body, answer.status, headers, answer.content_type)


def refusal(error: SwellError, id: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """An error, with its status and the one body all errors have."""
    body = error_body(error.code, error.message, request=id, detail=error.detail)
    return Response(body, status_code=error.status, media_type=JSON, headers=headers)


class LineStream:
    """Lines as they come, as an ASGI application. A client that leaves closes the source at once."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await _while_there(self._pump(send), receive)

    async def _pump(self, send: Send) -> None:
        headers = [(b"content-type", NDJSON.encode())]
        async with aclosing(self._lines):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for line in self._lines:
                await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class ByteStream:
    """Bytes as they are made, as an ASGI application. A client that leaves, or takes nothing for `stall_s`, closes the
    source."""

    def __init__(self, source: Streamed, stall_s: float = STALL_S) -> None:
        self._source = source
        self._stall_s = stall_s

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        try:
            await _while_there(self._pump(send), receive)
        except TimeoutError:
            # An answer that does not end is broken off: its client sees that it is not whole.
            log.warning("a client took nothing of a stream for %g s, and is given up", self._stall_s)
        finally:
            await self._source.close()

    async def _pump(self, send: Send) -> None:
        headers = [(b"content-type", OCTETS.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._source.stream()) as pieces:
            async for piece in pieces:
                async with asyncio.timeout(self._stall_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        # Who has all of it may ask for the next one at once.
        await self._source.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _while_there(pumping: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Send an answer, unless its client leaves."""
    pump = asyncio.create_task(pumping)
    leaves = asyncio.create_task(left(receive))
    try:
        await asyncio.wait({pump, leaves}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaves.cancel()
        cut = pump.cancel()
        await asyncio.wait({pump, leaves})
    if not cut:
        pump.result()


async def left(receive: Receive) -> None:
    """Returns when the client has."""
    while (await receive())["type"] != "http.disconnect":
        pass
