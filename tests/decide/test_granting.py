"""Queued calls go to the least loaded replicas, never more than these take, and none waits while one could."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swell.decide.granting import DRAIN_S, HAND_MAX, HAND_S, Taker, grants, hand, slots_wanted


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[Taker], int, int]:
    max_inputs = draw(st.integers(1, 20))
    kept = draw(st.integers(0, 10))
    count = draw(st.integers(0, 6))
    takers = [Taker(f"r{n}", draw(st.integers(0, 30)), draw(st.integers(0, 30))) for n in range(count)]
    return takers, max_inputs, kept


@given(pools(), st.integers(0, 200))
def test_nobody_gets_more_than_it_takes_and_nothing_waits_where_there_is_room(
    pool: tuple[list[Taker], int, int], due: int
) -> None:
    takers, max_inputs, kept = pool
    given_ = grants(due, takers, max_inputs, kept)
    assert sum(given_.values()) <= due
    assert all(count > 0 for count in given_.values())
    left = []
    for taker in takers:
        leased = taker.leased + given_.get(taker.replica, 0)
        if taker.replica in given_:
            assert leased + taker.in_flight <= max_inputs + kept or leased == 1
        left.append(leased == 0 or leased + taker.in_flight < max_inputs + kept)
    if sum(given_.values()) < due:
        assert not any(left)


@given(pools(), st.integers(0, 200))
def test_the_least_loaded_go_first(pool: tuple[list[Taker], int, int], due: int) -> None:
    takers, max_inputs, kept = pool
    given_ = grants(due, takers, max_inputs, kept)
    loads = {taker.replica: taker.leased + taker.in_flight for taker in takers}
    for taker in takers:
        if taker.replica not in given_:
            continue
        last = loads[taker.replica] + given_[taker.replica] - 1
        for other in takers:
            room = max(max_inputs + kept - other.in_flight, 1) - other.leased - given_.get(other.replica, 0)
            if room > 0:
                assert loads[other.replica] + given_.get(other.replica, 0) >= last


def test_slots_of_all_are_filled_before_any_hand() -> None:
    assert grants(4, [Taker("a", 0, 0), Taker("b", 0, 2)], 2, 5) == {"a": 3, "b": 1}


def test_one_call_waits_in_line_where_gateways_keep_all_slots() -> None:
    assert grants(9, [Taker("a", 0, 50)], 4, 0) == {"a": 1}
    assert grants(9, [Taker("a", 1, 50)], 4, 0) == {}


@given(st.integers(1, 1000), st.one_of(st.none(), st.floats(0, 1000)))
def test_a_hand_is_what_a_replica_does_in_its_time(max_inputs: int, mean_run_s: float | None) -> None:
    kept = hand(max_inputs, mean_run_s)
    assert 0 <= kept <= HAND_MAX
    if mean_run_s is None or mean_run_s >= HAND_S:
        assert kept == 0
    elif mean_run_s:
        # The last in it waits no longer than that, and one call's length.
        assert (kept - 1) * mean_run_s / max_inputs <= HAND_S


@given(st.integers(0, 100_000), st.floats(0, 1000))
def test_the_slots_that_are_wanted_begin_what_waits_in_time(waiting: int, run_s: float) -> None:
    slots = slots_wanted(waiting, run_s)
    assert (slots > 0) == (waiting > 0)
    assert slots <= waiting
    if slots:
        # One more would not be needed, and all of them are.
        assert slots == waiting or slots * DRAIN_S >= waiting * run_s
        assert slots == 1 or (slots - 1) * DRAIN_S < waiting * run_s
