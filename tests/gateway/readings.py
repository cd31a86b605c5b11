"""What the gateway reads in the bytes of a whole connection, and what h11 does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import h11

from swell.gateway.heads import NOT_FORWARDED, NOT_IN_TRAILERS
from swell.gateway.inbound import Inbound, Malformed, Switching
from swell.gateway.request import Request
from swell.gateway.shared import Shared

LENIENT = {
    rb"[\r\n]+": "empty lines before a request: RFC 9112, 2.2 asks to skip them; nothing of them is passed on",
    rb"[A-Z-]+( {2,}\S+ +| \S+ {2,})\S+\r\n": "several spaces in the first line: RFC 9112, 3 allows it; ours has one",
    rb"[A-Z-]+ \S+ RTSP/1\.[01]\r\n": "another protocol's name: only the version counts; the line passed on is our own",
    rb"(?s:.*)\r\n0{20}": "a chunk's size with many zeros in front: the number is the same; chunks are written anew",
}
"""Beginnings of requests that h11 refuses, or does not read on after, and the gateway takes; and why it may."""


@dataclass
class Said:
    """One request, without what is about the connection alone; `end` is where the next one begins."""

    method: bytes
    target: bytes
    host: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    end: int = field(default=-1)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list, compare=False)
    """Headers behind the body; our own runtime has no use for them."""


def kept(
    headers: list[tuple[bytes, bytes]], trailers: list[tuple[bytes, bytes]] | None = None
) -> list[tuple[bytes, bytes]]:
    """Of what a client sent, what the replica is to get; how the body is framed is compared by the body.

    The same of `trailers`, where they are given: what Connection names goes no further there, either.
    """
    named = {w.strip().lower() for name, value in headers if name == b"connection" for w in value.split(b",")}
    not_kept = NOT_FORWARDED | {b"host", b"content-length", b"authorization"} | named
    asked = headers if trailers is None else trailers
    return [(n, v) for n, v in asked if n not in not_kept and not n.startswith(b"swell-")]


def gateway_reads(
    inbound: Inbound, pieces: list[bytes]
) -> tuple[list[Request], list[int], tuple[int, str, str] | None]:
    """The whole requests, where each ended (exact if the pieces are single bytes), and how the rest was refused."""
    ends: list[int] = []
    at = 0
    try:
        for piece in pieces:
            at += len(piece)
            with suppress(Switching):  # Behind it nothing is read, as behind one that asked to close.
                inbound.feed(piece, 0.0)
            ends += [at] * (sum(request.complete for request in inbound.queue) - len(ends))
            if inbound.last is not None and inbound.last.complete and not inbound.last.keep_alive:
                break
    except Malformed as malformed:
        return [r for r in inbound.queue if r.complete], ends, malformed.args  # type: ignore[return-value]
    return [r for r in inbound.queue if r.complete], ends, None


def said_by(request: Request, end: int = -1) -> Said:
    lines = (line.partition(b": ") for line in request.head.split(b"\r\n")[:-1])
    plain = [(name, value) for name, _, value in lines if name not in NOT_FORWARDED | {b"content-length"}]
    behind = [(name, value) for name, _, value in (line.partition(b": ") for line in request.trailers.splitlines())]
    return Said(request.method, request.target, request.host, plain, b"".join(request.body), end, behind)


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
            behind = [pair for pair in kept(headers, list(event.headers)) if pair[0] not in NOT_IN_TRAILERS]
            said.append(Said(head.method, head.target, host, kept(headers), body, begins, behind))
            conn.send(h11.Response(status_code=400, headers=[(b"content-length", b"0")]))
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE:
                return said, begins, "closed"
            conn.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return said, begins, f"refused: {error}"
    return said, begins, "more is needed"


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    return [raw[a:b] for a, b in pairwise(edges)]


def singles(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


def inbound_of(shared: Shared) -> Inbound:
    return Inbound(shared, object(), 0.0)  # type: ignore[arg-type]  # only carried along
