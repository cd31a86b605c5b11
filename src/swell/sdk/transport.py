"""How do requests leave this process? One background event loop with one connection pool, for all callers.

The loop's thread starts with the first request, so `import swell` costs nothing, and a forked child starts its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2

from swell.model.errors import SwellError, brief
from swell.model.hosts import stays_here
from swell.model.key import PREFIX
from swell.model.retrying import Retrying
from swell.sdk import shadow
from swell.sdk.bridge import Pending, adopt
from swell.sdk.protocol import RETRIED, Answer, Request, error_of, failure, forgotten, naming, wait_s
from swell.sdk.retries import NEVER, delay_s
from swell.wire.http import REQUEST_ID, TIMEOUT
from swell.wire.paths import Home

T = TypeVar("T")

log = logging.getLogger("swell")

CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 512
ASK_AGAIN_S = 0.2
"""After what is followed broke off."""
REPEAT_S = 5.0
"""So long is waited for the answer to what is repeated, and so often it is sent while none came."""
TELL_EVERY_S = 10.0
"""That calls of one function wait for a limit is said so often at most."""


class Reader(Protocol):
    """Finds items in the bytes of a body."""

    def feed(self, data: bytes) -> Iterable[Any]: ...

    def close(self) -> None: ...


class _Background:
    """The process's one event loop, made when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop())

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="swell-requests", daemon=True).start()
            return self._loop


_background = _Background()


def _forked() -> None:
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_forked)


class Transport:
    """Requests to one server. Its methods may be used from any thread."""

    def __init__(self, url: str, key: str, home: str = "", supposed: bool = False) -> None:
        """The arguments are as those of `Client`."""
        self.url = url
        self._home = home
        self._supposed = supposed
        self._sure = False
        """The server has taken our key."""
        self._headers = {"accept-encoding": "identity", "user-agent": "swell"}
        self._scoped = key.startswith(PREFIX)
        """Our key is an API key, which may not be allowed to send pickles."""
        self._plain: set[str] = set()
        """Paths of which it is known that it is not."""
        self._told: dict[str, float] = {}
        """When it was last said of a path that its calls are kept out (monotonic)."""
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._pool: tuple[asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None

    def submit(self, request: Request, retrying: Retrying = NEVER, within_s: float | None = None) -> Future[Answer]:
        """Send; failures that `retrying` covers are sent again, and what was held for too long as often as it takes.
        Cancelling it closes the connection."""
        return _background.submit(self._within(within_s, self._tried(request, retrying)))

    async def send(self, request: Request, retrying: Retrying = NEVER, within_s: float | None = None) -> Answer:
        """The same, for an operation to await. SwellError no_answer when it takes longer than `within_s`."""
        answer: Answer = await Pending(self.submit(request, retrying, within_s))
        return answer

    async def stream(self, request: Request, reader: Callable[[Answer], Reader]) -> AsyncGenerator[Any, None]:
        """The items of a body, as they come. `reader` is given the head (with the body, if it is an error).

        Closing the stream closes the connection.
        """
        opened = await Pending(_background.submit(self._opened(request)))
        try:
            found = reader(opened.head)
            while data := await Pending(_background.submit(opened.chunk())):
                for item in found.feed(data):
                    yield item
            found.close()
        finally:
            _background.submit(opened.stack.aclose())

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Do an operation on the loop's thread, beside all else. Cancelling it ends it."""
        return _background.submit(_adopted(work))

    def soon(self, step: Callable[..., object], *args: object) -> None:
        """Take a step on the loop's thread, after those before it."""
        _background.loop().call_soon_threadsafe(step, *args)

    async def pause(self, seconds: float) -> None:
        """Wait, in an operation."""
        await Pending(_background.submit(asyncio.sleep(seconds)))

    def follow(
        self, asked: Callable[[], Request], reader: Callable[[Answer], Reader], heard: Callable[[Any], None]
    ) -> Future[None]:
        """Every item of a body goes to `heard`, on the loop's thread, until the future is cancelled. Where the server,
        or a part of it, is away for a while, it is `asked` for anew."""
        return _background.submit(self._followed(asked, reader, heard))

    def repeat(self, request: Request, again_s: Callable[[Answer], float]) -> Future[None]:
        """It is sent now and again, as long after its answer as that says, until it says 0 or the future is cancelled.
        Where the server, or a part of it, is away for a while, it is sent all the same."""
        return _background.submit(self._repeated(request, again_s))

    async def _repeated(self, request: Request, again_s: Callable[[Answer], float]) -> None:
        pause_s = REPEAT_S
        while pause_s:
            with suppress(SwellError):
                answer = await self._within(REPEAT_S, self._tried(request, NEVER))
                if answer.status < 500:
                    pause_s = again_s(answer)
            await asyncio.sleep(pause_s)

    async def _followed(
        self, asked: Callable[[], Request], reader: Callable[[Answer], Reader], heard: Callable[[Any], None]
    ) -> None:
        while True:
            try:
                await self._heard(asked(), reader, heard)
            except SwellError as error:
                # A server, or a part of it, that fails may be back in a moment; one that refuses stays with it.
                if error.status < 500:
                    log.warning("What it prints is shown no longer: %s", error.message)
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    async def _heard(self, request: Request, reader: Callable[[Answer], Reader], heard: Callable[[Any], None]) -> None:
        opened = await self._opened(request)
        async with opened.stack:
            found = reader(opened.head)
            while data := await opened.chunk():
                for item in found.feed(data):
                    heard(item)

    async def _within(self, within_s: float | None, work: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return await asyncio.wait_for(work, within_s)
        except TimeoutError:
            raise SwellError("no_answer", f"{self.url} did not answer within {within_s} s.", status=504) from None

    async def _tried(self, request: Request, retrying: Retrying) -> Answer:
        await self._make_sure(request)
        request = self._as_may_be(request)
        failed = 0
        while True:
            async with AsyncExitStack() as stack:
                with _explained(self.url, self._home):
                    response = await stack.enter_async_context(self._sent(request))
                    answer = self._answer(response, await response.aread())
            if await self._waits_on(request, answer):
                continue
            if (instead := await self._instead(request, answer)) is not None:
                request = instead
                continue
            if answer.ok or not retrying.max_retries or error_of(answer).code not in RETRIED:
                return naming(request, answer)
            if time.monotonic() >= request.until:
                return answer
            failed += 1
            delay = delay_s(retrying, failed)
            if delay is None:
                return answer
            log.warning("%s", again(request, answer, failed, retrying.max_retries, delay))
            await asyncio.sleep(delay)

    async def _opened(self, request: Request) -> _Opened:
        await self._make_sure(request)
        request = self._as_may_be(request)
        while True:
            async with AsyncExitStack() as stack:
                with _explained(self.url, self._home):
                    response = await stack.enter_async_context(self._sent(request))
                    body = b"" if response.is_success else await response.aread()
                answer = self._answer(response, body)
                instead = await self._instead(request, answer)
                if instead is None and not await self._waits_on(request, answer):
                    return _Opened(self.url, response, naming(request, answer), stack.pop_all())
            request = instead or request

    def _as_may_be(self, request: Request) -> Request:
        """Without pickles, where it is known that our key may not send them."""
        return request.plain() if request.plain is not None and _place(request) in self._plain else request

    async def _instead(self, request: Request, answer: Answer) -> Request | None:
        """What is sent in its place, where it was not begun: to a variant that was made anew, or without pickles, where
        our key may not send them."""
        if request.anew is not None and forgotten(answer):
            return await adopt(request.anew())
        if not self._scoped or request.plain is None or answer.status != 401 or error_of(answer).code != "no_key":
            return None
        self._plain.add(_place(request))
        return request.plain()

    async def _waits_on(self, request: Request, answer: Answer) -> bool:
        """Was it kept out, so that it has to be sent anew? True once it is time to."""
        pause_s = wait_s(answer)
        if pause_s is None or time.monotonic() + pause_s >= request.until:
            return False
        name, now = _place(request).rpartition("/")[2], time.monotonic()
        if answer.status == 503:
            waits = (
                "%s has waited for a replica as long as one request may, and waits on; max_containers= allows more "
                "of them"
            )
            log.warning(waits, name)
        elif now - self._told.get(_place(request), -math.inf) >= TELL_EVERY_S:
            # Of a fan-out there may be thousands.
            self._told[_place(request)] = now
            who = name if request.path.startswith("/call/") else "What is asked of the server"
            log.warning("%s waits for a limit: %s", who, error_of(answer).message)
        await asyncio.sleep(pause_s)
        return True

    async def _make_sure(self, request: Request) -> None:
        """Before the first call on a server that is only supposed to be ours: without a key it would run there."""
        if not self._supposed or self._sure or not request.path.startswith("/call/"):
            return
        # Another's server refuses our key, and `_answer` says so.
        answer = await self._tried(Request("GET", "/api/health"), NEVER)
        if not answer.ok:
            raise failure(answer)
        self._sure = True

    def _sent(self, request: Request) -> AbstractAsyncContextManager[httpx2.Response]:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool[0] is not loop:
            self._pool = (loop, self._connections())
        headers = dict(request.headers)
        if request.until < math.inf:
            headers[TIMEOUT.lower()] = f"{max(request.until - time.monotonic(), 0.001):.3f}"
        content = request.body if request.stream is None else request.stream()
        return self._pool[1].stream(request.method, self.url + request.path, headers=headers, content=content)

    def _answer(self, response: httpx2.Response, body: bytes) -> Answer:
        """What has come; refused where it is not of the server that was asked."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(response.status_code, headers, body)
        if REQUEST_ID.lower() not in headers:
            raise SwellError(
                "no_server",
                f"What answers at {self.url} is no Swell server (it said {answer.status}, "
                f"{answer.content_type or 'without a type'}). SWELL_URL, or SWELL_PORT, says where yours is.",
                status=503,
            )
        if self._supposed and not answer.ok and (code := error_of(answer).code) in ("no_key", "bad_key"):
            raise SwellError(
                code,
                f"No server runs on {self._home}; the one at {self.url} belongs to another state directory. "
                "Name that one (SWELL_HOME or --home), or start one here on another port: `swell up -d --port 0`.",
                status=answer.status,
            )
        return answer

    def _connections(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=self._headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=64, keepalive_expiry=5.0),
            trust_env=not stays_here(self.url),
        )


async def _adopted(work: Coroutine[Any, Any, T]) -> T:
    found: T = await adopt(work)
    return found


class _Opened:
    """An answer whose body is still coming."""

    def __init__(self, url: str, response: httpx2.Response, head: Answer, stack: AsyncExitStack) -> None:
        self.url = url
        self.head = head
        self.stack = stack
        self._chunks = response.aiter_raw()

    async def chunk(self) -> bytes:
        """The next bytes; empty at the end."""
        try:
            with _explained(self.url):
                return await anext(self._chunks, b"")
        except SwellError as error:
            error.request = self.head.headers[REQUEST_ID.lower()]
            raise


def _place(request: Request) -> str:
    """What is called, whatever its parameters: of those there may be any number."""
    return request.path.partition("?")[0]


def again(request: Request, answer: Answer, failed: int, retries_max: int, delay_s: float) -> str:
    """What is said of a call that failed and is sent again: a line without which its retries would go unseen."""
    error = error_of(answer)
    match error.code:
        case "exception":
            how = f"failed with {brief(error.message)}"
        case "deadline":
            how = "took longer than its timeout"
        case _:
            how = "lost its replica"
    when = f"in {delay_s:g} s" if delay_s else "now"
    return f"{request.path.rpartition('/')[2]} {how}; try {failed + 1} of {retries_max + 1} {when}"


def _nobody(url: str, home: str) -> str:
    """What is said where nobody listens."""
    there = Home(Path(home))
    pid = there.ending() if home and there.server_url() == url else None
    if pid is None:
        return (
            f"No Swell server at {url}. Start one with `swell up`, or use `swell run`, which starts one; "
            "or set SWELL_URL to where it is."
        )
    return (
        f"The Swell server at {url} (pid {pid}) is stopping: it finishes what it has begun, and takes nothing new. "
        "Once it has ended, start one with `swell up`."
    )


@contextmanager
def _explained(url: str, home: str = "") -> Iterator[None]:
    """What a connection can suffer, in words a user can act on."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        raise SwellError("no_server", _nobody(url, home), status=503) from None
    except ImportError:
        # Parts of the HTTP client are imported with the first request.
        shadowing = shadow.found()
        if shadowing is None:
            raise
        raise shadowing from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        why = str(error).rstrip(".")
        raise SwellError("bad_setting", f"{url!r} is not a URL to send requests to: {why}. Set SWELL_URL.") from None
    except httpx2.TransportError as error:
        raise SwellError(
            "connection_lost",
            f"The connection to {url} broke off before the answer was complete ({type(error).__name__}: {error}). "
            "The work may have been done. Is the server still there? `swell ps` shows it.",
            status=502,
        ) from None
