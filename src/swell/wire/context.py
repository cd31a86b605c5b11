"""What user code may know of the input it is working on. The runtime sets it, the SDK reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

import msgspec


class Input(msgspec.Struct, frozen=True):
    """The input being worked on."""

    request: str
    deadline_monotonic_s: float
    """On this process's monotonic clock."""

    def remaining_s(self) -> float:
        """Seconds until the caller's deadline; below zero once it has passed."""
        return self.deadline_monotonic_s - time.monotonic()


class Inside(msgspec.Struct, frozen=True):
    """Set once in a replica: how its code reaches the server it runs on."""

    app: str
    replica: str
    gateway_url: str
    call_key: str
    workload: str = ""
    """Name of the workload it is a replica of: tells which App of the source is the deployed one."""
    packages: tuple[str, ...] = ()
    """Requirement lines of the environment it runs in: tells which Image of the source that is."""
    alone: bool = False
    """It runs in a sandbox from which nothing can be called."""


current: ContextVar[Input | None] = ContextVar("swell_input", default=None)
waits: dict[int, Callable[[], object]] = {}
"""Thread (its ident) → what ends the wait for another call's answer in it: what is raised in a thread from outside
reaches it only when it runs."""
inside: list[Inside] = []
"""Empty outside a replica; one entry within. A list, so that a fork can replace it in place."""


class InputCancellation(BaseException):
    """Raised in synchronous user code whose caller left or whose deadline passed: clean up and let it through."""


# As users know it.
InputCancellation.__module__ = "swell.exception"
