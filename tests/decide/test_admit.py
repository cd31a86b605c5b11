"""Are exactly the requests held that the limits allow, and the others refused in words that help?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swell.decide.admit import admit, held_too_long

sizes = st.integers(0, 10**9)


@given(sizes, sizes, sizes, sizes, sizes)
def test_held_if_and_only_if_within_the_limits(held: int, most: int, there: int, body: int, room: int) -> None:
    refusal = admit("default/app/fn", held=held, hold_max=most, held_bytes=there, body_bytes=body, hold_bytes_max=room)
    fits = held < most and (body == 0 or there + body <= room)
    assert (refusal is None) == fits
    if refusal is not None:
        assert (refusal.status, refusal.code) == (429, "too_many_held")
        assert refusal.retry_after_s > 0
        assert ("hold_max" in refusal.message) == (held >= most)


@given(sizes, sizes, sizes, st.text(min_size=1), st.integers(1, 60))
def test_a_closed_pool_holds_nothing_and_says_why(held: int, most: int, body: int, why: str, again_s: int) -> None:
    refusal = admit(
        "default/app/fn",
        held=held,
        hold_max=most,
        held_bytes=0,
        body_bytes=body,
        hold_bytes_max=10**9,
        closed=why,
        retry_after_s=again_s,
    )
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "no_replica", again_s)
    assert why.rstrip(".") in refusal.message


def test_who_waited_as_long_as_any_may_is_told_the_ways_out() -> None:
    refusal = held_too_long("default/app/fn", 600.0)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "held_too_long", 1)
    for words in ("default/app/fn", "600 s", "not begun", "max_containers", "hold_s"):
        assert words in refusal.message


def test_an_empty_body_needs_no_room() -> None:
    assert admit("w", held=0, hold_max=1, held_bytes=10, body_bytes=0, hold_bytes_max=5) is None
