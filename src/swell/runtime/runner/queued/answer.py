"""What did a replica answer to a queued call? Its bytes as a body, an error and what was used: the call's end."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import httptools
import msgspec

from swell.model.call import Body, Head
from swell.model.ends import PREEMPTED, TERMINATED
from swell.runtime.runner.queued.large import Large
from swell.wire.calls import NOTHING, CallEnd, Granted
from swell.wire.http import (
    BUSY,
    CPU_US,
    ERROR,
    FREE,
    HEADER_MAX,
    JSON,
    OWN_HEADERS,
    RESULT_INLINE_MAX,
    RESULT_MAX,
    RUN_US,
    ErrorEnvelope,
    error_body,
    lower,
    result_too_large,
)

_MUST_GO = frozenset({PREEMPTED, "shutdown"})
"""Why a replica may be told to end that is no fault of what it works on, which is told, too (`ends.SOON`)."""
_FAILED = frozenset({"exception", "deadline", "replica_died"})
"""Codes of a hand-out that came to nothing, which its code, or its process, may have done for being told to end."""
_WORDS_MAX = 64 * 1024
"""Characters of what an error says that are told where it is too large to be told whole."""
_WRITE = 256 * 1024
"""Bytes of a large one that are written together."""
_NUMBER_MAX = 18
"""Digits of a number that is read."""
_OWN = frozenset(name.encode() for name in OWN_HEADERS)
_BUSY, _CPU_US, _ERROR, _FREE, _RUN_US = map(lower, (BUSY, CPU_US, ERROR, FREE, RUN_US))
_errors = msgspec.json.Decoder(ErrorEnvelope)


class Broken(Exception):
    """The bytes are no answer."""


class Free(NamedTuple):
    """What a replica says when it gives one of its slots."""

    slots: int
    """Free beside that one."""
    waiting: int
    """Others that wait for one."""


class Answer:
    """What came of one answer so far."""

    __slots__ = (
        *("body", "busy", "content_type", "cpu_us", "ended", "error", "free", "headed", "headers", "keeps", "large"),
        *("length", "run_us", "size", "status"),
    )

    def __init__(self) -> None:
        self.status = 0
        self.headed = False
        """Its head is whole."""
        self.ended = False
        self.keeps = False
        """The connection can carry another request after it."""
        self.content_type = ""
        self.headers: list[tuple[str, str]] = []
        """Those that its code set."""
        self.length = 0
        """Of its body, as announced."""
        self.body = bytearray()
        """One piece of memory: what comes in chunks of a byte takes no more than it has. Where there is more than is
        told, what is not in `large` yet."""
        self.large: Large | None = None
        self.size = 0
        """Of its body, as far as it came."""
        self.busy = False
        """The request was refused before it was read."""
        self.error = b""
        """Status and code, where the input ended in an error."""
        self.free: Free | None = None
        self.cpu_us = self.run_us = 0

    @property
    def too_large(self) -> bool:
        """There is more of it, or will be, than is kept."""
        return max(self.size, self.length) > RESULT_MAX

    @property
    def refused(self) -> bool:
        """It is not the input's answer: nothing was begun."""
        return self.busy and self.status == 503

    @property
    def not_begun(self) -> bool:
        """Its replica took the call, and says that it will not begin it."""
        return self.refused and self.code == "drained"

    @property
    def code(self) -> str:
        """Of the error that the input ended in; empty where it ended in a result."""
        status, _, code = self.error.partition(b" ")
        # User code can set any header: what is not as the runtime writes it is not from the runtime.
        return code.decode("latin-1") if len(status) == 3 and status.isdigit() else ""


class Answers:
    """The answers on one connection, one after the other."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for large ones."""
        self._folder = folder
        self.answer = Answer()
        self.begun = False
        """Something of it came."""
        self._parser = httptools.HttpResponseParser(self)
        self._overhead = 0
        """Bytes in a row that brought neither a whole head nor any of a body."""

    def next(self) -> None:
        """The answer was dealt with: ready for another one."""
        self.answer = Answer()
        self.begun = False
        self._overhead = 0

    def drop(self) -> None:
        """The connection is closed: what has not come will not."""
        if self.answer.large is not None:
            self.answer.large.drop()

    def feed(self, data: bytes) -> Answer:
        """Take bytes in. Raises Broken."""
        self.begun = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.answer.ended:
                raise Broken from None
            # What came behind it is nothing that was asked for.
            self.answer.keeps = False
        if self._overhead > HEADER_MAX:
            raise Broken
        return self.answer

    # -- the parser's callbacks ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.answer.ended:
            raise ValueError("another answer than the one that was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head, or a trailer behind the body."""
        answer, name = self.answer, name.lower()
        if name == _CPU_US:
            answer.cpu_us = _number(value)
        elif name == _RUN_US:
            answer.run_us = _number(value)
        elif name == _ERROR:
            answer.error = value
        elif answer.headed:
            return
        elif name == b"content-type":
            answer.content_type = value.decode("latin-1")
        elif name == b"content-length":
            answer.length = _number(value)
        elif name == _BUSY:
            answer.busy = True
        elif name == _FREE:
            slots, _, waiting = value.partition(b" ")
            answer.free = Free(_number(slots), _number(waiting))
        elif name not in _OWN and not name.startswith(b"swell-"):
            answer.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        answer = self.answer
        answer.status = self._parser.get_status_code()
        if answer.status < 200:
            raise ValueError("nothing was asked that has such an answer")
        self._overhead = 0
        answer.headed = True
        answer.keeps = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self._overhead = 0
        answer = self.answer
        answer.size += len(piece)
        if answer.too_large:
            return
        answer.body += piece
        if answer.size > RESULT_INLINE_MAX and (answer.large is None or len(answer.body) >= _WRITE):
            answer.large = answer.large or Large(self._folder)
            answer.large.write(answer.body)
            answer.body.clear()

    def on_message_complete(self) -> None:
        self.answer.ended = True


def answered(call: Granted, replica: str, answer: Answer, path: Path) -> CallEnd | None:
    """What came of a call that got this answer, which is whole. `path`: where it is put, where it is large. None: that
    could not be."""
    used, large = (answer.cpu_us, answer.run_us), answer.large
    if answer.too_large:
        if large is not None:
            large.drop()
        return failed(call, replica, "bad_result", result_too_large(RESULT_MAX), *used)
    code = answer.code
    head = Head(answer.status if answer.status != 200 else 0, tuple(answer.headers))
    said = head if not code and head != Head() else None
    if large is None:
        body = Body(answer.content_type, bytes(answer.body), head=said)
        return CallEnd(call.id, call.token, replica, code, _words(answer, body.data) if code else "", body, *used)
    large.write(answer.body)
    if code:
        # What was raised is not kept beside a call.
        words = _words(answer, large.read())[:_WORDS_MAX]
        large.drop()
        return failed(call, replica, code, words, *used)
    digest = large.settle(path)
    body = Body(answer.content_type, digest=digest, head=said)
    return CallEnd(call.id, call.token, replica, "", "", body, *used, size=large.size) if digest else None


def failed(call: Granted, replica: str, code: str, message: str, cpu_us: int = 0, run_us: int = 0) -> CallEnd:
    """The end of a call of which there is no answer, and which its caller is told in these words."""
    body = Body(JSON, error_body(code, message, call.id))
    return CallEnd(call.id, call.token, replica, code, message, body, cpu_us, run_us)


def unfinished(call: Granted, replica: str, code: str, message: str) -> CallEnd:
    """The end of a hand-out that is nothing to its caller: it may be tried again."""
    return CallEnd(call.id, call.token, replica, code, message, NOTHING)


def of_stopped(end: CallEnd, reason: str) -> CallEnd:
    """The end of a hand-out whose replica was told to end, for `reason`; empty where it was not. What has to give way
    may keep what it has and raise, or use all of its grace: it is tried again, and that was no attempt. Where it is not
    known who told it to, its own code perhaps, that is a lost attempt: not for ever."""
    if end.code not in _FAILED:
        return end
    if reason == TERMINATED:
        words = f"Its process was told to end (SIGTERM): {end.message}"
        return msgspec.structs.replace(end, code="replica_died", message=words, body=NOTHING)
    if reason not in _MUST_GO:
        return end
    return msgspec.structs.replace(end, code=PREEMPTED, body=NOTHING)


def _words(answer: Answer, body: bytes) -> str:
    """What the error says."""
    try:
        return _errors.decode(body).error.message
    except msgspec.MsgspecError:
        # It ended a stream, which had begun with what it gave before.
        return f"It ended in an error, {answer.error.decode('latin-1')}."


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) <= _NUMBER_MAX else 0
