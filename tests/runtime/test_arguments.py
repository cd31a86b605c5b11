"""A body becomes the arguments its signature asks for, whichever way it was written."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.runtime.arguments import Arguments
from swell.wire.http import JSON, MSGPACK, PICKLE

if TYPE_CHECKING:
    from decimal import Decimal

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def untyped(first, second=2, /, third=3, *, fourth=4):  # type: ignore[no-untyped-def]
    return first, second, third, fourth


def greedy(first, *rest, key=None, **more):  # type: ignore[no-untyped-def]
    return first, rest, key, more


@dataclass
class Point:
    x: int
    y: float = 0.5


def typed(point: Point, when: date | None = None, tags: list[str] = []) -> Any:
    return point, when, tags


def _called(function: Any, body: bytes, kind: str = JSON) -> Any:
    args, kwargs = Arguments(function.__name__, function).read(kind.encode(), body, False)
    return function(*args, **kwargs)


@given(st.dictionaries(st.sampled_from(["first", "second", "third", "fourth"]), values))
def test_an_object_is_keyword_arguments(named: dict[str, Any]) -> None:
    given_ = {"first": 1, **named}
    wanted = tuple({"second": 2, "third": 3, "fourth": 4, **given_}[n] for n in ("first", "second", "third", "fourth"))
    assert _called(untyped, json.dumps(given_).encode()) == wanted
    assert _called(untyped, msgspec.msgpack.encode(given_), MSGPACK) == wanted


@given(st.lists(values, min_size=1, max_size=3))
def test_an_array_is_positional_arguments(given_: list[Any]) -> None:
    assert _called(untyped, json.dumps(given_).encode()) == untyped(*given_)
    assert _called(untyped, msgspec.msgpack.encode(given_), MSGPACK) == untyped(*given_)


@given(st.lists(values, min_size=1, max_size=6))
def test_extra_positions_go_where_the_signature_takes_them(given_: list[Any]) -> None:
    assert _called(greedy, json.dumps(given_).encode()) == greedy(*given_)


@given(st.dictionaries(st.text(min_size=1), values))
def test_extra_names_go_where_the_signature_takes_them(named: dict[str, Any]) -> None:
    assert _called(greedy, json.dumps({"first": 0, **named}).encode()) == greedy(**{"first": 0, **named})


@given(st.binary())
def test_any_body_at_all_is_arguments_or_a_clear_refusal(body: bytes) -> None:
    for kind in (JSON, MSGPACK):
        code = "none"
        try:
            _called(typed, body, kind)
        except SwellError as error:
            code = error.code
        assert code in ("none", "bad_body", "bad_arguments")


def test_values_become_what_the_annotations_say() -> None:
    assert _called(typed, b'{"point": {"x": 1}, "when": "2024-02-03"}') == (Point(1), date(2024, 2, 3), [])
    assert _called(typed, b'[{"x": 1, "y": 2.5}, null, ["a"]]') == (Point(1, 2.5), None, ["a"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "Argument 'point' is missing"),
        (b'{"point": 3}', "Argument 'point'"),
        (b'{"point": {"x": "one"}}', "Argument 'point.x': expected `int`, got `str`"),
        (b'{"point": {"x": 1}, "tags": ["a", 2]}', "Argument 'tags[1]'"),
        (b'{"point": {"x": 1}, "when": "yesterday"}', "Argument 'when'"),
        (b'{"pont": {"x": 1}}', "There is no argument 'pont'"),
        (b"[1, 2, 3, 4]", "at most 3"),
    ],
)
def test_a_misfit_names_the_argument_and_the_signature(body: bytes, says: str) -> None:
    with pytest.raises(SwellError) as raised:
        _called(typed, body)
    assert raised.value.status == 422
    assert says in raised.value.message
    assert "typed(point:" in raised.value.message


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (((), {"q": 1}), "There is no argument 'q'"),
        (((1,), {"tags": [], "q": 1}), "There is no argument 'q'"),
        (((), {}), "Missing a required argument: 'point'"),
    ],
)
def test_pickled_arguments_that_do_not_fit_are_told_as_others_are(given_: Any, says: str) -> None:
    with pytest.raises(SwellError) as raised:
        Arguments("typed", typed).read(PICKLE.encode(), pickle.dumps(given_), True)
    assert (raised.value.status, raised.value.message.partition(". It takes")[0]) == (422, says)
    body = pickle.dumps(((1,), {"any": 2}))
    assert Arguments("greedy", greedy).read(PICKLE.encode(), body, True) == ((1,), {"any": 2})


def test_parameters_msgspec_cannot_make_are_passed_as_they_are() -> None:
    class Foreign:
        pass

    def takes(one: Foreign, two: list[Foreign], three: int | list[int] | Foreign, four: list[int]) -> Any:
        return one, two, three, four

    assert _called(takes, b'[1, [2], "x", [3]]') == (1, [2], "x", [3])
    with pytest.raises(SwellError):
        _called(takes, b'[1, [2], "x", ["y"]]')


def test_annotations_only_a_type_checker_knows_are_not_an_error() -> None:
    def takes(one: Decimal, two: int = 2) -> Any:
        return one, two

    assert _called(takes, b'["1.5"]') == ("1.5", 2)


def test_a_model_class_makes_itself() -> None:
    class Model:
        def __init__(self, value: Any) -> None:
            self.value = value

        @classmethod
        def model_validate(cls, value: Any) -> Model:
            if value == "bad":
                raise ValueError("not this one")
            return cls(value)

    def takes(one: Model) -> Any:
        return one

    assert isinstance(_called_with(takes, {"one": Model}, b'[{"a": 1}]'), Model)
    with pytest.raises(SwellError, match="not this one"):
        _called_with(takes, {"one": Model}, b'["bad"]')


def _called_with(function: Any, annotations: dict[str, Any], body: bytes) -> Any:
    """As if the function's annotations were not strings that name local classes."""
    function.__annotations__ = annotations
    return _called(function, body)


def test_a_query_is_text_that_is_converted_leniently() -> None:
    def takes(n: int, tags: list[str] = [], on: bool = False, point: Point | None = None) -> Any:
        return n, tags, on, point

    arguments = Arguments("takes", takes)
    args, kwargs = arguments.from_query([("n", "3"), ("tags", "a"), ("tags", "b"), ("on", "true"), ("utm", "x")], {})
    assert takes(*args, **kwargs) == (3, ["a", "b"], True, None)
    with pytest.raises(SwellError, match="'n'"):
        arguments.from_query([("n", "three")], {})


def many(*points: Point, **sizes: int) -> Any:
    return points, sizes


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_what_stars_take_is_read_as_annotated(kind: str) -> None:
    def body(value: Any) -> bytes:
        return json.dumps(value).encode() if kind == JSON else msgspec.msgpack.encode(value)

    assert _called(many, body([{"x": 1}, {"x": 2, "y": 3}]), kind) == ((Point(1), Point(2, 3.0)), {})
    assert _called(many, body({"a": 1, "b": 2}), kind) == ((), {"a": 1, "b": 2})
    for value, said in (
        ([{"x": 1}, {"x": "y"}], "Argument 'points[1].x': expected `int`, got `str`."),
        ([5], "Argument 'points[0]': expected `object`, got `int`."),
        ({"a": 1, "b": "two"}, "Argument 'b': expected `int`, got `str`."),
    ):
        with pytest.raises(SwellError) as raised:
            _called(many, body(value), kind)
        assert (raised.value.code, raised.value.status) == ("bad_arguments", 422)
        assert raised.value.message.startswith(said), raised.value.message


def test_a_querys_text_becomes_what_stars_take() -> None:
    arguments = Arguments("many", many)
    assert arguments.from_query([("a", "1")], {}) == ((), {"a": 1})
    with pytest.raises(SwellError, match="Argument 'a'"):
        arguments.from_query([("a", "one")], {})


def test_annotations_that_are_text_are_told_without_quotes() -> None:
    assert (
        Arguments("typed", typed).text == "typed(point: Point, when: date | None = None, tags: list[str] = []) -> Any"
    )


def test_where_a_body_is_no_text_is_counted_from_its_start() -> None:
    with pytest.raises(SwellError, match=r"byte 11 is not UTF-8 \(invalid start byte\)") as raised:
        _called(untyped, b'{"first": "\xff"}')
    assert raised.value.code == "bad_body"


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("application/json", b"null", "The body is null alone"),
        ("application/json", b"true", "The body is true alone"),
        ("application/json", b'"x"', "The body is a text alone"),
        ("application/json", b"1.5", "The body is a number alone"),
        ("application/msgpack", b"\xc4\x01x", "The body is bytes alone"),
        ("application/x-www-form-urlencoded", b"notjson", "The body is not JSON: .*forms are not read"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"a=1&b=2", "The body is not JSON: "),
        ("application/x-www-form-urlencoded", b"7", "The body is a number alone"),
    ],
)
def test_a_body_is_refused_in_the_words_of_its_type(content_type: str, body: bytes, says: str) -> None:
    with pytest.raises(SwellError, match=f"^{says}"):
        Arguments("f", lambda a=1: a).read(content_type.encode(), body, False)
