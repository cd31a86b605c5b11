"""Does the text say what the samples say, in the order and with the escapes that the format asks for?"""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from series import PART, Series, read
from swell.model.metrics import BY_NAME, HELD, METRICS, REQUEST_SECONDS, REQUESTS, UP, Sample, histogram
from swell.wire import exposition as wire_exposition
from swell.wire.exposition import PIECE_SAMPLES, REPORT_BYTES_MAX, Report, exposition, parts, report
from swell.wire.frames import FRAME_MAX
from swell.wire.link import UNSENT_MAX
from swell.wire.process import process_samples


def text_of(*samples: Sample) -> Series:
    told = read(exposition((Report("gateway", "0", tuple(parts(samples))),)).decode())
    return {key: value for key, value in told.items() if key[0] != UP}


words = st.text(min_size=1, max_size=20)
numbers = st.one_of(st.integers(0, 2**60).map(float), st.floats(0, allow_infinity=False, allow_nan=False))


@given(st.dictionaries(st.tuples(words, words, words), numbers, max_size=5))
def test_values_and_labels_come_back_as_they_were(values: dict[tuple[str, str, str], float]) -> None:
    told = text_of(*(Sample(HELD, (*labels, "0"), value) for labels, value in values.items()))
    expected = {
        (HELD, frozenset(zip(("namespace", "app", "function", "gateway"), (*labels, "0"), strict=True))): value
        for labels, value in values.items()
    }
    assert told == expected


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_buckets_hold_all_that_is_not_above_them(observed: list[float]) -> None:
    seconds = histogram(REQUEST_SECONDS)
    for value in observed:
        seconds.observe(value)
    told = text_of(seconds.sample(REQUEST_SECONDS, ("n", "a", "f", "0")))
    own = {("namespace", "n"), ("app", "a"), ("function", "f"), ("gateway", "0")}
    for bound in (*BY_NAME[REQUEST_SECONDS].bounds, float("inf")):
        le = "+Inf" if bound == float("inf") else f"{bound:g}"
        assert told[f"{REQUEST_SECONDS}_bucket", frozenset({*own, ("le", le)})] == sum(v <= bound for v in observed)
    assert told[f"{REQUEST_SECONDS}_count", frozenset(own)] == len(observed)
    assert told[f"{REQUEST_SECONDS}_sum", frozenset(own)] == reduce(add, observed, 0.0)


def test_an_empty_label_is_none() -> None:
    told = text_of(Sample(REQUESTS, ("n", "a", "f", "200", "", "0"), 3))
    ((_, labels),) = told
    assert "error" not in dict(labels)


def test_one_metric_of_two_processes_stands_together_and_what_is_not_known_is_left_out() -> None:
    own = *parts(tuple(process_samples("control"))), ("swell_of_tomorrow_total", b"swell_of_tomorrow_total 1\n")
    reports = (
        Report("control", "", own),
        Report("runner", "local", tuple(parts(tuple(process_samples("runner", "local"))))),
        Report("runner", "other", answered=False),
    )
    told = read(exposition(reports).decode())
    up = {tuple(sorted(dict(labels).values())): value for (name, labels), value in told.items() if name == UP}
    assert up == {("control",): 1, ("local", "runner"): 1, ("other", "runner"): 0}
    assert {name for name, _ in told} <= set(BY_NAME)
    started = {dict(labels)["process"] for name, labels in told if name == "process_start_time_seconds"}
    assert started == {"control", "runner"}


def test_a_long_report_is_written_in_pieces_with_other_work_in_between() -> None:
    samples = [Sample(HELD, ("n", "a", f"f{n}", "0"), n) for n in range(10 * PIECE_SAMPLES)]

    async def scenario() -> tuple[Report, int]:
        turns = 0

        async def work() -> None:
            nonlocal turns
            while True:
                turns += 1
                # What is told is what it was when it was asked for.
                samples.clear()
                await asyncio.sleep(0)

        working = asyncio.ensure_future(work())
        told = await report("gateway", "0", (sample for sample in samples))
        working.cancel()
        return told, turns

    told, turns = asyncio.run(scenario())
    assert turns >= 10
    assert max(lines.count(b"\n") for _, lines in told.parts) <= PIECE_SAMPLES
    assert len(read(exposition((told,)).decode())) == 10 * PIECE_SAMPLES + 1


def test_a_report_that_no_link_would_take_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_exposition, "REPORT_BYTES_MAX", 1000)
    samples = [Sample(HELD, ("n", "a", f"f{n}", "0"), n) for n in range(100)]
    assert asyncio.run(report("gateway", "0", samples)) == Report("gateway", "0", answered=False)
    assert asyncio.run(report("gateway", "0", samples[:5])).answered
    assert min(FRAME_MAX, UNSENT_MAX) > 3 * REPORT_BYTES_MAX


def test_all_that_is_declared_can_be_told() -> None:
    samples = [
        Sample(
            m.name, tuple(f"{label}-value" for label in m.labels), 1.0, (0,) * (len(m.bounds) + 1) if m.bounds else ()
        )
        for m in METRICS
        if m.name != UP
    ]
    told = text_of(*samples)
    assert {PART.sub("", name) if name not in BY_NAME else name for name, _ in told} == {
        sample.name for sample in samples
    }
