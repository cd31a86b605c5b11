"""What does a simulated replica do with requests? It works on those that it has a slot for, and speaks as `runtime`.

Beside these come queued calls (`sim/replica`): both fill the same slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

import msgspec

from swell.sim.clock import Timeline
from swell.sim.process import Process
from swell.sim.slots import Slots
from swell.sim.wires import End, Wire
from swell.wire.http import ERROR, REMAINING_MS, RUN_US, lower

_REMAINING_MS = lower(REMAINING_MS).decode()


class Request(msgspec.Struct, eq=False):
    """One simulated request."""

    number: int
    """It is the body, and the answer to it."""
    workload: str
    came_at: float
    until: float
    """Its caller's own deadline."""
    work_s: float
    outcome: str = ""
    """"answered", "refused", "held" (too long), "deadline", or "lost" with its gateway; empty while it is under way."""
    begun_at: float = math.inf
    """When a replica had a slot for it; what comes back from a full one was not begun."""
    ended_at: float = 0.0
    pool: str = ""
    replica: str = ""


class Site(Protocol):
    """The cluster that replicas are in."""

    time: Timeline
    hop_s: float
    """The longest that bytes take between a gateway and a replica."""
    happened: int
    refused: int
    """How often a request came to a replica that was full."""
    requests: list[Request]

    def slots(self, replica: str, limit: int) -> Slots[Request]: ...
    def max_inputs(self, replica: str) -> int: ...
    def listens(self, replica: str) -> bool:
        """Does it take connections, and what is new, whatever the table says?"""
        ...

    def once_awake(self, replica: str, do: Callable[[], None]) -> None: ...
    def broke(self, problem: str) -> None: ...


class Doors:
    """What gateways reach replicas by."""

    def __init__(self, site: Site, chance: Random) -> None:
        self.site = site
        self.time = site.time
        self.once_awake = site.once_awake
        self._chance = chance
        self._ends: dict[str, dict[Serving, None]] = {}
        """Of each replica those of its connections that are open."""

    def arrival(self) -> float:
        self.site.happened += 1
        return self.time.now() + self._chance.uniform(0.1, 1.0) * self.site.hop_s

    def connect(self, process: Process, protocol: object, replica: str) -> Wire | None:
        """None where nothing listens."""
        if not self.site.listens(replica):
            return None
        limit = self.site.max_inputs(replica)
        made: list[Serving] = []

        def end(wire: Wire) -> End:
            made.append(Serving(self, process, replica, limit, wire))
            return made[0]

        wire = Wire(self, process, protocol, replica, end)  # type: ignore[arg-type]  # a protocol of asyncio's
        self._ends.setdefault(replica, {})[made[0]] = None
        return wire

    def left(self, end: Serving) -> None:
        """Its connection is closed."""
        self._ends.get(end.replica, {}).pop(end, None)

    def died(self, replica: str) -> None:
        """All its connections break."""
        for end in self._ends.pop(replica, ()):
            end.closed()
            end.wire.reset()

    def killed(self, process: Process) -> None:
        """So do all of a process's."""
        for ends in [*self._ends.values()]:
            for end in [each for each in ends if each.process is process]:
                end.wire.abort()


class Serving(End):
    """A replica's end of a connection that requests come on, one after the other."""

    def __init__(self, doors: Doors, process: Process, replica: str, limit: int, wire: Wire) -> None:
        site = doors.site
        super().__init__(wire, doors, lambda: site.slots(replica, limit), lambda: site.listens(replica))
        self.process = process
        """Of the gateway."""
        self.replica = replica
        self._doors = doors
        self._limit = limit
        self._request: Request | None = None
        """What it works on."""

    def serve(self, line: str, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 - all say the same
        site, slots = self._doors.site, self._slots()
        request, ticket = site.requests[int(body)], self._taken()
        if not self._takes() or not slots.take(request, ticket):
            if ticket is not None:
                slots.leave(ticket)
            site.refused += 1
            self.refuse(503)
            return
        if len(slots.running) > self._limit:
            site.broke(f"{self.replica} was given {len(slots.running)} inputs at once")
        if request.begun_at < math.inf:
            site.broke(f"request {request.number} was begun a second time, at {self.replica}")
        request.begun_at, request.replica = self._ways.time.now(), self.replica
        self._request = request
        remaining_s = max(int(headers[_REMAINING_MS]) / 1000, 0.0)
        took = f"{RUN_US}: {int(request.work_s * 1e6)}\r\n"
        self._after(request.work_s, lambda: self._ended(request, 200, took, body))
        self._after(remaining_s, lambda: self._ended(request, 504, f"{ERROR}: 504 deadline\r\n", b"{}"))

    def closed(self) -> None:
        """Nobody waits for the answer: that is the order to stop."""
        super().closed()
        self._doors.left(self)
        request, self._request = self._request, None
        if request is not None:
            self._slots().end(request)

    def _after(self, delay_s: float, do: Callable[[], None]) -> None:
        """What the replica does, when it does anything."""
        self._ways.time.after(delay_s, lambda: self._ways.once_awake(self.replica, do))

    def _ended(self, request: Request, status: int, headers: str, body: bytes) -> None:
        if self._request is request:
            self._request = None
            self._slots().end(request)
            self.answer(status, headers, body)
