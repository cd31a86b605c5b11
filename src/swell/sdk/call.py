"""What became of a call that was sent to be worked on later? `Function.spawn()` gives it, `get()` waits for it."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from swell.model.errors import SwellError
from swell.sdk import binding, inputs, mapping, protocol
from swell.sdk.bridge import Call, operation
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.shared import LOST, ask, asked, request_id
from swell.sdk.signatures import public
from swell.sdk.unavailable import stand_in
from swell.wire import context, http
from swell.wire.call_rows import CallRow

if TYPE_CHECKING:
    from swell.sdk.client import Client

WAIT_S = 50.0
"""How long one request waits; then the next one does. Proxies between may not like longer ones."""
LATE_S = 5.0
"""An answer may come so much later than it was asked for. Then it is taken for lost."""
BUSY_S = 1.0
"""Where too many wait, one looks again and again, after such a pause."""
AWAY = (*LOST, "no_answer", "no_server")
"""Errors that tell nothing of the call."""
_ID = "fc-"


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a call that is in the queue."""

    id: str


class FunctionCall:
    """One call that is worked on by itself. `.get()` waits for its result, from any program that knows its `object_id`.

    Each operation also has an `.aio` form for asyncio.
    """

    def __init__(self, object_id: str, client: Client | None = None) -> None:
        """Made by `Function.spawn()` and `FunctionCall.from_id()`."""
        self._id = object_id
        self._client = client

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
        if not isinstance(function_call_id, str) or not function_call_id.startswith(_ID):
            words = f"FunctionCall.from_id: {function_call_id!r} is no id of a call: that is what .object_id gives."
            raise SwellError("bad_argument", words)
        return FunctionCall(function_call_id)

    @operation
    async def get(self, timeout: float | None = None, *, index: int = 0) -> Any:
        """Its result, or what it raised, as from `.remote()`. Without a `timeout` (seconds) it waits as long as it
        takes; TimeoutError after that, and the call goes on. `timeout=0` only looks."""
        refuse(Given("FunctionCall.get", {"index": index or None}))
        if timeout is not None and not timeout >= 0:
            words = f"FunctionCall.get(timeout={timeout!r}): give seconds, from zero on."
            raise SwellError("bad_argument", words)
        return protocol.result(await self._answered(math.inf if timeout is None else timeout), self._id)

    @operation
    async def cancel(self, terminate_containers: bool = False) -> None:
        """It is not begun any more or, where it runs, stopped; what it had done by then is done. Where it has ended
        nothing changes."""
        refuse(Given("FunctionCall.cancel", {"terminate_containers": terminate_containers}))
        await ask(self._reached(), self._asked("DELETE", ""), CallRow)

    # ------------------------------------------------------------------------------------------

    async def _answered(self, timeout_s: float) -> protocol.Answer:
        """As the call itself would have been answered. SwellError no_answer when that takes longer."""
        ends, client, busy = time.monotonic() + timeout_s, self._reached(), False

        def made() -> tuple[protocol.Request, float]:
            wait_s = 0.0 if busy else min(max(ends - time.monotonic(), 0.0), WAIT_S)
            return self._asked("GET", f"/result?wait_s={wait_s:.3f}"), wait_s + LATE_S

        while True:
            try:
                answer = await asked(client, made, ends)
            except SwellError as error:
                if error.code not in AWAY or time.monotonic() < ends or (not timeout_s and error.code == "no_server"):
                    raise
                words = f"Whether {self._id} has ended could not be asked within {timeout_s:g} s. {error.message}"
                raise SwellError("no_answer", words, status=504) from error
            busy = busy or _is_busy(answer)
            if answer.status != 202 and not _is_busy(answer):
                return answer
            if time.monotonic() >= ends:
                words = f"{self._id} has not ended within {timeout_s:g} s: `swell calls show {self._id}` tells more."
                raise SwellError("no_answer", words, status=504)
            if busy:
                await client.transport.pause(min(BUSY_S, ends - time.monotonic()))

    def _asked(self, method: str, rest: str) -> protocol.Request:
        return protocol.Request(method, f"/calls/{quote(self._id, safe='')}{rest}")

    def _reached(self) -> Client:
        """The server that it was sent to; of one that was found by its id, the one that settings name."""
        if context.inside:
            return binding.platform(context.inside[0])
        return self._client if self._client is not None else binding.current()


def _is_busy(answer: protocol.Answer) -> bool:
    """Do as many wait as may? That is no result of the call."""
    told = http.CALL_STATE.lower() in answer.headers
    return answer.status == 503 and not told and protocol.error_of(answer).code == "busy"


async def spawned(client: Client, request: protocol.Request) -> FunctionCall:
    """Have a call accepted. It has a key of its own, by which the server knows it again where its answer was lost."""
    accepted = await ask(client, protocol.queued(request, request_id()), Accepted)
    return FunctionCall(accepted.id, client)


async def _gather(*function_calls: FunctionCall) -> list[Any]:
    """The results of several calls, in this order. The first that fails ends it; the others go on."""

    def submit(args: tuple[Any, ...]) -> Future[protocol.Answer]:
        (call,) = args
        answered: Future[protocol.Answer] = call._reached().transport.begin(call._answered(math.inf))
        return answered

    def read(answer: protocol.Answer) -> Any:
        return protocol.result(answer, "The call")

    found = mapping.run(inputs.zipped(function_calls), submit, read, ordered=True, return_exceptions=False)
    async with aclosing(found) as results:
        return [result async for result in results]


_gather.__name__, _gather.__qualname__ = "gather", "FunctionCall.gather"
setattr(FunctionCall, "gather", Call(public(_gather)))  # noqa: B010 (an operation that is of no one call)
stand_in(
    FunctionCall,
    {
        "get_call_graph": "There is no graph of calls: `swell calls show ID` tells of one.",
        "iter": "Generators cannot wait in the queue, so a call has one result: use .get().",
        "num_inputs": "A call has one input: .spawn_map() is not available yet.",
    },
)
