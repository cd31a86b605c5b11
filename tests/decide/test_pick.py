"""Is a free replica always found, fairly, and the less loaded of two?"""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.pick import fills, pick


class Free(msgspec.Struct):
    in_flight: int
    elsewhere: int = 0


draws = st.floats(0.0, 1.0, exclude_max=True)
loads = st.lists(st.integers(0, 50), min_size=1, max_size=40)


@given(loads, draws)
def test_it_is_one_of_those_given(levels: list[int], draw: float) -> None:
    free = [Free(level) for level in levels]
    assert any(pick(free, draw) is one for one in free)


@given(loads.filter(lambda levels: len(levels) > 1), draws)
def test_never_the_most_loaded_of_all_when_it_stands_alone(levels: list[int], draw: float) -> None:
    levels = [*levels, max(levels) + 1]
    assert pick([Free(level) for level in levels], draw).in_flight < max(levels)


@given(st.integers(2, 30), st.data())
def test_of_two_the_less_loaded(low: int, data: st.DataObject) -> None:
    pair = data.draw(st.permutations([Free(low), Free(low - 1)]))
    assert pick(pair, data.draw(draws)).in_flight == low - 1


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), draws)
def test_what_other_gateways_have_there_counts_as_much(a: int, b: int, c: int, d: int, draw: float) -> None:
    one, other = Free(a, b), Free(c, d)
    taken = pick([one, other], draw)
    assert taken.in_flight + taken.elsewhere == min(a + b, c + d)


@given(st.integers(2, 25))
def test_every_ordered_pair_is_as_likely_as_any_other(count: int) -> None:
    """With equal loads the first of the pair is taken: over all pairs each replica comes up equally often."""
    free = [Free(0) for _ in range(count)]
    pairs = count * (count - 1)
    taken = [id(pick(free, (n + 0.5) / pairs)) for n in range(pairs)]
    assert {taken.count(id(one)) for one in free} == {count - 1}
    # With one idle replica among busy ones, it wins every pair it is in: 2 of every `count`.
    free[0].in_flight, busy = 0, free[1:]
    for one in busy:
        one.in_flight = 1
    assert sum(pick(free, (n + 0.5) / pairs) is free[0] for n in range(pairs)) == 2 * (count - 1)


@given(st.integers(1, 64), st.integers(2, 30), st.lists(draws, min_size=1, max_size=200))
def test_batches_are_filled_one_replica_after_another(size: int, count: int, many: list[float]) -> None:
    free, last = [Free(0) for _ in range(count)], None
    for draw in many:
        if last is None or not fills(last, size):
            last = pick(free, draw)
        last.in_flight += 1
    # All but one batch are full, and none is begun where another one lacks somebody.
    assert sum(one.in_flight % size != 0 for one in free) <= 1
    assert sum(one.in_flight for one in free) == len(many)


def test_an_idle_replica_has_no_batch_to_fill() -> None:
    assert not fills(Free(0), 8)
    assert fills(Free(1), 8)
    assert fills(Free(9), 8)
    assert not fills(Free(8), 8)
    assert not fills(Free(3), 1)
