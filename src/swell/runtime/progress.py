"""How far does user code say that it is? It may say so a million times; its runner hears the newest, once a second."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable

from swell.model.call import is_call_id
from swell.wire.child import Report, Reports
from swell.wire.context import Input, Said

EVERY_S = 1.0
"""Between two times that the runner is told."""


class Progress:
    """What the code of one replica says of its inputs. What gives an input time is at once, whoever calls it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Reports], None],
        running: Callable[[], Iterable[str]],
        moved: Callable[[], None],
    ) -> None:
        """`running`: ids of the requests that are worked on. `moved`: deadlines are later than they were. Made in the
        loop's thread."""
        self._loop = loop
        self._send = send
        self._running = running
        self._moved = moved
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self._unsaid: dict[str, tuple[Said, float]] = {}
        """By request, with when that was."""
        self._said: dict[str, tuple[Said, float]] = {}
        self._woken = False
        """The loop knows that there is something to say."""
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def hear(self, current: Input, said: Said) -> None:
        """User code says so, in any thread. A process that was forked from this one has the input of it only, and no
        word with the runner."""
        work = current.work
        if work is None or os.getpid() != self._process:
            return
        now = time.monotonic()
        work.go_on(now)
        for request in work.requests:
            self._unsaid[request] = said, now
        if threading.get_ident() == self._thread:
            # Code that blocks the loop is heard all the same.
            self._look(now)
        elif not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._look)

    def say_again(self) -> None:
        """There is a runner that was told nothing."""
        for request in self._running():
            if request in self._said:
                self._unsaid.setdefault(request, self._said[request])
        if self._unsaid:
            self._next_at = 0.0
            self._look()

    def _look(self, now: float | None = None) -> None:
        """Say it now, or when a second has passed."""
        now = time.monotonic() if now is None else now
        if now >= self._next_at:
            self._say(now)
        elif self._timer is None:
            self._timer = self._loop.call_later(self._next_at - now, self._rang)

    def _rang(self) -> None:
        self._say(time.monotonic())

    def _say(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next_at = now + EVERY_S
        self._moved()
        # From here on whoever says something wakes the loop: nothing is left behind.
        self._woken = False
        running = set(self._running())
        self._said = {request: said for request, said in self._said.items() if request in running}
        reports = []
        for _ in range(len(self._unsaid)):
            request, (said, at) = self._unsaid.popitem()
            # Of others than queued calls nobody asks.
            if request in running and is_call_id(request):
                self._said[request] = said, at
                reports.append(Report(request, said.done, said.total, said.message, now - at))
        if reports:
            self._send(Reports(tuple(reports)))
