"""Does the control loop look again when it said it would, whatever its timer does?"""

from __future__ import annotations

import asyncio
import time
from random import Random

from swell.control.loop import Loop
from swell.control.reactor import Effects, Reactor
from swell.engines.fake import FakeEngine
from swell.model.events import NodeSeen, PlanCommitted
from swell.model.node import Node
from swell.model.orders import Inventory
from swell.model.plan import Plan
from swell.model.policy import Policy
from swell.model.request import Prices
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.wire.link import Level

WAIT_S = 60.0
TTL_S = 0.02


class HeldClock:
    """Stands still until it is set: every timer rings early by it."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


def test_a_timer_that_rings_early_rings_again() -> None:
    async def scenario() -> None:
        clock = HeldClock()
        reactor = Reactor(World(), Policy(), Prices())
        engine = FakeEngine(Node("n1", 4.0, 4096), clock.now, lambda _after_s, _do: None, Random(1))
        loop = Loop(reactor, engine, MemoryStore(), clock, 1)
        loop.heard_demand("g", (Level("default/a/f@rv-1", held=1, in_flight=0),), TTL_S)
        await asyncio.sleep(5 * TTL_S)
        assert reactor.book.next_expiry() == clock.at + TTL_S
        clock.at += 1.0
        end = time.monotonic() + WAIT_S
        while reactor.book.next_expiry() is not None:
            assert time.monotonic() < end, "nobody looked again"
            await asyncio.sleep(TTL_S)

    asyncio.run(scenario())


def test_it_is_known_whether_any_node_was_heard() -> None:
    async def scenario() -> None:
        clock = HeldClock()
        node = Node("n1", 4.0, 4096)
        engine = FakeEngine(node, clock.now, lambda _after_s, _do: None, Random(1))
        loop = Loop(Reactor(World(), Policy(), Prices()), engine, MemoryStore(), clock, 1)
        facts = loop._fact
        facts(NodeSeen(at=clock.at, node=node))
        assert not loop.heard.is_set()
        facts(Inventory(node="n1", at=clock.at, epoch=1, replicas=()))
        assert loop.heard.is_set()

    asyncio.run(scenario())


def test_triggers_hear_that_a_version_took_over() -> None:
    class Heard:
        apps: list[tuple[str, float]] = []  # noqa: RUF012 (of one test)

        def changed(self, app: str, at: float) -> None:
            self.apps.append((app, at))

    async def scenario() -> None:
        clock = HeldClock()
        engine = FakeEngine(Node("n1", 4.0, 4096), clock.now, lambda _after_s, _do: None, Random(1))
        loop = Loop(Reactor(World(), Policy(), Prices()), engine, MemoryStore(), clock, 1)
        loop.triggers = Heard()
        plan = Plan(5.0, (), moves=("default/a/f",))
        loop.reactor.step = lambda _now: Effects((), None, (PlanCommitted(5.0, plan),), plan, None, ())  # type: ignore[method-assign]
        loop._step()
        assert Heard.apps == [("default/a", 5.0)]

    asyncio.run(scenario())
