"""What was asked and heard of the durable queue, and waits for the next round? New calls, ends, changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from swell.control.rounds import Asked, New, Told, fail
from swell.model.call import BATCH_MAX, Call, Change, Retry, Work
from swell.model.errors import SwellError
from swell.model.trigger import Delivery
from swell.model.workload import Variant
from swell.wire.calls import CallEnd, Lease

BATCH = BATCH_MAX
"""New calls, ends, and changes, that one round takes in at most."""
BATCH_BYTES = 32 * 1024 * 1024
"""And bytes of inputs, or results: about so many."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Inputs of new calls that may wait to be written; further ones are refused."""
EACH_BYTES = 1024
"""What a call takes in memory beside its input, about."""


class Inbox:
    """All that waits. Rounds take it out in the order in which it came."""

    def __init__(self) -> None:
        self._news: list[New] = []
        self._news_bytes = 0
        self._told: dict[Lease, Told] = {}
        """One of each hand-out."""
        self._changes: list[Asked] = []

    def __bool__(self) -> bool:
        return bool(self._news or self._told or self._changes)

    # -- in ----------------------------------------------------------------------------------

    def accept(
        self, works: list[Work], delivery: Delivery | None = None, variant: Variant | None = None
    ) -> asyncio.Future[tuple[str, ...]]:
        """The ids of these calls, once all are on disk. SwellError busy where too much waits already."""
        size = _size(works)
        if self._news_bytes + size > WAITING_BYTES_MAX:
            words = "More calls come in than the disk takes: try again in a moment."
            raise SwellError("busy", words, status=503)
        future: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self._news.append(New(works, future, delivery, variant))
        self._news_bytes += size
        return future

    def change(self, change: Change) -> asyncio.Future[Call | None]:
        """The call after it."""
        future: asyncio.Future[Call | None] = asyncio.get_running_loop().create_future()
        self._changes.append(Asked(change, future))
        return future

    def hear(self, node: str, ends: Iterable[CallEnd]) -> None:
        """What came of calls, as the runner of that node says; empty: as control itself takes it."""
        for end in ends:
            lease = (end.id, end.token)
            before = self._told.get(lease)
            # A result is worth more than an error, and what a runner says than what control takes for lost.
            if before is None or (before.end.code and (node or not before.node)):
                self._told[lease] = Told(end, node)

    def put_back(self, told: Iterable[Told]) -> None:
        """They were not written, and are the first again. What was heard of the same meanwhile stands."""
        self._told = {(each.end.id, each.end.token): each for each in told} | self._told

    def put_back_asked(self, news: list[New], changes: list[Asked]) -> None:
        """These were not written either, and are to be."""
        self._news, self._changes = news + self._news, changes + self._changes
        self._news_bytes += sum(_size(new.works) for new in news)

    # -- out ---------------------------------------------------------------------------------

    def take_news(self, most: int = BATCH) -> list[New]:
        """As many as one round takes in: so many calls, or what is accepted together."""
        size = calls = taken = 0
        for new in self._news:
            calls += len(new.works)
            if not most or (taken and (calls > most or size >= BATCH_BYTES)):
                break
            size += _size(new.works)
            taken += 1
        news, self._news = self._news[:taken], self._news[taken:]
        self._news_bytes -= size
        return news

    def take_changes(self, most: int = BATCH) -> list[Asked]:
        """As many as one round takes in."""
        size = taken = 0
        for asked in self._changes[:most]:
            if size >= BATCH_BYTES:
                break
            new = asked.change.input if isinstance(asked.change, Retry) else None
            size += len(new.data) if new is not None else 0
            taken += 1
        changes, self._changes = self._changes[:taken], self._changes[taken:]
        return changes

    def take_told(self, most: int = BATCH) -> Iterator[Told]:
        """As many as one round takes in."""
        size = taken = 0
        while self._told and taken < most and size < BATCH_BYTES:
            each = self._told.pop(next(iter(self._told)))
            size += len(each.end.body.data)
            taken += 1
            yield each

    def fail(self, error: SwellError) -> None:
        """Whoever waits for a new call, or a change, is told. What was heard stays."""
        news, self._news, self._news_bytes = self._news, [], 0
        changes, self._changes = self._changes, []
        fail(news, changes, error)


def _size(works: list[Work]) -> int:
    return sum(EACH_BYTES + len(work.input.data) for work in works)
