"""What happens to one batch, from its arguments to its results? One run of the code for all, and a part for each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextvars import copy_context
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol

from swell.model.errors import SwellError
from swell.runtime.arguments import Given
from swell.runtime.batch import Group, shares
from swell.runtime.hooks import Hooks
from swell.runtime.shared import ReplicaContext
from swell.runtime.stacked import Lists, Stacked
from swell.runtime.steps import Steps
from swell.runtime.worker import Job
from swell.wire.context import Input, InputCancellation, current

BATCH_ID_END = "-b"
"""What a batch's output is logged under: the id of its first request, and this."""


class Share(NamedTuple):
    """One input's part of a batch, in µs."""

    cpu_us: int
    run_us: int
    size: int
    """With so many it was given to the code; 0: it was not."""
    waited_us: int
    whole_us: int
    """For so long they all ran."""
    lead: str
    """The first of the batch's requests."""


class Member(Protocol):
    """One call of a batch."""

    request: str
    deadline: float
    dropped: bool
    came_ns: int
    together: Together | None
    alone: bool
    on_loop: bool

    def interrupt(self, attempt: int) -> None: ...
    def expire(self) -> None: ...
    def left(self, now: float) -> bool: ...
    def gone(self, now: float) -> bool: ...
    def go_on(self, now: float) -> None: ...
    def read(self) -> Given | None: ...
    def give(self, result: Any) -> None: ...
    def refuse(self, error: SwellError) -> None: ...
    def fail(self, error: BaseException, logged: bool = False) -> None: ...
    def settle(self, share: Share) -> None: ...
    @property
    def unfinished(self) -> bool: ...


class Method(Protocol):
    """What is called for a batch."""

    name: str
    function: Callable[..., Any]
    hooks: Hooks
    asynchronous: bool
    replica: ReplicaContext
    form: Lists | Stacked

    def ended(self, together: Together) -> None: ...


class Together:
    """The calls of one batch, and the run of the code for them."""

    def __init__(self, batches: Method, calls: Sequence[Member]) -> None:
        self.calls = calls
        self.awaited = set(calls)
        """Those whose answers somebody waits for; the last one stays."""
        self._batches = batches
        self._replica = batches.replica
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps: Steps | None = None
        self.stopping = False
        self._ran: dict[Member, tuple[int, int, int, int]] = {}
        """Of each that was given to the code: with how many, µs that it waited, µs that they ran, and its share."""
        lead = calls[0].request
        self._logged = lead + BATCH_ID_END if len(calls) > 1 else lead
        for call in calls:
            call.together = self

    def start(self) -> None:
        """Have the code run: on a worker thread, or as a task on the loop."""
        replica = self._replica
        if len(self.calls) > 1:
            for stream in replica.output:
                stream.begin_batch(self._logged, [call.request for call in self.calls])
        if self._batches.asynchronous:
            self._steps = Steps(self._asynchronous())
            self._task = replica.loop.create_task(self._steps, context=replica.context_for(self._input()))
            self._task.add_done_callback(lambda _task: self._over())
        else:
            self._job = Job(self._synchronous, self._over)
            replica.workers.submit(self._job)

    def drop(self, call: Member) -> bool:
        """Go on without it, unless it is the last one that is waited for."""
        if len(self.awaited) == 1:
            return False
        self.awaited.discard(call)
        return True

    def interrupt(self) -> None:
        """Make the code stop."""
        self.stopping = True
        if self._task is not None:
            self._task.cancel()
        elif self._job is not None:
            self._replica.workers.interrupt(self._job)

    def _input(self) -> Input:
        """What the code may know of what it works on: the first input, until when any of them counts, and under which
        id it is logged."""
        return Input(self.calls[0].request, self.deadline, batch=self._logged, work=self)

    @property
    def deadline(self) -> float:
        """Until one of them counts."""
        return max(call.deadline for call in self.calls)

    @property
    def requests(self) -> tuple[str, ...]:
        return tuple(call.request for call in self.calls if not call.dropped)

    def go_on(self, now: float) -> None:
        for call in self.calls:
            call.go_on(now)

    # -- where the code runs ------------------------------------------------------------------

    def _synchronous(self) -> None:
        copy_context().run(self._invoke)

    def _invoke(self) -> None:
        current.set(self._input())
        for calls, given, group in self._groups():
            began = perf_counter_ns()
            try:
                result = self._batches.function(*group.args, **group.kwargs)
            except InputCancellation:
                raise
            except BaseException as error:
                self._fail(calls, error)
            else:
                self._give(calls, given, group, result)
            finally:
                self._note(calls, began)

    async def _asynchronous(self) -> None:
        for calls, given, group in self._groups():
            began = perf_counter_ns()
            try:
                result = self._batches.function(*group.args, **group.kwargs)
                if inspect.isawaitable(result):
                    result = await result
            except BaseException as error:
                if self.stopping and isinstance(error, asyncio.CancelledError):
                    return
                self._fail(calls, error)
            else:
                self._give(calls, given, group, result)
            finally:
                self._note(calls, began)

    def _groups(self) -> list[tuple[list[Member], list[Given], Group]]:
        """What is to be called with: those whose arguments are good and wanted."""
        read = [(call, call.read()) for call in self.calls if not call.dropped]
        good = [(call, given) for call, given in read if given is not None]
        given = [each for _, each in good]
        try:
            groups = self._batches.form.groups(given)
        except Exception as error:
            self._fail([call for call, _ in good], error)
            return []
        return [([good[at][0] for at in group.members], given, group) for group in groups]

    def _give(self, calls: Sequence[Member], given: list[Given], group: Group, result: Any) -> None:
        try:
            results = self._batches.form.results(self._batches.name, group, result, given)
        except SwellError as error:
            for call in calls:
                call.refuse(error)
            return
        for call, each in zip(calls, results, strict=True):
            if not call.dropped:
                call.give(each)

    def _fail(self, calls: Sequence[Member], error: BaseException) -> None:
        """The code raised: everybody's error, and once in the log."""
        calls[0].fail(error)
        for call in calls[1:]:
            call.fail(error, logged=True)

    def _note(self, calls: Sequence[Member], began_ns: int) -> None:
        """What each is to tell of its time: alone, and together with the others."""
        run_us = (perf_counter_ns() - began_ns) // 1000
        for call, own_us in zip(calls, shares(run_us, len(calls)), strict=True):
            self._ran[call] = len(calls), (began_ns - call.came_ns) // 1000, run_us, own_us

    # -- on the loop --------------------------------------------------------------------------

    def _over(self) -> None:
        cpu_ns = self._steps.cpu_ns if self._steps is not None else self._job.cpu_ns if self._job is not None else 0
        self._job = self._task = None  # They know this batch: the two would keep each other for the garbage collector.
        replica, calls = self._replica, self.calls
        for stream in replica.output:
            stream.end_input(self._logged)
        over = self.awaited
        if self._batches.hooks.after is not None:
            over = {call for call in over if not call.unfinished}
        replica.slots.end(*over)
        self._batches.ended(self)
        lead = calls[0].request
        for call, cpu_us in zip(calls, shares(cpu_ns // 1000, len(calls)), strict=True):
            size, waited_us, whole_us, run_us = self._ran.get(call, (0, 0, 0, 0))
            call.settle(Share(cpu_us, run_us, size, waited_us, whole_us, lead))
