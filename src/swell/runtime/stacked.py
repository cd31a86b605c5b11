"""How do the rows of several requests become one, and one result theirs again? Arrays and lists, by their first axis.

A model takes and gives many rows at a time by itself: a batch of requests is one request with the rows of all. NumPy is
imported where there are arrays to join, which is where user code has imported it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any, NamedTuple

from swell.model.errors import SwellError
from swell.runtime.batch import Given, Group, groups, stacks

_SHOWN_WHOLE = frozenset({bool, bytes, float, int, str, type(None)})
WAY_OUT = "return a list with one result for each, in the order of the inputs"


class Lists:
    """A list for each argument, with what each request gave; a list with a result for each."""

    def check(self, given: Given) -> None:
        """Any will do."""

    def groups(self, given: Sequence[Given]) -> list[Group]:
        """What is to be called with."""
        return groups(given)

    def results(self, name: str, group: Group, result: Any, given: Sequence[Given]) -> Sequence[Any]:  # noqa: ARG002
        """What each of a group gets. Raises SwellError bad_batch."""
        inputs = len(group.members)
        if isinstance(result, list | tuple) and len(result) == inputs:
            return result
        if isinstance(result, list | tuple):
            said = f"returned {len(result)} result{'s' if len(result) != 1 else ''}"
        else:
            said = f"returned a {type(result).__qualname__}"
        raise bad_batch(f"{name} is batched and {said} for {inputs} input{'s' if inputs != 1 else ''}: {WAY_OUT}")


class Stacked:
    """The rows of all requests in one, at most `most` of them at a time; and as many rows of a result."""

    def __init__(self, names: tuple[str, ...], most: int) -> None:
        self._names = names
        self._most = most

    def check(self, given: Given) -> None:
        """Do the rows of one request fit together? Raises SwellError 422."""
        counts = {name: _rows(value) for name, value in self._stacks(given).items()}
        flat = [name for name, count in counts.items() if count is None]
        if flat:
            words = f"Argument {flat[0]!r} has no first axis, along which requests are worked on together."
            raise SwellError("bad_arguments", words, status=422)
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
            words = f"Arguments of one request have as many rows as each other, and {said}."
            raise SwellError("bad_arguments", words, status=422)

    def groups(self, given: Sequence[Given]) -> list[Group]:
        rows = [self._count(each) for each in given]
        made = []
        for members in stacks([self._key(each) for each in given], rows, self._most):
            args, kwargs = given[members[0]]
            stacks_ = {name: _joined([given[at][1][name] for at in members]) for name in self._stacks((args, kwargs))}
            made.append(Group(members, args, {**kwargs, **stacks_}))
        return made

    def results(self, name: str, group: Group, result: Any, given: Sequence[Given]) -> Sequence[Any]:
        try:
            return parts(result, [self._count(given[at]) for at in group.members])
        except Uneven as uneven:
            words = f"{name} is batched and {uneven}: return as many rows as it is given, in their order"
            raise bad_batch(words) from None

    def _stacks(self, given: Given) -> dict[str, Any]:
        return {name: given[1][name] for name in self._names if name in given[1]}

    def _count(self, given: Given) -> int:
        """Rows of one request."""
        return next((len(value) for value in self._stacks(given).values()), 1)

    def _key(self, given: Given) -> tuple[Any, ...]:
        """Alike are those that can be joined and gave the same besides."""
        args, kwargs = given
        joined = tuple((name, _kind(kwargs[name])) for name in self._names if name in kwargs)
        others = [(name, _same(value)) for name, value in sorted(kwargs.items()) if name not in self._names]
        return joined, tuple(others), _same(list(args))


class Uneven(ValueError):
    """A result is not of as many rows: the middle of a sentence."""


def parts(value: Any, counts: Sequence[int]) -> list[Any]:
    """A result in parts of so many rows. Names, fields and tuples stay around each. Raises Uneven."""
    if isinstance(value, Mapping):
        inner = {name: parts(each, counts) for name, each in value.items()}
        return [{name: each[at] for name, each in inner.items()} for at in range(len(counts))]
    if isinstance(value, tuple):
        make: Callable[[Any], Any] = getattr(type(value), "_make", tuple)
        columns = [parts(each, counts) for each in value]
        return [make([each[at] for each in columns]) for at in range(len(counts))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: parts(getattr(value, field.name), counts) for field in dataclasses.fields(value)}
        return [
            dataclasses.replace(value, **{name: each[at] for name, each in fields.items()}) for at in range(len(counts))
        ]
    rows = _rows(value)
    total = sum(counts)
    if rows is None:
        raise Uneven(f"returned a {type(value).__qualname__} for {total} row{'s' if total != 1 else ''}")
    if rows != total:
        raise Uneven(f"returned {rows} row{'s' if rows != 1 else ''} for {total}")
    ends = [*accumulate(counts)]
    return [value[end - count : end] for count, end in zip(counts, ends, strict=True)]


def bad_batch(words: str) -> SwellError:
    """What each of a batch is told when its results are not theirs."""
    return SwellError("bad_batch", f"{words}.", status=500)


class _Array(NamedTuple):
    """What arrays must have in common to be joined."""

    dtype: str
    shape: tuple[int, ...]
    """But for the first length."""


def _kind(value: Any) -> Hashable:
    if type(value) is list:
        return "list"
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        return _Array(str(value.dtype), value.shape[1:])
    # What else Python's callers may send has rows, but who knows how they are joined.
    return id(value)


def _same(value: Any) -> Hashable:
    """Equal where values are the same for certain: what is shown of many a value is not all of it."""
    kind = type(value)
    if kind in _SHOWN_WHOLE:
        return kind, repr(value)
    if kind is list or kind is tuple:
        return kind, tuple([_same(each) for each in value])
    if kind is dict:
        return kind, tuple([(_same(key), _same(each)) for key, each in value.items()])
    return kind, id(value)


def _rows(value: Any) -> int | None:
    """How many rows it has; None: it has no rows."""
    if isinstance(value, str | bytes | bytearray) or not hasattr(value, "__getitem__"):
        return None
    try:
        return len(value)
    except TypeError:
        return None


def _joined(values: list[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], list):
        return [row for rows in values for row in rows]
    return import_module("numpy").concatenate(values)
