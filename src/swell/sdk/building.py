"""Which functions of the source are to run when an environment is built, and when is one of them another one?"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from swell.model.errors import SwellError
from swell.sdk.frames import point
from swell.sdk.marks import Given
from swell.sdk.secret import Secret, given_secrets

_PLAIN = (str, int, float, complex, bool, bytes, type(None))


@dataclass(frozen=True)
class Build:
    """One `Image.run_function`."""

    given: Given
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    timeout_s: float
    variables: tuple[tuple[str, str], ...]
    secrets: tuple[Secret, ...]
    include_source: bool

    def arguments(self) -> bytes:
        """Pickled."""
        try:
            return pickle.dumps((self.args, dict(self.kwargs)), protocol=4)
        except Exception as error:
            refusal = SwellError(
                "cannot_pickle", f"Image.run_function({self.function.__name__}): its arguments cannot be sent: {error}."
            )
            point(refusal, self.given.where)
            raise refusal from None


def build(given: Given, variables: tuple[tuple[str, str], ...]) -> Build:
    """What a call of `Image.run_function` asks for, checked. `variables`: those that it finds."""
    values = given.values
    function, timeout = values["raw_f"], values["timeout"]
    if hasattr(function, "__swell_raw__"):
        raise SwellError(
            "bad_argument", "Image.run_function(…): give a plain function, without @app.function() above it."
        )
    if not inspect.isfunction(function):
        raise SwellError("bad_argument", f"Image.run_function({function!r}): give a function of the source.")
    name = function.__name__
    if not function.__qualname__.isidentifier() or inspect.isgeneratorfunction(function):
        raise SwellError(
            "bad_function",
            f"Image.run_function({name}): it must be at the top level of its file, so that it can be imported, and no "
            "generator.",
        )
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise SwellError("bad_argument", f"Image.run_function(timeout={timeout!r}): seconds above 0.")
    if not isinstance(values["args"], Sequence) or isinstance(values["args"], str):
        raise SwellError("bad_argument", f"Image.run_function(args={values['args']!r}): give a list or a tuple.")
    if not isinstance(values["kwargs"], Mapping):
        raise SwellError("bad_argument", f"Image.run_function(kwargs={values['kwargs']!r}): give a dictionary.")
    secrets = given_secrets(given)
    try:
        inspect.signature(function).bind(*values["args"], **values["kwargs"])
    except TypeError as error:
        raise SwellError("bad_argument", f"Image.run_function({name}): its arguments do not fit: {error}.") from None
    return Build(
        given,
        function,
        tuple(values["args"]),
        values["kwargs"],
        float(timeout),
        variables,
        secrets,
        bool(values["include_source"]),
    )


def content(function: Callable[..., Any]) -> str:
    """Digest of a function's source, and of what that names in its module: other functions and classes by their
    source, plain values by what they are. What it imports is known by its name alone."""
    told = hashlib.sha256()
    for words in _parts(function, set()):
        told.update(words.encode() + b"\0")
    return told.hexdigest()


def _parts(function: Any, seen: set[str]) -> Iterator[str]:
    seen.add(function.__qualname__)
    yield _source(function)
    spaces = function.__globals__
    for name in sorted(_names(function.__code__)):
        if name not in spaces:
            continue
        value = inspect.unwrap(spaces[name]) if callable(spaces[name]) else spaces[name]
        if isinstance(value, _PLAIN) or (isinstance(value, list | tuple | dict | set | frozenset) and _plain(value)):
            yield f"{name}={sorted(value, key=repr) if isinstance(value, set | frozenset) else value!r}"
        elif getattr(value, "__module__", None) != function.__module__:
            continue
        elif inspect.isfunction(value) and value.__qualname__ not in seen:
            yield from _parts(value, seen)
        elif inspect.isclass(value):
            yield _source(value)


def _plain(value: Any) -> bool:
    """Is it made of values that are the same wherever they are shown?"""
    if isinstance(value, dict):
        return all(_plain(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_plain, value))
    return isinstance(value, _PLAIN)


def _names(code: CodeType) -> set[str]:
    """Names that code reads, that of what is written within it included."""
    within = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, within))


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        raise SwellError(
            "no_source_file",
            f"{thing.__qualname__} is not defined in a file: put it in one, so that it can be imported.",
        ) from None
