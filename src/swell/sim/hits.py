"""Which branches of decisions did the runs take, and how often? Counted in some of them, as counting takes its time.

A branch is one of the two ways on from an `if`, `while`, `for` or `case`: into its body, or past it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from swell import decide


class Branch(NamedTuple):
    """One way on."""

    module: str
    line: int
    """Of its condition, the first."""
    into: bool
    """Into its body."""


class Fork(NamedTuple):
    """Where there are two."""

    line: int
    lines: range
    """Of the condition."""
    body: int
    """First line of what follows from it."""


class Hits:
    """Those of all of `decide`."""

    def __init__(self) -> None:
        folder = Path(decide.__file__).parent
        self._forks = {str(path): list(forks(path)) for path in sorted(folder.glob("*.py"))}
        self._arcs: Counter[tuple[str, int, int]] = Counter()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What is done inside."""
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(before)

    def branches(self) -> dict[Branch, int]:
        """How often each was taken."""
        found: dict[Branch, int] = {}
        for path, forked in self._forks.items():
            arcs = [(start, end, count) for (file, start, end), count in self._arcs.items() if file == path]
            for fork in forked:
                left = [(end, count) for start, end, count in arcs if start in fork.lines and end not in fork.lines]
                for into in (True, False):
                    times = sum(count for end, count in left if (end == fork.body) is into)
                    found[Branch(Path(path).stem, fork.line, into)] = times
        return found

    def _called(self, frame: FrameType, _event: str, _what: Any) -> Any:
        path = frame.f_code.co_filename
        if path not in self._forks:
            return None
        before = frame.f_lineno

        def traced(frame: FrameType, event: str, _what: Any) -> Any:
            nonlocal before
            if event == "line":
                self._arcs[path, before, frame.f_lineno] += 1
                before = frame.f_lineno
            elif event == "return":
                self._arcs[path, before, -1] += 1
            return traced

        return traced


def forks(path: Path) -> Iterator[Fork]:
    """All that a file has."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.If(test=asked) | ast.While(test=asked) | ast.For(iter=asked):
                first, last = node.lineno, asked.end_lineno or node.lineno
            case ast.match_case(pattern=pattern, guard=guard):
                first, last = pattern.lineno, (guard or pattern).end_lineno or pattern.lineno
            case _:
                continue
        yield Fork(first, range(first, last + 1), node.body[0].lineno)


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
