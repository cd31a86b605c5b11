"""Which branches of decisions did the runs take, and how often?

A branch is one of the two ways on from an `if`, `while`, `for` or `case`: into its body, or past it. While they are
counted the functions of `decide` have other code: their own, with a count on each of these ways.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple

from swell import decide

TAKEN, PAST = "__taken__", "__past__"
"""What counts is called so in each module, as long as it does."""


class Branch(NamedTuple):
    """One way on."""

    module: str
    line: int
    """Of its condition, the first."""
    into: bool
    """Into its body."""
    condition: str = ""
    """In Python."""


class Hits:
    """Those of all of `decide`."""

    def __init__(self) -> None:
        self._branches: list[Branch] = []
        self._taken: list[int] = []
        self._modules: list[ModuleType] = []
        self._code: list[tuple[FunctionType, CodeType, CodeType]] = []
        """Functions, each with its own code, and with that which counts."""
        for path in sorted(Path(decide.__file__).parent.glob("*.py")):
            if path.stem != "__init__":
                self._read(importlib.import_module(f"{decide.__name__}.{path.stem}"), path)
        self._taken += [0] * len(self._branches)

    def _read(self, module: ModuleType, path: Path) -> None:
        counting = _Counting(path.stem, self._branches)
        tree = ast.fix_missing_locations(counting.visit(ast.parse(path.read_text())))
        found = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, str(path), "exec"))}
        self._modules.append(module)
        for function in _functions(module):
            own = function.__code__
            counts = found.get((own.co_qualname, own.co_firstlineno))
            # What others made, as the methods of named tuples, is not in the file.
            if counts is not None:
                self._code.append((function, own, counts))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What is done inside."""
        for module in self._modules:
            vars(module).update({TAKEN: self._taken, PAST: self._past})
        for function, _, counts in self._code:
            function.__code__ = counts
        try:
            yield
        finally:
            for function, own, _ in self._code:
                function.__code__ = own
            for module in self._modules:
                for name in (TAKEN, PAST):
                    vars(module).pop(name)

    def _past(self, number: int) -> bool:
        """A case does not match: neither does the one that asks this."""
        self._taken[number] += 1
        return False

    def branches(self) -> dict[Branch, int]:
        """How often each was taken."""
        return dict(zip(self._branches, self._taken, strict=True))


class _Counting(ast.NodeTransformer):
    """Puts a count on each way on."""

    def __init__(self, module: str, branches: list[Branch]) -> None:
        """`branches`: all there are, to be added to."""
        self._module = module
        self._branches = branches

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._fork(node, node.test)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._fork(node, node.test)

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._fork(node, node.iter)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        cases: list[ast.match_case] = []
        for case in node.cases:
            asked = ast.unparse(case.pattern) + (f" if {ast.unparse(case.guard)}" if case.guard is not None else "")
            into, past = self._ways(case.pattern.lineno, asked)
            self.generic_visit(case)
            case.body.insert(0, _count(into))
            cases.append(case)
            if not (isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None):
                guard = ast.parse(f"{PAST}({past})", mode="eval").body
                cases.append(ast.match_case(ast.MatchAs(), guard, [ast.Pass()]))
        node.cases = cases
        return node

    def _fork(self, node: ast.If | ast.While | ast.For, asked: ast.expr) -> ast.AST:
        into, past = self._ways(node.lineno, ast.unparse(asked))
        self.generic_visit(node)
        node.body.insert(0, _count(into))
        node.orelse.insert(0, _count(past))
        return node

    def _ways(self, line: int, condition: str) -> tuple[int, int]:
        """The numbers of both."""
        first = len(self._branches)
        self._branches += (Branch(self._module, line, into, condition) for into in (True, False))
        return first, first + 1


def _count(number: int) -> ast.stmt:
    return ast.parse(f"{TAKEN}[{number}] += 1").body[0]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """It, and all in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """All that are defined in it, and in its classes."""
    there = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    for value in there:
        inside: Iterable[object] = vars(value).values() if inspect.isclass(value) else (value,)
        for each in inside:
            each = getattr(each, "fget", None) or getattr(each, "__func__", each)
            each = inspect.unwrap(each) if callable(each) else each
            if isinstance(each, FunctionType):
                yield each


def told(branches: dict[Branch, int], each: bool = False) -> Iterator[str]:
    """By module: how many were taken, how often the rarest one, and the lines of those that were not. With `each` how
    often each one was, besides."""
    for module in dict.fromkeys(branch.module for branch in branches):
        mine = {branch: times for branch, times in branches.items() if branch.module == module}
        taken = [times for times in mine.values() if times]
        if not taken:
            continue
        never = [f"{branch.line}{'' if branch.into else ' past'}" for branch, times in mine.items() if not times]
        rest = f"; never {', '.join(never)}" if never else ""
        yield f"decide/{module}: {len(taken)} of {len(mine)} branches, the rarest {min(taken):,} times{rest}"
        for branch, times in mine.items() if each else ():
            yield f"  {module}.py:{branch.line} {'into' if branch.into else 'past'}: {times:,}"
