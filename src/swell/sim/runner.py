"""How does a node's runner deal with queued calls? The code that really does, beside a fake engine's replicas."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from swell.engines.fake import FakeEngine
from swell.model.ends import SOON
from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.orders import StartOrder
from swell.model.replica import OVER, Phase
from swell.runtime.runner.queued.calls import HOLDING_S, LOCAL, QueuedCalls
from swell.sim.clock import Timeline
from swell.sim.network import Link
from swell.sim.process import Process, process_of
from swell.sim.replica import Around, Replica, Served
from swell.sim.served import Request
from swell.sim.slots import Slots
from swell.sim.wires import Wire
from swell.wire.calls import Down, Ended, EndedHeard, Grant, Holding, Lease, Resume, Revoke
from swell.wire.child import Forget
from swell.wire.paths import Home

BACK_S = 0.3
"""A replica finds the next runner within this time."""


class Child(msgspec.Struct, frozen=True):
    """A replica, as its runner knows it."""

    role: str
    phase: Phase
    address: str
    max_inputs: int
    awaited: bool
    """It was there before this runner, and has not said yet what it has."""
    seat: Seat | None
    link: ReplicaLink
    keeps: bool = True
    """What it answers, until that is safe."""

    def given(self, call: str) -> None: ...
    def terminate(self) -> None:
        self.link.terminate()


class ReplicaLink:
    """The way to a replica."""

    def __init__(self, around: Around, replica: Replica) -> None:
        self._around = around
        self._replica = replica

    def send(self, message: Forget) -> None:
        self._around.hop(lambda: self._replica.forget(message.calls))

    def terminate(self) -> None:
        self._around.hop(lambda: self._replica.is_to_end("it is told to end"))


class Control(Protocol):
    """What a runner talks to."""

    def heard(self, node: str, frame: Ended | Holding) -> None: ...
    def told_all(self, node: str) -> None: ...
    def slots(self, replica: str, limit: int) -> Slots[Request]: ...
    def member_gone(self, gang: str) -> None:
        """One died, or was lost, at its work."""
        ...


class Runner:
    """That of one node, one process after the other."""

    def __init__(
        self, node: str, folder: Path, time: Timeline, engine: FakeEngine, link: Link, around: Around, control: Control
    ) -> None:
        self.node = node
        self.engine = engine
        self.link = link
        self.held_at = 0.0
        """When it last said that it has any calls."""
        self._folder = folder
        self._time = time
        self._around = around
        self._control = control
        self._wires: dict[str, list[Wire]] = {}
        self._replicas: dict[str, Replica] = {}
        self._awaited: set[str] = set()
        """Replicas that are to come back to this runner."""
        self._begin()

    # -- its life --------------------------------------------------------------------------------

    def _begin(self) -> None:
        home = Home(self._folder)
        home.call_ends.mkdir(parents=True, exist_ok=True)
        self.process = process = process_of(
            f"runner {self.node}", self._time, self._around.broke, connect=self._connect
        )
        with process.running():
            self.calls = QueuedCalls(home, self._children, self._send)
            self.calls.read()
        self._awaited = {id for id, fake in self.engine.replicas.items() if fake.order.role == "serving"}
        for id in sorted(self._awaited):
            self._time.after(self._around.chance.uniform(0.0, BACK_S), partial(process.do, partial(self._returned, id)))
        self._every(process, HOLDING_S, lambda: self.calls.hold())
        self._every(process, 1.0, lambda: self.calls.tick())

    def kill(self) -> None:
        """Its replicas stay, and what was begun in them goes on."""
        self.process.kill()
        self.link.cut()
        for wires in self._wires.values():
            for wire in wires:
                wire.abort()
        self._wires.clear()

    def revive(self) -> None:
        if self.process.dead:
            self._begin()

    def lose(self) -> None:
        """With its node, and its files."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        for replica in list(self._replicas):
            self.ended(replica)

    def _every(self, process: Process, period_s: float, do: Callable[[], None]) -> None:
        def again() -> None:
            if not process.dead:
                process.do(do)
                self._time.after(period_s, again)

        self._time.after(period_s, again)

    # -- its link --------------------------------------------------------------------------------

    def connect(self) -> None:
        """It says what runs, and then what it has."""
        if self.process.dead or not self.engine.alive or self.link.up:
            return
        self.link.connect()
        self.engine.report_node()
        self.link.send("up", lambda: self._control.told_all(self.node))
        self.link.send("down", lambda: self.process.do(self.calls.welcomed))

    def disconnect(self) -> None:
        self.link.cut()
        self.process.do(self.calls.lost)

    def hear(self, frame: Down) -> None:
        """From control."""
        match frame:
            case Grant():
                self.process.do(lambda: self.calls.granted(frame))
            case Revoke():
                self.process.do(lambda: self.calls.revoked(frame))
            case Resume():
                self.process.do(lambda: self.calls.resumed(frame))
            case EndedHeard():
                self.process.do(lambda: self.calls.heard(frame))

    def _send(self, frame: Ended | Holding) -> bool:
        self.held_at = self._time.now()
        return self.link.send("up", lambda: self._control.heard(self.node, frame))

    # -- its replicas ----------------------------------------------------------------------------

    def seen(self, seen: ReplicaSeen) -> None:
        """A replica is otherwise than it was."""
        if seen.phase in OVER:
            self.ended(seen.replica)
        if seen.phase is Phase.DRAINING and seen.reason in SOON and seen.replica in self._replicas:
            self._replicas[seen.replica].is_to_end("it is told to end")
        self.process.do(lambda: self.calls.seen(seen))

    def peer_gone(self, gang: str) -> None:
        """Its other members notice, by the connections that break."""
        for replica in self._replicas.values():
            if replica.seat is not None and replica.seat.gang == gang:
                replica.is_to_end("another one is gone")

    def ended(self, replica: str) -> None:
        """Connections to it break."""
        known = self._replicas.pop(replica, None)
        self._awaited.discard(replica)
        for wire in self._wires.pop(replica, ()):
            wire.reset()
        if known is not None and known.seat is not None and known.works:
            self._control.member_gone(known.seat.gang)

    def worked_on(self) -> Iterator[tuple[str, Lease]]:
        """What its replicas work on, whoever knows of that."""
        for id in self.engine.replicas.keys() & self._replicas.keys():
            yield from ((id, lease) for lease, work in self._replicas[id].kept.items() if not work.ended)

    def _returned(self, id: str) -> None:
        """A replica came back, and says what it has."""
        if id in self._awaited:
            self._awaited.discard(id)
            for seen in self.engine.drains(id):
                self.calls.seen(seen)
            self.calls.returned(id, self._replica(id).listed())

    def _children(self) -> Mapping[str, Child]:
        return {id: self._child(id, fake.order, fake.phase) for id, fake in self.engine.replicas.items()}

    def _child(self, id: str, order: StartOrder, phase: Phase) -> Child:
        link, limit = ReplicaLink(self._around, self._replica(id)), order.revision.max_inputs
        return Child(order.role, phase, f"{LOCAL}/fake/{id}", limit, id in self._awaited, order.seat, link)

    def _replica(self, id: str) -> Replica:
        known = self._replicas.get(id)
        if known is None:
            order = self.engine.replicas[id].order
            slots = self._control.slots(id, order.revision.max_inputs)
            known = self._replicas[id] = Replica(
                self._around,
                order,
                slots,
                takes=lambda: self.engine.listens(id),
                lives=lambda: id in self.engine.replicas,
                served=self.engine.served,
            )
        return known

    def _connect(self, process: Process, protocol: asyncio.Protocol, path: str) -> Wire | None:
        id = path.rpartition("/")[2]
        # One that drains answers for what it has, and takes nothing new.
        if id not in self.engine.replicas or self.engine.replicas[id].phase is Phase.STARTING:
            return None
        wire = Wire(self._around, process, protocol, id, partial(Served, self._replica(id)))
        self._wires.setdefault(id, []).append(wire)
        return wire
