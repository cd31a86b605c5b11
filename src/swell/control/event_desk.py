"""What do people get to see of all triggers, schedules and those for events, and what may they do with them?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from swell.control.event_triggers import EventTriggers, Live
from swell.control.trigger_desk import TriggerDesk
from swell.model.call_ports import CallRecords
from swell.model.errors import SwellError
from swell.model.metrics import SOURCE_OLDEST, SOURCE_UP, SOURCE_WAITING, Labels, Sample
from swell.model.ports import Triggers
from swell.model.source import Lag
from swell.model.subscription import HttpEvents, written
from swell.model.trigger import shown_event
from swell.model.unknown import unknown_trigger
from swell.wire.triggers import Backfill, Backfilled, Fired, FiringRow, TriggerRow


class EveryTriggerDesk:
    """Answers to what is asked about triggers of every kind."""

    def __init__(self, schedules: TriggerDesk, events: EventTriggers, store: Triggers, records: CallRecords) -> None:
        self._schedules = schedules
        self._events = events
        self._store = store
        self._records = records

    async def rows(self, namespace: str, app: str) -> list[TriggerRow]:
        """By app and name; of one app, or of all of the namespace."""
        prefix = f"{namespace}/{app}/" if app else f"{namespace}/"
        found = [row_of(live) for key, live in self._events.live.items() if key.startswith(prefix)]
        found += await self._schedules.rows(namespace, app)
        return sorted(found, key=lambda row: (row.app, row.name))

    async def firings(self, namespace: str, app: str, name: str, most: int) -> list[FiringRow]:
        """The newest, newest first."""
        live = self._live(namespace, app, name)
        if live is None:
            return await self._schedules.firings(namespace, app, name, most)
        firings = await asyncio.to_thread(self._store.history, live.trigger.key, most)
        calls = await asyncio.to_thread(self._records.get_many, [each.call for each in firings if each.call])
        return [
            FiringRow(
                *(shown_event(each.id), each.due_at, each.at, each.how, each.call),
                state=calls[each.call].state if each.call in calls else "",
            )
            for each in firings
        ]

    async def pause(self, namespace: str, app: str, name: str, paused: bool) -> TriggerRow:
        """Have it fire no more, or again."""
        live = self._live(namespace, app, name)
        if live is None:
            return await self._schedules.pause(namespace, app, name, paused)
        return row_of(await self._events.pause(live.trigger.key, paused) or live)

    async def fire(self, namespace: str, app: str, name: str) -> Fired:
        """Once, now: a schedule alone."""
        live = self._live(namespace, app, name)
        if live is not None:
            raise _only_schedules(live, "its events are what it is called for: `swell call` calls it with one of yours")
        return await self._schedules.fire(namespace, app, name)

    async def backfill(self, namespace: str, app: str, name: str, asked: Backfill) -> Backfilled:
        """Once for each due time that passed without it: a schedule alone."""
        live = self._live(namespace, app, name)
        if live is not None:
            raise _only_schedules(live, "what its source still has comes by itself")
        return await self._schedules.backfill(namespace, app, name, asked)

    def _live(self, namespace: str, app: str, name: str) -> Live | None:
        live = self._events.of(f"{namespace}/{app}/{name}")
        names = self._events.names(namespace, app)
        if live is None and names and f"{namespace}/{app}/{name}" not in self._schedules.keys:
            names += [key.rpartition("/")[2] for key in self._schedules.keys if key.startswith(f"{namespace}/{app}/")]
            raise unknown_trigger(app, name, sorted(names))
        return live


def row_of(live: Live) -> TriggerRow:
    """What is told of it."""
    trigger, state, source = live.trigger, live.state, live.source
    lag = live.feed.lag if live.feed is not None else Lag()
    return TriggerRow(
        namespace=trigger.namespace,
        app=trigger.app,
        name=trigger.name,
        kind=trigger.subscription.kind,
        schedule=written(trigger.subscription),
        missed="",
        began_at=state.began_at,
        fired_at=state.fired_at,
        paused_at=state.paused_at,
        up=None if isinstance(trigger.subscription.source, HttpEvents) or source is None else source.up,
        since=source.since if source is not None else None,
        waiting=lag.waiting,
        oldest_at=lag.oldest_at,
        why=(source.why if source is not None else "") or live.held_back,
    )


def samples(lives: Iterable[Live], labels: Callable[[str], Labels], now: float) -> Iterator[Sample]:
    """What of sources is told to who scrapes. Those that share their labels: all together."""
    up: dict[Labels, float] = {}
    waiting: dict[Labels, float] = {}
    oldest_s: dict[Labels, float] = {}
    for live in lives:
        if live.source is None:
            continue
        told = labels(live.trigger.workload)
        up[told] = min(up.get(told, 1.0), float(live.source.up))
        if live.feed is None:
            continue
        lag = live.feed.lag
        if lag.waiting is not None:
            waiting[told] = waiting.get(told, 0.0) + lag.waiting
        age_s = max(now - lag.oldest_at, 0.0) if lag.oldest_at is not None else 0.0
        oldest_s[told] = max(oldest_s.get(told, 0.0), age_s)
    for name, levels in ((SOURCE_UP, up), (SOURCE_WAITING, waiting), (SOURCE_OLDEST, oldest_s)):
        for told, level in levels.items():
            yield Sample(name, told, level)


def _only_schedules(live: Live, words: str) -> SwellError:
    return SwellError("bad_request", f"{live.trigger.shown} has no schedule: {words}.")
