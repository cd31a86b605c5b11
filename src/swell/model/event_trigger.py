"""What calls a function for events, and how far has it come?

A trigger as a schedule is one: it follows from what is deployed, each call it makes stands in its history, and what is
kept of it stands beside (`ports.Triggers`). How far its source was read moves in the transaction in which the call of
what was read is accepted.
"""

from __future__ import annotations

import msgspec

from swell.model.source import SourceConfig
from swell.model.subscription import OwnSource, Subscription
from swell.model.trigger import serving
from swell.model.workload import App, pool_key, shown


class EventTrigger(msgspec.Struct, frozen=True):
    """What calls a function with an event."""

    namespace: str
    app: str
    name: str
    """Of the trigger: it is called as its function."""
    subscription: Subscription
    finds: str = ""
    """The pool that finds its events, where a class of the app does: that of the revision which has its traffic."""

    @property
    def key(self) -> str:
        """ "namespace/app/name:kind": no other trigger has it, not even what the function had before."""
        return f"{self.workload}:{self.subscription.kind}"

    @property
    def workload(self) -> str:
        """Key of what it calls."""
        return f"{self.namespace}/{self.app}/{self.name}"

    @property
    def shown(self) -> str:
        """As people write it."""
        return shown(self.workload)


def event_triggers(app: App) -> list[EventTrigger]:
    """Those of an app. One that belongs to a program (`swell run`) has none."""
    if app.owner is not None:
        return []
    named = {each.name: each for each in serving(app)}
    found = []
    for each in named.values():
        if each.subscription is None:
            continue
        source = each.subscription.source
        own = named.get(source.name) if isinstance(source, OwnSource) else None
        pool = pool_key(own.key, own.revision) if own is not None else ""
        found.append(EventTrigger(app.namespace, app.name, each.name, each.subscription, pool))
    return found


class EventTriggerState(msgspec.Struct, frozen=True):
    """How far it has come. Times in seconds since the epoch."""

    key: str
    subscription: Subscription | None
    """None: what is kept of it cannot be read."""
    began_at: float
    """When what it reads was first subscribed to. It tells what came since from what came before: the same id is then
    of something else."""
    watermark: str = ""
    """Behind which its source is read on; empty: from its beginning, or where the source itself knows. Of a class that
    finds the events: the group of its calls."""
    paused_at: float | None = None
    """Since when nothing is read; None: it is."""
    fired_at: float | None = None
    """When it last made a call."""


def sources(app: App) -> list[SourceConfig]:
    """All that is to be read for an app's functions."""
    read = (each.subscription.read for each in app.workloads if each.subscription is not None)
    return [each for each in read if each is not None]
