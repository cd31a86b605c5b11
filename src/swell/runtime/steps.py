"""What CPU time did an async input use? Each step of its task on the loop is timed.

That is exact for the task itself on a shared loop. Tasks and threads it started are not in it; when the
input was alone in the replica the process's own CPU time is taken instead, which has them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from time import process_time_ns, thread_time_ns
from typing import Any


class Steps(Coroutine[Any, Any, None]):
    """A coroutine that runs another one and adds up the CPU time of its steps, in `cpu_ns`.

    To be made as the input begins.
    """

    def __init__(self, inner: Coroutine[Any, Any, None]) -> None:
        self._inner = inner
        self.cpu_ns = 0
        self._process_ns = process_time_ns()

    def used_ns(self, alone: bool) -> int:
        """CPU time so far. `alone`: no other input was worked on meanwhile."""
        return process_time_ns() - self._process_ns if alone else self.cpu_ns

    def send(self, value: Any, /) -> Any:
        began = thread_time_ns()
        try:
            return self._inner.send(value)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> Any:
        began = thread_time_ns()
        try:
            return self._inner.throw(kind, value, traceback)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()
