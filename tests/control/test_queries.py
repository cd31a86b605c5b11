"""What is told of the apps that are deployed, and of the newest requests."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from swell.control import queries as module
from swell.control.clock import SystemClock
from swell.control.history import History
from swell.control.queries import Queries
from swell.control.reactor import Reactor
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, NodeSeen, ReplicaAdopted, ReplicaSeen
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Prices, RequestRecord
from swell.model.workload import App, Entry, Method, Revision, Web, Workload
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.wire.api import AppRow, RequestRow

URL = "http://127.0.0.1:1"


def queries(reactor: Reactor, store: MemoryStore, heard: bool = True) -> Queries:
    told = asyncio.Event()
    if heard:
        told.set()
    return Queries(
        reactor,
        History(),
        store,
        SystemClock(),
        told,
        gateways=(),
        deployed_at={"default/a": 7.0},
        prices=Prices(),
        base_url=URL,
        version="0",
    )


def test_the_newest_requests_of_an_app_are_listed_with_what_is_known_of_them() -> None:
    store = MemoryStore()
    asked = queries(Reactor(World(), Policy(), Prices()), store)

    async def scenario() -> None:
        one = RequestRecord("q-1", "default/a/f@rv-1", "f", 100.0, 500, 2.5, error="exception", cost_usd=1e-7)
        other = RequestRecord("q-2", "default/ab/g@rv-2", "g", 101.0, 200, 1.5, cold=True)
        store.usage.add_requests([one, other])
        row = RequestRow("q-1", "default/a/f", "f", 100.0, 500, "exception", 2.5, cold=False, cost_usd=1e-7)
        assert await asked.requests("default", "a", 10) == [row]
        assert [row.id for row in await asked.requests("default", "", 10)] == ["q-2", "q-1"]

    asyncio.run(scenario())


def deployed(epoch: int = 0) -> Reactor:
    """Two apps of one name, in two namespaces."""
    reactor = Reactor(World(epoch), Policy(), Prices())
    web = Method("page", web=Web("endpoint", "shop-page"))
    entries = {
        "f": Entry("m", "f", "function", (Method("f"),)),
        "Model": Entry("m", "Model", "cls", (Method("predict"),)),
        "page": Entry("m", "page", "function", (web,)),
    }
    for namespace in ("default", "team"):
        revisions = [Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", each) for each in entries.values()]
        workloads = [Workload(namespace, "a", name, rv.id) for name, rv in zip(entries, revisions, strict=True)]
        app = App(namespace, "a", tuple(workloads), tuple(revisions))
        reactor.take(AppDeployed(time.time(), app))
    return reactor


def test_an_app_is_listed_with_where_its_workloads_answer() -> None:
    asked = queries(deployed(), MemoryStore())
    assert asked.deployed() == [("default", "a"), ("team", "a")]
    own, other = asyncio.run(asked.apps(counts=True))
    assert (own.deployed_at, other.deployed_at) == (7.0, 0.0)
    assert [row.url for row in own.workloads] == [
        f"{URL}/call/a/f",
        f"{URL}/call/a/Model.predict",
        f"{URL}/web/shop-page/",
    ]
    assert [row.url for row in other.workloads][:2] == [f"{URL}/call/team/a/f", f"{URL}/call/team/a/Model.predict"]
    assert {row.next_at for row in (*own.workloads, *other.workloads)} == {None}
    asked.next_firing = {"default/a/f": 9.0}.get
    own, other = asyncio.run(asked.apps(counts=True))
    assert [row.next_at for row in (*own.workloads, *other.workloads)] == [9.0, *[None] * 5]


def test_what_runs_is_not_told_before_a_node_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        asked = queries(Reactor(World(), Policy(), Prices()), MemoryStore(), heard=False)
        waiting = asyncio.create_task(asked.replicas())
        await asyncio.sleep(0)
        assert not waiting.done()
        asked.heard.set()
        assert await waiting == []
        asked.heard.clear()
        monkeypatch.setattr(module, "HEAR_S", 0.01)
        with pytest.raises(SwellError, match="What runs is not known yet") as refused:
            await asked.replicas()
        assert (refused.value.code, refused.value.status) == ("no_runner", 503)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("stuck", "told"),
    [(0, ""), (1, "; 1 input goes on after its caller left"), (2, "; 2 inputs go on after their caller left")],
)
def test_inputs_that_cannot_be_stopped_are_counted(stuck: int, told: str) -> None:
    reactor = deployed(epoch=1)
    pool = reactor.world.workloads["default/a/f"].pool
    reactor.world.apply(NodeSeen(1.0, Node("n", 8.0, 8192)))
    seen = ReplicaSeen(1.0, "r0-1", Phase.READY, pool, "serving", "n", stuck=stuck)
    reactor.take(ReplicaAdopted(1.0, seen))
    asked = queries(reactor, MemoryStore())
    asked.history.seen(seen)
    (row,) = asyncio.run(asked.replicas())
    assert ("cannot be stopped" in row.why) == bool(stuck)
    assert told in row.why


def counts(apps: list[AppRow]) -> set[tuple[int | None, int | None]]:
    return {(row.ready, row.live) for app in apps for row in app.workloads}


def test_what_is_deployed_is_told_before_a_node_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        asked = queries(deployed(), MemoryStore(), heard=False)
        monkeypatch.setattr(module, "HEAR_S", math.inf)
        at_once = asyncio.create_task(asked.apps(counts=False))
        waiting = asyncio.create_task(asked.apps(counts=True))
        await asyncio.sleep(0)
        assert at_once.done()
        assert not waiting.done()
        told = await at_once
        assert [(row.namespace, row.name) for row in told] == [("default", "a"), ("team", "a")]
        assert counts(told) == {(None, None)}
        asked.heard.set()
        assert counts(await waiting) == {(0, 0)}
        asked.heard.clear()
        monkeypatch.setattr(module, "HEAR_S", 0.01)
        assert counts(await asked.apps(counts=True)) == {(None, None)}

    asyncio.run(scenario())
