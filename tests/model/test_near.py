"""Is a name offered for its slips, and for nothing that has little in common with it?"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.near import LENGTH_MAX, SLIPS_MAX, did_you_mean, near_names, slips_between

LETTERS = "abcdef"
names = st.text(LETTERS, min_size=1, max_size=14)


@st.composite
def slipped(draw: st.DrawFn) -> tuple[str, str]:
    """A name of at least two letters, and what a slip made of it."""
    name = draw(st.text(LETTERS, min_size=2, max_size=14))
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(LETTERS))
    kind = draw(st.sampled_from(["more", "less", "other", "swapped"]))
    if kind == "more":
        return name, name[:at] + letter + name[at:]
    if kind == "less":
        return name, name[:at] + name[at + 1 :]
    if kind == "other":
        return name, name[:at] + letter + name[at + 1 :]
    return name, name[:at] + name[at : at + 2][::-1] + name[at + 2 :]


@cache
def slips(one: str, other: str) -> int:
    """As the definition says: the fewest of all ways, each letter in one slip."""
    if not one or not other:
        return len(one) + len(other)
    ways = [
        slips(one[1:], other) + 1,
        slips(one, other[1:]) + 1,
        slips(one[1:], other[1:]) + (one[0] != other[0]),
    ]
    if len(one) > 1 and one[:2] == other[:2][::-1] and len(other) > 1:
        ways.append(slips(one[2:], other[2:]) + 1)
    return min(ways)


@given(slipped(), st.lists(names, max_size=10))
def test_one_slip_is_understood(pair: tuple[str, str], others: list[str]) -> None:
    name, typed = pair
    assert near_names(typed, [name]) == [name]
    # Whatever else there is, at least as near.
    offered = near_names(typed, {name, *others}, most=1)
    assert offered == [name] or slips(typed, offered[0]) <= 1 or offered[0].startswith(typed)


@given(names, st.lists(names, max_size=20, unique=True))
def test_what_is_offered_is_near_and_the_nearest(typed: str, others: list[str]) -> None:
    near = near_names(typed, others, most=len(others))
    for other in others:
        long, short = max(len(typed), len(other)), min(len(typed), len(other))
        begins = (typed.startswith(other) or other.startswith(typed)) and short >= max(3, long / 2)
        few = slips(typed, other) <= min(max((long + 1) // 4, long > 1), SLIPS_MAX)
        assert (other in near) == (begins or few or typed == other), other
    assert near_names(typed, others) == near[:3]
    far = [min(slips(typed, other), SLIPS_MAX) for other in near]
    assert far == sorted(far)


@given(names, names, st.integers(0, SLIPS_MAX))
def test_slips_are_counted_as_far_as_they_matter(one: str, other: str, most: int) -> None:
    assert slips_between(one, other, most) == min(slips(one, other), most + 1)


class Letter(str):
    """A letter that counts how often any is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Letter.compared += 1
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        Letter.compared += 1
        return super().__ne__(other)

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [("a" * LENGTH_MAX, "a" * LENGTH_MAX, LENGTH_MAX), ("a" * LENGTH_MAX, "b" * LENGTH_MAX, SLIPS_MAX + 1)],
    ids=["alike", "unlike"],
)
def test_no_more_letters_are_compared_than_may_matter(one: str, other: str, rows: int) -> None:
    Letter.compared = 0
    slips_between([*map(Letter, one)], [*map(Letter, other)], SLIPS_MAX)
    # In each place once, and twice more where two may be swapped.
    assert 0 < Letter.compared <= 3 * rows * (2 * SLIPS_MAX + 1)


@given(names, names)
def test_either_is_near_the_other(one: str, other: str) -> None:
    assert bool(near_names(one, [other])) == bool(near_names(other, [one]))


@given(st.text("abc", min_size=1, max_size=14), st.text("xyz", min_size=1, max_size=14))
def test_names_without_a_letter_in_common_are_far(one: str, other: str) -> None:
    if max(len(one), len(other)) > 2:
        assert near_names(one, [other]) == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("MyApp", "my-app"), ("my_app", "my-app"), ("return_exception", "return_exceptions"), ("shop-pag", "shop-page")],
)
def test_other_dashes_and_cases_are_understood(typed: str, meant: str) -> None:
    assert did_you_mean(typed, ["other", meant]) == f" Did you mean {meant}?"


@pytest.mark.parametrize(
    ("typed", "other"),
    [("nope", "open"), ("thing", "string"), ("x", "y"), ("hello", "sleep"), ("add", "read"), ("shop", "hop-on")],
)
def test_what_only_shares_letters_is_not_offered(typed: str, other: str) -> None:
    assert did_you_mean(typed, [other]) == ""


def test_a_name_longer_than_any_is_not_compared() -> None:
    assert near_names("a" * LENGTH_MAX, ["a" * LENGTH_MAX]) == ["a" * LENGTH_MAX]
    assert near_names("a" * (LENGTH_MAX + 1), ["a" * LENGTH_MAX]) == []
