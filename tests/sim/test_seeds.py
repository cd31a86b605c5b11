"""Which seeds are meant, is it refused to try none, and does each stand for a run that proves something?"""

from __future__ import annotations

import click
import pytest

from swell.cli.sim import Seeds
from swell.sim.cluster import KINDS_MIN, Cluster
from swell.sim.faults import KINDS
from swell.sim.scenario import scenario
from swell.sim.settings import Scenario


def seeds(words: str) -> range:
    return Seeds().convert(words, None, None)


def test_one_or_the_first_and_the_last() -> None:
    assert seeds("7") == range(7, 8)
    assert seeds("5-5") == range(5, 6)
    assert seeds("100-199") == range(100, 200)


@pytest.mark.parametrize("words", ["5-1", "", "-", "-5", "x", "1-x", "1-2-3"])
def test_no_seeds_keep_no_promise(words: str) -> None:
    with pytest.raises(click.UsageError, match="the lesser first"):
        seeds(words)


def test_every_scenario_is_to_meet_enough() -> None:
    """Also those in which nothing goes wrong but what takes a moment."""
    for seed in range(300):
        drawn = scenario(seed)
        come = {what for what, period_s in drawn.periods.items() if period_s}
        assert len(come & KINDS) >= KINDS_MIN, seed
    assert {True, False} == {scenario(seed).calm for seed in range(100)}


@pytest.mark.slow
def test_a_run_that_proves_little_says_so() -> None:
    assert "events" in Cluster(1, Scenario(workloads=1, rate=0.1)).run().poor
    assert "kinds of faults" in Cluster(1, Scenario(rate=4.0)).run().poor
