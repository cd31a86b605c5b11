"""Is reading from the connection resumed, however the thread's reading and the loop's feeding fall together?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.wsgi import BODY_AHEAD_MAX, Body
from swell.wire.context import InputCancellation

SIZES = st.sampled_from((1, 1000, BODY_AHEAD_MAX // 4, BODY_AHEAD_MAX - 1, BODY_AHEAD_MAX, 2 * BODY_AHEAD_MAX))


def stop() -> NoReturn:
    raise InputCancellation


class Connection:
    """The loop's end: it feeds what is sent while it is not paused."""

    def __init__(self, sent: Iterator[int]) -> None:
        self.sent = sent
        self.paused = False
        self.body = Body(self._room, stop)

    def _room(self) -> None:
        self.paused = False

    def turn(self) -> bool:
        """As far as it may: one piece. False: nothing came."""
        size = 0 if self.paused else next(self.sent, 0)
        if size:
            self.body.feed(Piece(bytes(size), self))
            self.paused = self.body.full
        return bool(size)


class Piece(bytes):
    """The loop has its turn while this is copied, and is not paused meanwhile where it was not before."""

    connection: Connection

    def __new__(cls, data: bytes, connection: Connection) -> Piece:
        self = super().__new__(cls, data)
        self.connection = connection
        return self

    def __getitem__(self, key: Any) -> Any:
        self.connection.turn()
        part = bytes(self)[key]
        return Piece(part, self.connection) if key.start else part


@given(sent=st.lists(SIZES, min_size=1, max_size=12), buffer=st.sampled_from((64 * 1024, 4096, 3 * BODY_AHEAD_MAX)))
def test_all_that_is_sent_is_read(sent: list[int], buffer: int) -> None:
    connection = Connection(iter(sent))
    read = 0
    while connection.body._pieces or connection.turn():
        read += connection.body.readinto(bytearray(buffer))
    assert read == sum(sent)
