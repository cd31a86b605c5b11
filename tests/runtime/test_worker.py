"""Which thread runs a job? Short ones share one, long ones and those behind a stall get their own."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swell.runtime import worker
from swell.runtime.breadth import WIDE_FOR
from swell.runtime.worker import Job, Workers
from swell.wire.context import InputCancellation

WAIT_S = 60.0


class Turned:
    """A loop turned by hand: its timers fire when told to, what other threads ask of it waits in `asked`."""

    def __init__(self) -> None:
        self.timers: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.asked: list[Callable[[], Any]] = []

    def call_later(self, _delay_s: float, callback: Callable[..., Any], *args: Any) -> None:
        self.timers.append((callback, args))

    def call_soon(self, callback: Callable[[], Any]) -> None:
        self.asked.append(callback)

    call_soon_threadsafe = call_soon
    time = staticmethod(time.monotonic)

    def fire(self) -> None:
        """All timers that are set."""
        timers, self.timers = self.timers, []
        for callback, args in timers:
            callback(*args)

    def turn_until(self, true: Callable[[], Any]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end
            while self.asked:
                self.asked.pop(0)()
            time.sleep(0.0005)


class Bench:
    """Workers on a loop turned by hand, and who ran what."""

    def __init__(self, limit: int) -> None:
        self.loop = Turned()
        self.workers = Workers(limit, self.loop)  # type: ignore[arg-type]  # all of a loop that they use
        self.threads: list[int] = []
        self.over = 0

    def submit(self, work: Callable[[], None] = lambda: None) -> Job:
        def run() -> None:
            self.threads.append(threading.get_ident())
            work()

        def over() -> None:
            self.over += 1

        job = Job(run, over)
        self.workers.submit(job)
        return job

    def finish(self, count: int) -> None:
        self.loop.turn_until(lambda: self.over == count)


def test_short_jobs_are_run_by_one_thread() -> None:
    bench = Bench(limit=16)
    for _ in range(500):
        bench.submit()
    bench.finish(500)
    assert len(set(bench.threads)) == 1


def test_a_job_behind_one_that_is_held_up_gets_a_thread_at_the_next_look() -> None:
    bench = Bench(limit=16)
    go = threading.Event()
    bench.submit(lambda: go.wait(WAIT_S) and None)
    bench.loop.turn_until(lambda: bench.threads)
    for _ in range(3):
        bench.submit(lambda: go.wait(WAIT_S) and None)
    assert len(bench.threads) == 1
    for running in (2, 4):
        bench.loop.fire()
        bench.loop.turn_until(lambda: len(bench.threads) == running)
    go.set()
    bench.finish(4)
    assert len(set(bench.threads)) == 4


def test_long_jobs_run_side_by_side_at_once() -> None:
    bench = Bench(limit=4)
    for number in range(8):
        bench.submit(lambda: time.sleep(0.005))
        bench.finish(number + 1)
    together = threading.Barrier(4)
    for _ in range(4):
        bench.submit(lambda: together.wait(WAIT_S) and None)
    bench.finish(12)
    assert not together.broken


def test_jobs_that_became_short_go_back_to_one_thread() -> None:
    bench = Bench(limit=4)
    for number in range(8):
        bench.submit(lambda: time.sleep(0.005))
        bench.finish(number + 1)
    for number in range(WIDE_FOR):
        bench.submit()
        bench.finish(number + 9)
    bench.threads.clear()
    for _ in range(200):
        bench.submit()
    bench.finish(WIDE_FOR + 208)
    assert len(set(bench.threads)) == 1


def test_jobs_that_compute_all_the_while_go_back_to_one_thread() -> None:
    bench = Bench(limit=4)

    def compute() -> None:
        until_ns = time.thread_time_ns() + 300_000
        while time.thread_time_ns() < until_ns:
            pass

    number = narrow = 0
    end = time.monotonic() + WAIT_S
    # More than an average needs to find out that they are not short.
    while narrow < 100:
        assert time.monotonic() < end
        bench.submit(compute)
        number += 1
        bench.finish(number)
        narrow = narrow + 1 if bench.workers._breadth.narrow else 0


def test_one_thread_is_never_more_than_one() -> None:
    bench = Bench(limit=1)
    busy = [0]
    most = [0]

    def work() -> None:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.001)
        busy[0] -= 1

    for _ in range(50):
        bench.submit(work)
        bench.loop.fire()
    bench.finish(50)
    assert most == [1]


def test_what_is_over_is_told_even_when_telling_of_another_fails() -> None:
    bench = Bench(limit=1)
    heard: list[str] = []
    both = threading.Event()

    def fail() -> None:
        raise RuntimeError("an answer that cannot be sent")

    bench.workers.submit(Job(lambda: None, fail))
    bench.workers.submit(Job(lambda: None, lambda: heard.append("told")))
    bench.submit(both.set)
    assert both.wait(WAIT_S)
    end = time.monotonic() + WAIT_S
    while not heard and time.monotonic() < end:
        try:
            bench.loop.turn_until(lambda: heard)
        except RuntimeError:
            continue
    assert heard == ["told"]


def test_whatever_comes_every_job_ends_once_and_none_after_its_cancel_goes_on() -> None:
    """Seeded: short, sleeping and spinning jobs, some interrupted, on a real loop."""
    draw = random.Random(7)
    limit = 5
    running = [0]
    most = [0]
    over: list[int] = []
    all_over = asyncio.Event()
    lock = threading.Lock()

    def job_for(workers: Workers, number: int, kind: str) -> Job:
        def run() -> None:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            try:
                if kind == "sleep":
                    time.sleep(0.003)
                elif kind == "spin":
                    end = time.monotonic() + 0.002
                    while time.monotonic() < end:
                        pass
                elif kind == "endless":
                    while True:
                        time.sleep(0.001)
            except InputCancellation:
                assert kind in ("endless", "sleep", "spin")
            finally:
                with lock:
                    running[0] -= 1

        def ended() -> None:
            over.append(number)
            if len(over) == 1500:
                all_over.set()

        job = Job(run, ended)
        workers.submit(job)
        return job

    async def main() -> None:
        workers = Workers(limit, asyncio.get_running_loop())
        for number in range(1500):
            kind = draw.choices(("short", "sleep", "spin", "endless"), (20, 2, 2, 1))[0]
            job = job_for(workers, number, kind)
            if kind == "endless":
                asyncio.get_running_loop().call_later(draw.random() * 0.02, workers.interrupt, job)
            if draw.random() < 0.1:
                await asyncio.sleep(draw.random() * 0.01)
        async with asyncio.timeout(WAIT_S):
            await all_over.wait()

    asyncio.run(main())
    assert sorted(over) == list(range(1500))
    assert running == [0]
    assert most[0] <= limit


def test_what_stops_by_itself_while_it_is_interrupted_cleans_up_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is on its way out when the exception is: it was seen to run, and is cleaning up by now."""
    bench = Bench(1)
    told, landed, done = threading.Event(), threading.Event(), []
    raise_in = worker._raise_in

    def late(ident: int | None, kind: type[BaseException]) -> None:
        told.set()
        time.sleep(0.05)
        raise_in(ident, kind)
        landed.set()

    def work() -> None:
        done.append("begun")
        try:
            while not told.is_set():
                pass
            job.stop()
        finally:
            landed.wait(WAIT_S)
            done.append("cleaned up")

    monkeypatch.setattr(worker, "_raise_in", late)
    job = bench.submit(work)
    bench.loop.turn_until(lambda: done)
    bench.workers.interrupt(job)
    bench.finish(1)
    assert done == ["begun", "cleaned up"]


INTERRUPTED_THEN_PROFILED = """
import sys, time
from swell.runtime.worker import Job
from test_worker import Bench

bench = Bench(1)
begun = []
job = Job(lambda: (begun.append(1), [time.sleep(0.001) for _ in range(100_000)]), lambda: begun.append(2))
bench.workers.submit(job)
bench.loop.turn_until(lambda: begun)
bench.workers.interrupt(job)
bench.loop.turn_until(lambda: len(begun) == 2)
calls = []
sys.setprofile(lambda *event: calls.append(event))
time.monotonic()
(lambda: None)()
sys.setprofile(None)
print("profiled", len(calls))
"""


@pytest.mark.slow
def test_after_an_interruption_a_profiler_still_gets_on() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_THEN_PROFILED],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert ended.stdout.startswith("profiled"), ended.stderr


def test_what_a_job_lets_out_ends_the_job_and_not_its_thread(capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench(limit=1)

    def leave() -> None:
        raise SystemExit(3)

    bench.submit(leave)
    bench.finish(1)
    bench.submit()
    bench.finish(2)
    assert len(set(bench.threads)) == 1
    assert "SystemExit: 3" in capfd.readouterr().err


def test_where_no_further_thread_can_be_had_jobs_wait_for_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit on threads, say that of a sandbox, may be lower than ours on inputs."""
    start, started = threading.Thread.start, 0

    def refusing(thread: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started not in (2, 5):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    bench = Bench(limit=8)
    gate = threading.Event()
    for _ in range(6):
        bench.submit(lambda: gate.wait(WAIT_S) and None)
    bench.loop.fire()
    # Looked at once more each time, with something that waits: more are tried, and one is had.
    bench.loop.turn_until(lambda: (bench.loop.fire(), len(bench.threads) == 2)[1])
    gate.set()
    bench.loop.turn_until(lambda: (bench.loop.fire(), bench.over == 6)[1])
    assert len(set(bench.threads)) == 2
    for _ in range(3):
        bench.submit()
    bench.finish(9)
