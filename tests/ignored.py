"""Do the tests that claim to show an argument fail once it is ignored? They are run on a copy of the SDK that does.

`python tests/ignored.py` takes every argument, one by one, which takes a while;
`python tests/ignored.py App.function.timeout Image` those whose name begins so.
"""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import shown
import swell

SOURCE = Path(swell.__file__).resolve().parents[1]

VALUES = {
    ("App.include", "other_app"): "App('ignored')",
    ("Function.starmap", "input_iterator"): "()",
    ("Image.add_local_dir", "local_path"): "Path(__file__).parent",
    ("Image.add_local_file", "local_path"): "__file__",
    ("Image.env", "vars"): "{}",
    ("Image.pipe", "func"): "lambda image, *args, **kwargs: image",
    ("Image.workdir", "path"): "'/'",
    ("Retries", "max_retries"): "0",
    ("batched", "max_batch_size"): "1",
    ("batched", "wait_ms"): "0",
    **{(f"{owner}.with_batching", "max_batch_size"): "1" for owner in ("Cls", "Function")},
    **{(f"{owner}.with_batching", "wait_ms"): "0" for owner in ("Cls", "Function")},
    **{(f"{owner}.with_concurrency", "max_inputs"): "1" for owner in ("Cls", "Function")},
    ("clustered", "size"): "1",
    ("concurrent", "max_inputs"): "1",
    ("web_server", "port"): "port % 60000 + 1024",
}
"""What an argument without a usable default is taken to be when it is ignored; text for the others."""


def ignoring(text: str, function: Callable[..., Any], argument: tuple[str, str]) -> str:
    """The source of a module whose `function` begins with taking an argument to be what it is when nobody gives it."""
    line = inspect.getsourcelines(function)[1]
    made = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and line in (node.lineno, *(decorator.lineno for decorator in node.decorator_list))
    )
    first = made.body[1] if ast.get_docstring(made) is not None else made.body[0]
    lines = text.splitlines(keepends=True)
    lines.insert(first.lineno - 1, f"{' ' * first.col_offset}{argument[1]} = {absent(function, argument)}\n")
    return "".join(lines)


def absent(function: Callable[..., Any], argument: tuple[str, str]) -> str:
    parameter = inspect.signature(function).parameters[argument[1]]
    if argument in VALUES:
        return VALUES[argument]
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "()"
    if parameter.kind is parameter.VAR_KEYWORD:
        return "{}"
    return repr("ignored" if parameter.default is parameter.empty else parameter.default)


def noticed(tests: Sequence[str], callable: str, name: str) -> str:
    """The first of these tests that fails on an SDK that ignores the argument, and how; empty when none does."""
    function = inspect.unwrap(dict(shown.public_callables())[callable])
    function = getattr(function, "__func__", function)
    with tempfile.TemporaryDirectory(prefix="sw") as folder:
        copy = shutil.copytree(SOURCE, Path(folder) / "src", ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / Path(inspect.getfile(function)).resolve().relative_to(SOURCE)
        file.write_text(ignoring(file.read_text(), function, (callable, name)))
        argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(
            argv,
            cwd=shown.TESTS.parent,
            env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode not in (0, 1):
        raise SystemExit(f"the tests of {callable}({name}=) did not run:\n{done.stdout}")
    failures = (line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return next(failures) if done.returncode else ""


def unnoticed(chosen: Sequence[str], claims: Mapping[shown.Argument, Sequence[str]]) -> Iterator[str]:
    """Arguments that can be ignored without a test that fails."""
    for callable, name in shown.public_arguments():
        if any(f"{callable}.{name}".startswith(begin) for begin in chosen or [""]):
            found = noticed(claims[callable, name], callable, name)
            print(f"{callable}({name}=)", found or "NOBODY NOTICES", flush=True)
            if not found:
                yield f"{callable}.{name}"


if __name__ == "__main__":
    sys.exit(", ".join(unnoticed(sys.argv[1:], shown.claims())) or None)
