"""Bytes as clients might send them, for property tests: requests that are nearly in order, and damaged ones."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import strategies as st

NEXT = b"GET /next HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"

FOUND = sorted((Path(__file__).parent / "corpus").glob("*.http"))
"""Connections that were once read wrongly, byte for byte, or that are close to such: each a file, tried first."""

# -- requests of parts that are each odd at times -------------------------------------------------------------

first_lines = st.sampled_from(
    [b"GET /a HTTP/1.1", b"POST /b?c=d HTTP/1.1", b"POST /b HTTP/1.1", b"HEAD /c HTTP/1.1", b"PUT /d HTTP/1.1"] * 4
    + [
        b"POST http://shop.localhost/p HTTP/1.1",
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
    [b"Host: shop.localhost"] * 12
    + [b"host:shop.localhost:80", b"Host: [::1]", b"Host:", b"Host: a b", b"Host: a\x80", b"X: none"]
)
sizes = st.sampled_from(
    [b"5"] * 8
    + [b"05", b"5;a", b"5;a=b", b'5;a="b c"', b"5;", b"5 ", b"5 ;a", b"5\t", b" 5", b"+5", b"-5", b"0x5", b"5_"]
    + [b"5;a\rb", b"5;a\nb", b"5;\x00", b"5g", b"", b"0" * 30 + b"5", b"F" * 17, b'5;a="\r\n"', b"5;" + b"x" * 3000]
)
trailers = st.sampled_from(
    [b""] * 6
    + [b"X: y\r\n", b"x:  y\t\r\nX-2: \r\nx: z\r\n", b"Trailer: x\r\nAuthorization: Bearer y\r\n"]
    + [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Swell-Trusted: 1\r\n"]
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


# -- requests in order, then damaged --------------------------------------------------------------------------

WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_AT_SHOP = b" HTTP/1.1\r\nHost: shop.localhost\r\n"
SOUND = [
    NEXT,
    b"POST /web/shop/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"POST /b?c" + _AT_SHOP + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n2;e=f\r\nyo\r\n0\r\n\r\n",
    b"PUT /d" + _AT_SHOP + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"GET http://shop.localhost/e HTTP/1.1\r\nHost: other.localhost\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n",
    b"POST /f" + _AT_SHOP + b"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\n0\r\n0\r\nX: y\r\n\r\n",
    b"GET /g HTTP/1.0\r\nHost: shop.localhost\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /h" + _AT_SHOP + b"Swell-Trusted: 1\r\n\r\n",
    b"GET /k" + _AT_SHOP + WEBSOCKET + b"\r\n",
    # Its body looks like a request: whoever loses the length reads one more.
    b"POST /i" + _AT_SHOP + b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT),
]
_TOKENS = [
    *(b"\n", b"\r", b"\r\n", b" ", b"\t", b"\r\n ", b"\x00", b"\x0b", b"\x7f", b"\x80", b"%0d%0a"),
    *(b":", b",", b";", b"#", b"@", b'"', b"/", b"0", b"1", b"5", b"+", b"-", b"0x", b"_"),
    *(b"0\r\n", b"0\r\n\r\n", b"chunked", b"identity", b"HTTP/1.0"),
]
_LINES = [
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 40", b"Content-Length : 5"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding:", b"Transfer-Encoding : chunked"),
    *(b"Connection: close", b"Connection: content-length, transfer-encoding, host"),
    *(b"Upgrade: websocket", WEBSOCKET[:-2]),
    *(b"Upgrade: h2c\r\nConnection: upgrade", b"Expect: 100-continue", b"Host: o.localhost", b"X: a\r\n b", b" X: y"),
]
_EDGES = re.compile(rb"\r\n|[: ;,\d/]")
"""Where parsers look: most damage elsewhere changes a name or a value and nothing more."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A few requests that are in order, with damage where parsers look."""
    raw = b"".join(draw(st.lists(st.sampled_from(SOUND), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        edges = [match.start() for match in _EDGES.finditer(raw)] or [0]
        at = max(0, edges[draw(st.integers(0, 10_000)) % len(edges)] + draw(st.integers(-1, 2)))
        what = draw(st.sampled_from(["insert", "insert", "replace", "remove", "line", "line", "again"]))
        token = draw(st.sampled_from(_TOKENS))
        if what == "insert":
            raw = raw[:at] + token + raw[at:]
        elif what == "replace":
            raw = raw[:at] + token + raw[at + len(token) :]
        elif what == "remove":
            raw = raw[:at] + raw[at + draw(st.integers(1, 3)) :]
        else:
            begins = raw.rfind(b"\r\n", 0, at) + 2
            line = raw[begins:].partition(b"\r\n")[0] if what == "again" else draw(st.sampled_from(_LINES))
            raw = raw[:begins] + line + b"\r\n" + raw[begins:]
    return raw
