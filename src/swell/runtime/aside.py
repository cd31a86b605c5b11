"""How does one input's own code run beside a batch? `before` and `after` of its method, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from time import perf_counter_ns
from typing import Any, Protocol

from swell.runtime.shared import ReplicaContext
from swell.runtime.steps import Steps
from swell.runtime.worker import Job
from swell.wire.context import Input, current


class Worker(Protocol):
    """Something to do for one input: as a function on a worker thread, or as a coroutine on the loop."""

    def sync(self) -> None: ...
    def asynchronous(self) -> Coroutine[Any, Any, None]: ...


class Aside:
    """One such run. `over` is called with it on the loop, once, however it ends; then it says what it used."""

    def __init__(self, replica: ReplicaContext, work: Worker, on_loop: bool, over: Callable[[Aside], None]) -> None:
        self.cpu_ns = 0
        self.run_ns = 0
        self._replica = replica
        self._work = work
        self._over = over
        self._on_loop = on_loop
        self._began_ns = 0
        self._job: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps: Steps | None = None

    def start(self, as_input: Input) -> None:
        replica = self._replica
        self._began_ns = perf_counter_ns()
        if self._on_loop:
            self._steps = Steps(self._work.asynchronous())
            self._task = replica.loop.create_task(self._steps, context=replica.context_for(as_input))
            self._task.add_done_callback(lambda _task: self._ended())
        else:
            self._job = Job(lambda: copy_context().run(self._run, as_input), self._ended)
            replica.workers.submit(self._job)

    def interrupt(self) -> None:
        """Make it stop."""
        if self._task is not None:
            self._task.cancel()
        elif self._job is not None:
            self._replica.workers.interrupt(self._job)

    def _run(self, as_input: Input) -> None:
        current.set(as_input)
        self._began_ns = perf_counter_ns()
        try:
            self._work.sync()
        finally:
            self.run_ns = perf_counter_ns() - self._began_ns

    def _ended(self) -> None:
        if self._steps is not None:
            self.cpu_ns = self._steps.cpu_ns
            self.run_ns = perf_counter_ns() - self._began_ns
        elif self._job is not None:
            self.cpu_ns = self._job.cpu_ns
        # They know this: the two would keep each other for the garbage collector.
        self._job = self._task = self._steps = None
        self._over(self)
