"""Is a stream's head sent before all else, in whatever order the loop hears of it, and is its pipe closed by one?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import pytest
from test_worker import WAIT_S, Bench

from swell.model.workload import Method
from swell.runtime.arguments import Arguments
from swell.runtime.call import Call, Callee
from swell.runtime.results import Accepted
from swell.runtime.shared import ReplicaContext
from swell.wire.context import InputCancellation


class Told:
    """What the gateway is told, in order."""

    def __init__(self) -> None:
        self.request = SimpleNamespace(id="q1", deadline=1e12, trusted=False, header=lambda _name: b"", reply=None)
        self.closed = False
        self.writable = True
        self.on_writable: Callable[[], None] | None = None
        self.said: list[str] = []

    def begin(self, *_: Any) -> None:
        self.said.append("head")

    def write(self, data: bytes) -> None:
        self.said.append(data.decode())

    def end(self, _trailers: bytes) -> None:
        self.closed = True
        self.said.append("over")


def ended(bench: Bench, jobs: int) -> None:
    """Wait, while the loop does not turn, until so many jobs have ended that it was not told of."""
    end = time.monotonic() + WAIT_S
    while len(bench.workers._ended) < jobs:
        assert time.monotonic() < end
        time.sleep(0.0005)


def one() -> Iterator[int]:
    yield 1


def called(bench: Bench, told: Told, function: Callable[[], Any]) -> Call:
    slots = SimpleNamespace(end=lambda _work: None)
    replica = ReplicaContext(bench.loop, bench.workers, slots, Context(), ())  # type: ignore[arg-type]  # what is used
    callee = Callee(Method("one"), function, Arguments("one", function))
    return Call(replica, told, callee, Accepted("", False))  # type: ignore[arg-type]  # all of an exchange that is used


def test_a_stream_that_is_over_before_the_loop_heard_of_it_is_sent_from_its_head() -> None:
    bench, told = Bench(2), Told()
    call = called(bench, told, one)
    # The loop is asked once to look at all jobs that end: here for another, before the stream begins.
    bench.submit()
    ended(bench, 1)
    call.complete()
    ended(bench, 2)
    bench.loop.turn_until(lambda: told.closed)
    assert told.said == ["head", "data: 1\n\n", "event: end\ndata:\n\n", "over"]


def test_a_stream_whose_reader_is_behind_has_an_end_whatever_the_loop_hears_of_first() -> None:
    bench, told = Bench(2), Told()
    told.writable = False
    call = called(bench, told, one)
    bench.submit()
    ended(bench, 1)
    call.complete()
    ended(bench, 2)
    bench.loop.turn_until(lambda: not bench.loop.asked)
    assert told.said == ["head"]
    told.writable = True
    assert told.on_writable is not None
    told.on_writable()
    assert told.said == ["head", "data: 1\n\n", "event: end\ndata:\n\n", "over"]


class Seen:
    """A lock, with who let it go."""

    def __init__(self, real: Any, released_by: list[int]) -> None:
        self._real = real
        self._released_by = released_by
        self.acquire, self.locked = real.acquire, real.locked

    def release(self) -> None:
        self._released_by.append(threading.get_ident())
        self._real.release()


def test_what_wakes_a_stream_s_thread_is_let_go_by_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that ask whether it is locked, and then let it go, may both do so: the second time is an error."""
    released_by: list[int] = []
    real = threading.Lock
    began = threading.Event()

    def goes_on() -> Iterator[int]:
        try:
            began.set()
            while True:
                time.sleep(0.001)
        except InputCancellation:
            return one()

    bench, told = Bench(2), Told()
    call = called(bench, told, goes_on)
    monkeypatch.setattr("swell.runtime.stream.threading", SimpleNamespace(Lock=lambda: Seen(real(), released_by)))
    call.complete()
    assert began.wait(WAIT_S)
    call.interrupt(0)
    bench.loop.turn_until(lambda: told.closed)
    assert set(released_by) <= {threading.get_ident()}
    assert "data: 1" not in "".join(told.said), "nobody waits for its items"
