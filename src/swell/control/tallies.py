"""What has control counted since it began? Starts and ends of each workload's replicas, what they used and cost, and
its own work: numbers for a scraper. What people ask for is in `queries`, from what is on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from swell.control.history import ReplicaHistory
from swell.decide.price import used_usd
from swell.model.events import ReplicaSeen
from swell.model.metrics import (
    BUSY_SECONDS,
    COST,
    CPU_SECONDS,
    ENDS,
    IDLE_SECONDS,
    PHASE_SECONDS,
    PLAN_POOLS,
    PLANS_REFUSED,
    REPLICA_SECONDS,
    REPLICAS,
    START_SECONDS,
    STARTING_SECONDS,
    STARTS,
    STEP_SECONDS,
    WORKLOAD_INFO,
    Bounded,
    Histogram,
    Labels,
    Sample,
    histogram,
    phase_label,
    reason_label,
    workload_labels,
)
from swell.model.replica import LIVE, OVER, Phase
from swell.model.request import PoolCount, Prices, Usage
from swell.model.variant import base_of, is_variant
from swell.model.workload import workload_of
from swell.model.world import World

ROLES = ("serving", "template")


class Used:
    """What replicas of one role used."""

    __slots__ = ("cost_usd", "cpu_s", "wall_s")

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = self.cost_usd = 0.0


class Tally:
    """One workload's."""

    __slots__ = ("busy_s", "ends", "idle_s", "start_seconds", "starting_s", "starts", "used")

    def __init__(self) -> None:
        self.used: dict[str, Used] = {role: Used() for role in ROLES}
        self.starting_s = self.busy_s = self.idle_s = 0.0
        self.starts: Counter[tuple[str, str, str]] = Counter()
        """By role, how it was started, and what came of it."""
        self.ends: Counter[tuple[str, str]] = Counter()
        """By role and reason."""
        self.start_seconds: dict[str, Histogram] = {}
        """By how it was started."""

    def settle_idle(self) -> float:
        """Time that serving replicas were ready for nothing. Runner and gateways report apart: it may be known late,
        and never goes back."""
        serving = self.used["serving"]
        self.idle_s = max(self.idle_s, serving.wall_s - self.starting_s - self.busy_s)
        return self.idle_s


class Tallies:
    """All that is counted, for at most so many workloads apart."""

    def __init__(self, prices: Prices, workloads_max: int) -> None:
        self.prices = prices
        self.of_workloads = Bounded(workloads_max, Tally)
        self.phases: dict[tuple[str, str, str], Histogram] = {}
        """Of start-ups, by role, how it was started, and phase."""
        self.step_seconds = histogram(STEP_SECONDS)
        self.plan_pools = histogram(PLAN_POOLS)
        self.plans_refused = 0

    # -- counting --------------------------------------------------------------------------------

    def used(self, rows: Iterable[Usage]) -> None:
        """What runners measured."""
        for row in rows:
            tally = self._of(row.pool)
            used = tally.used[row.role]
            used.cpu_s += row.cpu_s
            used.wall_s += row.wall_s
            used.cost_usd += used_usd(row, self.prices)
            if row.role == "serving":
                tally.starting_s += row.starting_s

    def counted(self, counts: Iterable[PoolCount]) -> None:
        """What gateways counted."""
        for count in counts:
            self._of(count.pool).busy_s += count.busy_s

    def seen(self, seen: ReplicaSeen, past: ReplicaHistory | None) -> None:
        """What a runner said of a replica; `past` is what was known of it before. What this control did not begin, or
        has counted already, is not counted."""
        if past is None:
            return
        how = "exec" if past.template is None or seen.unforked or past.unforked else "fork"
        if seen.phase is Phase.READY and past.ready_at is None:
            self._started(seen, past, how)
        elif seen.phase in OVER and past.ended_at is None:
            tally, reason = self._of(past.pool), reason_label(seen.reason)
            tally.ends[past.role, reason] += 1
            if past.ready_at is None:
                tally.starts[past.role, how, reason] += 1

    def _started(self, seen: ReplicaSeen, past: ReplicaHistory, how: str) -> None:
        tally = self._of(past.pool)
        tally.starts[past.role, how, "ready"] += 1
        if past.role == "serving":
            seconds = tally.start_seconds.setdefault(how, histogram(START_SECONDS))
            seconds.observe(max(seen.at - past.planned_at, 0.0))
        for phase, ms in seen.timings_ms:
            key = past.role, how, phase_label(phase)
            if key not in self.phases:
                self.phases[key] = histogram(PHASE_SECONDS)
            self.phases[key].observe(ms / 1e3)

    def stepped(self, seconds: float, pools: int, *, refused: bool) -> None:
        """One step of the loop."""
        self.step_seconds.observe(seconds)
        self.plan_pools.observe(pools)
        self.plans_refused += refused

    def _of(self, pool: str) -> Tally:
        return self.of_workloads.of(base_of(workload_of(pool)))

    # -- telling ---------------------------------------------------------------------------------

    def samples(self, world: World) -> Iterator[Sample]:
        """All of it, and what there is now."""
        for workload in self.of_workloads.workloads():
            if workload not in world.workloads:
                self.of_workloads.retire(workload)
        yield from self._deployed(world)
        for labels, tally in self.of_workloads.items():
            yield from _of_workload(labels, tally)
        for key, phase_seconds in self.phases.items():
            yield phase_seconds.sample(PHASE_SECONDS, key)
        yield self.step_seconds.sample(STEP_SECONDS)
        yield self.plan_pools.sample(PLAN_POOLS)
        yield Sample(PLANS_REFUSED, (), self.plans_refused)

    def _deployed(self, world: World) -> Iterator[Sample]:
        """Each workload that is told apart, and the replicas of all: none ready is told, too."""
        own = self.of_workloads
        replicas: Counter[tuple[Labels, str, str]] = Counter()
        for key, workload in world.workloads.items():
            if is_variant(key):
                # Counted with what it is a variant of: how many there are is for callers to say.
                continue
            own.of(key)
            labels = own.labels(key)
            replicas[labels, "serving", Phase.READY.value] += 0
            if labels == workload_labels(key):
                yield Sample(WORKLOAD_INFO, (*labels, workload.revision), 1)
        for replica in world.replicas.values():
            if replica.phase in LIVE:
                replicas[own.labels(base_of(workload_of(replica.pool))), replica.role, replica.phase.value] += 1
        for (labels, role, phase), number in replicas.items():
            yield Sample(REPLICAS, (*labels, role, phase), number)


def _of_workload(labels: Labels, tally: Tally) -> Iterator[Sample]:
    for key, number in tally.starts.items():
        yield Sample(STARTS, (*labels, *key), number)
    for end, number in tally.ends.items():
        yield Sample(ENDS, (*labels, *end), number)
    for how, seconds in tally.start_seconds.items():
        yield seconds.sample(START_SECONDS, (*labels, how))
    for role, used in tally.used.items():
        yield Sample(CPU_SECONDS, (*labels, role), used.cpu_s)
        yield Sample(REPLICA_SECONDS, (*labels, role), used.wall_s)
        yield Sample(COST, (*labels, role), used.cost_usd)
    yield Sample(STARTING_SECONDS, labels, tally.starting_s)
    yield Sample(BUSY_SECONDS, labels, tally.busy_s)
    yield Sample(IDLE_SECONDS, labels, tally.settle_idle())
