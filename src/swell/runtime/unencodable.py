"""Which part of a result is it that cannot be sent? Asked once the whole was refused: each part is tried by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from swell.model.errors import brief
from swell.runtime.shapes import fields_of
from swell.runtime.tracebacks import summary

DEPTH_MAX = 50
"""Levels that are looked into. What contains itself has no end of them."""
SHOWN_MAX = 60
"""Characters of a key that are shown."""

Encode = Callable[[Any], object]


class Part(NamedTuple):
    """What is refused by itself, and has no part that is."""

    path: str
    """Where, from the result: "$.rows[3]"; of a key, the dict that has it."""
    value: Any
    key: bool
    """It is the key of a dict."""


def culprit(value: Any, encode: Encode) -> Part:
    """The first such part of a value that `encode` refuses; the value itself, where none of its parts is refused."""
    found = Part("$", value, key=False)
    for _ in range(DEPTH_MAX):
        inner = next((part for part in _parts(found) if not _taken(part, encode)), None)
        if inner is None or inner.key:
            return inner or found
        found = inner
    return found


def why(value: Any, error: BaseException, encode: Encode) -> str:
    """Why `encode` refused a value with `error`, and which part of it, in words without a full stop."""
    if isinstance(error, RecursionError):
        return "it contains itself, or is nested too deeply"
    part = culprit(value, encode)
    place = "" if part.path == "$" else f" in {part.path}"
    if part.key:
        key, kind = f"the key {_shown(part.value)}{place}", type(part.value).__qualname__
        return _in_text(error) + key if kind == "str" else f"{key} is of type {kind}: keys of JSON are texts or numbers"
    if isinstance(error, UnicodeEncodeError):
        return f"{_in_text(error)}the text{place}"
    said = str(error) if type(error) is TypeError else brief(summary(error))
    return f"{said},{place}" if place else said


def _in_text(error: BaseException) -> str:
    half = error.object[error.start] if isinstance(error, UnicodeEncodeError) else ""
    return f"half of a character ({half!r}), which cannot be sent, is in "


def _parts(whole: Part) -> Iterator[Part]:
    """What a value is made of. What an object of the user's makes of itself is not looked into."""
    path, value = whole.path, whole.value
    if isinstance(value, dict):
        for key, each in value.items():
            yield Part(path, key, key=True)
            named = isinstance(key, str) and key.isidentifier()
            yield Part(f"{path}.{key}" if named else f"{path}[{_shown(key)}]", each, key=False)
    elif isinstance(value, list | tuple | set | frozenset):
        for at, each in enumerate(value):
            yield Part(f"{path}[{at}]", each, key=False)
    else:
        for name, each in fields_of(value):
            yield Part(f"{path}.{name}", each, key=False)


def _taken(part: Part, encode: Encode) -> bool:
    try:
        encode({part.value: None} if part.key else part.value)
    except Exception:
        return False
    return True


def _shown(key: Any) -> str:
    try:
        said = repr(key)
    except Exception:
        said = "…"
    return said if len(said) <= SHOWN_MAX else f"{said[: SHOWN_MAX - 1]}…"
