"""How are many calls kept going at once? By way of the queue, or so many at a time; results in order or as they come.

What goes through the queue is bounded by what the consumer has had: one that is slow has inputs taken slowly, and if it
dies no more is worked on than was accepted.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import aclosing
from threading import Lock
from typing import Any, Generic, TypeVar

from swell.model.errors import SwellError
from swell.sdk import protocol
from swell.sdk.bridge import Pending
from swell.sdk.group import Group, answer_of
from swell.sdk.inputs import END, Inputs
from swell.sdk.protocol import Answer, Request
from swell.wire.call_rows import GroupEndRow, GroupPage
from swell.wire.calls import GROUP_BODY_MAX, GROUP_INPUTS_MAX, INPUT_MAX

T = TypeVar("T")

IN_FLIGHT_MAX = max(16, 4 * (os.cpu_count() or 1))
"""Calls of one map that are under way at the same time where they do not wait in the queue. Not more: the gateway holds
the arguments of all until replicas are there (`hold_bytes_max`), and each takes the more CPU time the more there are
(1.5 ms with 16 or 32, half as much again with 64)."""
DIRECT_AHEAD_MAX = 2 * IN_FLIGHT_MAX
"""Inputs taken then whose results the consumer has not had yet."""
QUEUED_MIN, QUEUED_MAX = 256, 2000
"""Of what goes through the queue, so many inputs are taken whose results the consumer has not had: at first, and once
it has had as many."""
QUEUED_BYTES_MAX = 64 * 1024 * 1024
"""And bytes of inputs that are not accepted yet: those that are stand on the server, and no longer here."""
HELD_BYTES_MAX = 64 * 1024 * 1024
"""Results that wait for the consumer have about so many bytes; others stay on the server until it is their turn."""
KEEP_S = 3600.0
"""What a map has in the queue is kept so long after its end, where it is not told that its results are here: nobody but
the map asks for them."""


class Arrivals:
    """Futures in the order in which they finish."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._finished: deque[Future[Any]] = deque()
        self._bell: Future[None] | None = None

    def expect(self, future: Future[Any]) -> None:
        """Give it out once it has finished."""
        future.add_done_callback(self._arrived)

    def _arrived(self, future: Future[Any]) -> None:
        with self._lock:
            self._finished.append(future)
            bell, self._bell = self._bell, None
        if bell is not None and bell.set_running_or_notify_cancel():
            bell.set_result(None)

    async def next(self) -> Future[Any]:
        """The next one that has finished."""
        while True:
            with self._lock:
                if self._finished:
                    return self._finished.popleft()
                bell = self._bell = Future()
            await Pending(bell)


class Outcomes:
    """Answers that the consumer has not had, by the numbers of their inputs."""

    def __init__(self, group: Group | None) -> None:
        self._group = group
        self._held: dict[int, Future[Answer] | Answer | str] = {}
        """As they came; an id: it is on the server still."""
        self.size = 0
        """Bytes of those that are here."""
        self._pages: deque[tuple[int, tuple[int, ...]]] = deque()
        """What the queue told, page by page: the number of the last end, and the inputs of all. Those whose results are
        not all known to be here."""
        self._had = 0

    def __contains__(self, index: int) -> bool:
        return index in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        """More would take too much memory."""
        return self.size >= HELD_BYTES_MAX

    def first(self) -> int:
        """The one that came first."""
        return next(iter(self._held))

    def put(self, index: int, answer: Future[Answer]) -> None:
        """One that was called directly."""
        self._held[index] = answer

    def put_end(self, end: GroupEndRow) -> None:
        """One from the queue."""
        if self.full or end.apart:
            self._held[end.index] = end.id
        else:
            self._held[end.index] = answer_of(end)
            self.size += len(end.body)

    def put_page(self, page: GroupPage) -> None:
        """The ends of a page were put here, those that were waited for."""
        self._pages.append((page.last, tuple(end.index for end in page.ends)))

    def had(self) -> int:
        """Ends up to this number are here, results and all: the server need not keep them."""
        while self._pages and not any(isinstance(self._held.get(index), str) for index in self._pages[0][1]):
            self._had, _ = self._pages.popleft()
        return self._had

    async def pop(self, index: int) -> Answer:
        """Raises what the call itself ended in, where that is no answer."""
        held = self._held.pop(index)
        if isinstance(held, Future):
            return held.result()
        if isinstance(held, Answer):
            self.size -= len(held.body)
            return held
        assert self._group is not None
        return await self._group.result(held)


class Queue:
    """The inputs of a map that go through the queue, until they have ended."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.waiting: dict[int, None] = {}
        """The numbers of those taken that have not ended."""
        self.sending: Future[int] | None = None
        self.asking: Future[GroupPage] | None = None
        self._size = 0
        self._fresh: dict[int, Request] = {}
        """Those of them that are not accepted yet, as far as it was told, in the order of their numbers."""
        self._sent: list[int] = []
        """Those that are being sent, or were last."""
        self._told = self._safe = 0
        """The number of the last end that was told, and of the last one whose input is not sent once more."""
        self._lost = False
        """Nothing is left on the server to wait for, as far as it said once."""

    @property
    def full(self) -> bool:
        """No more inputs should be taken."""
        return self._size >= QUEUED_BYTES_MAX

    def add(self, index: int, request: Request) -> None:
        """One more; numbers grow."""
        self.waiting[index] = None
        self._fresh[index] = request
        self._size += len(request.body)

    def send(self) -> Future[int] | None:
        """All that may go in one request, where none is under way; it is to be told to `accepted`."""
        if self.sending is not None or not self._fresh:
            return None
        first, size = next(iter(self._fresh)), 0
        batch: list[Request] = []
        for index, request in self._fresh.items():
            size += len(request.body) + 5
            together = index == first + len(batch) and len(batch) < GROUP_INPUTS_MAX and size <= GROUP_BODY_MAX // 2
            if batch and not together:
                break
            batch.append(request)
        self._sent = list(range(first, first + len(batch)))
        self.sending = self.group.send(batch, first, KEEP_S)
        return self.sending

    def accepted(self, count: int) -> None:
        """The first so many of what was sent are in the queue."""
        self.sending, self._safe = None, self._told
        for index in self._sent[:count]:
            self._put_away(index)

    def ask(self, had: int) -> Future[GroupPage] | None:
        """For what has ended, where something may and nobody asks; it is to be told to `ended`. The server may forget
        what ended up to number `had`."""
        accepted = len(self.waiting) - len(self._fresh)
        if self.asking is not None or not accepted:
            return None
        self.asking = self.group.ends(accepted, had=self.forgettable(had))
        return self.asking

    def forgettable(self, had: int) -> int:
        """What was had up to that number, but for what may be sent once more: the server has to know that again."""
        if self.sending is None:
            self._safe = self._told
        return min(had, self._safe)

    def ended(self, page: GroupPage) -> list[GroupEndRow]:
        """Those of what was told that were waited for. SwellError where the others cannot be."""
        self.asking, self._told = None, page.last
        found = [end for end in page.ends if end.index in self.waiting]
        if page.problem is not None:
            raise protocol.failed_request(page.problem, 503)
        # What ended between two looks is told by the next page.
        if page.open == 0 and self._lost:
            words = "A call of this map ended, and is not kept any more: its result was not asked for in time."
            raise SwellError("unknown_call", words, status=404)
        self._lost = page.open == 0
        return found

    def over(self, index: int) -> None:
        """It has ended."""
        del self.waiting[index]
        # An end may be told before it is that its call was accepted.
        self._put_away(index)

    def _put_away(self, index: int) -> None:
        """It need not be sent again."""
        request = self._fresh.pop(index, None)
        if request is not None:
            self._size -= len(request.body)


class Map(Generic[T]):
    """One map, while its consumer iterates."""

    def __init__(
        self,
        inputs: Inputs,
        asked: Callable[[tuple[Any, ...]], T],
        submit: Callable[[T], Future[Answer]],
        ordered: bool,
        group: Group | None = None,
        only_queued: bool = False,
    ) -> None:
        """`asked`: the call for an input, a Request where there is a `group`, which are put into the queue then: also
        those that are too large for it, where `only_queued`. `submit` has it answered without that."""
        self._inputs = inputs
        self._asked = asked
        self._submit = submit
        self._ordered = ordered
        self._only_queued = only_queued
        self._queue = Queue(group) if group is not None else None
        self._outcomes = Outcomes(group)
        self._arrivals = Arrivals()
        self._taking: Future[Any] | None = None
        self._more = True
        self._taken = self._given = 0
        self._aside: deque[tuple[int, T]] = deque()
        """What is to be called directly, and is not yet."""
        self._direct: dict[Future[Answer], int] = {}

    async def run(self) -> AsyncGenerator[Answer | Exception, None]:
        """The answer to each input, or what its call raised. What is under way at the end is cancelled."""
        try:
            while True:
                await self._begin()
                if self._taking is None and not self._direct and not (self._queue and self._queue.waiting):
                    return
                await self._take_in(await self._arrivals.next())
                while self._outcomes and (not self._ordered or self._given in self._outcomes):
                    index = self._given if self._ordered else self._outcomes.first()
                    try:
                        answer: Answer | Exception = await self._outcomes.pop(index)
                    except Exception as error:
                        answer = error
                    yield answer
                    self._given += 1
        finally:
            await self._close()

    async def _begin(self) -> None:
        """All that there is room for."""
        queue = self._queue
        while self._aside and len(self._direct) < IN_FLIGHT_MAX:
            index, asked = self._aside.popleft()
            answer = self._submit(asked)
            self._direct[answer] = index
            self._arrivals.expect(answer)
        if self._more and self._taking is None and self._room():
            self._taking = await self._inputs.take()
            self._arrivals.expect(self._taking)
        if queue is None:
            return
        begun: list[Future[Any] | None] = [queue.send()]
        # Where one is missing that all others wait for, it may be among those that are still to be told.
        if not self._outcomes.full or (self._ordered and self._given not in self._outcomes):
            begun.append(queue.ask(self._outcomes.had()))
        for future in begun:
            if future is not None:
                self._arrivals.expect(future)

    def _room(self) -> bool:
        """May one more input be taken?"""
        ahead = self._taken - self._given
        if self._aside or len(self._direct) >= IN_FLIGHT_MAX:
            return False
        if self._queue is None:
            return ahead < DIRECT_AHEAD_MAX
        return ahead < min(QUEUED_MIN + self._given, QUEUED_MAX) and not self._queue.full

    async def _take_in(self, future: Future[Any]) -> None:
        """Something that was waited for is there."""
        queue = self._queue
        if future is self._taking:
            self._taking = None
            args = future.result()
            if args is END:
                self._more = False
                return
            asked = self._asked(args)
            fits = isinstance(asked, Request) and (self._only_queued or len(asked.body) <= INPUT_MAX)
            if queue is not None and isinstance(asked, Request) and fits:
                queue.add(self._taken, asked)
            else:
                self._aside.append((self._taken, asked))
            self._taken += 1
        elif future in self._direct:
            self._outcomes.put(self._direct.pop(future), future)
        elif queue is not None and future is queue.sending:
            queue.accepted(future.result())
        elif queue is not None:
            page = future.result()
            for end in queue.ended(page):
                queue.over(end.index)
                self._outcomes.put_end(end)
            self._outcomes.put_page(page)

    async def _close(self) -> None:
        for future in self._direct:
            future.cancel()
        queue = self._queue
        if queue is not None and queue.asking is not None:
            queue.asking.cancel()
        try:
            if queue is not None and queue.waiting:
                await queue.group.leave(queue.sending)
            elif queue is not None:
                queue.group.forget(self._outcomes.had(), queue.sending)
        finally:
            await self._inputs.close()


async def run(each: Map[Any], read: Callable[[Answer], Any], *, return_exceptions: bool) -> AsyncGenerator[Any, None]:
    """The result of each input; its exception in place of that, or raised."""
    async with aclosing(each.run()) as answers:
        async for answer in answers:
            try:
                if isinstance(answer, Exception):
                    raise answer
                result = read(answer)
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result
