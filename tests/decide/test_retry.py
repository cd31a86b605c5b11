"""When a failed start is tried again, and when its callers are refused instead of held."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.retry import closed, restart_at
from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, PlanCommitted, ReplicaSeen
from swell.model.failures import Failures
from swell.model.node import Node
from swell.model.plan import Plan, Start
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World

REVISION = Revision(Environment("python", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),)))
POLICY = Policy()


@given(st.integers(1, 2000), st.floats(0.01, 10.0), st.floats(0.01, 100.0))
def test_the_next_try_comes_later_each_time_but_never_later_than_the_longest_delay(
    count: int, first_s: float, most_s: float
) -> None:
    policy = Policy(restart_backoff_s=first_s, restart_backoff_max_s=most_s)
    delays = [restart_at(Failures(n, 0.0, "crashed", ""), policy) for n in (count, count + 1)]
    assert delays[0] <= delays[1] <= most_s
    assert delays[0] == most_s or delays[0] == pytest.approx(first_s * 2 ** (count - 1))


@pytest.mark.parametrize(
    ("count", "took_s", "reason", "startup_timeout_s", "refused"),
    [
        (1, 0.1, "enter_error", 300.0, False),
        (2, 0.2, "enter_error", 300.0, False),
        (3, 0.3, "enter_error", 300.0, True),
        (1, 60.0, "enter_error", 300.0, True),
        (2, 5.0, "crashed", 300.0, True),
        (1, 2.0, "startup_timeout", 2.0, True),
        (1, 1.0, "crashed", 2.0, False),
        (1, 0.1, "bad_entry", 300.0, True),
        (1, 0.1, "bad_bundle", 300.0, True),
    ],
)
def test_callers_are_held_only_while_another_try_is_worth_waiting_for(
    count: int, took_s: float, reason: str, startup_timeout_s: float, refused: bool
) -> None:
    revision = msgspec.structs.replace(REVISION, startup_timeout_s=startup_timeout_s)
    failures = Failures(count, 1000.0, reason, "", took_s)
    assert closed(failures, revision, POLICY, trying=False) is refused
    assert not closed(failures, revision, POLICY, trying=True), "another start is under way"
    assert not closed(Failures(2, 0.0, "crashed", "", 9.0), REVISION, Policy(failing_wait_s=10.0), False)
    assert not closed(Failures(3, 0.0, "crashed", "", 0.0), REVISION, Policy(failing_max=4), False)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=6))
def test_what_failed_starts_took_is_counted_once_where_they_were_under_way_together(
    lives: list[tuple[float, float]],
) -> None:
    """As long as at least one was under way, in all rounds; the reports come in the order of the ends."""
    world = World(epoch=1)
    workload = Workload("default", "a", "f", REVISION.id)
    world.apply(NodeSeen(0.0, Node("n1", 64.0, 64 * 1024)))
    world.apply(AppDeployed(0.0, App("default", "a", (workload,), (REVISION,))))
    lives = [(begun, begun + took) for begun, took in lives]
    for n, (begun, _) in enumerate(lives):
        world.apply(
            PlanCommitted(begun, Plan(begun, (), actions=(Start(f"r1-{n}", workload.pool, "n1", "serving", ""),)))
        )
    covered, until = 0.0, -1.0
    for n, (begun, ended) in sorted(enumerate(lives), key=lambda life: life[1][1]):
        world.apply(ReplicaSeen(ended, f"r1-{n}", Phase.GONE, workload.pool, "serving", "n1", reason="crashed"))
        covered += ended - max(begun, until) if ended > until else 0.0
        until = max(until, ended)
    assert world.failures[workload.pool].took_s == pytest.approx(covered)
