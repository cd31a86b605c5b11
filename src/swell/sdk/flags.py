"""Which flags does a function take on the command line, and what value does a text given for one mean?

Pure: the CLI asks `flags` for the list, gathers texts, and hands them to `arguments`.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal

from swell.model.errors import SwellError
from swell.sdk import marks
from swell.wire.single import single

_PLAIN: dict[Any, str] = {
    str: "text",
    int: "int",
    float: "float",
    bool: "bool",
    date: "date",
    datetime: "datetime",
    Path: "path",
    Any: "any",
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Flag:
    """One argument of a function as `--name`."""

    name: str
    """The argument's name; on the command line with dashes for underscores."""
    kind: str
    """ "text", "int", "float", "bool" (`--name` / `--no-name`), "date" and "datetime" (ISO 8601), "path",
    "choice", "any", or "json": what else a `hint` may ask for, of which the plain value is read."""
    required: bool
    default: Any = None
    choices: tuple[Any, ...] = ()
    """Values of a `Literal`, members of an `Enum`."""
    repeated: bool = False
    """A list: the flag may be given more than once."""
    hint: Any = None
    """The annotation, where JSON is wanted."""

    @property
    def option(self) -> str:
        """How it is written: "--max-size"."""
        return "--" + self.name.replace("_", "-")

    @property
    def wanted(self) -> str:
        """What may be given, in a sentence."""
        if self.kind == "json":
            name = self.hint.__name__ if inspect.isclass(self.hint) else inspect.formatannotation(self.hint)
            return f"{name} as JSON"
        return " or ".join(map(_typed, self.choices)) or _WORDS[self.kind]

    @property
    def help(self) -> str:
        """What may be given, and what it is otherwise."""
        shown = "|".join(map(_typed, self.choices)) or self.wanted
        held = "|".join(map(_held, self.choices))
        if self.choices and held != shown:
            shown += f" (or as in a call: {held})"
        several = ", may be repeated" if self.repeated else ""
        return f"{shown}{several}{', required' if self.required else f' (default: {_default(self.default)})'}"


@dataclass(frozen=True)
class Flags:
    """Everything a function takes on the command line."""

    flags: tuple[Flag, ...]
    variadic: bool = False
    """It takes `*args`, and no flags: the words of the command line, as they are."""


def flags(function: Callable[..., Any], bound: bool = False) -> Flags:
    """The flags of a function; `bound` leaves out the first argument (`self`). Raises on a type without a text form."""
    raw = getattr(function, "__swell_raw__", function)
    marked = marks.of(raw)
    lists = marked.batch is not None and not marked.stacked and marked.before is None
    raw, bound = marks.asked_of(raw, bound)
    parameters = list(inspect.signature(raw).parameters.values())[1 if bound else 0 :]
    if [p.kind for p in parameters] == [inspect.Parameter.VAR_POSITIONAL]:
        return Flags((), variadic=True)
    hints = _hints(raw)
    if lists:
        hints = {name: single(hint) for name, hint in hints.items()}
    return Flags(tuple(_flag(raw.__name__, parameter, hints) for parameter in parameters))


def arguments(found: Flags, given: Mapping[str, Sequence[str | bool]]) -> dict[str, Any]:
    """Keyword arguments from the texts given, by argument name: one each, more for a repeated flag.

    For a "bool" a bool may stand in place of a text. What was not given and has a default is left out.
    """
    unknown = sorted(set(given) - {flag.name for flag in found.flags})
    if unknown:
        known = ", ".join(flag.option for flag in found.flags) or "none"
        raise SwellError("bad_arguments", f"Unknown flag {unknown[0]!r}. Flags are: {known}.", status=422)
    values: dict[str, Any] = {}
    for flag in found.flags:
        texts = given.get(flag.name, ())
        if texts:
            values[flag.name] = [value(flag, text) for text in texts] if flag.repeated else value(flag, texts[-1])
        elif flag.required:
            raise SwellError("bad_arguments", f"{flag.option} is missing ({flag.help}).", status=422)
    return values


def value(flag: Flag, text: str | bool) -> Any:
    """What one text means."""
    if isinstance(text, bool):
        return text
    for meant in (_typed, _held):
        for choice in flag.choices:
            if meant(choice) == text:
                return choice
    read = _READERS.get(flag.kind)
    try:
        if read is not None:
            return read(text)
    except SwellError as error:
        raise SwellError(error.code, f"{flag.option}: {error}", status=error.status) from None
    except ValueError:
        pass
    raise SwellError("bad_arguments", f"{flag.option} {text!r}: give {flag.wanted}.", status=422)


def _hints(raw: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(raw)
    except Exception as error:
        raise SwellError(
            "bad_function", f"The annotations of {raw.__name__} cannot be read, so it has no flags: {error}."
        ) from error


def _flag(function: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Flag:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise SwellError(
            "bad_function",
            f"{function} takes {parameter}, which has no flag: use arguments with names, or *args alone.",
        )
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    hint = _without_none(hints.get(parameter.name, Any))
    repeated = typing.get_origin(hint) is list or hint is list
    each = _without_none((*typing.get_args(hint), str)[0]) if repeated else hint
    choices = _choices(each)
    kind = "choice" if choices else _plain(each)
    if kind is None:
        return Flag(parameter.name, "json", required, default, hint=hint)
    return Flag(parameter.name, kind, required, default, choices, repeated)


def _choices(hint: Any) -> tuple[Any, ...]:
    """What alone may be given; empty where there is no such list."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return tuple(hint) if inspect.isclass(hint) and issubclass(hint, Enum) else ()


def _typed(choice: Any) -> str:
    """How a choice is written: a member of an `Enum` by its name."""
    return choice.name if isinstance(choice, Enum) else str(choice)


def _held(choice: Any) -> str:
    """How it may be written too: a member of an `Enum` by its value, as in the body of a call."""
    return str(choice.value if isinstance(choice, Enum) else choice)


def _default(value: Any) -> str:
    """A default as it would be written, where that is plain; else as Python shows it."""
    if isinstance(value, list | tuple) and any(isinstance(each, Enum | PurePath | date) for each in value):
        return f"[{', '.join(map(_default, value))}]"
    if isinstance(value, Enum):
        return _typed(value)
    if isinstance(value, PurePath):
        return repr(str(value))
    return value.isoformat() if isinstance(value, date) else repr(value)


def _plain(hint: Any) -> str | None:
    try:
        return _PLAIN.get(hint)
    except TypeError:
        return None


def _without_none(hint: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [each for each in typing.get_args(hint) if each is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def _bool(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


def _any(text: str) -> Any:
    """A Python literal where it is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _json(text: str) -> Any:
    """The value that JSON stands for, else the text: `--size small` needs no quotes of its own."""
    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise SwellError("bad_arguments", f"{text!r} is not valid JSON: {error}.", status=422) from None
        return text


_READERS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "int": int,
    "float": float,
    "bool": _bool,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "path": Path,
    "any": _any,
    "json": _json,
}


_WORDS = {
    "text": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date like 2026-01-31",
    "datetime": "a time like 2026-01-31T12:00",
    "path": "a path",
    "any": "text or a Python value",
}
