"""Are metrics declared as scrapers expect, and is what is kept by workload bounded, with no counter that goes back?"""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from swell.model.ends import REASONS
from swell.model.metrics import (
    BY_NAME,
    METRICS,
    OTHER,
    OTHER_LABELS,
    PLAN_POOLS,
    Bounded,
    Histogram,
    code_label,
    error_label,
    phase_label,
    reason_label,
    workload_labels,
)
from swell.model.names import name_problem

WIRE = Path(__file__).resolve().parents[2] / "docs" / "wire.md"
UNITS = ("seconds", "bytes", "usd", "cores")
ABBREVIATED = {"s", "sec", "secs", "ms", "us", "ns", "b", "kb", "mb", "gb", "kib", "mib", "gib"}
MEASURED = {
    "Bytes ": "bytes",
    "Cores ": "cores",
    "CPU time ": "seconds",
    "How long ": "seconds",
    "Memory ": "bytes",
    "Part of swell_replica_seconds": "seconds",
    "The part in which ": "seconds",
    "Time ": "seconds",
    "What CPU and memory ": "usd",
    "When ": "seconds",
}
"""How the help of what is measured begins, and in what."""


def test_names_are_declared_once_and_say_their_kind() -> None:
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.bounds), metric.name
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.help.endswith("."), metric.name
        assert "\n" not in metric.help
        assert len(set(metric.labels)) == len(metric.labels)
        assert "le" not in metric.labels
        words = metric.name.removesuffix("_total").split("_")
        assert not ABBREVIATED & set(words), metric.name
        assert not {*UNITS, *(unit.rstrip("s") for unit in UNITS)} & set(words) or words[-1] in UNITS, metric.name
        assert not metric.bounds or words[-1] == "seconds" or metric.name == PLAN_POOLS, metric.name
        begins = next((begins for begins in MEASURED if metric.help.startswith(begins)), "")
        assert not begins or words[-1] == MEASURED[begins], metric.name
    assert {begins for begins in MEASURED for metric in METRICS if metric.help.startswith(begins)} == {*MEASURED}


@given(st.lists(st.floats(0, 1000)), st.lists(st.floats(0.001, 999), min_size=1, unique=True).map(sorted))
def test_an_observation_is_in_the_first_bucket_that_takes_it(observed: list[float], bounds: list[float]) -> None:
    histogram = Histogram(bounds)
    for value in observed:
        histogram.observe(value)
    sample = histogram.sample("any")
    assert sum(sample.counts) == len(observed)
    # One after the other; since Python 3.12 sum() is more exact.
    assert sample.value == reduce(add, observed, 0.0)
    for place, bound in enumerate(bounds):
        assert sum(sample.counts[: place + 1]) == sum(value <= bound for value in observed)


def test_labels_have_few_values() -> None:
    assert (code_label(200), code_label(499), code_label(299), code_label(7), code_label(12345)) == (
        *("200", "499", "2xx", "other", "other"),
    )
    assert (error_label(""), error_label("deadline"), error_label("made up")) == ("", "deadline", "other")
    assert (reason_label("idle"), reason_label("made up")) == ("idle", "other")
    assert (phase_label("enter"), phase_label("template_load"), phase_label("made up")) == (
        *("enter", "template_load", "other"),
    )
    assert len({code_label(status) for status in range(10_000)}) < 80
    assert "other" not in REASONS
    # An app whose name it could be would be added to all others.
    assert name_problem("app", OTHER) is not None


def test_every_code_that_a_call_can_end_with_is_told_as_itself() -> None:
    table = WIRE.read_text().partition("<!-- errors: calls -->")[2].partition("<!-- end of errors -->")[0]
    codes = {word for line in table.splitlines()[3:] for word in line.split("|")[2].replace("`", "").split(", ")}
    codes = {code.strip() for code in codes}
    assert "deadline" in codes
    assert {code for code in codes if error_label(code) != code} == set()


WORKLOADS = st.sampled_from([f"default/app/f{number}" for number in range(6)])
STEPS = st.lists(st.tuples(st.sampled_from(["count", "retire"]), WORKLOADS), max_size=60)


class Number:
    def __init__(self) -> None:
        self.value = 0


@given(st.integers(0, 5), STEPS)
def test_what_is_kept_is_bounded_and_nothing_is_counted_twice_or_not_at_all(
    most: int, steps: list[tuple[str, str]]
) -> None:
    kept = Bounded(most, Number)
    given_up = 0
    before: dict[tuple[str, ...], int] = {}
    for number, (step, workload) in enumerate(steps):
        if step == "count":
            kept.of(workload).value += 1
        else:
            kept.retire(workload)
        now = {labels: one.value for labels, one in kept.items()}
        assert len(now) <= most + 1
        assert set(now) <= {OTHER_LABELS, *(workload_labels(w) for _, w in steps[: number + 1])}
        for labels, value in before.items():
            if labels in now:
                assert now[labels] >= value, "a counter went back"
            else:
                given_up += value
        assert sum(now.values()) + given_up == sum(s == "count" for s, _ in steps[: number + 1])
        before = now


def test_who_is_deployed_keeps_its_place_and_who_is_gone_gives_it() -> None:
    kept = Bounded(2, Number)
    one, two = kept.of("n/a/one"), kept.of("n/a/two")
    assert kept.of("n/a/three") is kept.others
    assert kept.labels("n/a/three") == OTHER_LABELS
    kept.retire("n/a/one")
    kept.retire("n/a/two")
    # Back before anybody needed its place: it goes on.
    assert kept.of("n/a/one") is one
    three = kept.of("n/a/three")
    assert three is not kept.others
    assert kept.labels("n/a/three") == ("n", "a", "three")
    assert [own for _, own in kept.items()][:2] == [one, three]
    assert kept.of("n/a/two") is kept.others
    assert two.value == 0
