"""Does control count each start and end once, and what was used and paid for, by workload?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.history import ReplicaHistory
from swell.control.tallies import Tallies
from swell.decide.price import pool_cost
from swell.model.environment import Environment
from swell.model.events import NodeSeen, Opened, ReplicaAdopted, ReplicaSeen
from swell.model.metrics import BY_NAME, OTHER_LABELS, Sample
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import PoolCount, Prices, Usage
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World

PRICES = Prices()
REVISION = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),)))
NAMES = ("f", "g", "h")
WORKLOADS = tuple(Workload("default", "a", name, REVISION.id) for name in NAMES)
POOLS = {workload.name: workload.pool for workload in WORKLOADS}


def world(*names: str) -> World:
    deployed = tuple(workload for workload in WORKLOADS if workload.name in names)
    made = World()
    apps = (App("default", "a", deployed, (REVISION,)),) if deployed else ()
    made.apply(Opened(100.0, 2, apps, Policy()))
    return made


def told(samples: Sequence[Sample], name: str) -> dict[tuple[str, ...], Any]:
    """Values, of a histogram the number of observations, by what follows the app."""
    found = {s.labels: sum(s.counts) if s.counts else s.value for s in samples if s.name == name}
    workload = BY_NAME[name].labels[:3] == ("namespace", "app", "function")
    return {labels[2:] if workload else labels: value for labels, value in found.items()}


def seen(phase: Phase, at: float = 101.0, **more: Any) -> ReplicaSeen:
    return ReplicaSeen(at=at, replica="r1-1", phase=phase, pool=POOLS["f"], role="serving", node="n", **more)


def past(**more: Any) -> ReplicaHistory:
    return ReplicaHistory("r1-1", POOLS["f"], more.pop("role", "serving"), "why", 100.0, **more)


@pytest.mark.parametrize(
    ("known", "unforked", "how"),
    [(past(), "", "exec"), (past(template="t"), "", "fork"), (past(template="t"), "it broke", "exec")],
)
def test_a_start_is_counted_by_how_it_was_made(known: ReplicaHistory, unforked: str, how: str) -> None:
    tallies = Tallies(PRICES, 10)
    timings = (("order", 2.0), ("enter", 40.0), ("of tomorrow", 1.0))
    tallies.seen(seen(Phase.STARTING), known)
    tallies.seen(seen(Phase.READY, timings_ms=timings, unforked=unforked), known)
    samples = [*tallies.samples(world("f"))]
    assert told(samples, "swell_replica_starts_total") == {("f", "serving", how, "ready"): 1}
    assert told(samples, "swell_replica_start_seconds") == {("f", how): 1}
    assert told(samples, "swell_cold_start_seconds") == {
        ("serving", how, phase): 1 for phase in ("order", "enter", "other")
    }
    (enter,) = (s for s in samples if s.name == "swell_cold_start_seconds" and s.labels[2] == "enter")
    assert enter.value == pytest.approx(0.040)


def test_what_is_repeated_or_was_begun_by_another_control_is_not_counted() -> None:
    tallies = Tallies(PRICES, 10)
    tallies.seen(seen(Phase.READY), None)
    tallies.seen(seen(Phase.GONE, reason="idle"), None)
    tallies.seen(seen(Phase.READY), past(ready_at=101.0))
    tallies.seen(seen(Phase.GONE, reason="idle"), past(ready_at=101.0, ended_at=102.0))
    samples = [*tallies.samples(world("f"))]
    assert told(samples, "swell_replica_starts_total") == told(samples, "swell_replica_ends_total") == {}


def test_a_start_that_failed_is_counted_as_that_and_as_an_end() -> None:
    tallies = Tallies(PRICES, 10)
    tallies.seen(seen(Phase.GONE, reason="enter_error"), past())
    tallies.seen(seen(Phase.GONE, reason="idle"), past(ready_at=101.0))
    tallies.seen(seen(Phase.GONE, reason="of tomorrow"), past(role="template"))
    samples = [*tallies.samples(world("f"))]
    assert told(samples, "swell_replica_starts_total") == {
        ("f", "serving", "exec", "enter_error"): 1,
        ("f", "template", "exec", "other"): 1,
    }
    assert told(samples, "swell_replica_ends_total") == {
        ("f", "serving", "enter_error"): 1,
        ("f", "serving", "idle"): 1,
        ("f", "template", "other"): 1,
    }


def test_replicas_are_told_by_phase_and_none_as_none() -> None:
    now = world("f", "g")
    now.apply(NodeSeen(100.0, Node("n", 4.0, 4096)))
    now.apply(ReplicaAdopted(100.0, ReplicaSeen(100.0, "r1-1", Phase.READY, POOLS["f"], "serving", "n")))
    now.apply(ReplicaAdopted(100.0, ReplicaSeen(100.0, "r1-2", Phase.STARTING, POOLS["f"], "serving", "n")))
    now.apply(ReplicaAdopted(100.0, ReplicaSeen(100.0, "r1-3", Phase.READY, POOLS["f"], "template", "n")))
    samples = [*Tallies(PRICES, 10).samples(now)]
    assert told(samples, "swell_replicas") == {
        ("f", "serving", "ready"): 1,
        ("f", "serving", "starting"): 1,
        ("f", "template", "ready"): 1,
        ("g", "serving", "ready"): 0,
    }
    assert told(samples, "swell_workload_info") == {("f", REVISION.id): 1, ("g", REVISION.id): 1}


amounts = st.floats(0.0, 1e4)
rows = st.builds(
    lambda name, role, wall_s, share, cpu_s, mib_s: Usage(
        "r1-1", POOLS[name], role, 100.0, wall_s, cpu_s, mib_s, wall_s * share if role == "serving" else 0.0
    ),
    *(st.sampled_from(NAMES), st.sampled_from(["serving", "template"])),
    *(amounts, st.floats(0.0, 1.0), amounts, amounts),
)
counts = st.builds(lambda name, busy_s: PoolCount(POOLS[name], 100.0, 1, 0, 0, busy_s), st.sampled_from(NAMES), amounts)


@given(st.lists(st.one_of(rows, counts), max_size=12))
def test_use_and_cost_are_those_of_usage_and_never_go_back(heard: list[Usage | PoolCount]) -> None:
    tallies, now = Tallies(PRICES, 10), world(*NAMES)
    before: dict[tuple[str, ...], float] = {}
    for row in heard:
        tallies.used([row]) if isinstance(row, Usage) else tallies.counted([row])
        after = {(s.name, *s.labels): s.value for s in tallies.samples(now) if s.name.endswith("_total")}
        assert all(after[key] >= value for key, value in before.items())
        before = after
    samples = [*tallies.samples(now)]
    for name in NAMES:
        usage = [row for row in heard if isinstance(row, Usage) and row.pool == POOLS[name]]
        cost = pool_cost(usage, [row for row in heard if isinstance(row, PoolCount)], PRICES)
        for metric, expected in (
            ("swell_cost_usd_total", cost.cost_usd),
            ("swell_replica_cpu_seconds_total", cost.cpu_s),
            ("swell_starting_seconds_total", cost.starting_s),
        ):
            found = sum(value for labels, value in told(samples, metric).items() if labels[0] == name)
            assert found == pytest.approx(expected), metric


def test_idle_time_is_what_is_left_of_a_replicas() -> None:
    tallies = Tallies(PRICES, 10)
    tallies.used([Usage("r1-1", POOLS["f"], "serving", 100.0, wall_s=10.0, cpu_s=0, memory_mib_s=0, starting_s=1.0)])
    tallies.counted([PoolCount(POOLS["f"], 100.0, 1, 0, 0, busy_s=3.0)])
    assert told([*tallies.samples(world("f"))], "swell_idle_seconds_total") == {("f",): 6.0}
    # The gateway's word for the next second is here before the runner's.
    tallies.counted([PoolCount(POOLS["f"], 100.0, 1, 0, 0, busy_s=1.0)])
    assert told([*tallies.samples(world("f"))], "swell_idle_seconds_total") == {("f",): 6.0}


def test_what_is_told_is_bounded_and_who_is_gone_makes_room() -> None:
    tallies = Tallies(PRICES, 2)

    def use(*names: str) -> None:
        tallies.used([Usage("r1-1", POOLS[name], "serving", 100.0, 1.0, 1.0, 1.0) for name in names])

    def of_whom(now: World) -> dict[tuple[str, ...], float]:
        found = [s for s in tallies.samples(now) if s.name == "swell_replica_cpu_seconds_total"]
        return {s.labels[:3]: s.value for s in found if s.labels[3] == "serving"}

    f, g, h = (("default", "a", name) for name in NAMES)
    use(*NAMES)
    assert of_whom(world(*NAMES)) == {f: 1, g: 1, OTHER_LABELS: 1}
    assert len([s for s in tallies.samples(world(*NAMES)) if s.name == "swell_workload_info"]) == 2
    replicas = [s.labels[:3] for s in tallies.samples(world(*NAMES)) if s.name == "swell_replicas"]
    assert sorted(replicas) == sorted([f, g, OTHER_LABELS])
    # g is stopped. What it used is still told, until another needs the place.
    assert of_whom(world("f")) == {f: 1, g: 1, OTHER_LABELS: 1}
    use("h")
    assert of_whom(world("f", "h")) == {f: 1, h: 1, OTHER_LABELS: 1}


def test_the_loops_own_work() -> None:
    tallies = Tallies(PRICES, 2)
    tallies.stepped(0.002, 3, refused=False)
    tallies.stepped(0.5, 1, refused=True)
    samples = [*tallies.samples(world())]
    assert told(samples, "swell_control_step_seconds") == {(): 2}
    assert told(samples, "swell_plan_pools") == {(): 2}
    assert told(samples, "swell_plans_refused_total") == {(): 1}


def test_labels_are_as_many_as_declared() -> None:
    tallies = Tallies(PRICES, 2)
    tallies.seen(seen(Phase.READY, timings_ms=(("enter", 1.0),)), past())
    tallies.seen(seen(Phase.GONE), past(ready_at=101.0))
    for sample in tallies.samples(world("f")):
        assert len(sample.labels) == len(BY_NAME[sample.name].labels), sample
        assert len(sample.counts) == (len(BY_NAME[sample.name].bounds) + 1 if BY_NAME[sample.name].bounds else 0)
