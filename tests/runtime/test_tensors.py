"""Do tensors come out as they went in, in every form, and is what does not fit named? By a client's own encoders."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http._utils import _get_inference_request
from tritonclient.utils import np_to_triton_dtype

from swell.model.errors import SwellError
from swell.model.tensors import DATATYPES, Tensor
from swell.runtime.tensors import Misfit, array_of, array_out_of, named, output_of
from swell.wire import inference

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [name for datatype, name in DATATYPES.items() if datatype not in ("BYTES", "BF16")]


def tensors() -> st.SearchStrategy[Any]:
    """Arrays of every datatype; of BF16, as a client has it."""
    numbers = st.sampled_from(NUMBERS).flatmap(lambda name: arrays.arrays(np.dtype(name), SHAPES))
    halves = arrays.arrays(np.float32, SHAPES, elements=st.floats(width=16)).map(
        lambda array: array.astype(ml_dtypes.bfloat16)
    )
    texts = arrays.arrays(object, SHAPES, elements=st.binary(max_size=5))
    return st.one_of(numbers, halves, texts)


def in_json(array: Any) -> bool:
    """Can it be sent as JSON by that client? It has no NaN there, no bytes that are no text, and no BF16."""
    if array.dtype == object:
        return all(each.isascii() for each in array.ravel().tolist())
    return array.dtype != ml_dtypes.bfloat16 and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))


def as_input(name: str, array: Any, binary: bool) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=binary)


def bits(array: Any) -> Any:
    """What user code has for it, comparable also where it is no number."""
    array = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
    return array.tolist() if array.dtype == object else (array.dtype, array.shape, array.tobytes())


@settings(deadline=None)
@given(st.lists(st.tuples(tensors(), st.booleans()), min_size=1, max_size=3))
def test_what_a_client_encodes_is_read_as_it_was(sent: list[tuple[Any, bool]]) -> None:
    inputs = [as_input(f"x{at}", array, binary or not in_json(array)) for at, (array, binary) in enumerate(sent)]
    body, length = _get_inference_request(inputs, "id", [], 0, False, False, 0, None, None)
    asked = inference.read(body, b"" if length is None else str(length).encode(), b"")
    assert (asked.id, asked.all_binary) == ("id", True)
    for (array, _), each in zip(sent, asked.inputs, strict=True):
        read = array_of(each, Tensor(each.name), "it")
        assert bits(read) == bits(array)
        assert read.flags.writeable
        assert read.flags.aligned


@settings(deadline=None)
@given(st.lists(st.tuples(tensors(), st.booleans()), min_size=1, max_size=3))
def test_what_is_written_is_decoded_by_a_client_as_it_was(sent: list[tuple[Any, bool]]) -> None:
    outputs = [
        output_of(f"y{at}", array, None, binary or not in_json(array)) for at, (array, binary) in enumerate(sent)
    ]
    _, body, head = inference.write("m", "v", "id", outputs)
    length = int(head.split()[1]) if head else None
    read = triton.InferResult.from_response_body(body, header_length=length)
    assert read.get_response()["id"] == "id"
    for at, (array, _) in enumerate(sent):
        back = read.as_numpy(f"y{at}")
        assert back.shape == array.shape
        if array.dtype == object:
            # Of JSON the client leaves them texts.
            assert [each if isinstance(each, bytes) else each.encode() for each in back.ravel()] == [*array.ravel()]
        else:
            assert np.array_equal(back, array, equal_nan=True)


@settings(deadline=None)
@given(st.sampled_from(NUMBERS).flatmap(lambda name: arrays.arrays(np.dtype(name), SHAPES)))
def test_lists_become_the_arrays_they_were(array: Any) -> None:
    datatype = np_to_triton_dtype(array.dtype)
    values = np.where(np.isnan(array), None, array) if array.dtype.kind == "f" else array
    made = array_out_of(values.tolist(), Tensor("x", datatype), "it")
    # JSON knows one way of being no number, floats have many.
    meant = np.where(np.isnan(array), array.dtype.type("nan"), array) if array.dtype.kind == "f" else array
    # An empty one has no more dimensions than can be seen.
    assert bits(made) == bits(meant) if array.size else made.size == 0


def request(**tensor: Any) -> inference.Input:
    body = json.dumps({"inputs": [{"name": "x", **tensor}]}).encode()
    return inference.read(body, b"", b"").inputs[0]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("INT8", [2], [1, 128], "out of the range of INT8"),
        ("UINT64", [1], [-1], "out of the range of UINT64"),
        ("FP64", [1], [10**400], "out of the range of FP64"),
        ("INT32", [1], [1.5], "not all whole numbers"),
        ("INT32", [1], [True], "not all whole numbers"),
        ("INT32", [1], [None], "not all whole numbers"),
        ("BOOL", [1], [1], "not all true and false"),
        ("FP32", [1], ["1"], "not all numbers"),
        ("BYTES", [1], [1], "not all texts"),
        ("FP32", [2], [1], "has 1 elements; its shape [2] has 2"),
        ("FP32", [2, 2], [[1, 2], [3]], "not nested as its shape [2, 2] says"),
        ("FP32", [2, 2], [[1, 2, 3, 4]], "not nested as its shape [2, 2] says"),
        ("FP32", [4], [[1, 2], [3, 4]], "has 2 elements"),
        ("FP32", [1], 1, "no array"),
        ("FP32", [1] * 100, [1], "a shape of 100 dimensions that no array has"),
        ("BF16", [1] * 100, [1], "a shape of 100 dimensions that no array has"),
        ("BYTES", [1] * 100, ["a"], "a shape of 100 dimensions that no array has"),
        ("INT8", [0, 2**100], [], "a shape of 2 dimensions that no array has"),
        ("INT64", [0, 2**62, 2**62], [], "a shape of 3 dimensions that no array has"),
    ],
)
def test_json_that_does_not_fit_is_told(datatype: str, shape: list[int], data: Any, words: str) -> None:
    with pytest.raises(Misfit) as raised:
        array_of(request(datatype=datatype, shape=shape, data=data), Tensor("x"), "it")
    assert words in str(raised.value)


def test_texts_that_would_need_more_memory_than_there_is_are_told() -> None:
    """NumPy gives each as much room as the longest."""
    with pytest.raises(Misfit, match="makes no array: Unable to allocate"):
        array_out_of(["x" * 10**6, *[""] * 10**6], Tensor("x"), "it")


@pytest.mark.parametrize(("datatype", "raw"), [("FP32", b"\0" * 4), ("BYTES", b"\1\0\0\0a")])
def test_bytes_of_a_shape_that_no_array_has_are_told(datatype: str, raw: bytes) -> None:
    made = inference.Input("x", datatype, (1,) * 100, raw=memoryview(raw))
    with pytest.raises(Misfit, match="a shape of 100 dimensions that no array has"):
        array_of(made, Tensor("x"), "it")


def test_what_is_named_twice_is_refused() -> None:
    """An answer must not be as often as large as the function's result as its caller likes."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    for changed, words in (
        ({"inputs": [tensor, tensor]}, "Tensor 'x' is there more than once"),
        ({"outputs": [{"name": "y"}, {"name": "z"}, {"name": "y"}]}, "Output 'y' is asked for more than once"),
    ):
        with pytest.raises(SwellError, match=words) as raised:
            inference.read(json.dumps({"inputs": [tensor]} | changed).encode(), b"", b"")
        assert (raised.value.code, raised.value.status) == ("bad_body", 400)


def test_json_may_be_flat_and_has_null_for_nan() -> None:
    assert array_of(request(datatype="INT64", shape=[2, 2], data=[1, 2, 3, 4]), Tensor("x"), "it").shape == (2, 2)
    assert np.isnan(array_of(request(datatype="FP16", shape=[1], data=[None]), Tensor("x"), "it")).all()
    big = array_of(request(datatype="UINT64", shape=[2], data=[2**64 - 1, 0]), Tensor("x"), "it")
    assert big.tolist() == [2**64 - 1, 0]
    assert array_of(request(datatype="FP32", shape=[], data=[7]), Tensor("x"), "it").tolist() == 7


@given(arrays.arrays(np.float32, 5))
def test_numbers_in_json_become_bf16_as_others_round_them(array: Any) -> None:
    given = inference.Input("x", "BF16", (5,), {}, [None if np.isnan(each) else float(each) for each in array])
    with np.errstate(all="ignore"):
        mine, theirs = array_of(given, Tensor("x"), "it"), array.astype(ml_dtypes.bfloat16)
    same = mine == theirs.view(np.uint16)
    assert (same | np.isnan(array)).all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x05\0\0\0abc", "ends within its element 0"),
        (b"\x01\0\0\0a\x02", "ends within its element 1"),
        (b"", "0 elements"),
    ],
)
def test_texts_that_are_cut_off_are_told(raw: bytes, words: str) -> None:
    with pytest.raises(Misfit, match=words):
        array_of(inference.Input("x", "BYTES", (1,), raw=memoryview(raw)), Tensor("x"), "it")


@given(st.binary(max_size=60), st.binary(max_size=6))
def test_no_bytes_are_more_than_refused(body: bytes, length: bytes) -> None:
    with pytest.raises(SwellError, match=r"."):
        inference.read(body, length, b"")


def tampered(**changes: Any) -> tuple[bytes, bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}} | changes
    document = json.dumps({"inputs": [tensor]}).encode()
    return document + b"\0\0\x80\x3f", str(len(document)).encode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datatype": "FLOAT"}, "Tensor 'x' has datatype 'FLOAT'; there are BOOL"),
        ({"shape": [-1]}, "no length is below 0"),
        ({"parameters": {"binary_data_size": 5}}, "4 bytes are left behind the document"),
        ({"parameters": {"binary_data_size": "4"}}, "binary_data_size '4'"),
        ({"parameters": {"binary_data_size": 3}}, "1 bytes are left behind the last tensor"),
        ({"parameters": {}}, "has no data"),
        ({"data": [1]}, "both `data` and"),
        ({"parameters": {"binary_data_size": 4, "shared_memory_region": "r"}}, "shared memory is not offered"),
    ],
)
def test_a_document_that_contradicts_its_bytes_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SwellError) as raised:
        inference.read(*tampered(**changes), b"")
    assert (raised.value.code, raised.value.status) == ("bad_body", 400)
    assert words in raised.value.message


def test_lengths_that_cannot_be_are_refused() -> None:
    body, length = tampered()
    assert inference.read(body, length, b"").inputs[0].raw == b"\0\0\x80\x3f"
    for wrong in (b"-1", b"x", b"9999", b"1" * 30):
        with pytest.raises(SwellError, match="Inference-Header-Content-Length"):
            inference.read(body, wrong, b"")
    with pytest.raises(SwellError, match="compressed"):
        inference.read(body, length, b"gzip")


def declared(**outputs: tuple[str, list[int]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, kind, tuple(shape)) for name, (kind, shape) in outputs.items())


def test_results_are_named_as_they_come() -> None:
    assert named({"a": 1, "b": 2}, ()) == {"a": 1, "b": 2}
    assert named((1, 2), ()) == {"output_0": 1, "output_1": 2}
    assert named(7, ()) == {"output": 7}
    two = declared(a=("FP32", []), b=("FP32", []))
    assert named((1, 2), two) == {"a": 1, "b": 2}
    assert named({"b": 2, "a": 1, "c": 3}, two) == {"a": 1, "b": 2}
    assert named(7, declared(y=("FP32", []))) == {"y": 7}
    for wrong, words in (((1, 2, 3), "a tuple of 3"), ({"a": 1}, "b is not in"), (7, "a int was returned")):
        with pytest.raises(Misfit, match=words):
            named(wrong, two)


def test_results_are_what_they_are_declared_to_be() -> None:
    (wide,) = declared(y=("INT64", [-1]))
    assert output_of("y", np.array([1], np.int32), wide, False)[0] == inference.Output("y", "INT64", (1,), [1])
    assert output_of("y", [1, 2], None, False)[0].datatype == "INT64"
    assert output_of("y", ["a", b"b"], None, False)[0].data == ["a", "b"]
    for wrong, words in (
        (np.array([1.5]), "is FP64; it is declared as INT64"),
        (np.array([[1]]), r"has shape \[1, 1\]"),
        (np.array([1j]), "no datatype"),
        (np.array([{}]), "an element of type dict"),
        (np.array([b"\xff"]), "binary_data"),
    ):
        with pytest.raises(Misfit, match=words):
            output_of("y", wrong, None if wrong.dtype.kind in "OS" else wide, False)


def test_metadata_says_what_is_open() -> None:
    told = inference.described((Tensor("x"), Tensor("y", "FP32", (2, -1))))
    assert [(each.name, each.datatype, each.shape) for each in told] == [("x", "", (-1,)), ("y", "FP32", (2, -1))]
