"""Does the server's clock go on whatever is done to the machine's, never back, and is it right again in the end?"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.clock import PACE_BEHIND, SystemClock

CLOSE_S = 1e-3
"""What is near enough, of sums of times that are as large as those since the epoch."""


class Step(NamedTuple):
    """So much time passes, and then the machine's clock is set by so much."""

    passes_s: float
    set_by_s: float


steps = st.lists(st.builds(Step, st.floats(0.0, 100.0), st.sampled_from([0.0, 0.0, -3600.0, -1.0, 0.5, 86400.0])))


class Machine:
    """A clock that people set, and one that nobody sets."""

    def __init__(self) -> None:
        self.ticks = 5.0
        self.off_s = 1.7e9

    def wall(self) -> float:
        return self.off_s + self.ticks


@given(steps)
def test_it_never_goes_back_nor_stands_still_nor_before_the_machines(steps: list[Step]) -> None:
    machine = Machine()
    clock = SystemClock(machine.wall, lambda: machine.ticks)
    before = clock.now()
    assert before == machine.wall()
    for step in steps:
        machine.ticks += step.passes_s
        now = clock.now()
        assert now - before >= step.passes_s * PACE_BEHIND - CLOSE_S
        assert now >= machine.wall()
        machine.off_s += step.set_by_s
        before = clock.now()
        assert before >= now


@given(st.floats(1.0, 1e5), st.floats(0.0, 1.0))
def test_what_it_was_set_back_by_it_catches_up_with(set_back_s: float, part: float) -> None:
    machine = Machine()
    clock = SystemClock(machine.wall, lambda: machine.ticks)
    begun = clock.now()
    machine.off_s -= set_back_s
    machine.ticks += part * set_back_s
    assert clock.now() - begun == pytest.approx(part * set_back_s * PACE_BEHIND, abs=CLOSE_S)
    machine.ticks += set_back_s / (1 - PACE_BEHIND)
    assert clock.now() == pytest.approx(machine.wall(), abs=CLOSE_S)


@given(steps)
def test_that_of_schedules_says_no_time_before_it_has_come(steps: list[Step]) -> None:
    machine = Machine()
    clock = SystemClock(machine.wall, lambda: machine.ticks, pace_behind=0.0)
    latest = clock.now()
    for step in steps:
        machine.ticks += step.passes_s
        machine.off_s += step.set_by_s
        latest = max(latest, machine.wall())
        assert clock.now() == latest
