"""Does the runner hear the newest of what code says of its progress, and not too often? Does the code have its time?"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replica_harness import ReplicaProcess, function

from swell.model.call import Body, call_id
from swell.runtime import progress as module
from swell.runtime.progress import EVERY_S, Progress
from swell.runtime.runner.queued.running import Begun
from swell.runtime.slots import Slots
from swell.wire.calls import MESSAGE_MAX, Granted
from swell.wire.child import Report, Reports
from swell.wire.context import Input, Said

IDS = tuple(call_id(1, bytes([n] * 10)) for n in range(3))
REQUESTS = (*IDS, "a-request")


class Timer:
    def __init__(self, at: float, then: Callable[[], None]) -> None:
        self.at = at
        self.then = then
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []

    def call_soon_threadsafe(self, then: Callable[[], None]) -> None:
        self.soon.append(then)

    def call_later(self, delay_s: float, then: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay_s, then))
        return self.timers[-1]

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    def wait(self, seconds: float) -> None:
        self.turn()
        self.now += seconds
        due, self.timers = [t for t in self.timers if t.at <= self.now], [t for t in self.timers if t.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.then()


class Work:
    deadline = math.inf

    def __init__(self, request: str) -> None:
        self.requests = (request,)
        self.gone_on: list[float] = []

    def go_on(self, now: float) -> None:
        self.gone_on.append(now)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0.0, 1.5)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("lose")),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_runner_hears_the_newest_of_each_call_and_not_too_often(steps: list[tuple[Any, ...]]) -> None:
    loop = Loop()
    sent: list[tuple[float, Reports]] = []
    running = list(REQUESTS)
    known: dict[str, Report] = {}
    newest: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "monotonic", lambda: loop.now)
        told = Progress(
            loop,  # type: ignore[arg-type]
            lambda message: sent.append((loop.now, message)),
            lambda: running,
            lambda: None,
        )
        here = told._thread
        for number, step in enumerate(steps):
            match step:
                case ("say", at, blocks) if REQUESTS[at] in running:
                    work = Work(REQUESTS[at])
                    told._thread = here if blocks else -1
                    told.hear(Input(REQUESTS[at], math.inf, work=work), Said(float(number), None, ""))
                    told._thread = here
                    newest[REQUESTS[at]] = number
                    assert work.gone_on == [loop.now]
                case ("wait", seconds):
                    loop.wait(seconds)
                case ("turn",):
                    loop.turn()
                case ("end", at) if REQUESTS[at] in running:
                    running.remove(REQUESTS[at])
                case ("lose",):
                    # There is another runner, which knows nothing.
                    loop.turn()
                    known, sent = {}, []
                    told._send = lambda message, sent=sent: sent.append((loop.now, message))
                    told.say_again()
        loop.wait(EVERY_S)
        loop.wait(EVERY_S)
    times = [at for at, _ in sent]
    assert all(after - before >= EVERY_S - 1e-6 for before, after in pairwise(times))
    for _, message in sent:
        known |= {report.request: report for report in message.reports}
    assert "a-request" not in known
    assert {id: known[id].done for id in IDS if id in running and id in newest} == {
        id: number for id, number in newest.items() if id in running and id in IDS
    }


def test_a_process_that_was_forked_says_nothing() -> None:
    """It has the runner's socket, on which frames of two would be mixed."""
    ours, runner = socket.socketpair()
    with ours, runner:
        told = Progress(
            Loop(),  # type: ignore[arg-type]
            lambda _message: ours.sendall(b"said"),
            lambda: REQUESTS,
            lambda: None,
        )
        current = Input(IDS[0], math.inf, work=Work(IDS[0]))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                told.hear(current, Said(1.0, None, ""))
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runner.setblocking(False)
        with pytest.raises(BlockingIOError):
            runner.recv(9)
        told.hear(current, Said(1.0, None, ""))
        assert runner.recv(9) == b"said"


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    faulthandler.cancel_dump_traceback_later()


def test_a_deadline_that_moved_is_kept_where_it_is_then(disarmed: None) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        slots = Slots(1, 60.0, loop, lambda _requests: None)
        expired: list[float] = []
        began = time.monotonic()
        work: Any = mock.Mock(request="a", deadline=began + 0.05, on_loop=False)
        work.expire = lambda: expired.append(time.monotonic())
        slots.take(work)
        work.deadline = began + 0.5
        async with asyncio.timeout(30):
            while not expired:  # noqa: ASYNC110 — nothing tells us of it
                await asyncio.sleep(0.005)
        assert expired[0] >= began + 0.5
        slots.end(work)

    asyncio.run(scenario())


@given(
    st.builds(
        Report,
        st.just(IDS[0]),
        st.none() | st.floats(),
        st.none() | st.floats(),
        st.text(max_size=500),
        st.floats(),
    )
)
def test_whatever_a_replica_says_is_bounded(report: Report) -> None:
    begun = Begun()
    granted = Granted(IDS[0], 7, "work", Body(""), "", 60.0)
    begun.hear((IDS[0], 7), report, str, 1000.0)
    assert begun.told() == ()
    begun.begin(granted, 1000.0)
    begun.hear((IDS[0], 7), report, str.upper, 1060.0)
    begun.hear((IDS[0], 6), report, str, 1060.0)
    (told,) = begun.told()
    assert (told.token, told.begun_at) == (7, 1000.0)
    assert told.progress is not None
    assert 1000.0 <= told.progress.at <= 1060.0
    assert all(value is None or math.isfinite(value) for value in (told.progress.done, told.progress.total))
    assert told.progress.message == report.message.upper()[:MESSAGE_MAX].replace("\0", "?")
    begun.end((IDS[0], 7))
    assert begun.told() == ()


SOURCE = """
    import asyncio, time
    import swell

    async def blocks(seconds: float) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            swell.progress(1)
            time.sleep(0.01)
        return "done"
"""


@pytest.mark.slow
def test_code_that_blocks_the_loop_and_says_that_it_goes_on_goes_on() -> None:
    with ReplicaProcess(SOURCE, function("blocks", asynchronous=True), timeout_s=2.5, timeout_max_s=60.0) as replica:
        replica.ready()
        # Longer than its timeout, the grace and what the watchdog allows beyond.
        assert replica.call("blocks", {"seconds": 6.5}) == "done"
