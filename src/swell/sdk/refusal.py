"""Was an argument given a value that cannot be honoured? That is an error which says what to do instead."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from swell.model.errors import SwellError
from swell.model.names import name_problem
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk import arguments
from swell.sdk.frames import point
from swell.sdk.marks import Given


def refuse(given: Given) -> None:
    """Raise SwellError when a refused argument has another value than its default."""
    for name, why in arguments.REFUSED.get(given.callable, {}).items():
        if name in given.values and not _is_default(given, name):
            refusal = SwellError(
                "unsupported_argument",
                f"{given.callable}({name}={_shown(given.values[name])}) cannot be honoured: {why}.",
                status=422,
            )
            point(refusal, given.where)
            raise refusal


def check_name(callable: str, kind: str, name: object, environment_name: object) -> None:
    """Raise SwellError for what can be no name of a secret or volume, or of the namespace it is in."""
    for what, text in ((kind, name), ("namespace", environment_name or DEFAULT_NAMESPACE)):
        problem = name_problem(what, text) if isinstance(text, str) else f"{what} {text!r} is no text"
        if problem is not None:
            raise SwellError("bad_argument", f"{callable}: {problem}.")


def _is_default(given: Given, name: str) -> bool:
    value = given.values[name]
    return value is None or value is False or (isinstance(value, (str, Sized)) and len(value) == 0)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"
