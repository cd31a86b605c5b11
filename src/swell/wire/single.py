"""What does one caller give for an argument that a batched function takes as a list? By its annotation."""

from __future__ import annotations

import collections.abc
import types
import typing
from typing import Any

_LISTS = (list, collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)


def single(hint: Any) -> Any:
    """What is in the list: `X` of `list[X]`, also within `list[X] | None`; Any of what is no list of something."""
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin in _LISTS and inner:
        return inner[0]
    if origin is typing.Annotated:
        return single(inner[0])
    if origin in (typing.Union, types.UnionType):
        return next((single(each) for each in inner if typing.get_origin(each) in _LISTS), Any)
    return Any
