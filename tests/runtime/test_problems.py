"""Is each part of a value that does not fit named, by its place, and nothing else?"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.runtime.arguments import Arguments
from swell.wire.http import JSON, MSGPACK


class Item(msgspec.Struct):
    price: float
    names: list[str]
    sizes: dict[str, int] = {}


class Pair(NamedTuple):
    left: int
    right: Item | None = None


@dataclass
class Order:
    items: list[Item]
    pair: Pair
    notes: dict[str, str] = field(default_factory=dict)


class Options(TypedDict, total=False):
    loud: bool


def buy(order: Order, count: Annotated[int, msgspec.Meta(ge=1)], options: Options | None = None, *more: int) -> Any:
    return order, count, options, more


GOOD: dict[str, Any] = {
    "order": {
        "items": [{"price": 1.5, "names": ["a", "b"], "sizes": {"s": 1, "a b": 2}}, {"price": 2.0, "names": []}],
        "pair": [1, {"price": 3.0, "names": ["c"]}],
        "notes": {"n": "x"},
    },
    "count": 2,
    "options": {"loud": True},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all that is neither object nor array."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [place for key, each in pairs for place in leaves(each, (*path, key))]
    return [path]


def written(path: tuple[Any, ...]) -> str:
    parts = [f".{each}" if isinstance(each, str) and each.isidentifier() else f"[{each!r}]" for each in path]
    return "$" + "".join(parts)


def problems(function: Any, body: Any, kind: str = JSON) -> list[tuple[str, str]]:
    encode = msgspec.json.encode if kind == JSON else msgspec.msgpack.encode
    with pytest.raises(SwellError) as raised:
        Arguments(function.__name__, function).read(kind.encode(), encode(body), False)
    assert (raised.value.code, raised.value.status) == ("bad_arguments", 422)
    return [*raised.value.problems]


@given(st.sets(st.sampled_from(leaves(GOOD)), min_size=1), st.sampled_from([JSON, MSGPACK]))
def test_every_part_that_was_made_wrong_is_named_and_no_other(places: set[tuple[Any, ...]], kind: str) -> None:
    body = deepcopy(GOOD)
    for *path, last in places:
        owner = body
        for each in path:
            owner = owner[each]
        owner[last] = {"wrong": []}
    assert {path for path, _ in problems(buy, body, kind)} == {written(each) for each in places}


def test_what_is_missing_and_what_is_not_known_have_places_too() -> None:
    found = problems(buy, {"order": {"items": [{"price": 1}], "pare": 1}, "cuont": 1})
    assert [path for path, _ in found] == [
        "$.cuont",
        "$.order.pare",
        "$.order.items[0].names",
        "$.order.pair",
        "$.count",
    ]
    assert "missing" in found[-1][1]
    assert "unknown" in found[0][1]


def test_the_words_are_as_many_as_one_reads() -> None:
    def takes(numbers: list[int]) -> Any: ...

    takes.__annotations__ = {"numbers": list[int]}
    with pytest.raises(SwellError) as raised:
        Arguments("takes", takes).read(JSON.encode(), json.dumps({"numbers": ["x"] * 500}).encode(), False)
    said = raised.value.message
    assert said.startswith("Argument 'numbers[0]': expected `int`, got `str`; argument 'numbers[1]'")
    assert "; and 90 more. It takes takes(numbers: list[int])" in said
    assert len(raised.value.problems) == 100


def test_constraints_and_keys_are_told() -> None:
    def takes(low: Any, keys: Any) -> Any: ...

    takes.__annotations__ = {"low": Annotated[list[int], msgspec.Meta(min_length=3)], "keys": dict[int, int]}
    found = problems(takes, {"low": [1], "keys": {"1": 1, "x": "y"}})
    assert [path for path, _ in found] == ["$.low", "$.keys", "$.keys.x"]
    assert "'x'" in found[1][1]


def test_further_arguments_are_all_looked_at() -> None:
    found = problems(buy, [GOOD["order"], 1, None, "a", 2, "b"])
    assert [path for path, _ in found] == ["$.more[0]", "$.more[2]"]


class Line(pydantic.BaseModel):
    sku: str
    price: float = pydantic.Field(gt=0)


class Cart(pydantic.BaseModel):
    lines: list[Line]


def checkout(cart: Cart, carts: dict[str, Cart] | None = None, count: int = 1) -> Any:
    return cart


def test_a_model_of_pydantic_lists_its_errors_among_the_others() -> None:
    bad = {"lines": [{"sku": "a", "price": -1}, {"price": 1}]}
    found = problems(checkout, {"cart": bad, "carts": {"x": {"lines": 1}}, "count": "many"})
    assert [path for path, _ in found] == ["$.cart.lines[0].price", "$.cart.lines[1].sku", "$.carts.x.lines", "$.count"]
    assert found[0][1] == "Input should be greater than 0"
    read = Arguments("checkout", checkout).read(
        JSON.encode(), b'{"cart": {"lines": [{"sku": "a", "price": 1}]}}', False
    )
    assert read == ((), {"cart": Cart(lines=[Line(sku="a", price=1)])})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["order", "count", "items", "price", "pair", "x"]), inner)
        ),
    )
)
def test_whatever_is_refused_names_a_place(body: Any) -> None:
    try:
        Arguments("buy", buy).read(JSON.encode(), msgspec.json.encode(body), False)
    except SwellError as error:
        told = error.problems or [("$", error.message)]
        assert all(path.startswith("$") and said for path, said in told)
    else:
        assert isinstance(body, dict | list)
