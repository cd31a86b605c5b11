"""What does a callable take? A request's body as the arguments its signature asks for.

The signature becomes a msgspec type once, at load, so that one pass parses, checks and converts.
"""

from __future__ import annotations

import inspect
import pickle
import re
import typing
from collections.abc import Callable, Iterable
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple, Optional

import msgspec
import msgspec.inspect

from swell.model.errors import SwellError, brief
from swell.runtime.problems import PROBLEMS_MAX, Problem, Reading, made_by_itself, makes_itself, problems, told
from swell.runtime.shapes import OMITTED, Shapes
from swell.runtime.tracebacks import summary
from swell.wire.http import FORM, JSON, MSGPACK, OCTETS, PICKLE, VALUES
from swell.wire.malformed import why_not_json
from swell.wire.single import single

Given = tuple[tuple[Any, ...], dict[str, Any]]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SEQUENCES = (list, tuple, set, frozenset)
_OBJECTS = (
    msgspec.inspect.DictType,
    msgspec.inspect.TypedDictType,
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.CustomType,
)
_FORM = FORM.encode()
_TYPES = {kind.encode(): kind for kind in VALUES}
_FIELD = re.compile(r"^Object (missing required|contains unknown) field `(.*)`$")
SHOWN_MAX = 10
"""Problems that are said in words."""


class Arguments:
    """The parameters of one callable. A parameter whose annotation msgspec does not know is passed as it is.

    `batched`: it takes a list for each, and a caller gives one of what is in it. `transformed`: what it returns is not
    what is answered, so that it returns it is not said.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], batched: bool = False, transformed: bool = False
    ) -> None:
        self.name = name
        signature = _signature(function)
        self._signature = signature
        hints = _hints(function)
        if batched:
            hints = {each: single(hint) for each, hint in hints.items()}
        shown = _annotated(signature, hints) if batched else signature
        if transformed:
            shown = shown.replace(return_annotation=inspect.Signature.empty)
        self.text = f"{name}{_as_written(shown)}"
        """The signature as people write it."""
        self.resolved = len(hints) == len(getattr(function, "__annotations__", {}))
        """Every annotation could be evaluated."""
        named = [p for p in signature.parameters.values() if p.kind not in _VARIABLE]
        variable = {p.kind: p for p in signature.parameters.values() if p.kind in _VARIABLE}
        self._positional = [p.name for p in named if p.kind in _POSITIONAL]
        self._unnamed = [p.name for p in named if p.kind is p.POSITIONAL_ONLY]
        self._optional = any(p.default is not p.empty for p in named)
        self._shapes = Shapes()
        declared = {p.name: _declared(p, hints) for p in named}
        self._types = {name: _readable(hint, self._shapes) for name, hint in declared.items()}
        self._nested = [name for name, kind in self._types.items() if kind is not declared[name] and kind is not Any]
        self._any_more = self._extra(variable.get(inspect.Parameter.VAR_POSITIONAL), hints)
        self._any_named = self._extra(variable.get(inspect.Parameter.VAR_KEYWORD), hints)
        objects = [name for name, kind in self._types.items() if _is_object(kind)]
        self._object = objects[0] if len(objects) == 1 else None
        fields = [
            (p.name, self._types[p.name]) if p.default is p.empty else (p.name, self._types[p.name], OMITTED)
            for p in named
        ]
        self._all: Any = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self._json: Any = msgspec.json.Decoder(self._all, dec_hook=made_by_itself)
        self._msgpack: Any = msgspec.msgpack.Decoder(self._all, dec_hook=made_by_itself)

    def read(self, content_type: bytes, body: bytes, trusted: bool) -> Given:
        """The arguments in a call's body. SwellError 400 bad_body, 401 no_key or 422 bad_arguments."""
        kind = _TYPES.get(content_type) or _media_type(content_type)
        if kind == PICKLE:
            return self._unpickle(body, trusted)
        if kind == OCTETS:
            return self._bind([body], {})
        if not body:
            return self._spread(self._whole({}))
        try:
            if kind == JSON:
                keyword = body.lstrip()[:1] == b"{" and self._any_named is None
                return self._spread(self._json.decode(body)) if keyword else self._loose(msgspec.json.decode(body))
            keyword = (0x80 <= body[0] <= 0x8F or body[0] in (0xDE, 0xDF)) and self._any_named is None
            return self._spread(self._msgpack.decode(body)) if keyword else self._loose(msgspec.msgpack.decode(body))
        except msgspec.ValidationError as error:
            raise self._misfit(error, _plain(kind, body), self._all, Reading(True, kind == JSON)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if _bare(content_type) == _FORM:
                raise SwellError(
                    "bad_body", f"The body is not JSON: {why_not_json(body, error)}. Send {JSON}; forms are not read."
                ) from None
            raise bad_body(kind, body, error) from None

    @property
    def names(self) -> frozenset[str]:
        """Of its parameters, but for `*args` and `**kwargs`."""
        return frozenset(self._types)

    @property
    def any_named(self) -> bool:
        """Has it `**kwargs`?"""
        return self._any_named is not None

    def bind(self, named: dict[str, Any]) -> Given:
        """The arguments by name, out of JSON or, where nothing of msgspec's is asked for, anything. SwellError 422."""
        return self._bind([], named)

    def by_name(self, given: Given) -> Given:
        """The same, with what was given by its place under its name."""
        args, kwargs = given
        if not args or self._unnamed or len(args) > len(self._positional):
            return given
        return (), {**dict(zip(self._positional, args, strict=False)), **kwargs}

    def from_query(self, pairs: Iterable[tuple[str, str]], body: dict[str, Any]) -> Given:
        """Arguments of a web endpoint: query parameters as text, and the fields of a JSON object.

        The only parameter of an object's type (a dict, dataclass or model) takes that object whole. What the
        signature does not name is ignored, since browsers and proxies add parameters of their own.
        """
        given: dict[str, Any] = {}
        for name, value in pairs:
            if name in self._types and _is_sequence(self._types[name]):
                given.setdefault(name, []).append(value)
            elif name in self._types or self._any_named:
                given[name] = value
        if self._object is not None and body:
            given[self._object] = body
        else:
            given |= {name: value for name, value in body.items() if name in self._types or self._any_named}
        return self._bind([], given, strict=False)

    def _loose(self, given: Any) -> Given:
        if isinstance(given, list):
            return self._bind(given, {})
        if isinstance(given, dict):
            return self._bind([], given)
        raise self._error(
            f"the body is {_in_json(given)} alone: send an object of keyword arguments or an array of positional ones"
        )

    def _bind(self, values: list[Any], named: dict[str, Any], strict: bool = True) -> Given:
        """Positional and keyword values, converted; extra ones as they are where the signature takes any."""
        extra = values[len(self._positional) :]
        if extra and self._any_more is None:
            raise self._error(f"{len(values)} positional arguments were given and at most {len(self._positional)} fit")
        given = dict(zip(self._positional, values, strict=False))
        given |= {name: value for name, value in named.items() if name in self._types or self._any_named is None}
        args, kwargs = self._spread(self._whole(given, strict))
        more, other = self._any_more, self._any_named
        wrong: list[Problem] = []
        if extra and more is not None:
            first = [kwargs.pop(name) for name in self._positional if name in kwargs]
            read = [self._one(more, f"{more.name}[{at}]", value, strict, wrong) for at, value in enumerate(extra)]
            args = (*args, *first, *read)
        if other is not None:
            others = [name for name in named if name not in self._types]
            kwargs |= {name: self._one(other, name, named[name], strict, wrong) for name in others}
        if wrong:
            raise self._misfits(wrong)
        return args, kwargs

    def _one(self, extra: _Extra, place: str, value: Any, strict: bool, wrong: list[Problem]) -> Any:
        """One of the values that `*args` or `**kwargs` takes; `place` is what an error calls it."""
        try:
            read = msgspec.convert(value, extra.kind, strict=strict, dec_hook=made_by_itself)
        except msgspec.ValidationError as error:
            wrong += self._found(error, value, extra.kind, Reading(strict, text_keys=False), f".{place}")
            return None
        try:
            return self._shapes.make(read, place) if extra.nested else read
        except msgspec.ValidationError as error:
            wrong.append(told(error))
            return None

    def _extra(self, parameter: inspect.Parameter | None, hints: dict[str, Any]) -> _Extra | None:
        if parameter is None:
            return None
        hint = hints.get(parameter.name, Any)
        kind = _readable(hint, self._shapes)
        return _Extra(parameter.name, kind, kind is not hint and kind is not Any)

    def _whole(self, given: dict[str, Any], strict: bool = True) -> Any:
        try:
            return msgspec.convert(given, self._all, strict=strict, dec_hook=made_by_itself)
        except msgspec.ValidationError as error:
            raise self._misfit(error, given, self._all, Reading(strict, text_keys=False)) from None

    def _spread(self, whole: Any) -> Given:
        kwargs = msgspec.structs.asdict(whole)
        if self._optional:
            kwargs = {name: value for name, value in kwargs.items() if value is not OMITTED}
        if self._nested:
            self._make(kwargs)
        if not self._unnamed:
            return (), kwargs
        return tuple([kwargs.pop(name) for name in self._unnamed if name in kwargs]), kwargs

    def _make(self, kwargs: dict[str, Any]) -> None:
        """Have instances made of what was read for them."""
        wrong = []
        for name in self._nested:
            if name in kwargs:
                try:
                    kwargs[name] = self._shapes.make(kwargs[name], name)
                except msgspec.ValidationError as error:
                    wrong.append(told(error))
        if wrong:
            raise self._misfits(wrong)

    def _unpickle(self, body: bytes, trusted: bool) -> Given:
        if not trusted:
            raise SwellError(
                "no_key",
                "Pickled arguments are taken only with a key that may deploy, since unpickling runs code. "
                f"Send such a key, or {JSON}.",
                status=401,
            )
        try:
            args, kwargs = pickle.loads(body)
            args, kwargs = tuple(args), dict(kwargs)
        except Exception as error:
            raise SwellError(
                "bad_body",
                f"The body is not a pickle of (args, kwargs) that can be read here: {brief(summary(error))}.",
            ) from None
        unknown = [name for name in kwargs if name not in self._types and not self._any_named]
        if unknown:
            raise self._error(f"there is no argument {unknown[0]!r}")
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._error(str(error)) from None
        return args, kwargs

    def _misfit(self, error: msgspec.ValidationError, value: Any, kind: Any, reading: Reading) -> SwellError:
        return self._misfits(self._found(error, value, kind, reading))

    def _found(
        self, error: msgspec.ValidationError, value: Any, kind: Any, reading: Reading, path: str = ""
    ) -> list[Problem]:
        """What all keeps a value from being a `kind`; where it cannot be looked into, what was said of it."""
        return [*islice(problems(value, kind, reading, path), PROBLEMS_MAX)] or [told(error, path)]

    def _misfits(self, found: list[Problem]) -> SwellError:
        """All problems: in words as many as one reads, and each for a program."""
        words = [_in_words(each) for each in found[:SHOWN_MAX]]
        more = len(found) - len(words)
        error = self._error("; ".join(words) + (f"; and {more} more" if more else ""))
        error.problems = tuple((_place(each), each.said) for each in found)
        return error

    def _error(self, said: str) -> SwellError:
        return SwellError("bad_arguments", f"{said[:1].upper()}{said[1:]}. It takes {self.text}.", status=422)


def _in_words(problem: Problem) -> str:
    path, said = problem.path.removeprefix("."), problem.said
    field = _FIELD.match(said)
    if field is not None:
        noun = "field" if path else "argument"
        missing = field[1] == "missing required"
        said = f"{noun} {field[2]!r} is missing" if missing else f"there is no {noun} {field[2]!r}"
    said = said[:1].lower() + said[1:]
    return f"argument {path!r}: {said}" if path else said


def _place(problem: Problem) -> str:
    """Where it is, as paths in JSON are written; a field that is missing has a place, too."""
    field = _FIELD.match(problem.said)
    return f"${problem.path}" if field is None else f"${problem.path}.{field[2]}"


class _Extra(NamedTuple):
    """`*args` or `**kwargs`."""

    name: str
    kind: Any
    """What each of its values is read as."""
    nested: bool
    """What was read is not yet what the annotation says."""


def _plain(kind: str, body: bytes) -> Any:
    """What a body says, whatever it is to be. SwellError 400 where it does not go on as it begins."""
    try:
        return msgspec.json.decode(body) if kind == JSON else msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_body(kind, body, error) from None


def bad_body(kind: str, body: bytes, error: Exception) -> SwellError:
    """What is said of a body that could not be decoded."""
    return SwellError(
        "bad_body", f"The body is not valid {kind}: {why_not_json(body, error) if kind == JSON else error}."
    )


def _bare(content_type: bytes) -> bytes:
    """The body's type without its parameters."""
    return content_type.partition(b";")[0].strip().lower()


def _media_type(content_type: bytes) -> str:
    """What a body is read as; JSON when no type is named, and where it is that of forms, as of what `curl -d` sends."""
    bare = _bare(content_type)
    if bare in (b"", _FORM):
        return JSON
    if bare not in _TYPES:
        raise SwellError(
            "bad_body",
            f"A body of type {bare.decode('latin-1')!r} is not taken. "
            f"Send `Content-Type: {JSON}`, {MSGPACK} or {OCTETS}.",
        )
    return _TYPES[bare]


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature; of a callable that has none to show, one that takes anything."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds])


def _in_json(value: Any) -> str:
    """What those who write JSON call a value that is neither an object nor an array."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else type(value).__name__


def _as_written(signature: inspect.Signature) -> inspect.Signature:
    """Annotations that are text stand there without quotes."""
    parameters = [p.replace(annotation=_unquoted(p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=_unquoted(signature.return_annotation))


def _annotated(signature: inspect.Signature, hints: dict[str, Any]) -> inspect.Signature:
    """With these annotations, and none where that is Any."""
    shown = {name: inspect.Parameter.empty if hint is Any else hint for name, hint in hints.items()}
    parameters = [p.replace(annotation=shown.get(p.name, p.annotation)) for p in signature.parameters.values()]
    returns = shown.get("return", signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returns)


def _unquoted(annotation: Any) -> Any:
    return _Text(annotation) if isinstance(annotation, str) else annotation


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations; a name that exists only for type checkers makes its own one unknown, not the others."""
    raw = getattr(function, "__annotations__", {})
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    found: dict[str, Any] = {}
    for name, hint in raw.items():
        try:
            alone = SimpleNamespace(__annotations__={name: hint})
            found |= typing.get_type_hints(alone, globalns=scope, include_extras=True)
        except Exception:
            continue
    return found


def _declared(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """What the signature says a parameter is."""
    hint = hints.get(parameter.name, Any)
    return Optional[hint] if parameter.default is None else hint  # noqa: UP045 — `|` does not take every annotation


def _readable(hint: Any, shapes: Shapes) -> Any:
    """The type a parameter's value is read as; Any when msgspec cannot."""
    try:
        readable = shapes.readable(hint)
        return readable if _is_known(msgspec.inspect.type_info(readable), set()) else Any
    except Exception:
        return Any


def _is_known(info: Any, seen: set[int]) -> bool:
    """No part of the type is a class that only its own code could make."""
    if isinstance(info, msgspec.inspect.CustomType):
        return makes_itself(info.cls)
    if isinstance(info, tuple):
        return all(_is_known(part, seen) for part in info)
    if not isinstance(info, msgspec.Struct) or id(info) in seen:
        return True
    seen.add(id(info))
    return all(_is_known(getattr(info, field), seen) for field in info.__struct_fields__ if field != "cls")


def _is_sequence(kind: Any) -> bool:
    options = typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,)
    return any(option in _SEQUENCES or typing.get_origin(option) in _SEQUENCES for option in options)


def _is_object(kind: Any) -> bool:
    info = msgspec.inspect.type_info(kind)
    return isinstance(info, _OBJECTS) and not getattr(info, "array_like", False)
