"""What do the words after `swell run FILE` become, and what is said of those that cannot be meant?"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import click
import pytest

from swell.cli.run import arguments, run
from swell.sdk import flags


class Size(enum.Enum):
    SMALL = "small"


class Strange:
    """Only its own code could make one."""


@dataclass
class Config:
    a: int
    b: float = 1.5


def train(
    config: Config,
    table: list[list[float]] = [],
    size: Size = Size.SMALL,
    either: int | str = 0,
    strange: Strange | None = None,
    steps: int = 1,
) -> None:
    """Train it.

    By hand.
    """


def given(*words: str) -> dict[str, Any]:
    args, kwargs = arguments(flags.flags(train), run, "swell run", "f.py::train", train.__doc__, words)
    assert args == ()
    return kwargs


def test_json_becomes_what_the_annotation_says() -> None:
    words = ("--config", '{"a": 1}', "--table", "[[1, 2], []]", "--size", "small", "--either", "x", "--steps", "3")
    assert given(*words) == {
        "config": Config(1),
        "table": [[1.0, 2.0], []],
        "size": Size.SMALL,
        "either": "x",
        "steps": 3,
    }
    assert type(given("--config", '{"a": 1}', "--table", "[[1]]")["table"][0][0]) is float
    # As in the body of a call, what only its own code could make is passed as it is.
    assert given("--config", '{"a": 1}', "--strange", "[7]")["strange"] == [7]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config", '{"a": "x"}'), "--config: argument 'config.a': expected `int`, got `str`. Give Config as JSON."),
        (("--config", "a=1"), "--config: argument 'config': expected `object`, got `str`. Give Config as JSON."),
        (("--config", '{"a": 1}', "--table", "7"), "Give list[list[float]] as JSON."),
        ((), "--config is missing (Config as JSON, required)."),
        (("--home", "/x"), "--home is an option of `swell run` and comes before the file: swell run --home … FILE."),
        (("-d",), "-d is an option of `swell run` and comes before the file"),
        (("--nonsense",), "No such option '--nonsense'"),
    ],
)
def test_what_cannot_be_meant_is_told_with_the_way_out(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        given(*words)
    assert said in refused.value.format_message()


def test_the_help_has_the_docstring_and_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit):
        given("--help")
    shown = capsys.readouterr().out
    assert "Train it." in shown
    assert "By hand." in shown
    assert "Config as JSON, required" in shown
