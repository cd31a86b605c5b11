"""Which tests show what each public argument does? `python tests/shown.py` lists them.

The tests say it themselves, above what they do: `@pytest.mark.shows("App.function", "timeout")`. There is no other
list of them, so a test that goes takes its claim along.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import swell
from swell.sdk import unavailable

TESTS = Path(__file__).resolve().parent
SHARED = (swell.Dict, swell.Queue)
BUILT_BY_METHODS = (
    *(swell.Image, swell.Cls, swell.Function, swell.FunctionCall, swell.Secret, swell.Volume),
    *SHARED,
)
"""Nobody calls these classes: their methods and decorators make them."""
TRIGGERS = (
    *(swell.Cron, swell.Files, swell.HttpEvents, swell.NatsStream, swell.Objects, swell.Period),
    *(swell.RedisStream, swell.Rows),
)
CLASSES = (swell.App, *TRIGGERS, swell.Retries, *BUILT_BY_METHODS)

Argument = tuple[str, str]
"""Public callable, and the name of one of its arguments."""


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Everything a user may call, by its name in the table. One that has two names stands under Modal's."""
    for name in swell.__all__:
        value = getattr(swell, name)
        if value in CLASSES:
            yield from ((f"{name}.{method}", found) for method, found in methods(value))
            if value in SHARED:
                yield from ((f"{name}.objects.{method}", found) for method, found in methods(type(value.objects)))
            if value not in BUILT_BY_METHODS:
                yield name, value.__init__
        elif callable(value) and not inspect.isclass(value) and value.__name__ == name:
            yield name, value


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in ((name, value) for base in kind.__mro__[:-1] for name, value in vars(base).items()):
        found = getattr(value, "__wrapped__", None) or getattr(value, "__func__", None) or value
        if not name.startswith("_") and callable(found) and not isinstance(value, property | type):
            yield name, found


def public_arguments() -> Iterator[Argument]:
    for callable, function in public_callables():
        if later_says(function):
            continue
        for name in inspect.signature(function).parameters:
            if name not in ("self", "cls"):
                yield callable, name


def later_says(function: Callable[..., Any]) -> bool:
    """It only says that it is not there."""
    return getattr(function, "__code__", None) is unavailable.refusing("", "").__code__


def claims() -> dict[Argument, list[str]]:
    """Argument → the tests that claim to show it, of all tests there are."""
    # In a process of its own: pytest collects once in each.
    argv = [sys.executable, __file__, "--json"]
    done = subprocess.run(argv, cwd=TESTS.parent, capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise AssertionError(done.stderr)
    return {(callable, name): tests for callable, name, tests in json.loads(done.stdout)}


class Claims:
    """Plugin of pytest that reads the claims of what was collected, before anything is deselected."""

    def __init__(self) -> None:
        self.found: dict[Argument, list[str]] = defaultdict(list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("shows"):
                callable, *names = mark.args
                for name in names:
                    self.found[callable, name].append(item.nodeid)


def collect() -> Mapping[Argument, list[str]]:
    plugin = Claims()
    with redirect_stdout(StringIO()) as said:
        code = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", str(TESTS)], plugins=[plugin])
    if code != pytest.ExitCode.OK:
        sys.exit(f"the tests cannot be collected:\n{said.getvalue()}")
    return plugin.found


def show(found: Mapping[Argument, list[str]]) -> None:
    for argument in public_arguments():
        print("{}({}=)".format(*argument), *(f"    {test}" for test in found.get(argument, ["nobody"])), sep="\n")


if __name__ == "__main__":
    if "--json" in sys.argv:
        print(json.dumps([(*argument, tests) for argument, tests in collect().items()]))
    else:
        show(collect())
