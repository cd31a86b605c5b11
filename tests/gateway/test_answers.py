"""Is a caller told the answer that h11 reads in a replica's bytes, or shown that it has none?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise

import h11
import pytest
from ends import Ends
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swell.gateway.answers import Answers, Broken
from swell.gateway.heads import NOT_FORWARDED
from swell.wire.http import HEADER_MAX

Read = tuple[int, list[tuple[bytes, bytes]], bytes]
"""An answer: status, headers but for what is about the connection or Swell's own, body."""

LENIENT = {
    rb"\r\n": "an empty line before an answer: nothing can hide in it",
    rb"(HTTP/(2\.0|0\.9)|RTSP/1\.[01]|ICE/1\.[01]) ": "another version or protocol: the answer told is our own line's",
    rb"HTTP/1\.[01] [1-9]\d\d [^\r\n]*[\x00-\x08\x0b\x0c\x0e-\x1f]": "odd bytes in the reason: it is not passed on",
    rb"HTTP/1\.[01] [6-9]\d\d": "a status of no class: passed on as the number it is",
    rb"(?s:.*)\r\n0{20}": "a chunk's size with many zeros in front: chunks are written anew",
}
"""Beginnings of answers that h11 refuses and the gateway passes on; and why it may."""
INTERIM = rb"(?:HTTP/1.1 10[023] .*\r\n(?:.+\r\n)*\r\n)*"
OWN = {b"server-timing", b"swell-cost-usd", b"swell-request-id", b"swell-cold", b"trailer", b"transfer-encoding"}

status_lines = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 12
    + [
        b"HTTP/1.1 204 No",
        b"HTTP/1.1 304 Not",
        b"HTTP/1.1 404",
        b"HTTP/1.1 503 Busy",
        b"HTTP/1.1 999 x",
        b"HTTP/1.0 200 OK",
    ]
    + [
        b"HTTP/1.1 099 x",
        b"HTTP/1.1 101 x",
        b"HTTP/1.1 20 x",
        b"HTTP/1.1 2000 x",
        b"HTTP/2.0 200 OK",
        b"RTSP/1.1 200 OK",
    ]
    + [
        b"HTTP/1.1 200 a\x00b",
        b"http/1.1 200 OK",
        b"HTTP/1.1  200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\rX: y",
        b"",
    ]
)
interims = st.sampled_from(
    [b""] * 8
    + [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 102 x\r\nContent-Length: 3\r\n\r\n",
    ]
    + [b"HTTP/1.1 103 Early\r\nSwell-Cpu-Us: 1\r\nSwell-Run-Us: 1\r\n\r\n", b"HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n"]
)
headers = st.sampled_from(
    [b"Content-Length: 5"] * 10
    + [b"Transfer-Encoding: chunked"] * 6
    + [
        b"Content-Length: 0",
        b"Content-Length: 005",
        b"Content-Length: 5 \t",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
    ]
    + [b"Content-Length:", b"Content-Length: 5\x0b", b"content-length: 6", b"Content-Length : 5"]
    + [b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked ", b"Transfer-Encoding: gzip", b"Transfer-Encoding:"]
    + [b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: xchunked"]
    + [
        b"X: y",
        b"X:",
        b"X: a \t",
        b"X: \xff",
        b"X: a\r\n b",
        b"X: a\nY: b",
        b"X: a\rY: b",
        b"X: a\x00",
        b" X: y",
        b"X y: z",
    ]
    + [
        b"Connection: close",
        b"Connection: keep-alive, x",
        b"Connection: content-length",
        b"Connection: transfer-encoding",
    ]
    + [b"Connection: upgrade", b"Upgrade: x", b"Keep-Alive: 5", b"Trailer: x", b"Set-Cookie: a=b", b"Set-Cookie: c=d"]
    + [b"Swell-Request-Id: forged", b"Swell-Cost-Usd: 1", b"Swell-Error: 500 x", b"Swell-Cpu-Us: 7", b"Swell-Run-Us: 8"]
    + [
        b"Swell-Cpu-Us: -7",
        b"Swell-Run-Us: " + b"8" * 5000,
        b"Server-Timing: mine",
        b"X: a\r\n\r\nHTTP/1.1 200 Split\r\nY: b",
    ]
)
bodies = st.sampled_from(
    [b"hello"] * 8
    + [b"5\r\nhello\r\n0\r\n\r\n"] * 8
    + [
        b"",
        b"hell",
        b"hello!",
        b"0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n",
    ]
    + [
        b"5\r\nhello\r\n0\r\nSwell-Run-Us: 9\r\nSet-Cookie: c\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"-5\r\nhello",
    ]
    + [
        b"0" * 25 + b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nbad\r\n\r\n",
    ]
)
rests = st.sampled_from([b""] * 10 + [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nEvil: 1\r\n\r\n", b"HTTP/1.1 500 x\r\nEvil"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """What a replica says to one request, or nearly that, and what may follow it."""
    lines = [draw(status_lines), *draw(st.lists(headers, max_size=4))]
    return draw(interims) + b"\r\n".join(lines) + b"\r\n\r\n" + draw(bodies) + draw(rests)


def h11_reads(raw: bytes, method: bytes, eof: bool) -> tuple[Read | None, list[tuple[bytes, bytes]], bytes]:
    """The answer if it is whole, its trailers, and what comes after it."""
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    conn.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(raw)
    if eof:
        conn.receive_data(b"")
    body = b""
    head: h11.Response | None = None
    try:
        while not isinstance(event := conn.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                return None, [], b""
    except h11.RemoteProtocolError:
        return None, [], b""
    assert head is not None
    return (head.status_code, list(head.headers), body), list(event.headers), conn.trailing_data[0]


def passed_on(read: Read, method: bytes) -> Read:
    """What of a replica's answer its caller is to get."""
    status, headers, body = read
    named = {w.strip().lower() for name, value in headers if name == b"connection" for w in value.split(b",")}
    named -= {b"content-length"}
    own = {b"swell-cpu-us", b"swell-run-us", b"swell-busy", b"swell-error"} | OWN - {b"server-timing"}
    kept = [(n, v) for n, v in headers if n not in NOT_FORWARDED | own | named]
    if status == 204:
        kept = [(n, v) for n, v in kept if n != b"content-length"]
    return status, [(n, b"%d" % int(v) if n == b"content-length" else v) for n, v in kept], body


def told(raw: bytes, method: bytes, eof: bool) -> tuple[Read | None, bytes]:
    """What a caller reads in what it is told, and what comes after that."""
    read, _, rest = h11_reads(raw, method, eof)
    if read is None:
        return None, rest
    assert [name for name, _ in read[1]][:1] == [b"swell-request-id"]
    ours = [(n, v) for n, v in read[1] if n not in OWN | {b"connection"} or (n, v) == (b"server-timing", b"mine")]
    return (read[0], ours, read[2]), rest


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


SPLIT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 500 Split\r\nEvil: 1\r\n\r\n"


@settings(max_examples=4 * settings.default.max_examples)
@given(answers(), st.sampled_from([b"GET", b"GET", b"POST", b"HEAD"]), st.booleans(), st.lists(st.integers(0, 9999)))
@example(SPLIT, b"GET", True, [])
@example(SPLIT[:-8], b"GET", True, [])
@example(b"HTTP/1.1 099 x\r\n\r\n", b"GET", True, [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"GET", True, [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 005 \r\nX: a \t\r\n\r\nhello", b"GET", True, [])
@example(
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSwell-Cpu-Us: 1\r\nSwell-Run-Us: " + b"8" * 5000 + b"\r\n\r\n",
    b"GET",
    True,
    [],
)
def test_a_caller_is_told_what_h11_reads(
    loop: asyncio.AbstractEventLoop, raw: bytes, method: bytes, http11: bool, places: list[int]
) -> None:
    theirs, _, _ = h11_reads(raw, method, eof=True)
    native = Ends(loop)
    for ends in (native, Ends(loop, native=False), Ends(loop, shared=native.shared)):
        edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
        pieces = [raw[a:b] for a, b in pairwise(edges)] if ends is native else [raw]
        _, how = ends.ask(method, pieces, eof=True, http11=http11)
        # In its head: the body may look like one.
        by_close = not re.search(rb"\r\n(content-length|transfer-encoding):", ends.told.partition(b"\r\n\r\n")[0])
        read, rest = told(ends.told, method, eof=by_close and "cut" not in how)
        assert rest == b""
        if "died" in how:
            # Nothing was told, and the caller hears of it; or it is cut off where it can see that something is missing.
            assert "cut" in how or (read is not None and read[0] == 502)
            assert "kept" not in how
            assert "cut" not in how or read is None or method == b"HEAD"
        elif "answered" in how:
            assert read is not None
            if theirs is None:
                assert any(re.match(INTERIM + lenient, raw) for lenient in LENIENT), raw
            else:
                assert read == passed_on(theirs, method)
        else:
            assert "busy" in " ".join(how)
        if "kept" in how:
            # Not a byte was left, nor was half a head begun: the connection's next answer is that of its next request.
            ends.ask(b"POST", [b"HTTP/1.1 201 OK\r\nContent-Length: 4\r\n\r\nnext"])
            assert told(ends.told, b"POST", False)[0] == (201, [(b"content-length", b"4")], b"next")


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
USED = b"Swell-Cpu-Us: 1\r\nSwell-Run-Us: 2\r\n"


@pytest.mark.parametrize(
    ("poison", "begins"),
    [
        (PLAIN + b"Swell-Cpu-Us: 1\r\nSet-Cookie: evil\r\nSwell-Run-Us: 2\r\n\r\nok", PLAIN),
        (PLAIN + b"Swell-Cpu-Us: 1\r\nSet-Cookie: evil\r\n" + USED + b"\r\nok", PLAIN),
        (PLAIN + USED + b"Set-Cookie: evil\r\n\r\nok", PLAIN),
        (
            b"HTTP/1.1 103 E\r\n" + USED + b"\r\nHTTP/1.1 500 E\r\nEvil: 1\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 103 E\r\n",
        ),
    ],
)
def test_no_replica_can_teach_the_gateway_what_answers_of_others_say(poison: bytes, begins: bytes) -> None:
    known = {}  # type: ignore[var-annotated]  # what answers of all replicas share
    for raw in (poison, begins + USED + b"\r\nHT"):
        answer = Answers(True, known).feed(raw, False)
        if raw is not poison:
            fresh = Answers(True, {}).feed(raw, False)
            assert b"".join(answer.lines) == b"".join(fresh.lines)
            assert (answer.status, answer.headed) == (fresh.status, fresh.headed)


@pytest.mark.parametrize(
    "begins",
    [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 ", PLAIN[:-21] + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "],
)
def test_what_is_not_an_answers_body_has_an_end(begins: bytes) -> None:
    answers = Answers(False, {})
    answers.feed(begins, False)
    for _ in range(HEADER_MAX // 4096 - 1):
        answers.feed(b"a" * 4096, False)
    with pytest.raises(Broken):
        answers.feed(b"a" * 8192, False)
    with pytest.raises(Broken):
        Answers(False, {}).feed(PLAIN + b"".join(b"X%d: y\r\n" % n for n in range(HEADER_MAX // 5)) + b"\r\nok", False)
