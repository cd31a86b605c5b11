"""The doors to where messages come from: what a source must do, and what is had of it.

Every source passes the conformance suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from swell.model.source import Lag, Message, SourceState


class SourceConnection(Protocol):
    """A way to a source that is open. Each method raises when it is broken; then another one is opened.

    While one take is under way what came before is acknowledged and held.
    """

    @property
    def hold_s(self) -> float | None:
        """What is not acknowledged is to be held so often, or others get it; None: it need not be."""
        ...

    async def take(self, most: int) -> Sequence[Message]:
        """What comes next, in the source's order, up to `most` (at least 1). It waits while there is nothing, and may
        give up after a while: with nothing. Never cancelled but to close the connection."""
        ...

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """These need not come again. Returns once the source knows. They may have come over an earlier connection, and
        may be acknowledged already."""
        ...

    async def hold(self, messages: Sequence[Message]) -> None:
        """These are being dealt with still."""
        ...

    async def waiting(self) -> int | None:
        """How many messages there are that `take` did not bring yet, counted up to `WAITING_MAX`; None: that cannot be
        told. It is asked now and again, also while one take is under way."""
        ...


class Source(Protocol):
    """Where messages come from. Adapters are small: reconnecting, bounds and what comes twice are `Feed`'s.

    A source remembers what was acknowledged, and brings all else again; or it does not, then each message has the
    watermark to go on from. Ids are the same whenever something comes again.
    """

    def connect(self, after: str) -> AbstractAsyncContextManager[SourceConnection]:
        """Open a way to it, or raise within a minute. `after`: the watermark to go on behind; empty for none."""
        ...


class Feed(Protocol):
    """What comes of a source, for the one who makes calls of it. It is open inside `async with`, whether or not the
    source is up; at the end it tells the source what is acknowledged, where it is up, and closes."""

    @property
    def state(self) -> SourceState: ...

    @property
    def lag(self) -> Lag: ...

    async def take(self, most: int) -> list[Message]:
        """What came, oldest first, at least one; waits for it. What is taken and not acknowledged is bounded: then it
        waits, too. May be cancelled: nothing is lost."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """These are durably in the queue; those with a watermark in the order they came in. The source is told soon,
        and again where the connection breaks. ValueError for what is out of order."""
        ...

    async def settled(self) -> None:
        """Returns when the source knows all that was acknowledged so far."""
        ...

    async def __aenter__(self) -> Feed: ...

    async def __aexit__(self, *args: object) -> None: ...
