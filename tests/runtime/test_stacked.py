"""Does each request get the rows of the result that are its own, whatever it was worked on together with?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.runtime.batch import stacks
from swell.runtime.stacked import Lists, Stacked, Uneven, parts

KEYED = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=20)


@given(inputs=KEYED, most=st.integers(1, 12))
def test_every_input_is_in_one_call_with_its_like_and_few_rows(inputs: list[tuple[str, int]], most: int) -> None:
    keys, rows = [key for key, _ in inputs], [count for _, count in inputs]
    found = stacks(keys, rows, most)
    assert sorted(place for members in found for place in members) == list(range(len(inputs)))
    for members in found:
        assert members == sorted(members)
        assert len({keys[place] for place in members}) == 1
        assert len(members) == 1 or sum(rows[place] for place in members) <= most
    # None is opened while the one before it of its kind has room.
    for key in "ab":
        of_key = [members for members in found if keys[members[0]] == key]
        assert [place for members in of_key for place in members] == [p for p, k in enumerate(keys) if k == key]
        for one, other in pairwise(of_key):
            assert sum(rows[place] for place in one) + rows[other[0]] > most


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    scales=st.lists(st.sampled_from([1.0, 2.0]), min_size=8, max_size=8),
    most=st.integers(1, 12),
    array=st.booleans(),
)
def test_what_comes_back_is_what_each_would_have_got_alone(
    counts: list[int], scales: list[float], most: int, array: bool
) -> None:
    form = Stacked(("x",), most)
    rows = [[float(100 * at + row) for row in range(count)] for at, count in enumerate(counts)]
    values = [np.array(each, "float32") if array else each for each in rows]
    calls: list[Any] = [((), {"x": value, "scale": scale}) for value, scale in zip(values, scales, strict=False)]
    for call in calls:
        form.check(call)
    results: dict[int, Any] = {}
    for group in form.groups(calls):
        scale = group.kwargs["scale"]
        whole = {"y": [value * scale for value in group.kwargs["x"]], "z": (group.kwargs["x"],)}
        results |= dict(zip(group.members, form.results("f", group, whole, calls), strict=True))
    assert [results[at]["y"] for at in range(len(calls))] == [
        [value * scale for value in each] for each, scale in zip(rows, scales, strict=False)
    ]
    assert [list(results[at]["z"][0]) for at in range(len(calls))] == rows


class Pair(NamedTuple):
    one: Any
    other: Any


@dataclass
class Both:
    one: Any


def test_names_fields_and_tuples_stay_around_each_part() -> None:
    rows = [1, 2, 3]
    assert parts(rows, [1, 2]) == [[1], [2, 3]]
    assert parts({"a": rows}, [1, 2]) == [{"a": [1]}, {"a": [2, 3]}]
    assert parts((rows, rows), [2, 1]) == [([1, 2], [1, 2]), ([3], [3])]
    assert parts(Pair(rows, rows), [3]) == [Pair(rows, rows)]
    assert parts(Both(rows), [0, 3]) == [Both([]), Both(rows)]
    assert [part.tolist() for part in parts(np.eye(3), [1, 2])] == [[[1, 0, 0]], [[0, 1, 0], [0, 0, 1]]]


@pytest.mark.parametrize("value", [[1], 7, "abc", b"abc", np.float32(3), {"a": [1]}, ([1, 2, 3], 4), None])
def test_a_result_of_another_length_is_told_in_words(value: Any) -> None:
    with pytest.raises(Uneven, match="for 3"):
        parts(value, [1, 2])


def test_what_cannot_be_joined_is_called_apart() -> None:
    form = Stacked(("x",), 99)
    calls: list[Any] = [
        ((), {"x": np.zeros((1, 2))}),
        ((), {"x": np.zeros((1, 3))}),
        ((), {"x": np.zeros((1, 2), "float32")}),
        ((), {"x": [1]}),
        ((), {"x": [1], "flag": True}),
        ((), {"x": [1], "flag": 1}),
        ((), {"x": np.zeros((2, 2))}),
    ]
    assert [group.members for group in form.groups(calls)] == [[0, 6], [1], [2], [3], [4], [5]]


def test_the_rows_of_one_request_fit_together() -> None:
    form = Stacked(("x", "y"), 99)
    form.check(((), {"x": [1, 2], "y": np.zeros((2, 3))}))
    with pytest.raises(SwellError, match="'x' has 2, 'y' has 3") as raised:
        form.check(((), {"x": [1, 2], "y": [1, 2, 3]}))
    assert raised.value.status == 422
    with pytest.raises(SwellError, match="'x' has no first axis"):
        form.check(((), {"x": np.float32(1)}))


def test_lists_are_as_they_were() -> None:
    form = Lists()
    calls: list[Any] = [((), {"x": 1}), ((), {"x": 2})]
    (group,) = form.groups(calls)
    assert group.kwargs == {"x": [1, 2]}
    assert form.results("f", group, (3, 4), calls) == (3, 4)
    with pytest.raises(SwellError, match="f is batched and returned 1 result for 2 inputs: return a list") as raised:
        form.results("f", group, [3], calls)
    assert raised.value.code == "bad_batch"


def test_arguments_that_only_look_the_same_are_not_taken_for_another_requests() -> None:
    form = Stacked(("x",), 99)
    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1.0
    assert repr(one) == repr(other)
    groups = form.groups([((), {"x": [1.0], "mask": mask}) for mask in (one, other, one)])
    assert [group.members for group in groups] == [[0, 2], [1]]
    assert [group.kwargs["mask"] for group in groups] == [one, other]
    alike = form.groups([((), {"x": [1.0], "how": {"k": [1, "a", None]}}) for _ in range(3)])
    assert [group.members for group in alike] == [[0, 1, 2]]
    apart = form.groups([((), {"x": [1.0], "how": how}) for how in (1, 1.0, True, "1")])
    assert [group.members for group in apart] == [[0], [1], [2], [3]]


class Frame(list[float]):
    """Has rows, and a shape, and is no array."""

    shape = (1, 2)


def test_rows_of_a_kind_that_nobody_knows_how_to_join_are_given_by_themselves() -> None:
    form = Stacked(("x",), 99)
    frames = [Frame([1.0]), Frame([2.0])]
    calls: list[Any] = [((), {"x": value}) for value in (*frames, [3.0], [4.0])]
    for call in calls:
        form.check(call)
    assert [(group.members, group.kwargs["x"]) for group in form.groups(calls)] == [
        ([0], frames[0]),
        ([1], frames[1]),
        ([2, 3], [3.0, 4.0]),
    ]
