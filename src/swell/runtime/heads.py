"""What head and body may a web application's answer have? What user code gave, checked before any of it is sent."""

from __future__ import annotations

import re

from swell.runtime.http import Headers
from swell.wire.http import HEADER_MAX

HEAD_MAX = HEADER_MAX - 1024
"""Bytes of the headers of an answer, or of its trailers: what the gateway takes, less what is added to them here."""
LINE_EXTRA = len(b": \r\n")
LENGTH_DIGITS_MAX = 18

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


def checked(status: int, headers: Headers) -> tuple[int, list[tuple[bytes, bytes]]]:
    """The head of an answer as user code gave it, for `Exchange.begin`. Raises ValueError for what would not be one
    head on the wire: a line break in a value, which may come from whoever asked, could begin another answer."""
    if not 200 <= status <= 599:
        raise ValueError(f"An answer has a status from 200 to 599, not {status}.")
    kept = [(bytes(name), bytes(value)) for name, value in headers]
    size = 0
    for name, value in kept:
        size += len(name) + len(value) + LINE_EXTRA
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name.decode('latin-1')!r} cannot be the name of a header: use letters, digits and dashes."
            )
        if not _VALUE.fullmatch(value):
            shown = name.decode("latin-1")
            raise ValueError(f"The header {shown} has a line break or control character in its value: encode it first.")
    if size > HEAD_MAX:
        raise ValueError(f"The headers of an answer have {HEAD_MAX} bytes at most, not {size}.")
    return status, kept


class Length:
    """How long is the body that an answer announced, and how much of it was given? `kind`: of application, in words."""

    __slots__ = ("_kind", "announced", "given")

    def __init__(self, kind: str, method: str, status: int, headers: Headers) -> None:
        """Raises ValueError where there is not one length."""
        values = [value for name, value in headers if name.lower() == b"content-length"]
        if len(values) > 1 or any(not value.isdigit() or len(value) > LENGTH_DIGITS_MAX for value in values):
            raise ValueError("An answer has one Content-Length at most, in digits.")
        self._kind = kind
        self.announced = int(values[0]) if values and method != "HEAD" and status not in (204, 304) else -1
        """Bytes; -1 where the head does not say, or says it of an answer that has no body."""
        self.given = 0

    @property
    def reached(self) -> bool:
        """To whoever reads by the announced length the answer is whole."""
        return self.given == self.announced

    def add(self, size: int) -> None:
        """More was given. Raises RuntimeError where that is more than was announced."""
        self.given += size
        if 0 <= self.announced < self.given:
            raise RuntimeError(f"The {self._kind} app gave more than the {self.announced} bytes it announced.")

    def end(self) -> None:
        """No more will be given. Raises RuntimeError where that is less than was announced."""
        if self.given < self.announced:
            raise RuntimeError(f"The {self._kind} app gave {self.given} of the {self.announced} bytes it announced.")
