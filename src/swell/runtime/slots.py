"""Which inputs does this replica work on, and which of them must be stopped? The one slot counter.

It bounds the inputs, watches their deadlines, and stops those whose caller left. What has not stopped
within the grace ends the replica when it has one slot, and is listed as stuck when it has more: a replica
that drains does not wait for that.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from swell.runtime.turns import Line, Turn
from swell.runtime.watchdog import Watchdog


class Work(Protocol):
    """One admitted input."""

    request: str
    deadline: float
    """Monotonic seconds. It may move to a later time while it lies ahead, in any thread."""
    alone: bool
    """No other input was worked on since this one began."""
    on_loop: bool
    """Its code runs on the event loop, and can block it."""

    def interrupt(self, attempt: int) -> None:
        """Try to make its code stop; `attempt` counts from 0."""
        ...

    def expire(self) -> None:
        """The deadline has passed: the caller is to be told so. `interrupt` follows."""
        ...

    def left(self, now: float) -> bool:
        """Does nobody wait for it any more: its deadline has passed, or its caller hung up, as the kernel knows it?
        Asked by a thread while the loop is blocked."""
        ...


class Slots:
    """At most `limit` inputs at a time. `stuck(requests)` is told whenever the list of stuck inputs changes."""

    _ATTEMPTS = 2

    def __init__(
        self, limit: int, grace_s: float, loop: asyncio.AbstractEventLoop, stuck: Callable[[tuple[str, ...]], None]
    ) -> None:
        self.limit = limit
        self.grace_s = grace_s
        self.closed = ""
        """Why nothing new is admitted; empty while it is."""
        self.running: set[Work] = set()
        self.line: Line[Turn] = Line()
        """Gateways that wait for a slot, or were given one."""
        self._loop = loop
        self._report = stuck
        self._stopping: dict[Work, asyncio.TimerHandle] = {}
        self._stuck: list[Work] = []
        self._listing = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._empty: asyncio.Future[None] | None = None
        self._watchdog = Watchdog(loop, grace_s, self._left_behind, self._list)
        self._earliest = math.inf

    def free(self) -> bool:
        """Would an input be admitted now?"""
        return not self.closed and len(self.running) + len(self.line.given) < self.limit

    def idle(self) -> bool:
        """Is nothing worked on?"""
        return not self.running

    def take(self, work: Work) -> None:
        """Start counting an input. Ask `free` first."""
        if self.running:
            work.alone = False
            if len(self.running) == 1:
                next(iter(self.running)).alone = False  # Of more, none is by now.
        self.running.add(work)
        self._earliest = work.deadline if work.alone else min(self._earliest, work.deadline)
        self._watchdog.expect(self._earliest)
        if work.on_loop:
            self._watchdog.look_on()
        if work.deadline < self._timer_at:
            self._watch(work.deadline)

    def end(self, *works: Work) -> None:
        """The code of these inputs is over."""
        earliest = math.inf
        for work in works:
            self.running.discard(work)
            handle = self._stopping.pop(work, None)
            if handle is not None:
                handle.cancel()
            if self._stuck:
                self._unlist(work)
            if work.deadline < earliest:
                earliest = work.deadline
        if not self.running:
            self._watchdog.rest()
        elif earliest <= self._earliest:
            self._earliest = min(other.deadline for other in self.running)
            self._watchdog.expect(self._earliest)
        if self.line.waiting:
            self._pass_on()
        self._tell_if_empty()

    def stop(self, work: Work) -> None:
        """Nobody waits for this input any more: make its code stop."""
        if work in self.running and work not in self._stopping:
            self._attempt(work, 0)

    def look_again(self) -> None:
        """Deadlines of what runs have moved: the earliest is a later one."""
        if self.running:
            self._earliest = min(work.deadline for work in self.running)
            self._watchdog.expect(self._earliest)

    def close(self, reason: str) -> None:
        """Admit nothing from now on."""
        self.closed = self.closed or reason
        while self.line.waiting:
            self.line.waiting.popleft().refuse(410, f"This replica takes nothing new: {self.closed}.")

    # -- turns: gateways that wait for a slot ---------------------------------------------------

    def ask(self, turn: Turn) -> None:
        """A gateway asks for a slot, and may wait for it."""
        if self.closed:
            turn.refuse(410, f"This replica takes nothing new: {self.closed}.")
        elif not turn.wait_s and not self.free():
            turn.refuse(503, f"This replica works on {self.limit} of {self.limit} inputs.")
        else:
            self.line.waiting.append(turn)
            turn.wait()
            self._pass_on()

    def leave(self, turn: Turn) -> None:
        """A gateway gives up its place, or its slot."""
        self.line.leave(turn)
        self._pass_on()
        self._tell_if_empty()

    def redeem(self, turn: Turn) -> None:
        """The request that this slot was kept for is here."""
        self.line.leave(turn)

    def _pass_on(self) -> None:
        """Slots that are free go to those that wait for one, before any request that just comes."""
        line = self.line
        while line.waiting and self.free():
            turn = line.next()
            turn.give(self.limit - len(self.running) - len(line.given), len(line.waiting))

    @property
    def stuck(self) -> tuple[str, ...]:
        """Requests of the inputs that cannot be stopped."""
        return tuple(work.request for work in self._stuck)

    def is_stuck(self, work: Work) -> bool:
        """Is it one of those?"""
        return work in self._stuck

    async def emptied(self) -> None:
        """Wait until no input is worked on but what cannot be stopped, those that a slot is held for included: they are
        another process's."""
        if self._busy():
            self._empty = self._loop.create_future()
            await self._empty

    def _busy(self) -> bool:
        return len(self.running) > len(self._stuck) or any(turn.holds for turn in self.line.given)

    def _tell_if_empty(self) -> None:
        if self._empty is not None and not self._empty.done() and not self._busy():
            self._empty.set_result(None)

    def _attempt(self, work: Work, attempt: int) -> None:
        if attempt < self._ATTEMPTS:
            pause = self.grace_s / self._ATTEMPTS
            self._stopping[work] = self._loop.call_later(pause, self._attempt, work, attempt + 1)
            work.interrupt(attempt)
        else:
            self._list((work,))

    def _left_behind(self) -> list[Work]:
        """What runs and nobody waits for. For the watchdog's thread, while the loop is blocked."""
        now, running = time.monotonic(), tuple(self.running)
        return [work for work in running if work in self._stopping or work.left(now)]

    def _list(self, works: Sequence[Work]) -> None:
        """These cannot be stopped. From the loop, or from the watchdog's thread."""
        with self._listing:
            new = [work for work in works if work not in self._stuck]
            self._stuck += new
            # What ended a moment before it was listed did not find itself on the list.
            self._stuck = [work for work in self._stuck if work in self.running]
            if new and self._stuck:
                self._report(self.stuck)
                self._loop.call_soon_threadsafe(self._tell_if_empty)

    def _unlist(self, work: Work) -> None:
        with self._listing:
            if work in self._stuck:
                self._stuck.remove(work)
                self._report(self.stuck)

    def _watch(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._overdue)

    def _overdue(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = time.monotonic()
        ahead = math.inf
        for work in self.running - self._stopping.keys():
            if work.deadline <= now:
                # Each in a turn of its own: what one raises is nothing to the deadlines of the others.
                self._loop.call_soon(self._expire, work)
            else:
                ahead = min(ahead, work.deadline)
        if ahead < math.inf:
            self._watch(ahead)
        self.look_again()

    def _expire(self, work: Work) -> None:
        if work not in self.running or work in self._stopping:
            return
        if work.deadline > time.monotonic():
            # It moved meanwhile: another thread told of progress just in time.
            self.look_again()
            if work.deadline < self._timer_at:
                self._watch(work.deadline)
            return
        try:
            work.expire()
        finally:
            self.stop(work)
