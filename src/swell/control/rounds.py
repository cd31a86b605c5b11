"""What is in one write of the durable queue, and what did the store answer?

All that came since the round before: new calls, ends, changes, and leases for the replicas that have room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from swell.control.hands import DUE_MAX, Hand
from swell.control.results import LargeResults
from swell.model.call import Call, Change, Depth, Outcome, Work
from swell.model.errors import SwellError
from swell.model.ports import Store
from swell.model.trigger import Delivery
from swell.model.workload import Variant
from swell.wire.calls import CallEnd

log = logging.getLogger("swell.control")

T = TypeVar("T")


class New(NamedTuple):
    """Calls that are to be accepted together, one at least, and who waits for that: for their ids."""

    works: list[Work]
    ids: asyncio.Future[tuple[str, ...]]
    delivery: Delivery | None = None
    """What makes them."""
    variant: Variant | None = None
    """What their workload is, where it is one."""


class Asked(NamedTuple):
    """A change, and who waits for it."""

    change: Change
    call: asyncio.Future[Call | None]


class Told(NamedTuple):
    """An end, and of which node's runner it was heard; empty: nobody's, control itself says so."""

    end: CallEnd
    node: str


class Round(NamedTuple):
    """What is to be written."""

    news: list[New]
    told: list[Told]
    """Ends of leases."""
    outcomes: list[Outcome]
    """What those came to, one each; and then what came of the attempts of gangs."""
    gangs: list[tuple[Call, CallEnd]]
    """Those attempts, and what they ended with."""
    changes: list[Asked]
    hands: list[Hand]
    looked: list[str]
    """Workloads whose queue may be otherwise after it."""

    @property
    def works(self) -> list[Work]:
        """The calls that are new."""
        return [work for new in self.news for work in new.works]

    @property
    def variants(self) -> dict[str, Variant]:
        """What the workloads of these are that are variants."""
        return {new.works[0].call.workload: new.variant for new in self.news if new.variant is not None}

    @property
    def writes(self) -> bool:
        """There is something that must be on disk before anyone is told."""
        return bool(self.news or self.outcomes or self.changes)


class Written(NamedTuple):
    """What the store answered."""

    ids: Sequence[str]
    recorded: Sequence[bool]
    changed: Sequence[Call | None]
    leased: list[Sequence[Work]]
    depths: list[Depth | None]
    """None: it could not be read."""


def write(store: Store, results: LargeResults, made: Round, now: float) -> Written:
    """In a thread: all of it is on disk, or nothing is. Leases alone, which need not be, are committed one by one."""
    calls = store.calls

    def lease() -> list[Sequence[Work]]:
        return [
            calls.lease(each.workload, each.most, now, each.token, each.replica, each.pool, each.idle)
            for each in made.hands
        ]

    if made.writes:
        results.take(made.outcomes)
        with store.transaction():
            ids = calls.add(made.works, made.variants)
            if any(new.delivery is not None for new in made.news):
                store.triggers.deliver(_Deliveries(made.news, ids))
            recorded = calls.finish(made.outcomes)
            changed = calls.change([asked.change for asked in made.changes])
            leased = lease()
    else:
        ids, recorded, changed, leased = [], [], [], lease()
    return Written(ids, recorded, changed, leased, [_depth(store, workload, now) for workload in made.looked])


class _Deliveries:
    """What makes new calls, each with the call that is kept: its own, or one that was there under its key."""

    def __init__(self, news: Sequence[New], ids: Sequence[str]) -> None:
        """`ids`: of all calls, as the store answers when it writes them."""
        self._news = news
        self._ids = ids

    def __iter__(self) -> Iterator[Delivery]:
        first = 0
        for new in self._news:
            if new.delivery is not None:
                yield new.delivery.of(self._ids[first], new.works[0].call.accepted_at)
            first += len(new.works)


def _depth(store: Store, workload: str, now: float) -> Depth | None:
    try:
        return store.calls.depth(workload, now, DUE_MAX)
    except SwellError as error:
        # What was written is written all the same.
        log.error("how many calls wait cannot be read: %s", error.message)
        return None


def answer(future: asyncio.Future[T], value: T) -> None:
    """Once."""
    if not future.done():
        future.set_result(value)


def fail(news: Iterable[New], changes: Iterable[Asked], error: SwellError) -> None:
    """Whoever waits for these, and was not answered, is told."""
    futures: list[asyncio.Future[Any]] = [*(new.ids for new in news), *(asked.call for asked in changes)]
    for future in futures:
        if not future.done():
            future.set_exception(error)


def logged(how: str, error: Exception) -> SwellError:
    """The error as who waits is told it."""
    if isinstance(error, SwellError):
        log.error("the queue of calls cannot be %s: %s", how, error.message)
        return error
    log.error("the queue of calls could not be %s", how, exc_info=error)
    return SwellError("internal", "The server made a mistake; its log says which.", status=500)
