"""Which processes run, which are started again, and when is it over? Starts in order, stops in reverse."""

from __future__ import annotations

import itertools
import math
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from swell.model.errors import SwellError
from swell.supervise.child import Child, Process
from swell.supervise.log import Log
from swell.wire.identity import adopt_orphans, children

RESTART_DELAY_S = 0.1
"""Pause before the first of these restarts; doubled each time."""
ANEW_DELAY_S = 0.5
"""Pause before a child is started again that ended in order to be: that counts against no budget."""
HURRY_S = 1.0
"""What is left of any grace after a second signal."""
SWEEP_S = 10.0
"""How long what is left of our descendants may take to end after SIGKILL."""
WANTED_EVERY_S = 0.25
REST_S = 3600.0
"""Between events there is nothing to look at."""

IN_ORDER = signal.SIGUSR1
"""Asks for the same as any signal to end does, but never hurries: `swell down` of two people is not impatience."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, IN_ORDER)
CUT = signal.SIGINT
"""Tells a child that is ending not to wait for anything any more."""


class Budget(NamedTuple):
    """How often a child that ends is started again within a time; once more, and all is stopped."""

    restarts_max: int
    within_s: float


class Post:
    """A child's place: its present process, and its past ones as far as they count against the budget."""

    def __init__(self, child: Child, budget: Budget) -> None:
        self.child = child
        self.budget = budget
        self.process: Process | None = None
        self.again_at: float | None = None
        """When it is to be started again (monotonic)."""
        self.restarts: deque[float] = deque()
        self.ran = False
        """It was ready once."""

    @property
    def due(self) -> float:
        """When something must happen here by itself: a new start, or the end of waiting for readiness."""
        if self.process is None:
            return math.inf if self.again_at is None else self.again_at
        process = self.process
        return math.inf if process.ready or process.waits_for or process.late else process.ready_by

    def restart_delay(self, now: float) -> float | None:
        """Seconds until it may be started again; None when the budget is spent."""
        while self.restarts and self.restarts[0] <= now - self.budget.within_s:
            self.restarts.popleft()
        if len(self.restarts) >= self.budget.restarts_max:
            return None
        self.restarts.append(now)
        return RESTART_DELAY_S * 2.0 ** (len(self.restarts) - 1)


class Supervisor:
    """Keeps children running until told to stop. It owns its process: signals, and all children there are."""

    def __init__(
        self,
        children: Sequence[Child],
        log: Log,
        budget: Budget,
        wanted: Callable[[], bool] | None = None,
        waiting: Callable[[str], None] = lambda _words: None,
        wanted_every_s: float = WANTED_EVERY_S,
    ) -> None:
        """Each child has that `budget`. `wanted`, where given, is asked again and again; once it says no, or raises,
        everything is stopped. `waiting` is told what a child says it waits for."""
        self.log = log
        self._posts = [Post(child, budget) for child in children]
        stages = itertools.groupby(self._posts, lambda post: post.child.stage or post.child.name)
        self._stages = [tuple(posts) for _, posts in stages]
        """What starts, and stops, at the same time."""
        self._wanted = wanted
        self._wanted_every_s = wanted_every_s
        self._waiting = waiting
        self._asked: list[int] = []
        """Signals to end that came: the first stops in order."""
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        # Its end tells children that the supervisor is gone, however it went.
        self._alive_read, self._alive_write = os.pipe()

    def run(self, up: Callable[[], None], down: Callable[[], None] = lambda: None) -> None:
        """Start all, call `up`, and return once all have been stopped on request; `down` is called before they are.

        Raises SwellError when a child does not come up or does not stay, after everything was stopped.
        """
        adopt_orphans()
        with self._signals():
            try:
                self._start_all()
                if not self._asked:
                    up()
                while not self._asked and (self._wanted is None or self._wanted()):
                    self._turn(REST_S if self._wanted is None else self._wanted_every_s)
            finally:
                down()
                self._stop_all()

    # -- starting ----------------------------------------------------------------------------

    def _start_all(self) -> None:
        for stage in self._stages:
            if self._asked:
                return
            started = [self._start(post) for post in stage]
            while not all(process.ready for process in started) and not self._asked:
                self._turn(REST_S)

    def _start(self, post: Post) -> Process:
        post.again_at = None
        try:
            post.process = process = Process(post.child, self._alive_read)
        except OSError as error:
            raise SwellError("start_failed", f"The {post.child.name} could not be executed: {error}.") from None
        self._selector.register(process.output_fd, selectors.EVENT_READ, lambda: self._output(process))
        self._selector.register(process.ready_fd, selectors.EVENT_READ, lambda: self._ready(post, process))
        return process

    def _over(self, post: Post, process: Process) -> None:
        """A child ended: start it again after a while, or give up."""
        if self._stopping:
            return
        name, how = post.child.name, process.how_it_ended()
        post.ran = post.ran or process.ready
        first = not post.ran
        anew = process.ready and process.status == 0
        delay = None if first else ANEW_DELAY_S if anew else post.restart_delay(time.monotonic())
        if delay is None:
            budget = post.budget
            often = "" if first else f" {budget.restarts_max + 1} times within {budget.within_s:g} s"
            what = "did not come up" if first else f"ended{often}"
            raise SwellError("child_failed", f"The {name} {what} ({how}). {process.last_words()}", status=500)
        self.log.say(f"the {name} ended ({how}); starting it again in {delay:g} s")
        post.again_at = time.monotonic() + delay

    def _waits(self, post: Post, process: Process) -> None:
        """It says why it cannot be ready yet. What runs goes on meanwhile; a server that never ran is given up."""
        if self._stopping:
            return
        name = post.child.name
        if process.ready:
            self.log.say(f"the {name} goes on")
        elif post.ran:
            self.log.say(f"the {name} waits: {process.waits_for}")
        else:
            raise SwellError("child_failed", f"The {name} did not come up. {process.waits_for}", status=500)

    # -- one turn ----------------------------------------------------------------------------

    def _turn(self, longest_s: float) -> None:
        """Wait for something to happen, for at most this long, and deal with it."""
        now = time.monotonic()
        due = min((post.due for post in self._posts), default=now + longest_s)
        for key, _ in self._selector.select(max(min(now + longest_s, due) - now, 0.0)):
            # What came before it in this turn may have closed it, and even opened another under its number.
            if self._selector.get_map().get(key.fd) == key:
                key.data()
        now = time.monotonic()
        for post in self._posts:
            if post.due > now:
                continue
            if post.process is None:
                self._start(post)
            else:
                post.process.late = True
                post.process.signal(signal.SIGKILL)

    def _output(self, process: Process, final: bool = False) -> None:
        lines, more = process.read_output(final)
        for line in lines:
            self.log.heard(process.child.name, line)
        if not more:
            self._selector.unregister(process.output_fd)

    def _ready(self, post: Post, process: Process) -> None:
        before = process.waits_for, process.ready
        lines, more = process.read_ready()
        if before != (process.waits_for, process.ready) and process.waits_for:
            self._waits(post, process)
        for line in lines:
            self.log.say(line)
            self._waiting(line)
        if not more:
            self._selector.unregister(process.ready_fd)

    def _signalled(self, wakeup_fd: int) -> None:
        for number in os.read(wakeup_fd, 64):
            if number != signal.SIGCHLD:
                self._asked.append(number)
        self._reap()

    def _reap(self) -> None:
        """Wait for all children that ended: ours, and the orphans we are the parent of now."""
        ended: list[tuple[Post, Process]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for post in self._posts:
                if post.process is not None and post.process.pid == pid:
                    post.process.ended(os.waitstatus_to_exitcode(status))
                    self._close(post.process)
                    ended.append((post, post.process))
                    post.process = None
        for post, process in ended:
            self._over(post, process)

    def _close(self, process: Process) -> None:
        """Take in what a process wrote last. What descendants of it may still write is not waited for."""
        if process.output_fd in self._selector.get_map():
            self._output(process, final=True)
        process.read_ready()
        for fd in (process.output_fd, process.ready_fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        process.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become readable on a pipe; as they were before, afterwards."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        # What was ignored when we were started (nohup, a shell's &) stays so.
        heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, lambda *_: None) for number in (*heard, signal.SIGCHLD)}
        wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ, lambda: self._signalled(reading))
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            for fd in (reading, writing, self._alive_read, self._alive_write):
                os.close(fd)

    # -- stopping ----------------------------------------------------------------------------

    def _stop_all(self) -> None:
        self._stopping = True
        for stage in reversed(self._stages):
            for post in stage:
                post.again_at = None
            self._stop(stage)
        self._sweep()

    def _stop(self, stage: Sequence[Post]) -> None:
        """SIGTERM, the grace of these, SIGKILL. A hurry cuts the grace short."""
        for process in _running(stage):
            process.signal(signal.SIGTERM)
        until = time.monotonic() + max(post.child.grace_s for post in stage)
        hurried = killed = False
        while running := _running(stage):
            now = time.monotonic()
            if self._hurried and not hurried:
                hurried = True
                until = min(until, now + HURRY_S)
                for process in running:
                    process.signal(CUT)
            if now >= until and not killed:
                killed = True
                for process in running:
                    self.log.say(f"the {process.child.name} did not end within its grace; it is killed")
                    process.signal(signal.SIGKILL)
            self._turn(SWEEP_S if killed else until - now)

    @property
    def _hurried(self) -> bool:
        """A second signal hurries."""
        return any(number != IN_ORDER for number in self._asked[1:])

    def _sweep(self) -> None:
        """Kill every descendant that is left, until there is none: their parents' deaths make them our children."""
        until = time.monotonic() + SWEEP_S
        self._reap()
        while (left := list(children(os.getpid()))) and time.monotonic() < until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            self._turn(WANTED_EVERY_S)


def _running(stage: Sequence[Post]) -> list[Process]:
    return [post.process for post in stage if post.process is not None]
