"""Does the line to try after a deploy fit the function, and does a deploy tell what it changed?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict

import pytest

import swell
from swell.cli.deploy import _body, _rows, _try, sample
from swell.wire.api import DeployLine


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Odd(Enum):
    PAIR = (1, 2)


@dataclass
class Point:
    x: int


class Shape(TypedDict):
    x: int


class Strings(list[str]):
    """What such a class wants is its own business."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, 1),
        (bool, True),
        (str, "…"),
        (list, [1, 2]),
        (list[float], [1.0, 2.0]),
        (list[str], ["…", "…"]),
        (Sequence[int], [1, 2]),
        (set[int], [1, 2]),
        (list[list[int]], [[1, 2], [1, 2]]),
        (tuple[int, str], [1, "…"]),
        (tuple[float, ...], [1.0, 2.0]),
        (dict, {}),
        (dict[str, list[float]], {"…": [1.0, 2.0]}),
        (int | None, 1),
        (None | list[int], [1, 2]),
        (Literal["fast", "slow"], "fast"),
        (Annotated[float, "metres"], 1.0),
        (Size, "small"),
        (list[Size], ["small", "small"]),
        (bytes, "AAAA"),
    ],
)
def test_a_sample_fits_its_annotation(kind: Any, expected: object) -> None:
    assert sample(kind) == expected


@pytest.mark.parametrize("kind", [Any, None, object, Point, list[Point], Point | None, Shape, Odd, Strings])
def test_of_what_is_not_known_there_is_no_sample(kind: Any) -> None:
    with pytest.raises(LookupError):
        sample(kind)


def test_only_what_must_be_given_is_in_the_line() -> None:
    def total(xs: list[float], name: str, scale: int = 2, *more: int, **others: int) -> None: ...

    words, unknown = _body(total)
    assert words[0] == "-d"
    assert json.loads(words[1]) == {"xs": [1.0, 2.0], "name": "…"}
    assert unknown == []


def test_one_argument_of_bytes_is_a_file() -> None:
    def size(picture: bytes) -> None: ...

    assert _body(size)[0][-1] == "@FILE"


def test_annotations_that_cannot_be_read_are_no_reason_to_fail() -> None:
    def strange(x: nowhere.Thing) -> None: ...  # type: ignore[name-defined] # noqa: F821

    words, unknown = _body(strange)
    assert (json.loads(words[1]), unknown) == ({"x": "…"}, ["x"])


def tried(function: Callable[..., Any]) -> list[str]:
    app = swell.App("a")
    app.function()(function)
    return _try(app, {function.__name__: f"http://127.0.0.1:8470/call/a/{function.__name__}"}).splitlines()


def test_a_line_to_try_fits_a_terminal_and_says_what_is_to_be_filled_in() -> None:
    assert tried(f) == ["""Try: curl http://127.0.0.1:8470/call/a/f -d '{"size": "small"}'"""]
    assert tried(g) == [
        """Try: curl http://127.0.0.1:8470/call/a/g -d '{"size": "small", "point": "…"}'""",
        "     with your own point in place of …",
    ]
    assert tried(long) == [
        "Try: curl http://127.0.0.1:8470/call/a/long -d '{…}'",
        "     with your own first_number, second_number in place of …",
    ]


def test_what_a_class_must_be_given_is_in_the_query() -> None:
    app = swell.App("a")
    app.cls()(Greeter)
    urls = {"Greeter.greet": "http://127.0.0.1:8470/call/a/Greeter.greet"}
    assert _try(app, urls).splitlines() == [
        """Try: curl 'http://127.0.0.1:8470/call/a/Greeter.greet?language=…&size=…' -d '{}'""",
        "     with your own language, size in place of …",
    ]
    assert _try(app, {"Greeter.page": "http://127.0.0.1:8470/web/page/"}).splitlines() == [
        "Try: curl 'http://127.0.0.1:8470/web/page/?language=…&size=…'",
        "     with your own language, size in place of …",
    ]


class Greeter:
    language: str = swell.parameter()
    times: int = swell.parameter(default=1)
    size: int = swell.parameter()

    @swell.method()
    def greet(self) -> None: ...

    @swell.fastapi_endpoint()
    def page(self) -> None: ...


def test_where_the_key_is_needed_it_is_in_the_line() -> None:
    app = swell.App("a")
    app.function()(f)
    url = {"f": "http://127.0.0.1:8470/call/a/f"}
    shown = """Try: curl http://127.0.0.1:8470/call/a/f -d '{"size": "small"}'"""
    assert _try(app, url, "$SWELL_KEY") == shown
    assert _try(app, url, "$SWELL_KEY", locked=True) == f'{shown} -H "Authorization: Bearer $SWELL_KEY"'
    app = swell.App("a")
    app.function()(swell.fastapi_endpoint(requires_proxy_auth=True)(f))
    url = {"f": "http://127.0.0.1:8470/web/a-f/"}
    shown = 'Try: curl http://127.0.0.1:8470/web/a-f/ -H "Authorization: Bearer $SWELL_KEY"'
    assert _try(app, url, "$SWELL_KEY") == shown


def f(size: Size) -> None: ...


def g(size: Size, point: Point) -> None: ...


def long(first_number: float, second_number: float) -> None: ...


def test_each_function_is_listed_with_what_changed_and_so_is_what_is_gone() -> None:
    urls = (("f", "u/f"), ("C.m", "u/C.m"), ("C.n", "u/C.n"))
    changes = (("C", "changed"), ("f", "unchanged"), ("old", "removed"))
    assert _rows(DeployLine("done", urls=urls, changes=changes)) == [
        ("C.m", "changed", "u/C.m"),
        ("C.n", "changed", "u/C.n"),
        ("f", "unchanged", "u/f"),
        ("old", "removed", ""),
    ]
