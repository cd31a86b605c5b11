"""How many replicas can be started, per second and per second of CPU?

From a request to its answer, a replica for each: it is held, its level told, a replica planned, committed, ordered,
ready and in the table, and the request sent there. With a fake engine (`one_process`) that is what control and the
gateway can do, at 1, 100 and 5,000 known pools; control's part alone is beside it, since what it costs must not grow
with what is merely known. With real forks it is the whole platform: every call to a single-use function forks a
replica, is answered by it, and ends it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import msgspec
import uvloop

from bench import APPS
from bench.kernel import children_cpu_s, cpu_s
from bench.one_process import call_in_turn, server
from bench.row import Options, Row, row
from private_swell import Failed, PrivateSwell, private_swell, wait_until
from swell.control.reactor import Effects, Reactor
from swell.engines.fake import Behaviour, FakeEngine
from swell.model.environment import Environment
from swell.model.events import AppDeployed, Opened
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.request import Prices
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World
from swell.sim.clock import Timeline
from swell.wire.frames import pack
from swell.wire.link import Level, Order

KNOWN_POOLS = (1, 100, 5000)
CALLERS = 4
"""Connections that call at the same time."""
WARM_UP = 50
"""Calls before it is measured."""
IDLE_S = 1.0
POLICY = Policy(templates=False)


def run(options: Options) -> list[Row]:
    """Starts at each number of known pools: through control and gateway, and planned by control alone; then real."""
    return _fake(options) + _planned(options) + _real(options)


def _fake(options: Options) -> list[Row]:
    """Starts per second, and per CPU-second of control, gateway, fake engine and callers together."""
    rows = []
    for pools in KNOWN_POOLS:
        # One caller of one function waits 10 ms each time: the same number would take minutes.
        starts = options.rounds(3000, 500) if pools >= CALLERS else options.rounds(500, 100)
        seen = [uvloop.run(_rates(pools, starts)) for _ in range(options.rounds(5, 2))]
        at = f"fake engine, {pools:,} pool{'s' if pools > 1 else ''} known"
        note = f"{min(CALLERS, pools)} caller{'s' if pools > 1 else ''}, each call answered"
        rows.append(row("churn", f"starts per second, {at}", "1/s", [rate for rate, _ in seen], note=note))
        rows.append(row("churn", f"starts per CPU-second, {at}", "1/s", [per_cpu_s for _, per_cpu_s in seen], "≥ 1000"))
    return rows


async def _rates(pools: int, starts: int) -> tuple[float, float]:
    """Starts per second, and per CPU-second of this process."""
    async with server(pools) as here:
        await call_in_turn(here, WARM_UP, CALLERS)
        before, cpu, begun = here.starts, time.process_time(), time.perf_counter()
        await call_in_turn(here, starts, CALLERS)
        elapsed_s, cpu_used_s = time.perf_counter() - begun, time.process_time() - cpu
        if here.starts - before != starts:
            raise Failed(f"{here.starts - before} replicas were started for {starts} calls")
    return starts / elapsed_s, starts / cpu_used_s


def _planned(options: Options) -> list[Row]:
    """Starts per CPU-second of control's part alone."""
    starts = options.rounds(3000, 500)
    rows = []
    for pools in KNOWN_POOLS:
        rates = [_planned_rate(pools, starts) for _ in range(options.rounds(5, 2))]
        name = f"  control's part alone, {pools:,} pool{'s' if pools > 1 else ''} known"
        rows.append(row("churn", name, "1/s", rates, note="per CPU-second; no gateway, no link, no store"))
    return rows


def _real(options: Options) -> list[Row]:
    """Forks for real: starts per second of time and of CPU; that of the replicas themselves, and that of the rest."""
    rates, per_cpu_s, ours_ms, theirs_ms = [], [], [], []
    with private_swell() as here:
        here.run("deploy", str(APPS / "churn_app.py"))
        with here.connect() as client:
            client.call("bench-churn/once", {"number": 0})
        wait_until("a template and nothing else", here.parked)
        pids = [one.pid for one in here.processes()]
        each = options.rounds(200, 40) // CALLERS
        for _ in range(options.rounds(5, 1)):
            ours_s, theirs_s, begun = _ours_s(pids), _replicas_s(pids), time.monotonic()
            with ThreadPoolExecutor(CALLERS) as callers:
                starts = sum(callers.map(lambda caller: _calls(here, each, caller), range(CALLERS)))
            rates.append(starts / (time.monotonic() - begun))
            wait_until("the replicas are gone", lambda: not here.serving(), pause_s=0.5)
            ours_s, theirs_s = _ours_s(pids) - ours_s, _replicas_s(pids) - theirs_s
            per_cpu_s.append(starts / (ours_s + theirs_s))
            ours_ms.append(ours_s / starts * 1000)
            theirs_ms.append(theirs_s / starts * 1000)
    what = "CPU per start, real forks"
    return [
        row("churn", f"starts per second, real forks, {CALLERS} callers", "1/s", rates, note="each answered a call"),
        row("churn", "starts per CPU-second, real forks", "1/s", per_cpu_s, note="all processes, replicas included"),
        row("churn", f"{what}: the platform", "ms", ours_ms, note="gateway, control, runner, supervisor, template"),
        row(
            "churn", f"{what}: the replica itself", "ms", theirs_ms, note="from its fork to its end, the call included"
        ),
    ]


def _ours_s(pids: list[int]) -> float:
    """CPU seconds of what was there before the replicas, and stays."""
    return sum(map(cpu_s, pids))


def _replicas_s(pids: list[int]) -> float:
    """CPU seconds of those that are over: children of a template, or of the runner where they were not forked."""
    return sum(map(children_cpu_s, pids))


def _calls(here: PrivateSwell, count: int, caller: int) -> int:
    with here.connect() as client:
        for turn in range(count):
            number = caller * count + turn
            if client.call("bench-churn/once", {"number": number}).value != number:
                raise AssertionError(f"call {number} was answered with another's number")
    return count


def _planned_rate(pools: int, starts: int) -> float:
    churn = _Churn(pools)
    begun = time.process_time()
    for _ in range(starts):
        churn.once()
    return starts / (time.process_time() - begun)


class _Churn:
    """The reactor, a fake engine, and levels that say that one pool after another is called.

    Frames and log entries are encoded as the live loop does."""

    def __init__(self, pools: int) -> None:
        self.time = Timeline()
        node = Node("n1", cpu=1e5, memory_mib=100_000_000)
        quick = Behaviour(start_s=0.001, fork_s=0.001, stop_s=0.001)
        self.engine = FakeEngine(node, self.time.now, self.time.after, Random(1), quick)
        self.reactor = Reactor(World(), POLICY, Prices())
        self.engine.listen(self.reactor.fact)
        self.reactor.take(Opened(0.0, 1, (), POLICY))
        self.engine.report_node()
        revision = Revision(
            Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),))
        )
        workloads = tuple(
            Workload("default", "churn", f"f{i}", revision.id, Scaling(idle_s=IDLE_S)) for i in range(pools)
        )
        self.reactor.take(AppDeployed(0.0, App("default", "churn", workloads, (revision,))))
        self.reactor.step(0.0)
        self.pools = [workload.pool for workload in workloads]
        self.turn = 0

    def once(self) -> None:
        """One call to a pool at zero: held, started, answered; and the clock goes on."""
        pool = self.pools[self.turn % len(self.pools)]
        self.turn += 1
        self._level(pool, held=1)
        self._pass(0.01)
        if not self.reactor.keeper.pools[pool].replicas:
            raise AssertionError(f"{pool} did not come up")
        self._level(pool, held=0)
        # Often enough that a pool is at zero again when its turn comes back.
        self._pass(IDLE_S + 0.1 if len(self.pools) == 1 else 0.05)
        self._pass(0.01)

    def _level(self, pool: str, held: int) -> None:
        self.reactor.demand("g1", [Level(pool, held, 0)], 1e9, self.time.now())
        self._do(self.reactor.step(self.time.now()))

    def _pass(self, seconds: float) -> None:
        self.time.run(self.time.now() + seconds)
        self._do(self.reactor.step(self.time.now()))

    def _do(self, effects: Effects) -> None:
        for order in effects.orders:
            pack(Order(1, order))
            self.engine.apply(order, 1)
        if effects.delta is not None:
            pack(effects.delta)
        for event in effects.events:
            msgspec.msgpack.encode(event)
