"""Which methods are models, with which tensors, and is a declaration that cannot be refused where it is deployed?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import TypeAliasType

import swell
from swell.model.tensors import Tensor, Tensors
from swell.sdk import describe, marks, tensors

F32 = NDArray[np.float32]
S = TypeVar("S")
D = TypeVar("D", bound=np.generic)
# As `type Wide[D] = …` would make them.
Rows = TypeAliasType("Rows", tuple[Literal[3], int])
Wide = TypeAliasType("Wide", np.ndarray[Rows, np.dtype[D]], type_params=(D,))
Turned = TypeAliasType("Turned", np.ndarray[S, np.dtype[D]], type_params=(D, S))
Two = TypeAliasType("Two", tuple[Wide[np.int8], Turned[np.bool_, Rows]])
Square = np.ndarray[tuple[Literal[3], int], np.dtype[np.int64]]


class Scores(TypedDict):
    label: NDArray[np.bytes_]
    score: F32


class Pair(NamedTuple):
    a: F32
    b: NDArray[np.bool_]


@dataclass
class Mixed:
    a: F32
    b: str


def one(x: F32) -> F32: ...
def shaped(x: Square) -> np.ndarray: ...
def several(x: F32, y: Annotated[F32 | None, "note"] = None, scale: float = 1.0) -> Scores: ...
def pair(x: NDArray[Any]) -> Pair: ...
def in_order(x: NDArray[np.floating[Any]]) -> tuple[F32, Square]: ...
def mixed(x: F32) -> Mixed: ...
def plain(x: list[float]) -> F32: ...
def odd(x: NDArray[np.complex128]) -> F32: ...
def untyped(x, y=None): ...
def items(x: F32): ...
def aliased(x: Wide[np.float32] | None = None) -> Two: ...


NOTHING = marks.Given("App.cls", {})
ANY = Tensor("x")
X32 = Tensor("x", "FP32")
MODELS: list[tuple[Callable[..., Any], tuple[Tensor, ...], tuple[Tensor, ...]]] = [
    (one, (X32,), (Tensor("output", "FP32"),)),
    (shaped, (Tensor("x", "INT64", (3, -1)),), (Tensor("output"),)),
    (several, (X32, Tensor("y", "FP32", None, True)), (Tensor("label", "BYTES"), Tensor("score", "FP32"))),
    (pair, (ANY,), (Tensor("a", "FP32"), Tensor("b", "BOOL"))),
    (in_order, (ANY,), (Tensor("output_0", "FP32"), Tensor("output_1", "INT64", (3, -1)))),
    (mixed, (X32,), ()),
    (items, (X32,), ()),
    (
        aliased,
        (Tensor("x", "FP32", (3, -1), True),),
        (Tensor("output_0", "INT8", (3, -1)), Tensor("output_1", "BOOL", (3, -1))),
    ),
]


@pytest.mark.parametrize(("function", "inputs", "outputs"), MODELS, ids=lambda each: getattr(each, "__name__", ""))
def test_annotations_say_what_it_takes_and_gives(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> None:
    assert tensors.of("f", function, False, None, generator=False) == Tensors(inputs, outputs)
    assert tensors.of("f", function, False, None, generator=True) is None


@pytest.mark.parametrize("function", [plain, odd, untyped])
def test_what_takes_no_arrays_of_a_datatype_is_no_model(function: Callable[..., Any]) -> None:
    assert tensors.of("f", function, False, None, generator=False) is None


def saying(function: Callable[..., Any], inputs: Any, outputs: Any = None) -> Tensors | None:
    def fresh(x: Any) -> Any: ...

    said = marks.of(swell.tensors(inputs=inputs, outputs=outputs)(fresh)).tensors
    return tensors.of(function.__name__, function, False, said, generator=False)


def test_a_declaration_adds_to_annotations() -> None:
    assert saying(one, {"x": ("FP32", [-1, 4])}) == Tensors(
        (Tensor("x", "FP32", (-1, 4)),), (Tensor("output", "FP32"),)
    )
    both = saying(untyped, {"x": ("BF16", []), "y": ("BYTES", (2,))}, {"z": ("BOOL", [1])})
    assert both == Tensors(
        (Tensor("x", "BF16", ()), Tensor("y", "BYTES", (2,), optional=True)), (Tensor("z", "BOOL", (1,)),)
    )


@pytest.mark.parametrize(
    ("function", "inputs", "outputs", "words"),
    [
        (
            one,
            {"x": ("FP64", [1])},
            None,
            "argument 'x' of one is declared as FP64 [1], and annotated as FP32 of any shape",
        ),
        (shaped, {"x": ("INT64", [4, -1])}, None, "annotated as INT64 [3, -1]"),
        (shaped, {"x": ("INT64", [3])}, None, "annotated as INT64 [3, -1]"),
        (one, {"z": ("FP32", [1])}, None, "one has no argument 'z'; it takes x"),
        (plain, {"x": ("FP32", [1])}, None, "annotated as list"),
        (
            one,
            {"x": ("FP32", [1])},
            {"y": ("INT8", [1])},
            "output 'y' of one is declared as INT8 [1], and annotated as FP32",
        ),
        (pair, {"x": ("FP32", [1])}, {"y": ("INT8", [1])}, "1 are named, and pair is annotated to give 2"),
        (one, {}, None, "none is named: one takes x"),
        (one, {"x": ("FLOAT32", [1])}, None, "'FLOAT32': write FP32"),
        (one, {"x": ("text", [1])}, None, "there are BOOL, UINT8"),
        (one, {"x": ("FP32", [-2])}, None, "shape [-2]"),
        (one, {"x": ("FP32", [True])}, None, "shape [True]"),
        (one, {"x": "FP32"}, None, 'give (datatype, shape), like ("FP32", [-1, 64])'),
        (one, ["x"], None, "give a dict"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(
    function: Callable[..., Any], inputs: Any, outputs: Any, words: str
) -> None:
    with pytest.raises(swell.Error) as raised:
        saying(function, inputs, outputs)
    assert raised.value.code == "bad_argument"
    assert words in raised.value.message


def test_a_declaration_stands_where_calls_go() -> None:
    mark = swell.tensors(inputs={"x": ("FP32", [1])})
    with pytest.raises(swell.Error, match="generator"):
        tensors.of("f", one, False, marks.of(mark(lambda x: x)).tensors, generator=True)

    class Bare:
        @swell.method()
        def other(self) -> None: ...

        @mark
        def predict(self, x: Any) -> Any: ...

    def page(x: Any) -> Any: ...

    Bare.__qualname__, page.__qualname__ = "Bare", "page"
    with pytest.raises(swell.Error, match=r"add @swell\.method"):
        describe.check(describe.Declared("Bare", Bare, NOTHING, None, True))
    with pytest.raises(swell.Error, match="goes on what is called"):
        describe.check(describe.Declared("page", swell.fastapi_endpoint()(mark(page)), NOTHING, None, True))
