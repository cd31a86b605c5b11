"""What a person is told about a request: the steps, the reasons, and a share of the cost that is theirs."""

from __future__ import annotations

from swell.control.history import Story
from swell.control.why import NOTES, explain
from swell.decide.price import PoolCost
from swell.model.request import RequestRecord
from swell.model.world import Failures

POOL = "default/a/f@rv-1"
COST = PoolCost(requests=4, idle_usd=8.0, starting_usd=2.0)
PHASES = (("held", 50.0), ("connect", 1.0), ("run", 5.0), ("send", 0.5))
TIMINGS = (("order", 1.0), ("template_exec", 20.0), ("template_load", 10.0), ("hand_over", 1.0), ("fork", 4.0))


def test_the_steps_of_a_cold_request_add_up_to_what_it_was_held() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 56.5, PHASES, "r1-2", cold=True)
    story = Story("r1-2", POOL, "serving", "1 input", 100.001, "r1-1", 100.049, (*TIMINGS, ("listen", 3.0)))
    answer = explain(record, story, COST)
    inner = [step for step in answer.steps if step.what.startswith("  ")]
    assert abs(sum(step.ms for step in inner) - 50.0) < 0.01
    assert all(step.note == NOTES[step.what.strip()] for step in answer.steps)
    assert "forked from template r1-1" in answer.reasons[0]
    assert (answer.idle_share_usd, answer.cold_share_usd) == (2.0, 0.5)


def test_who_never_had_a_replica_pays_for_none_and_is_told_why_there_was_none() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 503, 4000.0, (("held", 4000.0),), error="no_replica", cold=True)
    failures = Failures(3, 103.0, "enter_error", "Traceback …\nValueError: no weights")
    answer = explain(record, None, COST, "", failures)
    assert (answer.idle_share_usd, answer.cold_share_usd) == (0.0, 0.0)
    assert answer.reasons == ("no replica: its start failed 3 times in a row (enter_error)", "ValueError: no weights")


def test_how_its_replica_ended_is_told_with_its_last_words() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 502, 40.0, PHASES, "r1-2", error="replica_died")
    story = Story("r1-2", POOL, "serving", "1 input", 90.0, ended_at=101.0, reason="out_of_memory", detail="limit")
    assert explain(record, story, COST).reasons[-2:] == ("it is gone since: out_of_memory", "limit")
