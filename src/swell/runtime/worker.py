"""Where does synchronous user code run, and how is it interrupted? On threads that live as long as the replica.

Where one thread is enough (`Breadth`), it runs jobs one after the other: waking a thread, and handing it the
interpreter's lock, costs more than short ones do. Where it is not, or as soon as it is held up by a job, every job
that waits gets a thread of its own.

Interrupting raises `InputCancellation` in the thread. It must never reach the input after the one it was
meant for: it is only set while the job is armed, under the worker's lock, and what was set but not yet
raised when the job's code is over is raised before the next one begins. Code that is cleaning up after one is
not interrupted again: half a cleanup is worse than a late one.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from time import perf_counter_ns, thread_time_ns
from typing import Any, NoReturn, TypeVar

from swell.runtime.breadth import MEAN_OVER, Breadth
from swell.runtime.interpreter import USUAL_S, switch_soon
from swell.runtime.tracebacks import exit_error, user_traceback
from swell.wire.context import InputCancellation, waits

T = TypeVar("T")

YIELDING_NS = int(USUAL_S * 1e9)
"""Jobs that take less than this on average are over before anybody has to ask them for the interpreter."""
WATCH_S = 0.05
"""How often it is seen, while jobs known to be short run, whether they still are."""
STALL_S = 0.001
"""When jobs wait and none was done for this long, more threads are woken, twice as many each time."""


class Job:
    """A piece of user code: `run` may be interrupted; `over` follows, on the loop, and is not."""

    __slots__ = ("cancelled", "cpu_ns", "over", "run", "worker")

    def __init__(self, run: Callable[[], None], over: Callable[[], None]) -> None:
        self.run = run
        self.over = over
        self.cancelled = False
        self.cpu_ns = 0
        """CPU time of the thread that ran it, once it is over."""
        self.worker: _Worker | None = None

    def stop(self) -> NoReturn:
        """From its thread: its code ends by itself, as if it were interrupted. What is to interrupt it, and may be on
        its way, does not reach its cleanup."""
        if self.worker is not None:
            self.worker.spare(self)
        raise InputCancellation


class Workers:
    """At most `limit` threads, each started when it is first needed. Used from the loop's thread."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._limit = limit
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._idle: list[_Worker] = []
        """The one that worked last is woken first: its memory is still near."""
        self._threads = 0
        self._busy = 0
        """Threads that work or were woken to."""
        self._breadth = Breadth(limit)
        self._yielding = False
        """Jobs are known to be over soon: nobody is switched to in the middle of one."""
        self._watching = False
        self._watched_at = 0.0
        self._watched_done = 0
        self._done = 0
        """Jobs done; with what it was at the last look, what shows a stall."""
        self._done_before = 0
        self._looking = False
        self._ended: deque[Job] = deque()
        self._told = False

    def submit(self, job: Job) -> None:
        """Have the job run on a thread."""
        with self._lock:
            self._waiting.append(job)
            woken = self._wake(1)
        woken = self._rouse(woken)
        if self._yielding and not self._watching:
            self._watching = True
            self._watch_later()
        if not woken and not self._looking:
            self._looking = True
            self._done_before = self._done
            self._loop.call_later(STALL_S, self._look)

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
        over: asyncio.Future[None] = self._loop.create_future()
        work = function if keep_context else functools.partial(copy_context().run, function)
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((True, work()))
            except SystemExit as error:
                outcome.append((False, exit_error(error)))
            except (Exception, asyncio.CancelledError) as error:
                outcome.append((False, error))

        job = Job(run, lambda: None if over.done() else over.set_result(None))
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

    # -- from the workers' threads ------------------------------------------------------------

    def next(self, worker: _Worker) -> Job | None:
        """A job to run, or None: then the worker sleeps until it is woken.

        One too many sleeps even while jobs wait, if somebody looks after them.
        """
        with self._lock:
            if self._waiting and (self._busy <= self._breadth.width or not self._looking):
                return self._waiting.popleft()
            self._busy -= 1
            self._idle.append(worker)
            return None

    def ended(self, job: Job, took_ns: int) -> None:
        """The job's code is over: learn from it, and have the loop told, once for all that end meanwhile."""
        self._learn(took_ns, job.cpu_ns)
        self._done += 1
        self._ended.append(job)
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._tell)

    def _learn(self, took_ns: int, cpu_ns: int) -> None:
        breadth = self._breadth
        with self._lock:
            breadth.learn(took_ns, cpu_ns, perf_counter_ns())
        yielding = breadth.mean_ns < YIELDING_NS
        if yielding is not self._yielding and self._done >= MEAN_OVER:
            # Set, not flipped: the loop's look may set it at the same time.
            self._yielding = yielding
            switch_soon(not yielding)

    # -- on the loop --------------------------------------------------------------------------

    def _wake(self, count: int) -> list[_Worker]:
        """Up to so many more workers, as far as they may work now; each has to be woken then. Under the lock."""
        woken = []
        for _ in range(min(count, self._breadth.width - self._busy)):
            if self._idle:
                woken.append(self._idle.pop())
            elif self._threads < self._limit:
                woken.append(_Worker(self, f"swell-worker-{self._threads}"))
                self._threads += 1
            else:
                break
            self._busy += 1
        return woken

    def _rouse(self, woken: list[_Worker]) -> list[_Worker]:
        """Have those that `_wake` gave look for jobs; returns who does. Where the system allows no further thread, jobs
        wait for those that there are, and it is tried again while they do."""
        for nth, worker in enumerate(woken):
            try:
                worker.wake()
            except RuntimeError:
                # Only new ones can fail, and they come last.
                with self._lock:
                    self._threads -= len(woken) - nth
                    self._busy -= len(woken) - nth
                    self._breadth.no_more_than(self._busy)
                return woken[:nth]
        return woken

    def _look(self) -> None:
        """While jobs wait: is one done now and then?"""
        with self._lock:
            if self._waiting and self._done == self._done_before:
                self._breadth.double()
            elif not self._waiting:
                self._breadth.rest()
            woken = self._wake(len(self._waiting))
            self._looking = bool(self._waiting)
            self._done_before = self._done
        self._rouse(woken)
        if self._looking:
            self._loop.call_later(STALL_S, self._look)

    def _watch_later(self) -> None:
        self._watched_at = self._loop.time()
        self._watched_done = self._done
        self._loop.call_later(WATCH_S, self._watch)

    def _watch(self) -> None:
        """Is one of the short jobs long after all? Then what waits for the interpreter is to get it, before a cancel
        has to. Seen late is seen, too: somebody kept it."""
        late = self._loop.time() - self._watched_at > 2 * WATCH_S
        if self._yielding and self._busy and (late or self._done == self._watched_done):
            self._yielding = False
            switch_soon(True)
        self._watching = self._yielding and self._busy > 0
        if self._watching:
            self._watch_later()

    def _tell(self) -> None:
        self._told = False
        try:
            while self._ended:
                self._ended.popleft().over()
        finally:
            if self._ended:
                self._loop.call_soon(self._tell)


class _Worker:
    def __init__(self, workers: Workers, name: str) -> None:
        self._workers = workers
        self._awake = threading.Lock()
        """Held, but for the moment in which it is woken."""
        self._awake.acquire()
        self._lock = threading.Lock()
        self._armed: Job | None = None
        """The job that may be interrupted now."""
        self._current: Job | None = None
        self._begun = False
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def wake(self) -> None:
        """Have it look for jobs."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._awake.release()

    def interrupt(self, job: Job) -> None:
        with self._lock:
            if self._armed is job and not _cleans_up(self._thread.ident):
                _raise_in(self._thread.ident, InputCancellation)
                end_wait = waits.get(self._thread.ident or 0)
                if end_wait is not None:
                    end_wait()

    def spare(self, job: Job) -> None:
        """From its thread: the job is not interrupted any more."""
        with self._lock:
            if self._armed is job:
                self._armed = None
        self._settle()

    def _live(self) -> None:
        while True:
            try:
                self._serve()
            except InputCancellation:
                continue  # A repeated one landed between two instructions of `_work`; `_current` is still there.

    def _serve(self) -> None:
        workers = self._workers
        while True:
            if self._current is None:
                self._current = workers.next(self)
                if self._current is None:
                    self._awake.acquire()
                    continue
                self._begun = False
            job = self._current
            began, cpu_ns = perf_counter_ns(), thread_time_ns()
            self._work(job)
            self._current = None
            job.cpu_ns = thread_time_ns() - cpu_ns
            workers.ended(job, perf_counter_ns() - began)
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
                    self._settle()
                return
            except InputCancellation:
                continue
            except BaseException as error:
                # What a job lets out ends the job, never the thread: nobody would hear that it is over.
                sys.stderr.write(user_traceback(error))

    def _settle(self) -> None:
        """Have what was set raised here, where it does no harm.

        To take it back would leave CPython's flag for it up (before 3.13): from then on each thread of the process
        looks for it all the time, and one that has a profiler does not get on at all.
        """
        try:
            _raise_in(self._thread.ident, InputCancellation)
            while True:
                pass
        except InputCancellation:
            pass


def _raise_in(ident: int | None, kind: type[BaseException]) -> None:
    """Have `kind` raised in a thread at one of its next bytecodes, once, whatever was set before."""
    assert ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))


def _cleans_up(ident: int | None) -> bool:
    """Whether the thread handles an InputCancellation now, or what was raised while it did (`finally`, `except`)."""
    handled: Any = sys._current_exceptions().get(ident or 0)
    error: BaseException | None = handled[1] if isinstance(handled, tuple) else handled  # a tuple before 3.12
    while error is not None and not isinstance(error, InputCancellation):
        error = error.__context__
    return error is not None
