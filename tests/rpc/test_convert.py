"""Are the messages those of the protocol, and does a call by gRPC become the one over HTTP that means the same?"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import np_to_triton_dtype

from swell.model.errors import SwellError
from swell.model.tensors import DATATYPES, Tensor
from swell.rpc import convert, messages
from swell.runtime.tensors import array_of, output_of
from swell.wire import inference

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [name for datatype, name in DATATYPES.items() if datatype not in ("BYTES", "BF16")]


def fields(descriptor: Any) -> dict[str, Any]:
    """All that decides how a message looks as bytes."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof else "",
            fields(field.message_type) if field.message_type else None,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", [name for name in messages._FIELDS if "." not in name])
def test_a_message_is_what_another_implementation_has(name: str) -> None:
    assert fields(messages.message(name).DESCRIPTOR) == fields(getattr(theirs, name).DESCRIPTOR)


def tensors() -> st.SearchStrategy[Any]:
    numbers = st.sampled_from(NUMBERS).flatmap(lambda name: arrays.arrays(np.dtype(name), SHAPES))
    halves = arrays.arrays(np.float32, SHAPES, elements=st.floats(width=16)).map(
        lambda array: array.astype(ml_dtypes.bfloat16)
    )
    return st.one_of(numbers, halves, arrays.arrays(object, SHAPES, elements=st.binary(max_size=5)))


PARAMETERS = st.dictionaries(
    st.sampled_from("abc"),
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.text(max_size=4),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
)


def bits(array: Any) -> Any:
    array = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
    return array.tolist() if array.dtype == object else (array.dtype, array.shape, array.tobytes())


def read(ask: convert.Ask) -> inference.Inference:
    return inference.read(ask.body, dict(ask.headers)[inference.HEADER_LENGTH].encode(), b"")


def filled(request: Any, sent: list[Any]) -> None:
    """The tensors as a client puts them there, their bytes raw."""
    for at, array in enumerate(sent):
        made = triton.InferInput(f"x{at}", list(array.shape), np_to_triton_dtype(array.dtype))
        made.set_data_from_numpy(array)
        request.inputs.append(made._get_tensor())
        request.raw_input_contents.append(made._get_content() or b"")


@settings(deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3), PARAMETERS)
def test_raw_contents_are_read_as_they_were(sent: list[Any], parameters: dict[str, Any]) -> None:
    request = theirs.ModelInferRequest(model_name="a b", model_version="v", id="i")
    filled(request, sent)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], kinds[type(value)], value)
    request.outputs.add(name="y")
    ask = convert.infer_ask(request.SerializeToString())
    assert (ask.method, ask.path) == ("POST", "/v2/models/a%20b/versions/v/infer")
    asked = read(ask)
    assert (asked.id, asked.wanted, asked.is_binary("y")) == ("i", ("y",), True)
    assert {name: asked.parameters[name] for name in parameters} == parameters
    for array, each in zip(sent, asked.inputs, strict=True):
        assert bits(array_of(each, Tensor(each.name), "it")) == bits(array)


@settings(deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3))
def test_typed_contents_mean_the_same(sent: list[Any]) -> None:
    request = theirs.ModelInferRequest(model_name="m")
    for at, array in enumerate(sent):
        kind = np_to_triton_dtype(array.dtype)
        if kind in ("FP16", "BF16"):
            continue
        made = request.inputs.add(name=f"x{at}", datatype=kind, shape=array.shape)
        field = "bytes_contents" if kind == "BYTES" else convert._TYPED[kind][0]
        getattr(made.contents, field).extend(array.ravel().tolist())
    asked = read(convert.infer_ask(request.SerializeToString()))
    for each in asked.inputs:
        assert bits(array_of(each, Tensor(each.name), "it")) == bits(sent[int(each.name[1:])])


@settings(deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3))
def test_answers_are_decoded_by_a_client_as_they_were(sent: list[Any]) -> None:
    outputs = [output_of(f"y{at}", array, None, True) for at, array in enumerate(sent)]
    _, body, head = inference.write("m", "v", "id", outputs)
    name, _, length = head.decode().strip().partition(": ")
    made = convert.infer_answer(convert.Answer(200, {name.lower(): length}, body))
    back = triton.InferResult(theirs.ModelInferResponse.FromString(made.SerializeToString()))
    assert (back.get_response().id, back.get_response().model_version) == ("id", "v")
    for at, array in enumerate(sent):
        assert bits(back.as_numpy(f"y{at}")) == bits(array)


def request(**tensor: Any) -> bytes:
    raws = tensor.pop("raws", ())
    contents = {tensor.pop("field", "fp32_contents"): tensor.pop("elements", [])}
    made = theirs.ModelInferRequest(model_name="m", raw_input_contents=raws)
    made.inputs.add(name="x", datatype="FP32", shape=[1])
    made.inputs[0].MergeFrom(theirs.ModelInferRequest.InferInputTensor(**tensor))
    if contents.get("fp32_contents") != []:
        made.inputs[0].contents.MergeFrom(theirs.InferTensorContents(**contents))
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xff\xff\xff", "no ModelInferRequest"),
        (b"", "No model is named"),
        (request(raws=[b"a", b"b"]), "1 inputs, and raw_input_contents has 2"),
        (request(raws=[b"a"], elements=[1.0]), "'x' has contents, beside raw_input_contents"),
        (request(field="int_contents", elements=[1]), "'x' is FP32 in int_contents: that is in fp32_contents"),
        (request(datatype="INT8", field="int_contents", elements=[300]), "'x' has numbers that are out of the range"),
        (request(datatype="FP16", elements=[1.0]), "'x' is FP16 in fp32_contents: send it in raw_input_contents"),
        (request(datatype="NO"), "'x' is NO in contents: send it in raw_input_contents"),
    ],
)
def test_what_makes_no_request_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(SwellError) as raised:
        convert.infer_ask(raw)
    assert (raised.value.status, raised.value.code) == (400, "bad_body")
    assert words in raised.value.message


def outcome(raw: bytes) -> str:
    """The code of its refusal; empty where it is read."""
    try:
        read(convert.infer_ask(raw))
    except SwellError as error:
        return error.code
    return ""


@given(st.binary(max_size=80))
def test_no_bytes_are_more_than_refused(raw: bytes) -> None:
    assert outcome(raw) in ("", "bad_body")


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"error": "no"}', "no"), (b'{"error": {"message": "no"}}', "no"), (b"<html>", "<html>"), (b"[]", "None")],
)
def test_the_words_of_a_refusal_are_found(body: bytes, words: str) -> None:
    assert convert.error_of(convert.Answer(400, {}, body)) == words
