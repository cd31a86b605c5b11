"""What is told of a deploy (which workloads it makes, changes, leaves and takes away) and of the newest requests."""

from __future__ import annotations

import asyncio
import time
from random import Random

from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.control.views import Views, changes
from swell.engines.fake import FakeEngine
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.request import Prices, RequestRecord
from swell.model.workload import App, Scaling, Workload
from swell.model.world import World
from swell.serve import SystemClock
from swell.store.memory import MemoryStore
from swell.wire.api import RequestRow


def app(*workloads: Workload) -> App:
    return App("default", "a", workloads, ())


def workload(name: str, revision: str = "rv-1", most: int = 1) -> Workload:
    return Workload("default", "a", name, revision, Scaling(max_replicas=most))


def test_a_first_deploy_is_all_new() -> None:
    assert changes(None, app(workload("g"), workload("f"))) == [("f", "new"), ("g", "new")]


def test_a_later_one_tells_what_it_does_to_each() -> None:
    before = app(workload("code"), workload("gone"), workload("same"), workload("scale"))
    after = app(workload("same"), workload("code", "rv-2"), workload("scale", most=2), workload("more"))
    assert changes(before, after) == [
        ("code", "changed"),
        ("gone", "removed"),
        ("more", "new"),
        ("same", "unchanged"),
        ("scale", "changed"),
    ]


def test_the_newest_requests_of_an_app_are_listed_with_what_is_known_of_them() -> None:
    store, reactor = MemoryStore(), Reactor(World(), Policy(), Prices())
    engine = FakeEngine(Node("n1", 4.0, 4096), time.time, lambda _after_s, _do: None, Random(1))
    views = Views(Loop(reactor, engine, store, SystemClock(), 1), Prices(), "http://127.0.0.1:1", "0", {})

    async def scenario() -> None:
        one = RequestRecord("q-1", "default/a/f@rv-1", "f", 100.0, 500, 2.5, error="exception", cost_usd=1e-7)
        other = RequestRecord("q-2", "default/ab/g@rv-2", "g", 101.0, 200, 1.5, cold=True)
        store.usage.add_requests([one, other])
        row = RequestRow("q-1", "default/a/f", "f", 100.0, 500, "exception", 2.5, cold=False, cost_usd=1e-7)
        assert await views.requests("default", "a", 10) == [row]
        assert [row.id for row in await views.requests("default", "", 10)] == ["q-2", "q-1"]

    asyncio.run(scenario())


def test_nothing_is_kept_of_an_app_that_is_stopped() -> None:
    store, reactor = MemoryStore(), Reactor(World(), Policy(), Prices())
    engine = FakeEngine(Node("n1", 4.0, 4096), time.time, lambda _after_s, _do: None, Random(1))
    views = Views(Loop(reactor, engine, store, SystemClock(), 1), Prices(), "http://127.0.0.1:1", "0", {})

    async def scenario() -> None:
        await views.deploy(app(), lambda _line: None)
        (row,) = views.apps()
        assert row.deployed_at > 0
        await views.stop_app("default", "a")
        assert views.apps() == []
        assert views._deployed_at == {}

    asyncio.run(scenario())
