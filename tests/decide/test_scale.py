"""What a replica was started for, in words that still read true when it has become idle."""

from __future__ import annotations

import pytest

from decide.worlds import POLICY
from swell.control.table import failing
from swell.decide.scale import scale
from swell.model.demand import Demand
from swell.model.workload import Entry, Environment, Method, Revision, Scaling, Workload
from swell.model.world import Failures

FAILED = Failures(2, 1000.0, "enter_error", "warm raised: ValueError: no weights")


@pytest.mark.parametrize(
    ("scaling", "demand", "inputs", "words"),
    [
        (Scaling(), Demand(held=1), 1, ("started for 1 waiting request",)),
        (Scaling(), Demand(held=2), 1, ("started for 2 waiting requests",) * 2),
        (Scaling(), Demand(held=2, in_flight=1), 2, ("started for 3 requests, 2 of them waiting, at 2 each",) * 2),
        (Scaling(), Demand(in_flight=1), 1, ("started for 1 request",)),
        (Scaling(min_replicas=1), Demand(), 1, ("kept by min_containers=1",)),
        (Scaling(min_replicas=2), Demand(held=1), 1, ("started for 1 waiting request", "kept by min_containers=2")),
        (
            Scaling(buffer_replicas=1),
            Demand(held=1),
            1,
            ("started for 1 waiting request", "kept in reserve (buffer_containers=1)"),
        ),
    ],
)
def test_each_replica_says_what_it_was_started_for(
    scaling: Scaling, demand: Demand, inputs: int, words: tuple[str, ...]
) -> None:
    assert _scaled(scaling, demand, inputs, None).starts == words


def test_a_start_that_failed_is_told_in_words_and_not_by_its_code() -> None:
    scaled = _scaled(Scaling(), Demand(held=1), 1, FAILED)
    assert scaled.wait == "its start failed 2 times in a row: an @enter hook raised; tried again in 1.5 s"
    told = "its start failed 2 times in a row: an @enter hook raised. warm raised: ValueError: no weights"
    assert failing(FAILED) == told


def _scaled(scaling: Scaling, demand: Demand, inputs: int, failures: Failures | None):  # type: ignore[no-untyped-def]
    entry = Entry("main", "f", "function", (Method("f"),))
    revision = Revision(Environment("python", "3.11"), "sha256-0", entry, max_inputs=inputs, target_inputs=inputs)
    workload = Workload("default", "a", "f", revision.id, scaling)
    return scale(workload, revision, demand, [], failures, POLICY, 1000.5)
