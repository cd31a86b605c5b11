"""What does a user read whose arguments do not fit one of our callables? The argument's name of today, or near ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from swell.model.errors import SwellError
from swell.model.near import did_you_mean
from swell.sdk.arguments import REFUSED
from swell.sdk.frames import hidden

P = ParamSpec("P")
T = TypeVar("T")

RENAMED: dict[str, str] = {
    "_experimental_buffer_containers": "buffer_containers",
    "checkpointing_enabled": "enable_memory_snapshot",
    "concurrency_limit": "max_containers",
    "container_idle_timeout": "scaledown_window",
    "keep_warm": "min_containers",
    "namespace": "environment_name",
    "secret": "secrets",
    "shared_volumes": "network_file_systems",
    "tag": "name",
}
"""Former argument → what Modal's API calls it now."""

GONE: dict[str, str] = {
    "_allow_background_volume_commits": "nothing takes its place: leave it out",
    "allow_concurrent_inputs": "use the decorator @swell.concurrent(max_inputs=…), below @app.function() or @app.cls()",
    "allow_cross_region_volumes": "nothing takes its place: leave it out",
    "isolation": "use the decorator @swell.isolated(), below @app.function() or @app.cls()",
    "interactive": "a function has no terminal: use `swell shell`",
    "mount": "files are part of the image: use add_local_file, add_local_dir or add_local_python_source of image=",
    "mounts": "files are part of the image: use add_local_file, add_local_dir or add_local_python_source of image=",
    "show_progress": "use `with swell.enable_output():` around it",
    "stub": "use the app's own methods",
    "wait_for_response": "the answer is always waited for: leave it out",
    "workspace": "there is one per server: leave it out",
}
"""Argument of former times, or of elsewhere, that has no other name → what to do."""


def public(function: Callable[P, T]) -> Callable[P, T]:
    """A callable of users: a call that does not fit its signature is a SwellError with the way out in it.

    Where it fits nothing is looked at: Python itself has found out, before a line of the function ran.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with hidden:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                    raise
                raise _misfit(function, args, kwargs) from None

    return called


def _misfit(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> SwellError:
    signature = inspect.signature(function)
    takes = list(signature.parameters)
    name, given = function.__qualname__, args
    if takes[:1] in (["self"], ["cls"]) and args:
        # By the class it was called on, which may have inherited it: "App", "App.function", "Cls.from_name".
        owner = args[0] if takes[0] == "cls" else type(args[0])
        name = owner.__name__ if function.__name__ == "__init__" else f"{owner.__name__}.{function.__name__}"
        takes, given = takes[1:], args[1:]
    for each in kwargs:
        if each not in takes:
            return SwellError("bad_argument", f"{name}({each}=…): {_unknown(name, each, takes)}")
    if len(given) == 1 and (inspect.isfunction(given[0]) or inspect.isclass(given[0])):
        return SwellError("bad_decorator", f"Write @{name.replace('App.', 'app.')}() with parentheses.")
    try:
        signature.bind(*args, **kwargs)
        why = "the arguments do not fit"
    except TypeError as error:
        why = str(error)
    return SwellError("bad_argument", f"{name}(…): {why}. Its arguments: {_working(name, takes)}.")


def _unknown(name: str, given: str, takes: Sequence[str]) -> str:
    if given in RENAMED:
        now = RENAMED[given]
        return f"{given} is called {now} now{'' if now in takes else ', and this does not take it'}."
    if given in GONE:
        return f"there is no such argument; {GONE[given]}."
    hint = did_you_mean(given, takes)
    if hint:
        return f"there is no such argument.{hint}"
    return f"there is no such argument. Choose from: {_working(name, takes)}."


def _working(name: str, takes: Sequence[str]) -> str:
    """The arguments that do something, listed."""
    return ", ".join(each for each in takes if each not in REFUSED.get(name, ())) or "none"
