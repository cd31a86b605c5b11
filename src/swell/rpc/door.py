"""What answers the Open Inference Protocol over gRPC? A door: each call goes to the gateway over HTTP, with the key and
deadline of its caller, and ends there when its caller leaves. Nothing is decided here.

A message may be large, and is whole before anything can be done with it: who may not call is not heard out. So every
method is one with a stream of messages here, whose first is asked for once the gateway has seen the key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import grpc
import httpx2

from swell.model.errors import SwellError
from swell.rpc import convert
from swell.rpc.convert import Answer, Ask
from swell.rpc.messages import SERVICE, message
from swell.wire.http import COLD, COST_USD, JSON, REQUEST_ID, SERVER_TIMING, TIMEOUT
from swell.wire.inference import KEY_PATH

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By status; every other one is INTERNAL."""
_PASSED_ON = ("authorization", "traceparent", "tracestate")
"""Metadata that become headers."""
_TOLD = ("retry-after", *(name.lower() for name in (REQUEST_ID, SERVER_TIMING, COST_USD, COLD)))
"""Headers of an answer that become trailing metadata."""
KEY_KEPT_S = 5.0
"""A key that was seen is not asked about for so long, when all that its holder wants is to send a message…"""
KEYS_MAX = 1000
"""…and so many are remembered."""
IDLE_S = 0.5
"""A stream of which no message comes for so long keeps no end waiting, until the next one comes."""
WORDS_MAX = 2000
"""Characters of an error's message: all of a status together has to fit in a few KiB."""

Context = Any
"""grpc.aio.ServicerContext; grpcio has no types."""
T = TypeVar("T")
Messages = AsyncIterator[bytes]
Handler = Callable[[bytes, Context], Awaitable[bytes]]


class Refused(Exception):
    """The gateway refused, or what was sent makes no request."""

    def __init__(self, status: int, message: str, request: str = "") -> None:
        """`request`: the id of the one that was refused, where there was one."""
        super().__init__(message)
        self.code = _CODES.get(status, grpc.StatusCode.INTERNAL)
        self.request = request


class Door:
    """The service, in front of the gateway at `url`."""

    def __init__(self, url: str, message_max: int) -> None:
        self._url = url
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=256)
        self._client = httpx2.AsyncClient(timeout=None, limits=limits, trust_env=False)
        self._seen: dict[str, float] = {}
        """Until when a key is not asked about, by the metadata that it is in."""
        self._under_way: set[Context] = set()
        """Calls that were taken and are not answered yet, their answers sent; but streams of which no message comes."""
        self._closing = False
        self._done = asyncio.Event()
        """It closes, and nothing is left to wait for."""
        self._server: Any = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", message_max),
                ("grpc.max_send_message_length", -1),
            ]
        )
        methods: dict[str, Handler] = {
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
        }
        probes: dict[str, Handler] = {"ServerLive": self._server_live, "ServerReady": self._server_ready}
        # Without (de)serializers bytes come and go: what makes no message is answered by us, in words.
        handlers = {name: grpc.stream_unary_rpc_method_handler(self._keyed(each)) for name, each in methods.items()}
        handlers |= {name: grpc.unary_unary_rpc_method_handler(self._answering(each)) for name, each in probes.items()}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def open(self, host: str, port: int) -> None:
        """Listen, and serve from now on."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SwellError("bad_host", f"gRPC cannot listen on {address}: {error}.") from None
        await self._server.start()

    async def close(self, grace_s: float) -> None:
        """Take nothing new, and let what is under way finish for so long. Then the process has to end, as it is.

        A server of grpc's that is stopped tells calls that come just then that they were CANCELLED, which no client
        tries again. This one goes on refusing them, and breaks connections in the end: both are UNAVAILABLE.
        """
        self._closing = True
        self._look_done()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), grace_s)

    def cut(self) -> None:
        """Wait no longer for what is under way."""
        self._done.set()

    def _look_done(self) -> None:
        if self._closing and not self._under_way:
            self._done.set()

    async def _take(self, context: Context) -> None:
        """Count a call until its answer is sent, or refuse it."""
        if self._closing:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "The server is being stopped. Try again in a moment.")
        self._under_way.add(context)
        context.add_done_callback(self._not_waited_for)

    def _not_waited_for(self, context: Context) -> None:
        self._under_way.discard(context)
        self._look_done()

    def _answering(self, handler: Callable[[T, Context], Awaitable[bytes]]) -> Callable[[T, Context], Awaitable[bytes]]:
        """Errors become statuses."""

        async def answering(given: T, context: Context) -> bytes:
            await self._take(context)
            try:
                return await handler(given, context)
            except Refused as refused:
                await _abort(context, refused.code, str(refused))
            except SwellError as error:
                await _abort(context, _CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message)

        return answering

    # -- methods ------------------------------------------------------------------------------

    async def _server_live(self, _raw: bytes, context: Context) -> bytes:
        answer = await self._ask(Ask("GET", "/v2/health/live"), context)
        return _bytes(message("ServerLiveResponse")(live=answer.status == 200))

    async def _server_ready(self, _raw: bytes, context: Context) -> bytes:
        answer = await self._ask(Ask("GET", "/v2/health/ready"), context)
        return _bytes(message("ServerReadyResponse")(ready=answer.status == 200))

    async def _server_metadata(self, _raw: bytes, context: Context) -> bytes:
        return _bytes(convert.server_answer(await self._told("/v2", context)))

    async def _model_ready(self, raw: bytes, context: Context) -> bytes:
        asked = convert.parsed("ModelReadyRequest", raw)
        path = f"{convert.model_path(asked.name, asked.version)}/ready"
        answer = await self._ask(Ask("GET", path), context)
        if answer.status not in (200, 404, 503):
            raise _refused(answer)
        return _bytes(message("ModelReadyResponse")(ready=answer.status == 200))

    async def _model_metadata(self, raw: bytes, context: Context) -> bytes:
        asked = convert.parsed("ModelMetadataRequest", raw)
        return _bytes(convert.model_answer(await self._told(convert.model_path(asked.name, asked.version), context)))

    async def _index(self, raw: bytes, context: Context) -> bytes:
        convert.parsed("RepositoryIndexRequest", raw)
        ask = Ask("POST", "/v2/repository/index", (("Content-Type", JSON),))
        return _bytes(convert.index_answer(_well(await self._ask(ask, context))))

    async def _infer(self, raw: bytes, context: Context) -> bytes:
        return _bytes(await self._inferred(raw, context))

    async def _stream(self, requests: Messages, context: Context) -> AsyncIterator[bytes]:
        """One answer for each request, in order; one that was refused says so and ends nothing."""
        await self._take(context)
        try:
            await self._look_at_key(context)
        except Refused as refused:
            await _abort(context, refused.code, str(refused))
        while (raw := await self._next(requests, context)) is not None:
            made = message("ModelStreamInferResponse")()
            try:
                made.infer_response.CopyFrom(await self._inferred(raw, context))
            except (Refused, SwellError) as error:
                request = error.request
                made.error_message = f"{error} (request {request})" if request else str(error)
                made.infer_response.id = convert.id_of(raw)
            yield _bytes(made)

    async def _next(self, requests: Messages, context: Context) -> bytes | None:
        """The next message of a stream; None at its end. Whoever sends none for a while has no answer to lose."""
        idle = asyncio.get_running_loop().call_later(IDLE_S, self._not_waited_for, context)
        try:
            raw = await anext(requests, None)
        finally:
            idle.cancel()
        if not context.done():
            self._under_way.add(context)
        return raw

    async def _inferred(self, raw: bytes, context: Context) -> Any:
        return convert.infer_answer(_well(await self._ask(convert.infer_ask(raw), context)))

    # -- the gateway --------------------------------------------------------------------------

    def _keyed(self, handler: Handler) -> Callable[[Messages, Context], Awaitable[bytes]]:
        """With the one message of a caller whose key may send it."""

        async def answering(requests: Messages, context: Context) -> bytes:
            await self._look_at_key(context)
            async for raw in requests:
                return await handler(raw, context)
            raise Refused(400, "There is no message.")

        return self._answering(answering)

    async def _look_at_key(self, context: Context) -> None:
        """Nothing of a message is read before. Refused where its key opens nothing. What may be done with it is asked
        of each call anew: a key that was revoked meanwhile can have had a message read, and no more."""
        key = dict(context.invocation_metadata() or ()).get("authorization", "")
        now = time.monotonic()
        if self._seen.get(key, 0.0) > now:
            return
        _well(await self._ask(Ask("GET", KEY_PATH), context))
        if len(self._seen) >= KEYS_MAX:
            self._seen.clear()
        self._seen[key] = now + KEY_KEPT_S

    async def _told(self, path: str, context: Context) -> Answer:
        return _well(await self._ask(Ask("GET", path), context))

    async def _ask(self, ask: Ask, context: Context) -> Answer:
        """Ask the gateway. A caller who leaves cancels this, which closes the connection."""
        metadata = context.invocation_metadata() or ()
        headers = dict(ask.headers) | {name: value for name, value in metadata if name in _PASSED_ON}
        remaining_s = context.time_remaining()
        if remaining_s is not None:
            headers[TIMEOUT] = f"{max(remaining_s, 0.001):.3f}"
        try:
            answer = await self._client.request(
                ask.method, self._url + ask.path, headers=headers, content=ask.body or None
            )
        except httpx2.TransportError:
            raise Refused(503, "The gateway is not there. Try again in a moment.") from None
        told = {name: value for name, value in answer.headers.items() if name in _TOLD}
        context.set_trailing_metadata(tuple(told.items()))
        return Answer(answer.status_code, dict(answer.headers), answer.content)


async def _abort(context: Context, code: grpc.StatusCode, words: str) -> NoReturn:
    await context.abort(code, words[:WORDS_MAX])
    raise AssertionError  # It raises by itself.


def _well(answer: Answer) -> Answer:
    """An answer that is none of an error, whatever else its status says."""
    if not 200 <= answer.status < 300:
        raise _refused(answer)
    return answer


def _refused(answer: Answer) -> Refused:
    return Refused(answer.status, convert.error_of(answer), answer.headers.get(REQUEST_ID.lower(), ""))


def _bytes(made: Any) -> bytes:
    raw: bytes = made.SerializeToString()
    return raw
