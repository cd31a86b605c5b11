"""How are many calls put into the queue together, and what has ended of them? By one id, in a few requests."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress

import msgspec

from swell.model.call import BATCH_MAX, group_id
from swell.sdk import protocol
from swell.sdk.bridge import Pending
from swell.sdk.client import Client
from swell.sdk.protocol import Answer, Request
from swell.sdk.queueing import IN_TURN, Queueing
from swell.sdk.shared import asked
from swell.wire.call_rows import GroupEndRow, GroupPage, GroupRow
from swell.wire.http import CALL_STATE

WAIT_S = 10.0
"""How long one request waits for what ends next."""
LATE_S = 30.0
"""An answer may come so much later than it was asked for. Then it is taken for lost."""
LEAST_MAX = 250
"""So many ends are worth a page of their own."""
FULL = ("busy", "too_many_held", "too_many_queued")
"""Of what could not be taken in at that moment: it is sent again."""
ROOM_S = 180.0
"""Where large results take all the room there is, it is sent again for so long: those that were had go in a minute."""
FULL_S = 0.5
"""After such a pause."""
CLOSE_S = 5.0
"""The end of a map waits so long for its calls to be cancelled: they are later, too."""


class _Accepted(msgspec.Struct, frozen=True):
    """The answer to inputs of a group: the first so many are in the queue."""

    accepted: int


class Group:
    """Calls that were made together, on one server. Its operations run on the loop's thread (`Transport.begin`)."""

    def __init__(self, client: Client, id: str = "", how: Queueing = IN_TURN) -> None:
        """`id`: of one that is there; none: a new one. `how`: its calls are put into the queue."""
        self.client = client
        self._how = how
        self.id = id or group_id(int(time.time() * 1000), os.urandom(10))
        self.last = 0
        """The number of the last end that was told."""
        self._had = 0
        """Ends up to this number the server was told to forget."""
        self._pages: deque[tuple[int, int]] = deque()
        """Of pages since, taken together as far as the server forgets as many at once: the last number, how many."""
        self._known = False
        """The server has answered. Where it is away after that, it is asked again for a while."""

    def send(self, requests: Sequence[Request], first: int, keep_s: float = 0.0) -> Future[int]:
        """Have calls accepted for inputs with these numbers: how many of them were, one at least. What was accepted
        before is not accepted again, so where the answer is lost they are sent once more."""
        return self.client.transport.begin(self._send(requests, first, keep_s))

    def ends(self, least: int, had: int = 0) -> Future[GroupPage]:
        """What has ended since the last time: nothing where nothing did for a while. About `least` are waited for where
        that is no matter of time. Ends up to number `had` may be forgotten there."""
        return self.client.transport.begin(self._ends(max(min(least, LEAST_MAX), 1), math.inf, had))

    def forget(self, had: int, sending: Future[int] | None) -> None:
        """Ends up to that number may be forgotten there: it is said in the background, when what is `sending` has been
        accepted and is not sent once more."""
        if had > self._had and not sys.is_finalizing():
            self.client.transport.begin(self._forget(had, sending))

    async def result(self, id: str) -> Answer:
        """What one of its calls would have been answered itself."""
        return await self._answer(Request("GET", f"/calls/{id}/result"))

    async def row(self) -> GroupRow:
        """All of it, in numbers."""
        answer = await self._answer(self._asked("GET"))
        if not answer.ok:
            raise protocol.failure(answer)
        return msgspec.json.decode(answer.body, type=GroupRow)

    async def cancel(self) -> None:
        """End what has not ended of it."""
        answer = await self._answer(self._asked("DELETE"))
        if not answer.ok:
            raise protocol.failure(answer)

    async def leave(self, sending: Future[int] | None) -> None:
        """The same, and nothing of what is `sending` is accepted later, for whoever does not care how that goes. Where
        the server is away it is said again in the background, as long as anything is."""
        if sending is not None:
            sending.cancel()
        # While the interpreter ends nothing answers any more.
        if not sys.is_finalizing():
            leaving = self.client.transport.begin(self._leave())
            await Pending(self.client.transport.begin(_settled(leaving, CLOSE_S)))

    # ------------------------------------------------------------------------------------------

    async def _send(self, requests: Sequence[Request], first: int, keep_s: float) -> int:
        request = protocol.grouped(requests, self.id, first, keep_s, self._how)
        until = time.monotonic() + ROOM_S
        while True:
            answer = await self._answer(request)
            if answer.ok:
                return msgspec.json.decode(answer.body, type=_Accepted).accepted
            code = protocol.error_of(answer).code
            if code not in FULL and (code != "results_full" or time.monotonic() >= until):
                raise protocol.failure(answer)
            await asyncio.sleep(FULL_S)

    async def _ends(self, least: int, until: float, had: int) -> GroupPage:
        """None is waited for, nor asked for once more, after `until` (monotonic)."""
        busy = False
        while True:
            wait_s = 0.0 if busy else min(max(until - time.monotonic(), 0.0), WAIT_S)
            told = self._at_once(had)
            had_too = f"&had={told}" if told > self._had else ""
            request = self._asked("GET", f"/ends?after={self.last}&least={least}&wait_s={wait_s:.3f}{had_too}")
            answer = await self._answer(request, WAIT_S + LATE_S, until)
            if answer.ok:
                page = msgspec.msgpack.decode(answer.body, type=GroupPage)
                self._take(page, told)
                return page
            if protocol.error_of(answer).code not in FULL:
                raise protocol.failure(answer)
            # Too many wait.
            busy = True
            await asyncio.sleep(FULL_S)

    def _at_once(self, had: int) -> int:
        """So far of what was had the server forgets all, if it is told that number."""
        return min(had, self._pages[0][0]) if self._pages else had

    def _take(self, page: GroupPage, told: int) -> None:
        """It was answered, and what was had was `told`."""
        self.last, self._had = page.last, max(self._had, told)
        ends = len(page.ends)
        if ends and self._pages and self._pages[-1][1] + ends <= BATCH_MAX:
            ends += self._pages.pop()[1]
        if ends:
            self._pages.append((page.last, ends))
        while self._pages and self._pages[0][0] <= self._had:
            self._pages.popleft()

    async def _forget(self, had: int, sending: Future[int] | None) -> None:
        with suppress(Exception):
            if sending is not None:
                await asyncio.wrap_future(sending)
            while had > self._had:
                await self._ends(1, -math.inf, had)

    async def _leave(self) -> None:
        with suppress(Exception):
            await self.cancel()

    async def _answer(self, request: Request, within_s: float | None = None, until: float = math.inf) -> Answer:
        answer = await asked(self.client, lambda: (request, within_s), until, self._known)
        self._known = True
        return answer

    def _asked(self, method: str, rest: str = "") -> Request:
        return Request(method, f"/calls/groups/{self.id}{rest}")


async def _settled(future: Future[None], within_s: float) -> None:
    """It is done, or so much time has passed."""
    await asyncio.wait({asyncio.wrap_future(future)}, timeout=within_s)


def answer_of(end: GroupEndRow) -> Answer:
    """What its call would have been answered itself."""
    return Answer(end.status, {"content-type": end.content_type, CALL_STATE.lower(): end.state}, end.body)
