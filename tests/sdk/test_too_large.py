"""Is who sends too many bytes told which argument they are of?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk.server import KEY, Server, serving
from swell.sdk import protocol
from swell.sdk.protocol import Answer, Request
from swell.wire import http


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"plain": lambda *a, **k: (a, k)}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


SIZES = st.lists(st.integers(0, 2000), min_size=1, max_size=4, unique=True)


@given(SIZES, st.integers(0, 4), st.booleans())
def test_of_a_call_that_is_too_large_the_largest_argument_is_named(sizes: list[int], named: int, plain: bool) -> None:
    values = [bytes(size) for size in sizes]
    at = max(0, len(values) - named) if not plain else len(values)
    kwargs = {f"k{n}": value for n, value in enumerate(values[at:])}
    request, other = protocol.call("a/f", values[:at], kwargs), protocol.call("a/f", (), {})
    if plain:
        assert request.plain is not None
        assert other.plain is not None
        request, other = request.plain(), other.plain()
    largest = sizes.index(max(sizes))
    name = f"number {largest + 1}" if largest < at else f"k{largest - at}"
    refused = Answer(413, {"content-type": http.JSON}, http.error_body("body_too_large", "Too many bytes.", "rq-1"))
    for sent, where in (
        (request, ""),
        (protocol.queued(request, "k"), ""),
        (protocol.grouped([request], "fg-1", 9), "It is input 9. "),
        (protocol.grouped([other, request], "fg-1", 9), "Input 10 is the largest of them. "),
    ):
        error = protocol.error_of(protocol.naming(sent, refused))
        assert error.message.startswith(f"Too many bytes. {where}Argument {name} of a/f (bytes) has ")
        assert (error.code, error.request) == ("body_too_large", "rq-1")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (protocol.call("a/f", (1,), {}), Answer(413, {}, http.error_body("value_too_large", "no"))),
        (protocol.call("a/f", (1,), {}), Answer(400, {}, http.error_body("body_too_large", "no"))),
        (protocol.call("a/f", (1,), {}), Answer(413, {}, b"<html>")),
        (Request("POST", "/x", {}, b"1"), Answer(413, {}, http.error_body("body_too_large", "no"))),
        (Request("POST", "/x", largest=lambda: str(1 / 0)), Answer(413, {}, http.error_body("body_too_large", "no"))),
    ],
)
def test_no_other_answer_is_changed(request_: Request, answer: Answer) -> None:
    assert protocol.naming(request_, answer) is answer


def test_who_sends_too_much_is_told_which_argument_it_is(server: Server) -> None:
    server.body_max = 1000
    plain = swell.Function.from_name("a", "plain")
    said = r"may have 1000 bytes\. Argument data of a/plain \(bytes\) has 50\d\d bytes, the most of them\."
    for use in (plain.remote, plain.spawn):
        with pytest.raises(swell.Error, match=said) as raised:
            use("x", data=bytes(5000), other=bytes(10))
        assert raised.value.code == "body_too_large"
    # Of those that went together the others are accepted.
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(plain.spawn, n, data=bytes(5000 if n == 3 else 1)) for n in range(8)]
        for n, each in enumerate(sent):
            if n == 3:
                with pytest.raises(swell.Error, match="Argument data of a/plain"):
                    each.result()
            else:
                assert each.result().get() == ((n,), {"data": b"\0"})
    with pytest.raises(swell.Error, match=r"Input 2 is the largest of them\. Argument number 1 of a/plain \(bytes\)"):
        plain.spawn_map([b"1", b"2", bytes(5000)])
