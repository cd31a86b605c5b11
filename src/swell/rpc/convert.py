"""How does a call by gRPC become one over HTTP, and an answer one by gRPC? Pure: messages to documents, and back."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from google.protobuf.message import DecodeError

from swell.model.errors import SwellError
from swell.rpc.messages import message
from swell.wire.http import OCTETS
from swell.wire.inference import HEADER_LENGTH, ModelMetadata, ServerMetadata

_TYPED: dict[str, tuple[str, str]] = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
}
"""Datatype → the field that holds its elements, and how one is packed. FP16 and BF16 have none."""
_BYTES = "bytes_contents"
NAME_MAX = 1000
"""Characters of a model's name or version that are looked up; none is that long, and a path may not be."""


class Ask(NamedTuple):
    """A request to the gateway."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Answer(NamedTuple):
    """What the gateway answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def parsed(name: str, raw: bytes) -> Any:
    """A message out of its bytes. SwellError 400."""
    try:
        return message(name).FromString(raw)
    except (DecodeError, ValueError) as error:
        raise SwellError("bad_body", f"The message is no {name}: {error}.") from None


# -- asking -----------------------------------------------------------------------------------


def model_path(name: str, version: str) -> str:
    """Where a model is. SwellError 400 without a name, 404 with one that cannot be."""
    if not name:
        raise SwellError("bad_body", "No model is named.")
    for each in (name, version):
        if len(each) > NAME_MAX:
            words = f"There is no model or version {each[:40]!r}…: no name has {len(each)} characters."
            raise SwellError("unknown_function", words, status=404)
    path = f"/v2/models/{_segment(name)}"
    return f"{path}/versions/{_segment(version)}" if version else path


def _segment(name: str) -> str:
    """One segment of a path, whatever it is: `..` would be taken for the way up."""
    return quote(name, safe="").replace(".", "%2E")


def infer_ask(raw: bytes) -> Ask:
    """A ModelInferRequest. SwellError 400 that names the tensor."""
    asked = parsed("ModelInferRequest", raw)
    path = f"{model_path(asked.model_name, asked.model_version)}/infer"
    datas = _raws(asked)
    document = {
        "id": asked.id,
        "parameters": {**_plain(asked.parameters), "binary_data_output": True},
        "inputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": [*each.shape],
                "parameters": {**_plain(each.parameters), "binary_data_size": len(data)},
            }
            for each, data in zip(asked.inputs, datas, strict=True)
        ],
        "outputs": [
            {"name": each.name, "parameters": {**_plain(each.parameters), "binary_data": True}}
            for each in asked.outputs
        ],
    }
    head = msgspec.json.encode(document)
    headers = (("Content-Type", OCTETS), (HEADER_LENGTH, str(len(head))))
    return Ask("POST", path, headers, b"".join((head, *datas)))


def id_of(raw: bytes) -> str:
    """What the sender of a ModelInferRequest calls it, as far as that can be read."""
    try:
        return str(parsed("ModelInferRequest", raw).id)
    except SwellError:
        return ""


def _raws(asked: Any) -> list[bytes]:
    """The bytes of each input, however they were sent."""
    raws = [*asked.raw_input_contents]
    if not raws:
        return [_packed(each) for each in asked.inputs]
    if len(raws) != len(asked.inputs):
        words = f"There are {len(asked.inputs)} inputs, and raw_input_contents has {len(raws)}."
        raise SwellError("bad_body", words)
    for each in asked.inputs:
        if each.HasField("contents"):
            raise SwellError("bad_body", f"Tensor {each.name!r} has contents, beside raw_input_contents.")
    return raws


def _packed(tensor: Any) -> bytes:
    """The elements of a tensor as its bytes."""
    contents = tensor.contents
    wanted, form = _TYPED.get(tensor.datatype, (_BYTES, ""))
    others = [field.name for field, _ in contents.ListFields() if field.name != wanted]
    if tensor.datatype not in ("BYTES", *_TYPED) or others:
        where = f"{others[0]}" if others else "contents"
        known = tensor.datatype in ("BYTES", *_TYPED)
        way_out = f"that is in {wanted}" if known else "send it in raw_input_contents"
        raise SwellError("bad_body", f"Tensor {tensor.name!r} is {tensor.datatype} in {where}: {way_out}.")
    elements = [*getattr(contents, wanted)]
    if not form:
        return b"".join(struct.pack("<I", len(each)) + each for each in elements)
    try:
        return struct.pack(f"<{len(elements)}{form}", *elements)
    except struct.error:
        words = f"Tensor {tensor.name!r} has numbers that are out of the range of {tensor.datatype}."
        raise SwellError("bad_body", words) from None


def _plain(parameters: Any) -> dict[str, Any]:
    found = {}
    for name, value in parameters.items():
        chosen = value.WhichOneof("parameter_choice")
        if chosen is not None:
            found[name] = getattr(value, chosen)
    return found


# -- answering --------------------------------------------------------------------------------


def infer_answer(answer: Answer) -> Any:
    """A ModelInferResponse out of what the gateway answered."""
    length = int(answer.headers.get(HEADER_LENGTH.lower(), len(answer.body)))
    told = msgspec.json.decode(answer.body[:length])
    made = message("ModelInferResponse")(
        model_name=told["model_name"], model_version=told["model_version"], id=told.get("id", "")
    )
    at = length
    for each in told["outputs"]:
        made.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        size = each["parameters"]["binary_data_size"]
        made.raw_output_contents.append(answer.body[at : at + size])
        at += size
    return made


def server_answer(answer: Answer) -> Any:
    """A ServerMetadataResponse."""
    told = msgspec.json.decode(answer.body, type=ServerMetadata)
    # What the others are over HTTP, gRPC has in its messages.
    extensions = [each for each in told.extensions if each != "binary_tensor_data"]
    return message("ServerMetadataResponse")(name=told.name, version=told.version, extensions=extensions)


def model_answer(answer: Answer) -> Any:
    """A ModelMetadataResponse."""
    told = msgspec.json.decode(answer.body, type=ModelMetadata)
    made = message("ModelMetadataResponse")(name=told.name, versions=told.versions, platform=told.platform)
    for here, there in ((made.inputs, told.inputs), (made.outputs, told.outputs)):
        for each in there:
            here.add(name=each.name, datatype=each.datatype, shape=each.shape)
    return made


def index_answer(answer: Answer) -> Any:
    """A RepositoryIndexResponse."""
    made = message("RepositoryIndexResponse")()
    for each in msgspec.json.decode(answer.body):
        made.models.add(**each)
    return made


def error_of(answer: Answer) -> str:
    """The message of a refusal; of one that is no document of ours, what it begins with."""
    try:
        told = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer.body[:200].decode("latin-1")
    said = told.get("error") if isinstance(told, dict) else None
    if isinstance(said, dict):
        said = said.get("message")
    return str(said)
