"""What happens to one call, from its body to its answer?

A synchronous function runs on a worker thread, arguments and result decoded and encoded there; an
asynchronous one is a task on the loop. A generator is streamed as it goes, but for how it ended: that is told
when its code is over. However a call ends, the slot is free before the answer's last byte leaves. One whose
deadline passed is answered once its code has stopped, with what that used and nothing more of what it said; code
that does not stop at once keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextvars import copy_context
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from swell.model.errors import SwellError
from swell.model.workload import Method
from swell.runtime import results
from swell.runtime.arguments import Arguments, Given
from swell.runtime.gang import follows
from swell.runtime.hooks import Refusal
from swell.runtime.http import Exchange
from swell.runtime.request import Request
from swell.runtime.results import Accepted, Answer, accepted
from swell.runtime.shared import ReplicaContext
from swell.runtime.steps import Steps
from swell.runtime.stream import Format, Pipe, each
from swell.runtime.telling import STOPPED_ITSELF, error_line, used_lines
from swell.runtime.tracebacks import sendable, user_traceback
from swell.runtime.worker import Job
from swell.wire.context import Input, InputCancellation, Reply, current
from swell.wire.http import JSON, TRAILERS, ErrorShape, error_body
from swell.wire.malformed import must_be_plain


class Callee:
    """One method of the program, prepared to be called."""

    error_body: ErrorShape = staticmethod(error_body)
    """How its callers are told of errors."""

    def __init__(self, method: Method, function: Callable[..., Any], arguments: Arguments) -> None:
        self.name = method.name
        self.function = function
        self.asynchronous = (
            method.asynchronous or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        )
        self.generator = method.generator
        """Whatever it returns is streamed; without, what is seen to be a generator is."""
        self.arguments = arguments

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        """The call that a request asks for. Raises SwellError."""
        request = exchange.request
        return Call(replica, exchange, self, accepted(request.header(b"accept"), request.trusted))

    def read(self, request: Request, body: bytes) -> Given:
        """The arguments of a call with this body. Raises SwellError."""
        must_be_plain(request.header(b"content-encoding"))
        return self.arguments.read(request.header(b"content-type"), body, request.trusted)

    def stream(self, result: Any) -> Iterator[Any] | None:
        """The items of a result that is to be streamed, else None. Raises _NoItems when it should have some."""
        if isinstance(result, GeneratorType):
            return result
        if self.generator and not isinstance(result, Iterable):
            raise _NoItems(self.name, result)
        return iter(result) if self.generator else None

    def stream_async(self, result: Any) -> AsyncIterator[Any] | None:
        """The same of what asynchronous code gave."""
        if isinstance(result, AsyncGeneratorType) or (self.generator and isinstance(result, AsyncIterable)):
            return aiter(result)
        items = self.stream(result) if self.generator else None
        return each(items) if items is not None else None


class Call:
    """One admitted call; the handler of its request and the work its slot counts."""

    def __init__(self, replica: ReplicaContext, exchange: Exchange, callee: Callee, wanted: Accepted) -> None:
        request = exchange.request
        self.request = request.id
        self.deadline = self._latest = request.deadline
        """The latest is as far as reports of progress move it."""
        self._patience_s = 0.0 if replica.patience_s and follows(request) else replica.patience_s
        if self._patience_s:
            self.deadline = min(self._latest, time.monotonic() + self._patience_s)
        self.alone = True
        self.on_loop = callee.asynchronous
        self._replica = replica
        self._exchange = exchange
        self._callee = callee
        self._wanted = wanted
        self._chunks: list[bytes] = []
        self._answer: Answer | None = None
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps: Steps | None = None
        self._pipe: Pipe | None = None
        self._streaming: Format | None = None
        self._ending = b""
        """The last part of a stream whose code came to an end by itself. Only `_over` sends it: a deadline that passes
        while the code is still being closed is the one ending then."""
        self._error = b""
        """The line that names the error it ended in."""
        self._begun = False
        self._in_user_code = False
        self.stopping = False
        self._late = False
        """Its deadline passed: nothing more of its code is sent."""
        self._cpu_ns = 0
        self._run_ns = 0

    # -- handler ------------------------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def complete(self) -> None:
        """Start the user's code."""
        replica = self._replica
        if self._callee.asynchronous:
            self._steps = Steps(self._asynchronous())
            context = replica.context_for(self._input())
            self._task = replica.loop.create_task(self._steps, context=context)
            self._task.add_done_callback(self._task_over)
        else:
            self._job = Job(self._synchronous, self._over)
            replica.workers.submit(self._job)

    def disconnected(self) -> None:
        self._replica.slots.stop(self)

    # -- work ---------------------------------------------------------------------------------

    def interrupt(self, attempt: int) -> None:
        """A waiting pump is woken and closes its generator itself; running code gets an exception."""
        self.stopping = True
        if self._task is None and self._job is None:
            self._replica.slots.end(self)  # Its body never came: there is nothing to stop.
            self._tell_late()
            return
        if attempt > 0:
            self._tell_late()
        if self._task is not None:
            self._task.cancel()
            return
        waits = False
        if self._pipe is not None:
            self._pipe.close()
            waits = not self._in_user_code
        if self._job is not None and (attempt > 0 or not waits):
            self._replica.workers.interrupt(self._job)

    def expire(self) -> None:
        self._late = True

    @property
    def requests(self) -> tuple[str, ...]:
        return (self.request,)

    def go_on(self, now: float) -> None:
        # What has passed stays so: its end may be under way.
        if self._patience_s and now < self.deadline:
            self.deadline = min(self._latest, max(self.deadline, now + self._patience_s))

    def _input(self) -> Input:
        """What its code may know of it."""
        return Input(self.request, self.deadline, self._exchange.request, work=self)

    def _past_deadline(self, where: str) -> str:
        """What its caller is told when its deadline passes."""
        if self.deadline >= self._latest:
            return self._exchange.request.past_deadline(where)
        limit = f"{self._patience_s:g} s (timeout= of the function, without swell.progress())"
        return f"The deadline of {limit} passed while {where}."

    def _tell_late(self, spent: bytes = b"") -> None:
        """Answer, if its deadline has passed, with what it used where that is known."""
        exchange = self._exchange
        if not self._late or exchange.closed:
            return
        message = self._past_deadline("it ran; it was told to stop")
        if self._streaming is None or not self._begun:
            exchange.refuse(504, "deadline", message, spent, shape=self._callee.error_body)
            return
        exchange.write(self._streaming.error(self._callee.error_body("deadline", message, self.request)))
        exchange.end(spent + error_line(504, "deadline"))

    def left(self, now: float) -> bool:
        return self.deadline <= now or self._exchange.left()

    # -- synchronous code, on a worker thread --------------------------------------------------

    def _synchronous(self) -> None:
        copy_context().run(self._invoke)

    def _invoke(self) -> None:
        current.set(self._input())
        given = self._given()
        if given is None:
            return
        args, kwargs = given
        began = time.perf_counter_ns()
        try:
            result = self._callee.function(*args, **kwargs)
            items = self._stream(result)
            if items is not None:
                self._pump(items)
                return
        except InputCancellation:
            raise
        except Refusal as error:
            self._refuse(error)
            return
        except BaseException as error:
            self._failed(error)
            return
        finally:
            self._run_ns = time.perf_counter_ns() - began
        self._take(result)

    def _pump(self, items: Iterator[Any]) -> None:
        """Send each item on its way; whatever happens, a generator is closed in this thread."""
        assert self._job is not None
        form = self._stream_begins()
        pipe = self._pipe = Pipe(self._replica.loop.call_soon_threadsafe, self._exchange, self._job.stop)
        if self.stopping:
            pipe.closed = True  # Code that caught its interruption made this stream; `interrupt` saw no pipe to close.
        self._replica.loop.call_soon_threadsafe(self._begin_stream)
        try:
            while True:
                self._in_user_code = True
                if pipe.closed:
                    self._job.stop()
                item = next(items, _END)
                self._in_user_code = False
                if item is _END:
                    break
                pipe.put(self._item(form, item))
            self._ending = form.end()
        except _Unencodable as error:
            self._break_off(form, "bad_result", error.body)
        except InputCancellation:
            raise
        except BaseException as error:
            self._break_off(form, "exception", self._exception(error))
        finally:
            self._in_user_code = False
            if isinstance(items, GeneratorType):
                items.close()

    # -- asynchronous code, on the loop --------------------------------------------------------

    async def _asynchronous(self) -> None:
        given = self._given()
        if given is None:
            return
        args, kwargs = given
        began = time.perf_counter_ns()
        try:
            result = self._callee.function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            items = self._stream_async(result)
            if items is not None:
                await self._pump_async(items)
                return
        except Refusal as error:
            self._refuse(error)
            return
        except BaseException as error:
            if not (self.stopping and isinstance(error, asyncio.CancelledError)):
                self._failed(error)
            return
        finally:
            self._run_ns = time.perf_counter_ns() - began
        self._take(result)

    async def _pump_async(self, items: AsyncIterator[Any]) -> None:
        form = self._stream_begins()
        exchange = self._exchange
        self._begin_stream()
        try:
            async for item in items:
                if self.stopping:
                    return  # It caught its cancellation and went on: nobody waits for its items.
                exchange.write(self._item(form, item))
                await exchange.drained()
            self._ending = form.end()
        except _Unencodable as error:
            self._break_off(form, "bad_result", error.body)
        except BaseException as error:
            if self.stopping and isinstance(error, asyncio.CancelledError):
                return
            self._break_off(form, "exception", self._exception(error))
        finally:
            if isinstance(items, AsyncGeneratorType):
                await items.aclose()

    def _task_over(self, _task: asyncio.Task[None]) -> None:
        assert self._steps is not None
        self._cpu_ns = self._steps.used_ns(self.alone)
        self._over()

    # -- both ---------------------------------------------------------------------------------

    def _given(self) -> Given | None:
        """The arguments, or None with the refusal as the answer."""
        chunks, self._chunks = self._chunks, []
        try:
            return self._read(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        except SwellError as error:
            self._refuse(error)
        except InputCancellation:
            raise
        except BaseException as error:
            self._failed(error)  # Raised by a class of the user's that it was to be made into.
        return None

    def _read(self, body: bytes) -> Given:
        """The arguments in its body. Raises SwellError."""
        return self._callee.read(self._exchange.request, body)

    def _stream(self, result: Any) -> Iterator[Any] | None:
        """The items of a result that is to be streamed, else None. Raises _NoItems when it should have some."""
        return self._callee.stream(result)

    def _stream_async(self, result: Any) -> AsyncIterator[Any] | None:
        """The same of what asynchronous code gave."""
        return self._callee.stream_async(result)

    def _format(self) -> Format:
        """How a stream is written."""
        return Format(self._wanted)

    def _encode(self, result: Any) -> Answer:
        """What the function returned as an answer. Raises SwellError where it cannot be one."""
        return results.value_answer(self._callee.name, result, self._wanted.kind, self._wanted.pickles)

    def _take(self, result: Any) -> None:
        """What the function returned is the answer, if it can be encoded."""
        try:
            self._answer = self._encode(result)
        except SwellError as error:
            self._refuse(error)
            return
        except Exception as error:
            self._failed(error)  # Raised by what the result is made of.
            return
        reply = self._exchange.request.reply
        if reply is not None:
            lines = b"".join([b"%b: %b\r\n" % line for line in reply.lines])
            status, content_type, body, head = self._answer
            self._answer = Answer(reply.status or status, content_type, body, head + lines)

    def _refuse(self, error: SwellError) -> None:
        self._error = error_line(error.status, error.code)
        shape = self._callee.error_body
        # Of a class of the user's, whose words they may be.
        problems = tuple((place, sendable(what)) for place, what in error.problems)
        body = shape(error.code, sendable(error.message), self.request, sendable(error.detail), problems=problems)
        self._answer = Answer(error.status, JSON.encode(), body)

    def _item(self, form: Format, item: Any) -> bytes:
        try:
            return form.item(item)
        except Exception as error:
            said = error.message if isinstance(error, SwellError) else ""
            said = said or results.bad_result(self._callee.name, item, error, form.kind)
            raise _Unencodable(self._callee.error_body("bad_result", said, self.request)) from None

    def _failed(self, error: BaseException, logged: bool = False) -> None:
        """User code raised. Where its stream has an ending already that was when it was closed: the log tells of it."""
        body = self._exception(error, logged)
        if not self._ending:
            self._error = error_line(500, "exception")
            self._answer = Answer(500, JSON.encode(), body)

    def _break_off(self, form: Format, code: str, body: bytes) -> None:
        """The stream's ending is this error."""
        self._ending = form.error(body)
        self._error = error_line(500, code)

    def _exception(self, error: BaseException, logged: bool = False) -> bytes:
        """User code raised: the traceback to the log, unless it is there, the type and text to the caller."""
        if not logged:
            sys.stderr.write(user_traceback(error))
        pickled = self._exchange.request.trusted and b"pickle" in self._exchange.request.header(b"accept")
        return results.exception_body(error, self.request, pickled, self._callee.error_body)

    def _stream_begins(self) -> Format:
        """From now on its head is as it is."""
        request = self._exchange.request
        request.reply = request.reply or Reply()
        request.reply.sent = True
        form = self._streaming = self._format()
        return form

    def _begin_stream(self) -> None:
        """Send the head, unless it was or is not wanted any more."""
        assert self._streaming is not None
        if not self._begun and not self._late:
            self._begun = True
            reply = self._exchange.request.reply
            assert reply is not None
            self._exchange.begin(reply.status or 200, [*self._streaming.headers, *reply.lines], TRAILERS)

    def _end_stream(self, spent: bytes) -> None:
        self._exchange.write(self._ending)
        self._exchange.end(spent)

    def _over(self) -> None:
        """Loop: the user's code is over."""
        if self._job is not None:
            self._cpu_ns = self._job.cpu_ns
        # They know this call: it and they would keep each other for the garbage collector.
        self._job = self._task = None
        self._replica.ended(self)
        exchange = self._exchange
        if exchange.closed:
            return
        used = used_lines(self._cpu_ns, self._run_ns)
        if self._late:
            self._tell_late(used)
            return
        if self._streaming is not None and not self._ending:
            stopped = self._callee.error_body("exception", STOPPED_ITSELF, self.request)
            self._break_off(self._streaming, "exception", stopped)
        spent = used + self._error
        if self._pipe is not None:
            # The loop may hear of a short stream's end, with that of other jobs, before it hears of its beginning.
            self._begin_stream()
            self._pipe.finish(lambda: self._end_stream(spent))
        elif self._streaming is not None:
            self._end_stream(spent)
        elif self._answer is not None:
            status, content_type, body, head = self._answer
            exchange.answer(status, content_type, body, head + spent)
        else:
            exchange.refuse(500, "exception", STOPPED_ITSELF, spent, shape=self._callee.error_body)


class _Unencodable(Exception):
    """An item of a stream that cannot be encoded."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


class _NoItems(Refusal):
    """A function declared as a generator returned what cannot be streamed."""

    def __init__(self, name: str, result: Any) -> None:
        message = (
            f"{name} has is_generator=True and returned a {type(result).__qualname__}, which cannot be iterated: "
            "return an iterator (an async def may return an asynchronous one), or leave is_generator out."
        )
        super().__init__("bad_result", message, status=500)


_END = object()
