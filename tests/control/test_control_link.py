"""What do peers hear on the control link, and when? A gateway not before control knows what runs; what was forgotten
is asked for; nobody who does not read is waited for."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swell.control.link import ControlLink
from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.engines.local import LocalEngine
from swell.model.environment import Environment
from swell.model.events import NodeSeen, Opened, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import BuildReport, Inventory
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.wire import link as wire
from swell.wire.exposition import Report, exposition
from swell.wire.frames import Unpacker, pack
from swell.wire.link import (
    AskMetrics,
    AskWanted,
    DemandReport,
    Down,
    Elsewhere,
    Hello,
    KeepAlive,
    Level,
    Metrics,
    MetricsTold,
    ReplicaEnded,
    RunnerInventory,
    RunnerNode,
    RunnerReplica,
    Table,
    TableDelta,
    TellAll,
    TellMetrics,
    Wanted,
    Welcome,
)

WAIT_S = 60.0
EPOCH = 2
REVISION = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),)))
WORKLOAD = Workload("default", "a", "f", REVISION.id, Scaling(idle_s=600.0))
APP = App("default", "a", (WORKLOAD,), (REVISION,))


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


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

    async def until(self, kind: Any, is_it: Callable[[Any], bool] = lambda _message: True) -> list[Any]:
        """Those of this kind, up to one that is it."""
        heard: list[Any] = []
        while not any(map(is_it, heard)):
            heard += [message for message in await self.hear() if isinstance(message, kind)]
        return heard


async def no_builds(*_: object) -> BuildReport:
    return BuildReport(ok=False)


def test_gateways_are_told_the_table_once_a_runner_said_what_runs() -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link
        gateway = await desk.call(Hello("gateway", "g1"))
        runner = await desk.call(Hello("runner", "n"))
        assert await runner.hear() == [Welcome(EPOCH)]
        # Both were heard by now, and the app is known; its replica is not.
        assert list(link.gateways) == ["g1"]
        runner.say(RunnerNode(NodeSeen(100.0, Node("n1", 4.0, 4096))), inventory())
        (table,) = await gateway.hear()
        assert isinstance(table, Table)
        assert [endpoint.replica for row in table.pools for endpoint in row.replicas] == ["r1-1"]
        later = await desk.call(Hello("gateway", "g2"))
        (other,) = await later.hear()
        assert other == msgspec.structs.replace(table, version=table.version + 1, gateways=2)
        # The first is told that there are two, and one again.
        assert await gateway.hear() == [TableDelta(table.version, table.version + 1, gateways=2)]
        later.writer.close()
        assert await gateway.hear() == [TableDelta(table.version + 1, table.version + 2, gateways=1)]

    play(scenario)


def test_a_gateway_that_was_forgotten_is_asked_for_its_levels() -> None:
    async def scenario(desk: Desk) -> None:
        demand = desk.loop.reactor.book.demand
        told = DemandReport((Level(WORKLOAD.pool, 2, 0),), ttl_s=5.0)
        gateway = await desk.call(Hello("gateway", "g1"), KeepAlive(levels=0), told, KeepAlive(levels=1))
        await until(lambda: WORKLOAD.pool in demand and demand[WORKLOAD.pool].held == 2)
        # It was stopped for a while, or the machine was, or its clock was set.
        desk.clock.at += 7.0
        desk.loop.wake()
        await until(lambda: demand[WORKLOAD.pool].held == 0)
        gateway.say(KeepAlive(levels=1))
        assert await gateway.hear() == [TellAll()]
        gateway.say(told, KeepAlive(levels=1), AskWanted())
        # Nothing else is asked before the last of these is answered.
        assert [type(message) for message in await gateway.hear()] == [Wanted]
        assert demand[WORKLOAD.pool].held == 2

    play(scenario)


def test_what_a_gateway_said_before_it_connected_anew_is_forgotten() -> None:
    """Also where its earlier connection ends later."""

    async def scenario(desk: Desk) -> None:
        demand = desk.loop.reactor.book.demand
        told = DemandReport((Level(WORKLOAD.pool, 2, 0),), ttl_s=5.0)
        before = await desk.call(Hello("gateway", "g1"), told)
        await until(lambda: WORKLOAD.pool in demand and demand[WORKLOAD.pool].held == 2)
        again = await desk.call(Hello("gateway", "g1"), KeepAlive(levels=0), AskWanted())
        # What is not known there is not asked for.
        assert [type(message) for message in await again.hear()] == [Wanted]
        assert demand[WORKLOAD.pool].held == 0
        again.say(told)
        await until(lambda: demand[WORKLOAD.pool].held == 2)
        peer = desk.link.gateways["g1"]
        before.writer.close()
        await before.writer.wait_closed()
        again.say(AskWanted())
        assert [type(message) for message in await again.hear()] == [Wanted]
        assert (desk.link.gateways, demand[WORKLOAD.pool].held) == ({"g1": peer}, 2)

    play(scenario)


def test_each_gateway_is_told_what_the_others_have_in_flight() -> None:
    pool = WORKLOAD.pool

    def load(one: int, other: int) -> DemandReport:
        return DemandReport((Level(pool, 0, one + other, (("r1", one), ("r2", other)), one + other),), ttl_s=5.0)

    async def scenario(desk: Desk) -> None:
        first = await desk.call(Hello("gateway", "g1"), load(1, 2))
        await until(lambda: desk.loop.reactor.book.pools() == {pool})
        second = await desk.call(Hello("gateway", "g2"))
        third = await desk.call(Hello("gateway", "g3"))
        for later in (second, third):
            (told,) = await later.until(Elsewhere)
            assert [(key, dict(loads)) for key, loads in told.pools] == [(pool, {"r1": 1, "r2": 2})]
        second.say(load(10, 20))
        (told,) = await third.until(Elsewhere, lambda t: dict(t.pools[0][1])["r1"] > 1)
        assert [(key, dict(loads)) for key, loads in told.pools] == [(pool, {"r1": 11, "r2": 22})]
        told = (await first.until(Elsewhere, lambda t: t.pools[0][1] != ()))[-1]
        assert [(key, dict(loads)) for key, loads in told.pools] == [(pool, {"r1": 10, "r2": 20})]
        # Who leaves takes along what it had, also where one alone is left.
        third.writer.close()
        first.writer.close()
        await until(lambda: set(desk.link.gateways) == {"g2"})
        told = (await second.until(Elsewhere, lambda t: t.pools[0][1] == ()))[-1]
        assert told.pools == ((pool, ()),)
        # With one there is nothing to tell.
        second.say(load(1, 1), AskWanted())
        heard = await second.until(Wanted)
        assert heard
        assert not desk.link.loads._pools

    play(scenario)


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "UNSENT_MAX", 100_000)

    async def scenario(desk: Desk) -> None:
        link = desk.link
        deaf, other = [await desk.call(Hello("gateway", name)) for name in ("g1", "g2")]
        await until(lambda: set(link.gateways) == {"g1", "g2"})
        link.open()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is of a stream
        sent = 0
        while "g1" in link.gateways:
            assert sent < 10_000
            sent += 1
            link.publish(TableDelta(sent, sent + 1, gone_routes=("r" * 1000,)))
            heard = await other.hear()
        assert list(link.gateways) == ["g2"]
        while sent + 1 not in {message.version for message in heard if isinstance(message, Table | TableDelta)}:
            heard = await other.hear()

    play(scenario)


def test_a_scrape_is_gathered_from_all_that_are_there_and_waits_for_none_that_is_silent() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await desk.call(Hello("runner", "n"), RunnerNode(NodeSeen(100.0, Node("n1", 4.0, 4096))), inventory())
        asker, other = [await desk.call(Hello("gateway", name)) for name in ("g1", "g2")]
        await until(lambda: set(desk.link.gateways) == {"g1", "g2"} and desk.link.runners)

        asker.say(AskMetrics(7, within_s=WAIT_S))
        (ask,) = await other.until(TellMetrics)
        other.say(MetricsTold(ask.ask, Report("gateway", "1")))
        (ask,) = await runner.until(TellMetrics)
        report = Report("runner", "n1", (("swell_node_cpu_cores", b'swell_node_cpu_cores{node="n1"} 4\n'),))
        # With something that nobody asked for, and twice.
        runner.say(MetricsTold(ask.ask + 100, report), MetricsTold(ask.ask, report), MetricsTold(ask.ask, report))
        told = await asker.until(Metrics, lambda m: m.last)
        assert {m.ask for m in told} == {7}
        assert [(m.report.process, m.report.name, m.report.answered) for m in told] == [
            ("runner", "n1", True),
            ("gateway", "1", True),
            ("control", "", True),
        ]
        own = exposition([told[-1].report]).decode()
        assert 'swell_replicas{namespace="default",app="a",function="f",role="serving",phase="ready"} 1\n' in own
        assert 'swell_link_connected{process="runner",node="n1"} 1\n' in own

        # Now nobody answers: the runner, which is known, is missed.
        asker.say(AskMetrics(8, within_s=0.05))
        told = await asker.until(Metrics, lambda m: m.last)
        assert [(m.report.process, m.report.answered) for m in told] == [("runner", False), ("control", True)]
        # And then it is not even there.
        runner.writer.close()
        await until(lambda: not desk.link.runners)
        asker.say(AskMetrics(9, within_s=0.05))
        told = await asker.until(Metrics, lambda m: m.last)
        assert [(m.report.process, m.report.name, m.report.answered) for m in told] == [
            ("runner", "n1", False),
            ("control", "", True),
        ]
        assert 'swell_link_connected{process="runner",node="n1"} 0\n' in exposition([told[-1].report]).decode()

    play(scenario)


def test_gateways_are_told_what_ended_a_replica_before_it_is_off_the_table() -> None:
    async def scenario(desk: Desk) -> None:
        gateway = await desk.call(Hello("gateway", "g1"))
        runner = await desk.call(Hello("runner", "n"), RunnerNode(NodeSeen(100.0, Node("n1", 4.0, 4096))), inventory())
        await gateway.until(Table)
        end = ReplicaSeen(101.0, "r1-1", Phase.GONE, WORKLOAD.pool, "serving", "n1", reason="crashed", detail="exit 3")
        runner.say(RunnerReplica(end))
        heard = await gateway.until(ReplicaEnded | TableDelta, lambda message: isinstance(message, TableDelta))
        assert heard[0] == ReplicaEnded("r1-1", "its process crashed: exit 3")
        assert [row.replicas for row in heard[1].pools] == [()]

    play(scenario)


class Desk:
    """A control with its link on a socket, and who calls it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        engine = LocalEngine(lambda order, epoch: self.link.order(order, epoch, order.node), no_builds)
        reactor = Reactor(World(), Policy(templates=False), Prices())
        self.loop = Loop(reactor, engine, MemoryStore(), self.clock, EPOCH)
        self.link = self.loop.link = ControlLink(EPOCH, self.loop, engine.hear)
        self.callers: list[Caller] = []

    async def open(self) -> None:
        self.loop.take(Opened(100.0, EPOCH, (APP,), Policy(templates=False)))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        await self.link.serve(listening)

    async def call(self, *messages: object) -> Caller:
        caller = Caller(*await asyncio.open_unix_connection(self.path))
        caller.say(*messages)
        self.callers.append(caller)
        return caller

    async def close(self) -> None:
        for caller in self.callers:
            caller.writer.close()
        await self.link.close()


def play(scenario: Callable[[Desk], Awaitable[None]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))

    async def act() -> None:
        desk = Desk(folder / "s")
        await desk.open()
        try:
            await scenario(desk)
        finally:
            await desk.close()

    try:
        asyncio.run(act())
    finally:
        shutil.rmtree(folder)


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def inventory() -> RunnerInventory:
    """One replica, planned by the control before."""
    seen = ReplicaSeen(99.0, "r1-1", Phase.READY, WORKLOAD.pool, "serving", "n1", pid=7, address="unix:/x")
    return RunnerInventory(Inventory("n1", 99.0, 1, (seen,)))
