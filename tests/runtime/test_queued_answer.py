"""Is what a replica answers to a queued call read alike however its bytes come, and told as what it is?"""

from __future__ import annotations

import gc
import hashlib
import tempfile
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.model.call import Body, Head
from swell.runtime.runner.queued import answer
from swell.runtime.runner.queued.answer import Answer, Answers, Broken, Free, of_stopped
from swell.runtime.runner.queued.lane import request_of, sendable
from swell.wire.calls import NOTHING, CallEnd, Granted
from swell.wire.http import JSON_OR_PICKLE, error_body

CALL = Granted("fc-1", 7, "f", Body("application/json", b"[1]"), "", 2.5)


NOWHERE = Path("/proc/no such folder")
"""Where nothing that is small needs to be."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def answered(call: Granted, replica: str, found: Answer, path: Path = NOWHERE) -> CallEnd:
    end = answer.answered(call, replica, found, path)
    assert end is not None
    return end


def head(status: int, body: bytes, *lines: str) -> bytes:
    named = "".join(f"{line}\r\n" for line in lines)
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{named}\r\n".encode()
        + body
    )


def chunked(pieces: list[bytes], *trailers: str) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    told = "".join(f"{line}\r\n" for line in trailers).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (
        body,
        told,
    )


def read(*parts: bytes, folder: Path = NOWHERE) -> Answer:
    answers = Answers(folder)
    for part in parts:
        found = answers.feed(part)
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(at) if a < b]


@given(
    st.sampled_from(["", "exception", "deadline", "replica_died", "bad_arguments", "drained", "cancelled"]),
    st.sampled_from(["", "idle", "preempted", "shutdown", "terminated"]),
)
def test_what_fails_as_its_replica_is_told_to_end_is_not_all_its_own_fault(code: str, reason: str) -> None:
    end = CallEnd("fc-1", 7, "r1-1", code, "words" if code else "", Body("x", b"told"))
    became = of_stopped(end, reason)
    failed = code in ("exception", "deadline", "replica_died")
    expected = {"preempted": "preempted", "shutdown": "preempted", "terminated": "replica_died"}.get(reason, code)
    assert became.code == (expected if failed else code)
    # Nobody is told what its code said of that.
    assert (became == end) is (not failed or reason in ("", "idle"))
    assert became == end or became.body == NOTHING


NAMES = st.from_regex(r"x-[a-z0-9]{1,8}", fullmatch=True)
VALUES = st.text("abc é=;,", max_size=9).map(str.strip)


@given(
    st.binary(max_size=50),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(["", "504 deadline", "500 exception"]),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_cut_anywhere_it_says_the_same(
    body: bytes, cpu: int, run: int, error: str, stream: bool, at: list[int]
) -> None:
    used = (f"Swell-Cpu-Us: {cpu}", f"Swell-Run-Us: {run}", *([f"Swell-Error: {error}"] if error else []))
    data = chunked([body[:9], body[9:]], *used) if stream else head(int(error[:3] or 200), body, *used)
    found = read(*cut(data, at))
    assert found.ended
    assert found.keeps
    end = answered(CALL, "r1-1", found)
    kind = "text/event-stream" if stream else "application/json"
    assert (end.id, end.token, end.replica) == ("fc-1", 7, "r1-1")
    assert (end.code, end.body, end.cpu_us, end.run_us) == (error[4:], Body(kind, body), cpu, run)
    assert bool(end.message) == bool(error)


@given(
    st.sampled_from([200, 201, 404, 503]),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_what_code_said_beside_the_result_is_kept_and_nothing_of_ours(
    status: int, said: dict[str, str], failed: bool, at: list[int]
) -> None:
    ours = ("Connection: keep-alive", "Date: today", "Swell-Cpu-Us: 5", *(["Swell-Error: 500 exception"] * failed))
    lines = (*ours, *(f"{name}: {value}" for name, value in said.items()))
    data = head(status, b"1").replace(b"\r\n\r\n", b"\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    kept = answered(CALL, "r1-1", read(*cut(data, at))).body.head
    expected = Head(status if status != 200 else 0, tuple(said.items()))
    assert kept == (expected if expected != Head() and not failed else None)


def test_one_connection_has_many_answers() -> None:
    answers = Answers(NOWHERE)
    for number in range(3):
        found = answers.feed(head(200, b"%d" % number))
        assert (found.ended, found.body) == (True, b"%d" % number)
        answers.next()
        assert not answers.begun


def test_an_error_is_told_in_the_words_that_its_caller_gets() -> None:
    body = error_body("exception", "ValueError: no", "fc-1")
    end = answered(CALL, "r1-1", read(head(500, body, "Swell-Error: 500 exception")))
    assert (end.code, end.message, end.body.data) == ("exception", "ValueError: no", body)


def test_a_status_that_user_code_chose_is_no_error_and_nor_is_a_header_that_is_not_as_ours() -> None:
    assert answered(CALL, "r1-1", read(head(404, b'"not here"'))).code == ""
    assert answered(CALL, "r1-1", read(head(200, b"1", "Swell-Error: oh no"))).code == ""


def test_what_was_refused_before_it_was_read_is_told_from_what_user_code_answers() -> None:
    assert read(head(503, b"{}", "Swell-Busy: 1", "Swell-Error: 503 busy")).refused
    assert not read(head(503, b"{}", "Swell-Error: 503 busy")).refused
    assert read(head(200, b"{}", "Swell-Free: 2 1")).free == Free(2, 1)


@pytest.mark.parametrize("announced", [True, False])
def test_a_result_that_is_too_large_is_not_kept_and_says_so(announced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "RESULT_MAX", 1 << 20)
    big = bytes((1 << 20) + 1)
    found = read(head(200, big, "Swell-Cpu-Us: 5")[:200]) if announced else read(chunked([big, big]))
    assert found.too_large
    assert len(found.body) <= 1 << 20
    assert found.large is None
    end = answered(CALL, "r1-1", found)
    assert end.code == "bad_result"
    assert "more than 1 MiB" in end.message
    assert end.cpu_us == (5 if announced else 0)
    assert len(end.body.data) < 1000


def test_an_answer_in_chunks_of_a_byte_takes_no_more_memory_than_it_has() -> None:
    data = chunked([b"1"] * 100_000)
    gc.collect()
    tracemalloc.start()
    try:
        found = read(data)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found.body == b"1" * 100_000
    assert used < 500_000


@pytest.mark.parametrize(
    "data",
    [
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        read(*cut(data, list(range(0, len(data), 1000))))


def test_what_comes_behind_an_answer_costs_the_connection_and_not_the_answer() -> None:
    found = read(head(200, b"1") + b"HTTP/1.1 200 OK\r\n\r\n")
    assert (found.ended, found.keeps, found.body) == (True, False, b"1")


def test_what_is_sent_is_what_a_gateway_sends() -> None:
    lines = request_of(CALL).split(b"\r\n")
    assert lines[:3] == [b"POST /call/f HTTP/1.1", b"Swell-Request-Id: fc-1", b"Swell-Remaining-Ms: 2500"]
    assert b"Swell-Limit: 2.5 s (timeout= of the function)" in lines
    assert b"Swell-Limit: 2.5 s (timeout of this call)" in request_of(replace(CALL, limited_by="")).split(b"\r\n")
    assert lines[-2:] == [b"", b"[1]"]
    assert not any(line.startswith(b"Swell-Trusted") for line in lines)
    pickled = Granted("fc-1", 7, "f", Body("application/x-swell-pickle", b"x"), "", 1.0)
    assert b"\r\nSwell-Trusted: 1\r\n" in request_of(pickled)
    wanted = Granted("fc-1", 7, "f", Body("application/json", b""), "application/x-swell-pickle", 1.0)
    assert b"\r\nSwell-Trusted: 1\r\n" in request_of(wanted)
    rather = Granted("fc-1", 7, "f", Body("application/json", b""), JSON_OR_PICKLE, 1.0)
    assert b"\r\nSwell-Trusted: 1\r\n" in request_of(rather)
    # Only what the door knows as a pickle, and so refuses to who may not send one.
    for kind, accept in (("application/json; x-swell-pickle", ""), ("", "a/b, application/x-swell-pickle")):
        assert b"Swell-Trusted" not in request_of(Granted("fc-1", 7, "f", Body(kind, b""), accept, 1.0))


texts = st.text(st.characters(codec="latin-1"), max_size=8)


@given(texts, texts, texts)
def test_what_is_sendable_is_one_request(method: str, kind: str, accept: str) -> None:
    call = Granted("fc-1", 7, method, Body(kind, b""), accept, 1.0)
    if sendable(call):
        lines = request_of(call).split(b"\r\n")
        assert len(lines) == 9 + bool(kind) + bool(accept) + (b"Swell-Trusted: 1" in lines)
        assert lines[0].split(b" ") == [b"POST", b"/call/" + method.encode(), b"HTTP/1.1"]


def test_an_error_without_words_of_its_own_has_some() -> None:
    end = answered(CALL, "r1-1", read(chunked([b"data: 1\n\n"], "Swell-Error: 500 exception")))
    assert (end.code, end.message) == ("exception", "It ended in an error, 500 exception.")


# -- large ones ---------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_result_over_the_bound_is_in_a_file_however_its_bytes_come(
    monkeypatch: pytest.MonkeyPatch, folder: Path, pieces: list[bytes], announced: bool, at: list[int]
) -> None:
    monkeypatch.setattr(answer, "RESULT_INLINE_MAX", 60)
    body, path = b"".join(pieces), folder / "fc-1-7.result"
    data = head(200, body, "Swell-Cpu-Us: 5") if announced else chunked(pieces, "Swell-Cpu-Us: 5")
    end = answered(CALL, "r1-1", read(*cut(data, at), folder=folder), path)
    assert (end.code, end.cpu_us) == ("", 5)
    if len(body) <= 60:
        assert (end.body.data, end.body.digest, end.size) == (body, "", 0)
        assert list(folder.iterdir()) == []
        return
    assert (end.body.data, end.size) == (b"", len(body))
    assert end.body.digest == f"sha256-{hashlib.sha256(body).hexdigest()}"
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes() == body
    path.unlink()


def test_nothing_is_left_of_what_does_not_come_is_too_large_or_is_an_error(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(answer, "RESULT_INLINE_MAX", 60)
    monkeypatch.setattr(answer, "RESULT_MAX", 1000)
    half = Answers(folder)
    half.feed(head(200, bytes(900))[:-100])
    assert len(list(folder.iterdir())) == 1
    half.drop()
    assert list(folder.iterdir()) == []
    end = answered(CALL, "r1-1", read(chunked([bytes(900), bytes(101)]), folder=folder), folder / "x")
    assert end.code == "bad_result"
    assert list(folder.iterdir()) == []
    body = error_body("exception", "ValueError: no", "fc-1", exception="A" * 500)
    end = answered(CALL, "r1-1", read(head(500, body, "Swell-Error: 500 exception"), folder=folder), folder / "x")
    assert (end.code, end.message, end.size) == ("exception", "ValueError: no", 0)
    assert b"AAAA" not in end.body.data
    assert b"ValueError: no" in end.body.data
    assert list(folder.iterdir()) == []


def test_what_cannot_be_written_is_told_to_be_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(answer, "RESULT_INLINE_MAX", 60)
    assert answer.answered(CALL, "r1-1", read(head(200, bytes(61)), folder=folder / "none"), folder / "x") is None
    found = read(head(200, bytes(61)), folder=folder)
    assert answer.answered(CALL, "r1-1", found, folder / "none" / "x") is None
    assert list(folder.iterdir()) == []
