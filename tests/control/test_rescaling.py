"""Does a change of scaling change what is asked, and nothing else?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.rescaling import merged, rescaled
from swell.model.errors import SwellError
from swell.model.workload import App, Scaling, Workload
from swell.wire.api import Rescale

COUNTS = st.none() | st.integers(0, 9)
ASKED = st.builds(
    Rescale, COUNTS, st.none() | st.integers(1, 9), COUNTS, st.none() | st.floats(0.5, 99, allow_nan=False)
)
SCALED = st.builds(Scaling, st.integers(0, 4), st.integers(4, 9), st.integers(0, 3), st.just(30.0))


def app(scaling: Scaling) -> App:
    workloads = (Workload("default", "a", "f", "rv-1", scaling), Workload("default", "a", "g", "rv-1"))
    return App("default", "a", workloads, ())


@given(SCALED, ASKED)
def test_what_is_given_is_taken_and_all_else_stays(before: Scaling, asked: Rescale) -> None:
    want = merged(before, asked)
    for field in ("min_replicas", "max_replicas", "buffer_replicas", "idle_s"):
        given_value = getattr(asked, field)
        assert getattr(want, field) == (getattr(before, field) if given_value is None else given_value)
    if want.min_replicas > want.max_replicas:
        with pytest.raises(SwellError, match=r"a/f would have min_containers=.* above max_containers=.*change both"):
            rescaled(app(before), "f", asked)
    else:
        assert rescaled(app(before), "f", asked) == app(want)


def test_what_is_not_there_is_named_with_what_is() -> None:
    with pytest.raises(SwellError, match=r"App a has no function 'h'\. Choose from: f, g\.") as refused:
        rescaled(app(Scaling()), "h", Rescale(1))
    assert refused.value.status == 404
