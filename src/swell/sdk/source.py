"""How does code of one's own find the events that a function is called for?

By a class of the app, of which control has one call under way (`control/own_sources.py`). That posts what the class
gives as anybody posts events, so each is one call; it waits while the queue takes no more; and only what is on disk is
acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import chain, repeat
from urllib.parse import quote

from swell.model.errors import SwellError
from swell.sdk import binding, here, protocol
from swell.sdk.bridge import adopt
from swell.sdk.client import Client
from swell.sdk.marks import method
from swell.sdk.protocol import Request
from swell.sdk.shared import LOST
from swell.wire import context
from swell.wire.calls import INPUT_MAX
from swell.wire.cloudevents import BATCH, BATCH_MAX, written
from swell.wire.event import Event

PARTING_S = 5.0
"""So long before the time of a call is up it comes to its end, or a quarter of that time before."""
LOOK_S = 0.2
"""How often it is looked whether the replica is told to end."""
AGAIN_S = (0.1, 0.3, 1.0, 3.0)
"""Pauses before events are posted again that were not accepted; the last one counts on."""
AWAY = (*LOST, "no_answer", "no_server")
"""Errors after which it is not known whether they were."""
FULL = (429, 502, 503, 507)
"""Answers of a server that takes them later."""
TOO_LARGE = 413
_END = object()


class Source:
    """What finds the events of a function: a class of this kind below `@app.cls()`, which `trigger=` of the function
    names. One call of it runs on the server, and is begun again whenever it has ended."""

    def events(self) -> AsyncIterator[Event | Sequence[Event]]:
        """What there is, as `async def events(self)` with `yield`: an event, or several that go together. It goes on
        once they are in the queue, and acknowledged. Begun again, it gives what was not acknowledged."""
        raise NotImplementedError

    async def ack(self, event: Event) -> None:
        """The event is in the queue, on disk: it need not come again."""

    @method()
    async def deliver(self, function: str) -> int:
        """Pass events on to the function of that name in this app, until there are no more or the time of this call is
        nearly up. Returns how many there were. The server calls it."""
        if not context.inside:
            raise SwellError("bad_call", f"{type(self).__name__}.deliver(…) is what the server calls, in a replica.")
        client = binding.platform(context.inside[0])
        path = f"/trigger/{context.inside[0].app}/{quote(function, safe='')}"
        delivered = 0
        async with _while_there_is_time() as goes_on, aclosing(_opened(self)) as found:
            while goes_on() and (given := await anext(found, _END)) is not _END:
                for events, body in portions(_several(given)):
                    await adopt(_post(client, path, events, body))
                    for event in events:
                        await self.ack(event)
                    delivered += len(events)
                    here.progress(delivered, message="events are in the queue")
        return delivered


@asynccontextmanager
async def _while_there_is_time() -> AsyncIterator[Callable[[], bool]]:
    """What is within is ended shortly before the time of the call is up, and soon where its replica is told to end. It
    asks whether it goes on: progress may have given it more time."""
    loop, left_s = asyncio.get_running_loop(), here.remaining_s()
    parting_s = 0.0 if left_s is None else min(PARTING_S, left_s / 4)

    def goes_on() -> bool:
        if bound.expired():
            return False
        left_s = here.remaining_s()
        bound.reschedule(None if left_s is None else loop.time() + left_s - parting_s)
        return True

    async def look() -> None:
        while not bound.expired():
            await asyncio.sleep(LOOK_S)
            if here.stopping() and not bound.expired():
                bound.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as bound:
            looking = asyncio.create_task(look())
            try:
                yield goes_on
            finally:
                looking.cancel()
    except TimeoutError:
        if not bound.expired():
            raise


def _opened(source: Source) -> AsyncGenerator[Event | Sequence[Event], None]:
    found = source.events()
    assert isinstance(found, AsyncGenerator), "a deploy looks at that"
    return found


def _several(given: object) -> Sequence[Event]:
    """What `events` gave. SwellError where it is none."""
    events = (given,) if isinstance(given, Event) else tuple(given) if isinstance(given, list | tuple) else None
    if events is None or not all(isinstance(each, Event) for each in events):
        raise SwellError("bad_event", "events() yields a swell.Event, or a list of them.")
    return events


def portions(events: Sequence[Event]) -> Iterator[tuple[list[Event], bytes]]:
    """In their order, as many at a time as one request takes, with its body. One that is too large goes alone: the
    server says so."""
    some: list[Event] = []
    parts: list[bytes] = []
    size = 2
    for event in events:
        part = written(event)
        if some and (len(some) >= BATCH_MAX or size + len(part) + 1 > INPUT_MAX):
            yield some, b"[%b]" % b",".join(parts)
            some, parts, size = [], [], 2
        some.append(event)
        parts.append(part)
        size += len(part) + 1
    if some:
        yield some, b"[%b]" % b",".join(parts)


async def _post(client: Client, path: str, events: Sequence[Event], body: bytes) -> None:
    """An operation: returns once these events are on disk. What a server does not take now is sent again, as long as
    the call has time; what is more than it ever takes at once, in halves."""
    request = Request("POST", path, {"content-type": BATCH}, body)
    for pause_s in chain(AGAIN_S, repeat(AGAIN_S[-1])):
        try:
            answer = await client.transport.send(request)
        except SwellError as error:
            if error.code not in AWAY:
                raise
        else:
            if answer.ok:
                return
            if answer.status == TOO_LARGE and len(events) > 1:
                half = len(events) // 2
                for some, part in chain(portions(events[:half]), portions(events[half:])):
                    await _post(client, path, some, part)
                return
            if answer.status not in FULL:
                raise protocol.failure(answer)
        await client.transport.pause(pause_s)
