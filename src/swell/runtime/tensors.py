"""How do the tensors of a request become NumPy arrays, and results tensors? NumPy is imported where a model is called.

The arrays of a request are the function's own: it may write to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from swell.model.tensors import DATATYPES, Tensor, fits, shown, size_of
from swell.wire.inference import Input, Output

ONE_OUTPUT = "output"
"""Name of the only output of a function that does not name it."""
_BFLOAT16 = "bfloat16"
"""What the dtype is called that other packages add to NumPy."""
_DATATYPES = {name: datatype for datatype, name in DATATYPES.items() if datatype != "BF16"} | {_BFLOAT16: "BF16"}
_PREFIX_BYTES = 4
"""An element of BYTES has its length in front."""
_IN_JSON: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true and false"),
    "f": (frozenset({int, float, type(None)}), "numbers"),
    "i": (frozenset({int}), "whole numbers"),
    "O": (frozenset({str}), "texts"),
    "u": (frozenset({int}), "whole numbers"),
}
"""By the kind of dtype: what elements are in JSON, which has null for NaN."""


class Misfit(ValueError):
    """What is wrong with a tensor, as the end of a sentence that begins with its name."""


# -- inputs -----------------------------------------------------------------------------------


def array_of(given: Input, wanted: Tensor, taker: str) -> Any:
    """An input as an array. Raises Misfit."""
    if wanted.datatype and given.datatype != wanted.datatype:
        raise Misfit(f"has datatype {given.datatype}; {taker} takes {shown(wanted)}")
    if not fits(given.shape, wanted.shape):
        raise Misfit(f"has shape {[*given.shape]}; {taker} takes {shown(wanted)}")
    if given.raw is None:
        return _from_json(given)
    return _texts_of(given, given.raw) if given.datatype == "BYTES" else _numbers_of(given, given.raw)


def array_out_of(value: Any, wanted: Tensor, taker: str) -> Any:
    """A value of JSON, nested as it is, as an array of the datatype that is wanted, else of its own. Raises Misfit."""
    np = import_module("numpy")
    shape = _shape_of(value)
    if not fits(shape, wanted.shape):
        raise Misfit(f"has shape {[*shape]}; {taker} takes {shown(wanted)}")
    if wanted.datatype:
        return _from_json(Input(wanted.name, wanted.datatype, shape, {}, value if shape else [value]))
    try:
        return np.array(value)
    except (ValueError, OverflowError, MemoryError) as error:
        raise Misfit(f"makes no array: {error}") from None


def _shape_of(value: Any) -> tuple[int, ...]:
    """By its first elements, so far down as there are any; whether the others are alike is asked later."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _numbers_of(given: Input, raw: memoryview) -> Any:
    np = import_module("numpy")
    kind = np.dtype(DATATYPES[given.datatype])
    due = size_of(given.shape) * kind.itemsize
    if len(raw) != due:
        raise Misfit(f"has {len(raw)} bytes of data; {given.datatype} {[*given.shape]} is {due}")
    # Copied: user code may write to it, and where it lies in the body it need not be aligned.
    return _shaped(np.frombuffer(raw, kind.newbyteorder("<")).astype(kind, copy=True), given.shape)


def _texts_of(given: Input, raw: memoryview) -> Any:
    found: list[Any] = []
    at = 0
    while at < len(raw):
        begin = at + _PREFIX_BYTES
        at = begin + int.from_bytes(raw[at:begin], "little")
        if at > len(raw):
            raise Misfit(f"ends within its element {len(found)}")
        found.append(bytes(raw[begin:at]))
    _count(found, given)
    return _objects(found, given.shape)


def _from_json(given: Input) -> Any:
    np = import_module("numpy")
    found = _elements(given.data, given.shape)
    _count(found, given)
    datatype = given.datatype
    kind = np.dtype("float32" if datatype == "BF16" else DATATYPES[datatype])
    types, words = _IN_JSON[kind.kind]
    if not types.issuperset(map(type, found)):
        raise Misfit(f"has data that is not all {words}, as {datatype} is in JSON")
    if datatype == "BYTES":
        return _objects([text.encode() for text in found], given.shape)
    if kind.kind in "iu" and found:
        bounds = np.iinfo(kind)
        if min(found) < bounds.min or max(found) > bounds.max:
            raise Misfit(f"has numbers that are out of the range of {datatype}")
    try:
        read = np.array(found, kind)
    except OverflowError:
        raise Misfit(f"has numbers that are out of the range of {datatype}") from None
    read = _shaped(read, given.shape)
    return _rounded(read) if datatype == "BF16" else read


def _rounded(numbers: Any) -> Any:
    """Numbers of 32 bits as the bits of BF16, the nearest (of two the even one)."""
    np = import_module("numpy")
    bits = numbers.view("uint32")
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype("uint16")


def _elements(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order, of an array that is flat or nested as the shape says."""
    if not isinstance(data, list):
        raise Misfit("has data that is no array")
    if len(shape) < 2 or not any(isinstance(each, list) for each in data):
        return data
    level = [data]
    for length in shape:
        if not all(isinstance(row, list) and len(row) == length for row in level):
            raise Misfit(f"has data that is not nested as its shape {[*shape]} says")
        level = [each for row in level for each in row]
    return level


def _count(found: list[Any], given: Input) -> None:
    due = size_of(given.shape)
    if len(found) != due:
        raise Misfit(f"has {len(found)} elements; its shape {[*given.shape]} has {due}")


def _objects(found: list[Any], shape: tuple[int, ...]) -> Any:
    """An array of these very objects: NumPy would make fixed widths of texts."""
    np = import_module("numpy")
    made = np.empty(len(found), object)
    made[:] = found
    return _shaped(made, shape)


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    """Of that shape, which has as many elements: but there are bounds to the number of dimensions, and to each."""
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Misfit(f"has a shape of {len(shape)} dimensions that no array has: {error}") from None


# -- outputs ----------------------------------------------------------------------------------


def named(result: Any, declared: tuple[Tensor, ...]) -> dict[str, Any]:
    """The outputs in what a function returned: by name in a mapping or by field, in order in a tuple, or the one.
    Raises Misfit."""
    fields = _fields(result)
    if fields is None and isinstance(result, tuple) and len(declared) != 1:
        names = [each.name for each in declared] or [f"{ONE_OUTPUT}_{at}" for at in range(len(result))]
        if len(names) != len(result):
            raise Misfit(f"a tuple of {len(result)} was returned, and its outputs are {', '.join(names)}")
        fields = dict(zip(names, result, strict=True))
    if fields is None:
        if len(declared) > 1:
            names = [each.name for each in declared]
            raise Misfit(f"a {type(result).__name__} was returned, and its outputs are {', '.join(names)}")
        return {declared[0].name if declared else ONE_OUTPUT: result}
    if not declared:
        return fields
    missing = [each.name for each in declared if each.name not in fields]
    if missing:
        raise Misfit(f"{', '.join(missing)} is not in what was returned, which has {', '.join(fields) or 'nothing'}")
    return {each.name: fields[each.name] for each in declared}


def _fields(result: Any) -> dict[str, Any] | None:
    """A result's parts by name, where they have names."""
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if isinstance(result, tuple):
        return result._asdict() if hasattr(result, "_asdict") else None
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return None


def output_of(name: str, value: Any, declared: Tensor | None, binary: bool) -> tuple[Output, bytes | None]:
    """An output, and its bytes if they are to stand behind the document. Raises Misfit."""
    np = import_module("numpy")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise Misfit(f"is a {type(value).__name__} that makes no array: {error}") from None
    wanted = declared.datatype if declared is not None else ""
    if array.dtype.name == _BFLOAT16:
        array, datatype = array.view("uint16"), "BF16"
    elif wanted == "BF16" and array.dtype.name == "uint16":
        datatype = "BF16"
    elif array.dtype.kind in "OSU":
        datatype = "BYTES"
    else:
        array, datatype = _as_declared(array, wanted)
    if wanted not in ("", datatype):
        raise Misfit(f"is {datatype}; it is declared as {wanted}")
    if declared is not None and not fits(array.shape, declared.shape):
        raise Misfit(f"has shape {[*array.shape]}; it is declared as {shown(declared)}")
    made = Output(name, datatype, array.shape)
    if datatype == "BYTES":
        texts = [_bytes_of(each) for each in array.ravel().tolist()]
        if binary:
            return made, b"".join(len(each).to_bytes(_PREFIX_BYTES, "little") + each for each in texts)
        made.data = [_text_of(each) for each in texts]
        return made, None
    if binary:
        return made, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    plain = (array.astype("uint32") << 16).view("float32") if datatype == "BF16" else array
    made.data = plain.ravel().tolist()
    return made, None


def _as_declared(array: Any, wanted: str) -> tuple[Any, str]:
    """The array in the datatype it is declared with, where that loses no more than precision; else in its own."""
    np = import_module("numpy")
    if wanted and wanted != "BF16":
        kind = np.dtype(DATATYPES[wanted])
        if kind != array.dtype and kind.kind != "O" and np.can_cast(array.dtype, kind, "same_kind"):
            return array.astype(kind), wanted
    datatype = _DATATYPES.get(array.dtype.name)
    if datatype is None:
        raise Misfit(f"is of dtype {array.dtype}, for which the protocol has no datatype")
    return array, datatype


def _bytes_of(element: Any) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    raise Misfit(f"has an element of type {type(element).__name__}; BYTES are bytes or texts")


def _text_of(element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise Misfit("has bytes that are no UTF-8, which JSON cannot hold: ask for it with binary_data") from None
