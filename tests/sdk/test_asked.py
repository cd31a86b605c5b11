"""Is what a request says read, and what its answer is to say set, within bounds and where there is one?"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from swell.sdk.asked import HEADERS_BYTES_MAX, HEADERS_MAX, Request
from swell.wire import context


@pytest.fixture
def asked() -> Iterator[Any]:
    """The request that is worked on, here."""
    headers = [(b"x-a", b"1"), (b"authorization", b"Bearer k"), (b"x-a", b"2"), (b"cookie", b"c=1")]
    told = SimpleNamespace(id="q1", target=b"/call/f", headers=headers, reply=None)
    token = context.current.set(context.Input("q1", 1e12, told))
    yield told
    context.current.reset(token)


def test_outside_a_request_there_is_none() -> None:
    assert swell.current_request() is None


def test_its_headers_are_read_without_keys(asked: Any) -> None:
    request = swell.current_request()
    assert request is not None
    assert (request.id, dict(request.headers)) == ("q1", {"x-a": "1, 2", "cookie": "c=1"})


def test_a_header_is_set_once_whatever_its_case(asked: Any) -> None:
    request = swell.current_request()
    assert request is not None
    request.set_header("X-B", "1")
    request.set_header("x-b", "2")
    request.set_status(202)
    assert (asked.reply.lines, asked.reply.status) == ([(b"x-b", b"2")], 202)


def test_there_are_not_too_many(asked: Any) -> None:
    request = swell.current_request()
    assert request is not None
    for at in range(HEADERS_MAX):
        request.set_header(f"x-{at}", "1")
    with pytest.raises(swell.Error, match="an answer may be given 32 headers"):
        request.set_header("x-more", "1")
    request.set_header("x-1", "again")
    with pytest.raises(swell.Error, match="8192 bytes"):
        request.set_header("x-1", "x" * HEADERS_BYTES_MAX)


@given(name=st.text(max_size=20), value=st.text(max_size=20))
def test_what_is_set_is_one_line_or_refused(name: str, value: str) -> None:
    told = SimpleNamespace(id="q1", target=b"/call/f", headers=[], reply=None)
    try:
        Request(told, None).set_header(name, value)
    except swell.Error:
        assert told.reply is None
        return
    ((found, said),) = told.reply.lines
    assert found
    assert not {*b"\r\n\0:"} & {*found}
    assert not {*b"\r\n\0"} & {*said}
    assert not found.lower().startswith(b"swell-")


def test_in_a_batch_there_is_no_one_request() -> None:
    token = context.current.set(context.Input("q1", 1e12, batch="q1-b"))
    try:
        with pytest.raises(swell.Error, match="A batch is of several requests"):
            swell.current_request()
    finally:
        context.current.reset(token)
