"""Queued calls go to the least loaded replicas, never more than these take, and none waits while one could."""

from __future__ import annotations

import msgspec
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


@st.composite
def queues(draw: st.DrawFn) -> tuple[int, int, bool]:
    """How many are due, how many of them are suspects, and whether the first is one."""
    suspects, others = draw(st.integers(0, 10)), draw(st.integers(0, 10))
    return suspects + others, suspects, bool(suspects) and (not others or draw(st.booleans()))


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


@given(pools(), st.data(), queues())
def test_a_suspect_is_given_where_nothing_is_and_nothing_is_given_beside_it(
    pool: tuple[list[Taker], int, int], data: st.DataObject, queue: tuple[int, int, bool]
) -> None:
    takers, max_inputs, kept = pool
    leased = [data.draw(st.sampled_from([0, 0, 1, 3])) for _ in takers]
    takers = [
        msgspec.structs.replace(taker, leased=count, has_suspect=count == 1 and data.draw(st.booleans()))
        for taker, count in zip(takers, leased, strict=True)
    ]
    due, suspects, first = queue
    given_ = grants(due, takers, max_inputs, kept, suspects, first)
    taken = {taker.replica: taker for taker in takers}
    assert sum(given_.values()) <= due
    busy = [taker for taker in takers if taker.leased and not taker.has_suspect]
    idle = [taker for taker in takers if not taker.leased]
    assert not any(taken[replica].has_suspect for replica in given_)
    # What has calls already gets no more than there are others.
    assert sum(given_.get(taker.replica, 0) for taker in busy) <= due - suspects
    if due:
        # None that could take the first waits, and where there are suspects enough each gets one.
        assert not idle or given_
        assert not idle or not first or any(taker.replica in given_ for taker in idle)
        assert sum(taker.replica in given_ for taker in idle) >= min(len(idle), suspects if first else 0, due)
    if first and not idle and busy:
        # One has its turn soon: the one that has least.
        held_back = min(busy, key=lambda taker: (taker.leased, taker.in_flight, taker.replica))
        assert held_back.replica not in given_


@given(pools(), st.integers(0, 50), st.integers(0, 50))
def test_what_has_calls_goes_on_being_given_others_beside_suspects_that_wait(
    pool: tuple[list[Taker], int, int], others: int, suspects: int
) -> None:
    takers, max_inputs, kept = pool
    busy = [msgspec.structs.replace(taker, leased=taker.leased or 1) for taker in takers]
    assert grants(others + suspects, busy, max_inputs, kept, suspects) == grants(others, busy, max_inputs, kept)


def test_a_suspect_goes_to_an_idle_replica_however_much_others_have_to_do() -> None:
    assert grants(1, [Taker("a", 0, 9), Taker("b", 1, 0)], 10, 0, 1, True) == {"a": 1}
    assert grants(2, [Taker("a", 1, 0), Taker("b", 2, 0)], 10, 0, 1, True) == {"b": 1}
    assert grants(3, [Taker("a", 1, 0, has_suspect=True)], 10, 64, 0) == {}


@given(st.integers(0, 1000), st.floats(0, 1000), st.integers(1, 50), st.integers(0, 1000))
def test_each_suspect_that_is_begun_soon_wants_a_replica_of_its_own(
    waiting: int, run_s: float, max_inputs: int, suspects: int
) -> None:
    alike = slots_wanted(waiting, run_s)
    slots = slots_wanted(waiting, run_s, min(suspects, waiting), max_inputs)
    assert slots == alike + min(suspects, alike) * (max_inputs - 1)


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
