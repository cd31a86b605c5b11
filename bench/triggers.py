"""How late do calls come where very many schedules are due in the same minute?

Control's part of it: the keeper of triggers, the durable queue and its database are those of a server. No replica works
on the calls, which would measure that; a call is late by what passes from its due time until it is on disk.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.row import Options, Row, quantile, row
from swell.control.calls import CallKeeper
from swell.control.clock import SystemClock
from swell.control.table import TableKeeper
from swell.control.triggers import TriggerKeeper
from swell.model.environment import Environment
from swell.model.events import AppDeployed, Opened
from swell.model.policy import Policy
from swell.model.request import Prices
from swell.model.schedule import Cron
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World
from swell.store.sqlite import SqliteStore
from swell.wire.calls import Down

PER_APP = 100
STALL_LOOK_S = 0.005
LOOK_S = 0.02


def run(options: Options) -> list[Row]:
    """Lateness of each call of one minute, and how long control did nothing else meanwhile."""
    schedules = 1000 if options.quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "control.db")
        try:
            late_ms, stall_ms = asyncio.run(_minute(store, schedules))
        finally:
            store.close()
    what = f"{schedules:,} schedules due in the same minute"
    return [
        row("triggers", f"{what}, lateness", "ms", late_ms, note="from its due time until its call is on disk"),
        row("triggers", f"{what}, p99", "ms", [quantile(late_ms, 0.99)], note="of all"),
        row("triggers", f"{what}, longest stall", "ms", [stall_ms], note="of control, to anything else it is asked"),
    ]


class _NoRunners:
    """Nothing is worked on."""

    def send(self, _node: str, _frame: Down) -> bool:
        return False

    def takes_calls(self, _node: str) -> bool:
        return False

    def cut(self, _node: str) -> None:
        pass


async def _minute(store: SqliteStore, schedules: int) -> tuple[list[float], float]:
    """From before a whole minute until all have fired for it."""
    clock, world = SystemClock(), World()
    world.apply(Opened(clock.now(), 1, (), Policy()))
    rows = TableKeeper(world, Policy(), Prices())
    calls = CallKeeper(
        *(store, clock, world, rows, 1, _NoRunners()),
        told=lambda _levels: None,
        others=lambda _pool: (),
    )
    keeper = TriggerKeeper(store, clock, world, calls.accept, calls.hands.counted, {})
    running = [asyncio.create_task(calls.run()), asyncio.create_task(keeper.run())]
    for number in range(schedules // PER_APP):
        app = _app(f"bench-{number}")
        rows.refresh(world.apply(AppDeployed(clock.now(), app)))
        keeper.changed(app.key, clock.now())
    while len(keeper.armed) < schedules:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(LOOK_S)
    # The first minute that finds all of them: the one before may have come while they were put there.
    due_at = max(each.next_at or 0.0 for each in keeper.armed.values())
    await asyncio.sleep(due_at - time.time() - LOOK_S)
    stall_s = 0.0
    while any(each.state.fired_to < due_at for each in keeper.armed.values()):
        before = time.perf_counter()
        await asyncio.sleep(STALL_LOOK_S)
        stall_s = max(stall_s, time.perf_counter() - before - STALL_LOOK_S)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    fired = [each.state.fired_at or 0.0 for each in keeper.armed.values()]
    return [(at - due_at) * 1000 for at in fired], stall_s * 1000


def _app(name: str) -> App:
    """One with many functions, each due every minute."""
    revisions, workloads = [], []
    for number in range(PER_APP):
        entry = Entry("m", f"f{number}", "function", (Method(f"f{number}"),))
        revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry)
        revisions.append(revision)
        schedule = Cron("* * * * *", "Europe/Berlin")
        workloads.append(Workload("default", name, f"f{number}", revision.id, schedule=schedule))
    return App("default", name, tuple(workloads), tuple(revisions))
