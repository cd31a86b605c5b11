"""How do gateways and control hear of each other? Control's end of each connection is the one that is shipped.

What is said arrives at once, or never: a connection may carry nothing for a while, and breaks then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Protocol

import msgspec

from swell.control.clock import SystemClock
from swell.control.link import ControlLink, Peer
from swell.control.reactor import Reactor
from swell.sim.clock import Timeline
from swell.sim.gateway import SimGateway
from swell.wire.frames import Unpacker, pack
from swell.wire.link import Down, Hello, KeepAlive, Level, Table, TableDelta, TellAll

BEAT_S = 1.0
"""A gateway says so often that it is there."""
BACK_S = 1.0
"""One that lost control, or began anew, is connected within this time."""
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

    def every(self, period_s: float, do: Callable[[], None]) -> None: ...
    def count(self, what: str) -> None: ...
    def broke(self, problem: str) -> None: ...


class Wire:
    """A gateway's end of one connection, and what control's end writes to."""

    def __init__(self, links: GatewayLinks, gateway: SimGateway, peer: Peer) -> None:
        self.peer = peer
        self.silent = False
        """What is said on it is lost, and nobody knows."""
        self._links = links
        self._gateway = gateway
        self._closing = False
        self._unpacker: Unpacker[Down] = Unpacker(Down)
        peer.connection_made(self)  # type: ignore[arg-type]

    def say(self, message: object) -> None:
        """To control."""
        if not (self.silent or self._closing):
            self.peer.data_received(pack(message))

    def cut(self) -> None:
        """Nothing comes over it any more. That it ended is heard of by itself."""
        self._closing = True

    # -- what control asks of it -----------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        for message in self._unpacker.feed(frame) if not self.silent else ():
            match message:
                case Table() | TableDelta():
                    if not self._gateway.take_table(message):
                        self._links.site.broke(f"{self._gateway.name} was told a change that does not follow its table")
                case TellAll():
                    self._gateway.tell_all()

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """As control does with what it cannot use."""
        self._links.site.broke(f"control cut off {self._gateway.name}")


class GatewayLinks:
    """Those of all gateways, with one incarnation of control after the other."""

    def __init__(self, site: Site, gateways: Sequence[SimGateway], chance: Random) -> None:
        self.site = site
        self._gateways = gateways
        self._chance = chance
        self._wires: dict[SimGateway, Wire] = {}
        self._unnoticed = 0
        """Connections that broke, of which control has not heard."""
        self._control = self._listening(0)
        self._control.open()
        for gateway in gateways:
            self._connect(gateway)
        site.every(BEAT_S, self._beat)

    # -- control ---------------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        """Another incarnation of control listens. It tells nobody anything before it knows what runs."""
        for gateway, wire in self._wires.items():
            wire.cut()
            self._reconnect(gateway)
        self._wires.clear()
        self._unnoticed = 0
        self._control = self._listening(epoch)

    def open(self) -> None:
        """It knows now."""
        self._control.open()

    def publish(self, delta: TableDelta) -> None:
        self._control.publish(delta)

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

    def loaded(self) -> Collection[str]:
        """Nobody is told what others have: that is an estimate, and no promise needs it."""
        return ()

    def count_gateways(self, connected: int) -> TableDelta | None:
        return self.site.reactor.keeper.count(connected)

    def gateway_left(self, gateway: str) -> None:
        self.site.left(gateway)

    # -- gateways --------------------------------------------------------------------------------

    def say(self, gateway: SimGateway, message: object) -> None:
        """To control, where it is there."""
        wire = self._wires.get(gateway)
        if wire is not None:
            wire.say(message)

    def linked(self, gateway: SimGateway) -> bool:
        """Does each hear what the other says?"""
        wire = self._wires.get(gateway)
        return wire is not None and not wire.silent

    @property
    def sure(self) -> bool:
        """Does control believe nothing of a gateway that is not so any more?"""
        return not self._unnoticed and not any(wire.silent for wire in self._wires.values())

    def _beat(self) -> None:
        for gateway, wire in self._wires.items():
            wire.say(KeepAlive(levels=gateway.levels))

    def _reconnect(self, gateway: SimGateway) -> None:
        self.site.time.after(self._chance.uniform(0.05, BACK_S), lambda: self._connect(gateway))

    def _connect(self, gateway: SimGateway) -> None:
        if gateway.down or gateway in self._wires:
            return
        wire = self._wires[gateway] = Wire(self, gateway, Peer(self._control))
        wire.say(Hello(role="gateway", incarnation=gateway.name))
        gateway.tell_all()

    def _break(self, gateway: SimGateway) -> None:
        """The gateway sees it at once, control a while later."""
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

    def partition(self, chance: Random, longest_s: float) -> bool:
        """A connection carries nothing for a while; then it is seen to be broken, and made anew."""
        gateway = chance.choice(list(self._gateways))
        wire = self._wires.get(gateway)
        if wire is None or wire.silent:
            return False
        wire.silent = True

        def broken() -> None:
            if self._wires.get(gateway) is wire:
                self._break(gateway)
                self._reconnect(gateway)

        self.site.time.after(min(chance.choice([0.1, 3.0, 20.0]), longest_s), broken)
        return True

    def crash(self, chance: Random) -> bool:
        """The process of one. Who comes meanwhile waits for the next: the supervisor keeps the socket."""
        gateway = chance.choice(list(self._gateways))
        if gateway.down:
            return False
        self._break(gateway)
        gateway.crash()

        def again() -> None:
            gateway.begin()
            self._reconnect(gateway)

        self.site.time.after(chance.uniform(0.1, DOWN_S), again)
        return True
