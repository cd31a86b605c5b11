"""What all is wrong with a value that is not what an annotation says? msgspec names the first; here is where else.

Asked only of what was refused: the value is read again, part by part, and each part that fails by itself is named.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

import msgspec

_PLACE = re.compile(r"^(?P<said>.*) - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
PROBLEMS_MAX = 100
"""That are looked for. A list of a million wrong numbers is told in fewer words."""
_ARRAYS = (list, set, frozenset)


class Problem(NamedTuple):
    """One thing that is wrong."""

    path: str
    """Where, from the value: ".items[2].price"; empty: the value itself."""
    said: str
    """In msgspec's words, or those of a model."""


class Reading(NamedTuple):
    """How values are read."""

    strict: bool
    text_keys: bool
    """They come from JSON, where keys of any type are texts."""

    def convert(self, value: Any, kind: Any) -> None:
        msgspec.convert(value, kind, strict=self.strict, str_keys=self.text_keys, dec_hook=made_by_itself)


def made_by_itself(kind: type, value: Any) -> Any:
    """A path is made of its text; a model class of the user's libraries (pydantic and its like) makes itself."""
    if issubclass(kind, PurePath):
        return kind(msgspec.convert(value, str))
    return kind.model_validate(value)  # type: ignore[attr-defined]


def makes_itself(kind: type) -> bool:
    """Does `made_by_itself` know how?"""
    return issubclass(kind, PurePath) or hasattr(kind, "model_validate")


def problems(value: Any, kind: Any, reading: Reading, path: str = "") -> Iterator[Problem]:
    """Every part of `value` that keeps it from being a `kind`; nothing where it is one."""
    try:
        reading.convert(value, kind)
    except msgspec.ValidationError as error:
        own = error
    else:
        return
    empty = True
    for each in _within(value, _plain(kind), reading, path):
        empty = False
        yield each
    if empty:
        yield told(own, path)


def told(error: msgspec.ValidationError, path: str = "") -> Problem:
    """What msgspec says of a value at this path."""
    match = _PLACE.match(str(error))
    return Problem(path, str(error)) if match is None else Problem(path + match["path"], match["said"])


def _plain(kind: Any) -> Any:
    """An annotation without what stands around it: notes, and `| None`."""
    if typing.get_origin(kind) is Annotated:
        return _plain(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(kind) if each is not type(None)]
        return _plain(others[0]) if len(others) == 1 else kind
    return kind


def _within(value: Any, kind: Any, reading: Reading, path: str) -> Iterator[Problem]:
    """The problems of its parts, where it has parts that can be looked at by themselves."""
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if not isinstance(origin, type):
        return
    if issubclass(origin, msgspec.Struct):
        yield from _of_struct(value, kind, origin, reading, path)
    elif hasattr(origin, "model_validate"):
        yield from _of_model(value, origin, path)
    elif origin in _ARRAYS or (origin is tuple and Ellipsis in inner):
        if inner and isinstance(value, (*_ARRAYS, tuple)):
            for at, each in enumerate(value):
                yield from problems(each, inner[0], reading, f"{path}[{at}]")
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and len(value) == len(inner):
            for at, (each, one) in enumerate(zip(value, inner, strict=True)):
                yield from problems(each, one, reading, f"{path}[{at}]")
    elif origin is dict and len(inner) == 2 and isinstance(value, dict):
        for key, each in value.items():
            yield from _of_key(key, inner[0], reading, path)
            place = f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
            yield from problems(each, inner[1], reading, path + place)


def _of_key(key: Any, kind: Any, reading: Reading, path: str) -> Iterator[Problem]:
    try:
        reading.convert({key: None}, types.GenericAlias(dict, (kind, Any)))
    except msgspec.ValidationError as error:
        yield Problem(path, f"{told(error).said}, which is the key {key!r}")


def _of_struct(value: Any, kind: Any, owner: Any, reading: Reading, path: str) -> Iterator[Problem]:
    config = owner.__struct_config__
    fields = msgspec.structs.fields(kind)
    if config.array_like:
        if isinstance(value, (list, tuple)) and config.tag is None:
            for at, (each, field) in enumerate(zip(value, fields, strict=False)):
                yield from problems(each, field.type, reading, f"{path}[{at}]")
        return
    if not isinstance(value, dict) or (config.tag is not None and value.get(config.tag_field) != config.tag):
        return
    names = {field.encode_name: field for field in fields}
    if config.forbid_unknown_fields:
        for name in value:
            if name not in names and name != config.tag_field:
                yield Problem(path, f"Object contains unknown field `{name}`")
    for name, field in names.items():
        if name in value:
            yield from problems(value[name], field.type, reading, f"{path}.{name}")
        elif field.required:
            yield Problem(path, f"Object missing required field `{name}`")


def _of_model(value: Any, kind: Any, path: str) -> Iterator[Problem]:
    """What a model says of itself, where it lists that as pydantic does."""
    try:
        kind.model_validate(value)
    except Exception as error:
        listed = getattr(error, "errors", None)
        for each in listed() if callable(listed) else ():
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"])
            yield Problem(path + place, each["msg"])
