"""How are single calls worked on together? The shell around `batch`: a batch is one run of the user's code.

Each input keeps its own slot, deadline, caller and answer. One that ends before its batch began leaves it; of one that
ends later the answer alone is dropped, and the batch goes on as long as anybody waits for it. Only when the last one
has gone is the code told to stop. Arguments are read and results encoded where the code runs, as those of calls are;
what its method has before and after it (`@transform`) runs for each input by itself, beside the batches.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from swell.model.errors import SwellError
from swell.model.workload import Method
from swell.runtime.arguments import Arguments, Given
from swell.runtime.aside import Aside
from swell.runtime.batch import NEVER, Gathering
from swell.runtime.call import Call, Callee
from swell.runtime.hooks import Hooks, Refusal, asked, asked_async
from swell.runtime.http import Exchange
from swell.runtime.results import Accepted, accepted
from swell.runtime.shared import ReplicaContext
from swell.runtime.stacked import Lists, Stacked
from swell.runtime.telling import STOPPED_ITSELF, batch_line, used_lines
from swell.runtime.together import Share, Together
from swell.wire.context import InputCancellation


class Batches:
    """A method whose calls are worked on together, and those that wait for it."""

    def __init__(self, replica: ReplicaContext, method: Method, function: Callable[..., Any], hooks: Hooks) -> None:
        assert method.batch is not None
        self.name = method.name
        self.function = function
        self.hooks = hooks
        self.asynchronous = method.asynchronous or inspect.iscoroutinefunction(function)
        self.replica = replica
        batch = method.batch
        self.form = Stacked(method.stacked, batch.max_size) if method.stacked else Lists()
        side_by_side = batch.side_by_side(replica.slots.limit)
        self._gathering: Gathering[BatchedCall] = Gathering(batch.max_size, batch.wait_ms / 1000, side_by_side)
        self._running: set[Together] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    @property
    def stuck(self) -> bool:
        """Do as many run as may at a time, and can none of them be stopped? Asked by a thread, too, while the loop is
        blocked."""
        is_stuck, running = self.replica.slots.is_stuck, tuple(self._running)
        full = len(running) == self._gathering.side_by_side
        return full and all(is_stuck(call) for together in running for call in tuple(together.awaited))

    def give_back(self) -> None:
        """Refuse those that no batch has as busy, be it that they wait, or their bodies are on their way, or `before`
        works on them: the method was not begun for them, and they may be tried elsewhere."""
        for work in tuple(self.replica.slots.running):
            if isinstance(work, BatchedCall) and work.together is None:
                work.give_back()

    def add(self, call: BatchedCall) -> None:
        """It is all there."""
        now = time.monotonic()
        self._gathering.add(call, now)
        self._go(now)

    def leave(self, call: BatchedCall) -> None:
        """It is not to be worked on."""
        self._gathering.leave(call)

    def ended(self, together: Together) -> None:
        """A batch is over."""
        now = time.monotonic()
        self._running.discard(together)
        self._gathering.ended(len(together.calls), now)
        self._go(now)

    def _go(self, now: float) -> None:
        while calls := self._gathering.take(now):
            together = Together(self, calls)
            self._running.add(together)
            together.start()
        due = self._gathering.due()
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self.replica.loop.call_later(due - now, self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self._go(time.monotonic())


class Batched(Callee):
    """A method as single callers see it, in one protocol."""

    def __init__(self, method: Method, function: Callable[..., Any], arguments: Arguments) -> None:
        super().__init__(method, function, arguments)
        self.batches: Batches | None = None
        """Where its calls are worked on; set before there are any."""

    def open(self, replica: ReplicaContext, exchange: Exchange) -> Call:
        request = exchange.request
        return BatchedCall(replica, exchange, self, accepted(request.header(b"accept"), request.trusted))


class BatchedCall(Call):
    """One admitted call of a batched method."""

    def __init__(self, replica: ReplicaContext, exchange: Exchange, callee: Callee, wanted: Accepted) -> None:
        super().__init__(replica, exchange, callee, wanted)
        assert isinstance(callee, Batched)
        assert callee.batches is not None
        self._batches: Batches = callee.batches
        self.together: Together | None = None
        """The batch it is worked on in; None before."""
        self.dropped = False
        """Nobody waits for its result any more; those of others in its batch are waited for."""
        self.came_ns = 0
        self._aside: Aside | None = None
        """What runs of `before` or `after`."""
        self._ready: Given | None = None
        """What `before` made of its arguments."""
        self._result: Any = _NOTHING
        """What the batch has for it, while `after` is to see it."""
        self._own_cpu_ns = 0
        self._own_run_ns = 0
        self._share: Share | None = None

    # -- handler, and work --------------------------------------------------------------------

    def complete(self) -> None:
        before = self._batches.hooks.before
        if before is None:
            self._join()
        else:
            self._begin(_Beside(self, before, self._given, self._prepare), self._prepared)

    def interrupt(self, attempt: int) -> None:
        """What is not begun never is; what runs for others goes on without it; what runs for it alone is stopped."""
        self.stopping = True
        together = self.together
        if self._aside is not None:
            if attempt > 0:
                self._tell_late()
            self._aside.interrupt()
        elif together is None:
            self._batches.leave(self)
            self._drop("it waited to be worked on together with others")
        elif attempt == 0 and together.drop(self):
            self._drop("it ran; what it ran together with goes on")
        else:
            if attempt > 0:
                self._tell_late()
            together.interrupt()

    def left(self, now: float) -> bool:
        """Together with all the others of its batch. Without one it holds up nothing but its own code."""
        if self._aside is not None:
            return self.gone(now)
        together = self.together
        return together is not None and all(each.gone(now) for each in tuple(together.awaited))

    def gone(self, now: float) -> bool:
        """Does nobody wait for this one any more?"""
        return Call.left(self, now)

    def give_back(self) -> None:
        """Not to be begun here."""
        self._stopping = True  # What `before` makes of it is not wanted any more.
        self._batches.leave(self)
        self._replica.slots.end(self)
        self._exchange.give_back("This replica ends, and had not begun it.")

    def _drop(self, where: str) -> None:
        self.dropped = True
        self._replica.slots.end(self)
        exchange = self._exchange
        if self._late and not exchange.closed:
            words = self._past_deadline(where)
            exchange.refuse(504, "deadline", words, shape=self._callee.error_body)

    # -- beside its batch ---------------------------------------------------------------------

    def _join(self) -> None:
        self.came_ns = perf_counter_ns()
        self._batches.add(self)

    def _begin(self, work: _Beside, over: Callable[[Aside], None]) -> None:
        self._aside = Aside(self._replica, work, self._batches.asynchronous, over)
        self._aside.start(self._input())

    def _stopped(self, aside: Aside) -> None:
        self._aside = None
        self._own_cpu_ns += aside.cpu_ns
        self._own_run_ns += aside.run_ns

    def _prepared(self, aside: Aside) -> None:
        """`before` is over."""
        self._stopped(aside)
        if self._ready is not None and not self.stopping:
            self._join()
            return
        self._answer_aside(used_lines(self._own_cpu_ns, self._own_run_ns))

    def settle(self, share: Share) -> None:
        """Its batch is over, and so is it, or it has its result for `after`."""
        self._share = share
        after = self._batches.hooks.after
        if self.unfinished and after is not None:
            given: Given = (self._result,), {}
            self._result = _NOTHING
            self._begin(_Beside(self, after, lambda: given, self._take), self._finished)
        else:
            self._answer_now(self._spent())

    def _finished(self, aside: Aside) -> None:
        """`after` is over."""
        self._stopped(aside)
        self._answer_aside(self._spent())

    def _spent(self) -> bytes:
        share = self._share
        assert share is not None
        beside_ns = self._own_run_ns
        used = used_lines(share.cpu_us * 1000 + self._own_cpu_ns, share.run_us * 1000 + beside_ns)
        if not share.size:
            return used
        return used + batch_line(share.size, share.waited_us, share.whole_us + beside_ns // 1000, share.lead)

    @property
    def unfinished(self) -> bool:
        """`after` is to run yet."""
        return self._result is not _NOTHING and not (self.dropped or self.stopping)

    def _answer_aside(self, used: bytes) -> None:
        """What ran of it by itself is over."""
        self._replica.ended(self)
        self._answer_now(used)

    def _answer_now(self, used: bytes) -> None:
        """Nothing of it runs any more, and its slot is free."""
        exchange = self._exchange
        if exchange.closed:
            return
        if self._late:
            self._tell_late(used)
        elif self._answer is not None:
            status, content_type, body, head = self._answer
            exchange.answer(status, content_type, body, head + used + self._error)
        else:
            exchange.refuse(500, "exception", STOPPED_ITSELF, used, shape=self._callee.error_body)

    # -- for its code -------------------------------------------------------------------------

    def read(self) -> Given | None:
        """Its arguments for the method; None when they are refused, which is its answer."""
        if self._ready is not None:
            return self._fitting(self._ready)
        given = self._given()
        return None if given is None else self._fitting(self._callee.arguments.by_name(given))

    def _fitting(self, given: Given) -> Given | None:
        try:
            self._batches.form.check(given)
        except SwellError as error:
            self._refuse(error)
            return None
        return given

    def _prepare(self, value: Any) -> None:
        """It is ready for its batch, with what `before` returned."""
        self._ready = self._batches.hooks.spread(value)

    def give(self, result: Any) -> None:
        """Its result: an exception is its own error alone."""
        if isinstance(result, Exception):
            self.fail(result)
        elif self._batches.hooks.after is not None:
            self._result = result
        else:
            self._take(result)

    def refuse(self, error: SwellError) -> None:
        """This is its answer."""
        self._refuse(error)

    def fail(self, error: BaseException, logged: bool = False) -> None:
        """User code raised this; `logged`: its traceback is in the log already."""
        if isinstance(error, Refusal):
            self._refuse(error)
        else:
            self._failed(error, logged)


class _Beside:
    """`before` or `after` for one input: asked with what is `given`, and what it returns taken."""

    def __init__(
        self,
        call: BatchedCall,
        hook: Callable[..., Any],
        given: Callable[[], Given | None],
        take: Callable[[Any], None],
    ) -> None:
        """`given` is None where there is an answer already."""
        self._call = call
        self._hook = hook
        self._given = given
        self._take = take

    def sync(self) -> None:
        given = self._given()
        if given is None:
            return
        try:
            self._take(asked(self._hook, *given[0], **given[1]))
        except InputCancellation:
            raise
        except BaseException as error:
            self._call.fail(error)

    async def asynchronous(self) -> None:
        given = self._given()
        if given is None:
            return
        try:
            self._take(await asked_async(self._hook, *given[0], **given[1]))
        except BaseException as error:
            if not (self._call.stopping and isinstance(error, asyncio.CancelledError)):
                self._call.fail(error)


_NOTHING: Any = object()
