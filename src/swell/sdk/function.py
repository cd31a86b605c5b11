"""How does a user call a function that runs elsewhere?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

from swell.model.errors import SwellError
from swell.model.unknown import unknown_app
from swell.sdk import inputs, protocol
from swell.sdk.binding import UNKNOWN, Binding, Deployed, Known, Named
from swell.sdk.bridge import operation, stream_operation
from swell.sdk.chosen import NOTHING, Chosen
from swell.sdk.marks import Given, WebMark
from swell.sdk.options import Optional
from swell.sdk.progress import Progress, total_of
from swell.sdk.queueing import IN_TURN, Queueing
from swell.sdk.signatures import public
from swell.sdk.unavailable import refuse, stand_in

if TYPE_CHECKING:
    from swell.sdk.call import FunctionCall


@dataclass(frozen=True)
class LocalCode:
    """What is known of a function whose code is here."""

    call: Callable[..., Any]
    """Runs it in this process."""
    raw: Callable[..., Any]
    """As the user wrote it."""
    web: WebMark | None
    known: Known


class Function(Optional):
    """A function, or one method of a class, that runs in replicas.

    `.remote(…)` calls it there and `.local(…)` here; each operation also has an `.aio` form for asyncio.
    Calls of one `map`, `starmap` or `for_each` that are not done are bounded (`mapping.QUEUED_MAX`).
    """

    def __init__(
        self,
        name: str,
        binding: Binding | Named,
        local: LocalCode | None = None,
        known: Known | None = None,
        chosen: Chosen = NOTHING,
        how: Queueing = IN_TURN,
    ) -> None:
        super().__init__(name, binding, chosen)
        self._how = how
        self._local = local
        self._known = known if local is None else local.known
        if local is not None:
            functools.update_wrapper(self, local.raw, updated=())
            self.__swell_raw__ = local.raw

    def __reduce__(self) -> tuple[Any, ...]:
        at = self._resolve()
        how = () if self._how == IN_TURN else (self._how,)
        return _found, (at.app, self.name, at.namespace, self._known, at.version, self._chosen, *how)

    def _with(self, chosen: Chosen) -> Self:
        return type(self)(self.name, self._binding, self._local, self._known, chosen, self._how)

    @public
    def with_queueing(
        self,
        *,
        priority: int | None = None,
        delay: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Self:
        """The same, whose calls are put into the queue so: of those that wait the higher `priority` goes first, none is
        begun before `delay` (seconds) has passed, one that was made with the same `idempotency_key` before is that
        call, and each try may take `timeout` (seconds), and no more than its function gives. What is not given is as
        with_queueing() said before. It has no replicas of its own."""
        given = Given("Function.with_queueing", {k: v for k, v in locals().items() if k != "self"})
        how = self._how.over(given)
        return type(self)(self.name, self._binding, self._local, self._known, self._chosen, how)

    # -- running ---------------------------------------------------------------------------------

    @property
    def is_job(self) -> bool:
        """Several replicas work on each call, as far as that is known here."""
        return self._known is not None and self._known.gang

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
        target = at.target(self.name) if self._chosen is NOTHING else await self._chosen.target(at, self.name)
        asked = self._asked(at, target, args, kwargs)
        if not known.gang:
            self._only_queued(".remote()")
            answer = await at.client.transport.send(asked, known.retrying)
            # What was found by its name may be a job all the same.
            if answer.ok or protocol.error_of(answer).code != "is_job":
                return protocol.result(answer, self.name)
        from swell.sdk.call import waited

        return await waited(at.client, asked, self.name, self._how)

    @operation
    async def spawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        """Have it worked on by itself: returns once that is sure, whatever is restarted or killed from then on. The
        result is had from the `FunctionCall`, for a week. Of an `Event` alone, given twice, it is the same call."""
        from swell.sdk.call import spawned

        await self._look_up(generator=False)
        at = self._resolve()
        target = await self._chosen.target(at, self.name)
        return await spawned(at.client, self._asked(at, target, args, kwargs), args, self._how)

    @stream_operation
    def remote_gen(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Run a generator in a replica; its items as they come. Closing it stops the work."""
        self._check(self._known, generator=True)
        self._only_queued(".remote_gen()")
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

        Results come while the next input is still awaited. Inputs are taken lazily, at most `mapping.QUEUED_MAX`
        ahead of what was consumed, and wait in the queue; a plain iterator is read on a thread of its own. `kwargs` are
        given to every call. The first exception ends it, unless `return_exceptions`; who leaves ends what is not done.
        """
        total = total_of(input_iterators)
        return self._mapped(inputs.zipped(*input_iterators), kwargs, order_outputs, return_exceptions, total)

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
        total = total_of((input_iterator,))
        return self._mapped(inputs.spread(input_iterator), kwargs, order_outputs, return_exceptions, total)

    @operation
    async def for_each(
        self,
        *input_iterators: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        """Like `map`, for the effect alone: returns when all are done."""
        taken, total = inputs.zipped(*input_iterators), total_of(input_iterators)
        async with aclosing(self._mapped(taken, kwargs, False, ignore_exceptions, total)) as done:
            async for _ in done:
                pass

    @operation
    async def spawn_map(
        self, *input_iterators: Iterable[Any] | AsyncIterable[Any], kwargs: Mapping[str, Any] = {}
    ) -> FunctionCall:
        """Have all items worked on by themselves, as `spawn` one: returns once all of them are sure. Their results are
        had from the `FunctionCall` by their numbers (`get(index=…)`) or in order (`iter()`), for a week."""
        from swell.sdk.call import spawned_map

        self._for_many()
        taken = inputs.zipped(*input_iterators)
        await self._look_up(generator=False)
        at = self._resolve()
        target = await self._chosen.target(at, self.name)
        return await spawned_map(at.client, taken, lambda args: self._asked(at, target, args, kwargs), self._how)

    @operation
    async def get_web_url(self) -> str | None:
        """The URL of its web endpoint; None when it is not one."""
        if self._local is not None and self._local.web is None:
            return None
        if self._chosen.optional:
            words = f"{self.name} has no URL of its own with other options: deploy another with these, with a label=."
            raise SwellError("not_available", words)
        at = self._deployed()
        if self.name in at.urls:
            return f"{at.urls[self.name]}{self._chosen.query}"
        rows = {(row.namespace, row.name): row for row in await at.client.apps.start()}
        if (at.namespace, at.app) not in rows:
            raise unknown_app(at.app, at.namespace, rows)
        workloads = {found.name: found for found in rows[at.namespace, at.app].workloads}
        workload = self.name.partition(".")[0]
        if workload not in workloads:
            there = ", ".join(sorted(workloads))
            words = f"App {at.app} has no function {self.name!r}, so it has no URL. There are: {there}."
            raise SwellError("unknown_function", words, status=404)
        url = workloads[workload].url
        return f"{url}{self._chosen.query}" if "/web/" in url else None

    def _deployed(self) -> Deployed:
        """Where it is, for who wants its URL."""
        try:
            return self._binding.resolve(self.name)
        except SwellError as error:
            if error.code != "not_running":
                raise
        raise SwellError(
            "not_running",
            f"{self.name} has no URL yet, since its app does not run: `swell serve` or `with app.run():` gives it one "
            "for a while, `swell deploy` or `app.deploy()` for good.",
        )

    @property
    def web_url(self) -> NoReturn:
        """What get_web_url() was called before."""
        refuse("Function.web_url is a method now: get_web_url().")

    # -- inside ----------------------------------------------------------------------------------

    async def _generated(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        await self._look_up(generator=True)
        at = self._resolve()
        target = await self._chosen.target(at, self.name)
        asked = self._asked(at, target, args, kwargs, stream=True)
        reader = functools.partial(protocol.frames, target=self.name)
        async with aclosing(at.client.transport.stream(asked, reader)) as items:
            async for item in items:
                yield item

    def _mapped(
        self, taken: inputs.Inputs, kwargs: Mapping[str, Any], ordered: bool, keep: bool, total: int | None
    ) -> AsyncGenerator[Any, None]:
        self._check(self._known, generator=False)
        self._for_many()
        return self._results(taken, kwargs, ordered, keep, total)

    async def _results(
        self, taken: inputs.Inputs, kwargs: Mapping[str, Any], ordered: bool, keep: bool, total: int | None
    ) -> AsyncGenerator[Any, None]:
        from swell.sdk import mapping
        from swell.sdk.group import Group

        known = await self._look_up(generator=False)
        at = self._resolve()
        target = await self._chosen.target(at, self.name)

        def asked(args: tuple[Any, ...]) -> protocol.Request:
            return self._asked(at, target, args, kwargs)

        def submit(request: protocol.Request) -> Future[protocol.Answer]:
            return at.client.transport.submit(request, known.retrying)

        def read(answer: protocol.Answer) -> Any:
            return protocol.result(answer, self.name)

        # The queue is of what takes the traffic, and answers that are kept are had from the gateway.
        group = None if at.version or known.cached else Group(at.client, how=self._how)
        if group is None:
            self._only_queued("a map of one version, or of what is @cached,")
        each = mapping.Map(taken, asked, submit, ordered, group, only_queued=self._how != IN_TURN)
        bar = Progress(self.name, total)
        try:
            async with aclosing(mapping.run(each, read, return_exceptions=keep)) as results:
                async for result in results:
                    bar.step()
                    yield result
        finally:
            bar.close()

    def _only_queued(self, way: str) -> None:
        """SwellError where `with_queueing()` said something of calls that do not wait in the queue."""
        if self._how != IN_TURN:
            words = f"{self.name}.with_queueing(…) is for calls that wait in the queue, and {way} does not put them "
            raise SwellError("bad_call", f"{words}there: use .spawn(…), and .get() on what it returns.")

    def _for_many(self) -> None:
        """SwellError where `with_queueing()` said what can be of one call alone."""
        if self._how.idempotency_key:
            words = f"{self.name}.with_queueing(idempotency_key=…) is for one call: use .spawn(…) for each."
            raise SwellError("bad_call", words)

    def _asked(
        self, at: Deployed, target: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], stream: bool = False
    ) -> protocol.Request:
        """A call. A server keeps a variant for as long as it is used: it may have forgotten one between two calls."""
        asked = protocol.call(target, args, kwargs, stream)
        if not self._chosen.optional:
            return asked

        async def anew() -> protocol.Request:
            found = await self._chosen.target(at, self.name, sure=True)
            return replace(asked, path=f"/call/{found}", plain=None, anew=None)

        return replace(asked, anew=anew)

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
        found = known or UNKNOWN
        retrying = self._chosen.options.retrying
        return found if retrying is None else found._replace(retrying=retrying)

    def _check(self, known: Known | None, generator: bool) -> None:
        if known is None or known.generator == generator:
            return
        if known.generator:
            raise SwellError("is_generator", f"{self.name} is a generator: use .remote_gen().")
        raise SwellError("not_generator", f"{self.name} is not a generator: use .remote().")


def _found(
    app: str,
    name: str,
    namespace: str,
    known: Known | None,
    version: int = 0,
    chosen: Chosen = NOTHING,
    how: Queueing = IN_TURN,
) -> Function:
    """A function that was sent as an argument or result, where it arrives."""
    return Function(name, Named(app, namespace, version), known=known, chosen=chosen, how=how)


def is_generator(function: Callable[..., Any]) -> bool:
    """Does calling it give a stream of items?"""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


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
        "shell": "It is `swell shell APP/FUNCTION` now.",
        "stats": "Figures are read with `swell ps`.",
        "submit": "Function.submit() is called Function.spawn() now.",
    },
)
