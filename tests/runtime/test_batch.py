"""Is every input in one batch, none too large, in order, and nobody kept waiting who need not be?"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swell.runtime.batch import NEVER, NOW, Gathering, groups, shares


class Traffic(RuleBasedStateMachine):
    """Inputs that come, leave and are worked on, in any order and at any time: the shell asks after each step."""

    @rule(max_size=st.integers(1, 5), wait_ms=st.integers(0, 50), side_by_side=st.integers(1, 3))
    @precondition(lambda self: not hasattr(self, "line"))
    def begin(self, max_size: int, wait_ms: int, side_by_side: int) -> None:
        self.line: Gathering[int] = Gathering(max_size, wait_ms / 1000, side_by_side)
        self.now = 100.0
        self.came: dict[int, float] = {}
        self.waiting: list[int] = []
        self.running: list[list[int]] = []
        self.seen: list[int] = []
        self.free_since = -math.inf
        """Since when a batch more could run."""

    @rule()
    @precondition(lambda self: hasattr(self, "line"))
    def comes(self) -> None:
        item = len(self.came)
        self.came[item] = self.now
        self.waiting.append(item)
        self.line.add(item, self.now)
        self.go()

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: hasattr(self, "line") and self.waiting)
    def leaves(self, which: int) -> None:
        item = self.waiting.pop(which % len(self.waiting))
        self.line.leave(item)
        self.go()

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: hasattr(self, "line") and self.running)
    def ends(self, which: int) -> None:
        batch = self.running.pop(which % len(self.running))
        if len(self.running) + 1 == self.line.side_by_side:
            self.free_since = self.now
        self.line.ended(len(batch), self.now)
        self.go()

    @rule(ms=st.floats(0.1, 60.0))
    @precondition(lambda self: hasattr(self, "line"))
    def time_passes(self, ms: float) -> None:
        until = self.now + ms / 1000
        while (due := self.line.due()) <= until:
            # The shell's timer.
            self.now = max(self.now, due)
            self.go()
        self.now = until
        self.go()

    def go(self) -> None:
        while batch := self.line.take(self.now):
            assert len(self.running) < self.line.side_by_side
            assert len(batch) <= self.line.max_size
            assert batch == self.waiting[: len(batch)], "in the order in which they came"
            del self.waiting[: len(batch)]
            assert not set(batch) & set(self.seen), "each once"
            self.seen += batch
            self.running.append(batch)

    @invariant()
    def nobody_waits_longer_than_said_while_there_is_room(self) -> None:
        if hasattr(self, "line") and self.waiting and len(self.running) < self.line.side_by_side:
            free_for = self.now - max(self.free_since, self.came[self.waiting[0]])
            assert free_for <= self.line.wait_s + 1e-9
            assert len(self.waiting) < self.line.max_size, "a full batch goes at once"

    @invariant()
    def it_says_when_to_look_again(self) -> None:
        if hasattr(self, "line"):
            room = len(self.running) < self.line.side_by_side
            assert (self.line.due() < NEVER) == bool(self.waiting and room)
            assert len(self.line) == len(self.waiting)


TestTraffic = Traffic.TestCase


sizes = st.integers(2, 64)


@given(sizes, st.floats(0, 10), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_who_calls_alone_never_waits(max_size: int, wait_s: float, rounds: list[tuple[float, float]]) -> None:
    line: Gathering[int] = Gathering(max_size, wait_s, 1)
    now = 0.0
    for at, (pause, took) in enumerate(rounds):
        now += pause
        line.add(at, now)
        assert line.take(now) == [at]
        now += took
        line.ended(1, now)


@given(sizes, st.integers(1, 100))
def test_callers_who_come_back_stay_together(max_size: int, callers: int) -> None:
    """However they came first, from the third batch on the batches are as large as they can be."""
    line: Gathering[int] = Gathering(max_size, 0.005, 1)
    now, taken = 0.0, []
    line.add(0, now)
    batch = line.take(now)
    for each in range(1, callers):
        line.add(each, now)
    for _ in range(3 + 2 * callers // max_size):
        now += 0.1
        line.ended(len(batch), now)
        for each in batch:
            # Each is back a little later than the one before it, and all before the wait is over.
            now += 0.004 / len(batch)
            waiting_before = line.take(now)
            if waiting_before:
                taken.append(len(waiting_before))
                now += 0.1
                line.ended(len(waiting_before), now)
                for other in waiting_before:
                    line.add(other, now)
            line.add(each, now)
        batch = line.take(now) or line.take(line.due())
        taken.append(len(batch))
    assert taken[-1] == min(callers, max_size)


def test_who_had_room_all_along_does_not_wait_anew_for_those_who_may_come_back() -> None:
    line: Gathering[str] = Gathering(5, 0.025, 2)
    line.add("first", 1.0)
    assert line.take(1.0) == ["first"]
    line.add("second", 1.0)
    line.ended(1, 1.02)
    assert line.take(1.024) == []
    assert line.due() == 1.025
    assert line.take(1.025) == ["second"]


def test_nothing_that_ran_a_while_ago_is_waited_for() -> None:
    line: Gathering[str] = Gathering(8, 0.005, 1)
    for each in "abc":
        line.add(each, 1.0)
    assert line.take(1.0) == ["a", "b", "c"]
    line.ended(3, 2.0)
    line.add("d", 2.001)
    assert (line.take(2.001), line.due()) == ([], 2.005)
    line.leave("d")
    line.add("e", 2.006)
    assert line.due() <= 2.006
    assert line.take(2.006) == ["e"]


def test_beside_a_batch_that_runs_the_next_goes_when_it_is_full_or_has_waited() -> None:
    line: Gathering[int] = Gathering(2, 0.005, 2)
    line.add(0, 1.0)
    assert line.take(1.0) == [0]
    line.add(1, 1.0)
    assert (line.take(1.0), line.due()) == ([], 1.005)
    line.add(2, 1.001)
    assert (line.due(), line.take(1.001)) == (NOW, [1, 2])
    line.add(3, 1.002)
    assert line.due() == NEVER


values = st.integers()
arguments = st.tuples(
    st.lists(values, max_size=2).map(tuple), st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2)
)


@given(st.lists(arguments, max_size=20))
def test_each_input_is_in_one_call_with_its_own_arguments(given: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
    made = groups(given)
    assert sorted(place for group in made for place in group.members) == list(range(len(given)))
    for group in made:
        assert group.members == sorted(group.members)
        for at, place in enumerate(group.members):
            assert tuple(column[at] for column in group.args) == given[place][0]
            assert {name: column[at] for name, column in group.kwargs.items()} == given[place][1]
    shapes = [(len(given[group.members[0]][0]), frozenset(given[group.members[0]][1])) for group in made]
    assert len(set(shapes)) == len(shapes)


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_shares_add_up_and_are_even(total: int, count: int) -> None:
    parts = shares(total, count)
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1
