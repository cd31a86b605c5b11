"""Promises under faults: many seeds keep them, the same seed tells the same story, and a broken planner is noticed."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sim.branches import NEVER, never
from swell.control import reactor as reactor_module
from swell.control.reactor import Effects, Reactor
from swell.decide import drive as drive_module
from swell.decide import plan as plan_module
from swell.decide import split as split_module
from swell.decide.drive import Owed
from swell.decide.scale import PoolState, Scaled, scale
from swell.decide.spare import Spare, spare
from swell.decide.split import Choice
from swell.engines.fake import FakeEngine
from swell.gateway import pool as pool_module
from swell.gateway import replicas as replicas_module
from swell.model.demand import Demand
from swell.model.events import Event, NodeSeen, PlanCommitted
from swell.model.orders import Order, StartOrder
from swell.model.plan import Start, Stop
from swell.model.replica import Phase, Replica
from swell.model.resources import Needs, Room
from swell.model.world import World
from swell.sim.clock import Timeline
from swell.sim.cluster import Cluster, Outcome
from swell.sim.hits import Hits
from swell.sim.kept import kept
from swell.sim.replay import replay
from swell.sim.scenario import run, scenario
from swell.sim.settings import Scenario
from swell.sim.slots import Slots

pytestmark = pytest.mark.slow


def test_every_promise_is_kept_on_ten_seeds() -> None:
    broken = {seed: outcome.broken[:2] for seed in range(10) if (outcome := run(seed)).broken}
    assert not broken


def test_the_same_seed_tells_the_same_story() -> None:
    for seed in (3, 11, 42):
        assert run(seed) == run(seed)
    assert run(3).history != run(4).history


def test_the_same_seed_tells_the_same_story_in_another_process() -> None:
    """Where sets of words have another order."""
    program = "from swell.sim.scenario import run; print(*(run(seed).history for seed in (13, 14, 19)))"

    def told(order: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": order}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        return done.stdout.decode()

    assert told("1") == told("2")


def test_the_same_seed_tells_the_same_story_whenever_python_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count(1)
    real = Timeline.at

    def at(self: Timeline, time_s: float, do: Callable[[], None]) -> None:
        if next(calls) % 500 == 0:
            gc.collect()
        real(self, time_s, do)

    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        never = run(11)
        monkeypatch.setattr(Timeline, "at", at)
        often = run(11)
    finally:
        gc.unfreeze()
        gc.enable()
    assert never == often


KINDS = (
    "replica crash",
    "replica hang",
    "gateway crash",
    "gateway partition",
    "clock set",
    "start hangs",
    "cancel at work",
    "node loss",
    "node leave",
    "a member raises: it is told to end",
    "a member raises: another one is gone",
    "a stopped member goes on",
    "control crash",
    "redeploy",
    "split",
    "roll",
    "order lost",
    "order repeated",
    "order from before a node loss",
    "report repeated",
    "power cut",
    "control kill",
    "runner kill",
    "partition",
    "slow disk",
    "full disk",
    "message repeated",
    "message out of order",
    "a call kills its replica",
    "a call hangs",
    "a connection breaks",
    "a call raises",
    "a call takes long",
    "call done",
    "call failed",
    "call cancelled",
    "refused",
    "start serving forked",
    "start serving fresh",
    "start template fresh",
    "stop idle",
    "stop superseded",
    "stop reclaimed",
    "stop evicted",
    "start gang",
    "stop preempted",
    "stop gang_broken",
    "gang broken",
)
"""What goes wrong, and is done about it: some seed of those that are run is to meet each."""


@pytest.mark.timeout(600)
def test_more_seeds_keep_every_promise_and_reach_every_kind_of_fault_and_decision() -> None:
    """A simulator that never meets a fault proves nothing: count what the seeds really did."""
    seen: Counter[str] = Counter()
    hits = Hits()
    for seed in range(10, 40):
        cluster = Cluster(seed, scenario(seed))
        with hits.counted():
            outcome = cluster.run()
        assert not outcome.broken, f"seed {seed}"
        assert not outcome.poor, f"seed {seed}"
        seen.update(outcome.faults)
        seen["refused"] += outcome.refused
        for event in cluster.log:
            for action in event.plan.actions if isinstance(event, PlanCommitted) else ():
                match action:
                    case Start():
                        seen[f"start {action.role} {'forked' if action.template else 'fresh'}"] += 1
                        seen["start gang"] += action.seat is not None and action.seat.rank == 0
                    case Stop():
                        seen[f"stop {action.reason}"] += 1
    print(dict(sorted(seen.items())))
    for kind in KINDS:
        assert seen[kind] > 0, f"no seed ever reached: {kind}"
    assert never(hits.branches()) == NEVER.keys()


TAKEN = ("reclaimed", "preempted")
"""Who waits for what drains is looked at again when that is gone."""


def _unqueued(seed: int) -> Outcome:
    """Of a run where nobody queues calls: that takes less time."""
    return Cluster(seed, msgspec.structs.replace(scenario(seed), queue=None)).run()


def _broken_by(seeds: range) -> list[str]:
    return [problem for seed in seeds for problem in _unqueued(seed).broken]


@pytest.mark.slow
def test_it_notices_orders_that_are_said_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = drive_module.drive
    monkeypatch.setattr(reactor_module, "drive", lambda *given: Owed((), real(*given).lost))
    assert _broken_by(range(20))


def test_it_notices_an_engine_that_starts_a_replica_for_each_copy_of_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def obey(self: FakeEngine, order: Order, epoch: int, losses: int) -> None:
        if isinstance(order, StartOrder) and self.alive:
            self._start(order)
        else:
            real(self, order, epoch, losses)

    real = FakeEngine._obey
    monkeypatch.setattr(FakeEngine, "_obey", obey)
    assert any("was started 2 times" in problem for problem in _broken_by(range(3)))


def test_it_notices_a_world_that_believes_late_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replica, "may_become", lambda self, phase: True)
    assert any("was ready and is starting" in problem for problem in _broken_by(range(5, 8)))


def test_it_notices_replicas_that_are_never_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "scale", lambda *a: _without_stops(scale(*a)))
    assert any("not back to zero" in problem for problem in _broken_by(range(5)))


def _without_stops(scaled: Scaled) -> Scaled:
    return Scaled(scaled.starts, (), "", "", scaled.look_again_at, scaled.wait)


def test_it_notices_a_forgotten_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module._Planner, "_look", lambda self, pool, at: None)
    assert any("not back to zero" in problem for problem in _broken_by(range(1)))


@pytest.mark.slow
def test_it_notices_capacity_that_is_promised_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "room", lambda self, node: self.nodes[node].room())
    assert any("kept free capacity" in problem for problem in _broken_by(range(20)))


def _anywhere(needs: Needs, rooms: Mapping[str, Room], prefer: Any) -> tuple[str | None, str]:
    return next(iter(rooms), None), "no node is connected"


def _on_all_nodes(planner: plan_module._Planner) -> dict[str, Room]:
    """Also on those that are lost."""
    planner.rooms = {id: node.room() for id, node in planner.world.nodes.items()}
    return planner.rooms


def _more_than_asked(*given: Any) -> Scaled:
    scaled = scale(*given)
    return msgspec.structs.replace(scaled, starts=scaled.starts * 20)


PLANNER_BUGS: dict[str, tuple[Any, str, Any]] = {
    "does not fit: it asks for": (plan_module, "place", _anywhere),
    "and is in use already": (plan_module, "replica_id", lambda epoch, number: f"r{epoch:x}-{number // 2:x}"),
    "which is no living node": (plan_module._Planner, "_free", _on_all_nodes),
    "more than its max_replicas": (plan_module, "scale", _more_than_asked),
    "no template of its pool on": (plan_module, "usable", lambda templates, node: next(iter(templates), None)),
}
"""What is said of a plan, and the defect of the planner that leads to one like it."""


@pytest.mark.parametrize("named", PLANNER_BUGS)
def test_it_notices_a_plan_that_must_not_be_committed(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*PLANNER_BUGS[named])
    assert any(named in problem for problem in _broken_by(range(20)))


def _lose_no_replica(world: World, event: NodeSeen) -> tuple[str, ...]:
    if event.node.alive:
        return SEE_NODE(world, event)
    world.nodes[event.node.id] = event.node
    world.rooms.end(event.node.id)
    return ()


SEE_NODE = World._node
WORLD_BUGS: dict[str, tuple[Any, str, Any]] = {
    "which is no living node": (World, "_node", _lose_no_replica),
    "templates hold": (World, "_uncount_template", lambda world, id: world.templates.pop(id, None)),
    "kept free capacity": (Room, "give_back", lambda room, needs: None),
}


@pytest.mark.parametrize("named", WORLD_BUGS)
def test_it_notices_a_world_that_does_not_hold(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WORLD_BUGS[named])
    assert any(named in problem for problem in _broken_by(range(6)))


@pytest.mark.slow
def test_it_notices_replicas_given_up_before_they_were_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(pool: PoolState, *given: Any) -> Scaled:
        scaled = scale(pool, *given)
        unready = tuple(r.id for r in pool.serving if r.phase is not Phase.READY and not pool.demand.level)
        return Scaled(scaled.starts, (*scaled.stop, *unready), "idle", "hasty", scaled.look_again_at, scaled.wait)

    monkeypatch.setattr(plan_module, "scale", hasty)
    assert any("before it was ever ready" in problem for problem in _broken_by(range(40)))


def test_it_notices_a_planner_that_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*given: Any) -> Scaled:
        return msgspec.structs.replace(scale(*given), starts=(), reserve=0)

    monkeypatch.setattr(plan_module, "scale", nothing)
    assert any("nothing was started though there is room" in problem for problem in _broken_by(range(6)))
    assert any("nothing went wrong" in problem for problem in Cluster(1, CALM).run().broken)


def test_it_notices_a_planner_that_starves_who_waits_beside_what_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    def miserly(world: World, pool: str, demand: Demand, leaving: Container[str] = ()) -> Iterator[Spare]:
        workload = world.workload(pool)
        wanted = demand.level or (workload is not None and workload.scaling.min_replicas)
        return iter(()) if wanted else spare(world, pool, demand, leaving)

    outcomes = [Cluster(seed, CROWDED).run() for seed in range(3)]
    assert [outcome.broken for outcome in outcomes] == [(), (), ()]
    assert sum(outcome.requests for outcome in outcomes) > 100
    monkeypatch.setattr(plan_module, "spare", miserly)
    broken = [problem for seed in range(3) for problem in Cluster(seed, CROWDED).run().broken]
    assert any("nothing was started though there is room" in problem for problem in broken)


def test_it_notices_drains_that_cut_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "drain_grace_s", lambda *_: 0.0)
    broken = Cluster(1, msgspec.structs.replace(CALM, work_s=3.0)).run().broken
    assert any("was cut (superseded) while it worked" in problem for problem in broken)


CALM = Scenario(node_cpu=64.0, node_memory_mib=128 * 1024, redeploy_every_s=10.0, control_crash_every_s=20.0)
CROWDED = Scenario(workloads=5, nodes=1, rate=0.1, min_replicas=1, idle_s=600.0, work_s=2.0, node_memory_mib=2560)


def test_where_nothing_goes_wrong_every_request_is_answered() -> None:
    """Through redeploys and crashes of control, too."""
    for seed in range(5):
        outcome = Cluster(seed, CALM).run()
        assert outcome.broken == ()
        assert outcome.answered == outcome.requests > 100
        assert outcome.faults["redeploy"] > 3
        assert outcome.faults["control crash"] > 0


SEVERAL = Scenario(
    workloads=6,
    node_cpu=256.0,
    node_memory_mib=2**20,
    busy_s=400.0,
    rate=8.0,
    max_inputs=1,
    gateways=2,
    hop_s=0.01,
    split_every_s=8.0,
    redeploy_every_s=30.0,
    control_crash_every_s=40.0,
)


def test_several_gateways_and_versions_and_every_request_is_answered() -> None:
    """Through redeploys that roll, splits and crashes of control; at a replica of one slot there is never another."""
    for seed in range(3):
        cluster = Cluster(seed, SEVERAL)
        outcome = cluster.run()
        assert outcome.broken == ()
        assert outcome.answered == outcome.requests > 1000
        assert min(outcome.faults[kind] for kind in ("split", "roll", "control crash")) > 3
        assert cluster.shares.counted > 300
        assert cluster.refused > 50, "gateways did not get into each other's way"
        assert all(gateway.finished for gateway in cluster.gateways)


def _noticed(problem: str) -> bool:
    return any(problem in told for seed in range(3) for told in Cluster(seed, SEVERAL).run().broken)


def test_it_notices_a_replica_that_admits_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "free", property(lambda slots: 1 if slots.running else slots.limit))
    assert _noticed("inputs at once")


def test_it_notices_a_gateway_that_does_not_ask_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And believes for ever what it was told."""
    monkeypatch.setattr(pool_module, "likeliest", lambda full, asked: [])
    monkeypatch.setattr(replicas_module, "BUSY_REST_S", 60.0)
    assert _noticed("is free")


@pytest.mark.parametrize("defect", ["the main one takes all", "as many for each"])
def test_it_notices_shares_that_are_not_kept(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(choices: Sequence[Choice], key: bytes, header: Any) -> Choice:
        return choices[0] if defect == "the main one takes all" else choices[key[0] % len(choices)]

    monkeypatch.setattr(split_module, "choose", wrong)
    assert _noticed("requests")


def test_it_notices_requests_that_are_lost_when_a_version_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it replaces ends at once."""
    monkeypatch.setattr(Cluster, "works", lambda self, replica: False)
    assert _noticed("was not answered (refused), and nothing went wrong")


@pytest.mark.slow
def test_more_are_answered_than_with_one_replica_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all: where everything fails or fills up all the time, a few seeds do better with less."""

    def one(pool: PoolState, *given: Any) -> Scaled:
        if pool.workload is not None:
            scaling = msgspec.structs.replace(pool.workload.scaling, max_replicas=1, buffer_replicas=0)
            pool = msgspec.structs.replace(pool, workload=msgspec.structs.replace(pool.workload, scaling=scaling))
        return scale(pool, *given)

    answered = sum(_unqueued(seed).answered for seed in range(40))
    monkeypatch.setattr(plan_module, "scale", one)
    assert answered > sum(_unqueued(seed).answered for seed in range(40))


CRASHES = Scenario(rate=0.2, work_s=2.0, replica_crash_every_s=1.0)


def test_nobody_is_started_for_requests_that_ended_with_their_replica() -> None:
    for seed in range(3):
        outcome = Cluster(seed, CRASHES).run()
        assert outcome.faults["replica crash"] > 50
        assert outcome.broken == ()


def test_it_notices_replicas_started_for_requests_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plan_module, "scale", lambda pool, *given: scale(msgspec.structs.replace(pool, ended=()), *given)
    )
    broken = [problem for seed in range(3) for problem in Cluster(seed, CRASHES).run().broken]
    assert any("nobody wants" in problem for problem in broken)


@pytest.mark.slow
def test_when_the_pools_that_are_due_want_nothing_more_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those that wait for a replica that drains: another may have taken what they counted on beside it, and
    they are looked at again when it is gone."""
    more: list[str] = []

    def step(self: Reactor, now: float) -> Effects:
        effects = real(self, now)
        if not effects.plan.actions and not effects.plan.moves:
            all_of_them = (*self.waiting, *self.world.by_pool, *(w.pool for w in self.world.workloads.values()))
            whole = plan_module.plan(self.world, self.book.demand, now, all_of_them, self.policy)
            drains = any(replica.phase is Phase.DRAINING for replica in self.world.replicas.values())
            forgotten = [a for a in whole.actions if not (drains and isinstance(a, Stop) and a.reason in TAKEN)]
            more.extend(f"t={now}: {action}" for action in forgotten)
        return effects

    real = Reactor.step
    monkeypatch.setattr(Reactor, "step", step)
    for seed in (3, 13, 20, 35, 52, 80):
        run(seed)
    assert more == []


def test_a_recorded_history_replays_to_the_same_decisions() -> None:
    """Also over restarts of control, and also after its events went through their encoding."""
    for seed in (1, 7, 13, 1004):
        cluster = Cluster(seed, scenario(seed))
        cluster.run()
        recorded = [msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) for event in cluster.log]
        again = replay(recorded)
        assert again.plans > 0
        assert again.differences == ()


def test_a_replay_notices_a_decision_made_otherwise() -> None:
    cluster = Cluster(1, scenario(1))
    cluster.run()
    at, event = next((i, e) for i, e in enumerate(cluster.log) if isinstance(e, PlanCommitted) and e.plan.actions)
    other = msgspec.structs.replace(event, plan=msgspec.structs.replace(event.plan, actions=()))
    assert len(replay([*cluster.log[:at], other]).differences) == 1


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "kept").glob("*.json")), ids=lambda path: path.stem)
def test_runs_that_once_broke_a_promise_keep_all(path: Path) -> None:
    run = kept(path)
    assert not Cluster(run.seed, run.scenario).run().broken, run.why
