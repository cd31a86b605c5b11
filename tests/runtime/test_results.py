"""Results in the type the caller accepts."""

from __future__ import annotations

import base64
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.runtime.results import accepted, encode, exception_body, value_answer
from swell.wire.http import FRAMES, JSON, JSON_OR_PICKLE, MSGPACK, OCTETS, PICKLE, ErrorBody, ErrorEnvelope


@pytest.mark.parametrize(
    ("accept", "kind", "frames"),
    [
        ("", "", False),
        ("*/*", "", False),
        ("text/html, application/json;q=0.9, */*", JSON, False),
        (f"{MSGPACK}, {JSON}", MSGPACK, False),
        (f"{FRAMES}, {PICKLE}", PICKLE, True),
        (f"{PICKLE}, {FRAMES}", PICKLE, True),
        ("APPLICATION/JSON", JSON, False),
    ],
)
def test_the_first_known_type_decides(accept: str, kind: str, frames: bool) -> None:
    assert accepted(accept.encode(), True)[:2] == (kind, frames)


def test_pickles_are_refused_without_the_key_only_when_they_are_the_choice() -> None:
    with pytest.raises(SwellError) as raised:
        accepted(PICKLE.encode(), False)
    assert (raised.value.status, raised.value.code) == (401, "no_key")
    assert accepted(f"{JSON}, {PICKLE}".encode(), False).kind == JSON


def test_what_json_cannot_say_is_a_pickle_where_that_is_accepted_too() -> None:
    both, alone = accepted(JSON_OR_PICKLE.encode(), True), accepted(JSON.encode(), True)
    assert (both.kind, both.pickles, alone.pickles) == (JSON, True, False)
    assert not accepted(JSON_OR_PICKLE.encode(), False).pickles
    assert value_answer("f", {"a": 1}, both.kind, both.pickles).body == b'{"a":1}'
    answer = value_answer("f", complex(1, 2), both.kind, both.pickles)
    assert (answer.content_type, pickle.loads(answer.body)) == (PICKLE.encode(), complex(1, 2))
    with pytest.raises(SwellError, match="cannot be encoded"):
        value_answer("f", complex(1, 2), alone.kind, alone.pickles)


class Model:
    def model_dump(self) -> Any:
        return {"a": Tolist()}


class Tolist:
    def tolist(self) -> list[int]:
        return [1, 2]


class Struct(msgspec.Struct):
    x: int


@dataclass
class Data:
    y: Any


def test_values_that_are_nearly_json_become_it() -> None:
    value = [Model(), Struct(1), Data({2}), b"hi", (3, None), float("nan"), {4: Tolist()}]
    wanted = [{"a": [1, 2]}, {"x": 1}, {"y": [2]}, "aGk=", [3, None], None, {"4": [1, 2]}]
    assert msgspec.json.decode(encode(value, JSON)[1]) == wanted


def test_arrays_of_numpy_are_lists_and_its_numbers_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.arange(4.0).reshape(2, 2), "b": numpy.int64(3), "c": numpy.float32(0.5), "d": numpy.bool_(True)}
    for kind, decode in ((JSON, msgspec.json.decode), (MSGPACK, msgspec.msgpack.decode)):
        assert decode(encode(value, kind)[1]) == {"a": [[0.0, 1.0], [2.0, 3.0]], "b": 3, "c": 0.5, "d": True}


@pytest.mark.parametrize("value", [b"raw", bytearray(b"raw"), memoryview(b"raw")])
def test_bytes_are_bytes_unless_another_type_is_asked_for(value: Any) -> None:
    assert encode(value, "") == encode(value, OCTETS) == (OCTETS.encode(), b"raw")
    assert encode(value, JSON) == (JSON.encode(), b'"cmF3"')


def test_what_cannot_be_encoded_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value, says in ((object(), "builtins.object"), ([type], "builtins.type"), (loop, "it contains itself")):
        with pytest.raises(SwellError) as raised:
            value_answer("predict", value, "")
        assert (raised.value.status, raised.value.code) == (500, "bad_result")
        assert says in raised.value.message
        assert "SDK" in raised.value.message


def test_numbers_beyond_64_bits() -> None:
    assert msgspec.json.decode(encode(2**63, JSON)[1]) == 2**63


# -- exceptions --------------------------------------------------------------------------------------


class Needy(Exception):
    """What it is made with is not what it says."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code


class Prefixed(ValueError):
    def __init__(self, what: object) -> None:
        super().__init__(f"it failed: {what}")


class Reduced(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("reduced")
        self.both = (a, b)

    def __reduce__(self) -> Any:
        return Reduced, self.both


def body_of(error: BaseException, pickled: bool = True) -> ErrorBody:
    try:
        raise error
    except BaseException as raised:
        return msgspec.json.decode(exception_body(raised, "q1", pickled), type=ErrorEnvelope).error


def unpacked(error: BaseException) -> Any:
    return pickle.loads(base64.b64decode(body_of(error).exception))


@pytest.mark.parametrize(
    "error",
    [
        Needy(7, where="here"),
        Prefixed("x"),
        Reduced(1, 2),
        SwellError("bad_thing", "It is bad.", status=422),
        ExceptionGroup("several", [Needy(1, where="a"), KeyError("k")]),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
        FileNotFoundError(2, "No such file", "x.txt"),
    ],
)
def test_an_exception_comes_back_as_it_was(error: Exception) -> None:
    again = unpacked(error)
    assert (type(again), str(again), repr(again)) == (type(error), str(error), repr(error))
    assert again.__dict__ == error.__dict__


def test_an_exception_that_cannot_be_sent_is_told_with_its_traceback() -> None:
    error = ValueError("mine")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    body = body_of(error)
    assert (body.code, body.message, body.exception) == ("exception", "ValueError: mine", "")
    assert body.traceback.endswith("ValueError: mine\n")


def test_the_traceback_goes_to_those_alone_who_may_send_pickles() -> None:
    told = body_of(Prefixed("x"))
    assert told.traceback.startswith("Traceback (most recent call last):\n")
    assert "    raise error\n" in told.traceback
    stranger = body_of(Prefixed("x"), pickled=False)
    assert (stranger.traceback, stranger.exception, stranger.message) == ("", "", told.message)


class Odd:
    """What nothing can be made of."""


@dataclass
class Holder:
    held: Any


BAD_KEYS = (None, True, (1, 2), frozenset({1}), Odd)
plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5)


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[Any, str, Any]:
    """(a result, the path to what cannot be sent in it, that: an object, or the key of a dict)."""
    bad = draw(st.sampled_from([Odd, 1j, "\ud800", *BAD_KEYS[:4]]))
    as_key = bad in BAD_KEYS[:4]
    value, path = ({"ok": 1, bad: draw(plain)} if as_key else (bad() if bad is Odd else bad)), ""
    for _ in range(draw(st.integers(0, 5))):
        form = draw(st.sampled_from(["list", "tuple", "dict", "odd name", "dataclass"]))
        before = draw(st.lists(plain, max_size=3))
        if form in ("list", "tuple"):
            made = [*before, value, *draw(st.lists(plain, max_size=2))]
            value, step = (made if form == "list" else tuple(made)), f"[{len(before)}]"
        elif form == "dataclass":
            value, step = Holder(value), ".held"
        else:
            name, step = ("that", ".that") if form == "dict" else ("a b", "['a b']")
            value = {**{f"k{at}": each for at, each in enumerate(before)}, name: value}
        path = step + path
    return value, f"${path}", bad


@given(spoilt(), st.sampled_from(["", JSON, OCTETS]))
def test_the_part_that_cannot_be_encoded_is_named_with_its_place(one: tuple[Any, str, Any], kind: str) -> None:
    value, path, bad = one
    with pytest.raises(SwellError) as raised:
        value_answer("predict", value, kind)
    said = raised.value.message.partition(" JSON and msgpack take ")[0]
    place = "" if path == "$" else f" {path}"
    if bad in BAD_KEYS[:4]:
        where = place and f" in{place}"
        words = f"the key {bad!r}{where} is of type {type(bad).__qualname__}: keys of JSON are texts or numbers."
    elif isinstance(bad, str):
        words = f"half of a character ('\\ud800'), which cannot be sent, is in the text{place and f' in{place}'}."
    else:
        name = "builtins.complex" if bad == 1j else f"{__name__}.Odd"
        words = f"there is no encoding for a {name}{place and f', in{place}'}."
    assert said.endswith(words)


def test_a_key_that_is_half_of_a_character_is_named() -> None:
    with pytest.raises(SwellError, match=r"half of a character .* is in the key '.ud800' in \$\[0\]"):
        value_answer("predict", [{"\ud800": 1}], MSGPACK)
