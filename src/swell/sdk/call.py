"""What became of a call that was sent to be worked on later? `Function.spawn()` gives it, `get()` waits for it."""

from __future__ import annotations

import asyncio
import math
import operator
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from swell.model.errors import SwellError
from swell.model.unknown import unknown_call
from swell.sdk import binding, inputs, mapping, protocol
from swell.sdk.bridge import Call, Pending, operation, stream_operation
from swell.sdk.group import CLOSE_S, Group
from swell.sdk.marks import Given
from swell.sdk.queueing import IN_TURN, Queueing
from swell.sdk.refusal import refuse
from swell.sdk.shared import LOST, ask, asked, request_id
from swell.sdk.signatures import public
from swell.sdk.spawning import Accepted, Spawning
from swell.sdk.unavailable import stand_in
from swell.sdk.waiting import LATE_S, Waiting
from swell.wire import context
from swell.wire.call_rows import CallRow
from swell.wire.calls import GROUP_BODY_MAX, GROUP_INPUTS_MAX, INPUT_MAX
from swell.wire.event import Event, digest

if TYPE_CHECKING:
    from swell.sdk.client import Client

T = TypeVar("T")

AWAY = (*LOST, "no_answer", "no_server")
"""Errors that tell nothing of the call."""
_IDS = ("fc-", "fg-")
"""Of one, and of the calls of a `spawn_map`."""


class FunctionCall:
    """One call that is worked on by itself. `.get()` waits for its result, from any program that knows its `object_id`.

    Each operation also has an `.aio` form for asyncio.
    """

    def __init__(self, object_id: str, client: Client | None = None, inputs: int = 0) -> None:
        """Made by `Function.spawn()`, `Function.spawn_map()` and `FunctionCall.from_id()`."""
        self._id = object_id
        self._client = client
        self._inputs = inputs
        """Of a `spawn_map`; 0: not known."""

    def __repr__(self) -> str:
        return f"swell.FunctionCall.from_id({self._id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionCall) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall, (self._id,)

    @property
    def object_id(self) -> str:
        """By which any program finds it again (`FunctionCall.from_id`), as `swell calls show` does."""
        return self._id

    @staticmethod
    @public
    def from_id(function_call_id: str, client: None = None) -> FunctionCall:
        """The call whose `object_id` that is."""
        refuse(Given("FunctionCall.from_id", locals().copy()))
        if not isinstance(function_call_id, str) or not function_call_id.startswith(_IDS):
            words = f"FunctionCall.from_id: {function_call_id!r} is no id of a call: that is what .object_id gives."
            raise SwellError("bad_argument", words)
        return FunctionCall(function_call_id)

    @operation
    async def get(self, timeout: float | None = None, *, index: int = 0) -> Any:
        """Its result, or what it raised, as from `.remote()`; of those of a `spawn_map` the one of the input with that
        number. Without a `timeout` (seconds) it waits as long as it takes; TimeoutError after that, and the call goes
        on. `timeout=0` only looks."""
        if timeout is not None and not timeout >= 0:
            words = f"FunctionCall.get(timeout={timeout!r}): give seconds, from zero on."
            raise SwellError("bad_argument", words)
        timeout_s, number = math.inf if timeout is None else timeout, operator.index(index)
        if number < 0 or (number and not self._is_many):
            raise self._no_input(number)
        ends = time.monotonic() + timeout_s
        call = await self._member(number, timeout_s, ends) if self._is_many else self
        return protocol.result(await call._answered(timeout_s, ends), call._id)

    @stream_operation
    def iter(self, *, start: int = 0, end: int | None = None) -> AsyncGenerator[Any, None]:
        """The results for its inputs from `start` up to before `end`, in their order, as they come. The first that
        failed ends it with what it raised: `get(index=…)` has the others."""
        return self._results(start, end)

    @operation
    async def num_inputs(self) -> int:
        """How many inputs it has: 1, or those of a `spawn_map`."""
        return await self._count() if self._is_many else 1

    @operation
    async def cancel(self, terminate_containers: bool = False) -> None:
        """It is not begun any more or, where it runs, stopped; what it had done by then is done. Where it has ended
        nothing changes."""
        refuse(Given("FunctionCall.cancel", {"terminate_containers": terminate_containers}))
        if self._is_many:
            await Group(self._reached(), self._id).cancel()
            return
        await ask(self._reached(), self._asked("DELETE", ""), CallRow)

    # ------------------------------------------------------------------------------------------

    @property
    def _is_many(self) -> bool:
        return self._id.startswith(_IDS[1])

    async def _count(self) -> int:
        if not self._inputs:
            self._inputs = (await Group(self._reached(), self._id).row()).calls
        return self._inputs

    async def _results(self, start: int, end: int | None) -> AsyncGenerator[Any, None]:
        if not self._is_many:
            if start == 0 and (end is None or end > 0):
                yield protocol.result(await self._answered(), self._id)
            return
        async with aclosing(self._answers(start, end)) as answers:
            async for answer in answers:
                yield protocol.result(answer, self._id)

    async def _answers(self, start: int, end: int | None) -> AsyncGenerator[protocol.Answer, None]:
        """Those to the inputs with these numbers, in order."""
        count = await self._count()
        end = count if end is None else min(end, count)
        group = Group(self._reached(), self._id)
        outcomes, gone = mapping.Outcomes(group), False
        for index in range(max(start, 0), end):
            while index not in outcomes:
                page = await Pending(group.ends(end - index))
                for each in page.ends:
                    if index <= each.index < end and each.index not in outcomes:
                        outcomes.put_end(each)
                if index in outcomes:
                    break
                # What ended between two looks is told by the next page.
                if page.open == 0 and gone:
                    words = f"Input {index} of {self._id} is not kept any more."
                    raise SwellError("unknown_call", words, status=404)
                gone = page.open == 0
            yield await outcomes.pop(index)

    async def _member(self, index: int, timeout_s: float, ends: float) -> FunctionCall:
        """The call for its input of that number. SwellError no_answer where it cannot be asked by then (monotonic)."""
        request = protocol.Request("GET", f"/calls/groups/{self._id}/inputs/{index}")
        client = self._reached()
        answer = await self._in_time(asked(client, lambda: (request, LATE_S), ends), timeout_s, ends)
        if answer.ok:
            return FunctionCall(msgspec.json.decode(answer.body, type=CallRow).id, client)
        if answer.status == 404 and index >= await self._count():
            raise self._no_input(index)
        raise protocol.failure(answer)

    def _no_input(self, index: int) -> SwellError:
        words = f"FunctionCall.get(index={index}): {self._id} has no input with that number. num_inputs() tells."
        return SwellError("bad_argument", words)

    async def _answered(self, timeout_s: float = math.inf, ends: float = math.inf) -> protocol.Answer:
        """As the call itself would have been answered. SwellError no_answer where it has not ended by then (monotonic),
        after so long a time."""
        answer: protocol.Answer | None = await self._in_time(Pending(self._begun(ends)), timeout_s, ends)
        if answer is None:
            words = f"{self._id} has not ended within {timeout_s:g} s: `swell calls show {self._id}` tells more."
            raise SwellError("no_answer", words, status=504)
        return answer

    def _begun(self, until: float = math.inf) -> Future[protocol.Answer | None]:
        """Wait for it: what it would have been answered itself; None where it has not ended by then (monotonic)."""
        if not self._id.isascii():
            raise unknown_call(self._id)
        return Waiting.of(self._reached()).ended(self._id, until)

    async def _in_time(self, asking: Awaitable[T], timeout_s: float, ends: float) -> T:
        """What the server says. SwellError no_answer where it does not by then."""
        try:
            return await asking
        except SwellError as error:
            if error.code not in AWAY or time.monotonic() < ends or (not timeout_s and error.code == "no_server"):
                raise
            words = f"Whether {self._id} has ended could not be asked within {timeout_s:g} s. {error.message}"
            raise SwellError("no_answer", words, status=504) from error

    def _asked(self, method: str, rest: str) -> protocol.Request:
        return protocol.Request(method, f"/calls/{quote(self._id, safe='')}{rest}")

    def _reached(self) -> Client:
        """The server that it was sent to; of one that was found by its id, the one that settings name."""
        if context.inside:
            return binding.platform(context.inside[0])
        return self._client if self._client is not None else binding.current()


async def spawned(
    client: Client, request: protocol.Request, args: Sequence[object] = (), how: Queueing = IN_TURN
) -> FunctionCall:
    """Have a call accepted. The server knows it again where its answer was lost; that with a key of the user's own, or
    for one event (`args`), it knows whoever sends it."""
    event = args[0] if len(args) == 1 else None
    key = how.idempotency_key or (f"event-{digest(event)}" if isinstance(event, Event) else "")
    if key or len(request.body) > INPUT_MAX:
        id = (await ask(client, protocol.queued(request, key or request_id(), how), Accepted)).id
    else:
        id = await Pending(Spawning.of(client).accepted(request, how))
    return FunctionCall(id, client)


async def waited(client: Client, request: protocol.Request, name: str, how: Queueing = IN_TURN) -> Any:
    """The result of a call that goes by the queue, for who waits for it as for any other. Who is interrupted ends it;
    who only cannot ask any more is told that it goes on."""
    call = await spawned(client, request, how=how)
    try:
        answer = await call._answered(math.inf)
    except SwellError as error:
        raise _going_on(call, error) from error
    except BaseException:
        leaving = client.transport.begin(_left(call))
        # While the interpreter ends nothing answers any more.
        if not sys.is_finalizing():
            with suppress(SwellError, TimeoutError):
                await Pending(leaving)
        raise
    return protocol.result(answer, name)


def _going_on(call: FunctionCall, error: SwellError) -> SwellError:
    """Why its result cannot be asked for, for who might take that for its end."""
    words = f"{error.message} If it has not ended, {call._id} goes on: `swell calls show {call._id}` tells of it."
    return SwellError(error.code, words, status=error.status, request=error.request)


async def _left(call: FunctionCall) -> None:
    async with asyncio.timeout(CLOSE_S):
        await call.cancel.start()


async def spawned_map(
    client: Client,
    taken: inputs.Inputs,
    asked: Callable[[tuple[Any, ...]], protocol.Request],
    how: Queueing = IN_TURN,
) -> FunctionCall:
    """Have a call accepted for each input, all of them or, where that goes wrong, none that is begun later."""
    group, sending = Group(client, how=how), None
    batch: list[protocol.Request] = []
    first = size = 0
    try:
        while True:
            args = await Pending(await taken.take())
            request = asked(args) if args is not inputs.END else None
            length = len(request.body) if request is not None else GROUP_BODY_MAX
            while batch and (size + length > GROUP_BODY_MAX // 2 or len(batch) >= GROUP_INPUTS_MAX):
                sending = group.send(batch, first)
                accepted = await Pending(sending)
                first += accepted
                batch = batch[accepted:]
                size = sum(len(each.body) for each in batch)
            if request is None:
                break
            batch.append(request)
            size += length
    except BaseException:
        if sending is not None:
            await group.leave(sending)
        raise
    finally:
        await taken.close()
    if not first:
        raise SwellError("bad_argument", "There is nothing to spawn: spawn_map was given no inputs.")
    return FunctionCall(group.id, client, first)


async def _gather(*function_calls: FunctionCall) -> list[Any]:
    """The results of several calls, in this order. The first that fails ends it; the others go on."""
    begun: list[Future[protocol.Answer | None]] = []
    try:
        begun.extend(call._begun() for call in function_calls)
        return [_result(await Pending(each)) for each in begun]
    finally:
        for each in begun:
            each.cancel()


def _result(answer: protocol.Answer | None) -> Any:
    assert answer is not None, "it was waited for as long as it takes"
    return protocol.result(answer, "The call")


_gather.__name__, _gather.__qualname__ = "gather", "FunctionCall.gather"
setattr(FunctionCall, "gather", Call(public(_gather)))  # noqa: B010 (an operation that is of no one call)
stand_in(
    FunctionCall,
    {
        "get_call_graph": "There is no graph of calls: `swell calls show ID` tells of one.",
    },
)
