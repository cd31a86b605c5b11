"""Which tensors does a method take and give? What the Open Inference Protocol V2 tells of it, and its model's name."""

from __future__ import annotations

import msgspec

DATATYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
    "BF16": "uint16",
}
"""Datatype of the protocol → dtype of the NumPy array that user code has for it. NumPy knows no BF16: there it is the
bits of each number."""


class Tensor(msgspec.Struct, frozen=True):
    """One input or output."""

    name: str
    datatype: str = ""
    """One of DATATYPES; empty: any."""
    shape: tuple[int, ...] | None = None
    """-1 is any length; None: any shape."""
    optional: bool = False
    """Of an input: it may be left out."""


class Tensors(msgspec.Struct, frozen=True):
    """What a method takes and gives as tensors."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()
    """Empty: whatever it returns says it."""


def fits(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> bool:
    """Is a shape one of those that are taken?"""
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(want in (-1, length) for length, want in zip(shape, wanted, strict=True))


def size_of(shape: tuple[int, ...]) -> int:
    """How many elements a tensor of this shape has."""
    size = 1
    for length in shape:
        size *= length
    return size


def shown(tensor: Tensor) -> str:
    """A tensor as people write it: "FP32 [-1, 64]"."""
    shape = "of any shape" if tensor.shape is None else str([*tensor.shape])
    return f"{tensor.datatype or 'any datatype'} {shape}"
