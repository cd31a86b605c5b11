"""Is a length of time read as it was meant, and nothing else read as one?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.durations import seconds_of

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
parts = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS_S))), min_size=1, max_size=4)


@given(parts)
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    assert seconds_of("".join(f"{n}{unit}" for n, unit in parts)) == sum(n * UNITS_S[unit] for n, unit in parts)


@given(st.floats(0, 1e9))
def test_a_bare_number_is_seconds(seconds: float) -> None:
    assert seconds_of(repr(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "soon", "m", "1 h", "10min", "1h-5m", "٣s"])
def test_anything_else_is_none(text: str) -> None:
    assert math.isnan(seconds_of(text))
