"""What does a replica answer? Its bytes as status, header lines, pieces of the body, and what was used.

Heads that our runtime writes are remembered byte for byte, but for what was used, which it writes last: most
answers of one method look the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import httptools

from swell.gateway.heads import COLON, CRLF, NOT_FORWARDED, NOT_IN_TRAILERS, OWS, may_trail, tokens
from swell.gateway.shared import AnswerHead
from swell.model.call import is_call_id
from swell.model.request import Together, is_id
from swell.wire.http import BATCH, BUSY, COST_USD, CPU_US, ERROR, HEADER_MAX, REQUEST_ID, RUN_US, TRAILERS, lower

KNOWN_ANSWERS_MAX = 1024
KNOWN_ANSWER_MAX = 1024
"""Bytes of a head that is remembered."""
NUMBER_MAX = 18
"""Digits of a number that is read."""

_USED = re.compile(
    rb"\r\n%b: (\d{1,%d})\r\n%b: (\d{1,%d})(?:\r\n%b: ([0-9A-Za-z -]{1,99}))?\r\n\r\n"
    % (CPU_US.encode(), NUMBER_MAX, RUN_US.encode(), NUMBER_MAX, BATCH.encode())
)
"""What was used, and nothing after it: other lines would be remembered as those of all heads that begin alike."""
_CPU_US, _RUN_US, _BUSY, _ERROR, _BATCH = map(lower, (CPU_US, RUN_US, BUSY, ERROR, BATCH))
_SPECIAL = NOT_FORWARDED | {
    b"content-length",
    lower(REQUEST_ID),
    lower(COST_USD),
    _CPU_US,
    _RUN_US,
    _BUSY,
    _ERROR,
    _BATCH,
}


class Broken(Exception):
    """The bytes are no answer that can be passed on."""


class Switched(Exception):
    """The replica agreed to a WebSocket: what came behind its answer (the one argument) is no HTTP."""


@dataclass(slots=True, eq=False)
class Answer:
    """What came of one answer so far."""

    status: int = 0
    headed: bool = False
    """Its head is whole."""
    ended: bool = False
    length: int = -1
    """Of its body, where it says so."""
    coded: bool = False
    """In chunks."""
    keeps: bool = False
    """The connection can carry another request after it."""
    busy: bool = False
    """A replica of ours refused the request before it read it."""
    error: bytes = b""
    """Status and code, where the input ended in an error."""
    cpu_us: int = -1
    run_us: int = -1
    """CPU time of the input and time in user code; -1: nobody said."""
    batch: bytes = b""
    """What it was worked on together with, as the replica tells it."""
    named: Sequence[bytes] = ()
    """Headers that are about the connection, by what it says itself."""
    lines: Sequence[bytes] = ()
    """Header lines to pass on: name, colon, value, CRLF, name…; or all of them as one."""
    trailers: Sequence[bytes] = ()
    pieces: Sequence[bytes] = ()
    """Of the body, since they were last taken."""


class Answers:
    """The answers on one connection to a replica, one after the other. `known` are heads seen before, on any."""

    def __init__(self, native: bool, known: dict[bytes, AnswerHead]) -> None:
        self.native = native
        self.known = known
        self.switching = False
        """A WebSocket may be agreed to on this connection."""
        self.answer = Answer()
        self.begun = False
        """Something of it came."""
        self._parser = httptools.HttpResponseParser(self)
        self._begins = b""
        """How its head begins, if it came whole and is not known yet."""
        self._bodiless = False
        self._overhead = 0
        """Bytes read in a row that brought neither a whole head nor any of a body."""
        self._clear()

    def _clear(self) -> None:
        self._named: list[bytes] = []
        self._lines: list[bytes] = []
        self._protocols: list[bytes] = []
        self.announced: list[bytes] = []
        """Trailers that it says it will have, and may."""
        self._trailers: list[bytes] = []
        self._pieces: list[bytes] = []

    def next(self) -> None:
        """The answer was dealt with: ready for another one."""
        self.answer = Answer()
        self.begun = False
        self._overhead = 0

    def taken(self) -> None:
        """The pieces were passed on."""
        if self._pieces:
            self.answer.pieces = self._pieces = []

    def feed(self, data: bytes, bodiless: bool) -> Answer:
        """Take bytes in. `bodiless`: it answers a HEAD. Raises Broken, and Switched where that may be; what came before
        stands in `answer`."""
        if not self.begun:
            self.begun = True
            if self.native and not bodiless and self._seen_before(data):
                return self.answer
        self._bodiless = bodiless
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.switching and self.answer.status == 101:
                raise Switched(data[upgrade.args[0] :]) from None
            raise Broken from None
        except httptools.HttpParserError:
            raise Broken from None
        if self._overhead > HEADER_MAX:
            raise Broken
        return self.answer

    def _seen_before(self, data: bytes) -> bool:
        """Take in one whole answer whose head, but for what was used, was parsed before; else note how it begins."""
        used = _USED.search(data, 0, KNOWN_ANSWER_MAX)
        if used is None or data.find(b"\r\n\r\n") != used.end() - 4:
            return False
        begins = data[: used.start()]
        known = self.known.get(begins)
        if known is None:
            self._begins = begins
            return False
        if len(data) - used.end() != known.length:
            return False
        answer = self.answer
        answer.headed = answer.ended = answer.keeps = True
        answer.status = known.status
        answer.length = known.length
        answer.lines = known.lines
        answer.cpu_us = int(used[1])
        answer.run_us = int(used[2])
        if used.lastindex == 3:
            answer.batch = used[3]
        if known.length:
            answer.pieces = (data[used.end() :],)
        return True

    def _remember(self, answer: Answer) -> None:
        """Keep what a plain head says, for `_seen_before`."""
        plain = answer.keeps and not (self._named or answer.coded or answer.busy or answer.error)
        if plain and answer.length >= 0 and answer.status not in (204, 304):
            if len(self.known) >= KNOWN_ANSWERS_MAX:
                self.known.clear()
            self.known[self._begins] = AnswerHead(answer.status, (b"".join(self._lines),), answer.length)
        self._begins = b""

    # -- the parser's callbacks -----------------------------------------------------------

    def on_message_begin(self) -> None:
        answer = self.answer
        if answer.ended:
            raise ValueError("another answer than the one that was asked for")
        self._clear()
        answer.named, answer.lines = self._named, self._lines
        answer.trailers, answer.pieces = self._trailers, self._pieces

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self.answer.headed:
            if name in _SPECIAL or name in NOT_IN_TRAILERS:
                self._special(name, value)
            elif may_trail(name, self._named):
                self._trailers += (name, COLON, value.rstrip(OWS), CRLF)
        elif name in _SPECIAL:
            self._special(name, value)
        else:
            self._lines += (name, COLON, value.rstrip(OWS), CRLF)

    def _special(self, name: bytes, value: bytes) -> None:
        answer = self.answer
        if name == b"content-length" and not answer.headed:
            answer.length = int(value)
            self._lines += (name, COLON, b"%d" % answer.length, CRLF)
        elif name == b"transfer-encoding" and not answer.headed:
            # As it is, with no space behind it: the parser reads the body of any other to the connection's end.
            if answer.coded or value.lower() != b"chunked":
                raise ValueError("only chunked can be passed on")
            answer.coded = True
        elif name == b"connection":
            self._named += tokens(value)
            if answer.headed:
                # Behind a body it means nothing, but the parser heeds it, and would refuse the next answer.
                answer.keeps = False
        elif name == b"trailer" and not answer.headed:
            if value != TRAILERS:
                self.announced += [word for word in tokens(value) if may_trail(word, ())]
        elif name == b"upgrade":
            self._protocols.append(value.rstrip(OWS).lower())
        elif self.native:
            if name == _CPU_US and _is_number(value):
                answer.cpu_us = int(value)
            elif name == _RUN_US and _is_number(value):
                answer.run_us = int(value)
            elif name == _BUSY:
                answer.busy = True
            elif name == _ERROR:
                answer.error = value
            elif name == _BATCH:
                answer.batch = value

    def on_headers_complete(self) -> None:
        answer = self.answer
        answer.status = self._parser.get_status_code()
        if answer.status >= 200:
            if sum(map(len, self._lines)) > HEADER_MAX:
                raise ValueError("too many headers to pass on")
            self._overhead = 0
            answer.headed = True
            answer.keeps = self._parser.should_keep_alive()
            if self._begins:
                self._remember(answer)
            if self._bodiless:
                answer.ended = True
        elif answer.status == 101:
            bodiless = not answer.coded and answer.length < 0 and self._protocols == [b"websocket"]
            if not (self.switching and bodiless and self._parser.should_upgrade()):
                raise ValueError("nothing was asked to be upgraded, or to another protocol")
            answer.headed = True
        elif answer.status < 100:
            raise ValueError("there is no such status")
        else:
            self._begins = b""

    def on_body(self, piece: bytes) -> None:
        if self.answer.ended:
            raise ValueError("a body where none may be")
        self._overhead = 0
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.answer.headed:
            self.answer.ended = True
        else:
            self.next()


def together(told: bytes) -> Together | None:
    """What a replica told of a batch; None where it is not as the runtime writes it: user code can set any header."""
    parts = told.split()
    if len(parts) != 4 or not all(map(_is_number, parts[:3])):
        return None
    first = parts[3].decode("latin-1")
    if not (is_id(first) or is_call_id(first)):
        return None
    return Together(int(parts[0]), int(parts[1]) / 1e3, int(parts[2]) / 1e3, first)


def _is_number(value: bytes) -> bool:
    return value.isdigit() and len(value) <= NUMBER_MAX
