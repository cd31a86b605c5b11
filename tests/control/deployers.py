"""What deploys, over a store and an engine of the test's choice, and what is deployed?"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from swell.control.clock import SystemClock
from swell.control.deploying import Deployer
from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.engines.fake import FakeEngine
from swell.model.environment import Environment
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.ports import Engine, Store
from swell.model.request import Prices
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World
from swell.store.memory import MemoryStore


def nothing_starts(_after_s: float, _do: Callable[[], None]) -> None:
    """Nothing is started here."""


def no_secrets(app: App) -> None:
    """None of these apps names any: test_secrets.py has those that do."""
    assert not any(revision.secrets for revision in app.revisions)


def control(engine: Engine, store: Store) -> Deployer:
    reactor, clock = Reactor(World(), Policy(), Prices()), SystemClock()
    loop = Loop(reactor, engine, store, clock, 1)
    engines = {"ray": frozenset({"gpu"})}
    told = ("http://127.0.0.1:1", engines, reactor.waiting, no_secrets, loop.variants)
    return Deployer(reactor.world, loop.take, engine, store.world, clock, *told)


def plain() -> Deployer:
    """Of an engine that builds everything and starts nothing."""
    return control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())


def an_app(name: str, bundle: str, gpu: tuple[str, ...] = (), names: tuple[str, ...] = ("f",)) -> App:
    entries = [Entry("m", each, "function", (Method(each),)) for each in names]
    python = Environment("/usr/bin/python3", "3.11")
    revisions = tuple(Revision(python, bundle, entry, needs=Needs(gpu=gpu)) for entry in entries)
    pairs = zip(names, revisions, strict=True)
    return App("default", name, tuple(Workload("default", name, each, rv.id) for each, rv in pairs), revisions)
