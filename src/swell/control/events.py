"""May this event be taken that somebody posted, and what call is made of it?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from swell.control.event_triggers import Accept, EventTriggers
from swell.model.errors import SwellError
from swell.model.event_trigger import EventTrigger
from swell.model.ports import Clock
from swell.model.secret import SecretUse
from swell.model.subscription import HttpEvents
from swell.model.trigger import Delivery, Firing
from swell.model.unknown import unknown_trigger
from swell.model.workload import app_of
from swell.wire.calls import NewCall, NewEvent
from swell.wire.cloudevents import as_input, is_event, read, webhook
from swell.wire.event import Event, digest
from swell.wire.http import JSON

SCHEME = "sha256="
"""May stand in front of a signature."""
SHOWN_MAX = 200
"""Characters of an event's source and id that its row in the history shows."""


class EventDesk:
    """Takes events for the functions that have triggers for them."""

    def __init__(
        self, triggers: EventTriggers, accept: Accept, secret: Callable[[SecretUse], str], clock: Clock
    ) -> None:
        """`accept`: a call, and its delivery, into the durable queue. `secret`: the value of the one variable that is
        used of it; SwellError where there is none."""
        self._triggers = triggers
        self._accept = accept
        self._secret = secret
        self._clock = clock

    async def take(self, new: NewEvent) -> str:
        """The id of the event's call, once it is on disk; of one that came before the same. SwellError else."""
        await self._triggers.settled()
        live = self._triggers.of(new.workload)
        if live is None or not isinstance(live.trigger.subscription.source, HttpEvents):
            namespace, app = app_of(new.workload)
            raise unknown_trigger(app, new.workload.rpartition("/")[2], self._triggers.names(namespace, app))
        headers = dict(new.headers)
        self._check_signed(live.trigger, live.trigger.subscription.source, headers, new.body)
        if live.state.paused_at is not None:
            words = f"{live.trigger.shown} is paused: `swell trigger resume {live.trigger.shown}` has it take events."
            raise SwellError("trigger_paused", words, status=503)
        event = _event(live.trigger, live.trigger.subscription.source, headers, new.body)
        now = self._clock.now()
        call = NewCall(
            live.trigger.workload,
            live.trigger.name,
            as_input(event),
            accept=JSON,
            key=new.key,
            idempotency_key=f"event {digest(event)}",
        )
        at = min(event.time.timestamp(), now) if event.time is not None else now
        firing = Firing(live.trigger.key, _shown(event), at, how="event")
        id = await self._accept(call, Delivery(firing))
        live.fired(self._clock.now())
        return id

    def _check_signed(self, trigger: EventTrigger, source: HttpEvents, headers: dict[str, str], body: bytes) -> None:
        use = trigger.subscription.secret
        if use is None:
            return
        given = headers.get(source.header, "")
        if not given:
            words = f"Events for {trigger.shown} are signed: the header {source.header} with the signature is missing."
            raise SwellError("bad_signature", words, status=401)
        made = hmac.new(self._secret(use).encode(), body, hashlib.sha256).hexdigest()
        told = given.removeprefix(SCHEME).strip().lower()
        if not hmac.compare_digest(made.encode(), told.encode("utf-8", "replace")):
            words = f"The signature in {source.header} is not that of the body: HMAC-SHA256, in hex, of the secret."
            raise SwellError("bad_signature", words, status=401)


def _event(trigger: EventTrigger, source: HttpEvents, headers: dict[str, str], body: bytes) -> Event:
    if source.id_header and not is_event(headers):
        return webhook(headers, body, source.id_header, source.type_header, f"/trigger/{trigger.workload}")
    return read(headers, body)


def _shown(event: Event) -> str:
    """What its row in the history is known by."""
    whole = f"{event.source} {event.id}"
    return whole if len(whole) <= SHOWN_MAX else f"{whole[: SHOWN_MAX - 65]} {digest(event)}"
