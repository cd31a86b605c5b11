"""How are the inputs of `map` and its kin read without blocking? One at a time, each only when it is asked for.

A plain iterator is read on a thread of its own and an asynchronous one in a task of its own, so that results are
given out while the next input is still to come.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import asyncio

END: Final = object()
"""What is taken when there are no more."""

Source = Iterable[Any] | AsyncIterable[Any]


class Inputs(Protocol):
    """Operations; each input is taken by one `take` after the other."""

    async def take(self) -> Future[Any]:
        """The next one, once it has come; END after the last. What reading it raised is the future's exception."""
        ...

    async def close(self) -> None:
        """No more are wanted. What is being read can be left where it is."""
        ...


def zipped(*sources: Source) -> Inputs:
    """Tuples of one item from each, until the shortest ends."""
    if any(isinstance(source, AsyncIterable) for source in sources):
        return InTask(_zipped(sources))
    return InThread(zip(*sources))  # noqa: B905 (the shortest ends it)


def spread(source: Source) -> Inputs:
    """Each item as the arguments of one call."""
    return InTask(_spread(source)) if isinstance(source, AsyncIterable) else InThread(map(tuple, source))


class InThread:
    """Inputs of a plain iterator."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator: Iterator[Any] | None = iterator
        self._asked: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._taking: Future[Any] | None = None

    async def take(self) -> Future[Any]:
        if self._thread is None:
            iterator, self._iterator = self._iterator, None
            # What blocks for ever in the user's code must not keep the process from ending.
            work = (_feed, [iterator], self._asked)
            self._thread = threading.Thread(target=copy_context().run, args=work, name="swell-inputs", daemon=True)
            self._thread.start()
        self._taking = Future()
        self._asked.put(self._taking)
        return self._taking

    async def close(self) -> None:
        self._iterator = None
        self._asked.put(None)
        # A generator is closed on return, unless it is busy: nothing can wake it then.
        if self._thread is not None and self._taking is not None and self._taking.done():
            self._thread.join()


def _feed(held: list[Iterator[Any]], asked: SimpleQueue[Future[Any] | None]) -> None:
    """`held`: the iterator, of which nobody else keeps a reference: what has none is closed."""
    iterator = held.pop()
    while (future := asked.get()) is not None:
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(next(iterator, END))
        except BaseException as error:
            future.set_exception(error)
        del future


class InTask:
    """Inputs of an asynchronous generator. Only within asyncio."""

    def __init__(self, stream: AsyncGenerator[Any, None]) -> None:
        self._stream = stream
        self._asked: asyncio.Queue[Future[Any]]
        self._task: asyncio.Task[None] | None = None

    async def take(self) -> Future[Any]:
        import asyncio

        if self._task is None:
            # Who drives us as a plain caller refuses this, also where a loop runs in the same thread.
            await asyncio.sleep(0)
            self._asked = asyncio.Queue()
            self._task = asyncio.create_task(self._feed())
        future: Future[Any] = Future()
        self._asked.put_nowait(future)
        return future

    async def _feed(self) -> None:
        async with aclosing(self._stream) as stream:
            while True:
                future = await self._asked.get()
                try:
                    future.set_result(await anext(stream, END))
                except BaseException as error:
                    future.set_exception(error)
                    return

    async def close(self) -> None:
        import asyncio

        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def _zipped(sources: Iterable[Source]) -> AsyncGenerator[tuple[Any, ...], None]:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(_each(source))) for source in sources]
        while True:
            try:
                items = [await anext(stream) for stream in streams]
            except StopAsyncIteration:
                return
            yield tuple(items)


async def _spread(source: AsyncIterable[Any]) -> AsyncGenerator[tuple[Any, ...], None]:
    async with aclosing(_each(source)) as items:
        async for item in items:
            yield tuple(item)


async def _each(source: Source) -> AsyncGenerator[Any, None]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
        return
    import asyncio

    inputs = InThread(iter(source))
    try:
        while (item := await asyncio.wrap_future(await inputs.take())) is not END:
            yield item
    finally:
        await inputs.close()
