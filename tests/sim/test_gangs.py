"""Do jobs keep their promises where nodes go while their members work, and is it noticed where they do not?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swell.control import gangs as gangs_module
from swell.decide.calls import PREEMPTED
from swell.runtime.runner.queued import calls as runner_calls_module
from swell.sim.cluster import Cluster
from swell.sim.replica import Fates
from swell.sim.settings import QueueSettings, Scenario

pytestmark = pytest.mark.slow

SPREAD = Scenario(
    workloads=2,
    nodes=4,
    node_cpu=0.5,
    gang_every=1,
    node_loss_every_s=15.0,
    node_leave_every_s=20.0,
    control_crash_every_s=30.0,
    queue=QueueSettings(fates=Fates(work_s=1.0, gang_times=5.0, heeds=1.0, lingers_s=3.0)),
)
"""Gangs whose members are on a node each, and raise when another one is gone, or as they are told to end."""


def _of_gangs() -> Iterator[str]:
    return (problem for seed in (1, 2, 3) for problem in Cluster(seed, SPREAD).run().broken)


def test_gangs_that_lose_nodes_keep_every_promise() -> None:
    assert list(_of_gangs()) == []


def test_it_notices_that_what_members_raise_is_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else was lost, which they raise for."""
    monkeypatch.setattr(gangs_module, "DOUBTED", frozenset({PREEMPTED}))
    assert any("as it was told to end, or lost a member" in problem for problem in _of_gangs())


def test_it_notices_that_who_gives_way_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """And control has forgotten, having begun anew, or never heard, why it was told to end."""
    monkeypatch.setattr(runner_calls_module, "of_stopped", lambda end, _reason: end)
    monkeypatch.setattr(gangs_module.GangCalls, "look", lambda self, pools: None)
    assert any("as it was told to end, or lost a member" in problem for problem in _of_gangs())
