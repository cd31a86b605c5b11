"""How is a result answered? Encoding values and errors in the type the caller accepts."""

from __future__ import annotations

import base64
import copyreg
import io
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePath
from types import FunctionType
from typing import Any, NamedTuple

import msgspec

from swell.model.errors import SwellError
from swell.runtime.shapes import encodable
from swell.runtime.tracebacks import summary, user_traceback
from swell.runtime.unencodable import why
from swell.wire.http import FRAMES, JSON, MSGPACK, OCTETS, PICKLE, ErrorShape, error_body

_VALUES = (JSON, MSGPACK, OCTETS, PICKLE)
_BYTES = (bytes, bytearray, memoryview)


class Answer(NamedTuple):
    """A whole answer, as bytes."""

    status: int
    content_type: bytes
    body: bytes
    head: bytes = b""
    """Further header lines, each with its CRLF."""


class Accepted(NamedTuple):
    """What the caller's `Accept` asks for."""

    kind: str
    """Type of the result or of a stream's items; empty = none was named."""
    frames: bool
    """A stream comes as frames instead of server-sent events."""
    pickles: bool = False
    """What cannot be of that type may be a pickle."""


@lru_cache(256)
def accepted(accept: bytes, trusted: bool) -> Accepted:
    """The first known type decides. SwellError 401 no_key when that is a pickle and no key came with it."""
    named = [part.partition(";")[0].strip().lower() for part in accept.decode("latin-1").split(",")]
    kind = next((name for name in named if name in _VALUES), "")
    if kind == PICKLE and not trusted:
        raise SwellError(
            "no_key", f"Pickled results need a key that may deploy. Send it, or accept {JSON}.", status=401
        )
    return Accepted(kind, FRAMES in named, trusted and PICKLE in named and kind != PICKLE)


def value_answer(name: str, value: Any, kind: str, pickles: bool = False) -> Answer:
    """`value` as a 200; as a pickle where it cannot be of that type, and `pickles` are accepted, too. Raises SwellError
    500 bad_result that says which types work."""
    try:
        content_type, body = encode(value, kind)
    except Exception as error:
        if pickles:
            return value_answer(name, value, PICKLE)
        raise SwellError("bad_result", bad_result(name, value, error, kind), status=500) from None
    return Answer(200, content_type, body)


def encode(value: Any, kind: str) -> tuple[bytes, bytes]:
    """(content type, bytes). Raises whatever the encoder raises. NaN and infinities are null in JSON."""
    if isinstance(value, _BYTES) and kind in ("", OCTETS):
        return OCTETS.encode(), bytes(value)
    content_type, encoder = _ENCODERS[kind]
    return content_type, encoder(value)


def encode_item(kind: str) -> Callable[[Any], bytes]:
    """The encoder of a stream's items."""
    return _ENCODERS[kind][1]


def bad_result(name: str, value: Any, error: BaseException, kind: str) -> str:
    """Why a value could not be answered in this type, and what to do."""
    said = why(value, error, _ENCODERS[kind][1])
    return (
        f"{name} returned a value of type {type(value).__qualname__} that cannot be encoded: {said}. "
        f"JSON and msgpack take None, bool, numbers, str, bytes, lists, tuples, sets, dicts, dataclasses, "
        f"arrays (anything with tolist() or item()) and models (anything with model_dump()). "
        f"Called from the SDK it may be any object that pickles."
    )


def exception_body(error: BaseException, request: str, pickled: bool, shape: ErrorShape = error_body) -> bytes:
    """The error body of an exception in user code; `pickled` adds the exception itself and the user's traceback."""
    said = summary(error)
    if not pickled:
        return shape("exception", said, request)
    try:
        packed = base64.b64encode(_packed(error)).decode()
    except Exception:
        packed = ""
    return shape("exception", said, request, exception=packed, traceback=user_traceback(error))


class _ExceptionPickler(pickle.Pickler):
    """Has exceptions come back as they are, without a second call of an `__init__` whose arguments are not `args`."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseException) and isinstance(type(value).__init__, FunctionType) and _is_plain(value):
            return copyreg.__newobj__, (type(value), *value.args), value.__dict__ or None  # type: ignore[attr-defined]
        return NotImplemented


def _is_plain(error: BaseException) -> bool:
    """Is it all in its `args` and attributes? Some kinds keep more, which their own `__init__` alone sets."""
    kind = type(error)
    if kind.__reduce__ is not BaseException.__reduce__:
        return False
    again = kind.__new__(kind, *error.args)
    again.__dict__.update(error.__dict__)
    return str(again) == str(error)


def _packed(error: BaseException) -> bytes:
    file = io.BytesIO()
    _ExceptionPickler(file, 5).dump(error)
    return file.getvalue()


def _plain(value: Any) -> Any:
    """What msgspec does not know, as something it does."""
    if isinstance(value, PurePath):
        return str(value)
    for method in ("model_dump", "tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return encodable(convert())
    raise TypeError(f"there is no encoding for a {type(value).__module__}.{type(value).__qualname__}")


_json = msgspec.json.Encoder(enc_hook=_plain)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_plain)
_ENCODERS: dict[str, tuple[bytes, Callable[[Any], bytes]]] = {
    JSON: (JSON.encode(), lambda value: _json.encode(encodable(value))),
    MSGPACK: (MSGPACK.encode(), lambda value: _msgpack.encode(encodable(value))),
    PICKLE: (PICKLE.encode(), lambda value: pickle.dumps(value, 5)),
}
_ENCODERS[""] = _ENCODERS[OCTETS] = _ENCODERS[JSON]
