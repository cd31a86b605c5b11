"""What does a runner say to a control that has not welcomed it yet? Who it is, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from swell.model.orders import Inventory
from swell.runtime.runner.link import RunnerLink
from swell.wire import link as wire
from swell.wire.frames import Unpacker, pack

PATIENCE_S = 60.0


def said(at: float) -> wire.RunnerInventory:
    return wire.RunnerInventory(Inventory(node="local", at=at, epoch=1, replicas=()))


class Control:
    """The listening end, which says nothing by itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writers: list[asyncio.StreamWriter] = []
        self.heard: asyncio.Queue[wire.Up] = asyncio.Queue()

    async def serve(self) -> None:
        self.server = await asyncio.start_unix_server(self._read, self.path)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        unpacker: Unpacker[wire.Up] = Unpacker(wire.Up)
        while data := await reader.read(65536):
            for message in unpacker.feed(data):
                self.heard.put_nowait(message)

    async def next(self) -> wire.Up:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)

    def say(self, message: wire.Down) -> None:
        self.writers[-1].write(pack(message))


def test_nothing_is_said_before_the_welcome_after_any_connect(tmp_path: Path) -> None:
    """Control knows a runner by its node, which is said with the welcome: of what it heard before it could order
    nothing."""

    async def scenario() -> None:
        control = Control(tmp_path / "s")
        await control.serve()
        welcomes: asyncio.Queue[wire.Down] = asyncio.Queue()
        link = RunnerLink(control.path, welcomes.put_nowait)
        link.start()
        for number in (1.0, 2.0):
            assert await control.next() == link.hello
            assert not link.send(said(0.0))
            control.say(wire.Welcome(epoch=1))
            await asyncio.wait_for(welcomes.get(), PATIENCE_S)
            assert link.send(said(number))
            assert await control.next() == said(number)
            control.writers[-1].close()
        assert await control.next() == link.hello
        await link.close()
        control.server.close()

    asyncio.run(scenario())
