"""What does a client say? Its bytes as requests: parsing, framing checks and limits.

httptools' strict parser refuses what smuggling is made of; what it lets pass and HTTP does not (the host,
sizes and counts, codings we do not speak) is refused here. Heads that were found in order are remembered
byte for byte, since most callers send the same one again and again.
"""

from __future__ import annotations

from collections import deque

import httptools

from swell.gateway.handshake import check
from swell.gateway.heads import COLON, CRLF, NOT_FORWARDED, OWS, Malformed, may_trail, tokens, without
from swell.gateway.request import ClientSide, Refused, Request
from swell.gateway.shared import Head, Shared
from swell.model.hosts import is_host
from swell.wire.http import (
    ASYNC,
    DELAY,
    FIRST,
    GROUP,
    HEADER_MAX,
    HEADERS_MAX_COUNT,
    ITEM_TYPE,
    KEEP,
    PRIORITY,
    TIMEOUT,
    lower,
)

KNOWN_HEADS_MAX = 1024
KNOWN_HEAD_MAX = 4096
"""Bytes of a head that is remembered."""
GOOD_HOSTS_MAX = 1000
"""Hosts remembered as being in order."""
KNOWN_HOST_MAX = 255
"""Bytes of a host that is remembered: no name is longer."""

_SPECIAL = NOT_FORWARDED | {b"host", b"content-length", b"authorization", b"origin"}
_TIMEOUT = lower(TIMEOUT)
_LATER = frozenset(map(lower, (ASYNC, PRIORITY, DELAY, GROUP, FIRST, KEEP, ITEM_TYPE)))
_ONE_HOST = "A request needs exactly one Host header."
_TOO_LARGE = f"The head of a request, and its trailers, may have {HEADER_MAX} bytes."
_NOT_HTTP = frozenset(
    b"ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SETUP SET_PARAMETER SOURCE TEARDOWN".split()
)
"""Methods of RTSP and ICE, which the parser takes with a first line of theirs; parsers of HTTP do not know them."""


class Switching(Exception):
    """The last request asks for a WebSocket: what came behind its head (the one argument) is no HTTP."""


class Inbound:
    """The requests of one connection, in the order they came. `now` is when bytes arrived, on the loop's clock."""

    def __init__(self, shared: Shared, client: ClientSide, now: float) -> None:
        self.shared = shared
        self.client = client
        self.parser = httptools.HttpRequestParser(self)
        self.queue: deque[Request] = deque()
        """Parsed as far as they came, waiting for their turn."""
        self.last: Request | None = None
        """The newest request: the one whose body is being read."""
        self.now = now
        self.head_since = now
        """When the head being read began, or the connection without one; 0: none is."""
        self.between = True
        """The parser stands between two requests: what comes next begins one."""
        self.raw = b""
        """The bytes of the head that is about to be parsed, if it came whole; empty otherwise."""
        self.overhead = 0
        """Bytes read in a row that brought neither a whole head nor any of a body."""
        self.dropped: list[bytes] = []
        """What the Connection header of the last request in chunks names: not passed on as a trailer, either."""
        self.expecting: Request | None = None
        """The last request whose client expects to be told to continue with its body, be it that it was."""
        self._clear()

    def _clear(self) -> None:
        """Ready for the next head."""
        self.in_head = False
        self.url = b""
        self.lines: list[bytes] = []
        self.host: bytes | None = None
        self.length = -1
        self.odd = False
        """A header was seen that most requests do not have: those below."""
        self.others = 0
        self.codings: list[bytes] = []
        self.named: list[bytes] = []
        self.announced: list[bytes] = []
        self.wants_trailers = False
        self.expects = False
        self.upgrades: list[bytes] = []
        self.authorization: bytes | None = None
        self.origin: bytes | None = None
        self.timeout: bytes | None = None
        self.later: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes, now: float) -> None:
        """Parse bytes into `queue` and `last`. Raises Malformed, and Switching: then nothing more is to be fed."""
        self.now = now
        if self.between and self._seen_before(data):
            return
        self.overhead += len(data)
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self.last is not None and self.last.websocket:
                    raise Switching(bytes(rest[upgrade.args[0] :])) from None
                # What was asked to change is ignored; the parser stopped because it cannot know that.
                self.parser = httptools.HttpRequestParser(self)
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                self._not_understood(error)
                break
        if self.overhead > HEADER_MAX:
            raise Malformed(431, "headers_too_large", _TOO_LARGE)

    def _not_understood(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, Malformed):
            raise cause
        if isinstance(error, httptools.HttpParserCallbackError):
            raise error
        # After a request that asked to close, nothing counts any more.
        if not (self.last is not None and self.last.complete and not self.last.keep_alive):
            raise Malformed(400, "bad_request", f"The request is not valid HTTP/1.1: {error}.")

    def refused(self, refusal: Refused) -> Request:
        """Mark the request that could not be read as refused; a new one if it was not even begun."""
        request = self.last
        if request is None or request.complete:
            request = Request(self.shared, self.client, self.now, b"", b"", self.shared.next_id())
            request.complete = True
            self.last = request
            self.queue.append(request)
        request.refusal = refusal
        request.keep_alive = False
        self.head_since = 0.0
        return request

    # -- the parser's callbacks -----------------------------------------------------------

    def _seen_before(self, data: bytes) -> bool:
        """Take in one whole request whose head, byte for byte, was parsed before; else remember where its head ends."""
        end = data.find(b"\r\n\r\n") + 4
        raw = data[:end]
        known = self.shared.heads.get(raw)
        if known is None:
            # Empty lines may come before a request: only what begins with a method is a head and nothing else.
            self.raw = raw if 4 < end <= KNOWN_HEAD_MAX and data[:1].isalpha() else b""
            return False
        if len(data) - end != known.length:
            return False
        shared = self.shared
        request = Request(shared, self.client, self.now, known.method, known.target, shared.next_id())
        request.host = known.host
        request.head = known.head
        if known.length:
            request.length = request.size = known.length
            request.body.append(data[end:])
        if known.authorization is not None:
            request.authorization = known.authorization
        if known.origin is not None:
            request.origin = known.origin
        if known.timeout is not None:
            request.timeout = known.timeout
        request.complete = True
        self.last = request
        self.queue.append(request)
        self.head_since = 0.0
        return True

    def on_message_begin(self) -> None:
        self.between = False
        self.in_head = True
        self.head_since = self.now

    def on_url(self, url: bytes) -> None:
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if not self.in_head:
            self._trailer(name, value.rstrip(OWS))
            return
        value = value.rstrip(OWS)
        if name in _SPECIAL or name[:6] == b"swell-":
            self._special(name, value)
        else:
            self.lines += (name, COLON, value, CRLF)

    def _trailer(self, name: bytes, value: bytes) -> None:
        """A header behind the body: passed on there, if it is one that may come so late."""
        if self.last is not None and may_trail(name, self.dropped):
            self.last.trailers += b"%b: %b\r\n" % (name, value)

    def _special(self, name: bytes, value: bytes) -> None:
        """Headers the gateway itself reads. Those about the connection, and Swell's own, go no further."""
        if name == b"host" and self.host is None:
            self.host = value
            return
        if name == b"content-length":
            # Written anew: of zeros in front others might make something else.
            self.length = int(value)
            self.lines += (name, COLON, b"%d" % self.length, CRLF)
            return
        self.odd = True
        self.others += 1
        if name == b"host":
            raise Malformed(400, "bad_request", _ONE_HOST)
        if name == b"authorization":
            if self.authorization is not None:
                raise Malformed(400, "bad_request", "The request has more than one Authorization header.")
            self.authorization = value
        elif name == b"connection":
            self.named += tokens(value)
        elif name == b"transfer-encoding":
            self.codings.append(value.lower())
        elif name == b"expect":
            self.expects = value.lower() == b"100-continue"
        elif name == b"te":
            self.wants_trailers = self.wants_trailers or b"trailers" in tokens(value)
        elif name == b"trailer":
            self.announced += [word for word in tokens(value) if may_trail(word, ())]
        elif name == b"upgrade":
            self.upgrades.append(value.lower())
        elif name == b"origin":
            self.origin = value
            self.lines += (name, COLON, value, CRLF)
        elif name == _TIMEOUT:
            self.timeout = value
        elif name in _LATER:
            self.later.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        self.overhead = 0
        request = Request(self.shared, self.client, self.now, parser.get_method(), self.url, self.shared.next_id())
        if self.host not in self.shared.good_hosts:
            self._check_host(parser.get_http_version())
        if self.host is not None:
            request.host = self.host
        if self.length > 0:
            request.length = self.length
        if self.odd or parser.get_http_version() != "1.1" or request.method == b"CONNECT":
            self._odd_head(request)
        if request.method in _NOT_HTTP:
            raise Malformed(400, "bad_request", f"{request.method.decode()} is not a method of HTTP.")
        if b"#" in self.url:
            raise Malformed(400, "bad_request", "The target of a request has no fragment (#…): leave it out.")
        request.head = head = b"".join(self.lines)
        if len(head) + len(self.url) > HEADER_MAX:
            raise Malformed(431, "headers_too_large", _TOO_LARGE)
        if len(self.lines) // 4 + self.others > HEADERS_MAX_COUNT:
            raise Malformed(431, "headers_too_large", f"A request may have {HEADERS_MAX_COUNT} headers.")
        if self.raw:
            self._remember(request)
        self.last = request
        self.queue.append(request)
        self.head_since = 0.0
        self.in_head = False
        self.url = b""
        self.host = None
        self.length = -1
        self.lines = []
        if self.odd:
            self._clear()

    def _remember(self, request: Request) -> None:
        """Keep what a plain head says, for `_seen_before`."""
        plain = request.http11 and request.keep_alive and not request.chunked and not self.upgrades and not self.expects
        if plain and not request.later:
            heads = self.shared.heads
            if len(heads) >= KNOWN_HEADS_MAX:
                heads.clear()
            heads[self.raw] = Head(
                request.method,
                request.target,
                request.host,
                request.head,
                request.length,
                request.authorization,
                request.origin,
                request.timeout,
            )
        self.raw = b""

    def _check_host(self, version: str) -> None:
        """Exactly one host, and one that is a host; HTTP/1.0 may do without. Raises Malformed."""
        if self.host is None:
            if version == "1.1":
                raise Malformed(400, "bad_request", _ONE_HOST)
            return
        if not is_host(self.host):
            raise Malformed(400, "bad_request", "The Host header is not a host name with an optional port.")
        good = self.shared.good_hosts
        if len(self.host) > KNOWN_HOST_MAX:
            return
        if len(good) >= GOOD_HOSTS_MAX:
            good.clear()
        good.add(self.host)

    def _odd_head(self, request: Request) -> None:
        """Everything that most requests do without. Raises Malformed for what cannot be served."""
        parser = self.parser
        version = parser.get_http_version()
        request.http11 = version == "1.1"
        request.keep_alive = parser.should_keep_alive()
        if version not in ("1.1", "1.0"):
            raise Malformed(505, "bad_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if request.method == b"CONNECT":
            raise Malformed(501, "bad_request", "CONNECT is not served here.")
        if self.codings:
            if not request.http11:
                raise Malformed(400, "bad_request", "HTTP/1.0 has no Transfer-Encoding.")
            if self.codings != [b"chunked"]:
                raise Malformed(501, "bad_request", "The only Transfer-Encoding taken is chunked.")
            request.chunked = True
        # The parser takes a request that offers another protocol, whatever it is called, for one without a body.
        if self.upgrades and (self.length > 0 or self.codings):
            raise Malformed(501, "bad_request", "Upgrading the connection is not served here.")
        offers = self.upgrades and b"websocket" in tokens(b",".join(self.upgrades))
        if self.named:
            self.lines = without(self.lines, [n for n in self.named if n != b"content-length"])
        if offers:
            check(request, self.named, self.lines)
            request.websocket = True
            # Whatever it is answered: what comes behind it is not read as a request.
            request.keep_alive = False
        if self.codings:
            self.lines += (b"transfer-encoding", COLON, b"chunked", CRLF)
            self.dropped = self.named
            if self.announced:
                self.lines += (b"trailer", COLON, b", ".join(self.announced), CRLF)
        if self.wants_trailers and not offers:
            self.lines += (b"connection", COLON, b"TE", CRLF, b"te", COLON, b"trailers", CRLF)
        request.expects = self.expects and request.http11 and (self.length > 0 or request.chunked)
        if request.expects:
            self.expecting = request
        request.authorization = self.authorization
        request.origin = self.origin
        request.timeout = self.timeout
        request.later = tuple(self.later)

    def on_body(self, piece: bytes) -> None:
        request = self.last
        assert request is not None
        self.overhead = 0
        request.size += len(piece)
        if not request.done:
            if request.size > request.body_max:
                raise Malformed(413, "body_too_large", request.body_limit)
            request.body.append(piece)

    def on_message_complete(self) -> None:
        self.between = True
        self.overhead = 0
        self.raw = b""
        if self.last is not None:
            self.last.complete = True
