"""Is a request that asks for a WebSocket one that may be passed on? The opening handshake of RFC 6455, 4.2.1."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from swell.gateway.heads import Malformed
from swell.gateway.request import Request
from swell.wire.websocket import VERSION, is_key

_KEY, _VERSION = b"sec-websocket-key", b"sec-websocket-version"
_VERSIONS = b"sec-websocket-version: %b\r\nupgrade: websocket\r\n" % VERSION


def check(request: Request, connection: Collection[bytes], lines: Sequence[bytes]) -> None:
    """Raise Malformed for what no server could agree to.

    `connection` is what its Connection header names; `lines` are the headers that go on (name, colon, value, CRLF…).
    """
    if request.method != b"GET" or not request.http11:
        raise Malformed(400, "bad_request", "A WebSocket is asked for with GET, in HTTP/1.1.")
    if b"upgrade" not in connection:
        raise Malformed(400, "bad_request", "A request for a WebSocket has `Connection: Upgrade` beside its Upgrade.")
    if _values(lines, _VERSION) != [VERSION]:
        message = "The only version of WebSocket spoken here is 13: send it once, in Sec-WebSocket-Version."
        raise Malformed(426, "bad_request", message, _VERSIONS)
    keys = _values(lines, _KEY)
    if len(keys) != 1 or not is_key(keys[0]):
        raise Malformed(400, "bad_request", "A request for a WebSocket has one Sec-WebSocket-Key: 16 bytes in base64.")


def _values(lines: Sequence[bytes], name: bytes) -> list[bytes]:
    return [lines[at + 2] for at in range(0, len(lines), 4) if lines[at] == name]
