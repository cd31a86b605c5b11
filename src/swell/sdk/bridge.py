"""How does one coroutine serve plain callers and asyncio alike?

An operation is written once, as a coroutine (or async generator) that waits for nothing but `Pending`: the
result of I/O that a background loop does. A plain caller drives it by blocking on each; within asyncio
each is awaited. User code (pickling, iterators) runs in the caller's own thread either way.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from swell.model.errors import SwellError
from swell.sdk.frames import hidden
from swell.sdk.signatures import public
from swell.wire.context import waits

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
B = TypeVar("B")


class Pending(Generic[T]):
    """Wait for a future of another thread, whoever drives the operation."""

    def __init__(self, future: Future[T]) -> None:
        self.future = future

    def __await__(self) -> Generator[Future[T], T, T]:
        return (yield self.future)


def drive(operation: Awaitable[T]) -> T:
    """Run an operation in this thread, blocking for each `Pending`. An interrupt cancels what it waits for."""
    steps = operation.__await__()
    advance: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            waited = advance()
        except StopIteration as done:
            result: T = done.value
            return result
        if not isinstance(waited, Future):
            advance = functools.partial(steps.throw, _foreign())
            continue
        try:
            advance = functools.partial(steps.send, _result(waited))
        except BaseException as error:
            waited.cancel()
            advance = functools.partial(steps.throw, error)


def _result(waited: Future[T]) -> T:
    """Blocks for it, and lets whoever interrupts this thread end that."""
    thread = threading.get_ident()
    try:
        waits[thread] = waited.cancel
        return waited.result()
    finally:
        waits.pop(thread, None)


@types.coroutine
def adopt(operation: Awaitable[T]) -> Generator[Any, Any, T]:
    """Run an operation inside asyncio: each `Pending` is awaited, anything else goes to the event loop."""
    import asyncio

    steps = operation.__await__()
    advance: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            waited = advance()
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            if isinstance(waited, Future):
                value = yield from asyncio.wrap_future(waited)
            else:
                value = yield waited
        except BaseException as error:
            advance = functools.partial(steps.throw, error)
        else:
            advance = functools.partial(steps.send, value)


def iterate(stream: AsyncGenerator[T, None]) -> Iterator[T]:
    """A stream as a plain iterator; closed when its consumer stops."""
    try:
        while True:
            try:
                with hidden:
                    item = drive(anext(stream))
            except StopAsyncIteration:
                return
            yield item
    finally:
        drive(stream.aclose())


async def adopt_stream(stream: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """A stream inside asyncio; closed when its consumer stops."""
    try:
        while True:
            try:
                with hidden:
                    item = await adopt(anext(stream))
            except StopAsyncIteration:
                return
            yield item
    finally:
        await adopt(stream.aclose())


class Call(Generic[P, T]):
    """A bound operation: call it and block, or await its `.aio` form."""

    def __init__(self, start: Callable[P, Coroutine[Any, Any, T]]) -> None:
        self.start = start
        """The operation itself, for another one to await."""
        functools.update_wrapper(self, start)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with hidden:
            return drive(self.start(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, without blocking the event loop."""
        with hidden:
            return await adopt(self.start(*args, **kwargs))


class StreamCall(Generic[P, T]):
    """A bound operation that gives items: iterate over it, or over its `.aio` form with `async for`."""

    def __init__(self, start: Callable[P, AsyncGenerator[T, None]]) -> None:
        self.start = start
        """The operation itself, for another one to iterate over and close."""
        functools.update_wrapper(self, start)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        with hidden:
            return iterate(self.start(*args, **kwargs))

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """The same, without blocking the event loop."""
        with hidden:
            return adopt_stream(self.start(*args, **kwargs))


class Method(Generic[S, B]):
    """A method that becomes, bound to its object, a `Call` or a `StreamCall`."""

    def __init__(self, method: Callable[..., Any], bind: Callable[[Callable[..., Any]], Any]) -> None:
        self.method = self.__wrapped__ = public(method)
        self._bind = bind
        self.__doc__ = method.__doc__

    def __call__(self, instance: S, *args: Any, **kwargs: Any) -> Any:
        """As any method, it can be called by way of its class."""
        bound: Any = self.__get__(instance, type(instance))
        return bound(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[S]) -> Method[S, B]: ...
    @overload
    def __get__(self, instance: S, owner: type[S]) -> B: ...
    def __get__(self, instance: S | None, owner: type[S]) -> Method[S, B] | B:
        if instance is None:
            return self
        bound: B = self._bind(types.MethodType(self.method, instance))
        return bound


def operation(method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Method[S, Call[P, T]]:
    """Makes a method written as a coroutine one that has a plain and an `.aio` form."""
    return Method(method, Call)


def stream_operation(method: Callable[Concatenate[S, P], AsyncGenerator[T, None]]) -> Method[S, StreamCall[P, T]]:
    """Makes a method that gives an async generator one that has a plain and an `.aio` form."""
    return Method(method, StreamCall)


def _foreign() -> SwellError:
    return SwellError(
        "needs_asyncio", "An asynchronous iterator was passed to a plain call: use the .aio form inside asyncio."
    )
