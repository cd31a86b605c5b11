"""Does the line to try after a deploy fit the function, and does a deploy tell what it changed?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest

from swell.cli.deploy import _body, _rows, sample
from swell.wire.api import DeployLine


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
        (Any, None),
        (None, None),
    ],
)
def test_a_sample_fits_its_annotation(kind: Any, expected: object) -> None:
    assert sample(kind) == expected


def test_only_what_must_be_given_is_in_the_line() -> None:
    def total(xs: list[float], name: str, scale: int = 2, *more: int, **others: int) -> None: ...

    assert json.loads(_body(total)[-1]) == {"xs": [1.0, 2.0], "name": "…"}
    assert shlex.join(_body(total)).startswith("-H 'Content-Type: application/json' -d ")


def test_one_argument_of_bytes_is_a_file() -> None:
    def size(picture: bytes) -> None: ...

    assert _body(size)[-1] == "@FILE"


def test_annotations_that_cannot_be_read_are_no_reason_to_fail() -> None:
    def strange(x: nowhere.Thing) -> None: ...  # type: ignore[name-defined] # noqa: F821

    assert json.loads(_body(strange)[-1]) == {"x": None}


def test_each_function_is_listed_with_what_changed_and_so_is_what_is_gone() -> None:
    urls = (("f", "u/f"), ("C.m", "u/C.m"), ("C.n", "u/C.n"))
    changes = (("C", "changed"), ("f", "unchanged"), ("old", "removed"))
    assert _rows(DeployLine("done", urls=urls, changes=changes)) == [
        ("C.m", "changed", "u/C.m"),
        ("C.n", "changed", "u/C.n"),
        ("f", "unchanged", "u/f"),
        ("old", "removed", ""),
    ]
