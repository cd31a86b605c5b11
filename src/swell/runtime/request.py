"""What does a request say before its body, and until when is its answer waited for?"""

from __future__ import annotations

import math
import time

from swell.wire.context import Reply
from swell.wire.http import LIMIT, TRUSTED, lower

_LIMIT, _TRUSTED = map(lower, (LIMIT, TRUSTED))


class Head:
    """What a request's head says and others like it say too. Header names are lower case."""

    __slots__ = ("fields", "headers", "length", "method", "target", "trusted")

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.fields = dict(headers)
        self.headers = [(name, value) for name, value in headers if not name.startswith(b"swell-")]
        """Those that are not Swell's own, in order."""
        self.trusted = self.fields.get(_TRUSTED) == b"1"
        self.length = int(self.fields.get(b"content-length", 0))


class Request:
    """One request: its head, its id, and until when (monotonic seconds) its answer is waited for."""

    __slots__ = ("deadline", "head", "headers", "id", "method", "reply", "target", "token", "trusted")

    def __init__(self, head: Head, id: bytes, remaining_ms: bytes, token: bytes = b"") -> None:
        self.head = head
        self.method = head.method
        self.target = head.target
        self.headers = head.headers
        self.trusted = head.trusted
        self.id = id.decode("latin-1")
        self.token = int(token) if token.isdigit() and len(token) < 20 else 0
        """Of a queued call: what it was handed out with. Its answer is kept; 0 of any other request."""
        self.reply: Reply | None = None
        """What user code wants in the head of the answer."""
        self.deadline = _deadline(remaining_ms)
        """Infinite when the gateway named none."""

    def past_deadline(self, where: str) -> str:
        """What its caller is told when its deadline passes: how long it was, what set it, and where it was then."""
        limit = self.header(_LIMIT).decode("latin-1")
        return f"The deadline{' of ' if limit else ''}{limit} passed while {where}."

    def header(self, name: bytes) -> bytes:
        """The (last) value of a header; empty when it is not there."""
        return self.head.fields.get(name, b"")


def _deadline(remaining_ms: bytes) -> float:
    if not remaining_ms:
        return math.inf
    try:
        return time.monotonic() + float(remaining_ms) / 1000
    except ValueError:
        return math.inf
