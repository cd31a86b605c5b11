"""Is what a client's bytes mean independent of how they were cut, and the same as another parser says?"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.gateway.inbound import Inbound, Malformed
from swell.gateway.shared import Shared
from swell.wire.settings import Settings

Said = list[tuple[bytes, bytes, bytes, dict[bytes, bytes]]]

words = st.from_regex(rb"[a-z]{1,8}", fullmatch=True)
values = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
bodies = st.binary(max_size=40)


@pytest.fixture(scope="module")
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One valid request, plain or chunked."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"LOCK", b"UNLOCK"]))
    head = b"%b /%b HTTP/1.1\r\nHost: %b\r\n" % (method, draw(words), draw(words))
    for name in draw(st.lists(words.map(lambda word: b"x-" + word), max_size=3, unique=True)):
        head += b"%b: %b\r\n" % (name, draw(values))
    body = draw(bodies)
    if draw(st.booleans()):
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def gateway_says(inbound: Inbound, pieces: list[bytes]) -> Said:
    for piece in pieces:
        inbound.feed(piece, 0.0)
    said = []
    for request in inbound.queue:
        assert request.complete
        assert request.size == sum(map(len, request.body))
        lines = [line.partition(b": ") for line in request.head.split(b"\r\n")[:-1]]
        headers = {name: value for name, _, value in lines if name not in (b"content-length", b"transfer-encoding")}
        said.append((request.method, request.target, b"".join(request.body), {b"host": request.host, **headers}))
    inbound.queue.clear()
    return said


def h11_says(raw: bytes) -> Said:
    said: Said = []
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(raw)
    while isinstance(head := conn.next_event(), h11.Request):
        body = b""
        while isinstance(event := conn.next_event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        headers = {k: v for k, v in head.headers if k not in (b"content-length", b"transfer-encoding")}
        said.append((head.method, head.target, body, headers))
        conn.send(h11.Response(status_code=204, headers=[]))
        conn.send(h11.EndOfMessage())
        conn.start_next_cycle()
    return said


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[a:b] for a, b in pairwise(edges)]


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(requests(), min_size=1, max_size=4), st.data())
def test_requests_mean_the_same_however_they_are_cut_and_repeated(
    loop: asyncio.AbstractEventLoop, sent: list[bytes], data: st.DataObject
) -> None:
    shared = Shared(Settings(home="/"), "g1", loop)
    inbound = Inbound(shared, object(), 0.0)  # type: ignore[arg-type]  # only carried along
    # Repeated, so that heads which are remembered are met again, whole, in pieces and after stray ends of lines.
    for _ in range(3):
        raw = b"".join(data.draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n"])) + one for one in sent)
        places = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
        assert gateway_says(inbound, cut(raw, places)) == h11_says(b"".join(sent))
        for one in sent:
            assert gateway_says(inbound, [one]) == h11_says(one)


@settings(max_examples=3 * settings.default.max_examples)
@given(requests(), st.integers(0, 400), st.binary(min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=4))
def test_damaged_requests_are_refused_or_mean_what_h11_says(
    loop: asyncio.AbstractEventLoop, sent: bytes, at: int, damage: bytes, places: list[int]
) -> None:
    at %= len(sent)
    raw = sent[:at] + damage + sent[at + len(damage) :]
    shared = Shared(Settings(home="/"), "g1", loop)
    inbound = Inbound(shared, object(), 0.0)  # type: ignore[arg-type]  # only carried along
    inbound.feed(sent, 0.0)
    inbound.queue.clear()
    try:
        for piece in cut(raw, places):
            inbound.feed(piece, 0.0)
    except Malformed:
        return
    ours = [(r.method, r.target, b"".join(r.body)) for r in inbound.queue if r.complete]
    try:
        theirs = [said[:3] for said in h11_says(raw)]
    except (h11.RemoteProtocolError, AssertionError):
        # The other parser is stricter about some bytes, or waits for more: then nothing may follow a first request.
        assert len(ours) <= 1
        return
    assert ours == theirs
