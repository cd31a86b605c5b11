"""Which app, and which function in it, does `file.py::name` or `package.module::name` mean?"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from swell.model.errors import SwellError, brief
from swell.model.near import did_you_mean
from swell.model.variant import chosen, unknown
from swell.sdk import bundle, frames
from swell.sdk.app import App, LocalEntrypoint
from swell.sdk.cls import Obj
from swell.sdk.function import Function

Runnable = LocalEntrypoint | Function


@dataclass(frozen=True)
class Target:
    """What a reference names."""

    app: App
    name: str
    """Of the entry point or function; "Class.method" for a method."""
    run: Runnable

    @property
    def is_method(self) -> bool:
        """Its first argument is `self`, which callers do not give."""
        return "." in self.name


def app(reference: str) -> App:
    """The app of a file or module; `…::name` chooses among several by variable or by the app's own name."""
    place, _, name = reference.partition("::")
    return _choose(place, _apps(module(place)), name)


def apps(place: str) -> dict[str, App]:
    """All apps of a file or module, by the variables that hold them; one at least."""
    found = _apps(module(place))
    if not found:
        _choose(place, found, "")
    return found


def target(reference: str) -> Target:
    """The entry point or function to run: the one that is named, or the only one there is."""
    place, _, name = reference.partition("::")
    found = _apps(module(place))
    first, _, rest = name.partition(".")
    if first in found:
        return _in_app(place, found[first], rest)
    if name:
        holders = {id(each): each for each in found.values() if name in _runnables(each)}
        if len(holders) == 1:
            return _in_app(place, next(iter(holders.values())), name)
        if not holders:
            raise _unknown(name, place, {each for held in found.values() for each in _runnables(held)})
        raise SwellError("ambiguous", f"Several apps in {place} have {name!r}: write {place}::APP.{name}.")
    return _in_app(place, _choose(place, found, ""), "")


def with_parameters(found: Target, texts: Mapping[str, str]) -> Target:
    """The method of an object with these parameters, as text. SwellError where its class has others, or it is none."""
    if not found.is_method:
        for name in texts:
            raise unknown(found.name, name, ())
        return found
    kind, _, method = found.name.partition(".")
    cls = found.app.registered_classes[kind]
    values = chosen(kind, cls.parameters, texts.items())
    return replace(found, run=getattr(cls(**{value.name: value.plain for value in values}), method))


def module(place: str) -> ModuleType:
    """Import a user's file by its path, under the name it has in a replica, or a module by its name."""
    find(place)
    path = Path(place)
    if path.is_file():
        return _import_file(path)
    _first_on_path(_here())
    return _import(place, place)


def find(place: str) -> None:
    """SwellError where there is no such file or module. Nothing is imported for that."""
    path = Path(place)
    if path.is_file():
        if path.suffix != ".py":
            raise SwellError("no_such_file", f"{place} is not a Python file: its name has to end in .py.")
        return
    if path.suffix == ".py" or not all(part.isidentifier() for part in place.split(".")):
        raise _nowhere("no_such_file", "file", place)
    name = place.partition(".")[0]
    first = PathFinder.find_spec(name, [str(_here()), *sys.path]) or importlib.util.find_spec(name)
    if first is None or (first.origin is None and path.is_dir()):
        raise _nowhere("no_such_module", "file or module", place)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        words = "The working directory is not there any more: change to one that is (`cd`)."
        raise SwellError("no_such_file", words) from None


def _nowhere(code: str, what: str, place: str) -> SwellError:
    """The error of a place where there is no program, with what may be meant."""
    path = Path(place)
    if place and path.is_dir():
        return SwellError("no_such_file", f"{place} is a folder: name a file in it, like {path / 'app.py'}.")
    meant = Path(f"{place}.py")
    hint = f" Did you mean {meant}?" if place and meant.is_file() else ""
    return SwellError(code, f"There is no {what} {place!r} (in {_here()}).{hint}")


def _import_file(path: Path) -> ModuleType:
    source = bundle.source(path)
    if not all(part.isidentifier() for part in source.module.split(".")):
        raise SwellError(
            "bad_file_name", f"{path.name} cannot be imported: use letters, digits and underscores, like my_app.py."
        )
    root = source.local.source.parent
    _first_on_path(root)
    taken = sys.modules.get(source.module)
    where = getattr(taken, "__file__", None)
    if taken is not None and (where is None or Path(where).absolute() != path.absolute()):
        raise SwellError(
            "bad_file_name",
            f"{path.name} has the name of a module that is in use ({where or 'built in'}): rename the file.",
        )
    importlib.invalidate_caches()
    found = _import(source.module, str(path))
    where = getattr(found, "__file__", None)
    if where is None or Path(where).resolve() != path.resolve():
        raise SwellError("bad_file_name", f"{path.name} has the name of another module ({where}): rename the file.")
    return found


def _first_on_path(folder: Path) -> None:
    """As Python does it for a script."""
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def _import(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SwellError as error:
        # Its message says all; the user's lines that led to it are all that is to be added.
        error.detail = error.detail or frames.listing(error.__traceback__).rstrip()
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise _nowhere("no_such_module", "file or module", shown) from None
        error.__traceback__ = frames.users(error.__traceback__)
        told = "".join(traceback.format_exception(error)).rstrip()
        raised = brief(f"{type(error).__name__}: {error}")
        raise SwellError("import", f"Importing {shown} raised {raised}{_near(error)}", detail=told) from error


def _near(error: BaseException) -> str:
    """The name that was most likely meant, which Python itself adds only where nobody catches the error."""
    if not isinstance(error, AttributeError) or error.name is None or error.obj is None:
        return ""
    hint = did_you_mean(error.name, dir(error.obj), most=1)
    return f".{hint}" if hint else ""


def _apps(module: ModuleType) -> dict[str, App]:
    """Apps by the variables that hold them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _choose(place: str, found: dict[str, App], name: str) -> App:
    chosen = {id(each): each for variable, each in found.items() if name in ("", variable, each.name)}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    names = ", ".join(sorted(found))
    if not found:
        raise SwellError("no_app", f"There is no app in {place}: make one with `app = swell.App('name')`.")
    if not chosen:
        raise SwellError("no_app", f"There is no app {name!r} in {place}. Choose from: {names}.")
    raise SwellError("ambiguous", f"There are several apps in {place}: name one, like {place}::{min(found)} ({names}).")


def _runnables(app: App) -> dict[str, Runnable]:
    """Entry points, functions, and methods of classes, by name."""
    found: dict[str, Runnable] = {**app.registered_functions}
    for name, cls in app.registered_classes.items():
        # Not called, which a class with parameters may not be without any.
        made = Obj(cls)
        found.update({f"{name}.{method}": getattr(made, method) for method in cls.methods})
    return {**found, **app.registered_entrypoints}


def _unknown(name: str, place: str, runnables: Iterable[str]) -> SwellError:
    listed = ", ".join(sorted(runnables))
    choice = f"Choose from: {listed}." if listed else "Nothing there can be run."
    return SwellError("unknown_function", f"There is no {name!r} to run in {place}. {choice}")


def _in_app(place: str, app: App, name: str) -> Target:
    runnables = _runnables(app)
    if name:
        if name not in runnables:
            raise _unknown(name, place, runnables)
        return Target(app, name, runnables[name])
    for candidates in (app.registered_entrypoints, runnables):
        if len(candidates) == 1:
            only = next(iter(candidates))
            return Target(app, only, runnables[only])
        if candidates:
            listed = ", ".join(sorted(candidates))
            raise SwellError("ambiguous", f"Which one? Write {place}::{min(candidates)}; choose from: {listed}.")
    raise SwellError("empty_app", f"There is nothing to run in {place}: decorate a function with @app.function().")
