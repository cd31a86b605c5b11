"""Which messages does the Open Inference Protocol have over gRPC? Made from a table of their fields when first needed.

The names and numbers are the protocol's (package `inference`). They are registered in a pool of their own: a program
that has another's, generated ones, may have these too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "inference.GRPCInferenceService"

_PARAMETERS = "map InferParameter"
_TENSOR = {"name": "string", "datatype": "string", "shape": "repeated int64", "parameters": _PARAMETERS}
_FIELDS: dict[str, dict[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "bool"},
    "ModelReadyRequest": {"name": "string", "version": "string"},
    "ModelReadyResponse": {"ready": "bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": "string", "version": "string", "extensions": "repeated string"},
    "ModelMetadataRequest": {"name": "string", "version": "string"},
    "ModelMetadataResponse": {
        "name": "string",
        "versions": "repeated string",
        "platform": "string",
        "inputs": "repeated ModelMetadataResponse.TensorMetadata",
        "outputs": "repeated ModelMetadataResponse.TensorMetadata",
    },
    "ModelMetadataResponse.TensorMetadata": {"name": "string", "datatype": "string", "shape": "repeated int64"},
    "ModelInferRequest": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": _PARAMETERS,
        "inputs": "repeated ModelInferRequest.InferInputTensor",
        "outputs": "repeated ModelInferRequest.InferRequestedOutputTensor",
        "raw_input_contents": "repeated bytes",
    },
    "ModelInferRequest.InferInputTensor": {**_TENSOR, "contents": "InferTensorContents"},
    "ModelInferRequest.InferRequestedOutputTensor": {"name": "string", "parameters": _PARAMETERS},
    "ModelInferResponse": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": _PARAMETERS,
        "outputs": "repeated ModelInferResponse.InferOutputTensor",
        "raw_output_contents": "repeated bytes",
    },
    "ModelInferResponse.InferOutputTensor": {**_TENSOR, "contents": "InferTensorContents"},
    "ModelStreamInferResponse": {"error_message": "string", "infer_response": "ModelInferResponse"},
    "InferParameter": {
        "bool_param": "bool",
        "int64_param": "int64",
        "string_param": "string",
        "double_param": "double",
        "uint64_param": "uint64",
    },
    "InferTensorContents": {
        "bool_contents": "repeated bool",
        "int_contents": "repeated int32",
        "int64_contents": "repeated int64",
        "uint_contents": "repeated uint32",
        "uint64_contents": "repeated uint64",
        "fp32_contents": "repeated float",
        "fp64_contents": "repeated double",
        "bytes_contents": "repeated bytes",
    },
    "RepositoryIndexRequest": {"repository_name": "string", "ready": "bool"},
    "RepositoryIndexResponse": {"models": "repeated RepositoryIndexResponse.ModelIndex"},
    "RepositoryIndexResponse.ModelIndex": {
        "name": "string",
        "version": "string",
        "state": "string",
        "reason": "string",
    },
}
"""Message → its fields, numbered in this order from 1."""
_ONE_OF = {"InferParameter": "parameter_choice"}
"""Messages of which at most one field is set."""

_PACKAGE = SERVICE.partition(".")[0]


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="swell/inference.proto", package=_PACKAGE, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for name, fields in _FIELDS.items():
        outer, _, own = name.rpartition(".")
        message = made[name] = (made[outer].nested_type if outer else file.message_type).add(name=own)
        if name in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[name])
        for number, (field, kind) in enumerate(fields.items(), 1):
            _add(message, name, field, number, kind)
    return file


def _add(message: DescriptorProto, owner: str, name: str, number: int, kind: str) -> None:
    *words, what = kind.split(" ")
    repeated = bool(words)
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if "map" in words:
        entry = message.nested_type.add(name="".join(each.title() for each in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add(entry, "", "key", 1, "string")
        _add(entry, "", "value", 2, what)
        what = f"{owner}.{entry.name}"
    plain = getattr(FieldDescriptorProto, f"TYPE_{what.upper()}", None)
    field.type = FieldDescriptorProto.TYPE_MESSAGE if plain is None else plain
    if plain is None:
        field.type_name = f".{_PACKAGE}.{what}"
    if owner in _ONE_OF:
        field.oneof_index = 0


_pool = DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def message(name: str) -> Any:
    """The class of a message."""
    return GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
