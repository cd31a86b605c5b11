"""Do a function's arguments become flags, and texts the values they mean?"""

from __future__ import annotations

import datetime as time
import enum
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from swell.sdk import flags


def many(
    text: str,
    number: int,
    ratio: float = 0.5,
    dry_run: bool = False,
    at: datetime | None = None,
    mode: Literal["fast", "slow"] = "fast",
    level: Literal[1, 2] = 1,
    old: Optional[int] = None,  # noqa: UP045 (people write it)
    names: list[str] = [],
    sizes: list[int] | None = None,
    anything: Any = None,
    bare=3,
) -> None:
    """An argument of each kind."""


FLAGS = {flag.name: flag for flag in flags.flags(many).flags}


def test_each_argument_is_a_flag_of_its_kind() -> None:
    kinds = {name: (flag.kind, flag.required, flag.repeated) for name, flag in FLAGS.items()}
    assert kinds == {
        "text": ("text", True, False),
        "number": ("int", True, False),
        "ratio": ("float", False, False),
        "dry_run": ("bool", False, False),
        "at": ("datetime", False, False),
        "mode": ("choice", False, False),
        "level": ("choice", False, False),
        "old": ("int", False, False),
        "names": ("text", False, True),
        "sizes": ("int", False, True),
        "anything": ("any", False, False),
        "bare": ("any", False, False),
    }
    assert FLAGS["dry_run"].option == "--dry-run"
    assert FLAGS["text"].help == "text, required"
    assert FLAGS["mode"].help == "fast|slow (default: 'fast')"


def test_texts_become_the_values_they_mean() -> None:
    given = {
        "text": ["a"], "number": ["-3"], "ratio": ["1e3"], "dry_run": [True], "at": ["2026-01-31T12:00"],
        "mode": ["slow"], "level": ["2"], "old": ["4"], "names": ["a", "b"], "sizes": ["1", "2"],
        "anything": ["[1, 2]"], "bare": ["plain words"],
    }  # fmt: skip
    assert flags.arguments(flags.flags(many), given) == {
        "text": "a", "number": -3, "ratio": 1000.0, "dry_run": True, "at": time.datetime(2026, 1, 31, 12),
        "mode": "slow", "level": 2, "old": 4, "names": ["a", "b"], "sizes": [1, 2],
        "anything": [1, 2], "bare": "plain words",
    }  # fmt: skip
    assert flags.arguments(flags.flags(many), {"text": [""], "number": ["1"]}) == {"text": "", "number": 1}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("number", "1.5", r"--number '1\.5': give a whole number"),
        ("ratio", "much", "give a number"),
        ("dry_run", "maybe", "--dry-run 'maybe': give true or false"),
        ("at", "soon", "give a time like"),
        ("mode", "medium", "give fast or slow"),
        ("level", "3", "give 1 or 2"),
        ("sizes", "x", "--sizes 'x': give a whole number"),
    ],
)
def test_a_text_that_means_nothing_is_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(swell.Error, match=says):
        flags.arguments(flags.flags(many), {"text": ["a"], "number": ["1"], name: [text]})


def test_missing_and_unknown_flags_are_named() -> None:
    with pytest.raises(swell.Error, match=r"--number is missing \(a whole number, required\)"):
        flags.arguments(flags.flags(many), {"text": ["a"]})
    with pytest.raises(swell.Error, match=r"Unknown flag 'size'\. Flags are: --text, --number"):
        flags.arguments(flags.flags(many), {"size": ["a"]})


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.datetimes()))
def test_what_is_written_is_read_back(value: Any) -> None:
    kind = {int: "int", float: "float", str: "text", bool: "bool", datetime: "datetime"}[type(value)]
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    assert flags.value(flags.Flag("x", kind, True), text) == value


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_any_reads_python_values(value: Any) -> None:
    assert flags.value(FLAGS["anything"], repr(value)) == value


class Color(enum.Enum):
    RED = "red"
    DARK_RED = 7


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def painted(
    color: Color,
    other: Color | None = Color.DARK_RED,
    level: Level = Level.LOW,
    colors: list[Color] = [Color.RED],
    day: time.date = time.date(2026, 1, 31),
    at: datetime = datetime(2026, 1, 31, 12, 30),
    days: list[time.date] = [],
) -> None:
    """Choices and days."""


def test_members_of_an_enum_are_choices_by_name_or_value() -> None:
    found = flags.flags(painted)
    shown = {flag.name: flag.help for flag in found.flags}
    assert shown["color"] == "RED|DARK_RED (or as in a call: red|7), required"
    assert shown["other"] == "RED|DARK_RED (or as in a call: red|7) (default: DARK_RED)"
    assert shown["level"] == "LOW|HIGH (or as in a call: 1|2) (default: LOW)"
    assert shown["colors"] == "RED|DARK_RED (or as in a call: red|7), may be repeated (default: [RED])"
    given = {"color": ["RED"], "other": ["red"], "level": ["2"], "colors": ["DARK_RED", "7"]}
    read = {"color": Color.RED, "other": Color.RED, "level": Level.HIGH, "colors": [Color.DARK_RED, Color.DARK_RED]}
    assert flags.arguments(found, given) == read
    with pytest.raises(swell.Error, match=r"^--color 'blue': give RED or DARK_RED\.$"):
        flags.arguments(found, {"color": ["blue"]})


def test_days_are_written_as_people_write_them() -> None:
    found = flags.flags(painted)
    shown = {flag.name: flag.help for flag in found.flags}
    assert shown["day"] == "a date like 2026-01-31 (default: 2026-01-31)"
    assert shown["at"] == "a time like 2026-01-31T12:00 (default: 2026-01-31T12:30:00)"
    given = {"color": ["RED"], "day": ["2026-02-01"], "days": ["2026-02-02"]}
    read = flags.arguments(found, given)
    assert (read["day"], read["days"]) == (time.date(2026, 2, 1), [time.date(2026, 2, 2)])
    with pytest.raises(swell.Error, match=r"^--day '1\.2\.2026': give a date like 2026-01-31\.$"):
        flags.arguments(found, {"color": ["RED"], "day": ["1.2.2026"]})


def test_a_path_is_a_path() -> None:
    def reads(source: Path, into: Path | None = Path("out"), more: list[Path] = []) -> None: ...

    found = flags.flags(reads)
    assert [flag.help for flag in found.flags] == [
        "a path, required",
        "a path (default: 'out')",
        "a path, may be repeated (default: [])",
    ]
    read = flags.arguments(found, {"source": ["a b"], "more": ["1", "x/y"]})
    assert read == {"source": Path("a b"), "more": [Path("1"), Path("x/y")]}


def test_what_cannot_be_a_flag_is_refused() -> None:
    def takes_more(x: int, **more: int) -> None: ...

    def misspelt(x: Nonsense) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function, says in ((takes_more, "no flag"), (misspelt, "Nonsense")):
        with pytest.raises(swell.Error, match=says):
            flags.flags(function)


def test_what_has_no_plain_text_is_given_as_json() -> None:
    @dataclass
    class Config:
        a: int

    def train(config: Config, table: list[list[float]] = [], by_name: dict[str, int] | None = None) -> None: ...

    train.__annotations__["config"] = Config
    found = {flag.name: flag for flag in flags.flags(train).flags}
    assert {flag.kind for flag in found.values()} == {"json"}
    assert found["config"].help == "Config as JSON, required"
    assert found["table"].help == "list[list[float]] as JSON (default: [])"
    given = {"config": ['{"a": 1}'], "table": ["[[1, 2]]"], "by_name": ["plain"]}
    read = {"config": {"a": 1}, "table": [[1, 2]], "by_name": "plain"}
    assert flags.arguments(flags.flags(train), given) == read
    with pytest.raises(swell.Error, match=r"--config: '\{\"a\": ' is not valid JSON: .* column 7"):
        flags.arguments(flags.flags(train), {**given, "config": ['{"a": ']})


def test_methods_leave_out_self_and_star_arguments_take_words() -> None:
    class Thing:
        def method(self, x: int) -> None: ...

    assert [flag.name for flag in flags.flags(Thing.method, bound=True).flags] == ["x"]
    assert flags.flags(lambda *words: None) == flags.Flags((), variadic=True)
    handle = swell.App("a").function()(many)
    assert flags.flags(handle) == flags.flags(many)


def test_a_batched_function_takes_what_one_caller_gives() -> None:
    @swell.batched(max_batch_size=4, wait_ms=1)
    def score(texts: list[str], weights: list[float] | None = None, tags: list[list[str]] = []) -> list[float]: ...

    found = [(flag.name, flag.kind, flag.repeated) for flag in flags.flags(score).flags]
    assert found == [("texts", "text", False), ("weights", "float", False), ("tags", "text", True)]


def test_what_callers_give_is_what_is_made_into_arguments() -> None:
    def split(text: str, times: int = 1) -> list[str]: ...

    class Thing:
        def read(self, path: str) -> str: ...

        @swell.transform(before=split)
        def one(self, words: list[str]) -> None: ...

        @swell.batched(max_batch_size=4, wait_ms=1)
        @swell.transform(before=read)
        def other(self, texts: list[str]) -> list[str]: ...

    found = [[(f.name, f.kind) for f in flags.flags(raw, bound=True).flags] for raw in (Thing.one, Thing.other)]
    assert found == [[("text", "text"), ("times", "int")], [("path", "text")]]
