"""How do gateways and control hear of each other? Both ends of each connection are those that are shipped.

What is said arrives at once, or never: a connection may carry nothing for a while, and breaks then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from swell.control.clock import SystemClock
from swell.control.link import ControlLink, Peer
from swell.control.reactor import Reactor
from swell.sim.clock import Timeline
from swell.sim.gateway import SimGateway
from swell.sim.process import Process
from swell.wire.link import Level, Table, TableDelta

AWAY_S = 1.0
"""Another incarnation of control listens within this time."""
NOTICED_S = 0.2
"""Control notices within this time that a connection broke: perhaps when there is a new one already."""
DOWN_S = 2.0
"""A gateway that died is there again within this time."""


class Site(Protocol):
    """The cluster that they are in."""

    time: Timeline
    clock: SystemClock
    reactor: Reactor

    def demand(self, gateway: str, levels: list[Level], ttl_s: float) -> None: ...
    def left(self, gateway: str) -> None:
        """Its connection broke."""
        ...

    def broke(self, problem: str) -> None: ...


class Half(asyncio.Transport):
    """One end of a connection: `carry` takes what is written to the other, `ended` is called where it is closed."""

    def __init__(self, carry: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        super().__init__()
        self._carry = carry
        self._ended = ended
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._carry(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._ended()

    abort = close

    def cut(self) -> None:
        """Nothing comes over it any more. That it ended is heard of by itself."""
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0


class Wire:
    """One connection."""

    def __init__(
        self, site: Site, gateway: SimGateway, process: Process, protocol: asyncio.Protocol, control: ControlLink
    ) -> None:
        self.silent = False
        """What is said on it is lost, and nobody knows."""
        self.peer = Peer(control)
        self.up = Half(self._said, lambda: site.broke(f"{gateway.name} was told a change that does not follow"))
        """The gateway's end."""
        self._down = Half(self._told, lambda: site.broke(f"control cut off {gateway.name}"))
        self._site = site
        self._process = process
        self._protocol = protocol
        self.peer.connection_made(self._down)

    @property
    def greeted(self) -> bool:
        """Control knows whose it is, and told it the table."""
        return bool(self.peer.role)

    def _said(self, data: bytes) -> None:
        """To control, once the gateway has done what it is at."""

        def arrived() -> None:
            if not (self.silent or self.up.is_closing()):
                self.peer.data_received(data)

        self._site.time.after(0.0, arrived)

    def _told(self, data: bytes) -> None:
        if not self.silent:
            self._process.do(lambda: self._protocol.data_received(data))

    def cut(self) -> None:
        """The gateway sees that in a moment."""
        self.up.cut()
        self._down.cut()
        self._site.time.after(0.0, lambda: self._process.do(lambda: self._protocol.connection_lost(None)))


class GatewayLinks:
    """Those of all gateways, with one incarnation of control after the other."""

    def __init__(self, site: Site, chance: Random) -> None:
        self.site = site
        self._chance = chance
        self._wires: dict[SimGateway, Wire] = {}
        self._unnoticed = 0
        """Connections that broke, of which control has not heard."""
        self._listens_at = 0.0
        self._control = self._listening(0)
        self._control.open()

    # -- control ---------------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        """Another incarnation of control listens, soon. It tells nobody anything before it knows what runs."""
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            wire.cut()
        self._unnoticed = 0
        self._listens_at = self.site.time.now() + self._chance.uniform(0.0, AWAY_S)
        self._control = self._listening(epoch)

    def open(self) -> None:
        """It knows now."""
        self._control.open()

    def publish(self, delta: TableDelta) -> None:
        self._control.publish(delta)

    def tell_end(self, replica: str, why: str) -> None:
        self._control.tell_end(replica, why)

    def _listening(self, epoch: int) -> ControlLink:
        return ControlLink(epoch, self, hear=lambda _fact: None)  # type: ignore[arg-type]

    # -- what control does with what gateways say, as `control/loop` does ------------------------------

    def table(self) -> Table:
        return msgspec.structs.replace(self.site.reactor.keeper.whole(), at=self.site.clock.now())

    def heard_demand(self, gateway: str, levels: Sequence[Level], ttl_s: float) -> None:
        self.site.demand(gateway, list(levels), ttl_s)

    def heard_nothing_new(self, gateway: str, levels: int) -> bool:
        book = self.site.reactor.book
        book.renew(gateway, self.site.clock.now())
        return book.knows(gateway, levels)

    def heard_requests(self, *told: object) -> None:
        """What finished is for people to read."""

    def loaded(self) -> Collection[str]:
        """Nobody is told what others have: that is an estimate, and no promise needs it."""
        return ()

    def count_gateways(self, connected: int) -> TableDelta | None:
        return self.site.reactor.keeper.count(connected)

    def gateway_left(self, gateway: str) -> None:
        self.site.left(gateway)

    # -- gateways --------------------------------------------------------------------------------

    def connect(self, gateway: SimGateway, process: Process, protocol: asyncio.Protocol) -> Half | None:
        """One asks for it; None where nobody listens."""
        if self.site.time.now() < self._listens_at:
            return None
        wire = self._wires[gateway] = Wire(self.site, gateway, process, protocol, self._control)
        return wire.up

    def linked(self, gateway: SimGateway) -> bool:
        """Does each hear what the other says?"""
        wire = self._wires.get(gateway)
        return wire is not None and wire.greeted and not wire.silent

    @property
    def sure(self) -> bool:
        """Does control believe nothing of a gateway that is not so any more?"""
        return not self._unnoticed and not any(wire.silent for wire in self._wires.values())

    def _break(self, gateway: SimGateway) -> None:
        """The gateway sees it at once, and connects anew; control a while later."""
        wire = self._wires.pop(gateway, None)
        if wire is None:
            return
        wire.cut()
        control = self._control
        self._unnoticed += 1

        def noticed() -> None:
            if self._control is control:
                self._unnoticed -= 1
                wire.peer.connection_lost(None)

        self.site.time.after(self._chance.uniform(0.0, NOTICED_S), noticed)

    # -- what goes wrong -------------------------------------------------------------------------

    def partition(self, gateways: Sequence[SimGateway], chance: Random, longest_s: float) -> bool:
        """A connection carries nothing for a while; then it is seen to be broken, and made anew."""
        gateway = chance.choice(gateways)
        wire = self._wires.get(gateway)
        if wire is None or wire.silent:
            return False
        wire.silent = True

        def broken() -> None:
            if self._wires.get(gateway) is wire:
                self._break(gateway)

        self.site.time.after(min(chance.choice([0.1, 3.0, 20.0]), longest_s), broken)
        return True

    def crash(self, gateways: Sequence[SimGateway], chance: Random) -> bool:
        """The process of one. Who comes meanwhile waits for the next: the supervisor keeps the socket."""
        gateway = chance.choice(gateways)
        if gateway.down:
            return False
        gateway.crash()
        self._break(gateway)
        self.site.time.after(chance.uniform(0.1, DOWN_S), gateway.begin)
        return True
