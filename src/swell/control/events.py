"""May these events be taken that somebody posted, and what calls are made of them?"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Callable

from swell.control.event_triggers import WAITING_MAX, Accept, EventTriggers, Live
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.model.event_trigger import EventTrigger
from swell.model.ports import Clock
from swell.model.secret import SecretUse
from swell.model.subscription import HttpEvents, OwnSource
from swell.model.trigger import Delivery, Firing, event_id
from swell.model.unknown import unknown_trigger
from swell.model.workload import app_of
from swell.wire.calls import NewCall, NewEvent
from swell.wire.cloudevents import PREFIX, as_input, is_batch, is_event, read, read_batch, webhook
from swell.wire.event import Event, digest
from swell.wire.http import JSON_OR_PICKLE

log = logging.getLogger("swell.control")

SCHEME = "sha256="
"""May stand in front of a signature."""
SIGNATURES_MAX = 4
"""That are looked at in one header: each costs as much as the body is long."""
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)
SHOWN_MAX = 200
"""Characters of an event's source and id that its row in the history shows."""


class EventDesk:
    """Takes events for the functions that have triggers for them."""

    def __init__(
        self,
        triggers: EventTriggers,
        accept: Accept,
        secret: Callable[[SecretUse], str],
        waiting: Callable[[str], int],
        clock: Clock,
    ) -> None:
        """`accept`: a call, and its delivery, into the durable queue. `secret`: the value of the one variable that is
        used of it; SwellError where there is none. `waiting`: how many calls of a workload wait."""
        self._triggers = triggers
        self._accept = accept
        self._secret = secret
        self._waiting = waiting
        self._clock = clock

    async def take(self, new: NewEvent) -> str | tuple[str, ...]:
        """The id of the event's call, once it is on disk; of one that came before the same. Of a batch those of all, in
        its order. SwellError else: then of a batch some may be there."""
        await self._triggers.settled(new.workload.rpartition("/")[0])
        live = self._triggers.of(new.workload)
        if live is None or live.trigger.subscription.read is not None:
            namespace, app = app_of(new.workload)
            raise unknown_trigger(app, new.workload.rpartition("/")[2], self._triggers.names(namespace, app))
        source = live.trigger.subscription.source
        # A class posts what it finds as anybody may.
        posted = source if isinstance(source, HttpEvents) else HttpEvents()
        headers = _headers(new, posted)
        if new.signed and live.trigger.subscription.secret is None:
            # Whether it may come without, the gateway looks at anew.
            words = f"What events {live.trigger.shown} takes changed while this one came: send it again."
            raise SwellError("busy", words, status=503)
        self._check_signed(live, posted, headers, new.body)
        if live.state.paused_at is not None:
            words = f"{live.trigger.shown} is paused: `swell trigger resume {live.trigger.shown}` has it take events."
            raise SwellError("trigger_paused", words, status=503)
        if isinstance(source, OwnSource):
            self._check_room(live)
        if not is_batch(headers.get("content-type", "")):
            event = _event(live.trigger, posted, headers, new.body)
            return await self._enqueue(live, event, as_input(event), new.key)
        events = [(event, as_input(event)) for event in read_batch(new.body)]
        # Together: all of them are asked for before any is waited for.
        answers = await asyncio.gather(
            *(self._enqueue(live, event, made, new.key) for event, made in events), return_exceptions=True
        )
        accepted = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            accepted.append(answer)
        return tuple(accepted)

    async def _enqueue(self, live: Live, event: Event, made: Body, key: str) -> str:
        """The id of its call, once that is on disk. `made`: the event as its input."""
        now = self._clock.now()
        call = NewCall(
            live.trigger.workload,
            live.trigger.name,
            made,
            accept=JSON_OR_PICKLE,
            key=key,
            idempotency_key=f"event {digest(event)}",
        )
        at = min(event.time.timestamp(), now) if event.time is not None else now
        # Of each key its calls are told apart by themselves.
        id = event_id(f"{digest(event)}:{key}", _shown(event))
        firing = Firing(live.trigger.key, id, at, how="event")
        accepted = await self._accept(call, Delivery(firing))
        live.fired(self._clock.now())
        return accepted

    def _check_room(self, live: Live) -> None:
        """What a class finds waits there, while many calls do here."""
        waiting = self._waiting(live.trigger.workload)
        live.held_back = f"{waiting} calls of the function wait" if waiting >= WAITING_MAX else ""
        if live.held_back:
            words = f"{live.trigger.shown} takes no more now: {live.held_back}. Try again in a moment."
            raise SwellError("busy", words, status=503)

    def _check_signed(self, live: Live, source: HttpEvents, headers: dict[str, str], body: bytes) -> None:
        trigger = live.trigger
        use = trigger.subscription.secret
        if use is None:
            return
        given = headers.get(source.header, "")
        if not given:
            words = f"Events for {trigger.shown} are signed: the header {source.header} with the signature is missing."
            raise SwellError("bad_signature", words, status=401)
        secret = self._signing(live, use).encode()
        if source.replay_s:
            self._check_timed(source, given, secret, body)
        elif not _is_signed(secret, body, given.removeprefix(SCHEME)):
            words = f"The signature in {source.header} is not that of the body: HMAC-SHA256, in hex, of the secret."
            raise SwellError("bad_signature", words, status=401)

    def _check_timed(self, source: HttpEvents, given: str, secret: bytes, body: bytes) -> None:
        """One that says when it was made: "t=1700000000,v1=…". It is of that time, a dot and the body."""
        parts = [(name.strip(), value) for name, _, value in (each.partition("=") for each in given.split(","))]
        times = [value for name, value in parts if name == "t"]
        # Several, while its sender goes from one secret to another.
        signatures = [value for name, value in parts if name == "v1"][:SIGNATURES_MAX]
        if len(times) != 1 or not _SECONDS.fullmatch(times[0]) or not signatures:
            words = f"The signature in {source.header} is written t=1700000000,v1=…, with the time when it was made."
            raise SwellError("bad_signature", words, status=401)
        signed = times[0].encode() + b"." + body
        if not any(_is_signed(secret, signed, each) for each in signatures):
            words = "is not that of its time, a dot and the body: HMAC-SHA256, in hex, of the secret."
            raise SwellError("bad_signature", f"The signature in {source.header} {words}", status=401)
        away_s = self._clock.now() - int(times[0])
        if abs(away_s) > source.replay_s:
            how = "ago" if away_s > 0 else "from now"
            words = f"The signature was made {abs(away_s):.0f} s {how}; it holds for {source.replay_s:g} s (replay_s)."
            raise SwellError("bad_signature", words, status=401)

    def _signing(self, live: Live, use: SecretUse) -> str:
        """What events are signed with. Strangers are not told what is wrong with it: the log and `swell trigger list`
        say so."""
        try:
            value = self._secret(use)
        except SwellError as error:
            if live.held_back != error.message:
                log.error("%s takes no events: %s", live.trigger.shown, error.message)
            live.held_back = error.message
            words = f"{live.trigger.shown} takes no events now: its server cannot check signatures. Try again later."
            raise SwellError("trigger_broken", words, status=503) from None
        live.held_back = ""
        return value


def _is_signed(secret: bytes, signed: bytes, told: str) -> bool:
    """Is that its signature, in hex?"""
    made = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(made.encode(), told.strip().lower().encode("utf-8", "replace"))


def _headers(new: NewEvent, source: HttpEvents) -> dict[str, str]:
    """Of a request, by their names. SwellError bad_event where one that is read is there twice: which of them holds?"""
    headers = dict(new.headers)
    if len(headers) < len(new.headers):
        names = [name for name, _ in new.headers]
        own = ("content-type", source.header, source.id_header, source.type_header)
        for name in headers:
            if (name in own or name.startswith(PREFIX)) and names.count(name) > 1:
                raise SwellError("bad_event", f"The header {name} is there more than once.")
    return headers


def _event(trigger: EventTrigger, source: HttpEvents, headers: dict[str, str], body: bytes) -> Event:
    if source.id_header and not is_event(headers):
        return webhook(headers, body, source.id_header, source.type_header, f"/trigger/{trigger.workload}")
    return read(headers, body)


def _shown(event: Event) -> str:
    """What people know it by."""
    whole = f"{event.source} {event.id}"
    return whole if len(whole) <= SHOWN_MAX else f"{whole[: SHOWN_MAX - 1]}…"
