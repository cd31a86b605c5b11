"""How does what comes of a source become calls? Each message one, in the durable queue before its source is told.

A message's call has an idempotency key made of the message's id: what a source brings again, since it was not told in
time, is no second call. Where a source remembers nothing, how far it was read moves with the last call of a batch, in
one transaction, once all the others of that are on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from swell.control.event_triggers import WAITING_MAX, Accept, Live
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.model.ports import Clock, Triggers
from swell.model.retrying import Retrying
from swell.model.secret import SecretUse
from swell.model.source import (
    Files,
    Message,
    NatsStream,
    Objects,
    RedisStream,
    Rows,
    SourceConfig,
    SourceState,
    bucket_of,
)
from swell.model.source_ports import Feed
from swell.model.trigger import Delivery, Firing, event_id
from swell.wire.calls import INPUT_MAX, NewCall
from swell.wire.cloudevents import as_input, data_of
from swell.wire.event import Event
from swell.wire.http import JSON_OR_PICKLE

log = logging.getLogger("swell.control")

T = TypeVar("T")

HELD_MAX = 200
"""Messages of a source that are here and not in the queue yet."""
TAKEN_MAX = 100
"""Messages of a source that are taken together."""
TAKEN_BYTES_MAX = 8 * 1024 * 1024
"""And bytes of them, or one more, that are brought into the queue together."""
WAITING_LOOK_S = 0.5
"""How often it is looked whether fewer wait."""
LOOK_S = 15.0
"""How often it is looked, while nothing comes and a source is away, whether its password is another one now."""
PARTING_S = 3.0
"""At the end, what is being written is waited for so long: control itself has 10 s to end, and its sources two of
theirs."""
RETRYING = Retrying(initial_delay_s=0.5, backoff_coefficient=2.0, max_delay_s=15.0)
"""Of what could not be accepted."""

Open = Callable[[str, SourceConfig, str, str, int, Callable[[SourceState], None]], Feed]
"""The feed of a source: its name for the log, the source, a password, the watermark to go on behind, how much of it may
be held, and who is told whether it is reached. SwellError where the source cannot be had here."""


class Made(NamedTuple):
    """What a message comes to."""

    message: Message
    input: Body | None
    """None: it cannot be queued."""


class Feeds:
    """Reads the sources of triggers."""

    def __init__(
        self,
        open: Open,
        accept: Accept,
        store: Triggers,
        secret: Callable[[SecretUse], str],
        waiting: Callable[[str], int],
        clock: Clock,
    ) -> None:
        """`waiting`: how many calls of a workload wait. `secret`: as of `EventDesk`."""
        self._open = open
        self._accept = accept
        self._store = store
        self._secret = secret
        self._waiting = waiting
        self._clock = clock

    async def read(self, live: Live) -> None:
        """The source of a trigger, until it is cancelled."""
        source = live.trigger.subscription.read
        assert source is not None

        def told(state: SourceState) -> None:
            live.source = state

        while True:
            try:
                password = self._password(live)
                feed = self._open(live.trigger.shown, source, password, live.state.watermark, HELD_MAX, told)
            except SwellError as error:
                before = live.source
                since = self._clock.now() if before is None else before.since
                told(SourceState(False, since, error.message, 1 if before is None else before.failures + 1))
                await asyncio.sleep(LOOK_S)
                continue
            live.source = feed.state
            try:
                async with feed:
                    live.feed = feed
                    await self._pass_on(live, feed, password)
            except Exception:
                log.exception("what comes for %s cannot be passed on", live.trigger.shown)
                told(SourceState(False, self._clock.now(), "The server made a mistake; its log says which.", 1))
                await asyncio.sleep(LOOK_S)
            finally:
                live.feed = None

    def _password(self, live: Live) -> str:
        use = live.trigger.subscription.secret
        return "" if use is None else self._secret(use)

    async def _pass_on(self, live: Live, feed: Feed, password: str) -> None:
        """What comes, until the password is another one."""
        while True:
            await self._until_room(live)
            try:
                async with asyncio.timeout(LOOK_S):
                    messages = await feed.take(TAKEN_MAX)
            except TimeoutError:
                if not feed.state.up and self._differs(live, password):
                    return
                continue
            for some in portions(messages):
                await self._until_accepted(live, some)
                feed.acknowledge(some)

    def _differs(self, live: Live, password: str) -> bool:
        try:
            return self._password(live) != password
        except SwellError:
            return True

    async def _until_room(self, live: Live) -> None:
        while (waiting := self._waiting(live.trigger.workload)) >= WAITING_MAX:
            live.held_back = f"{waiting} calls of the function wait"
            await asyncio.sleep(WAITING_LOOK_S)
        live.held_back = ""

    async def _until_accepted(self, live: Live, messages: Sequence[Message]) -> None:
        """It is tried again and again: nothing that came is given up."""
        failures = 0
        while True:
            try:
                await finished(self._enqueue(live, messages))
            except SwellError as error:
                failures += 1
                live.held_back = error.message
                if failures == 1:
                    log.error(
                        "what came for %s is not accepted, and tried again: %s", live.trigger.shown, error.message
                    )
                await asyncio.sleep(RETRYING.delay_s(failures))
            else:
                live.held_back = ""
                return

    async def _enqueue(self, live: Live, messages: Sequence[Message]) -> None:
        """All are on disk when it returns."""
        made: list[Made] = []
        for each in messages:
            made.append(Made(each, input_of(live, each)))
            # Large ones take a while.
            await asyncio.sleep(0)
        answers = await asyncio.gather(*(self._one(live, each) for each in made[:-1]), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        # Those before it are there: so much is read.
        await self._one(live, made[-1], made[-1].message.watermark)
        live.fired(self._clock.now(), made[-1].message.watermark)

    async def _one(self, live: Live, made: Made, watermark: str = "") -> None:
        message, trigger, began_at = made.message, live.trigger, live.state.began_at
        # The time tells what comes now from what came, by that id, while something else was read.
        id = event_id(f"{int(began_at * 1000):x}", message.id)
        if made.input is not None:
            call = NewCall(
                trigger.workload,
                trigger.name,
                made.input,
                accept=JSON_OR_PICKLE,
                idempotency_key=id,
            )
            firing = Firing(trigger.key, id, message.at, how="event")
            try:
                await self._accept(call, Delivery(firing, False, watermark, began_at))
            except SwellError as error:
                # Of the members of a gang each is given it: then the queue takes less.
                if error.code != "body_too_large":
                    raise
            else:
                return
        log.error("a message for %s is too large for the queue, or its subject is no text: refused", trigger.shown)
        refused = Firing(trigger.key, id, message.at, self._clock.now(), "refused")
        await asyncio.to_thread(self._store.deliver, [Delivery(refused, False, watermark, began_at)])


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """What is asked to end meanwhile waits for it first, for a while: it may be written already."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=PARTING_S)
        task.cancel()
        raise


def portions(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """In their order, as many at a time as have few enough bytes."""
    some: list[Message] = []
    size = 0
    for each in messages:
        if some and size + len(each.body) > TAKEN_BYTES_MAX:
            yield some
            some, size = [], 0
        some.append(each)
        size += len(each.body)
    if some:
        yield some


def input_of(live: Live, message: Message) -> Body | None:
    """Of the call of a message: the event that it is. None: it cannot be queued, too large or no text."""
    if len(message.body) > INPUT_MAX:
        return None
    source = live.trigger.subscription.read
    assert source is not None
    with suppress(SwellError):
        made = as_input(event_of(source, message, data_of(message.content_type, message.body)))
        return made if len(made.data) <= INPUT_MAX else None
    with suppress(SwellError):
        # It is not what it says that it is: as it came.
        made = as_input(event_of(source, message, message.body))
        return made if len(made.data) <= INPUT_MAX else None
    return None


def event_of(source: SourceConfig, message: Message, data: object) -> Event:
    """The event that a message of a source is."""
    match source:
        case Files(folder=folder):
            place, kind = f"file://{folder}", "swell.file"
        case NatsStream(url=url, stream=stream):
            place, kind = f"{url}/{stream}", "swell.message"
        case Objects(url=url):
            place, kind = f"s3://{bucket_of(url)[0]}", "swell.object"
        case RedisStream(url=url, stream=stream):
            place, kind = f"{url}/{stream}", "swell.entry"
        case Rows(url=url):
            place, kind = url, "swell.row"
    return Event(
        id=message.id,
        source=place,
        type=kind,
        subject=message.subject,
        time=moment(message.at),
        data=data,
        content_type=message.content_type,
    )


def moment(at: float) -> datetime | None:
    """A time as people have it; None where there is none of that number."""
    try:
        return datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return None
