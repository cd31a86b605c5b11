"""How do all that wait for calls in this process hear of their ends? They are asked for together, in a few requests.

What is asked for is not delayed for company: it goes at once where few requests wait at the server, else with what that
has not told of as soon as it answers, or after a moment, in place of those. A server that is too old for that is asked
for each of them, in a request of its own.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Self

import msgspec

from swell.model.errors import SwellError
from swell.model.unknown import unknown_call
from swell.sdk import ends, protocol, shared
from swell.sdk.bridge import adopt
from swell.sdk.protocol import Answer, Request
from swell.wire.call_rows import ASKED_MAX, EndsPage

if TYPE_CHECKING:
    from swell.sdk.client import Client

WAIT_S = 50.0
"""How long one request waits; then the next one does. Proxies between may not like longer ones."""
LATE_S = 10.0
"""An answer may come so much later than it was asked for. Then it is taken for lost."""
BUSY_S = 1.0
"""Where too many wait, one looks again and again, after such a pause."""
CROWDED_S = 30.0
"""For so long after that was told. Then it is tried to wait once more."""
FEW = 3
"""Requests that wait at the server, beside those that ask for as many calls as one can."""
JOIN_S = 0.01
"""Where there are so many, the next one takes their place after such a pause, if none is answered before."""
EACH_S = 30e-6
"""What it costs, here and there, to ask for one call. For as long as all cost together, those that an answer did not
tell of are not asked for again: so where thousands wait, each answer tells many ends."""
LARGE_MAX = 4
"""Large results that come at the same time."""
SINGLE_MAX = 256
"""Requests that wait at a server that is asked for each call by itself. Where there are more, they take turns."""
TURN_S = 1.0
"""How long such a request waits then, where half of these have no end."""


class Wait:
    """One that waits for the end of one call."""

    __slots__ = ("asking", "id", "known", "lost_at", "told", "until")

    def __init__(self, id: str, until: float) -> None:
        self.id = id
        self.until = until
        """It waits no longer (monotonic)."""
        self.told: Future[Answer | None] = Future()
        self.asking: Asking | None = None
        self.known = False
        """The server has answered it. Where that is away after it, it is asked again for a while."""
        self.lost_at = math.inf
        """Since when answers to it are lost (monotonic)."""

    def tell(self, outcome: Answer | Exception | None) -> None:
        """Once; it may have left."""
        told = self.told
        # A result may be large: it goes with whoever waited for it, and waits for no collector of cycles.
        del self.told
        if not told.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Exception):
            # Each one is raised in a thread of its own, which adds to it.
            told.set_exception(copy.copy(outcome))
        else:
            told.set_result(outcome)


class Asking:
    """One request, until it is answered, and who waits for that."""

    def __init__(self, waits: Iterable[Wait], look: bool, single: bool) -> None:
        self.waits: dict[Wait, None] = dict.fromkeys(waits)
        self.look = look
        """It only looks: it is answered at once."""
        self.single = single
        """It asks for one call, as older servers are asked."""
        self.full = len(self.waits) >= ASKED_MAX
        self.task: asyncio.Task[None] | None = None
        for wait in self.waits:
            wait.asking = self

    @property
    def until(self) -> float:
        """The first of them waits no longer."""
        return min((wait.until for wait in self.waits), default=math.inf)

    def pause_s(self, seconds: float) -> float:
        """That, or less where one of them does not wait for so long."""
        return min(seconds, max(self.until - time.monotonic(), 0.0))

    def tell(self, wait: Wait, outcome: Answer | Exception | None) -> None:
        """It waits no longer."""
        del self.waits[wait]
        wait.tell(outcome)


class Waiting:
    """All that wait for calls of one server. But for `ended`, all of it runs on the loop's thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._begin(None)

    @classmethod
    def of(cls, client: Client) -> Self:
        """The one of a server."""
        found: Self = client.together.get(cls) or client.together.setdefault(cls, cls(client))
        return found

    def ended(self, id: str, until: float) -> Future[Answer | None]:
        """What the call would have been answered itself; None where it has not ended by then (monotonic). Any thread
        may ask. Who cancels it waits no longer. SwellError unknown_call, and what keeps the server from telling."""
        wait = Wait(id, until)
        told = wait.told
        told.add_done_callback(partial(self._left, wait))
        self._client.transport.soon(self._come, wait)
        return told

    # ------------------------------------------------------------------------------------------

    def _left(self, wait: Wait, told: Future[Answer | None]) -> None:
        """In the thread that told it, or cancelled it."""
        if told.cancelled():
            self._client.transport.soon(self._leave, wait)

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._fresh: dict[Wait, None] = {}
        """Those that no request asks for."""
        self._askings: dict[Asking, None] = {}
        """Those under way."""
        self._timer: asyncio.TimerHandle | None = None
        self._crowded_until = -math.inf
        self._fetching: set[asyncio.Task[None]] = set()
        self._few_large = asyncio.Semaphore(LARGE_MAX)
        self._least = 1
        """Half as many ends as came the last time are worth a moment the next time."""

    def _come(self, wait: Wait) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # It is the first, or this process was forked: who waited before did so in another one.
            self._begin(loop)
        if not self._fresh or wait.until <= time.monotonic():
            # What comes in the same moment goes along.
            loop.call_soon(self._send)
        self._fresh[wait] = None

    def _leave(self, wait: Wait) -> None:
        self._fresh.pop(wait, None)
        asking = wait.asking
        if asking is not None and wait in asking.waits:
            del asking.waits[wait]
            if not asking.waits:
                self._drop(asking)
                self._send()

    def _send(self) -> None:
        """What is fresh goes, if it may."""
        now = time.monotonic()
        self._ask([wait for wait in self._fresh if wait.until <= now], look=True)
        if not self._fresh:
            self._still()
        elif self._client.older:
            self._still()
            self._ask([*islice(self._fresh, max(SINGLE_MAX - len(self._few()), 0))], look=False)
        elif len(self._few()) < FEW:
            self._still()
            self._ask([*self._fresh], look=False)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(JOIN_S, self._apart_s()), self._join)

    def _join(self) -> None:
        """One request in place of a few."""
        self._still()
        for asking in self._few() if self._fresh else ():
            waits, asking.waits = asking.waits, {}
            self._fresh |= waits
            self._drop(asking)
        self._send()

    def _few(self) -> list[Asking]:
        return [asking for asking in self._askings if not asking.full and not asking.look]

    def _apart_s(self) -> float:
        """So long after one that was answered the next one asks for the same calls."""
        return EACH_S * (len(self._fresh) + sum(len(asking.waits) for asking in self._askings))

    def _still(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self, waits: list[Wait], look: bool) -> None:
        most = 1 if self._client.older else ASKED_MAX
        for at in range(0, len(waits), most):
            asking = Asking(waits[at : at + most], look, self._client.older)
            for wait in asking.waits:
                del self._fresh[wait]
            self._askings[asking] = None
            asking.task = asyncio.get_running_loop().create_task(self._run(asking))

    def _drop(self, asking: Asking) -> None:
        """Nobody waits for it any more. It may not even have begun."""
        self._askings.pop(asking, None)
        if asking.task is not None:
            asking.task.cancel()

    async def _run(self, asking: Asking) -> None:
        try:
            page = await self._page(asking)
            if page is not None:
                self._take(asking, page)
            if asking.waits:
                crowded = time.monotonic() < self._crowded_until
                await asyncio.sleep(asking.pause_s(BUSY_S if crowded else self._apart_s()))
        except Exception as error:
            # Also what nobody foresaw: nobody is to wait for ever.
            for wait in [*asking.waits]:
                asking.tell(wait, error)
        finally:
            # Of one that others were put in place of, nobody waits here.
            self._askings.pop(asking, None)
            self._fresh |= asking.waits
            self._send()

    def _take(self, asking: Asking, page: EndsPage) -> None:
        """Whom it concerns is told."""
        now = time.monotonic()
        ended = {end.id: end for end in page.ends}
        unknown = frozenset(page.unknown)
        if len(asking.waits) > 1:
            self._least = max(len(ended) // 2, 1)
        for wait in [*asking.waits]:
            if wait.id in ended and ended[wait.id].apart:
                del asking.waits[wait]
                task = asyncio.get_running_loop().create_task(self._fetch(wait))
                self._fetching.add(task)
                task.add_done_callback(self._fetching.discard)
            elif wait.id in ended:
                asking.tell(wait, ends.answer_of(ended[wait.id]))
            elif wait.id in unknown:
                asking.tell(wait, unknown_call(wait.id))
            elif not ended and now >= wait.until:
                # A page of large results may not have had room for that of all.
                asking.tell(wait, None)
            else:
                wait.known, wait.lost_at = True, math.inf

    async def _fetch(self, wait: Wait) -> None:
        """It has ended, and its result is apart from that. Who waits for it waits for as long as that takes."""
        try:
            async with self._few_large:
                request = ends.of_one(wait.id, 0.0)
                wait.tell(await adopt(shared.asked(self._client, lambda: (request, None), known=True)))
        except Exception as error:
            wait.tell(error)

    async def _page(self, asking: Asking) -> EndsPage | None:
        """The answer to them, whoever is left; None: each is to be asked for by itself. What is no such answer is told
        to all, but for what is lost on the way: then it is asked again for a while."""
        failed = 0
        while asking.waits:
            request, wait_s = self._request(asking)
            try:
                answer = await adopt(self._client.transport.send(request, within_s=wait_s + LATE_S))
                if not asking.single and ends.cannot_be_many(answer):
                    self._client.older = True
                    return None
                if (page := _told(asking, answer)) is not None:
                    return page
                error = protocol.failure(answer)
            except SwellError as lost:
                error = lost
            if isinstance(error, SwellError) and (error.code, error.status) == ("busy", 503):
                self._crowded_until = time.monotonic() + CROWDED_S
                break
            self._lose(asking, error)
            if asking.waits:
                await asyncio.sleep(asking.pause_s(shared.AGAIN_S[min(failed, len(shared.AGAIN_S) - 1)]))
            failed += 1
        return ends.NONE

    def _request(self, asking: Asking) -> tuple[Request, float]:
        """With how long it waits at the server, in seconds."""
        now = time.monotonic()
        most = TURN_S if asking.single and len(self._few()) > SINGLE_MAX // 2 else WAIT_S
        wait_s = 0.0 if now < self._crowded_until else min(max(asking.until - now, 0.0), most)
        ids = list(dict.fromkeys(wait.id for wait in asking.waits))
        if asking.single:
            return ends.of_one(ids[0], wait_s), wait_s
        return ends.of_many(ids, min(self._least, len(ids)), wait_s), wait_s

    def _lose(self, asking: Asking, error: Exception) -> None:
        """It was not answered. Those for whom it is not asked again are told so."""
        now = time.monotonic()
        code = error.code if isinstance(error, SwellError) else ""
        for wait in [*asking.waits]:
            # Once it was there, it may be that all of it is being started anew.
            was_there = wait.known or wait.lost_at < math.inf
            wait.lost_at = min(wait.lost_at, now)
            may_come = code in (*shared.LOST, "no_answer") or (code == "no_server" and was_there)
            if not may_come or now >= min(wait.until, wait.lost_at + shared.RETRY_S):
                asking.tell(wait, error)


def _told(asking: Asking, answer: Answer) -> EndsPage | None:
    if not asking.single:
        return msgspec.msgpack.decode(answer.body, type=EndsPage) if answer.ok else None
    # Who waits for it may have left by now.
    return ends.told_of_one(next((wait.id for wait in asking.waits), ""), answer)
