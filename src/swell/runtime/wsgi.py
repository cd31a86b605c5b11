"""How is a WSGI application served? Each request on a worker thread, its body read as it comes, its answer sent so.

PEP 3333 as a whole: `start_response` with `exc_info`, `write`, `close`, and a `wsgi.input` that ends where the body
does. A body of up to `BODY_AHEAD_MAX` is waited for before a thread is taken; of a longer one no more is kept.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from time import perf_counter_ns
from types import TracebackType
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from swell.runtime.heads import Length, checked
from swell.runtime.http import ConnectionExchange
from swell.runtime.shared import ReplicaContext
from swell.runtime.stream import Pipe
from swell.runtime.telling import STOPPED_ITSELF, used_lines
from swell.runtime.tracebacks import summary, user_traceback
from swell.runtime.worker import Job
from swell.wire.context import Input, InputCancellation, current
from swell.wire.http import ROOT_PATH, TRAILERS, lower

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
App = Callable[[dict[str, Any], Callable[..., Callable[[bytes], None]]], Iterable[bytes]]

BODY_AHEAD_MAX = 256 * 1024
"""Bytes of a request's body that wait for the application before the connection is not read any more."""
READ_SIZE = 64 * 1024
"""Bytes of it that the application's reads take in one step."""
RETURN_WAIT_S = 0.001
"""An answer that is whole waits this long for the application to return, so that it can say what that used and its slot
is free by the time the caller has it."""

_ROOT_PATH = lower(ROOT_PATH)
_NOT_PASSED = frozenset({b"content-type", b"content-length", b"proxy"})
"""Headers with a variable of their own; and one whose variable would mean something else to HTTP clients."""


class WsgiApp:
    """One application of the program's."""

    def __init__(self, replica: ReplicaContext, app: App) -> None:
        self._replica = replica
        self._app = app

    def open(self, exchange: ConnectionExchange) -> WsgiCall:
        """Take one admitted request."""
        return WsgiCall(self._replica, exchange, self._app)


class Body(io.RawIOBase):
    """A request's body on its way from the loop to the application's thread. There `room` is called when there is some
    again after there was none, and `stop`, which raises InputCancellation, where the body was cut."""

    def __init__(self, room: Callable[[], None], stop: Callable[[], NoReturn]) -> None:
        self._room = room
        self._stop = stop
        self._pieces: deque[bytes] = deque()
        self._put = 0
        """Bytes that came; only the loop adds to it."""
        self._taken = 0
        """Bytes that were read; only the thread adds to it."""
        self._whole = False
        self._cut = False
        self._progress = threading.Lock()
        """Held = nothing happened since the thread last looked."""
        self._progress.acquire()

    @property
    def full(self) -> bool:
        return self._put - self._taken > BODY_AHEAD_MAX

    def feed(self, data: bytes) -> None:
        """Loop: more of it came."""
        self._pieces.append(data)
        self._put += len(data)
        self._signal()

    def end(self) -> None:
        """Loop: that was all."""
        self._whole = True
        self._signal()

    def cut(self) -> None:
        """Loop: nobody waits for what is made of it."""
        self._cut = True
        self._signal()

    def _signal(self) -> None:
        if self._progress.locked():
            self._progress.release()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Thread: what is there, or wait for it."""
        while not self._pieces:
            # Asked in this order: the end is told behind the last piece.
            if self._whole and not self._pieces:
                return 0
            if self._cut:
                self._stop()
            if not self._pieces:
                self._progress.acquire()
        piece = self._pieces.popleft()
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size < len(piece):
            self._pieces.appendleft(piece[size:])
        self._taken += size
        # As the loop may have seen it just now, with all that came until then.
        left = self._put - self._taken
        if left <= BODY_AHEAD_MAX < left + size:
            self._room()
        return size


class WsgiCall:
    """One request to an application."""

    def __init__(self, replica: ReplicaContext, exchange: ConnectionExchange, app: App) -> None:
        request = exchange.request
        self.request = request.id
        self.deadline = request.deadline
        self.alone = True
        self.on_loop = False
        self._replica = replica
        self._exchange = exchange
        self._app = app
        self._body = Body(lambda: self._post(exchange.resume_reading), self._stop_alone)
        self._pipe = Pipe(self._post, exchange, self._stop_alone)
        self._job: Job | None = None
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._length: Length | None = None
        """Of the answer's body, once there is a head."""
        self._only = False
        """It gives its answer in one piece."""
        self._whole: bytes | None = None
        """An answer that came in one piece, until it is sent."""
        self._begun = False
        """Thread: the head is, or is about to be, sent."""
        self._sent_head = False
        """Loop: it was."""
        self._waits = False
        self._failure = ""
        self._stopping = False
        self._late = False
        self._run_ns = 0

    # -- handler ------------------------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        self._body.feed(chunk)
        if self._body.full:
            self._exchange.pause_reading()
            self._start()

    def complete(self) -> None:
        self._body.end()
        self._start()

    def disconnected(self) -> None:
        self._replica.slots.stop(self)

    def _start(self) -> None:
        if self._job is None and not self._stopping:
            self._job = Job(self._synchronous, self._over)
            self._replica.workers.submit(self._job)

    # -- work ---------------------------------------------------------------------------------

    def interrupt(self, attempt: int) -> None:
        """One that waits for its body or for its reader is woken and stops itself; running code gets an exception."""
        self._stopping = True
        if self._job is None:
            self._replica.slots.end(self)  # Its body never came: there is nothing to stop.
            self._tell_late()
            return
        if attempt > 0:
            self._tell_late()
        waits = self._waits
        self._body.cut()
        self._pipe.close()
        if attempt > 0 or not waits:
            self._replica.workers.interrupt(self._job)

    def expire(self) -> None:
        """A part of an answer has no form of ours that could end in words."""
        if self._sent_head:
            self._exchange.abort()
        self._late = True

    def _tell_late(self, spent: bytes = b"") -> None:
        """Answer, if its deadline has passed, with what it used where that is known."""
        if self._late and not self._sent_head:
            message = self._exchange.request.past_deadline("it ran; it was told to stop")
            self._exchange.refuse(504, "deadline", message, spent)

    def left(self, now: float) -> bool:
        return self.deadline <= now or self._exchange.left()

    # -- the application, on its thread ---------------------------------------------------------

    def _stop_alone(self) -> NoReturn:
        assert self._job is not None
        self._job.stop()

    def _synchronous(self) -> None:
        copy_context().run(self._invoke)

    def _invoke(self) -> None:
        current.set(Input(self.request, self.deadline))
        began = perf_counter_ns()
        try:
            self._serve(self._app(self._environ(), self._start_response))
        except InputCancellation:
            if not self._stopping:
                self._failure = STOPPED_ITSELF
            raise
        except BaseException as error:
            sys.stderr.write(user_traceback(error))
            self._failure = summary(error)
        finally:
            self._run_ns = perf_counter_ns() - began

    def _serve(self, result: Iterable[bytes]) -> None:
        try:
            self._only = isinstance(result, (list, tuple)) and len(result) == 1
            for data in result:
                if data:
                    self._give(data)
            if self._length is None:
                raise RuntimeError("The WSGI app returned without calling start_response().")
            self._length.end()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._begun:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise RuntimeError("start_response() was called twice; a second call needs exc_info.")
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        head = checked(int(status[:3]), encoded)
        self._length = Length("WSGI", self._exchange.request.method, *head)
        self._head = head
        return self._give

    def _give(self, data: bytes) -> None:
        """Send a piece of the answer, or keep it if it is all of it."""
        length = self._length
        if length is None:
            raise RuntimeError("The WSGI app gave its body before it called start_response().")
        if not isinstance(data, bytes):
            raise TypeError(f"A WSGI app gives bytes, not {type(data).__name__}.")
        length.add(len(data))
        if not self._begun:
            whole = self._only or length.reached
            if whole:
                length.end()
            self._begun = True
            if whole:
                self._whole = data
                self._post(self._wait_for_return)
                return
            self._post(self._begin)
        self._waits = True
        self._pipe.put(data)
        self._waits = False

    def _environ(self) -> dict[str, Any]:
        request = self._exchange.request
        path, _, query = request.target.partition(b"?")
        host, _, port = request.header(b"host").decode("latin-1").rpartition(":")
        scheme = request.header(b"x-forwarded-proto").decode("latin-1") or "http"
        if not port.isdigit():
            host, port = f"{host}:{port}" if host else port, "443" if scheme == "https" else "80"
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": unquote_to_bytes(request.header(_ROOT_PATH)).decode("latin-1").rstrip("/"),
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query.decode("latin-1"),
            "SERVER_NAME": host or "localhost",
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_SWELL_REQUEST_ID": request.id,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BufferedReader(self._body, READ_SIZE),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self._replica.slots.limit > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        for name, variable in ((b"content-type", "CONTENT_TYPE"), (b"content-length", "CONTENT_LENGTH")):
            if value := request.header(name):
                environ[variable] = value.decode("latin-1")
        for name, value in request.headers:
            # With an underscore it would pass for another header.
            if name not in _NOT_PASSED and b"_" not in name:
                variable = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
                word = value.decode("latin-1")
                joint = "; " if name == b"cookie" else ","
                environ[variable] = f"{environ[variable]}{joint}{word}" if variable in environ else word
        return environ

    # -- its answer, on the loop ----------------------------------------------------------------

    def _post(self, what: Callable[[], None]) -> None:
        self._replica.loop.call_soon_threadsafe(what)

    def _wait_for_return(self) -> None:
        if self._whole is not None:
            self._replica.loop.call_later(RETURN_WAIT_S, self._send_whole)

    def _send_whole(self, spent: bytes = b"") -> None:
        """Send an answer that came in one piece, unless it was or is not wanted any more."""
        if self._whole is None or self._head is None or self._length is None or self._late:
            return
        body, self._whole = self._whole, None
        status, headers = self._head
        bodiless = self._exchange.request.method == "HEAD" or status in (204, 304)
        length = [] if self._length.announced >= 0 or bodiless else [(b"Content-Length", str(len(body)).encode())]
        used = [(name, value) for name, _, value in (line.partition(b": ") for line in spent.splitlines())]
        self._sent_head = True
        self._exchange.begin(status, [*headers, *length, *used])
        self._exchange.write(body)
        self._exchange.end()

    def _begin(self) -> None:
        """Send the head of an answer in pieces, unless it was or is not wanted any more."""
        if self._head is not None and not self._sent_head and not self._late:
            self._sent_head = True
            self._exchange.begin(*self._head, TRAILERS)

    def _over(self) -> None:
        """The application's code is over."""
        assert self._job is not None
        used = used_lines(self._job.cpu_ns, self._run_ns)
        self._job = None  # It knows this call: the two would keep each other for the garbage collector.
        self._replica.ended(self)
        exchange = self._exchange
        if exchange.closed:
            return
        if self._late:
            self._tell_late(used)
        elif self._failure or self._head is None:
            if self._sent_head or (self._begun and self._whole is None):
                exchange.break_off()
            else:
                exchange.refuse(500, "exception", self._failure or STOPPED_ITSELF, used)
        elif not self._begun or self._whole is not None:
            self._whole = self._whole or b""
            self._send_whole(used)
        else:
            # The loop may hear of a short answer's end, with that of other jobs, before it hears of its beginning.
            self._begin()
            self._pipe.finish(lambda: exchange.end(used))
