"""Does a replica read a request the same way whether its head was seen before, and however its bytes were cut?"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.http import Connection, ConnectionExchange, Exchange
from swell.runtime.request import Head

Seen = tuple[str, bytes, str, bool, bool, tuple[tuple[bytes, bytes], ...], bytes]

words = st.from_regex(rb"[a-z]{1,8}", fullmatch=True)
values = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.ended = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None: ...


class Side:
    """One connection, and every request that came whole on it; each is answered then, or refused at its head."""

    def __init__(self, heads: dict[tuple[bytes, bytes], Head]) -> None:
        self.seen: list[Seen] = []
        self.full = False
        self.wire = Wire()
        self.connection = Connection(self._accept, set(), heads)
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]  # all of a transport that is used

    def _accept(self, exchange: Exchange) -> Any:
        side, body = self, bytearray()
        if self.full:
            exchange.refuse(503, "busy", "It is full.")
            return None

        class Handler:
            def data(self, chunk: bytes) -> None:
                body.extend(chunk)

            def complete(self) -> None:
                request = exchange.request
                timed = request.deadline < float("inf")
                headers = tuple(request.headers)
                side.seen.append(
                    (request.method, request.target, request.id, request.trusted, timed, headers, bytes(body))
                )
                exchange.answer(200, b"text/plain", bytes(body))

            def disconnected(self) -> None: ...

        return Handler()


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request as the gateway writes it, without its id: (first line, the rest)."""
    line = b"POST /call/%b HTTP/1.1\r\n" % draw(st.sampled_from([b"f", b"g"]))
    rest = b"host: %b\r\n" % draw(words)
    if draw(st.booleans()):
        rest += b"Swell-Trusted: 1\r\n"
    for name in draw(st.lists(words.map(lambda word: b"x-" + word), max_size=3, unique=True)):
        rest += b"%b: %b\r\n" % (name, draw(values))
    body = draw(st.binary(max_size=30))
    if draw(st.booleans()):
        return line, rest + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    if draw(st.booleans()):
        return line, rest + b"\r\n"
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return line, rest + b"transfer-encoding: chunked\r\n\r\n" + piece + b"0\r\n\r\n"


@given(st.lists(requests(), min_size=2, max_size=3), st.data())
def test_requests_mean_the_same_seen_before_or_not(kinds: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    heads: dict[tuple[bytes, bytes], Head] = {}
    kept = Side(heads)
    unsent = b""
    sent = data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=12))
    for number, (line, rest) in enumerate(sent):
        own = b"%bSwell-Request-Id: q%d\r\nSwell-Remaining-Ms: %d\r\n%b" % (line, number, 1000 + number, rest)
        fresh = Side({})
        # Where the end of a body is not known at its head, a refusal ends the connection.
        fresh.full = kept.full = b"chunked" not in rest and data.draw(st.booleans())
        for at in range(0, len(own), 9):
            fresh.connection.data_received(own[at : at + 9])
        # The body of what is refused may come late, together with what is sent once that was read.
        head = own.index(b"\r\n\r\n") + 4
        whole = head if fresh.full and data.draw(st.booleans()) else len(own)
        now, unsent = unsent + own[:whole], own[whole:]
        places = data.draw(st.sampled_from([[], [head], *([at] for at in range(len(now)))]))
        before, seen = len(kept.wire.written), len(kept.seen)
        for start, end in pairwise(sorted({0, len(now), *places})):
            kept.connection.data_received(now[start:end])
        assert kept.seen[seen:] == fresh.seen
        assert [each[2] for each in fresh.seen] == ([] if fresh.full else [f"q{number}"])
        assert kept.wire.written[before:] == fresh.wire.written


def test_a_request_that_comes_with_the_body_of_one_refused_is_not_taken_for_it() -> None:
    """A gateway that is refused at the head asks for a slot: its question and the body that was under way come
    together."""
    heads: dict[tuple[bytes, bytes], Head] = {}
    head = b"POST /call/f HTTP/1.1\r\nSwell-Request-Id: q1\r\nSwell-Remaining-Ms: 9\r\ncontent-length: 1\r\n\r\n"
    side = Side(heads)
    side.full = True
    side.connection.data_received(head)
    side.full = False
    side.connection.data_received(b"x" + b"POST /slot HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    side.connection.data_received(head)
    side.connection.data_received(b"x")
    assert [target for _, target, *_ in side.seen] == [b"/slot", b"/call/f"]


def test_a_second_request_behind_one_seen_before_is_refused_as_ever() -> None:
    heads: dict[tuple[bytes, bytes], Head] = {}
    one = b"POST /call/f HTTP/1.1\r\nSwell-Request-Id: q1\r\nSwell-Remaining-Ms: 9\r\ncontent-length: 1\r\n\r\nx"
    taught = Side(heads)
    taught.connection.data_received(one)
    assert len(heads) == 1
    for rest in (one, b"y", one[:20]):
        side, fresh = Side(heads), Side({})
        side.connection.data_received(one + rest)
        fresh.connection.data_received(one + rest)
        assert (side.seen, side.wire.written, side.wire.closed) == (fresh.seen, fresh.wire.written, fresh.wire.closed)


def test_what_comes_behind_an_answer_that_was_broken_off_is_read_and_begins_nothing() -> None:
    told: list[bytes | str] = []
    exchanges: list[ConnectionExchange] = []

    class Handler:
        def data(self, chunk: bytes) -> None:
            told.append(chunk)

        def complete(self) -> None:
            told.append("complete")

        def disconnected(self) -> None:
            told.append("disconnected")

    def accept(exchange: ConnectionExchange) -> Handler:
        exchanges.append(exchange)
        return Handler()

    async def scenario() -> None:
        wire = Wire()
        connection = Connection(accept, set(), {})
        connection.connection_made(wire)  # type: ignore[arg-type]  # all of a transport that is used
        connection.data_received(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345")
        exchanges[0].pause_reading()
        assert not wire.reading
        exchanges[0].begin(200, [])
        exchanges[0].write(b"some")
        exchanges[0].break_off()
        assert (wire.ended, wire.closed, wire.reading) == (True, False, True)
        for rest in (b"67", b"890", b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"):
            connection.data_received(rest)
        assert told == [b"12345"]
        connection.connection_lost(None)
        assert told == [b"12345", "disconnected"]
        assert len(exchanges) == 1

    asyncio.run(scenario())
