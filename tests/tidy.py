"""Is the tree as tidy as it says? Sizes, floors, purity, names, words. `python tests/tidy.py` prints every breach.

Each rule is a function from one source file to the complaints about it, except `cycles`, which needs all of them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

FLOORS: dict[str, int] = {
    "model": 1,
    **dict.fromkeys(("decide", "engines", "sources", "store", "wire"), 2),
    **dict.fromkeys(("api", "control", "exception", "gateway", "rpc", "runtime", "sdk"), 3),
    **dict.fromkeys(("experimental", "serve", "sim", "stopped", "supervise"), 4),
    "cli": 5,
    "__main__": 6,
}
"""Imports only point down; folders on one floor do not know each other (docs/architecture.md)."""

NOT_BELOW: dict[str, frozenset[str]] = {
    **dict.fromkeys(("api", "control", "gateway", "rpc"), frozenset({"engines", "sources", "store"})),
    **dict.fromkeys(("runtime", "sdk"), frozenset({"decide", "engines", "sources", "store"})),
    "supervise": frozenset(
        {"api", "control", "decide", "engines", "gateway", "rpc", "runtime", "sdk", "sources", "store"}
    ),
    "cli": frozenset({"engines", "sources", "store"}),
}
"""What lies lower and is still none of a folder's business."""

SUPERVISOR_MAY = frozenset({"swell.wire.attached", "swell.wire.handed", "swell.wire.identity", "swell.wire.paths"})
"""The parts of wire that need nothing outside the standard library."""

OUTSIDE: dict[str, frozenset[str]] = {
    "model": frozenset({"msgspec"}),
    "decide": frozenset({"cronsim", "msgspec"}),
    "wire": frozenset({"msgspec"}),
    "supervise": frozenset(),
    "runtime": frozenset({"msgspec", "httptools", "uvloop", "fastapi"}),
    "sdk": frozenset({"msgspec", "httpx2", "cloudpickle"}),
}
"""Packages from outside the standard library a folder may name; folders not listed may use any dependency."""

LAZY = frozenset({"uvloop", "fastapi", "cloudpickle"})
"""…and of these, the ones that may be missing: only imported inside a function or a try."""

# fmt: off
IMPURE_MODULES = frozenset({
    "asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading",
    "time", "urllib.request", "uuid",
})
# fmt: on
RECKONS_DATES = frozenset({"swell.decide.schedules"})
"""May name dates and times, and asks for none of now."""
TODAY = frozenset({"now", "today", "utcnow"})
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "id"})
PURE = ("model", "decide")

DRAWERS = frozenset({"utils", "util", "common", "helpers", "helper", "core", "misc", "_internal"})
"""Names that say nothing about what is inside."""

UNFINISHED = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
MACHINE_PATH = re.compile("|".join(("/wo" + r"rk/\w", "/ro" + r"ot/\w", "/ho" + r"me/[a-z]", "/Us" + r"ers/\w")))
REGISTRY = re.compile(
    "|".join(("py" + "pi", "python" + "hosted", "npm" + "js", r"deb\.deb" + "ian")) + r"\.(?:org|com)"
)

NOT_TEXT = (".http", ".png", ".gz", ".lock", ".woff2", ".ico", ".jpg")


@dataclass(frozen=True)
class Complaint:
    """One breach of one rule."""

    path: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words}"


@dataclass(frozen=True)
class Import:
    """One imported module as a dotted name, with where and how it is imported."""

    name: str
    line: int
    lazy: bool
    """Inside a function, a `try`, or `if TYPE_CHECKING`: not run when the module is."""


@dataclass
class Source:
    """One text file of the tree: its path from the root, its text, and for Python its syntax tree."""

    path: str
    text: str
    modules: frozenset[str] = field(default=frozenset())
    """All module names of the tree, so that `from swell.wire import http` is known to mean a module."""

    @property
    def python(self) -> bool:
        return self.path.endswith(".py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """Dotted name ("swell.decide.scale"); empty outside src/."""
        if not self.path.startswith("src/") or not self.python:
            return ""
        return self.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def folder(self) -> str:
        """Which part of `swell` it belongs to ("decide", "serve"); empty for the package itself and outside it."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 and parts[0] == "swell" else ""

    @cached_property
    def imports(self) -> list[Import]:
        return list(self._imports(self.tree, lazy=False))

    def _imports(self, node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from self._from(child, lazy)
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try)
                later = later or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
                yield from self._imports(child, lazy or later)

    def _from(self, node: ast.ImportFrom, lazy: bool) -> Iterator[Import]:
        base = node.module or ""
        if node.level:
            package = self.module.split(".") if self.path.endswith("/__init__.py") else self.module.split(".")[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield Import(whole if whole in self.modules else base, node.lineno, lazy)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def sizes(source: Source) -> Iterator[Complaint]:
    """A module fits in a sitting, a function on a screen."""
    if not source.python:
        return
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield Complaint(source.path, 1, f"{lines} lines; a module has at most {MODULE_LINES_MAX}")
    for node in source.functions():
        body = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
        if body > FUNCTION_LINES_MAX:
            words = f"the body of {node.name} has {body} lines; at most {FUNCTION_LINES_MAX}"
            yield Complaint(source.path, node.lineno, words)


def floors(source: Source) -> Iterator[Complaint]:
    """Imports point down the five floors, and never sideways."""
    if not source.folder:
        return
    own = source.folder
    if own not in FLOORS:
        yield Complaint(source.path, 1, f"{own} has no floor in docs/architecture.md")
        return
    for found in source.imports:
        parts = found.name.split(".")
        if parts[0] != "swell" or len(parts) < 2 or parts[1] == own:
            continue
        other = parts[1]
        if FLOORS.get(other, 99) >= FLOORS[own] or other in NOT_BELOW.get(own, ()):
            yield Complaint(source.path, found.line, f"{own} may not import {other}")
        if own == "supervise" and other == "wire" and found.name not in SUPERVISOR_MAY:
            words = f"of wire, the supervisor may only import {', '.join(sorted(SUPERVISOR_MAY))}"
            yield Complaint(source.path, found.line, words)


def outside(source: Source) -> Iterator[Complaint]:
    """What goes into the user's environment stays small."""
    allowed = OUTSIDE.get(source.folder)
    if allowed is None:
        return
    for found in source.imports:
        package = found.name.split(".")[0]
        if package in sys.stdlib_module_names or package == "swell":
            continue
        if package not in allowed:
            yield Complaint(source.path, found.line, f"{source.folder} may not import {package}")
        elif package in LAZY and not found.lazy:
            yield Complaint(source.path, found.line, f"{source.folder} may import {package} only where it is used")


def purity(source: Source) -> Iterator[Complaint]:
    """Deciding touches no clock, no chance and no I/O."""
    if source.folder not in PURE:
        return
    may = {"datetime"} if source.module in RECKONS_DATES else set()
    for found in source.imports:
        if {found.name, found.name.split(".")[0]} & (IMPURE_MODULES - may):
            yield Complaint(source.path, found.line, f"{source.folder} is pure: no {found.name}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield Complaint(source.path, node.lineno, f"{source.folder} is pure: no {node.func.id}()")
        if isinstance(node, ast.Attribute) and node.attr in TODAY and source.module in RECKONS_DATES:
            yield Complaint(source.path, node.lineno, f"{source.folder} is pure: no .{node.attr}")


def prints(source: Source) -> Iterator[Complaint]:
    """Only the command line talks to a terminal."""
    if not source.module or source.folder == "cli":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield Complaint(source.path, node.lineno, "print belongs to cli/")


def names(source: Source) -> Iterator[Complaint]:
    """A name says what is inside."""
    for part in Path(source.path).with_suffix("").parts:
        if part in DRAWERS:
            yield Complaint(source.path, 1, f"{part!r} says nothing about what is inside")


def docstrings(source: Source) -> Iterator[Complaint]:
    """Each module says what question it answers."""
    if source.python and source.text.strip() and not ast.get_docstring(source.tree):
        yield Complaint(source.path, 1, "has no docstring")


def stubs(source: Source) -> Iterator[Complaint]:
    """What is there works."""
    if not source.module:
        return
    for node in source.functions():
        if (
            len(node.body) == 1
            and isinstance(node.body[0], ast.Raise)
            and "NotImplemented" in ast.unparse(node.body[0])
        ):
            yield Complaint(source.path, node.lineno, f"{node.name} only says that it is not implemented")


def assertions(source: Source) -> Iterator[Complaint]:
    """A test can fail."""
    if not Path(source.path).name.startswith("test_"):
        return
    checking = re.compile(r"assert|raises|check|verify|expect|run", re.IGNORECASE)
    for node in source.functions():
        if not node.name.startswith("test_"):
            continue
        inside = list(ast.walk(node))
        if not any(
            isinstance(part, ast.Assert) or (isinstance(part, ast.Call) and checking.search(ast.unparse(part.func)))
            for part in inside
        ):
            yield Complaint(source.path, node.lineno, f"{node.name} asserts nothing")


def words(source: Source) -> Iterator[Complaint]:
    """No loose ends, no path of one machine, no package registry by name."""
    rules = ((UNFINISHED, "unfinished work"), (MACHINE_PATH, "a path of one machine"), (REGISTRY, "a registry's host"))
    for number, line in enumerate(source.text.splitlines(), 1):
        for pattern, what in rules:
            if found := pattern.search(line):
                yield Complaint(source.path, number, f"{what}: {found.group()!r}")


RULES: tuple[Callable[[Source], Iterable[Complaint]], ...] = (
    sizes,
    floors,
    outside,
    purity,
    prints,
    names,
    docstrings,
    stubs,
    assertions,
    words,
)


def cycles(sources: Sequence[Source]) -> Iterator[Complaint]:
    """No module needs itself. An import made later, in a function, is a need as well: it only hides the ring."""
    by_name = {source.module: source for source in sources if source.module}
    needs = {
        name: sorted({i.name for i in source.imports if i.name in by_name and i.name != name})
        for name, source in by_name.items()
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> Iterator[Complaint]:
        if name in path:
            ring = " → ".join([*path[path.index(name) :], name])
            yield Complaint(by_name[name].path, 1, f"import cycle: {ring}")
        elif name not in done:
            for other in needs[name]:
                yield from walk(other, (*path, name))
            done.add(name)

    for name in sorted(needs):
        yield from walk(name, ())


def sources(root: Path = ROOT) -> list[Source]:
    """Every text file that is tracked, or would be when added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    found = [
        Source(path, (root / path).read_text())
        for path in sorted(set(listed))
        if (root / path).is_file() and not path.endswith(NOT_TEXT)
    ]
    modules = frozenset(source.module for source in found if source.module)
    for source in found:
        source.modules = modules
    return found


def complaints(found: Sequence[Source]) -> Iterator[Complaint]:
    """Everything there is to say about these files."""
    for source in found:
        for rule in RULES:
            yield from rule(source)
    yield from cycles(found)


def main() -> int:
    """Print what is wrong; exit code 1 if anything is."""
    found = sources()
    wrong = list(complaints(found))
    for complaint in wrong:
        print(complaint)
    print(f"tidy: {len(found)} files, {len(wrong) or 'no'} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
