"""What if user code blocks the event loop, or holds the interpreter lock for ever? Then nothing of ours runs on it.

While inputs are worked on, two look on. Where their code runs on the loop, a thread of ours sees one that does not
turn, and asks the kernel whether the callers are still there, as the loop would have heard: what blocks it after its
caller left, or its deadline passed, is told of. And Python's faulthandler, whose own thread needs neither the loop nor
the lock, is armed to end the process, with the traceback of every thread in the log, some time after the latest moment
at which the loop would have acted on a deadline by itself.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from swell.runtime.tracebacks import user_stack

SLACK_S = 2.0
"""Beyond the deadline and the grace: the loop was late for longer than any load explains."""
_LOOK_S = 1.0
_KNOCK_S = 0.125
"""How often it is seen whether the loop turns."""
_ASK_S = 0.05
"""How often a blocked loop's callers are asked for."""
_FILE = 2
_BLOCKED = (
    "Code that nobody waits for any more blocks the event loop, and cannot be stopped: "
    "await what waits, or make the function a plain def. It was at:\n"
)

Work = TypeVar("Work")


class Watchdog(Generic[Work]):
    """Armed for the earliest deadline of what runs. Cheap to tell of every input: it re-arms once a second."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        grace_s: float,
        left: Callable[[], Sequence[Work]],
        blocked: Callable[[Sequence[Work]], None],
    ) -> None:
        """`left` and `blocked` are as those of `Onlooker`."""
        self._loop = loop
        self._late_s = grace_s + SLACK_S
        self._armed_for = math.inf
        self._earliest = math.inf
        self._resting = True
        self._looking = False
        self._onlooking = False
        self._onlooker = Onlooker(loop, grace_s, left, blocked)
        self._file: int | None = None

    def expect(self, deadline: float) -> None:
        """Something runs. The loop will have to act at `deadline` (monotonic seconds), the earliest of all that do."""
        self._earliest = deadline
        self._resting = False
        if abs(deadline - self._armed_for) > _LOOK_S and deadline < math.inf:
            self._arm()
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def look_on(self) -> None:
        """What runs can block the loop. After `expect`."""
        if not self._onlooking:
            self._onlooking = True
            self._onlooker.begin()

    def rest(self) -> None:
        """Nothing runs."""
        self._earliest = math.inf
        self._resting = True

    def _look(self) -> None:
        self._looking = not self._resting
        if self._earliest < math.inf:
            self._arm()
        else:
            faulthandler.cancel_dump_traceback_later()
            self._armed_for = math.inf
            if self._file not in (None, _FILE):
                with suppress(OSError):  # Of code that closes all there is, too.
                    os.close(self._file)
            self._file = None
        if self._looking:
            self._loop.call_later(_LOOK_S, self._look)
        elif self._onlooking:
            self._onlooking = False
            self._onlooker.pause()

    def _arm(self) -> None:
        self._armed_for = self._earliest
        ahead_s = max(0.0, self._earliest - time.monotonic()) + self._late_s
        faulthandler.dump_traceback_later(ahead_s, exit=True, file=self._said_to())

    def _said_to(self) -> int:
        """The log, opened anew so that writing to it never waits: a pipe that is full and that nobody reads would keep
        the process from its end. In a sandbox it cannot be opened anew (it is another user's): there a process whose
        runner is gone, and that has filled the pipe, ends only with its next runner, or when it is ended from outside.
        """
        if self._file is None:
            try:
                self._file = os.open(f"/dev/fd/{_FILE}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC)
            except OSError:
                self._file = _FILE
        return self._file


class Onlooker(Generic[Work]):
    """A thread that knocks at the loop and, while that does not answer, sees for itself who has left.

    `left()` names inputs whose caller hung up; `blocked(inputs)` is told of those whose caller has been gone for
    `grace_s` in which the loop did not turn once. Both are called on the thread, and only while the loop is blocked.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        grace_s: float,
        left: Callable[[], Sequence[Work]],
        blocked: Callable[[Sequence[Work]], None],
    ) -> None:
        self._loop = loop
        self._grace_s = grace_s
        self._left = left
        self._blocked = blocked
        self._on = threading.Event()
        self._thread: threading.Thread | None = None
        self._loops_thread = 0

    def begin(self) -> None:
        """Look on, until `pause`. On the loop."""
        if self._thread is None:
            self._loops_thread = threading.get_ident()
            self._thread = threading.Thread(target=self._live, name="swell-onlooker", daemon=True)
            self._thread.start()
        self._on.set()

    def pause(self) -> None:
        self._on.clear()

    def _live(self) -> None:
        while self._on.wait():
            turned = threading.Event()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # The loop is closed: the replica is over.
            # Noticed at the next knock and not at once: answering must not make two threads take turns.
            time.sleep(_KNOCK_S)
            if not turned.is_set():
                self._look_on(turned)

    def _look_on(self, turned: threading.Event) -> None:
        """Until the loop turns again."""
        since: dict[Work, float] = {}
        told: set[Work] = set()
        words = ""
        while not turned.is_set():
            now = time.monotonic()
            seen = {work: since.get(work, now) for work in self._left()}
            if seen.keys() - since.keys():
                # Read while there is time: at each file, what blocks may take the interpreter, and keep it for long.
                words = _BLOCKED + user_stack(self._loops_thread)
            since = seen
            late = time.monotonic() - self._grace_s
            overdue = [work for work, seen_s in since.items() if seen_s <= late and work not in told]
            # Asked once more: what was seen while the loop began to turn again may be of another connection.
            if overdue and not turned.is_set():
                told.update(overdue)
                sys.stderr.write(words)
                self._blocked(overdue)
            ahead_s = [seen_s - late for work, seen_s in since.items() if work not in told]
            turned.wait(max(0.0, min((_ASK_S, *ahead_s))))
