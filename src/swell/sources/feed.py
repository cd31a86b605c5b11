"""How do messages keep coming of a source that goes away and comes back, no more at once than are dealt with?

One task keeps a connection open: it takes what comes while there is room, tells the source what was acknowledged, and
holds the rest. When anything of that fails the connection is closed and another one opened, after a delay that grows
and has chance in it, for ever. What is unacknowledged outlives the connection it came over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from msgspec.structs import replace

from swell.model.errors import brief
from swell.model.retrying import Retrying
from swell.model.source import UNACKNOWLEDGED_MAX, Lag, Message, SourceState
from swell.model.source_ports import Source, SourceConnection

log = logging.getLogger("swell.sources")

RECONNECTING = Retrying(initial_delay_s=0.2, backoff_coefficient=2.0, max_delay_s=30.0)
JITTER = 0.5
"""Share of each delay that chance may take away: many sources of one broker are not to come back at once."""
CONNECT_S = 60.0
PARTING_S = 2.0
"""At the end the source is given so long to hear what is acknowledged, and as long again to close: together less than
control itself is given to end. What it did not hear comes again."""
HELD_BYTES_MAX = 16 * 1024 * 1024
"""While so much is unacknowledged nothing more is taken."""
PORTION_BYTES = 4 * 1024 * 1024
"""What is taken at once, about, going by what came before."""
MEASURE_S = 10.0
"""How often a source is asked how many messages wait there."""
FIRST_PORTION = 8
"""Messages that are taken at first."""


class Feed:
    """The port of that name, over any source."""

    def __init__(
        self,
        name: str,
        source: Source,
        after: str = "",
        unacknowledged_max: int = UNACKNOWLEDGED_MAX,
        *,
        reconnecting: Retrying = RECONNECTING,
        changed: Callable[[SourceState], None] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`name` is for the log. `after`: the watermark of the last message that was acknowledged. `changed` is told
        each new state."""
        self._name = name
        self._source = source
        self._after = after
        self._most = unacknowledged_max
        self._reconnecting = reconnecting
        self._changed = changed
        self._clock = clock
        self._chance = chance
        self._ready: deque[Message] = deque()
        """What came and was not asked for yet."""
        self._held: dict[str, Message] = {}
        """All that is not acknowledged, in the order it came in, as it was handed out last."""
        self._untold: dict[str, Message] = {}
        """What is acknowledged, and the source does not know it for sure; without bodies."""
        self._held_bytes = 0
        self._there: int | None = None
        """Messages that wait at the source, as it said last."""
        self._portion = FIRST_PORTION
        """Messages to take next, at most."""
        self._waiting: set[asyncio.Future[None]] = set()
        """Those that wait for any of these to change."""
        self._task: asyncio.Task[None] | None = None
        self.state = SourceState(False, clock())

    # -- for who takes -----------------------------------------------------------------------

    async def take(self, most: int) -> list[Message]:
        """See the port."""
        await self._until(lambda: bool(self._ready))
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port."""
        for each in messages:
            if each.watermark and each.id in self._held and next(iter(self._held)) != each.id:
                raise ValueError("messages that have a watermark are acknowledged in the order they came in")
            newest = self._held.pop(each.id, None)
            if newest is not None:
                self._held_bytes -= len(newest.body)
                self._untold[each.id] = replace(newest, body=b"")
        self._wake()

    @property
    def lag(self) -> Lag:
        """See the port."""
        waiting = None if self._there is None else self._there + len(self._held)
        return Lag(waiting, min((each.at for each in self._held.values()), default=None))

    async def settled(self) -> None:
        """See the port."""
        await self._until(lambda: not self._untold)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        try:
            if self.state.up:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PARTING_S):
                        await self.settled()
        finally:
            await _ended([self._task])

    # -- the connection ----------------------------------------------------------------------

    async def _keep(self) -> None:
        while not _ends():
            try:
                await _unless_cancelled(self._one())
            except Exception as error:
                if _ends():
                    return
                self._lost(error)
            await asyncio.sleep(self._delay_s())

    async def _one(self) -> None:
        """A connection, from its beginning until it breaks."""
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await stack.enter_async_context(self._source.connect(self._after))
            if _ends():
                return
            works = (
                self._takes(connection),
                self._tells(connection),
                self._holds(connection),
                self._measures(connection),
            )
            tasks = [asyncio.create_task(_unless_cancelled(each)) for each in works]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for each in done:
                    each.result()
            finally:
                await _ended(tasks)
                self._there = None
        finally:
            # One that is broken may not close either.
            with suppress(Exception):
                async with asyncio.timeout(PARTING_S):
                    await stack.aclose()

    async def _takes(self, connection: SourceConnection) -> None:
        # Up, whether or not there is room. Failures are counted until it has answered: one that opens a connection and
        # then fails goes on being tried less often.
        self._told(SourceState(True, self._clock(), failures=self.state.failures))
        while not _ends():
            await self._until(lambda: self._room() > 0)
            came = await connection.take(min(self._room(), self._portion))
            if self.state.failures:
                self._told(SourceState(True, self.state.since))
            for each in came:
                self._came(each)
            self._portion = _next_portion(self._portion, came)
            self._wake()

    def _room(self) -> int:
        if self._held_bytes >= HELD_BYTES_MAX:
            return 0
        return self._most - len(self._held) - len(self._untold)

    def _came(self, message: Message) -> None:
        if message.watermark:
            self._after = message.watermark
        if message.id in self._untold:
            # Handed out once more before it heard; now by this receipt.
            self._untold[message.id] = replace(message, body=b"")
            return
        before = self._held.get(message.id)
        self._held[message.id] = message
        self._held_bytes += len(message.body)
        if before is None:
            self._ready.append(message)
        else:
            self._held_bytes -= len(before.body)

    async def _tells(self, connection: SourceConnection) -> None:
        while not _ends():
            await self._until(lambda: bool(self._untold))
            batch = list(self._untold.values())
            await connection.acknowledge(batch)
            for each in batch:
                if self._untold.get(each.id) is each:
                    del self._untold[each.id]
            self._wake()

    async def _holds(self, connection: SourceConnection) -> None:
        while connection.hold_s is not None and not _ends():
            await asyncio.sleep(connection.hold_s)
            if self._held:
                await connection.hold(list(self._held.values()))

    async def _measures(self, connection: SourceConnection) -> None:
        while not _ends():
            try:
                self._there = await connection.waiting()
            except Exception:
                # Who may not ask, or waits too long for that, is told nothing: what comes of it comes all the same.
                self._there = None
            await asyncio.sleep(MEASURE_S)

    # -- what is known of it -----------------------------------------------------------------

    def _lost(self, error: Exception) -> None:
        why = brief(str(error).strip()) or type(error).__name__
        since = self._clock() if self.state.up else self.state.since
        if self.state.up or not self.state.failures:
            log.warning("source %s is down: %s", self._name, why)
        self._told(SourceState(False, since, why, self.state.failures + 1))

    def _delay_s(self) -> float:
        delay_s = self._reconnecting.delay_s(max(1, self.state.failures))
        return delay_s * (1 - JITTER * self._chance())

    def _told(self, state: SourceState) -> None:
        if state.up and not self.state.up:
            log.info("source %s is up", self._name)
        self.state = state
        if self._changed is not None:
            self._changed(state)

    async def _until(self, true: Callable[[], bool]) -> None:
        """When it returns it is so, and nothing ran in between."""
        while not true():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _wake(self) -> None:
        """Those who wait look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


def _next_portion(portion: int, came: Sequence[Message]) -> int:
    """How many messages to take next, where these came of so many: more and more, as long as they are small."""
    size = sum(len(each.body) for each in came)
    if 2 * size > PORTION_BYTES:
        return max(1, len(came) * PORTION_BYTES // size)
    return min(2 * portion, UNACKNOWLEDGED_MAX) if came else portion


async def _unless_cancelled(work: Coroutine[Any, Any, None]) -> None:
    """A library that is cancelled inside is one that failed: only who is asked to end ends so."""
    try:
        await work
    except asyncio.CancelledError:
        if _ends():
            raise
        raise ConnectionError("the connection was closed") from None


def _ends() -> bool:
    """Is this task asked to end? What it called may have taken that for its own end, and returned."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End them: returns when they did. One that a library kept from it is asked again."""
    left = {*tasks}
    while left:
        for each in left:
            each.cancel()
        _, left = await asyncio.wait(left, timeout=2 * PARTING_S)
    for each in tasks:
        if not each.cancelled():
            # Looked at, or it would be told of as one that nobody looked at.
            each.exception()
