"""Is a replica's answer passed on the same whether one like it was seen before, and however its bytes were cut?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from ends import Ends
from hypothesis import given
from hypothesis import strategies as st

words = st.from_regex(rb"[a-z]{1,8}", fullmatch=True)
values = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An answer as our runtime writes it, without what was used: (up to there, the rest)."""
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 404, 500, 503]))
    head = b"HTTP/1.1 %d Word\r\nContent-Type: %b/%b\r\n" % (status, draw(words), draw(words))
    for name in draw(st.lists(words.map(lambda word: b"x-" + word), max_size=2, unique=True)):
        head += b"%b: %b\r\n" % (name, draw(values))
    body = b"" if status == 204 else draw(st.binary(max_size=30))
    form = draw(st.sampled_from(["plain", "plain", "plain", "close", "busy", "error", "odd"]))
    if status != 204:
        head += b"Content-Length: %d\r\n" % len(body)
    if form == "close":
        head += b"Connection: close\r\n"
    after = {"busy": b"Swell-Busy: 1\r\n", "error": b"Swell-Error: 500 exception\r\n", "odd": b"x-odd: 1\r\n"}
    return head, after.get(form, b"") + b"\r\n" + body


@given(st.lists(st.tuples(answers(), st.integers(0, 3)), min_size=1, max_size=5), st.data())
def test_answers_are_passed_on_alike_seen_before_or_not(
    loop: asyncio.AbstractEventLoop, sent: list[tuple[tuple[bytes, bytes], int]], data: st.DataObject
) -> None:
    kept = Ends(loop)
    for (head, rest), repeats in sent:
        for _ in range(1 + repeats):
            used = data.draw(st.sampled_from([b"%d", b"%d", b"-%d"])) % data.draw(st.integers(0, 10**9))
            raw = b"%bSwell-Cpu-Us: %b\r\nSwell-Run-Us: 7\r\n%b" % (head, used, rest)
            method = data.draw(st.sampled_from([b"POST", b"POST", b"HEAD"]))
            raw = raw[: raw.index(b"\r\n\r\n") + 4] if method == b"HEAD" else raw
            places = data.draw(st.lists(st.integers(0, len(raw)), max_size=2))
            edges = sorted({0, len(raw), *places})
            fresh = Ends(loop)
            expected = fresh.ask(method, [raw[at : at + 9] for at in range(0, len(raw), 9)])
            assert _joined(kept.ask(method, [raw[a:b] for a, b in pairwise(edges)])) == _joined(expected)
            if "kept" not in kept.ends and "busy, kept" not in kept.ends:
                kept = Ends(loop)


def _joined(said: tuple[bytes, list[str]]) -> tuple[bytes, list[str]]:
    """Without what depends on the cuts: a refusal is acted on before all of it is there, at the connection's cost."""
    return said[0], [end.partition(",")[0] for end in said[1] if end != "aborted"]


def test_what_was_used_is_never_remembered(loop: asyncio.AbstractEventLoop) -> None:
    ends = Ends(loop)
    costs = []
    for cpu_us in (5, 5000, 5_000_000):
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSwell-Cpu-Us: %d\r\nSwell-Run-Us: 9\r\n\r\nok" % cpu_us
        told, ended = ends.ask(b"POST", [raw])
        assert ended == ["kept", "answered"]
        costs.append(float(re.search(rb"Swell-Cost-Usd: ([\d.]+)", told)[1]))  # type: ignore[index]
    assert costs[0] < costs[1] < costs[2]
    assert len(ends.shared.answers) == 1


BATCHED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSwell-Cpu-Us: 5\r\nSwell-Run-Us: 500\r\nSwell-Batch: %b\r\n\r\nok"
LEAD = b"0b30b5fa04e1-2b"


def test_what_was_batched_is_told_in_its_times_and_its_record_and_nowhere_else(loop: asyncio.AbstractEventLoop) -> None:
    ends = Ends(loop)
    # Parsed, known again, in pieces: as the head comes.
    whole = BATCHED % (b"8 3140 4000 " + LEAD)
    for pieces in ([whole], [whole], [whole[:70], whole[70:]]):
        _, ended = ends.ask(b"POST", pieces)
        told = ends.told
        assert ended == ["kept", "answered"]
        assert re.search(rb"Server-Timing: held;.*connect;.*, batch;dur=3\.14, run;dur=4\.00, send;", told)
        assert b"Swell-Batch" not in told
    assert len(ends.shared.answers) == 1
    ends.ask(b"POST", [BATCHED.replace(b"Swell-Batch: %b\r\n", b"")])
    assert b"batch" not in ends.told


@pytest.mark.parametrize("odd", [b"8 3140 4000", b"8 3140 -1 " + LEAD, b"a b c d", b"8 3140 4000 you", b"1 " * 60])
def test_what_is_no_batch_is_passed_over(loop: asyncio.AbstractEventLoop, odd: bytes) -> None:
    ends = Ends(loop)
    _, ended = ends.ask(b"POST", [BATCHED % odd])
    assert ended == ["kept", "answered"]
    assert b"batch" not in ends.told.lower()
    assert b"run;dur=0.50" in ends.told
