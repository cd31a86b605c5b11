"""Do jobs get as many threads as are of use to them, and seldom more? Against a small model of what threads do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.runtime.breadth import COMPUTING_NS, SHORT_NS, Breadth

JOBS = 30_000
PLAINLY = 1.25
"""An average that has to pass a bound by less is long on its way there."""


@dataclass
class Kind:
    """What a job does, and how many of its kind there are at a time."""

    computes_ns: int
    waits_ns: int = 0
    lets_go: bool = False
    """It computes without the interpreter, so that others do at the same time."""
    callers: int = 16
    cores: int = 4

    def run(self, breadth: Breadth) -> tuple[int, int, int]:
        """One job: how long it took, its CPU time, and how much later it is over than the one before."""
        side_by_side = 1 if breadth.narrow else min(self.callers, breadth.width)
        at_once = min(self.cores, side_by_side) if self.lets_go else 1
        every_ns = max(self.computes_ns // at_once, (self.computes_ns + self.waits_ns) // side_by_side, 1)
        return max(self.computes_ns + self.waits_ns, every_ns * side_by_side), self.computes_ns, every_ns


def narrow_share(breadth: Breadth, kind: Kind, jobs: int = JOBS, since_ns: int = 0) -> float:
    """Of so many jobs, how many were run while one thread was held to be enough."""
    now_ns, narrow = since_ns, 0
    for _ in range(jobs):
        narrow += breadth.narrow
        took_ns, cpu_ns, every_ns = kind.run(breadth)
        now_ns += every_ns
        breadth.learn(took_ns, cpu_ns, now_ns)
    return narrow / jobs


between = st.integers(int(PLAINLY * SHORT_NS), int(COMPUTING_NS / PLAINLY))
callers = st.integers(2, 100)
limits = st.integers(2, 100)


@settings(max_examples=30)
@given(limits, callers, st.integers(0, SHORT_NS), st.integers(0, SHORT_NS))
def test_short_jobs_share_a_thread_whatever_they_do(limit: int, callers: int, took_ns: int, computes_ns: int) -> None:
    computes_ns = min(computes_ns, took_ns)
    assert narrow_share(Breadth(limit), Kind(computes_ns, took_ns - computes_ns, callers=callers), 2_000) == 1


@pytest.mark.slow
@settings(max_examples=30)
@given(limits, callers, between, st.integers(1, 8))
def test_jobs_that_hold_the_interpreter_share_a_thread_but_when_more_are_tried(
    limit: int, callers: int, computes_ns: int, cores: int
) -> None:
    assert 0.9 < narrow_share(Breadth(limit), Kind(computes_ns, callers=callers, cores=cores)) < 1


@pytest.mark.slow
@settings(max_examples=30)
@given(limits, callers, between, st.integers(2, 8))
def test_jobs_that_compute_without_it_get_threads_but_when_one_is_tried(
    limit: int, callers: int, computes_ns: int, cores: int
) -> None:
    assert narrow_share(Breadth(limit), Kind(computes_ns, lets_go=True, callers=callers, cores=cores)) < 0.08


@settings(max_examples=30)
@given(limits, callers, st.integers(0, 5_000_000), st.integers(int(PLAINLY * SHORT_NS), 50_000_000), st.booleans())
def test_jobs_that_wait_get_threads(limit: int, callers: int, computes_ns: int, waits_ns: int, lets_go: bool) -> None:
    kind = Kind(min(computes_ns, int(waits_ns / PLAINLY)), waits_ns, lets_go, callers)
    assert narrow_share(Breadth(limit), kind) < 0.05


@settings(max_examples=30)
@given(limits, st.integers(int(PLAINLY * COMPUTING_NS), 1_000_000_000))
def test_long_jobs_get_threads_whatever_they_do(limit: int, computes_ns: int) -> None:
    assert narrow_share(Breadth(limit), Kind(computes_ns)) < 0.05


@pytest.mark.slow
@settings(max_examples=15)
@given(limits, st.sampled_from([Kind(300_000), Kind(300_000, lets_go=True), Kind(50_000, 400_000), Kind(9_000_000)]))
def test_jobs_that_change_are_seen_to_have(limit: int, kind: Kind) -> None:
    breadth, later_ns = Breadth(limit), 10**12
    before = narrow_share(breadth, kind)
    assert narrow_share(breadth, Kind(10_000), since_ns=later_ns) > 0.6
    assert narrow_share(breadth, Kind(10_000), since_ns=2 * later_ns) == 1
    assert abs(narrow_share(breadth, kind, since_ns=3 * later_ns) - before) < 0.05


def test_what_is_held_up_gets_twice_as_many_each_time_and_one_again_when_nothing_waits() -> None:
    breadth = Breadth(5)
    widths = []
    for _ in range(4):
        breadth.double()
        widths.append(breadth.width)
    assert widths == [2, 4, 5, 5]
    breadth.rest()
    assert breadth.width == 1
