"""A server whose replicas are values: control, gateway and store as they are, in this process, on a fake engine.

Control and the gateway speak over `run/control.sock`, callers come over TCP, the world is written to SQLite. In the
runner's place there is a fake engine at its end of the link: it says at once that a replica is ready, and that it is
over once it served. All replicas listen on one unix socket, where every request gets the same small answer.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import cast

import msgspec

from private_swell import WAIT_S, Failed
from swell.control.clock import SystemClock
from swell.control.link import ControlLink
from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.engines.fake import Behaviour, FakeEngine
from swell.engines.local import LocalEngine
from swell.gateway.app import Gateway
from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, Opened, ReplicaSeen
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.ports import Fact
from swell.model.request import Prices
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World
from swell.store.sqlite import SqliteStore
from swell.wire.frames import Unpacker, pack
from swell.wire.link import Down, Hello, Order, RunnerInventory, RunnerNode, RunnerReplica, Welcome
from swell.wire.settings import Settings

APP = "bench-churn"
NODE = Node("n1", cpu=1e5, memory_mib=100_000_000)
AT_ONCE = Behaviour(start_s=0.0, fork_s=0.0, stop_s=0.0)
SERVED = "served"
"""Why a replica for one input ends."""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n"
ANSWER += b"swell-cpu-us: 10\r\nswell-run-us: 10\r\n\r\n0"


class FakeRunner(asyncio.Protocol):
    """The runner's end of the control link, with nothing but values behind it."""

    def __init__(self, clock: SystemClock, replica_socket: Path) -> None:
        loop = asyncio.get_running_loop()
        self.clock = clock
        self.address = f"unix:{replica_socket}"
        self.unpacker: Unpacker[Down] = Unpacker(Down)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything is sent
        self.engine = FakeEngine(NODE, clock.now, loop.call_later, Random(1), AT_ONCE)
        self.engine.listen(self.say)
        self.serving: dict[str, str] = {}
        """Name of a workload → its replica that has not served yet. A second one at the same time is not expected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(pack(Hello(role="runner", incarnation="fake")))

    def data_received(self, data: bytes) -> None:
        for message in self.unpacker.feed(data):
            if isinstance(message, Order):
                self.engine.apply(message.order, message.epoch)
            elif isinstance(message, Welcome):
                self.engine.report_node()

    def say(self, fact: Fact) -> None:
        """What the engine reports, as a runner says it."""
        if isinstance(fact, NodeSeen):
            message: object = RunnerNode(fact)
        elif not isinstance(fact, ReplicaSeen):
            message = RunnerInventory(fact)
        elif fact.address:
            self.serving[fact.pool.partition("@")[0].rpartition("/")[2]] = fact.replica
            message = RunnerReplica(msgspec.structs.replace(fact, address=self.address))
        else:
            message = RunnerReplica(fact)
        self.transport.write(pack(message))

    def served(self, name: str) -> None:
        """The replica of this workload has had its one input, and ends."""
        self.engine.crash(self.serving.pop(name), SERVED)


class FakeReplica(asyncio.Protocol):
    """A connection to whichever replica: each read is one request, and is answered."""

    def __init__(self, runner: FakeRunner) -> None:
        self.runner = runner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)
        _, target, _ = data.split(b" ", 2)
        self.runner.served(target.rpartition(b"/")[2].decode())


class Caller(asyncio.Protocol):
    """One kept-alive connection to the gateway, with one call at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(Failed("the gateway closed the connection"))

    async def call(self, name: str) -> None:
        """Whatever is not answered 200 is Failed."""
        self.answered = asyncio.get_running_loop().create_future()
        head = f"POST /call/{APP}/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        answer = await asyncio.wait_for(self.answered, WAIT_S)
        # So short an answer is written, and arrives, in one piece.
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Failed(f"{name} was answered {answer!r}")


class Server:
    """What callers see of it, and what was started for them."""

    def __init__(self, port: int, names: Sequence[str], runner: FakeRunner) -> None:
        self.port = port
        self.names = names
        """Of the functions, each for one input at a time and one only in each replica."""
        self.runner = runner

    @property
    def starts(self) -> int:
        """Replicas so far."""
        return len(self.runner.engine.starts)

    async def connect(self) -> Caller:
        _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", self.port)
        return caller


@asynccontextmanager
async def server(pools: int) -> AsyncIterator[Server]:
    """A server that knows so many functions, all at zero."""
    with tempfile.TemporaryDirectory(prefix="sw", dir="/tmp") as home:
        settings = Settings(home=home, policy=Policy(templates=False))
        (Path(home) / "run").mkdir(mode=0o700)
        store = SqliteStore(settings.paths.database)
        gateway = Gateway(settings, key="key", incarnation="g1")
        clock = SystemClock()
        loop, link = _control(store, clock, settings)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(settings.paths.control_socket))
        await link.serve(listening)
        names = _deploy(loop, clock, pools)
        running = asyncio.get_running_loop()
        replica_socket = Path(home) / "run" / "replica.sock"
        _, runner = await running.create_unix_connection(
            lambda: FakeRunner(clock, replica_socket), str(settings.paths.control_socket)
        )
        replicas = await running.create_unix_server(lambda: FakeReplica(runner), str(replica_socket))
        listener = socket.create_server(("127.0.0.1", 0))
        accepting = asyncio.Event()
        serving = running.create_task(gateway.serve(listener, accepting.set))
        try:
            await asyncio.wait_for(accepting.wait(), WAIT_S)
            yield Server(listener.getsockname()[1], names, runner)
        finally:
            await gateway.close(0.0)
            await serving
            runner.transport.abort()
            replicas.close()
            await link.close()
            store.close()


def _control(store: SqliteStore, clock: SystemClock, settings: Settings) -> tuple[Loop, ControlLink]:
    """Control as `serve` makes it, but for its API."""
    epoch = store.world.open_epoch()
    engine = LocalEngine(
        lambda order, epoch: link.order(order, epoch, order.node), lambda revision, say: link.build(revision, say)
    )
    loop = Loop(Reactor(World(), settings.policy, Prices()), engine, store, clock, epoch)
    link = loop.link = ControlLink(epoch, loop, engine.hear)
    loop.take(Opened(clock.now(), epoch, (), settings.policy))
    return loop, link


def _deploy(loop: Loop, clock: SystemClock, pools: int) -> list[str]:
    """One app of so many single-use functions; their names."""
    environment = Environment("/usr/bin/python3", "3.11")
    names = [f"f{number}" for number in range(pools)]
    revisions = [
        Revision(environment, "sha256-0", Entry("m", name, "function", (Method(name),)), single_use=True)
        for name in names
    ]
    workloads = [Workload("default", APP, name, revision.id) for name, revision in zip(names, revisions, strict=True)]
    loop.take(AppDeployed(clock.now(), App("default", APP, tuple(workloads), tuple(revisions))))
    return names


async def call_in_turn(server: Server, calls: int, callers: int) -> None:
    """So many calls by so many callers at the same time. A function is called by one of them only, and anew when its
    turn comes back."""
    callers = min(callers, len(server.names))
    left = iter(range(calls))

    async def call(number: int) -> None:
        caller, names = await server.connect(), server.names[number::callers]
        for turn, _ in enumerate(left):
            await caller.call(names[turn % len(names)])
        caller.transport.close()

    await asyncio.gather(*(call(number) for number in range(callers)))
