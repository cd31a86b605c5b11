"""Which tensors does a function take and give? Read of its annotations, or declared; a contradiction is refused.

NumPy is known by the names of its classes: who annotates with it has imported it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from swell.model.errors import SwellError
from swell.model.tensors import DATATYPES, Tensor, Tensors, shown

_DTYPES = {name: datatype for datatype, name in DATATYPES.items() if datatype not in ("BF16", "BYTES")} | {
    "bool_": "BOOL",
    "bytes_": "BYTES",
    "object_": "BYTES",
}
"""Name of NumPy's scalar class → datatype."""
_ABSTRACT = frozenset({"floating", "generic", "integer", "number", "signedinteger", "unsignedinteger", "inexact"})
OUTPUT = "output"
"""Name of an output that has none (as in runtime/tensors.py)."""

Shapes = Mapping[str, tuple[str, Sequence[int]]]


def declared(argument: str, given: Shapes) -> tuple[Tensor, ...]:
    """What `@tensors(inputs=…)` or `outputs=` says. Raises SwellError."""
    if not isinstance(given, Mapping):
        raise _wrong(argument, f"{given!r}: give a dict of name to (datatype, shape)")
    return tuple(_declared(argument, name, each) for name, each in given.items())


def _declared(argument: str, name: str, given: Any) -> Tensor:
    if not (isinstance(given, tuple) and len(given) == 2) or isinstance(given[1], str):
        raise _wrong(argument, f'{name!r} is {given!r}: give (datatype, shape), like ("FP32", [-1, 64])')
    datatype, shape = given
    if datatype not in DATATYPES:
        meant = _DTYPES.get(str(datatype).lower(), str(datatype).upper())
        hint = f"write {meant}" if meant in DATATYPES else f"there are {', '.join(DATATYPES)}"
        raise _wrong(argument, f"{name!r} has datatype {datatype!r}: {hint}")
    lengths = tuple(shape) if isinstance(shape, Sequence) else (None,)
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= -1 for each in lengths):
        raise _wrong(argument, f"{name!r} has shape {shape!r}: it is a list of lengths, -1 for any")
    return Tensor(str(name), datatype, lengths)


def of(name: str, raw: Callable[..., Any], bound: bool, said: Tensors | None, generator: bool) -> Tensors | None:
    """The tensors of a function, or of a method (`bound`); None: it is no model.

    `said` is what it was declared to take and give. Raises SwellError where that cannot be.
    """
    hints = _hints(raw)
    parameters = _parameters(raw, bound)
    if said is not None:
        if generator:
            raise _wrong("", f"{name} is a generator, and a model gives one answer")
        _check(name, parameters, hints, said)
        inputs = tuple(_optional(each, parameters[each.name]) for each in said.inputs)
        return Tensors(inputs, said.outputs or _outputs(hints.get("return")))
    if generator:
        return None
    found = [_tensor(each.name, hints.get(each.name)) for each in parameters.values()]
    inputs = tuple(_optional(each, parameters[each.name]) for each in found if each is not None)
    return Tensors(inputs, _outputs(hints.get("return"))) if inputs else None


def _parameters(raw: Callable[..., Any], bound: bool) -> dict[str, inspect.Parameter]:
    every = list(inspect.signature(raw).parameters.values())[1 if bound else 0 :]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {each.name: each for each in every if each.kind not in variadic}


def _optional(tensor: Tensor, parameter: inspect.Parameter) -> Tensor:
    return Tensor(tensor.name, tensor.datatype, tensor.shape, optional=parameter.default is not parameter.empty)


def _check(name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], said: Tensors) -> None:
    """Refuse a declaration that the signature contradicts."""
    if not said.inputs:
        raise _wrong("inputs", f"none is named: {name} takes {', '.join(parameters) or 'nothing'}")
    for each in said.inputs:
        if each.name not in parameters:
            takes = ", ".join(parameters) or "nothing"
            raise _wrong("inputs", f"{name} has no argument {each.name!r}; it takes {takes}")
        _compare("inputs", f"argument {each.name!r} of {name}", hints.get(each.name), each)
    written = {each.name: each for each in _outputs(hints.get("return"))}
    if not said.outputs or not written:
        return
    if len(written) != len(said.outputs):
        raise _wrong("outputs", f"{len(said.outputs)} are named, and {name} is annotated to give {len(written)}")
    by_name = set(written) == {each.name for each in said.outputs}
    for each, other in zip(said.outputs, written.values(), strict=True):
        _same("outputs", f"output {each.name!r} of {name}", written[each.name] if by_name else other, each)


def _compare(argument: str, what: str, hint: Any, said: Tensor) -> None:
    if hint is None or hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return
    written = _tensor(said.name, hint)
    if written is not None:
        _same(argument, what, written, said)
    elif not _is_array(_alone(hint)):
        shown_hint = getattr(hint, "__name__", None) or str(hint)
        raise _wrong(argument, f"{what} is annotated as {shown_hint}, and what it is given is a NumPy array")


def _same(argument: str, what: str, written: Tensor, said: Tensor) -> None:
    same_type = written.datatype in ("", said.datatype) or (written.datatype, said.datatype) == ("UINT16", "BF16")
    shapes = (written.shape or (), said.shape or ())
    lengths = zip(*shapes, strict=False)
    same_shape = written.shape is None or (
        len(shapes[0]) == len(shapes[1]) and all(one in (-1, other) or other == -1 for one, other in lengths)
    )
    if not (same_type and same_shape):
        raise _wrong(argument, f"{what} is declared as {shown(said)}, and annotated as {shown(written)}")


# -- annotations ------------------------------------------------------------------------------


def _tensor(name: str, hint: Any) -> Tensor | None:
    """What an annotation says, where it is that of an array with a datatype that there is."""
    hint = _alone(hint)
    if not _is_array(hint):
        return None
    shape, dtype = typing.get_args(hint) or (Any, Any)
    scalar = (typing.get_args(dtype) or (Any,))[0]
    scalar = getattr(typing.get_origin(scalar) or scalar, "__name__", "")
    known = scalar in _DTYPES or scalar in _ABSTRACT or scalar in ("", "Any")
    return Tensor(name, _DTYPES.get(scalar, ""), _shape(shape)) if known else None


def _alone(hint: Any) -> Any:
    """An annotation without aliases, `Annotated` and `| None` around it."""
    hint = _meant(hint)
    if typing.get_origin(hint) is Annotated:
        return _alone(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [each for each in typing.get_args(hint) if each is not type(None)]
        return _alone(others[0]) if len(others) == 1 else hint
    return hint


def _meant(hint: Any) -> Any:
    """What an alias of a `type` statement stands for, as NumPy's own `NDArray` may be one."""
    alias = typing.get_origin(hint) or hint
    if type(alias).__name__ != "TypeAliasType":
        return hint
    try:
        meant = alias.__value__
    except Exception:
        return hint  # It names what exists only for type checkers.
    given = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
    unfilled = getattr(meant, "__parameters__", ())
    return _meant(meant[tuple(given.get(each, each) for each in unfilled)] if unfilled else meant)


def _is_array(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and (kind.__module__, kind.__name__) == ("numpy", "ndarray")


def _shape(hint: Any) -> tuple[int, ...] | None:
    hint = _meant(hint)
    lengths = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or Ellipsis in lengths:
        return None
    return tuple(map(_length, lengths))


def _length(hint: Any) -> int:
    said = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    return said[0] if len(said) == 1 and isinstance(said[0], int) else -1


def _outputs(hint: Any) -> tuple[Tensor, ...]:
    """What a return annotation says, if all of it is arrays."""
    one = _tensor(OUTPUT, hint)
    if one is not None:
        return (one,)
    found = [_tensor(name, each) for name, each in _parts(hint)]
    return tuple(each for each in found if each is not None) if None not in found else ()


def _parts(hint: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a tuple, or of a class that is known by its fields."""
    hint = _meant(hint)
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if Ellipsis not in parts:
            yield from ((f"{OUTPUT}_{at}", each) for at, each in enumerate(parts))
    elif dataclasses.is_dataclass(hint) or hasattr(hint, "_fields") or typing.is_typeddict(hint):
        yield from _hints(hint).items()


def _hints(owner: Any) -> dict[str, Any]:
    """The annotations that have a meaning here; a name that exists only for type checkers makes its own one unknown."""
    scope = getattr(inspect.unwrap(owner) if callable(owner) else owner, "__globals__", None)
    if scope is None:
        module = inspect.getmodule(owner)
        scope = vars(module) if module is not None else {}
    found: dict[str, Any] = {}
    for name, hint in getattr(owner, "__annotations__", {}).items():
        try:
            alone = SimpleNamespace(__annotations__={name: hint})
            found |= typing.get_type_hints(alone, globalns=scope, include_extras=True)
        except Exception:
            continue
    return found


def _wrong(argument: str, words: str) -> SwellError:
    return SwellError("bad_argument", f"@tensors({argument}{'=…' if argument else ''}): {words}.")
