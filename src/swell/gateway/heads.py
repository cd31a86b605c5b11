"""How do the heads of requests and answers look as bytes? Encoded once here, joined everywhere else."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from http import HTTPStatus

from swell.model.errors import SwellError
from swell.wire.http import COLD, COST_USD, JSON, LIMIT, REQUEST_ID, SERVER_TIMING, TIMEOUT

CRLF = b"\r\n"
JSON_TYPE = JSON.encode()
COLON = b": "
OWS = b" \t"
"""What may stand around a header's value and is none of it; the parser takes away only what is in front."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JOIN_MAX = 64 * 1024
"""Bodies up to this size are joined with their head into one write."""
LAST_CHUNK = b"0\r\n\r\n"
CHUNKED_LINE = b"transfer-encoding: chunked\r\n"
CLOSE_LINE = b"connection: close\r\n"
KEEP_ALIVE_LINE = b"connection: keep-alive\r\n"
COLD_LINE = f"{COLD}: 1\r\n".encode()
COST = f"{COST_USD}: %.12f\r\n".encode()

UPGRADE_LINES = b"connection: Upgrade\r\nupgrade: websocket\r\n"

NOT_FORWARDED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"expect",
    }
)
"""Headers about one connection, not about the message: never passed on."""

NOT_IN_TRAILERS = NOT_FORWARDED | frozenset(
    b"content-length content-encoding content-type content-range host authorization www-authenticate "
    b"authentication-info cookie set-cookie cache-control max-forwards pragma range if-match if-none-match "
    b"if-modified-since if-unmodified-since if-range age date expires location retry-after vary warning "
    b"origin sec-websocket-key".split()
)
"""What has to be known before a body: how it is framed, coded, routed, allowed and kept (RFC 9110, 6.5.1)."""

_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n{REQUEST_ID}: ".encode() for s in HTTPStatus}
_ODD_STATUS = f"HTTP/1.1 %d Status\r\n{REQUEST_ID}: ".encode()
_REQUEST = f"%b %b HTTP/1.1\r\n{REQUEST_ID}: ".encode()


class Malformed(Exception):
    """Bytes are not a request that can be served: (status, code, message, header lines of the refusal). Nothing after
    them can be read."""

    def __init__(self, status: int, code: str, message: str, lines: bytes = b"") -> None:
        super().__init__(status, code, message, lines)


def timeout_of(value: bytes) -> float:
    """How many seconds its caller gives it, by a header. SwellError where that makes no sense."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise SwellError("bad_request", f"{TIMEOUT} takes a number of seconds above zero.")
    return seconds


def request_start(method: bytes, target: bytes) -> bytes:
    """The first line of a request to a replica and the name of the header that always comes first: its id follows."""
    return _REQUEST % (method, target)


def limit_line(limit: str) -> bytes:
    """The header that tells a replica of ours what set the deadline."""
    return f"{LIMIT}: {limit}\r\n".encode()


def own_times(phases_ms: Sequence[tuple[str, float]], total_ms: float, free: bool) -> bytes:
    """Header lines of an error of the gateway's own: its phases and, where nothing was worked on, that it was free."""
    times = "".join(f"{name};dur={ms:.2f}, " for name, ms in phases_ms)
    return f"{SERVER_TIMING}: {times}total;dur={total_ms:.2f}\r\n".encode() + (COST % 0.0 if free else b"")


def answer_start(status: int) -> bytes:
    """The status line and the name of the header that always comes first: the request's id follows."""
    return _STATUS.get(status) or _ODD_STATUS % status


def without(lines: Sequence[bytes], names: Sequence[bytes]) -> list[bytes]:
    """Header lines (name, colon, value, CRLF, name, …) without those of these lower-case names."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if lines[at] not in names:
            kept += lines[at : at + 4]
    return kept


def may_trail(name: bytes, connection: Collection[bytes]) -> bool:
    """May a header of this lower-case name come behind a body, and be passed on? `connection`: what that one names."""
    return name not in NOT_IN_TRAILERS and name[:6] != b"swell-" and name not in connection


def tokens(value: bytes) -> list[bytes]:
    """The comma-separated words of a header's value, lower case."""
    return [word for word in (part.strip().lower() for part in value.split(b",")) if word]


def chunk(pieces: Sequence[bytes]) -> bytes:
    """All pieces as one chunk; nothing for nothing, since an empty chunk would end the body."""
    size = sum(map(len, pieces))
    return b"".join((b"%x\r\n" % size, *pieces, CRLF)) if size else b""


def answer_head(status: int, request_id: bytes, content_type: bytes, length: int, extra: bytes) -> bytes:
    """The head of an answer of Swell's own. `extra`: further lines, each with its CRLF."""
    return b"%b%b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
        answer_start(status),
        request_id,
        content_type,
        length,
        extra,
    )


def header_of(head: bytes, name: str) -> str | None:
    """The value of a header, by its name in small letters, among the lines that are passed on."""
    wanted = name.encode()
    for line in head.split(b"\r\n"):
        found, _, value = line.partition(b":")
        if found.lower() == wanted:
            return value.strip().decode("latin-1")
    return None


def headers_of(head: bytes) -> tuple[tuple[str, str], ...]:
    """All of the lines that are passed on, by their names in small letters; of those that stand there twice both."""
    lines = (line.partition(b":") for line in head.split(b"\r\n") if line)
    return tuple((name.lower().decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in lines)
