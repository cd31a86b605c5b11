"""Do rates, bursts and counts let in exactly what they say, however requests come?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.met import Met, come
from swell.decide.limit import changed, rate_text, share, spare
from swell.model.errors import SwellError
from swell.model.limits import RATE_MIN, SECONDS_MAX, Limits, limits_problem, rate_of, size_of

rates = st.floats(0.001, 10_000)
bursts = st.integers(1, 50)
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0, 5)), max_size=60)
SLACK = 1e-6


@given(rates, bursts, gaps)
def test_no_time_however_long_or_short_lets_in_more_than_its_burst_and_its_rate(
    rate: float, burst: int, gaps: list[float]
) -> None:
    met = Met("x", Limits(rate, burst))
    now, let_in = 0.0, []
    for gap in gaps:
        now += gap
        if come([met], now) is None:
            let_in.append(now)
    for first, begun in enumerate(let_in):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= burst + rate * (let_in[last] - begun) + SLACK


@given(rates, bursts, gaps)
def test_what_is_to_spare_is_let_in_and_no_more(rate: float, burst: int, gaps: list[float]) -> None:
    met = Met("x", Limits(rate, burst))
    now = 0.0
    for gap in gaps:
        now += gap
        come([met], now)
    room = spare(met, now)
    assert [come([met], now) is None for _ in range(room + 1)] == [True] * room + [False]


@given(rates, bursts, gaps)
def test_who_waits_as_told_is_let_in_and_who_comes_sooner_is_not(rate: float, burst: int, gaps: list[float]) -> None:
    met = Met("x", Limits(rate, burst))
    now = 0.0
    for gap in gaps:
        now += gap
        before = met.left
        needed = max(1.0 - min(met.tokens + (now - met.at) * rate, burst), 0.0) / rate
        refused = come([met], now)
        if refused is None:
            assert needed <= SLACK
            continue
        assert met.left == before
        assert refused.retry_after_s >= max(needed - SLACK, 1)
        assert refused.retry_after_s < max(needed, 1) + 1
        assert come([met], now + needed * 0.5) is not None
        # A little later than told: the time itself is rounded when it is added.
        now += needed * (1 + 1e-9) + 1e-9
        assert come([met], now) is None


@pytest.mark.parametrize("gateways", [1, 64])
def test_who_may_come_once_a_year_is_told_when(gateways: int) -> None:
    met = Met("x", share(Limits(RATE_MIN), gateways))
    assert come([met], 0.0) is None
    refused = come([met], 0.0)
    assert refused is not None
    assert refused.retry_after_s == pytest.approx(SECONDS_MAX * gateways)


@given(rates, bursts)
def test_what_rests_is_full_again_and_no_fuller(rate: float, burst: int) -> None:
    met = Met("x", Limits(rate, burst))
    for now in (0.0, 1e9):
        assert [come([met], now) for _ in range(burst)] == [None] * burst
        assert come([met], now) is not None


def test_a_rate_without_a_burst_lets_in_a_second_of_it_at_once() -> None:
    assert (Limits(2.5).burst_max, Limits(0.01).burst_max, Limits(7, 3).burst_max) == (3, 1, 3)


@given(st.integers(1, 20), st.lists(st.booleans(), max_size=60))
def test_never_more_are_under_way_than_may_be(most: int, comings: list[bool]) -> None:
    """True: one comes; False: one ends."""
    met, under_way = Met("x", Limits(concurrency=most)), 0
    for coming in comings:
        if not coming:
            if under_way:
                met.in_flight = under_way = under_way - 1
            continue
        refused = come([met], 0.0)
        assert (refused is not None) == (under_way == most)
        if refused is not None:
            assert (refused.status, refused.code) == (429, "too_many_in_flight")
            assert refused.message.startswith(f"{most} requests of x are under way")
        else:
            under_way += 1
        assert met.in_flight == under_way


@pytest.mark.parametrize("turned", [False, True])
def test_a_request_that_one_limit_refuses_uses_nothing_of_another(turned: bool) -> None:
    wide, narrow = Met("wide", Limits(1.0, 5)), Met("narrow", Limits(1.0, 1))
    both = [narrow, wide] if turned else [wide, narrow]
    assert come(both, 0.0) is None
    refused = come(both, 0.0)
    assert refused is not None
    assert "Requests of narrow come faster" in refused.message
    assert wide.left == (4.0, 0.0, 1)


@given(rates, bursts, rates, bursts, st.integers(0, 50))
def test_other_limits_give_nothing_back(rate: float, burst: int, rate2: float, burst2: int, used: int) -> None:
    met = Met("x", Limits(rate, burst))
    for _ in range(used):
        come([met], 0.0)
    assert changed(met, Limits(rate2, burst2), 0.0) <= min(met.tokens, burst2)


@given(rates, bursts, st.integers(0, 50))
def test_what_was_not_bounded_is_full_once_it_is_and_what_is_not_any_more_stays_so(
    rate: float, burst: int, came: int
) -> None:
    free = Met("x", Limits(concurrency=100))
    assert [come([free], 0.0) for _ in range(came)] == [None] * came
    assert changed(free, Limits(rate, burst), 1.0) == burst
    bounded = Met("x", Limits(rate, burst))
    come([bounded], 0.0)
    assert changed(bounded, Limits(concurrency=3), 1.0) == math.inf


@given(rates, bursts, st.integers(0, 50), st.integers(1, 9))
def test_shares_add_up_to_the_limit_where_each_has_at_least_one(
    rate: float, burst: int, concurrency: int, gateways: int
) -> None:
    limits = Limits(rate, burst, concurrency, 5, 7.0)
    part = share(limits, gateways)
    assert part.rate_per_s * gateways == pytest.approx(rate)
    assert part.burst_max * gateways <= max(burst, gateways)
    assert part.concurrency * gateways <= max(concurrency, gateways)
    assert bool(part.concurrency) == bool(concurrency)
    assert (part.body_max, part.timeout_s) == (5, 7.0)


@pytest.mark.parametrize(
    ("text", "per_s"),
    [
        ("100/s", 100),
        ("30/min", 0.5),
        ("30/m", 0.5),
        ("1800/h", 0.5),
        ("43200/day", 0.5),
        (" 2 / second ", 2),
        (2, 2),
    ],
)
def test_a_rate_is_read_in_any_unit(text: object, per_s: float) -> None:
    assert rate_of(text) == per_s
    assert rate_of(rate_text(per_s)) == pytest.approx(per_s)


@pytest.mark.parametrize(
    "text", ["", "100", "/s", "0/s", "-1/s", "1/week", "nan/s", 0, -1, 5e-324, float("nan"), True, None]
)
def test_what_is_no_rate_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(SwellError, match="such as '100/s'"):
        rate_of(text)


@pytest.mark.parametrize(("text", "size"), [("10", 10), (10, 10), ("2KB", 2000), ("2 KiB", 2048), ("3MiB", 3 << 20)])
def test_a_size_is_read_in_any_unit(text: object, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "0", "1.5MB", -1, 0, True, None, "1TB"])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(SwellError, match="'10MiB'"):
        size_of(text)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), None),
        (Limits(1.0, 5, 3, 10, 2.0), None),
        (Limits(burst=5), "burst without a rate"),
        (Limits(rate_per_s=-1.0), "rate_per_s must be from 0"),
        (Limits(rate_per_s=float("nan")), "rate_per_s must be from 0"),
        (Limits(rate_per_s=5e-324), "rate_per_s must be 0 (not bounded) or at least one a year"),
        (Limits(rate_per_s=RATE_MIN), None),
        (Limits(concurrency=-1), "concurrency must be"),
        (Limits(timeout_s=float("inf")), "timeout_s must be"),
    ],
)
def test_limits_from_outside_are_checked(limits: Limits, words: str | None) -> None:
    found = limits_problem(limits)
    assert found is None if words is None else words in (found or "")
