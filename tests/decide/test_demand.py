"""Peaks: what scaling down looks at must be the true maximum of the window, or more, never less."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swell.model.demand import PEAKS_MAX, Demand, seen

histories = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 7.0]), st.integers(0, 9)), min_size=1, max_size=60)


@given(histories, st.sampled_from([0.0, 0.5, 3.0, 10.0, 1000.0]))
def test_the_peak_of_a_window_is_its_true_maximum(history: list[tuple[float, int]], window_s: float) -> None:
    now, demand = 100.0, Demand()
    levels: list[tuple[float, float, int]] = []
    for gap_s, level in history:
        if levels:
            start, _, before = levels[-1]
            levels[-1] = (start, now + gap_s, before)
        now += gap_s
        levels.append((now, now, level))
        demand = seen(demand, level, 0, 0, now)
    true = max([level for start, end, level in levels if end + window_s > now] + [history[-1][1]])
    assert demand.peak_within(window_s, now) >= true
    if len(history) <= 30:
        assert demand.peak_within(window_s, now) == true
    assert demand.level == history[-1][1]


@given(histories)
def test_memory_is_bounded_and_use_is_remembered(history: list[tuple[float, int]]) -> None:
    now, demand, used_at = 100.0, Demand(), 0.0
    for gap_s, level in history:
        now += gap_s
        if level or demand.level:
            used_at = now
        demand = seen(demand, 0, level, 0, now)
    assert len(demand.peaks) <= PEAKS_MAX
    assert demand.used_at == used_at
