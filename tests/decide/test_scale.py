"""How many replicas a demand wants, and what each was started for, in words that read true when it has become idle."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.worlds import POLICY
from swell.control.table import failing
from swell.decide.scale import PoolState, Scaled, scale
from swell.model.demand import REPORT_LAG_S, Demand
from swell.model.environment import Environment
from swell.model.failures import Failures
from swell.model.replica import Phase, Replica
from swell.model.workload import Entry, Method, Revision, Scaling, Workload

FAILED = Failures(2, 1000.0, "enter_error", "warm raised: ValueError: no weights")


@pytest.mark.parametrize(
    ("scaling", "demand", "inputs", "words"),
    [
        (Scaling(), Demand(held=1), 1, ("started for 1 waiting request",)),
        (Scaling(), Demand(held=2), 1, ("started for 2 waiting requests",) * 2),
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


def test_what_a_replica_beside_others_was_started_for() -> None:
    ready = _ready(1)
    told = ("started for 5 requests, 1 of them waiting, at 2 each",) * 2
    assert _scaled(Scaling(), Demand(held=1, in_flight=4), 4, None, ready, target=2).starts == told
    told = ("started for 4 requests, at 2 each",)
    assert _scaled(Scaling(), Demand(in_flight=4), 4, None, ready, target=2).starts == told


@pytest.mark.parametrize("buffer", [0, 1])
def test_what_was_in_flight_on_a_replica_that_is_gone_wants_no_other(buffer: int) -> None:
    """Also where its gateway says it after the end: it tells the most that was in flight at one time."""
    scaled = _scaled(Scaling(buffer_replicas=buffer), Demand(in_flight=1, heard_at=1000.4), 1, None)
    assert (scaled.starts, scaled.wait) == ((), "")


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3), st.integers(0, 3), st.integers(1, 4))
def test_who_waits_is_started_for_however_many_work(
    held: int, working: int, inputs: int, have: int, ended: int
) -> None:
    """Nothing that certainly waits is left without: not at once beyond what may have ended, and all of it in time."""
    demand = Demand(held=held, in_flight=min(working, have * inputs), heard_at=1000.0)
    at_once = _scaled(Scaling(), demand, inputs, None, _ready(have), ended=(1000.4,) * ended)
    in_time = _scaled(Scaling(), demand, inputs, None, _ready(have), ended=(1000.4,) * ended, now=1000.4 + REPORT_LAG_S)
    told_since = _scaled(Scaling(), msgspec.structs.replace(demand, heard_at=1000.4), inputs, None, _ready(have))
    need = -(-demand.level // inputs)
    assert len(in_time.starts) == len(told_since.starts) == max(need - have, 0)
    assert len(at_once.starts) >= max(need - ended - have, 0)
    if len(at_once.starts) < len(in_time.starts):
        assert at_once.look_again_at == 1000.4 + REPORT_LAG_S
        assert at_once.wait


def test_who_waited_when_the_replica_it_was_started_for_crashed_is_not_started_for_again() -> None:
    """It was given to that replica, and the gateway has not said so yet."""
    told = Demand(held=1, heard_at=1000.0)
    scaled = _scaled(Scaling(), told, 1, None, ended=(1000.4,))
    assert (scaled.starts, scaled.look_again_at) == ((), 1000.4 + REPORT_LAG_S)
    assert scaled.wait == "a replica just ended; decided again within 0.5 s, when the gateway has reported"
    assert _scaled(Scaling(), told, 1, None, ended=(1000.4,), now=scaled.look_again_at).starts, "said since, or true"
    assert len(_scaled(Scaling(), Demand(held=3, heard_at=1000.0), 1, None, ended=(1000.4,)).starts) == 2


def test_a_start_that_failed_is_told_in_words_and_not_by_its_code() -> None:
    scaled = _scaled(Scaling(), Demand(held=1), 1, FAILED)
    assert scaled.wait == "its start failed 2 times in a row: its start-up code failed; tried again in 1.5 s"
    told = "its start failed 2 times in a row: its start-up code failed. warm raised: ValueError: no weights"
    assert failing(FAILED) == told


def _ready(count: int) -> list[Replica]:
    return [Replica(f"r1-{n}", "p", "n1", "serving", Phase.READY, 0.0, ready_at=0.0) for n in range(count)]


def _scaled(
    scaling: Scaling,
    demand: Demand,
    inputs: int,
    failures: Failures | None,
    serving: Sequence[Replica] = (),
    *,
    target: int = 0,
    ended: Sequence[float] = (),
    now: float = 1000.5,
) -> Scaled:
    entry = Entry("main", "f", "function", (Method("f"),))
    environment = Environment("python", "3.11")
    revision = Revision(environment, "sha256-0", entry, max_inputs=inputs, target_inputs=target or inputs)
    workload = Workload("default", "a", "f", revision.id, scaling)
    return scale(PoolState(workload, revision, demand, serving, failures, ended), POLICY, now)
