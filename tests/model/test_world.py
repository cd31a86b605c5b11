"""What does the world make of events? What needs plans, too, is in tests/decide."""

from __future__ import annotations

from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, PlanCommitted, ReplicaSeen
from swell.model.node import Node
from swell.model.plan import Plan, Start
from swell.model.replica import Phase, Role
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.model.world import World

REVISION = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("main", "f", "function", (Method("f"),)))
WORKLOAD = Workload("default", "a", "f", REVISION.id)


class Scene:
    """One pool on one node."""

    def __init__(self) -> None:
        self.world = World(epoch=1)
        self.world.apply(NodeSeen(1.0, Node("n", 4.0, 4096)))
        self.world.apply(AppDeployed(1.0, App("default", "a", (WORKLOAD,), (REVISION,))))

    def planned(self, at: float, *roles: Role) -> list[str]:
        """Starts of one plan."""
        ids = [f"r1-{self.world.started + n:x}" for n in range(len(roles))]
        starts = [Start(id, WORKLOAD.pool, "n", role, "wanted") for id, role in zip(ids, roles, strict=True)]
        self.world.apply(PlanCommitted(at, Plan(at=at, pools=(WORKLOAD.pool,), actions=tuple(starts))))
        return ids

    def seen(self, at: float, replica: str, phase: Phase, reason: str = "") -> None:
        role = self.world.replicas[replica].role
        self.world.apply(ReplicaSeen(at, replica, phase, WORKLOAD.pool, role, "n", reason=reason))

    def failed(self) -> tuple[int, float, str]:
        failures = self.world.failures[WORKLOAD.pool]
        return failures.count, failures.at, failures.reason


def test_starts_that_were_under_way_together_fail_as_one() -> None:
    it = Scene()
    template, waiting, other = it.planned(10.0, "template", "serving", "serving")
    it.seen(13.0, template, Phase.GONE, "enter_error")
    it.seen(13.1, waiting, Phase.GONE, "enter_error")
    it.seen(16.0, other, Phase.GONE, "startup_timeout")
    # It is tried again some time after the last of them.
    assert it.failed() == (1, 16.0, "startup_timeout")
    (again,) = it.planned(17.0, "serving")
    it.seen(20.0, again, Phase.GONE, "crashed")
    assert it.failed() == (2, 20.0, "crashed")


def test_one_that_was_ready_ends_the_row() -> None:
    it = Scene()
    (first,) = it.planned(10.0, "serving")
    it.seen(11.0, first, Phase.GONE, "crashed")
    second, late = it.planned(12.0, "serving", "serving")
    it.seen(13.0, second, Phase.READY)
    assert it.world.failures == {}
    it.seen(14.0, late, Phase.GONE, "crashed")
    assert it.failed() == (1, 14.0, "crashed")
