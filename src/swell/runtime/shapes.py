"""How do classes of the user come out of a body, and go into one? As their constructors' parameters; by their fields.

msgspec fills dataclasses in without their `__init__`: defaults stay in the class, `InitVar` and converters are
not known, and fields that do not exist are passed over. So each dataclass, attrs class, TypedDict and named tuple in
an annotation is replaced by a msgspec struct of what makes it, that takes nothing else, and what was read becomes
an instance the way the user's own code would make it. msgspec's own structs, and models, are read as they are.

msgspec reads an enum whose values are all texts or all whole numbers. The members of others are found here.

On the way out msgspec takes an instance for what is in its `__dict__`, so that defaults which stay in the class
would be missing from the answer: here it is what its fields are.
"""

from __future__ import annotations

import dataclasses
import inspect
import operator
import types
import typing
from copy import copy
from enum import Enum
from functools import lru_cache, partial, reduce
from typing import Annotated, Any, NamedTuple

import msgspec

from swell.runtime.tracebacks import summary

OMITTED: Any = object()
"""The value of what was not given: the default is the callable's own."""

_ATOMS = frozenset((type(None), bool, int, float, str, bytes))
_ARRAYS = (list, tuple, set, frozenset)


_VALUES = frozenset((type(None), bool, int, float, str))
"""Of an enum, which JSON and msgpack have."""


class _Member:
    """A member of an enum that msgspec does not read, until it is taken out; a class of its own for each enum."""

    __slots__ = ("member",)
    kind: type[Enum]
    member: Enum

    @classmethod
    def model_validate(cls, value: Any) -> _Member:
        found = cls()
        try:
            found.member = cls.kind(value)
        except ValueError:
            shown = f" {value!r}" if type(value) in _VALUES else ""
            raise ValueError(f"Invalid enum value{shown}") from None
        return found


class _Field(NamedTuple):
    name: str
    hint: Any
    required: bool


class _Class(NamedTuple):
    kind: type
    fields: tuple[tuple[str, bool], ...]
    """Name, and whether its value has classes of the user within."""


class Shapes:
    """The classes in the annotations of one callable."""

    def __init__(self) -> None:
        self._structs: dict[Any, type[msgspec.Struct]] = {}
        self._classes: dict[type, _Class] = {}

    def readable(self, hint: Any) -> Any:
        """The type to read for `hint`: the very same object where none of these classes is in it."""
        if _is_class(hint):
            return self._structs.get(hint) or self._struct(hint)
        if _is_odd_enum(hint):
            return type(hint.__name__, (_Member,), {"kind": hint, "__slots__": ()})
        inner = typing.get_args(hint)
        if not inner or typing.get_origin(hint) is typing.Literal:
            return hint
        read = tuple(map(self.readable, inner))
        same = all(map(operator.is_, read, inner))
        return hint if same else _again(hint, read)

    def make(self, value: Any, place: str) -> Any:
        """What was read, with instances where structs stand for them. ValidationError when one cannot be made."""
        kind = type(value)
        if kind in self._classes:
            return self._instance(value, place)
        if kind is dict:
            return {key: self.make(item, f"{place}[...]") for key, item in value.items()}
        if kind in _ARRAYS:
            return _call(place, kind, [self.make(item, f"{place}[{n}]") for n, item in enumerate(value)])
        return value.member if isinstance(value, _Member) else value

    def _instance(self, read: msgspec.Struct, place: str) -> Any:
        kind, fields = self._classes[type(read)]
        given = {
            name: self.make(value, f"{place}.{name}") if nested else value
            for (name, nested), value in zip(fields, msgspec.structs.astuple(read), strict=True)
            if value is not OMITTED
        }
        return _call(place, kind, **given)

    def _struct(self, hint: Any) -> Any:
        """It is there before the types of its fields are, which may lead back to it."""
        fields = _fields(hint)
        if fields is None:
            return hint
        kind = typing.get_origin(hint) or hint
        # A key of a TypedDict may be any text, which the name of an attribute may not.
        named = {f"_{n}": field for n, field in enumerate(fields)}
        made = msgspec.defstruct(
            kind.__name__,
            [(name, Any) if field.required else (name, Any, OMITTED) for name, field in named.items()],
            rename={name: field.name for name, field in named.items()}.get,
            array_like=issubclass(kind, tuple),
            forbid_unknown_fields=True,
            kw_only=True,
            eq=False,
        )
        self._structs[hint] = made
        read = {name: self.readable(field.hint) for name, field in named.items()}
        made.__annotations__.update(read)
        nested = tuple((field.name, read[name] is not field.hint) for name, field in named.items())
        self._classes[made] = _Class(kind, nested)
        return made


def encodable(value: Any) -> Any:
    """`value` with a dict of its fields for each dataclass and attrs instance in it; what has none is not copied."""
    kind: type = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, dict):
        return value if _ATOMS.issuperset(map(type, value.values())) else {k: encodable(v) for k, v in value.items()}
    if isinstance(value, _ARRAYS):
        return value if _ATOMS.issuperset(map(type, value)) else [encodable(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _encodable_struct(value)
    if _names(kind):
        return {told: encodable(each) for told, each in fields_of(value)}
    return value


def fields_of(value: Any) -> list[tuple[str, Any]]:
    """The fields of a dataclass, attrs instance or msgspec struct, as they are answered; of others none."""
    if isinstance(value, msgspec.Struct):
        return [(name, getattr(value, name)) for name in value.__struct_fields__]
    kind: type = type(value)
    return [(told, getattr(value, name)) for name, told in _names(kind) if hasattr(value, name)]


def _encodable_struct(value: msgspec.Struct) -> msgspec.Struct:
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    changed = {name: new for name, old in fields.items() if (new := encodable(old)) is not old}
    if not changed:
        return value
    made = copy(value)
    for name, new in changed.items():
        msgspec.structs.force_setattr(made, name, new)
    return made


@lru_cache(256)
def _names(kind: type) -> tuple[tuple[str, str], ...]:
    """The fields of a dataclass or attrs class: name of the attribute, and what the constructor calls it."""
    if hasattr(kind, "__dataclass_fields__"):
        return tuple((field.name, field.name) for field in dataclasses.fields(kind))
    return tuple((field.name, field.alias) for field in getattr(kind, "__attrs_attrs__", ()))


def _call(place: str, kind: type, /, *args: Any, **kwargs: Any) -> Any:
    """What it makes; what it raises is told as an argument's fault."""
    try:
        return kind(*args, **kwargs)
    except Exception as error:
        raise msgspec.ValidationError(f"not taken by {kind.__name__}: {summary(error)} - at `$.{place}`") from None


def _is_class(hint: Any) -> bool:
    """Is it one of the classes that are made here?"""
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type):
        return False
    return _is_typed_dict(kind) or any(
        map(partial(hasattr, kind), ("__dataclass_fields__", "__attrs_attrs__", "_fields"))
    )


def _is_odd_enum(hint: Any) -> bool:
    """Is it an enum of plain values that are neither all texts nor all whole numbers?"""
    if not isinstance(hint, type) or not issubclass(hint, Enum):
        return False
    kinds = {type(member.value) for member in hint}
    return kinds <= _VALUES and kinds not in ({str}, {int}, set())


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__total__")


def _fields(hint: Any) -> list[_Field] | None:
    """What makes an instance of this class; None where its constructor does not tell."""
    kind = typing.get_origin(hint) or hint
    try:
        hints = _hints(hint)
        return _keys(kind, hints) if _is_typed_dict(kind) else _parameters(kind, hints)
    except (TypeError, ValueError, NameError):
        return None


def _keys(kind: Any, hints: dict[str, Any]) -> list[_Field]:
    """The keys of a TypedDict."""
    found = []
    for name, hint in hints.items():
        said = typing.get_origin(hint)
        if said in (typing.Required, typing.NotRequired):
            found.append(_Field(name, typing.get_args(hint)[0], said is typing.Required))
        else:
            found.append(_Field(name, hint, name in kind.__required_keys__))
    return found


def _parameters(kind: type, hints: dict[str, Any]) -> list[_Field] | None:
    """The parameters of a constructor, which are fields by name."""
    for field in getattr(kind, "__attrs_attrs__", ()):
        # A converter takes whatever it takes: the field's type is what it gives.
        hints[field.alias] = Any if field.converter is not None else hints.get(field.name, Any)
    found = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            return None
        hint = hints.get(parameter.name, Any)
        hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
        found.append(_Field(parameter.name, hint, parameter.default is parameter.empty))
    return found


def _hints(hint: Any) -> dict[str, Any]:
    """The annotations of a class and its bases, each with the type variables of its own generic class filled in."""
    kind = typing.get_origin(hint) or hint
    values = dict(zip(getattr(kind, "__parameters__", ()), typing.get_args(hint), strict=False))
    found: dict[str, Any] = {}
    for base in reversed(vars(kind).get("__orig_bases__", kind.__bases__)):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin not in (typing.Generic, typing.Protocol):
            found |= _hints(_with(base, values))
    own = vars(kind).get("__annotations__", {})
    resolved = typing.get_type_hints(kind, include_extras=True)
    return found | {name: _with(resolved[name], values) for name in own}


def _with(hint: Any, values: dict[Any, Any]) -> Any:
    """A generic class's field with its type variables filled in."""
    if isinstance(hint, typing.TypeVar):
        return values.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not parameters:
        return hint
    return hint[tuple(values.get(parameter, parameter) for parameter in parameters)]


def _again(hint: Any, inner: tuple[Any, ...]) -> Any:
    """The same annotation around other types."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return reduce(operator.or_, inner)
    if origin is Annotated:
        return Annotated[(inner[0], *hint.__metadata__)]
    return origin[inner]
