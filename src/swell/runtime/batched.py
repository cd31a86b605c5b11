"""How are single calls worked on together? The shell around `batch`: a batch is one run of the user's code.

Each input keeps its own slot, deadline, caller and answer. One that ends before its batch began leaves it; of one that
ends later the answer alone is dropped, and the batch goes on as long as anybody waits for it. Only when the last one
has gone is the code told to stop. Arguments are read and results encoded where the code runs, as those of calls are.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from time import perf_counter_ns
from typing import Any

from swell.model.errors import SwellError
from swell.model.workload import Batch, Method
from swell.runtime.arguments import Arguments, Given
from swell.runtime.batch import NEVER, Gathering, Group, groups, shares
from swell.runtime.call import STOPPED_ITSELF, Call, Callee, ReplicaContext
from swell.runtime.http import BUSY_LINE, Exchange, batch_line, used_lines
from swell.runtime.results import Accepted, accepted
from swell.runtime.steps import Steps
from swell.runtime.worker import Job
from swell.wire.context import Input, InputCancellation, current


class Batches(Callee):
    """A method whose calls are worked on together, and those that wait for it."""

    def __init__(
        self, replica: ReplicaContext, method: Method, batch: Batch, function: Callable[..., Any], arguments: Arguments
    ) -> None:
        super().__init__(method, function, arguments)
        self.replica = replica
        side_by_side = batch.side_by_side(replica.slots.limit)
        self._gathering: Gathering[BatchedCall] = Gathering(batch.max_size, batch.wait_ms / 1000, side_by_side)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    def open(self, _replica: ReplicaContext, exchange: Exchange) -> BatchedCall:
        """Take one admitted request."""
        request = exchange.request
        return BatchedCall(self, exchange, accepted(request.header(b"accept"), request.trusted))

    def give_back(self) -> None:
        """Refuse those that wait as busy: not begun, they may be tried elsewhere."""
        for call in list(self._gathering):
            call.give_back()

    def add(self, call: BatchedCall) -> None:
        """It is all there."""
        now = time.monotonic()
        self._gathering.add(call, now)
        self._go(now)

    def leave(self, call: BatchedCall) -> None:
        """It is not to be worked on."""
        self._gathering.leave(call)

    def ended(self, size: int) -> None:
        """A batch is over."""
        now = time.monotonic()
        self._gathering.ended(size, now)
        self._go(now)

    def _go(self, now: float) -> None:
        while calls := self._gathering.take(now):
            Together(self, calls).start()
        due = self._gathering.due()
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self.replica.loop.call_later(due - now, self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self._go(time.monotonic())


class BatchedCall(Call):
    """One admitted call of a batched method."""

    def __init__(self, batches: Batches, exchange: Exchange, wanted: Accepted) -> None:
        super().__init__(batches.replica, exchange, batches, wanted)
        self._batches = batches
        self.together: Together | None = None
        """The batch it is worked on in; None before."""
        self.dropped = False
        """Nobody waits for its result any more; those of others in its batch are waited for."""
        self.came_ns = 0

    # -- handler, and work --------------------------------------------------------------------

    def complete(self) -> None:
        self.came_ns = perf_counter_ns()
        self._batches.add(self)

    def interrupt(self, attempt: int) -> None:
        """What is not begun never is; what runs for others goes on without it; what runs for it alone is stopped."""
        self._stopping = True
        together = self.together
        if together is None:
            self._batches.leave(self)
            self._drop("it waited to be worked on together with others")
        elif attempt == 0 and together.drop(self):
            self._drop("it ran; what it ran together with goes on")
        else:
            if attempt > 0:
                self._tell_late()
            together.interrupt()

    def left(self, now: float) -> bool:
        """Together with all the others of its batch. Without one it holds up nothing."""
        together = self.together
        return together is not None and all(Call.left(each, now) for each in tuple(together.awaited))

    def give_back(self) -> None:
        """Not to be begun here."""
        self._batches.leave(self)
        self._replica.slots.end(self)
        self._exchange.refuse(503, "busy", "This replica ends, and had not begun it.", BUSY_LINE)

    def _drop(self, where: str) -> None:
        self.dropped = True
        self._replica.slots.end(self)
        exchange = self._exchange
        if self._late and not exchange.closed:
            exchange.refuse(504, "deadline", exchange.request.past_deadline(where))

    # -- for its batch ------------------------------------------------------------------------

    def read(self) -> Given | None:
        """Its arguments; None when they are refused, which is its answer."""
        try:
            given = self._given()
        except InputCancellation:
            raise
        except BaseException as error:
            self.fail(error)  # Raised by a class of the user's that it was to be made into.
            return None
        return None if given is None else self._callee.arguments.by_name(given)

    def give(self, result: Any) -> None:
        """Its result: an exception is its own error alone."""
        if isinstance(result, Exception):
            self.fail(result)
        else:
            self._take(result)

    def refuse(self, error: SwellError) -> None:
        """This is its answer."""
        self._refuse(error)

    def fail(self, error: BaseException, logged: bool = False) -> None:
        """User code raised this; `logged`: its traceback is in the log already."""
        self._failed(error, logged)

    def answer(self, used: bytes) -> None:
        """Its batch is over, and its slot free."""
        exchange = self._exchange
        if exchange.closed:
            return
        if self._late:
            self._tell_late(used)
        elif self._answer is not None:
            status, content_type, body, head = self._answer
            exchange.answer(status, content_type, body, head + used + self._error)
        else:
            exchange.refuse(500, "exception", STOPPED_ITSELF, used)


class Together:
    """The calls of one batch, and the run of the code for them."""

    def __init__(self, batches: Batches, calls: Sequence[BatchedCall]) -> None:
        self.calls = calls
        self.awaited = set(calls)
        """Those whose answers somebody waits for; the last one stays."""
        self._batches = batches
        self._callee: Callee = batches
        self._replica = batches.replica
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps: Steps | None = None
        self._stopping = False
        self._spent: dict[BatchedCall, tuple[bytes, int]] = {}
        """What to tell of each that was given to the code, but for its CPU time."""
        for call in calls:
            call.together = self

    def start(self) -> None:
        """Have the code run: on a worker thread, or as a task on the loop."""
        replica = self._replica
        if self._callee.asynchronous:
            self._steps = Steps(self._asynchronous())
            self._task = replica.loop.create_task(self._steps, context=replica.context_for(self._input()))
            self._task.add_done_callback(lambda _task: self._over())
        else:
            self._job = Job(self._synchronous, self._over)
            replica.workers.submit(self._job)

    def drop(self, call: BatchedCall) -> bool:
        """Go on without it, unless it is the last one that is waited for."""
        if len(self.awaited) == 1:
            return False
        self.awaited.discard(call)
        return True

    def interrupt(self) -> None:
        """Make the code stop."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
        elif self._job is not None:
            self._replica.workers.interrupt(self._job)

    def _input(self) -> Input:
        """What the code may know of what it works on: the first input, under which what it prints is logged, and until
        when any of them counts."""
        return Input(self.calls[0].request, max(call.deadline for call in self.calls))

    # -- where the code runs ------------------------------------------------------------------

    def _synchronous(self) -> None:
        copy_context().run(self._invoke)

    def _invoke(self) -> None:
        current.set(self._input())
        for calls, group in self._groups():
            began = perf_counter_ns()
            try:
                results = self._callee.function(*group.args, **group.kwargs)
            except InputCancellation:
                raise
            except BaseException as error:
                self._fail(calls, error)
            else:
                self._give(calls, results)
            finally:
                self._note(calls, began)

    async def _asynchronous(self) -> None:
        for calls, group in self._groups():
            began = perf_counter_ns()
            try:
                results = self._callee.function(*group.args, **group.kwargs)
                if inspect.isawaitable(results):
                    results = await results
            except BaseException as error:
                if self._stopping and isinstance(error, asyncio.CancelledError):
                    return
                self._fail(calls, error)
            else:
                self._give(calls, results)
            finally:
                self._note(calls, began)

    def _groups(self) -> list[tuple[list[BatchedCall], Group]]:
        """What is to be called with: those whose arguments are good and wanted."""
        read = [(call, call.read()) for call in self.calls if not call.dropped]
        good = [(call, given) for call, given in read if given is not None]
        return [([good[at][0] for at in group.members], group) for group in groups([given for _, given in good])]

    def _give(self, calls: Sequence[BatchedCall], results: Any) -> None:
        if not isinstance(results, list | tuple) or len(results) != len(calls):
            error = _bad_batch(self._callee.name, results, len(calls))
            for call in calls:
                call.refuse(error)
            return
        for call, result in zip(calls, results, strict=True):
            if not call.dropped:
                call.give(result)

    def _fail(self, calls: Sequence[BatchedCall], error: BaseException) -> None:
        """The code raised: everybody's error, and once in the log."""
        calls[0].fail(error)
        for call in calls[1:]:
            call.fail(error, logged=True)

    def _note(self, calls: Sequence[BatchedCall], began_ns: int) -> None:
        """What each is to tell of its time: alone, and together with the others."""
        run_us = (perf_counter_ns() - began_ns) // 1000
        lead = self.calls[0].request
        for call, own_us in zip(calls, shares(run_us, len(calls)), strict=True):
            waited_us = (began_ns - call.came_ns) // 1000
            self._spent[call] = batch_line(len(calls), waited_us, run_us, lead), own_us

    # -- on the loop --------------------------------------------------------------------------

    def _over(self) -> None:
        cpu_ns = self._steps.cpu_ns if self._steps is not None else self._job.cpu_ns if self._job is not None else 0
        self._job = self._task = None  # They know this batch: the two would keep each other for the garbage collector.
        replica, calls = self._replica, self.calls
        for stream in replica.output:
            stream.end_input(calls[0].request)
        replica.slots.end(*self.awaited)
        self._batches.ended(len(calls))
        for call, cpu_us in zip(calls, shares(cpu_ns // 1000, len(calls)), strict=True):
            line, run_us = self._spent.get(call, (b"", 0))
            call.answer(used_lines(cpu_us * 1000, run_us * 1000) + line)


def _bad_batch(name: str, results: Any, inputs: int) -> SwellError:
    if isinstance(results, list | tuple):
        plural = "s" if len(results) != 1 else ""
        said = f"returned {len(results)} result{plural} for {inputs} input{'s' if inputs != 1 else ''}"
    else:
        said = f"returned a {type(results).__qualname__} for {inputs} input{'s' if inputs != 1 else ''}"
    words = f"{name} is batched and {said}: return a list with one result for each, in the order of the inputs."
    return SwellError("bad_batch", words, status=500)
