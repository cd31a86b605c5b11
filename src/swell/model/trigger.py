"""What calls functions by itself, and what is known of each time that it did?

A trigger follows from what is deployed. What is kept of it (`ports.Triggers`) is how far it has come: of each firing a
row stands in the history from the moment, and in the same transaction, that its call is in the durable queue. So a
firing is lost by no death, and happens once.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from swell.model.schedule import Schedule
from swell.model.workload import App, Workload, shown

How = Literal["schedule", "manual", "backfill", "event", "refused"]
"""What made a trigger fire: its time came, somebody asked for it, somebody asked for one that was missed, an event
came; or one came that is too large for the queue, and there is no call of it."""

FIRINGS_KEPT = 1000
"""Firings that are known of one trigger: the newest."""
FIRINGS_KEPT_S = 30 * 86_400.0
"""And for how long."""


class Trigger(msgspec.Struct, frozen=True):
    """What calls a function, without arguments, when its schedule says so."""

    namespace: str
    app: str
    name: str
    """Of the trigger: a schedule is called as the function that has it."""
    schedule: Schedule

    @property
    def key(self) -> str:
        """ "namespace/app/name": no other trigger has it."""
        return f"{self.namespace}/{self.app}/{self.name}"

    @property
    def workload(self) -> str:
        """Key of what it calls."""
        return self.key

    @property
    def method(self) -> str:
        """Of the workload: a function has one, called as itself."""
        return self.name

    @property
    def shown(self) -> str:
        """As people write it."""
        return shown(self.key)


def serving(app: App) -> list[Workload]:
    """Each workload of it once, as the version has it that has its traffic."""
    return list({each.name: each for each in (*app.workloads, *app.previous)}.values())


def triggers(app: App) -> list[Trigger]:
    """Those of an app. One that belongs to a program (`swell run`) has none: it lasts as long as somebody watches."""
    if app.owner is not None:
        return []
    return [
        Trigger(app.namespace, app.name, each.name, each.schedule) for each in serving(app) if each.schedule is not None
    ]


class TriggerState(msgspec.Struct, frozen=True):
    """How far a trigger has come. Times in seconds since the epoch."""

    key: str
    schedule: Schedule | None
    """That this is of: with another one it begins anew. None: what is kept of it cannot be read."""
    began_at: float
    """When it was deployed with this schedule; periods count from then."""
    fired_to: float
    """Due times up to this one are dealt with: fired, or missed for good."""
    paused_at: float | None = None
    """Since when it does not fire; None: it does."""
    fired_at: float | None = None
    """When it last made a call, for whatever reason."""
    incarnation: str = ""
    """Another one each time that the trigger comes to be, as where its app was stopped and is deployed again: calls
    that were made before are nothing to it. Empty of those that came to be before there was this."""


class Firing(msgspec.Struct, frozen=True):
    """One time that a trigger made a call."""

    trigger: str
    """Its key."""
    id: str
    """Of all firings of the trigger, one alone has it: it is made of what it was fired for."""
    due_at: float
    at: float = 0.0
    """When its call was accepted."""
    how: How = "schedule"
    call: str = ""
    """Id of the call."""
    missed_from: float | None = None
    """Due times from this one on, up to this firing's own, were missed and have no call of their own."""


def event_id(told_apart: str, shown: str) -> str:
    """Of the firing for an event. `told_apart`, without spaces, tells the call that is made of it from all others that
    have the same `shown`: what people know the event by."""
    return f"{told_apart} {shown}"


def shown_event(id: str) -> str:
    """What people know an event by, of the id of its firing."""
    return id.partition(" ")[2]


class Delivery(msgspec.Struct, frozen=True):
    """A firing whose call is about to be accepted: recorded together with that, or not at all."""

    firing: Firing
    moves: bool = False
    """The trigger has come as far as this firing's due time."""
    watermark: str = ""
    """Its source is read on behind this, where it is what began to be read at `began_at`; empty: where it was."""
    began_at: float = 0.0

    def of(self, call: str, at: float) -> Delivery:
        """With the id of its call, and when that was accepted."""
        return replace(self, firing=replace(self.firing, call=call, at=at))
