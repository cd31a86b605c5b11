"""Are the frames that are shown the user's, and all of them?"""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest

import swell
from sdk import deployable
from sdk.server import KEY, serving
from swell.model.errors import SwellError
from swell.sdk import frames


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Iterator[swell.Function]:
    with serving({"plain": deployable.plain}) as server:
        monkeypatch.setenv("SWELL_URL", server.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield swell.Function.from_name("a", "plain")


def inputs() -> Iterator[int]:
    yield 1
    raise LookupError("mine")


class Unsendable:
    def __reduce__(self) -> str:
        raise TypeError("it holds a socket")


def names(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(frames.users(error.__traceback__))]


def test_the_users_code_that_ours_called_stays(function: swell.Function) -> None:
    with pytest.raises(LookupError) as raised:
        list(function.map(inputs()))
    assert len(raised.traceback) > 3, "what nobody foresaw keeps our frames"
    assert names(raised.value) == ["test_the_users_code_that_ours_called_stays", "inputs"]


def test_what_is_meant_for_the_user_leaves_without_our_frames(function: swell.Function) -> None:
    with pytest.raises(SwellError) as raised:
        function.remote(Unsendable())
    assert len(raised.traceback) == 1
    assert raised.value.__cause__ is not None
    assert [frame.name for frame in traceback.extract_tb(raised.value.__cause__.__traceback__)] == ["__reduce__"]


def test_where_the_user_calls_is_told_as_text() -> None:
    app = swell.App("a")
    app.function(region="eu")(deployable.plain)
    where = app.declared["plain"].given.where
    assert where is not None
    assert (where.filename, where.name) == (__file__, "test_where_the_user_calls_is_told_as_text")
    assert where.line == 'app.function(region="eu")(deployable.plain)'


def test_an_error_that_points_already_is_left_alone() -> None:
    error = SwellError("x", "y", detail="already")
    frames.point(error, traceback.FrameSummary("f.py", 1, "g"))
    assert error.detail == "already"
    assert not hasattr(error, "__notes__")
    assert frames.users(None) is None
    assert frames.listing(None) == ""
