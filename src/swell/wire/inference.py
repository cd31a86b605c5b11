"""What is said in the Open Inference Protocol V2 over HTTP? Its documents, and how tensors stand behind them as bytes.

Tensors are JSON, or "binary": their bytes follow the JSON document, in the order of those that say so.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swell.model.errors import SwellError
from swell.model.tensors import DATATYPES, Tensor
from swell.wire.http import JSON, OCTETS
from swell.wire.malformed import must_be_plain, why_not_json

KEY_PATH = "/v2/health/key"
"""200 where the key that it is asked with may ask for anything here; it counts at none of the key's limits."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""Bytes of the JSON document, where binary tensors follow it."""
EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "swell"

_BINARY_SIZE = "binary_data_size"
_BINARY = "binary_data"
_ALL_BINARY = "binary_data_output"
_REFUSED = {
    "shared_memory_region": "shared memory is not offered: send the data",
    "classification": "classification is not offered: take the tensor",
}

Parameters = dict[str, Any]


class Described(msgspec.Struct, frozen=True):
    """An input or output, as metadata tells it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Described, ...]
    outputs: tuple[Described, ...]


class ServerMetadata(msgspec.Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class Listed(msgspec.Struct, frozen=True):
    """A model in the index."""

    name: str
    version: str
    state: str
    reason: str = ""


class Input(msgspec.Struct):
    """One tensor of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters = {}
    data: Any = None
    """As JSON; None: binary."""
    raw: memoryview | None = None
    """As bytes; None: JSON."""


class Wanted(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: Parameters = {}


class _Document(msgspec.Struct):
    inputs: tuple[Input, ...]
    id: str = ""
    parameters: Parameters = {}
    outputs: tuple[Wanted, ...] = ()


class Inference(msgspec.Struct):
    """One request, its binary tensors found."""

    id: str
    parameters: Parameters
    inputs: tuple[Input, ...]
    wanted: tuple[str, ...]
    """Outputs that are asked for; none: all."""
    binary: frozenset[str]
    """Those of them that are to be binary."""
    all_binary: bool
    """And others?"""

    def is_binary(self, output: str) -> bool:
        return output in self.binary if output in self.wanted else self.all_binary


class Output(msgspec.Struct, omit_defaults=True):
    """One tensor of an answer: `data` as JSON, or `raw` behind the document."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any = None
    parameters: Parameters = {}


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[Output]
    id: str = ""


_decode = msgspec.json.Decoder(_Document).decode


def error_body(code: str, message: str, *more: object, **named: object) -> bytes:
    """An error as the protocol has it, an `ErrorShape`; its code is in the status, and the request's id in a header."""
    del code, more, named
    return msgspec.json.encode({"error": message})


def described(tensors: tuple[Tensor, ...]) -> tuple[Described, ...]:
    """Tensors as metadata tells them. What a signature leaves open is one dimension of any length, of no datatype."""
    return tuple(Described(each.name, each.datatype, (-1,) if each.shape is None else each.shape) for each in tensors)


def read(body: bytes, header_length: bytes, content_encoding: bytes) -> Inference:
    """A request to infer. Raises SwellError 400 bad_body that names the tensor, 415 where the body is compressed."""
    must_be_plain(content_encoding)
    size = _header_size(header_length, len(body))
    json = body[:size] if size < len(body) else body
    try:
        document = _decode(json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = f"first {size} bytes of the body are" if header_length else "body is"
        raise _bad(f"The {what} no request to infer: {why_not_json(json, error)}") from None
    _place(document.inputs, memoryview(body)[size:])
    asked = document.outputs
    twice = _repeated(asked)
    if twice is not None:
        # What is answered must not grow by asking for the same again and again.
        raise _bad(f"Output {twice!r} is asked for more than once")
    for each in asked:
        _check_parameters(f"Output {each.name!r}", each.parameters)
    all_binary = document.parameters.get(_ALL_BINARY) is True
    return Inference(
        document.id,
        document.parameters,
        document.inputs,
        tuple(each.name for each in asked),
        frozenset(each.name for each in asked if each.parameters.get(_BINARY, all_binary) is True),
        all_binary,
    )


def _header_size(header_length: bytes, whole: int) -> int:
    if not header_length:
        return whole
    if not header_length.isdigit() or len(header_length) > 18 or int(header_length) > whole:
        said = header_length[:40].decode("latin-1")
        raise _bad(f"{HEADER_LENGTH} is {said!r}, and the body has {whole} bytes")
    return int(header_length)


def _place(inputs: tuple[Input, ...], rest: memoryview) -> None:
    """Give each binary tensor its bytes, which stand behind the document in order."""
    twice = _repeated(inputs)
    if twice is not None:
        raise _bad(f"Tensor {twice!r} is there more than once")
    for each in inputs:
        what = f"Tensor {each.name!r}"
        if each.datatype not in DATATYPES:
            raise _bad(f"{what} has datatype {each.datatype!r}; there are {', '.join(DATATYPES)}")
        if any(length < 0 for length in each.shape):
            raise _bad(f"{what} has shape {[*each.shape]}: no length is below 0")
        _check_parameters(what, each.parameters)
        each.raw = None
        size = each.parameters.get(_BINARY_SIZE)
        if size is None:
            if each.data is None:
                raise _bad(f"{what} has no data: neither `data` nor the parameter {_BINARY_SIZE}")
            continue
        if each.data is not None:
            raise _bad(f"{what} has both `data` and {_BINARY_SIZE}")
        if type(size) is not int or not 0 <= size <= len(rest):
            raise _bad(f"{what} has {_BINARY_SIZE} {size!r}, and {len(rest)} bytes are left behind the document")
        each.raw, rest = rest[:size], rest[size:]
    if rest:
        raise _bad(f"{len(rest)} bytes are left behind the last tensor")


def _repeated(tensors: tuple[Input, ...] | tuple[Wanted, ...]) -> str | None:
    """The first name that is there for the second time."""
    seen: set[str] = set()
    for each in tensors:
        if each.name in seen:
            return each.name
        seen.add(each.name)
    return None


def _check_parameters(what: str, parameters: Parameters) -> None:
    for name, words in _REFUSED.items():
        if name in parameters:
            raise _bad(f"{what} has the parameter {name}: {words}")


def write(model: str, version: str, id: str, outputs: list[tuple[Output, bytes | None]]) -> tuple[bytes, bytes, bytes]:
    """(content type, body, further header lines) of an answer: each output with its bytes where it is binary."""
    raws = []
    for output, raw in outputs:
        if raw is not None:
            output.parameters = {_BINARY_SIZE: len(raw)}
            raws.append(raw)
    document = msgspec.json.encode(_Answer(model, version, [output for output, _ in outputs], id))
    if not raws:
        return JSON.encode(), document, b""
    length = f"{HEADER_LENGTH}: {len(document)}\r\n".encode()
    return OCTETS.encode(), b"".join((document, *raws)), length


def _bad(said: str) -> SwellError:
    return SwellError("bad_body", f"{said}.")
