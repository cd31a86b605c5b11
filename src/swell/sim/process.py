"""How does code of asyncio run where time is a value? One loop for each simulated process, all on one timeline.

What a loop is to do happens in the order of the timeline, so a run with the same chance is the same run. A process that
is killed does nothing more: what it waited for, and what it was about to say, is gone with it.
"""

from __future__ import annotations

import asyncio
import asyncio.events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from swell.sim.clock import Timeline

T = TypeVar("T")

CONNECT_S = 0.0001
"""Until a connection is made."""

Connect = Callable[["Process", asyncio.Protocol, str], "asyncio.Transport | None"]
"""The transport of a connection to what listens on that path; None: nobody does."""


def at_once() -> float:
    """What is done elsewhere takes no time."""
    return 0.0


def process_of(name: str, *how: Any, **options: Any) -> Process:
    """A new one. Of a loop's methods those are missing that are not used."""
    return Process(name, *how, **options)  # type: ignore[abstract]


class Process(asyncio.AbstractEventLoop):
    """One process, as far as its loop goes. What asyncio asks of a loop beyond this, nothing under test uses."""

    def __init__(
        self,
        name: str,
        time: Timeline,
        broke: Callable[[str], None],
        thread_s: Callable[[], float] = at_once,
        connect: Connect | None = None,
    ) -> None:
        """`broke`: something raised that nobody caught. `thread_s`: how long half of what a thread does takes."""
        self.name = name
        self.dead = False
        self._time = time
        self._broke = broke
        self._thread_s = thread_s
        self._connect = connect
        self._tasks: set[asyncio.Task[Any]] = set()

    def kill(self) -> None:
        """Between two things that it does."""
        self.dead = True
        self._time.keep(self)

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is called inside is called by this process, also where another one is being followed."""
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        try:
            yield
        finally:
            asyncio.events._set_running_loop(before)

    def do(self, what: Callable[[], object]) -> None:
        """Now, as this process; nothing where it is dead."""
        if not self.dead:
            with self.running():
                what()

    # -- what asyncio asks of it -----------------------------------------------------------------

    def time(self) -> float:
        return self._time.now()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        # What is left of a dead one may be cleaned up at any time: nothing is to follow from that.
        if not self.dead:
            self._time.after(0.0, partial(self._run, handle))
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._time.at(when, partial(self._run, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Its time comes all the same, and nothing is done then."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, **options)
        # A process that is dead keeps its tasks, and is kept: their cleanup must not run at a time of Python's choice.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._broke(f"{self.name}: {context.get('message')} ({context.get('exception')!r})")

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override] # noqa: ARG002
        """As in a thread: it is done a while later, and heard of a while after that. A process may die in between."""
        future: asyncio.Future[T] = self.create_future()

        def finish(error: Exception | None, result: Any) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            if self.dead:
                return
            error, result = None, None
            try:
                result = func(*args)
            except Exception as raised:
                error = raised
            self.call_later(self._thread_s(), finish, error, result)

        self._time.after(self._thread_s(), work)
        return future

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **_: Any) -> Any:
        """To what listens there. Raises ConnectionRefusedError."""
        await asyncio.sleep(CONNECT_S)
        protocol = protocol_factory()
        transport = self._connect(self, protocol, path) if self._connect is not None else None
        if transport is None:
            raise ConnectionRefusedError(path)
        protocol.connection_made(transport)
        return transport, protocol

    def _run(self, handle: asyncio.Handle) -> None:
        if not self.dead and not handle.cancelled():
            with self.running():
                handle._run()
