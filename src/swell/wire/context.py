"""What user code may know of the input it is working on. The runtime sets it, the SDK reads it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Protocol

import msgspec


class Reply(msgspec.Struct):
    """What user code wants said in the head of its answer, beside its result."""

    status: int = 0
    """0: as it is without."""
    headers: dict[str, bytes] = {}
    """By name as written first, whatever its case later."""
    sent: bool = False
    """The head has left: it cannot be changed any more."""

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value) for name, value in self.headers.items()]


class Asked(Protocol):
    """The request that an input came with, as far as user code may know of it."""

    id: str
    target: bytes
    """/{face}/{method} of a call."""
    headers: list[tuple[bytes, bytes]]
    """Names in small letters; none of Swell's own."""
    reply: Reply | None


class Worked(Protocol):
    """What of an input changes while it is worked on."""

    @property
    def deadline(self) -> float:
        """On this process's monotonic clock."""
        ...

    @property
    def requests(self) -> tuple[str, ...]:
        """Ids of all that are worked on together."""
        ...

    @property
    def stopping(self) -> bool:
        """Nobody waits for it any more, or it took too long: its code is being stopped."""
        ...

    def go_on(self, now: float) -> None:
        """Its code tells of progress: where that gives it time, it has it. In any thread."""
        ...


class Input(msgspec.Struct, frozen=True):
    """The input being worked on."""

    request: str
    deadline_monotonic_s: float
    """On this process's monotonic clock."""
    asked: Asked | None = None
    """None of a web application, which has its own word for it."""
    batch: str = ""
    """Of inputs that are worked on together, this one the first: the id under which what is printed is logged."""

    work: Worked | None = None
    """None of a web application, whose deadline does not move."""

    @property
    def logged(self) -> str:
        return self.batch or self.request

    def remaining_s(self) -> float:
        """Seconds until the caller's deadline; below zero once it has passed."""
        deadline = self.deadline_monotonic_s if self.work is None else self.work.deadline
        return deadline - time.monotonic()


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
    depends: dict[str, tuple[str, ...]] = {}
    """Methods whose answers are kept → the headers they are kept apart by: the code is given no others."""
    alone: bool = False
    """It runs in a sandbox from which nothing can be called."""
    importing: bool = False
    """Its module is being imported."""
    checkpoints: str = ""
    """The folder in which each queued call has one of its own; empty in a sandbox, which has none of the node's."""


current: ContextVar[Input | None] = ContextVar("swell_input", default=None)
waits: dict[int, Callable[[], object]] = {}
"""Thread (its ident) → what ends the wait for another call's answer in it: what is raised in a thread from outside
reaches it only when it runs."""
inside: list[Inside] = []
"""Empty outside a replica; one entry within. A list, so that a fork can replace it in place."""


class Said(msgspec.Struct, frozen=True):
    """How far user code says that it is."""

    done: float | None
    total: float | None
    message: str


class Cluster(msgspec.Struct, frozen=True):
    """The gang that works on the call, and this replica's place in it."""

    id: str
    """The same for all members; another one in each attempt."""
    rank: int
    peers: tuple[str, ...]
    """Where each member is, by rank: "host:port"."""


cluster: list[Cluster] = []
"""Empty but in a member of a gang whose call is there."""
stopping = threading.Event()
"""This process is to end soon, and will not wait for what it works on."""
leaving = threading.Event()
"""Its machine is about to go, as far as its runner knows. It may stay after all."""
reports: list[Callable[[Input, Said], None]] = []
"""Within a replica that serves: takes what user code says of its progress with an input. In any thread."""
volumes: list[Callable[[str, str, str], Future[None]]] = []
"""Within a replica that has volumes: asks the runner for "commit" or "reload" of one, by its namespace and name."""


def checkpoint_dir(call: str) -> str:
    """The folder in which a queued call keeps what it goes on from in its next attempt; empty where it has none."""
    folder = inside[0].checkpoints if inside else ""
    return os.path.join(folder, call) if folder else ""


class InputCancellation(BaseException):
    """Raised in synchronous user code whose caller left or whose deadline passed: clean up and let it through."""


# As users know it.
InputCancellation.__module__ = "swell.exception"
