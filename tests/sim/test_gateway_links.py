"""Is every promise kept where gateways lose control, or die, where clocks are set, and where little time is left?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from swell.gateway.pool import Pool
from swell.gateway.request import Request as Asked
from swell.gateway.upstream import Upstream
from swell.sim.cluster import Cluster, Outcome
from swell.sim.served import Serving
from swell.sim.settings import QueueSettings, Scenario

pytestmark = pytest.mark.slow

PARTED = Scenario(
    workloads=3,
    rate=1.0,
    gateways=2,
    hop_s=0.01,
    gateway_partition_every_s=10.0,
    gateway_crash_every_s=15.0,
    control_crash_every_s=30.0,
    redeploy_every_s=20.0,
)
"""Gateways that go on with an old table, and of which control knows old levels, or none."""

SET = Scenario(
    workloads=3,
    rate=1.0,
    skew_s=30.0,
    clock_set_every_s=15.0,
    control_crash_every_s=30.0,
    replica_crash_every_s=10.0,
    redeploy_every_s=20.0,
    queue=QueueSettings(runner_kill_every_s=30.0),
)
"""Machines that do not agree on the time, and one that is set."""


def _run(drawn: Scenario) -> list[Outcome]:
    return [Cluster(seed, drawn).run() for seed in range(2)]


def test_gateways_that_lose_control_or_die_keep_every_promise() -> None:
    outcomes = _run(PARTED)
    assert [outcome.broken for outcome in outcomes] == [(), ()]
    for what in ("gateway partition", "gateway crash"):
        assert sum(outcome.faults[what] for outcome in outcomes) > 5
    # What a gateway had when it died is lost, and nothing else is.
    assert all(outcome.answered > 0.5 * outcome.requests > 50 for outcome in outcomes)


def test_where_clocks_differ_and_are_set_every_promise_is_kept() -> None:
    outcomes = _run(SET)
    assert [outcome.broken for outcome in outcomes] == [(), ()]
    assert sum(outcome.faults["clock set"] for outcome in outcomes) > 5


HASTY = Scenario(work_s=2.0, timeout_s=4.0, hold_s=3.0, deadline_s=6.0, rate=4.0, replica_crash_every_s=10.0)


@pytest.mark.parametrize(
    ("deaf_to", "named"),
    [
        ([(Asked, "expire")], "ended .* s late"),
        ([(Pool, "overdue")], "was begun .* s late"),
        ([(Asked, "expire"), (Upstream, "_relay")], "was never answered"),
    ],
    ids=["at work", "held", "lost"],
)
def test_it_notices_requests_that_outlive_their_deadline(
    deaf_to: Sequence[tuple[type, str]], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At replicas that know of none."""
    real = Serving._ended
    outcome = Cluster(1, HASTY).run()
    assert outcome.broken == ()
    assert min(outcome.deadline, outcome.held, outcome.answered) > 10
    monkeypatch.setattr(Serving, "_ended", lambda self, *given: real(self, *given) if given[1] == 200 else None)
    for of, clock in deaf_to:
        monkeypatch.setattr(of, clock, lambda self, *_: None)
    assert any(re.search(rf": request \d+ {named}", problem) for problem in Cluster(1, HASTY).run().broken)
