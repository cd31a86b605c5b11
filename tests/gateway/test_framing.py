"""Do the gateway, h11 and our own replica read the same requests in the bytes of a whole connection?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import h11
import pytest
from ends import Ends
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swell.gateway.heads import NOT_FORWARDED
from swell.gateway.inbound import Inbound, Malformed
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.runtime.http import Connection, Exchange
from swell.wire.http import HEADER_MAX
from swell.wire.settings import Settings

NEXT = b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n"

LENIENT = {
    rb"(\r\n)+": "empty lines before a request: RFC 9112, 2.2 asks to skip them",
    rb"[A-Z-]+( {2,}\S+ +| \S+ {2,})\S+\r\n": "several spaces in the first line: RFC 9112, 3 allows it; ours has one",
    rb"[A-Z-]+ \S+ RTSP/1\.[01]\r\n": "another protocol's name: only the version counts; the line passed on is our own",
    rb"(?s:.*)\r\n0{20}": "a chunk's size with many zeros in front: the number is the same; chunks are written anew",
}
"""Beginnings of requests that h11 refuses, or does not read on after, and the gateway takes; and why it may."""

# -- bytes -----------------------------------------------------------------------------------------------------

first_lines = st.sampled_from(
    [b"GET /a HTTP/1.1", b"POST /b?c=d HTTP/1.1", b"POST /b HTTP/1.1", b"HEAD /c HTTP/1.1", b"PUT /d HTTP/1.1"] * 4
    + [
        b"POST http://h/p HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET //e HTTP/1.1",
        b"GET  /f  HTTP/1.1",
        b"GET /#f HTTP/1.1",
    ]
    + [
        b"GET /g HTTP/1.0",
        b"POST /g HTTP/1.0",
        b"GET /h HTTP/1.2",
        b"POST /i RTSP/1.1",
        b"ANNOUNCE /j RTSP/1.0",
        b"GET /k",
    ]
    + [b"get /l HTTP/1.1", b"GET /\x80 HTTP/1.1", b"GET /m\tHTTP/1.1", b"GET /n HTTP/1.1 ", b"CONNECT o:1 HTTP/1.1"]
    + [b"GET http://h\r\nX: y/ HTTP/1.1", b"QUERY /q HTTP/1.1", b"SOURCE /r ICE/1.0", b"GET /s http/1.1", b""]
)
lengths = st.sampled_from(
    [b"5"] * 6
    + [b"0", b"005", b" 5 ", b"5\t", b"+5", b"-5", b"5,5", b"5, 6", b"0x5", b"5_0", b"5 5", b"", b"\x0b5"]
    + [b"1" + b"0" * 30, b"18446744073709551621", b"\xb2", b"5;", b"5\x00"]
)
codings = st.sampled_from(
    [b"chunked"] * 6
    + [b"Chunked", b" chunked", b"chunked ", b"\tchunked", b"xchunked", b"chunked,", b",chunked", b"gzip"]
    + [
        b"identity",
        b"chunked, identity",
        b"gzip, chunked",
        b"\x0bchunked",
        b"chunked;q=1",
        b'"chunked"',
        b"",
        b"chun\x00ked",
    ]
)
names = st.sampled_from(
    [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content-Length ", b"Content_Length", b" Content-Length"]
)
coding_names = st.sampled_from(
    [b"Transfer-Encoding"] * 4
    + [b"transfer-encoding", b"Transfer-Encoding ", b"Transfer_Encoding", b"\tTransfer-Encoding"]
)
others = st.sampled_from(
    [
        b"X: y",
        b"x-empty:",
        b"X:\ty\t",
        b"X: a\tb",
        b"X: \x80\xff",
        b"X: a\x00b",
        b"X: a\rb",
        b"X: a\nb",
        b"X: a\x01b",
        b"X: a\r\n folded",
        b" X: y",
        b"X",
        b": y",
        b"X y: z",
        b"X(: y",
        b"Swell-Trusted: 1",
        b"swell-remaining-ms: 9",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: content-length",
        b"Connection: host, x, swell-trusted",
        b"Connection: transfer-encoding",
        b"Connection: upgrade",
        b"Upgrade: h2c",
        b"Upgrade:",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Expect: else",
        b"TE: trailers",
        b"Trailer: x",
        b"Keep-Alive: 5",
        b"Cookie: a=b",
        b"Host: other",
        b"Authorization: Basic x",
        b"Origin: http://o",
        b"Swell-Timeout: 3",
        b"X: " + b"y" * 5000,
    ]
)
hosts = st.sampled_from(
    [b"Host: h"] * 12 + [b"host:h:80", b"Host: [::1]", b"Host:", b"Host: a b", b"Host: a\x80", b"X: none"]
)
sizes = st.sampled_from(
    [b"5"] * 8
    + [b"05", b"5;a", b"5;a=b", b'5;a="b c"', b"5;", b"5 ", b"5 ;a", b"5\t", b" 5", b"+5", b"-5", b"0x5", b"5_"]
    + [b"5;a\rb", b"5;a\nb", b"5;\x00", b"5g", b"", b"0" * 30 + b"5", b"F" * 17, b'5;a="\r\n"', b"5;" + b"x" * 3000]
)
trailers = st.sampled_from(
    [b""] * 6
    + [b"X: y\r\n", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Swell-Trusted: 1\r\n"]
    + [
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"X: a\r\n b\r\n",
        b"bad\r\n",
        b"Host: o\r\n",
    ]
)
ends_of_line = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\n\r"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, or nearly one."""
    head = [draw(first_lines), draw(hosts), *draw(st.lists(others, max_size=3))]
    body = b""
    form = draw(st.sampled_from(["none", "length", "length", "chunks", "chunks", "both", "any"]))
    if form in ("length", "both"):
        body = b"hello"
        head.append(draw(names if draw(st.booleans()) else st.just(b"Content-Length")) + b": " + draw(lengths))
    if form in ("chunks", "both"):
        head.append(draw(coding_names) + b": " + draw(codings))
        pieces = [draw(sizes) + draw(ends_of_line) + b"hello\r\n" for _ in range(draw(st.integers(0, 2)))]
        body = b"".join(pieces) + b"0" + draw(ends_of_line) + draw(trailers) + draw(ends_of_line)
    if form == "any":
        extra = st.one_of(lengths.map(b"Content-Length: ".__add__), codings.map(b"Transfer-Encoding: ".__add__))
        head += draw(st.lists(extra, max_size=3))
        body = draw(st.sampled_from([b"", b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", NEXT]))
    order = draw(st.permutations(range(1, len(head)))) if draw(st.booleans()) else range(1, len(head))
    lines = [head[0], *(head[at] for at in order)]
    return b"".join(line + draw(ends_of_line) for line in lines) + draw(ends_of_line) + body


connections = st.lists(st.one_of(requests(), st.sampled_from([NEXT, NEXT, b"\r\n"])), min_size=1, max_size=4)


# -- readings --------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """One request, without what is about the connection alone; `end` is where the next one begins."""

    method: bytes
    target: bytes
    host: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    end: int = field(default=-1)


def kept(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Of what a client sent, what the replica is to get; how the body is framed is compared by the body."""
    named = {w.strip().lower() for name, value in headers if name == b"connection" for w in value.split(b",")}
    not_kept = NOT_FORWARDED | {b"host", b"content-length", b"authorization"} | named
    return [(n, v) for n, v in headers if n not in not_kept and not n.startswith(b"swell-")]


def gateway_reads(
    inbound: Inbound, pieces: list[bytes]
) -> tuple[list[Request], list[int], tuple[int, str, str] | None]:
    """The whole requests, where each ended (exact if the pieces are single bytes), and how the rest was refused."""
    ends: list[int] = []
    at = 0
    try:
        for piece in pieces:
            at += len(piece)
            inbound.feed(piece, 0.0)
            ends += [at] * (sum(request.complete for request in inbound.queue) - len(ends))
            if inbound.last is not None and inbound.last.complete and not inbound.last.keep_alive:
                break
    except Malformed as malformed:
        return [r for r in inbound.queue if r.complete], ends, malformed.args  # type: ignore[return-value]
    return [r for r in inbound.queue if r.complete], ends, None


def said_by(request: Request, end: int = -1) -> Said:
    lines = (line.partition(b": ") for line in request.head.split(b"\r\n")[:-1])
    plain = [(name, value) for name, _, value in lines if name not in (b"content-length", b"transfer-encoding")]
    return Said(request.method, request.target, request.host, plain, b"".join(request.body), end)


def h11_reads(raw: bytes) -> tuple[list[Said], int, str]:
    """The whole requests, where the one that was not read begins, and why h11 stopped there."""
    said: list[Said] = []
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    conn.receive_data(raw)
    begins = 0
    try:
        while isinstance(head := conn.next_event(), h11.Request):
            body = b""
            while isinstance(event := conn.next_event(), h11.Data):
                body += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                return said, begins, "more is needed"
            begins = len(raw) - len(conn.trailing_data[0])
            headers = list(head.headers)
            host = dict(headers).get(b"host", b"localhost")
            said.append(Said(head.method, head.target, host, kept(headers), body, begins))
            conn.send(h11.Response(status_code=400, headers=[(b"content-length", b"0")]))
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE:
                return said, begins, "closed"
            conn.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return said, begins, f"refused: {error}"
    return said, begins, "more is needed"


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


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[a:b] for a, b in pairwise(edges)]


def singles(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def inbound_of(shared: Shared) -> Inbound:
    return Inbound(shared, object(), 0.0)  # type: ignore[arg-type]  # only carried along


POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


@settings(max_examples=4 * settings.default.max_examples)
@given(connections, st.lists(st.integers(0, 10_000), max_size=6))
@example([POST + b"Connection: upgrade\r\nUpgrade:\r\nContent-Length: 5\r\n\r\nhello", NEXT], [])
@example([POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade:\r\nContent-Length: 34\r\n\r\n" + NEXT], [])
@example([POST + b"Connection: upgrade\r\nUpgrade:\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NEXT], [])
@example([POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NEXT], [])
@example([POST + b"Content-Length: 005\t\r\n\r\nhello", NEXT], [])
@example([b"GET /a HTTP/1.1\r\nHost: h\t \r\nX:\ty\t \r\n\r\n", NEXT], [])
@example([b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", NEXT], [])
@example([b"ANNOUNCE /a RTSP/1.1\r\nHost: h\r\n\r\n", NEXT], [])
def test_a_connection_has_one_reading(loop: asyncio.AbstractEventLoop, sent: list[bytes], places: list[int]) -> None:
    raw = b"".join(sent)
    shared = Shared(Settings(home="/"), "g1", loop)
    ours, ends, refusal = gateway_reads(inbound_of(shared), singles(raw))
    said = [said_by(request, end) for request, end in zip(ours, ends, strict=True)]

    theirs, begins, why = h11_reads(raw)
    both = min(len(said), len(theirs))
    assert said[:both] == theirs[:both]
    if len(said) > both and why != "closed":
        assert why.startswith("refused"), (why, said)
        assert any(re.match(lenient, raw[begins:]) for lenient in LENIENT), (why, raw[begins:])

    # In other pieces, and where heads like these were seen before: the same.
    for pieces in (cut(raw, places), sent):
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
