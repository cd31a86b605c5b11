"""How does a revision's source become something callable?

The bundle goes first on `sys.path`, its module is imported, the entry point looked up, a class
instantiated. What the SDK's decorators put in a module is a handle; the user's own function or class is
on its `__swell_raw__`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from swell.model.errors import SwellError, brief
from swell.model.near import near_names
from swell.model.variant import base_of, plain
from swell.model.workload import Entry, Revision, workload_of
from swell.runtime import limits
from swell.runtime.arguments import Arguments
from swell.runtime.hooks import hooks_of
from swell.runtime.tracebacks import summary, unpacked_in, user_traceback
from swell.wire.child import Failed, Launch
from swell.wire.context import Inside, inside

Hook = Callable[[], Any]


class Program:
    """A loaded entry point: its methods by name, and the hooks around its life."""

    def __init__(self, entry: Entry, target: Any) -> None:
        self.entry = entry
        self.pid = os.getpid()
        """Process it was loaded in: a replica with another pid is a fork."""
        self.snapped = False
        """The `enter_snap` hooks have run."""
        self._target = target
        self._arguments: dict[str, Arguments] = {}

    def method(self, name: str) -> Callable[..., Any]:
        """The user's function, or a method bound to the instance."""
        if self.entry.kind == "function":
            found: Callable[..., Any] = self._target
            return found
        return self._bound(name)

    def arguments(self, name: str) -> Arguments:
        """What a method takes.

        Read of its signature once, in the template where there is one, since that is a good part of what a fork has to
        do. Read again while an annotation has no meaning: a hook may still give it one.
        """
        known = self._arguments.get(name)
        if known is None or not known.resolved:
            function = self.method(name)
            hooks = hooks_of(function)
            lists = any(m.batch is not None and not m.stacked for m in self.entry.methods if m.name == name)
            lists = lists and hooks.before is None
            known = Arguments(name, hooks.before or function, batched=lists, transformed=bool(hooks))
            self._arguments[name] = known
        return known

    def enter(self, snap_done: bool) -> list[Hook]:
        """The start-up hooks that are still to run, in order."""
        names = self.entry.enter if snap_done else self.entry.enter_snap + self.entry.enter
        return [self._bound(name) for name in names]

    def exit(self) -> list[Hook]:
        """The hooks to run before the replica ends."""
        return [self._bound(name) for name in self.entry.exit]

    def snap(self) -> None:
        """Run the `enter_snap` hooks here and now; async ones on a loop of their own."""
        for name in self.entry.enter_snap:
            hook = self._bound(name)
            try:
                result = hook()
                if inspect.isawaitable(result):
                    asyncio.run(_awaited(result))
            except (Exception, SystemExit, asyncio.CancelledError) as error:
                raise enter_error(name, error) from error
        self.snapped = True

    def _bound(self, name: str) -> Callable[..., Any]:
        attribute = inspect.getattr_static(type(self._target), name, None)
        raw = getattr(attribute, "__swell_raw__", None)
        bound = raw.__get__(self._target) if raw is not None else getattr(self._target, name, None)
        if not callable(bound):
            raise SwellError("bad_entry", f"{self.entry.qualname} has no method {name!r}: deploy the app again.")
        return bound  # type: ignore[no-any-return]


def load(revision: Revision, bundle_dir: str, snap: bool) -> Program:
    """Import the revision's module from `bundle_dir` and make its entry point.

    `snap`: run the `enter_snap` hooks too. Raises SwellError "import_error" (the module raised),
    "bad_entry" (nothing usable under that name) or "enter_error" (`__init__` or a hook raised), with
    the user's part of the traceback as detail.
    """
    entry = revision.entry
    unpacked_in(bundle_dir)
    if bundle_dir not in sys.path[:1]:
        sys.path.insert(0, bundle_dir)
    importlib.invalidate_caches()
    target = _resolve(_import(entry.module, bundle_dir), entry)
    if entry.kind == "cls":
        try:
            target = _made(target, revision)
        except (Exception, SystemExit) as error:
            raise enter_error("__init__", error) from error
    program = Program(entry, target)
    for method in entry.methods:
        program.method(method.name)
    if snap:
        program.snap()
    return program


def enter_error(hook: str, error: BaseException) -> SwellError:
    """What a start-up hook that raised is reported as."""
    return SwellError(
        "enter_error", f"{hook} raised at start-up: {brief(summary(error))}", status=500, detail=user_traceback(error)
    )


def failure_detail(error: SwellError) -> str:
    """Its message and, below it, the traceback."""
    return f"{error.message}\n{error.detail}".rstrip()


def report_failure(error: SwellError) -> Failed:
    """Print the traceback of a failed start to the log, and make what the runner is told, which logs the message."""
    if error.detail:
        sys.stderr.write(error.detail.rstrip() + "\n")
        sys.stderr.flush()
    return Failed(reason=error.code, detail=failure_detail(error))


def _import(name: str, bundle_dir: str) -> ModuleType:
    taken = sys.modules.get(name)
    if taken is not None and _lies_in(bundle_dir, name) and not _is_from(taken, bundle_dir):
        raise SwellError(
            "bad_entry",
            f"The file of module {name!r} has the name of a module that Python itself uses: rename the file.",
        )
    here = inside[:]
    inside[:] = [msgspec.structs.replace(each, importing=True) for each in here]
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise SwellError(
            "import_error",
            f"Importing {name} raised {brief(summary(error))}",
            status=500,
            detail=user_traceback(error),
        ) from error
    finally:
        inside[:] = here


def _lies_in(bundle_dir: str, name: str) -> bool:
    path = os.path.join(bundle_dir, *name.split("."))
    return os.path.isfile(path + ".py") or os.path.isdir(path)


def _is_from(module: ModuleType, bundle_dir: str) -> bool:
    where = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return os.path.realpath(where).startswith(os.path.realpath(bundle_dir) + os.sep)


def _resolve(module: ModuleType, entry: Entry) -> Any:
    found: Any = module
    for part in entry.qualname.split("."):
        if not hasattr(found, part):
            near = near_names(part, vars(found) if hasattr(found, "__dict__") else ())
            hint = f" Near names: {', '.join(near)}." if near else ""
            raise SwellError(
                "bad_entry",
                f"{entry.module} has no {entry.qualname!r}: what is deployed must be at the module's top level.{hint}",
            )
        found = getattr(found, part)
    raw = getattr(found, "__swell_raw__", found)
    if entry.kind == "cls" and not inspect.isclass(raw):
        raise SwellError("bad_entry", f"{entry.module}.{entry.qualname} is not a class but a {type(raw).__name__}.")
    if not callable(raw):
        raise SwellError(
            "bad_entry", f"{entry.module}.{entry.qualname} cannot be called: it is a {type(raw).__name__}."
        )
    return raw


def _made(kind: Callable[[], Any], revision: Revision) -> Any:
    """An object of the class, with its parameters: before any hook runs."""
    made = kind()
    given = {value.name: value.plain for value in revision.parameters}
    for parameter in revision.entry.parameters:
        if parameter.name in given:
            setattr(made, parameter.name, given[parameter.name])
        elif parameter.default is not None:
            setattr(made, parameter.name, plain(parameter.kind, parameter.default))
    return made


async def _awaited(result: Any) -> Any:
    return await result


def enter_replica(launch: Launch) -> None:
    """Tell this process which replica it is: its code, and who looks from outside. Before the program's module is
    imported, and again after a fork."""
    app, _, workload = base_of(workload_of(launch.pool)).rpartition("/")
    revision = launch.revision
    depends = {each.name: each.cache.vary for each in revision.entry.methods if each.cache is not None}
    reached = launch.gateway_url, launch.call_key
    packages = revision.environment.packages
    alone = not launch.gateway_url
    told = Inside(app, launch.replica, *reached, workload, packages, depends, alone, checkpoints=launch.checkpoints)
    inside[:] = [told]
    called = f"{app.rpartition('/')[2]}/{workload}"
    limits.name_process(f"swt:{called}" if launch.role == "template" else f"sw:{called}")
