"""Which parameters does a class have? `name: str = swell.parameter()` among its attributes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from swell.model.errors import SwellError
from swell.model.variant import KINDS, Kind, Parameter, text_of
from swell.sdk.marks import Given
from swell.sdk.signatures import public

_MISSING: Any = type("_Missing", (), {"__repr__": lambda _self: "…"})()


class Attribute:
    """A parameter as it stands in the class. On an object its value, or its default."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.default = given.values["default"]
        self.name = ""

    def __set_name__(self, _owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, _owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.default is _MISSING:
            raise AttributeError(f"the parameter {self.name} has no default, and was not given")
        return self.default


@public
def parameter(*, default: Any = _MISSING, init: bool = True) -> Any:
    """An attribute that whoever calls the class gives its objects: `Model(name="x")`. Each set of values has replicas
    of its own. The annotation is `str`, `int`, `bool` or `bytes`.

    With `init=False` it is no parameter: an attribute that a hook sets, declared for type checkers.
    """
    return Attribute(Given("parameter", {"default": default, "init": init}))


def declared(raw: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of a class, those of its bases first. SwellError where one cannot be."""
    found: dict[str, Parameter] = {}
    for base in reversed(inspect.getmro(raw)):
        annotations = inspect.get_annotations(base)
        for name, value in vars(base).items():
            found.pop(name, None)
            if isinstance(value, Attribute) and value.given.values["init"]:
                found[name] = _parameter(raw, base, name, value, annotations)
    return tuple(found.values())


def _parameter(
    raw: type[Any], base: type[Any], name: str, value: Attribute, annotations: Mapping[str, Any]
) -> Parameter:
    what = f"class {raw.__qualname__}: the parameter {name}"
    hint = annotations.get(name)
    if isinstance(hint, str):
        module = vars(sys.modules.get(base.__module__, sys))
        named = {kind.__name__: kind for kind in KINDS}
        hint = named.get(hint.strip("'\" "), module.get(hint, hint))
    if hint not in KINDS:
        said = "has no annotation" if hint is None else f"is annotated {getattr(hint, '__name__', hint)}"
        raise SwellError("bad_class", f"{what} {said}: write {name}: str (or int, bool, bytes) = swell.parameter().")
    kind: Kind = KINDS[hint]
    if value.default is _MISSING:
        return Parameter(name, kind)
    try:
        return Parameter(name, kind, text_of(name, kind, value.default))
    except SwellError as error:
        raise SwellError("bad_class", f"{what} has a default that is none: {error.message}") from None


def check(what: str, raw: type[Any], least: int | None) -> None:
    """Refuse a class whose parameters cannot be given to its objects. `least`: its min_containers."""
    found = declared(raw)
    if not found:
        return
    if any("__init__" in vars(base) for base in inspect.getmro(raw)[:-1]):
        raise SwellError(
            "bad_class", f"{what} has parameters and an __init__: do in @swell.enter() what __init__ does."
        )
    needed = [parameter.name for parameter in found if parameter.default is None]
    if needed and least:
        raise SwellError(
            "bad_class",
            f"{what} has min_containers={least}, and nothing can start before {needed[0]} is given: give it a default, "
            f"or use {raw.__name__}({needed[0]}=…).update_autoscaler(min_containers={least}).",
        )


def required(raw: Any) -> list[str]:
    """Names of the parameters of a class that have no default."""
    return [each.name for each in declared(raw) if each.default is None] if inspect.isclass(raw) else []
