"""Results in the type the caller accepts."""

from __future__ import annotations

import base64
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from swell.model.errors import SwellError
from swell.runtime.results import accepted, encode, exception_body, value_answer
from swell.wire.http import FRAMES, JSON, MSGPACK, OCTETS, PICKLE, ErrorBody, ErrorEnvelope


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
    assert accepted(accept.encode(), True) == (kind, frames)


def test_pickles_are_refused_without_the_key_only_when_they_are_the_choice() -> None:
    with pytest.raises(SwellError) as raised:
        accepted(PICKLE.encode(), False)
    assert (raised.value.status, raised.value.code) == (401, "no_key")
    assert accepted(f"{JSON}, {PICKLE}".encode(), False).kind == JSON


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
    for value, says in ((object(), "builtins.object"), ([type], "builtins.type"), (loop, "recursion")):
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
