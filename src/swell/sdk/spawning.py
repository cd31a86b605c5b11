"""How do calls that are spawned at the same time get into the queue? As a disk takes what comes: while one request is
under way the next one gathers.

The first goes at once, alone. Those that gathered go as a group of their own, so that a request whose answer was lost
can be sent again: the server knows each of them by its number. One that is too old to tell their ids is asked for each,
once; from then on each goes alone.
"""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import msgspec

from swell.model.call import group_id
from swell.model.errors import SwellError
from swell.sdk import protocol
from swell.sdk.bridge import adopt
from swell.sdk.protocol import Request
from swell.sdk.queueing import IN_TURN, Queueing
from swell.sdk.shared import ask, request_id
from swell.wire.calls import GROUP_BODY_MAX, GROUP_INPUTS_MAX

if TYPE_CHECKING:
    from swell.sdk.client import Client

BEHIND_S = 1.0
"""Where a request takes longer, no more gather behind it."""
ALONE = frozenset({"bad_argument", "cannot_pickle", "body_too_large"})
"""Errors of one call, or of so many (without pickles they may be larger), that keep all from being sent. None of them
was accepted."""
MEMBERS_MAX = 16
"""Ids that are asked for at the same time."""


class Lane(NamedTuple):
    """Calls that differ in one of these do not go together."""

    path: str
    content_type: str
    accept: str
    how: Queueing


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a call that is in the queue."""

    id: str


class _Several(msgspec.Struct, frozen=True):
    """The answer to several."""

    accepted: Annotated[int, msgspec.Meta(ge=1)]
    """The first so many are in the queue, one at least, and no others."""
    ids: tuple[str, ...] = ()
    """Theirs; none where the server is older than that."""


class Spawned:
    """One that is being accepted."""

    __slots__ = ("lane", "left", "request", "sending", "told")

    def __init__(self, request: Request, how: Queueing) -> None:
        self.request = request
        self.lane = Lane(request.path, request.headers["content-type"], request.headers["accept"], how)
        self.told: Future[str] = Future()
        self.left = False
        """Nobody waits for it any more."""
        self.sending: Sending | None = None

    def tell(self, outcome: str | Exception) -> None:
        """Once; whoever spawned it may have left."""
        told = self.told
        # The input may be large: it goes with whoever spawned it, and waits for no collector of cycles.
        del self.told
        self.sending = None
        if not told.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            # Each one is raised in a thread of its own, which adds to it.
            told.set_exception(copy.copy(outcome))
        else:
            told.set_result(outcome)


class Sending(NamedTuple):
    """Those that go together, and what sends them."""

    all: Sequence[Spawned]
    task: asyncio.Task[None]


class Spawning:
    """All calls that are being put into the queue of one server. But for `accepted`, all of it runs on the loop's
    thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[Lane, dict[Spawned, None]] = {}
        """Those that gather, in the order in which they came, behind a request that is under way."""
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, client: Client) -> Self:
        """The one of a server."""
        found: Self = client.together.get(cls) or client.together.setdefault(cls, cls(client))
        return found

    def accepted(self, request: Request, how: Queueing = IN_TURN) -> Future[str]:
        """Have a call accepted: its id. Any thread may ask. Who cancels it does not know whether it is."""
        each = Spawned(request, how)
        told = each.told
        told.add_done_callback(partial(self._left, each))
        self._client.transport.soon(self._come, each)
        return told

    # ------------------------------------------------------------------------------------------

    def _left(self, each: Spawned, told: Future[str]) -> None:
        """In the thread that told it, or cancelled it."""
        if told.cancelled():
            self._client.transport.soon(self._leave, each)

    def _come(self, each: Spawned) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # It is the first, or this process was forked: what was under way before is so in another one.
            self._loop, self._lines = loop, {}
        if self._client.older:
            self._send([each])
            return
        if each.lane not in self._lines:
            # What comes in the same moment goes along.
            self._begin(self._run(each.lane))
        self._lines.setdefault(each.lane, {})[each] = None

    def _leave(self, each: Spawned) -> None:
        self._lines.get(each.lane, {}).pop(each, None)
        each.left = True
        if each.sending is not None and all(other.left for other in each.sending.all):
            each.sending.task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, lane: Lane) -> None:
        while line := self._lines[lane]:
            some = [*line] if self._client.older else _first(line)
            for each in some:
                del line[each]
            if self._client.older:
                for each in some:
                    self._send([each])
            else:
                await asyncio.wait((self._send(some).task,), timeout=BEHIND_S)
        del self._lines[lane]

    def _send(self, some: Sequence[Spawned]) -> Sending:
        """They are on their way, in one request."""
        sending = Sending(some, self._begin(self._sent(some)))
        for each in some:
            each.sending = sending
        return sending

    async def _sent(self, some: Sequence[Spawned]) -> None:
        try:
            await (self._one(some[0]) if len(some) == 1 else self._several(some))
        except Exception as error:
            apart = len(some) > 1 and isinstance(error, SwellError) and error.code in ALONE
            for each in some:
                # Those that were told are no part of it any more.
                if each.sending is not None and not each.left:
                    if apart:
                        self._send([each])
                    else:
                        each.tell(error)

    async def _one(self, each: Spawned) -> None:
        request = protocol.queued(each.request, request_id(), each.lane.how)
        each.tell((await adopt(ask(self._client, request, Accepted))).id)

    async def _several(self, left: Sequence[Spawned]) -> None:
        group, first = group_id(int(time.time() * 1000), os.urandom(10)), 0
        while left:
            requests = [each.request for each in left]
            made = protocol.grouped(requests, group, first, how=left[0].lane.how)
            answer = await adopt(ask(self._client, made, _Several))
            taken, left = left[: answer.accepted], left[answer.accepted :]
            if len(answer.ids) == answer.accepted:
                for each, id in zip(taken, answer.ids, strict=True):
                    each.tell(id)
            else:
                self._client.older = True
                await self._members(group, first, taken)
            # A limit may not have let in all. They keep their numbers: a lost answer may have been about them, too.
            first += answer.accepted

    async def _members(self, group: str, first: int, taken: Sequence[Spawned]) -> None:
        """These were accepted under numbers from that one on: each is told its id."""
        few = asyncio.Semaphore(MEMBERS_MAX)

        async def tell(number: int, each: Spawned) -> None:
            async with few:
                request = Request("GET", f"/calls/groups/{group}/inputs/{number}")
                try:
                    each.tell((await adopt(ask(self._client, request, Accepted))).id)
                except SwellError as error:
                    each.tell(error)

        await asyncio.gather(*(tell(number, each) for number, each in enumerate(taken, first)))


def _first(line: Iterable[Spawned]) -> list[Spawned]:
    """As many as one request may bring."""
    taken: list[Spawned] = []
    size = 0
    for each in line:
        size += len(each.request.body) + 5
        if taken and (len(taken) == GROUP_INPUTS_MAX or size > GROUP_BODY_MAX // 2):
            break
        taken.append(each)
    return taken
