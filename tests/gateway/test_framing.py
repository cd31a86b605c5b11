"""Do the gateway, h11 and our own replica read the same requests in the bytes of a whole connection?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ends import Ends
from hypothesis import given, settings
from hypothesis import strategies as st
from readings import LENIENT, Said, cut, gateway_reads, h11_reads, inbound_of, kept, said_by, singles
from streams import FOUND, NEXT, connections, damaged

from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.runtime.http import Connection, Exchange
from swell.wire.http import HEADER_MAX
from swell.wire.settings import Settings

# -- a replica of ours ---------------------------------------------------------------------------------------


class Replica:
    """Our runtime's side of a connection from the gateway: the requests that came whole, each answered at once."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.trusted: list[bool] = []
        self.written = b""
        self.connection = Connection(self._accept, set(), {})
        self.connection.connection_made(self)  # type: ignore[arg-type]  # all of a transport that is used

    def _accept(self, exchange: Exchange) -> Any:
        replica, body, request = self, bytearray(), exchange.request

        class Handler:
            def data(self, chunk: bytes) -> None:
                body.extend(chunk)

            def complete(self) -> None:
                host, headers = request.header(b"host"), kept(request.headers)
                replica.said.append(Said(request.method.encode(), request.target, host, headers, bytes(body)))
                replica.trusted.append(request.trusted)
                exchange.answer(200, b"text/plain", b"")

            def disconnected(self) -> None: ...

        return Handler()

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    def resume_reading(self) -> None: ...


def passed_on(loop: asyncio.AbstractEventLoop, requests: list[Request]) -> bytes:
    """What a replica of ours is sent of these, one after the other on one connection."""
    ends = Ends(loop)
    for request in requests:
        request.client = ends  # type: ignore[assignment]  # all of a client that is used
        request.line = b"%b %b HTTP/1.1\r\nSwell-Request-Id: " % (request.method, request.target)
        request.deadline = 1e9
        ends.upstream.send(request, 0.0)
    return ends.wire.sent


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.stem)
def test_what_was_found_has_one_reading(loop: asyncio.AbstractEventLoop, found: Path) -> None:
    raw = found.read_bytes()
    check_one_reading(loop, raw, [[raw[:at], raw[at:]] for at in range(1, len(raw))])


@settings(max_examples=4 * settings.default.max_examples)
@given(connections, st.lists(st.integers(0, 10_000), max_size=6))
def test_a_connection_has_one_reading(loop: asyncio.AbstractEventLoop, sent: list[bytes], places: list[int]) -> None:
    raw = b"".join(sent)
    check_one_reading(loop, raw, [cut(raw, places), sent])


@settings(max_examples=4 * settings.default.max_examples)
@given(damaged(), st.lists(st.integers(0, 10_000), max_size=6))
def test_a_damaged_connection_has_one_reading(loop: asyncio.AbstractEventLoop, raw: bytes, places: list[int]) -> None:
    check_one_reading(loop, raw, [cut(raw, places), [raw]])


def check_one_reading(loop: asyncio.AbstractEventLoop, raw: bytes, ways: list[list[bytes]]) -> None:
    """`ways`: pieces in which it may come, too."""
    shared = Shared(Settings(home="/"), "g1", loop)
    ours, ends, refusal = gateway_reads(inbound_of(shared), singles(raw))
    said = [said_by(request, end) for request, end in zip(ours, ends, strict=True)]

    theirs, begins, why = h11_reads(raw)
    both = min(len(said), len(theirs))
    assert said[:both] == theirs[:both]
    assert [one.trailers for one in said[:both]] == [one.trailers for one in theirs[:both]]
    if len(said) > both and why != "closed":
        assert why.startswith("refused"), (why, said)
        assert any(re.match(lenient, raw[begins:]) for lenient in LENIENT), (why, raw[begins:])
    if len(theirs) > len(said):
        # Never swallowed: what only h11 takes for requests was refused, or came after a last one.
        assert refusal is not None or (ours and not ours[-1].keep_alive)

    # In other pieces, and where heads like these were seen before: the same.
    for pieces in ways:
        again, _, refused = gateway_reads(inbound_of(shared), pieces)
        assert [said_by(request) for request in again[: len(ours)]] == [said_by(request) for request in ours]
        assert (refused is None) == (refusal is None) or len(again) >= len(ours)

    # What is passed on has that reading too, for h11 and for a replica of ours, and nothing of it is left over.
    forward = [request for request in ours if request.target.startswith(b"/")]
    onward = passed_on(loop, forward)
    upstream, end, reason = h11_reads(onward)
    assert (end, reason) == (len(onward), "more is needed")
    replica = Replica()
    for one in cut(onward, [saying.end for saying in upstream]):
        replica.connection.data_received(one)
    assert not any(replica.trusted)
    for saying in (*upstream, *replica.said):
        saying.end = -1
    assert upstream == replica.said == [said_by(request) for request in forward]
    assert [one.trailers for one in upstream] == [said_by(request).trailers for request in forward]


def test_what_is_lenient_has_a_reason_that_is_used(loop: asyncio.AbstractEventLoop) -> None:
    zeros = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 30 + b"5\r\nhello\r\n0\r\n\r\n"
    taken = [b"\r\n" + NEXT, b"GET  /f  HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /i RTSP/1.1\r\nHost: h\r\n\r\n", zeros]
    for raw, lenient in zip(taken, LENIENT, strict=True):
        requests, _, refusal = gateway_reads(inbound_of(Shared(Settings(home="/"), "g1", loop)), [raw])
        assert (len(requests), refusal) == (1, None)
        assert h11_reads(raw)[2].startswith("refused")
        assert re.match(lenient, raw)


def test_offers_of_other_protocols_in_one_read_are_many(loop: asyncio.AbstractEventLoop) -> None:
    offer = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    requests, _, refusal = gateway_reads(inbound_of(Shared(Settings(home="/"), "g1", loop)), [offer * 3000])
    assert (len(requests), refusal) == (3000, None)


def test_heads_in_pieces_do_not_add_up_over_a_connection(loop: asyncio.AbstractEventLoop) -> None:
    inbound = inbound_of(Shared(Settings(home="/"), "g1", loop))
    head = b"GET /x HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
    for _ in range(2 * HEADER_MAX // len(head)):
        assert gateway_reads(inbound, cut(head, [10, 900]))[2] is None
        inbound.queue.clear()


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begins",
    [b"\r\n", b"GET /", POST + b"X: ", CHUNKED + b"5;", CHUNKED + b"5\r\nhello\r\n0\r\nX: ", CHUNKED + b"0" * 9],
)
def test_what_is_not_a_body_has_an_end(loop: asyncio.AbstractEventLoop, begins: bytes) -> None:
    endless = {b"\r\n": b"\r\n", CHUNKED + b"0" * 9: b"0"}.get(begins, b"a") * 4096
    pieces = [begins, *([endless[:4096]] * (HEADER_MAX // 4096 + 1))]
    _, _, refusal = gateway_reads(inbound_of(Shared(Settings(home="/"), "g1", loop)), pieces)
    assert refusal is not None
    assert refusal[:2] == (431, "headers_too_large")
