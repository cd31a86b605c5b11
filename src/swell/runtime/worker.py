"""Where does synchronous user code run, and how is it interrupted? On threads that live as long as the replica.

Interrupting raises `InputCancellation` in the thread. It must never reach the input after the one it was
meant for: it is only set while the job is armed, under the worker's lock, and what was set but not yet
raised when the job's code is over is taken back.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

from swell.wire.context import InputCancellation

T = TypeVar("T")


class Job:
    """A piece of user code: `run` may be interrupted, `done` follows in the same thread and is not."""

    __slots__ = ("cancelled", "done", "run", "worker")

    def __init__(self, run: Callable[[], None], done: Callable[[], None]) -> None:
        self.run = run
        self.done = done
        self.cancelled = False
        self.worker: _Worker | None = None


class Workers:
    """At most `limit` threads, each started when there is more to do than threads are free."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._threads: list[_Worker] = []
        self._unfinished = 0
        self._count = threading.Lock()

    def submit(self, job: Job) -> None:
        """Have the job run on a free thread."""
        with self._count:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._limit):
                self._threads.append(_Worker(self._jobs, self, f"swell-worker-{len(self._threads)}"))
        self._jobs.put(job)

    def interrupt(self, job: Job) -> None:
        """Raise InputCancellation in the job's code, or keep it from starting."""
        job.cancelled = True
        worker = job.worker
        if worker is not None:
            worker.interrupt(job)

    async def call(self, function: Callable[[], T], keep_context: bool = False) -> T:
        """The function's result from a worker thread. Cancelling the caller interrupts it.

        It works on a copy of the caller's context; `keep_context`: in the thread's own, for later jobs to see.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        work = function if keep_context else functools.partial(copy_context().run, function)
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((True, work()))
            except Exception as error:
                outcome.append((False, error))

        def done() -> None:
            loop.call_soon_threadsafe(lambda: None if over.done() else over.set_result(None))

        job = Job(run, done)
        self.submit(job)
        cancelled = False
        while not over.done():
            try:
                await asyncio.shield(over)
            except asyncio.CancelledError:
                cancelled = True
                self.interrupt(job)
        if cancelled or not outcome:
            raise asyncio.CancelledError
        good, value = outcome[0]
        if not good:
            raise value
        result: T = value
        return result

    def finished(self) -> None:
        """From a worker: one job less."""
        with self._count:
            self._unfinished -= 1


class _Worker:
    def __init__(self, jobs: SimpleQueue[Job], workers: Workers, name: str) -> None:
        self._jobs = jobs
        self._workers = workers
        self._lock = threading.Lock()
        self._armed: Job | None = None
        """The job that may be interrupted now."""
        self._current: Job | None = None
        self._begun = False
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def interrupt(self, job: Job) -> None:
        with self._lock:
            if self._armed is job:
                _raise_in(self._thread.ident, InputCancellation)

    def _live(self) -> None:
        while True:
            try:
                self._serve()
            except InputCancellation:
                continue  # A repeated one landed between two instructions of `_work`; `_current` is still there.

    def _serve(self) -> None:
        while True:
            if self._current is None:
                self._current = self._jobs.get()
                self._begun = False
            job = self._current
            self._work(job)
            self._current = None
            self._workers.finished()
            job.done()
            del job  # or its arguments and result would live until the next one comes

    def _work(self, job: Job) -> None:
        """Run the job's code. On return nothing of an interruption is left pending."""
        while True:
            try:
                if not self._begun:
                    self._begun = True
                    job.worker = self
                    self._armed = job
                    if not job.cancelled:
                        job.run()
                with self._lock:
                    self._armed = None
                if job.cancelled:
                    _raise_in(self._thread.ident, None)
                return
            except InputCancellation:
                continue


def _raise_in(ident: int | None, kind: type[BaseException] | None) -> None:
    """Have `kind` raised in a thread at its next bytecode; None takes back what was not raised yet."""
    assert ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None if kind is None else ctypes.py_object(kind))
