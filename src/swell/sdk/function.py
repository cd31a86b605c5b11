"""How does a user call a function that runs elsewhere?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from swell.model.errors import SwellError
from swell.model.workload import Retrying
from swell.sdk import arguments, mapping, protocol
from swell.sdk.binding import Binding, Deployed, Named
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.later import refusing
from swell.sdk.marks import Given, WebMark
from swell.sdk.retries import NEVER


@dataclass(frozen=True)
class Local:
    """What is known of a function whose code is here."""

    call: Callable[..., Any]
    """Runs it in this process."""
    raw: Callable[..., Any]
    """As the user wrote it."""
    generator: bool
    web: WebMark | None
    retrying: Retrying


class Function:
    """A function, or one method of a class, that runs in replicas.

    `.remote(…)` calls it there and `.local(…)` here; each operation also has an `.aio` form for asyncio.
    Calls of one `map`, `starmap` or `for_each` are bounded: `mapping.IN_FLIGHT_MAX` at a time.
    """

    def __init__(self, name: str, binding: Binding | Named, local: Local | None = None) -> None:
        self.name = name
        """ "function" or "Class.method"."""
        self._binding = binding
        self._local = local
        if local is not None:
            functools.update_wrapper(self, local.raw, updated=())
            self.__swell_raw__ = local.raw

    def __repr__(self) -> str:
        return f"<swell.Function {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        at = self._resolve()
        return functools.partial(Function.from_name, environment_name=at.namespace), (at.app, self.name)

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: None = None,
    ) -> Function:
        """A function (or "Class.method") of a deployed app. It is looked up when it is called.

        Its `retries=` are not known here: a failed call raises at once.
        """
        arguments.refuse(Given("Function.from_name", locals().copy()))
        return cls(name, Named(app_name, environment_name))

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
        self._must_generate(False)
        return protocol.result(await self._send(args, kwargs), self.name)

    @stream_operation
    def remote_gen(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Run a generator in a replica; its items as they come. Closing it stops the work."""
        self._must_generate(True)
        at = self._resolve()
        return at.client.call_gen.start(at.target(self.name), args, kwargs)

    @stream_operation
    def map(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """The results for each item (or for items taken from several iterators side by side), as a stream.

        Inputs are taken lazily, in the caller's thread, at most `mapping.AHEAD_MAX` ahead of what was
        consumed. `kwargs` are given to every call. The first exception ends it, unless `return_exceptions`.
        """
        return self._mapped(mapping.zipped(*input_iterators), kwargs, order_outputs, return_exceptions)

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
        return self._mapped(mapping.spread(input_iterator), kwargs, order_outputs, return_exceptions)

    @operation
    async def for_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        """Like `map`, for the effect alone: returns when all are done."""
        async with aclosing(self._mapped(mapping.zipped(*input_iterators), kwargs, False, ignore_exceptions)) as done:
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

    # -- inside ----------------------------------------------------------------------------------

    async def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> protocol.Answer:
        at = self._resolve()
        return await at.client.transport.send(protocol.call(at.target(self.name), args, kwargs), self._retrying)

    def _mapped(
        self, inputs: AsyncGenerator[tuple[Any, ...], None], kwargs: Mapping[str, Any], ordered: bool, keep: bool
    ) -> AsyncGenerator[Any, None]:
        self._must_generate(False)
        at = self._resolve()
        target = at.target(self.name)

        def submit(args: tuple[Any, ...]) -> Future[protocol.Answer]:
            return at.client.transport.submit(protocol.call(target, args, kwargs), self._retrying)

        def read(answer: protocol.Answer) -> Any:
            return protocol.result(answer, self.name)

        return mapping.run(inputs, submit, read, ordered=ordered, return_exceptions=keep)

    @property
    def _retrying(self) -> Retrying:
        return NEVER if self._local is None else self._local.retrying

    def _resolve(self) -> Deployed:
        if self._local is not None and self._local.web is not None:
            raise SwellError("is_web", f"{self.name} is a web endpoint: send HTTP requests to its get_web_url().")
        return self._binding.resolve(self.name)

    def _must_generate(self, wanted: bool) -> None:
        if self._local is None or self._local.generator == wanted:
            return
        told = ("not a generator: use .remote()", "a generator: use .remote_gen()")[self._local.generator]
        raise SwellError("is_generator" if self._local.generator else "not_generator", f"{self.name} is {told}.")


def is_generator(function: Callable[..., Any]) -> bool:
    """Does calling it give a stream of items?"""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


_QUEUE = "it needs the durable queue; use .remote(), or .remote.aio() in a task of your own"
_LATER = {
    "spawn": f"Function.spawn() is not available yet: {_QUEUE}.",
    "spawn_map": f"Function.spawn_map() is not available yet: {_QUEUE}, or .for_each().",
    "with_options": "Function.with_options() is not available yet: give the options to @app.function().",
    "with_concurrency": "Function.with_concurrency() is not available yet: use @concurrent.",
    "with_batching": "Dynamic batching is not available yet.",
    "update_autoscaler": "Function.update_autoscaler() is not available yet: deploy with other options.",
    "get_current_stats": "Figures are read with `swell ps`.",
    "stats": "Figures are read with `swell ps`.",
    "info": "A function's state is read with `swell app list`.",
    "from_id": "Functions have no lasting id: use Function.from_name(app, name).",
    "keep_warm": "Use min_containers= of @app.function().",
}
for _name, _why in _LATER.items():
    setattr(Function, _name, refusing(f"Function.{_name}", _why))
