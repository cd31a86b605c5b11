"""What does a simulated replica do with queued calls? It speaks as `runtime` does with a runner, and shares its slots.

Beside these come what gateways send, which `sim/gateway` says in values: both fill the same slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from swell.decide.room import Told
from swell.runtime.turns import KEPT_S
from swell.sim.clock import Timeline
from swell.sim.gateway import Request
from swell.sim.process import Process
from swell.sim.slots import Slots, Ticket
from swell.wire.http import BUSY, ERROR, FREE, REMAINING_MS, REQUEST_ID, RUN_US

HOP_S = 0.0005
"""The longest way of bytes between a runner and its replicas."""
WAIT_S = 5.0
"""How long a question for a slot waits."""


class Fates(msgspec.Struct, frozen=True):
    """How often an input of a call does what (probabilities), and how long it takes usually (seconds)."""

    work_s: float = 0.3
    raises: float = 0.0
    hangs: float = 0.0
    """It does not end, not even at its deadline."""
    kills: float = 0.0
    """The replica ends of it, out of memory."""


class Around:
    """What replicas of one run have in common."""

    def __init__(
        self,
        time: Timeline,
        chance: Random,
        fates: Fates,
        broke: Callable[[str], None],
        kill: Callable[[str], None],
        count: Callable[[str], None],
    ) -> None:
        self.time = time
        self.chance = chance
        self.fates = fates
        self.broke = broke
        self.kill = kill
        self.count = count
        self.faulty = True
        self.runs = 0
        """Inputs of queued calls that were begun."""

    def happens(self, what: str, probability: float) -> bool:
        happens = self.faulty and probability > 0 and self.chance.random() < probability
        if happens:
            self.count(what)
        return happens

    def hop(self, do: Callable[[], None]) -> None:
        self.time.after(self.chance.uniform(0.1, 1.0) * HOP_S, do)


class Socket:
    """What a lane looks at of it when its replica has ended: nothing is left to be read."""

    def fileno(self) -> int:
        raise OSError("closed")


class Wire(asyncio.Transport):
    """A runner's end of a connection to a replica."""

    def __init__(self, around: Around, process: Process, protocol: asyncio.Protocol, served: Served) -> None:
        super().__init__()
        self._around = around
        self._process = process
        self._protocol = protocol
        self._served = served
        self._closing = False
        self._arrives_at = 0.0
        self.unread = 0
        """Requests that are on their way."""

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self.unread += 1

        def arrived() -> None:
            self.unread -= 1
            self._served.received(bytes(data))

        self._around.hop(arrived)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._around.hop(self._served.closed)
            self._around.hop(lambda: self._process.do(lambda: self._protocol.connection_lost(None)))

    close = abort

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Socket() if name == "socket" else default

    # -- for the replica -------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        """In order: what was answered first arrives first."""
        now = self._around.time.now()
        at = max(self._arrives_at, now + self._around.chance.uniform(0.1, 1.0) * HOP_S)
        self._arrives_at = at
        self._around.time.at(at, lambda: self._process.do(lambda: self._heard(data)))

    def _heard(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def reset(self) -> None:
        """The replica is gone."""
        if not self._closing:
            self._closing = True
            error = ConnectionResetError(104, "reset") if self.unread else None
            self._process.do(lambda: self._protocol.connection_lost(error))


class Served:
    """A replica's end of it."""

    def __init__(
        self, around: Around, replica: str, pool: str, slots: Slots[Request], takes: Callable[[], bool]
    ) -> None:
        """`takes`: does the replica take anything new?"""
        self.wire: Wire
        self._around = around
        self._replica = replica
        self._pool = pool
        self._slots = slots
        self._takes = takes
        self._job: Request | None = None
        self._ticket: Ticket | None = None
        self._open = True

    def received(self, data: bytes) -> None:
        if not self._open:
            return
        head = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        if head[0].startswith("POST /slot "):
            self._ask()
        else:
            self._call(headers[REQUEST_ID.lower()], int(headers[REMAINING_MS.lower()]) / 1000)

    def closed(self) -> None:
        """By the runner: that stops what was sent."""
        self._open = False
        if self._job is not None:
            self._slots.end(self._job)
        if self._ticket is not None:
            self._slots.leave(self._ticket)

    # -- a call ----------------------------------------------------------------------------------

    def _call(self, id: str, timeout_s: float) -> None:
        around, now = self._around, self._around.time.now()
        job = Request(-1, "", now, now + timeout_s, 0.0, pool=self._pool, replica=self._replica)
        ticket, self._ticket = self._ticket, None
        if not self._takes():
            if ticket is not None:
                self._slots.leave(ticket)
            self._refuse(503)
        elif not self._slots.take(job, ticket):
            self._refuse(503)
        else:
            self._job = job
            around.runs += 1
            if len(self._slots.running) > self._slots.limit:
                around.broke(f"{self._replica} was given {len(self._slots.running)} inputs at once, calls among them")
            self._work(job, f"{id} {around.runs}".encode(), timeout_s)

    def _work(self, job: Request, result: bytes, timeout_s: float) -> None:
        around, fates = self._around, self._around.fates
        takes_s = around.chance.expovariate(1 / fates.work_s)
        if around.happens("a call kills its replica", fates.kills):
            around.time.after(takes_s, lambda: around.kill(self._replica) if job in self._slots.running else None)
        elif around.happens("a call hangs", fates.hangs):
            return
        elif takes_s > timeout_s:
            around.time.after(timeout_s, lambda: self._ended(job, 504, f"{ERROR}: 504 deadline\r\n", b"{}"))
        elif around.happens("a call raises", fates.raises):
            around.time.after(takes_s, lambda: self._ended(job, 500, f"{ERROR}: 500 exception\r\n", b"{}"))
        else:
            used = f"{RUN_US}: {int(takes_s * 1e6)}\r\n"
            around.time.after(takes_s, lambda: self._ended(job, 200, used, result))

    def _ended(self, job: Request, status: int, headers: str, body: bytes) -> None:
        if job in self._slots.running:
            self._slots.end(job)
            self._job = None
            self._answer(status, headers, body)

    # -- a question for a slot -------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._takes():
            self._refuse(410)
            return

        def given(_ticket: Ticket, told: Told) -> None:
            self._around.time.after(KEPT_S, unused)
            self._answer(200, f"{FREE}: {told.free} {told.waiting}\r\n", b"{}")

        def unused() -> None:
            if self._ticket is ticket:
                self._ticket = None
                self._slots.leave(ticket)

        def in_vain() -> None:
            if self._ticket is ticket and ticket in self._slots.line.waiting:
                self._ticket = None
                self._slots.leave(ticket)
                self._refuse(503)

        ticket = self._ticket = Ticket(given)
        self._around.time.after(WAIT_S, in_vain)
        self._slots.ask(ticket)

    def _refuse(self, status: int) -> None:
        self._answer(status, f"{BUSY}: 1\r\n", b"{}")

    def _answer(self, status: int, headers: str, body: bytes) -> None:
        if self._open:
            head = (
                f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
            )
            self.wire.answer(head.encode() + body)
