"""How do bytes get to a simulated replica, and back? Connections of memory to it, and what it is asked on each.

Whoever connects is code that is shipped: the gateway, or a node's runner. What a replica works on is said by those who
make its ends: `sim/replica` for queued calls, `sim/served` for requests.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from swell.decide.room import Told
from swell.runtime.turns import KEPT_S
from swell.sim.clock import Timeline
from swell.sim.process import Process
from swell.sim.slots import Slots, Ticket
from swell.wire.http import BUSY, FREE, WAIT_MS, lower

_WAIT_MS = lower(WAIT_MS).decode()


class Ways(Protocol):
    """How long it takes, and when a replica listens."""

    time: Timeline

    def arrival(self) -> float:
        """When something arrives that is sent now."""
        ...

    def once_awake(self, replica: str, do: Callable[[], None]) -> None:
        """What a replica does: once it hangs no more."""
        ...


class Socket:
    """What is looked at of it. When its replica has ended nothing is left to be read."""

    family = socket.AF_UNIX

    def fileno(self) -> int:
        raise OSError("closed")


class Wire(asyncio.Transport):
    """An end of a connection to a replica: that of who connected. What is sent on it arrives in order, each way."""

    def __init__(
        self, ways: Ways, process: Process, protocol: asyncio.BaseProtocol, replica: str, end: Callable[[Wire], End]
    ) -> None:
        """`end` makes that of the replica."""
        super().__init__()
        self._ways = ways
        self._process = process
        self._protocol = protocol
        self._replica = replica
        self._end = end(self)
        self._closing = False
        self._reset = False
        """Its other end is closed."""
        self._sent_at = self._answered_at = 0.0
        self.unread = 0
        """Requests that are on their way."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self.unread += 1

        def arrived() -> None:
            self.unread -= 1
            # Where its other end is gone nothing is begun any more: the kernel says so.
            if not self._closing:
                self._end.received(bytes(data))

        if not self._reset:
            self._send(lambda: self._ways.once_awake(self._replica, arrived))

    def write_eof(self) -> None:
        self._send(self._end.cancelled)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._send(self._end.closed)
            self._ways.time.at(
                self._ways.arrival(), lambda: self._process.do(lambda: self._protocol.connection_lost(None))
            )

    close = abort

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Socket() if name == "socket" else default

    def _send(self, arrived: Callable[[], None]) -> None:
        self._sent_at = max(self._sent_at, self._ways.arrival())
        self._ways.time.at(self._sent_at, arrived)

    # -- for the replica -------------------------------------------------------------------------

    def answer(self, data: bytes) -> None:
        self._answered_at = max(self._answered_at, self._ways.arrival())
        self._ways.time.at(self._answered_at, lambda: self._process.do(lambda: self._heard(data)))

    def _heard(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)  # type: ignore[attr-defined]  # a Protocol: nothing else connects

    def reset(self) -> None:
        """The replica is gone, or has closed it. What it said before is heard first."""
        self._reset = True
        if self._answered_at > self._ways.time.now():
            self._ways.time.at(self._answered_at, self._lost)
        else:
            self._lost()

    def _lost(self) -> None:
        if not self._closing:
            self._closing = True
            error = ConnectionResetError(104, "reset") if self.unread else None
            self._process.do(lambda: self._protocol.connection_lost(error))


class End:
    """A replica's end of a connection: what it is sent it works on, and it is asked for slots."""

    def __init__(self, wire: Wire, ways: Ways, slots: Callable[[], Slots[Any]], takes: Callable[[], bool]) -> None:
        """`takes`: does the replica take anything new?"""
        self.wire = wire
        self._ways = ways
        self._slots = slots
        self._takes = takes
        self._ticket: Ticket | None = None
        self._open = True

    def received(self, data: bytes) -> None:
        if not self._open:
            return
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        if line.startswith("POST /slot "):
            self._ask(int(headers[_WAIT_MS]) / 1000)
        else:
            self.serve(line, headers, body)

    def serve(self, line: str, headers: Mapping[str, str], body: bytes) -> None:
        """Anything but a question for a slot."""
        raise NotImplementedError

    def cancelled(self) -> None:
        """What was sent is not wanted any more."""
        self.closed()
        self.wire.reset()

    def closed(self) -> None:
        """Nobody is at its other end any more."""
        self._open = False
        ticket = self._taken()
        if ticket is not None:
            self._slots().leave(ticket)

    def refuse(self, status: int) -> None:
        """Nothing was begun."""
        self.answer(status, f"{BUSY}: 1\r\n", b"{}")

    def answer(self, status: int, headers: str, body: bytes) -> None:
        if self._open:
            self.wire.answer(answer(status, headers, body))

    def _taken(self) -> Ticket | None:
        """The slot that is kept for what is sent here, or the place in the line for one: now it is its."""
        ticket, self._ticket = self._ticket, None
        return ticket

    def _ask(self, wait_s: float) -> None:
        if not self._takes():
            self.refuse(410)
            return
        slots, after = self._slots(), self._ways.time.after

        def given(_ticket: Ticket, told: Told) -> None:
            after(KEPT_S, unused)
            self.answer(200, f"{FREE}: {told.free} {told.waiting}\r\n", b"{}")

        def unused() -> None:
            if self._ticket is ticket:
                self._ticket = None
                slots.leave(ticket)

        def in_vain() -> None:
            if self._ticket is ticket and ticket in slots.line.waiting:
                self._ticket = None
                slots.leave(ticket)
                self.refuse(503)

        ticket = self._ticket = Ticket(given)
        after(wait_s, in_vain)
        slots.ask(ticket)


def answer(status: int, headers: str, body: bytes) -> bytes:
    """As it is sent."""
    usual = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} X\r\n{usual}{headers}\r\n".encode() + body
