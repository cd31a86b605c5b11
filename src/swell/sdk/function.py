"""How does a user call a function that runs elsewhere?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

from swell.model.errors import SwellError
from swell.sdk import inputs, mapping, protocol
from swell.sdk.binding import UNKNOWN, Binding, Deployed, Known, Named
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.handle import Handle
from swell.sdk.marks import WebMark
from swell.sdk.unavailable import refuse, stand_in


@dataclass(frozen=True)
class LocalCode:
    """What is known of a function whose code is here."""

    call: Callable[..., Any]
    """Runs it in this process."""
    raw: Callable[..., Any]
    """As the user wrote it."""
    web: WebMark | None
    known: Known


class Function(Handle):
    """A function, or one method of a class, that runs in replicas.

    `.remote(…)` calls it there and `.local(…)` here; each operation also has an `.aio` form for asyncio.
    Calls of one `map`, `starmap` or `for_each` are bounded: `mapping.IN_FLIGHT_MAX` at a time.
    """

    def __init__(
        self, name: str, binding: Binding | Named, local: LocalCode | None = None, known: Known | None = None
    ) -> None:
        super().__init__(name, binding)
        self._local = local
        self._known = known if local is None else local.known
        if local is not None:
            functools.update_wrapper(self, local.raw, updated=())
            self.__swell_raw__ = local.raw

    def __reduce__(self) -> tuple[Any, ...]:
        at = self._resolve()
        return _found, (at.app, self.name, at.namespace, self._known, at.version)

    # -- running ---------------------------------------------------------------------------------

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in this process, as a plain function."""
        if self._local is None:
            raise SwellError("no_source", f"{self.name} was found by its name: its code is not here. Use .remote().")
        return self._local.call(*args, **kwargs)

    __call__ = local

    @operation
    async def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in a replica and return its result, or raise what it raised."""
        known = await self._look_up(generator=False)
        at = self._resolve()
        answer = await at.client.transport.send(protocol.call(at.target(self.name), args, kwargs), known.retrying)
        return protocol.result(answer, self.name)

    @stream_operation
    def remote_gen(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Run a generator in a replica; its items as they come. Closing it stops the work."""
        self._check(self._known, generator=True)
        return self._generated(args, kwargs)

    @stream_operation
    def map(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """The results for each item (or for items taken from several iterators side by side), as a stream.

        Results come while the next input is still awaited. Inputs are taken lazily, at most `mapping.AHEAD_MAX`
        ahead of what was consumed; a plain iterator is read on a thread of its own. `kwargs` are given to every call.
        The first exception ends it, unless `return_exceptions`.
        """
        return self._mapped(inputs.zipped(*input_iterators), kwargs, order_outputs, return_exceptions)

    @stream_operation
    def starmap(
        self,
        input_iterator: Iterable[Any] | AsyncIterable[Any],
        *,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Like `map`, with each item spread as the arguments of a call."""
        return self._mapped(inputs.spread(input_iterator), kwargs, order_outputs, return_exceptions)

    @operation
    async def for_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        """Like `map`, for the effect alone: returns when all are done."""
        async with aclosing(self._mapped(inputs.zipped(*input_iterators), kwargs, False, ignore_exceptions)) as done:
            async for _ in done:
                pass

    @operation
    async def get_web_url(self) -> str | None:
        """The URL of its web endpoint; None when it is not one."""
        if self._local is not None and self._local.web is None:
            return None
        at = self._binding.resolve(self.name)
        if self.name in at.urls:
            return at.urls[self.name]
        workload = self.name.partition(".")[0]
        for row in await at.client.apps.start():
            for found in row.workloads:
                if (row.namespace, row.name, found.name) == (at.namespace, at.app, workload):
                    return found.url if "/web/" in found.url else None
        raise SwellError("unknown_function", f"There is no {self.name!r} in a deployed app {at.app!r}.", status=404)

    @property
    def web_url(self) -> NoReturn:
        """What get_web_url() was called before."""
        refuse("Function.web_url is a method now: get_web_url().")

    # -- inside ----------------------------------------------------------------------------------

    async def _generated(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        await self._look_up(generator=True)
        at = self._resolve()
        async with aclosing(at.client.call_gen.start(at.target(self.name), args, kwargs)) as items:
            async for item in items:
                yield item

    def _mapped(
        self, taken: inputs.Inputs, kwargs: Mapping[str, Any], ordered: bool, keep: bool
    ) -> AsyncGenerator[Any, None]:
        self._check(self._known, generator=False)
        return self._results(taken, kwargs, ordered, keep)

    async def _results(
        self, taken: inputs.Inputs, kwargs: Mapping[str, Any], ordered: bool, keep: bool
    ) -> AsyncGenerator[Any, None]:
        known = await self._look_up(generator=False)
        at = self._resolve()
        target = at.target(self.name)

        def submit(args: tuple[Any, ...]) -> Future[protocol.Answer]:
            return at.client.transport.submit(protocol.call(target, args, kwargs), known.retrying)

        def read(answer: protocol.Answer) -> Any:
            return protocol.result(answer, self.name)

        async with aclosing(mapping.run(taken, submit, read, ordered=ordered, return_exceptions=keep)) as results:
            async for result in results:
                yield result

    def _resolve(self) -> Deployed:
        if self._local is not None and self._local.web is not None:
            raise SwellError("is_web", f"{self.name} is a web endpoint: send HTTP requests to its get_web_url().")
        return self._binding.resolve(self.name)

    async def _look_up(self, generator: bool) -> Known:
        """What is known of it; SwellError when it is not of the wanted kind."""
        known = self._known
        if known is None and isinstance(self._binding, Named):
            known = await self._binding.known(self.name)
        self._check(known, generator)
        return known or UNKNOWN

    def _check(self, known: Known | None, generator: bool) -> None:
        if known is None or known.generator == generator:
            return
        if known.generator:
            raise SwellError("is_generator", f"{self.name} is a generator: use .remote_gen().")
        raise SwellError("not_generator", f"{self.name} is not a generator: use .remote().")


def _found(app: str, name: str, namespace: str, known: Known | None, version: int = 0) -> Function:
    """A function that was sent as an argument or result, where it arrives."""
    return Function(name, Named(app, namespace, version), known=known)


def is_generator(function: Callable[..., Any]) -> bool:
    """Does calling it give a stream of items?"""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


_QUEUE = "it needs the durable queue; use .remote(), or .remote.aio() in a task of your own"
stand_in(
    Function,
    {
        "call": "Function.call() is called Function.remote() now.",
        "from_id": "Functions have no lasting id: use Function.from_name(app, name).",
        "generator": "It is Function.remote_gen() now.",
        "get_current_stats": "Figures are read with `swell ps`.",
        "info": "A function's state is read with `swell app list`.",
        "keep_warm": "Use min_containers= of @app.function().",
        "lookup": "Function.lookup() is called Function.from_name() now.",
        "shell": "Interactive sessions in a replica are not available.",
        "spawn": f"Function.spawn() is not available yet: {_QUEUE}.",
        "spawn_map": f"Function.spawn_map() is not available yet: {_QUEUE}, or .for_each().",
        "stats": "Figures are read with `swell ps`.",
        "submit": "Function.submit() is called Function.spawn() now, which is not available yet: use .remote().",
        "with_batching": "Function.with_batching() is not available yet: put @swell.batched(…) on the function.",
        "with_concurrency": "Function.with_concurrency() is not available yet: use @concurrent.",
        "with_options": "Function.with_options() is not available yet: give the options to @app.function().",
    },
)
