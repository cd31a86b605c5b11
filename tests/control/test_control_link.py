"""When is a gateway told the table: at its hello, and not before the control that tells it knows what runs?"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path

from swell.control.link import ControlLink
from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.engines.local import LocalEngine
from swell.model.events import NodeSeen, Opened, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import BuildReport, Inventory
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.workload import App, Entry, Environment, Method, Revision, Scaling, Workload
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.wire.frames import Unpacker, pack
from swell.wire.link import Down, Hello, RunnerInventory, RunnerNode, Table, Welcome

WAIT_S = 10.0
EPOCH = 2
REVISION = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),)))
WORKLOAD = Workload("default", "a", "f", REVISION.id, Scaling(idle_s=600.0))
APP = App("default", "a", (WORKLOAD,), (REVISION,))


class Clock:
    def now(self) -> float:
        return 100.0


class Caller:
    """One end of a connection to control."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.unpacker: Unpacker[Down] = Unpacker(Down)

    def say(self, *messages: object) -> None:
        self.writer.write(b"".join(map(pack, messages)))

    async def hear(self) -> list[Down]:
        """What the next bytes complete."""
        async with asyncio.timeout(WAIT_S):
            return list(self.unpacker.feed(await self.reader.read(65536)))


async def no_builds(*_: object) -> BuildReport:
    return BuildReport(ok=False)


def test_gateways_are_told_the_table_once_a_runner_said_what_runs() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))

    async def scenario() -> None:
        engine = LocalEngine(lambda order, epoch: link.order(order, epoch, order.node), no_builds)
        loop = Loop(Reactor(World(), Policy(templates=False), Prices()), engine, MemoryStore(), Clock(), EPOCH)
        link = loop.link = ControlLink(EPOCH, loop)
        loop.take(Opened(100.0, EPOCH, (APP,), Policy(templates=False)))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "s"))
        await link.serve(listening)
        gateway = Caller(*await asyncio.open_unix_connection(folder / "s"))
        gateway.say(Hello("gateway", "g1"))
        runner = Caller(*await asyncio.open_unix_connection(folder / "s"))
        runner.say(Hello("runner", "n"))
        assert await runner.hear() == [Welcome(EPOCH)]
        # Both were heard by now, and the app is known; its replica is not.
        assert list(link.gateways) == ["g1"]
        runner.say(RunnerNode(NodeSeen(100.0, Node("n1", 4.0, 4096))), inventory())
        (table,) = await gateway.hear()
        assert isinstance(table, Table)
        assert [endpoint.replica for row in table.pools for endpoint in row.replicas] == ["r1-1"]
        later = Caller(*await asyncio.open_unix_connection(folder / "s"))
        later.say(Hello("gateway", "g2"))
        assert await later.hear() == [table]
        for caller in (gateway, runner, later):
            caller.writer.close()
        await link.close()

    try:
        asyncio.run(scenario())
    finally:
        shutil.rmtree(folder)


def inventory() -> RunnerInventory:
    """One replica, planned by the control before."""
    seen = ReplicaSeen(99.0, "r1-1", Phase.READY, WORKLOAD.pool, "serving", "n1", pid=7, address="unix:/x")
    return RunnerInventory(Inventory("n1", 99.0, 1, (seen,)))
