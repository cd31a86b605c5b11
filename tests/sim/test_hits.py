"""Is each branch of a decision counted as often as it is taken?"""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.decide import calls
from swell.model.call import Call
from swell.model.retrying import Retrying
from swell.sim.hits import PAST, TAKEN, Branch, Hits, _Counting, told
from swell.sim.scenario import run

HITS = Hits()
CODES = ("cancelled", "busy", "exception", "bad_arguments")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(CODES)))
def test_branches_are_counted(codes: list[str]) -> None:
    call = Call("fc-1", "default/a/f", "f", 1.0, 1.0, state="leased", token=1, attempts=1, retrying=Retrying(1))
    before = HITS.branches()
    with HITS.counted():
        for code in codes:
            calls.after(call, calls.End("fc-1", 1, code, ""), 2.0, 0.5)
    calls.after(call, calls.End("fc-1", 1, "busy", ""), 2.0, 0.5)
    taken, times = HITS.branches(), Counter(codes)
    taken = {branch: number - before[branch] for branch, number in taken.items()}
    ours = [branch for branch in taken if branch.module == "calls"]
    stale, cancelled, not_begun, again = [branch for branch in ours if branch.into][:4]
    assert taken[stale] == 0
    assert taken[cancelled] == times["cancelled"]
    assert taken[not_begun] == times["busy"]
    assert taken[again] == times["exception"]
    assert taken[again._replace(into=False)] == times["bad_arguments"]


LOOKED_AT = """
def looked_at(numbers):
    for number in numbers:
        while number > 3:
            number -= 4
        match number:
            case 0 if len(numbers) > 2:
                pass
            case 1 | 2:
                pass
            case _:
                if number == 0:
                    continue
"""


@given(st.lists(st.integers(0, 9), max_size=5))
def test_each_way_on_is_counted(numbers: list[int]) -> None:
    branches: list[Branch] = []
    tree = ast.fix_missing_locations(_Counting("m", branches).visit(ast.parse(LOOKED_AT)))
    taken = [0] * len(branches)
    there: dict[str, Any] = {TAKEN: taken, PAST: lambda number: taken.__setitem__(number, taken[number] + 1)}
    exec(compile(tree, "m", "exec"), there)
    there["looked_at"](numbers)
    many, left = len(numbers), [number % 4 for number in numbers]
    first = left.count(0) if many > 2 else 0
    second = left.count(1) + left.count(2)
    ways = {
        "numbers": (many, 1),
        "number > 3": (sum(number // 4 for number in numbers), many),
        "0 if len(numbers) > 2": (first, many - first),
        "1 | 2": (second, many - first - second),
        "_": (many - first - second, 0),
        "number == 0": (left.count(0) - first, left.count(3)),
    }
    expected = {(condition, into): times[not into] for condition, times in ways.items() for into in (True, False)}
    assert {(each.condition, each.into): taken[n] for n, each in enumerate(branches)} == expected


@pytest.mark.slow
def test_what_is_counted_decides_the_same() -> None:
    before = HITS.branches()
    with HITS.counted():
        counted = run(3)
    assert sum(HITS.branches().values()) > sum(before.values())
    assert counted == run(3)


def test_what_was_never_taken_is_named() -> None:
    branches = {Branch("a", 3, True): 1, Branch("a", 3, False): 0, Branch("b", 1, True): 0}
    summary = "decide/a: 1 of 2 branches, the rarest 1 times; never 3 past"
    assert list(told(branches)) == [summary]
    assert list(told(branches, each=True)) == [summary, "  a.py:3 into: 1", "  a.py:3 past: 0"]
