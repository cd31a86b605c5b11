"""What tells the variants of a workload apart: which values has each parameter of its class, and how are they written?

A value travels as text, in one form only, so that equal values have equal digests whether they came from Python, from
JSON or from the query of a URL.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from swell.model.errors import SwellError

Kind = Literal["str", "int", "bool", "bytes"]
Plain = str | int | bool | bytes

KINDS: dict[type, Kind] = {str: "str", int: "int", bool: "bool", bytes: "bytes"}
MARK = "~"
"""Between the name of a workload and the digest of a variant: no name has it, and URLs need not escape it."""
DIGEST_LENGTH = 20
"""Hex digits of a digest of what callers choose: nobody is to find a second set of values that has another's."""
PARAMETERS_BYTES_MAX = 16 * 1024
"""Of one variant, all together: parameters choose what a replica loads, data goes in arguments."""
SHOWN_MAX = 60
"""Characters of a value, or of all of them, that people are shown."""
_INT_BITS = 63


class Parameter(msgspec.Struct, frozen=True):
    """One that a class declares."""

    name: str
    kind: Kind
    default: str | None = None
    """As text; None: it has to be given."""


class Value(msgspec.Struct, frozen=True):
    """One that was given."""

    name: str
    kind: Kind
    text: str

    @property
    def plain(self) -> Plain:
        """As the object has it in Python."""
        return plain(self.kind, self.text)


def plain(kind: Kind, text: str) -> Plain:
    """What the text of a value stands for."""
    match kind:
        case "str":
            return text
        case "int":
            return int(text)
        case "bool":
            return text == "true"
        case "bytes":
            return binascii.a2b_base64(text)


def text_of(name: str, kind: Kind, value: object) -> str:
    """The text of a value of Python. SwellError bad_parameter where it is of another type, or too large."""
    if type(value) not in KINDS or KINDS[type(value)] != kind:
        raise bad_parameter(
            f"{name} is of type {kind}, and {_shown(value)} is of type {type(value).__name__}: give {kind}"
        )
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            if value.bit_length() > _INT_BITS:
                raise bad_parameter(f"{name} is an integer of more than 64 bits: give it as str")
            return str(value)
        case bytes():
            return binascii.b2a_base64(value, newline=False).decode()
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise bad_parameter(f"{name} is no text that UTF-8 can write: give bytes") from None
            return value
    raise AssertionError(value)


def read(name: str, kind: Kind, text: str) -> str:
    """A value's one text, of how somebody wrote it: 1 for true, base64 of either alphabet, +5. SwellError
    bad_parameter where it is none of its type."""
    match kind:
        case "str":
            return text_of(name, kind, text)
        case "int":
            try:
                # More digits than 64 bits have are not even converted: that is slow.
                return text_of(name, kind, int(text if len(text) < 40 else ""))
            except ValueError:
                raise bad_parameter(
                    f"{name} is of type int, and {_shown(text)} is no whole number of 64 bits"
                ) from None
        case "bool":
            if text.lower() not in ("true", "false", "1", "0"):
                raise bad_parameter(f"{name} is of type bool, and {_shown(text)} is neither true nor false")
            return "true" if text.lower() in ("true", "1") else "false"
        case "bytes":
            return text_of(name, kind, _bytes(name, text))


def _bytes(name: str, text: str) -> bytes:
    """Base64 of either alphabet. In a query a plus is a space, and the end may have been left out."""
    try:
        usual = text.replace("-", "+").replace("_", "/").replace(" ", "+").rstrip("=")
        return binascii.a2b_base64(usual + "=" * (-len(usual) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise bad_parameter(f"{name} is of type bytes, and {_shown(text)} is no base64") from None


def values_problem(values: tuple[Value, ...]) -> str | None:
    """What no declaration needs to be known for."""
    size = sum(len(value.name) + len(value.text.encode()) for value in values)
    if size > PARAMETERS_BYTES_MAX:
        return (
            f"all parameters together have {size} bytes, and {PARAMETERS_BYTES_MAX} is the most: "
            "give what is large as an argument of the method"
        )
    return None


# -- what a class is given -----------------------------------------------------------------------


def chosen(what: str, declared: Sequence[Parameter], pairs: Iterable[tuple[str, str]]) -> tuple[Value, ...]:
    """The values that these texts give a class's parameters. `what` is the class, for errors: SwellError
    unknown_parameter, missing_parameter or bad_parameter."""
    kinds = {parameter.name: parameter.kind for parameter in declared}
    given: dict[str, Value] = {}
    for name, text in pairs:
        if name not in kinds:
            raise unknown(what, name, declared)
        if name in given:
            raise bad_parameter(f"{name} is given twice: give each parameter of {what} once")
        given[name] = Value(name, kinds[name], read(name, kinds[name], text))
    return complete(what, declared, tuple(given.values()))


def typed(what: str, declared: Sequence[Parameter], given: Mapping[str, object]) -> tuple[Value, ...]:
    """The same, of values of Python."""
    kinds = {parameter.name: parameter.kind for parameter in declared}
    for name in given:
        if name not in kinds:
            raise unknown(what, name, declared)
    values = (Value(name, kinds[name], text_of(name, kinds[name], value)) for name, value in given.items())
    return complete(what, declared, tuple(values))


def of_json(what: str, declared: Sequence[Parameter], given: Mapping[str, str | int | bool]) -> tuple[Value, ...]:
    """The same, of values of JSON, where bytes are base64."""
    kinds = {parameter.name: parameter.kind for parameter in declared}
    coded = {name for name, value in given.items() if kinds.get(name) == "bytes" and isinstance(value, str)}
    plains = {
        name: plain("bytes", read(name, "bytes", str(value))) if name in coded else value
        for name, value in given.items()
    }
    return typed(what, declared, plains)


def complete(what: str, declared: Sequence[Parameter], values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The values by name, if they are all that is needed."""
    lacking = missing(declared, values)
    if lacking:
        raise SwellError("missing_parameter", f"{what} needs {lacking}: {_way(what, declared)}.", status=422)
    problem = values_problem(values)
    if problem is not None:
        raise bad_parameter(problem)
    return tuple(sorted(values, key=lambda value: value.name))


def missing(declared: Sequence[Parameter], values: Sequence[Value] = ()) -> str:
    """Parameters without a default that are not given, in words; empty where there are none."""
    names = {value.name for value in values}
    return " and ".join(p.name for p in declared if p.default is None and p.name not in names)


def unknown(what: str, name: str, declared: Sequence[Parameter]) -> SwellError:
    # Not where no mistake is made: replicas start with what is imported.
    from swell.model.near import near_names

    names = [parameter.name for parameter in declared]
    near = near_names(name, names, most=1)
    if not names:
        hint = "It has none: what its methods take goes into the body."
    else:
        hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(names)}."
    return SwellError("unknown_parameter", f"{what} has no parameter {name[:80]!r}. {hint}", status=422)


def _way(what: str, declared: Sequence[Parameter]) -> str:
    needed = [p.name for p in declared if p.default is None]
    python = ", ".join(f"{name}=…" for name in needed)
    query = "&".join(f"{name}=…" for name in needed)
    shell = " ".join(f"--param {name}=…" for name in needed)
    return f"{what}({python}) in Python, {shell} in a shell, ?{query} in a URL"


def bad_parameter(why: str) -> SwellError:
    """A value that cannot be taken."""
    return SwellError("bad_parameter", f"{why}.", status=422)


def written(values: tuple[Value, ...]) -> str:
    """Values as people write them: `name="x", size=3`; long ones are cut."""
    return ", ".join(f"{value.name}={_shown(value.plain)}" for value in values)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        seen = "".join(map(_seen, value[: SHOWN_MAX + 1]))
        return '"' + (seen if len(seen) <= SHOWN_MAX else seen[: SHOWN_MAX - 1] + "…") + '"'
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def _seen(character: str) -> str:
    """As it is written in Python. Callers choose what others then look at: nothing of it may steer a terminal."""
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else repr(character)[1:-1]


# -- names ---------------------------------------------------------------------------------------


def base_of(name: str) -> str:
    """The workload, or its key, that a variant's name or key belongs to: itself where it is no variant."""
    return name.partition(MARK)[0]


def is_variant(name: str) -> bool:
    """Is this the name, or the key, of a variant?"""
    return MARK in name
