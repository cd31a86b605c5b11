"""Is each branch of a decision counted as often as it is taken?"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from swell.decide import calls
from swell.model.call import Call
from swell.model.retrying import Retrying
from swell.sim.hits import Branch, Hits, told

CODES = ("cancelled", "busy", "exception", "bad_arguments")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(CODES)))
def test_branches_are_counted(codes: list[str]) -> None:
    call = Call("fc-1", "default/a/f", "f", 1.0, 1.0, state="leased", token=1, attempts=1, retrying=Retrying(1))
    hits = Hits()
    with hits.counted():
        for code in codes:
            calls.after(call, calls.End("fc-1", 1, code, ""), 2.0, 0.5)
    calls.after(call, calls.End("fc-1", 1, "busy", ""), 2.0, 0.5)
    taken, times = hits.branches(), Counter(codes)
    ours = [branch for branch in taken if branch.module == "calls"]
    stale, cancelled, not_begun, again = [branch for branch in ours if branch.into][:4]
    assert taken[stale] == 0
    assert taken[cancelled] == times["cancelled"]
    assert taken[not_begun] == times["busy"]
    assert taken[again] == times["exception"]
    assert taken[again._replace(into=False)] == times["bad_arguments"]


def test_what_was_never_taken_is_named() -> None:
    branches = {Branch("a", 3, True): 1, Branch("a", 3, False): 0, Branch("b", 1, True): 0}
    summary = "decide/a: 1 of 2 branches, the rarest 1 times; never 3 past"
    assert list(told(branches)) == [summary]
    assert list(told(branches, each=True)) == [summary, "  a.py:3 into: 1", "  a.py:3 past: 0"]
