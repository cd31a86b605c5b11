"""Do all engines pass the suite of their port? Real processes for the local one, values for the fake."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
from engine_suite import EngineSuite, Make, Rig, phase, run
from node import Node, alive, kill, within

from swell.engines.fake import Behaviour, FakeEngine
from swell.engines.local import LocalEngine
from swell.model.environment import Environment
from swell.model.node import Node as Place
from swell.model.orders import StartOrder, StopOrder
from swell.model.ports import Engine, Fact
from swell.model.replica import OVER, Phase
from swell.model.workload import Entry, Method, Revision, pool_key

SOURCE = "def f(x=1):\n    return x * 2\n"


class FakeRig:
    """The fake engine with a clock that jumps from one thing to do to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.epoch = 1
        self.facts: list[Fact] = []
        place = Place("local", cpu=2.0, memory_mib=1024)
        self.fake = FakeEngine(place, lambda: self.now, self._after, Random(1))
        self.engine: Engine = self.fake
        self.fake.listen(self.facts.append)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), then))

    def revision(self) -> Revision:
        entry = Entry("app", "f", "function", (Method("f"),))
        return Revision(Environment(interpreter="python", python="3.11"), "sha256-0", entry)

    def broken(self) -> Revision:
        self.fake.behaviour = Behaviour(fail_start=1.0)
        return self.revision()

    async def until(self, true: Callable[[], Any]) -> None:
        while not true():
            assert self.agenda, "nothing more happens"
            self.now, _, then = heapq.heappop(self.agenda)
            then()

    async def crash(self, replica: str) -> None:
        self.fake.crash(replica)

    async def lose(self) -> None:
        self.fake.lose()
        self.fake.come_back()

    async def replace_control(self, epoch: int) -> None:
        self.epoch = epoch
        self.fake.report_node()

    def made(self, replica: str) -> int:
        return self.fake.starts.get(replica, 0)

    async def close(self) -> list[str]:
        """Stop everything that it says it has; what does not end by that would be an orphan."""
        inventory = self.fake.inventory()
        for seen in inventory.replicas if inventory is not None else ():
            self.fake.apply(StopOrder(seen.replica, "shutdown", 0.0), self.epoch)
        while self.agenda:
            self.now, _, then = heapq.heappop(self.agenda)
            then()
        unended = self.fake.starts.keys() - self.fake.ended
        return sorted(f"replica {replica}" for replica in unended | self.fake.replicas.keys())


class LocalRig:
    """A real runner, a real control link, and the local engine between them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.facts: list[Fact] = []
        self.pids: dict[str, set[int]] = {}
        self._connect()

    def _connect(self) -> None:
        link = self.node.link
        engine = LocalEngine(lambda order, epoch: link.order(order, epoch, "local"), link.build)
        engine.listen(self._heard)
        self.node.hear = engine.hear
        self.engine: Engine = engine

    def _heard(self, fact: Fact) -> None:
        self.facts.append(fact)
        for seen in getattr(fact, "replicas", (fact,)):
            if getattr(seen, "pid", None):
                self.pids.setdefault(seen.replica, set()).add(seen.pid)

    @property
    def epoch(self) -> int:
        return self.node.epoch

    def broken(self) -> Revision:
        return self.node.revision("raise RuntimeError('no such model')\n")

    def revision(self) -> Revision:
        return self.node.revision(SOURCE)

    async def until(self, true: Callable[[], Any]) -> None:
        await self.node.until(true)

    async def crash(self, replica: str) -> None:
        (pid,) = self.pids[replica]
        kill(pid)

    async def lose(self) -> None:
        # The runner first: it would tell of the others.
        await self.node.kill_runner()
        for pid in {pid for pids in self.pids.values() for pid in pids}:
            with suppress(ProcessLookupError):
                kill(pid)
        await self.node.start_runner()
        await within(self.node.connected.wait())

    async def replace_control(self, epoch: int) -> None:
        await self.node.link.close()
        await self.node.until(lambda: not self.node.connected.is_set())
        self.node.epoch = epoch
        await self.node.open_link()
        self._connect()
        await within(self.node.connected.wait())

    def made(self, replica: str) -> int:
        return len(self.pids.get(replica, ()))

    async def close(self) -> list[str]:
        await self.node.stop_runner()
        left = [f"process {pid}" for pids in self.pids.values() for pid in pids if alive(pid)]
        return left + self.node.leftovers()


class TestFakeEngine(EngineSuite):
    @pytest.fixture
    def make(self) -> Make:
        @asynccontextmanager
        async def made() -> AsyncIterator[Rig]:
            yield FakeRig()

        return made


@pytest.mark.slow
class TestLocalEngine(EngineSuite):
    @pytest.fixture
    def make(self) -> Make:
        @asynccontextmanager
        async def made() -> AsyncIterator[Rig]:
            async with Node() as node:
                yield LocalRig(node)

        return made

    def test_what_is_not_ready_in_time_is_ended_with_that_reason(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            assert isinstance(rig, LocalRig)
            source = "import time\ntime.sleep(600)\n"
            revision = rig.node.revision(source, startup_timeout_s=1.0)
            pool = pool_key("default/app/f", revision.id)
            rig.engine.apply(StartOrder("r1-slow", pool, "serving", "local", revision), rig.epoch)
            over = await phase(rig, "r1-slow", *OVER)
            assert (over.phase, over.reason) == (Phase.GONE, "startup_timeout")
            assert "1 s" in over.detail

        run(make, scenario)
