"""Classes of the user come out of a body as they are made by hand, and go into one by their fields."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import namedtuple
from dataclasses import InitVar, dataclass, field, make_dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.runtime.arguments import Arguments
from swell.runtime.results import encode
from swell.wire.http import JSON, MSGPACK

T = TypeVar("T")


def read(hint: Any, value: Any) -> Any:
    """The argument a function gets whose parameter `p` is of this type, written as JSON and as msgpack alike."""

    def takes(p):  # type: ignore[no-untyped-def]
        return p

    takes.__annotations__ = {"p": hint}
    arguments = Arguments("takes", takes)
    said = []
    for kind, body in ((JSON, json.dumps({"p": value}).encode()), (MSGPACK, msgspec.msgpack.encode({"p": value}))):
        args, kwargs = arguments.read(kind.encode(), body, False)
        said.append(takes(*args, **kwargs))
    assert said[0] == said[1]
    return said[0]


def refusal(hint: Any, value: Any) -> str:
    with pytest.raises(SwellError) as raised:
        read(hint, value)
    assert (raised.value.status, raised.value.code) == (422, "bad_arguments")
    return raised.value.message.partition(". It takes")[0]


def answered(value: Any) -> Any:
    """As the caller reads it."""
    told = msgspec.json.decode(encode(value, JSON)[1])
    assert msgspec.msgpack.decode(encode(value, MSGPACK)[1]) == told
    return told


# -- any dataclass -----------------------------------------------------------------------------------

Pair = tuple[Any, Any]
"""What is sent, and what the user's own code would make of it."""

plain = {
    int: st.integers(-(2**53), 2**53),
    str: st.text(max_size=5),
    bool: st.booleans(),
    list[int]: st.lists(st.integers(0, 9), max_size=3),
    Optional[str]: st.none() | st.text(max_size=5),  # noqa: UP045
}


def around(inner: type, parts: st.SearchStrategy[Pair]) -> list[tuple[Any, st.SearchStrategy[Pair]]]:
    """Annotations with a class in them, and values of each."""
    lists = st.lists(parts, max_size=2)
    tables = st.dictionaries(st.text(max_size=2), parts, max_size=2)
    return [
        (inner, parts),
        (list[inner], lists.map(lambda pairs: ([sent for sent, _ in pairs], [made for _, made in pairs]))),  # type: ignore[valid-type]
        (dict[str, inner], tables.map(lambda pairs: tuple({k: pair[n] for k, pair in pairs.items()} for n in (0, 1)))),  # type: ignore[valid-type]
        (Optional[inner], st.just((None, None)) | parts),  # noqa: UP045
        (tuple[inner, int], parts.map(lambda pair: ([pair[0], 1], (pair[1], 1)))),  # type: ignore[valid-type]
    ]


@st.composite
def classes(draw: st.DrawFn, depth: int = 2) -> tuple[type, st.SearchStrategy[Pair]]:
    """A dataclass, and what may be sent for it."""
    fields: list[Any] = []
    needed: dict[str, st.SearchStrategy[Pair]] = {}
    optional: dict[str, st.SearchStrategy[Pair]] = {}
    kw_only = draw(st.booleans())
    for n in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(["f", "_f", "place", "kind"])) + (str(n) if n else "")
        hint = draw(st.sampled_from(list(plain)))
        default: Any = draw(
            plain[hint].filter(lambda value: not isinstance(value, list)) if hint != list[int] else st.none()
        )
        values = plain[hint].map(lambda value: (value, value))
        if depth and draw(st.booleans()):
            hint, values = draw(st.sampled_from(around(*draw(classes(depth=depth - 1)))))
            default = None
        how = draw(st.sampled_from(["default", "factory", "not in init"] + ["needed"] * (kw_only or not optional)))
        if how == "needed" and (kw_only or len(needed) == n):
            fields.append((name, hint))
            needed[name] = values
            continue
        match how:
            case "factory":
                fields.append((name, hint, field(default_factory=list)))
            case "not in init":
                fields.append((name, hint, field(default=default, init=False)))
                continue
            case _:
                fields.append((name, hint, field(default=default)))
        optional[name] = values
    options = {name: draw(st.booleans()) for name in ("frozen", "slots")}
    made = make_dataclass("Made", fields, kw_only=kw_only, **options)

    def pair(given_: dict[str, Pair]) -> Pair:
        return {name: sent for name, (sent, _) in given_.items()}, made(
            **{n: value for n, (_, value) in given_.items()}
        )

    return made, st.fixed_dictionaries(needed, optional=optional).map(pair)


@given(st.data())
def test_an_argument_is_what_the_constructor_makes_and_is_answered_whole(data: st.DataObject) -> None:
    made, values = data.draw(classes())
    for hint, pairs in around(made, values):
        sent, wanted = data.draw(pairs)
        got = read(hint, sent)
        assert got == wanted
        assert repr(got) == repr(wanted)
        assert getattr(got, "__dict__", {}) == getattr(wanted, "__dict__", {})
        assert answered(got) == answered(wanted)
        if type(wanted) is made:
            assert answered(wanted) == json.loads(json.dumps(dataclasses.asdict(wanted)))


# -- each kind ---------------------------------------------------------------------------------------


@dataclass
class P:
    x: int
    y: float = 1.0
    z: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Scaled:
    value: float
    factor: InitVar[int] = 2
    count: int = field(init=False, default=3)
    unit: ClassVar[str] = "m"

    def __post_init__(self, factor: int) -> None:
        if factor == 0:
            raise ValueError("factor must not be 0")
        object.__setattr__(self, "value", self.value * factor)


@dataclass
class Tree(Generic[T]):
    value: T
    children: list[Tree[T]] = field(default_factory=list)


@dataclass
class Numbers(Tree[int]):
    pass


class Options(TypedDict):
    point: P
    level: NotRequired[int]


Odd = TypedDict("Odd", {"a-b": int, "class": P})


class Pair2(NamedTuple):
    point: P
    n: int = 2


@attrs.define
class Private:
    _x: int
    n: int = attrs.field(default="4", converter=int)
    points: list[P] = attrs.field(factory=list)


class Inner(msgspec.Struct):
    point: P
    n: int = 1


def test_what_is_not_given_is_in_the_instance_and_in_the_answer() -> None:
    for hint, value, wanted in (
        (P, {"x": 1}, P(1)),
        (list[P], [{"x": 1}], [P(1)]),
        (dict[str, P], {"a": {"x": 1}}, {"a": P(1)}),
        (Optional[P], {"x": 1}, P(1)),  # noqa: UP045
        (P | int | None, {"x": 1}, P(1)),
        (Annotated[list[P], msgspec.Meta(min_length=1)], [{"x": 1}], [P(1)]),
    ):
        assert read(hint, value) == wanted
        assert answered(read(hint, value)) == json.loads(
            json.dumps(value).replace('"x": 1', '"x": 1, "y": 1.0, "z": []')
        )
    assert vars(read(P, {"x": 1})) == {"x": 1, "y": 1.0, "z": []}
    assert read(P | int | None, 3) == 3


def test_the_constructor_runs_with_all_it_takes() -> None:
    assert read(Scaled, {"value": 2, "factor": 5}) == Scaled(2, 5)
    assert answered(Scaled(2, 5)) == {"value": 10, "count": 3}
    assert (
        refusal(Scaled, {"value": 2, "factor": 0})
        == "Argument 'p': not taken by Scaled: ValueError: factor must not be 0"
    )
    assert (
        refusal(list[Scaled], [{"value": 2, "factor": 0}])
        == "Argument 'p[0]': not taken by Scaled: ValueError: factor must not be 0"
    )
    assert refusal(Scaled, {"value": 2, "count": 0}) == "Argument 'p': there is no field 'count'"


def test_generic_and_recursive_dataclasses_keep_their_types() -> None:
    value = {"value": 1, "children": [{"value": 2}]}
    assert read(Tree[int], value) == Tree(1, [Tree(2)])
    assert read(Numbers, value) == Numbers(1, [Tree(2)])
    assert read(Tree[P], {"value": {"x": 1}}) == Tree(P(1))
    assert "children[0].value': expected `int`" in refusal(Numbers, {"value": 1, "children": [{"value": "2"}]})


def test_typed_dicts_hold_what_was_given() -> None:
    assert read(Options, {"point": {"x": 1}}) == {"point": P(1)}
    assert read(Odd, {"a-b": 1, "class": {"x": 1}}) == {"a-b": 1, "class": P(1)}


def test_named_tuples_attrs_classes_and_structs() -> None:
    assert read(Pair2, [{"x": 1}]) == Pair2(P(1))
    assert read(namedtuple("Bare", ["a", "b"]), [1, "b"]) == (1, "b")
    assert read(Private, {"x": 1, "n": "5", "points": [{"x": 1}]}) == Private(1, 5, [P(1)])
    assert answered(Private(1)) == {"x": 1, "n": 4, "points": []}
    assert answered(read(Inner, {"point": {"x": 1}})) == answered(Inner(P(1))) == {"point": answered(P(1)), "n": 1}


def test_models_and_their_dataclasses() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", point=(P, ...), n=(int, 1))
    assert read(model, {"point": {"x": 1}}) == model(point=P(1))
    assert answered(model(point=P(1))) == {"point": answered(P(1)), "n": 1}
    checked = pydantic.dataclasses.dataclass(make_dataclass("Checked", [("n", int, pydantic.Field(default=1, gt=0))]))
    assert read(checked, {}) == checked()
    assert "greater than 0" in refusal(checked, {"n": 0})


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (P, {"x": 1, "q": 2}, "Argument 'p': there is no field 'q'"),
        (P, {}, "Argument 'p': field 'x' is missing"),
        (
            dict[str, list[P]],
            {"a": [{"x": 1}, {"q": 2}]},
            "Argument 'p.a[1]': there is no field 'q'; argument 'p.a[1]': field 'x' is missing",
        ),
        (Options, {"point": {"x": 1, "q": 2}}, "Argument 'p.point': there is no field 'q'"),
        (Options, {"point": {"x": 1}, "levl": 2}, "Argument 'p': there is no field 'levl'"),
        (Private, {"_x": 1}, "Argument 'p': there is no field '_x'; argument 'p': field 'x' is missing"),
        (Pair2, [{"x": 1}, 2, 3], "Argument 'p': expected `array` of at most length 2, got 3"),
    ],
)
def test_what_there_is_no_field_for_is_refused(hint: Any, value: Any, says: str) -> None:
    assert refusal(hint, value) == says


class Mixed(enum.Enum):
    TEXT = "text"
    TWO = 2
    HALF = 0.5
    NONE = None


class Placed(enum.Enum):
    HERE = (0, 0)


@dataclass
class Job:
    source: Path
    mode: Mixed = Mixed.TWO


@pytest.mark.parametrize(
    ("hint", "value", "wanted"),
    [
        *((Mixed, member.value, member) for member in Mixed),
        (Mixed | None, 2, Mixed.TWO),
        (dict[str, list[Mixed]], {"a": [2, "text"]}, {"a": [Mixed.TWO, Mixed.TEXT]}),
        (tuple[Mixed, int], [2, 2], (Mixed.TWO, 2)),
        (Path, "a/b", Path("a/b")),
        (PurePosixPath, "a", PurePosixPath("a")),
        (list[Path | None], ["a", None], [Path("a"), None]),
        (Job, {"source": "a", "mode": "text"}, Job(Path("a"), Mixed.TEXT)),
        (Job, {"source": "a"}, Job(Path("a"))),
        (Placed, [0, 0], [0, 0]),
    ],
)
def test_members_of_any_enum_and_paths_are_made_of_plain_values(hint: Any, value: Any, wanted: Any) -> None:
    made = read(hint, value)
    assert made == wanted
    assert type(made) is type(wanted)


@pytest.mark.parametrize("made", [Path("a/b"), [Mixed.TWO, Mixed.TEXT, Mixed.HALF], Job(Path("a"), Mixed.TEXT)])
def test_paths_and_members_are_answered_as_they_are_given(made: Any) -> None:
    hint = list[Mixed] if isinstance(made, list) else type(made) if isinstance(made, Job) else Path
    assert read(hint, answered(made)) == made


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (Mixed, "txt", "Argument 'p': invalid enum value 'txt'"),
        (list[Mixed], [2, 3, ["secret"]], "Argument 'p[1]': invalid enum value 3; argument 'p[2]': invalid enum value"),
        (Path, 3, "Argument 'p': expected `str`, got `int`"),
        (
            Job,
            {"source": ["a"], "mode": "x"},
            "Argument 'p.source': expected `str`, got `array`; argument 'p.mode': invalid enum value 'x'",
        ),
    ],
)
def test_what_is_no_member_and_no_path_is_refused(hint: Any, value: Any, says: str) -> None:
    assert refusal(hint, value) == says


def test_a_result_is_not_changed_by_being_answered() -> None:
    point = Scaled(1)
    value = {"a": [point, 1], "b": (1, 2)}
    assert answered(value) == {"a": [{"value": 2, "count": 3}, 1], "b": [1, 2]}
    assert value == {"a": [point, 1], "b": (1, 2)}
    assert vars(point) == {"value": 2}
