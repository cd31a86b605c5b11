"""Does the code run that finds events? For each trigger that has a class for that, one call of it is under way.

It is a call in the durable queue, as any: it outlives control, and is lost with no replica. What it finds it posts, as
others do (`events`). It ends when its time is nearly up, or as its code does; whenever it has ended another one is
begun, of the version that has the traffic then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from swell.control.event_triggers import Live
from swell.control.feeds import finished
from swell.model.call import BATCH_MAX, Body, Call, CallError, member_key
from swell.model.call_ports import CallRecords
from swell.model.errors import SwellError
from swell.model.ports import Clock
from swell.model.retrying import Retrying
from swell.model.source import SourceState
from swell.model.subscription import DELIVER, OwnSource
from swell.model.workload import workload_of
from swell.wire.calls import NewCall
from swell.wire.http import JSON, MSGPACK, ErrorBody

log = logging.getLogger("swell.control")

LOOK_S = 2.0
"""How often it is looked how its call stands."""
AGAIN_S = 1.0
"""Code that came to its end without an error is begun anew after so long."""
RETRYING = Retrying(initial_delay_s=1.0, backoff_coefficient=2.0, max_delay_s=60.0)
"""After an error."""
LASTED_S = 60.0
"""Who ran for so long before its error is not one that fails again and again."""
KEEP_S = 3600.0
"""How long such calls are kept after their end."""
STARTING = "its replica is yet to start"


class Queue(Protocol):
    """The durable queue."""

    @property
    def problem(self) -> Callable[[str], ErrorBody | None]:
        """Why no call of a workload can be worked on now."""
        ...

    def accept(self, new: NewCall) -> Coroutine[Any, Any, str]: ...

    async def cancel(self, id: str, why: CallError) -> Call | None: ...

    async def ended(self, id: str, wait_s: float) -> Call | None: ...


class OwnSources:
    """Has the code of users find events."""

    def __init__(self, queue: Queue, records: CallRecords, clock: Clock) -> None:
        self._queue = queue
        self._records = records
        self._clock = clock

    async def read(self, live: Live) -> None:
        """Have one call of its code under way, until this is cancelled: the call goes on then."""
        failures = 0
        self._tell(live, False, STARTING)
        while True:
            began_at, why = self._clock.now(), ""
            try:
                ended = await self._run(live)
            except SwellError as error:
                why = error.message
            except Exception:
                log.exception("the source of %s cannot be begun", live.trigger.shown)
                why = "The server made a mistake; its log says which."
            else:
                if ended is not None and ended.state == "failed" and ended.error is not None:
                    why = ended.error.message
            if not why:
                failures = 0
                await asyncio.sleep(AGAIN_S)
                continue
            failures = 1 if self._clock.now() - began_at > LASTED_S else failures + 1
            if failures == 1:
                log.warning("the source of %s failed, and is begun again: %s", live.trigger.shown, why)
            self._tell(live, False, why, failures)
            await asyncio.sleep(RETRYING.delay_s(failures))

    async def leave(self, live: Live) -> None:
        """End the calls that are under way for it. What of that fails is done when it is begun anew."""
        if not isinstance(live.trigger.subscription.source, OwnSource):
            return
        try:
            for call in await self._open(live):
                await self._cancel(call)
        except SwellError as error:
            log.error("the source of %s cannot be ended: %s", live.trigger.shown, error.message)
        except Exception:
            log.exception("the source of %s cannot be ended", live.trigger.shown)

    async def _run(self, live: Live) -> Call | None:
        """The call that is under way, or a new one, once it has ended; None: nothing is known of it any more."""
        id = await self._there(live) or await self._begin(live)
        while True:
            call = await self._queue.ended(id, LOOK_S)
            if call is None or call.ended_at is not None:
                return call
            if call.state == "leased":
                self._tell(live, True)
                continue
            problem = self._queue.problem(call.workload)
            before = call.error.message if call.error is not None else STARTING
            self._tell(live, False, problem.message if problem is not None else before)

    async def _there(self, live: Live) -> str:
        """The call that is under way, of the version that has the traffic; empty: none is. Any others are ended."""
        found = ""
        for call in await self._open(live):
            if not found and (call.state == "queued" or call.pool == live.trigger.finds):
                found = call.id
            else:
                await self._cancel(call)
        return found

    async def _begin(self, live: Live) -> str:
        trigger, group = live.trigger, live.state.watermark
        if not trigger.finds:
            raise SwellError("unknown_function", "There is no class that finds its events any more.", status=404)
        new = NewCall(
            workload_of(trigger.finds),
            DELIVER,
            Body(MSGPACK, msgspec.msgpack.encode([trigger.name])),
            accept=JSON,
            # Another one than all before it.
            idempotency_key=member_key(group, secrets.randbits(48)),
            group=group,
            keep_s=KEEP_S,
        )
        # Who ends it looks for it then.
        return await finished(self._queue.accept(new))

    async def _open(self, live: Live) -> list[Call]:
        return await asyncio.to_thread(self._records.open, live.state.watermark, "", BATCH_MAX)

    def _cancel(self, call: Call) -> Awaitable[Call | None]:
        why = CallError("cancelled", "What it found events for is paused, stopped, or found by another version.")
        return self._queue.cancel(call.id, why)

    def _tell(self, live: Live, up: bool, why: str = "", failures: int = 0) -> None:
        before = live.source
        since = before.since if before is not None and before.up is up else self._clock.now()
        live.source = SourceState(up, since, why, failures)
