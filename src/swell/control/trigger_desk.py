"""What do people get to see of triggers, and what may they do with them?"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Collection
from itertools import islice

from swell.control.triggers import Armed, TriggerKeeper, firing_id
from swell.decide.schedules import due_times, kept_s, written_time
from swell.model.call import BATCH_MAX, Keeping
from swell.model.call_ports import CallRecords
from swell.model.errors import SwellError
from swell.model.ports import Clock, Triggers
from swell.model.schedule import written
from swell.model.trigger import FIRINGS_KEPT, FIRINGS_KEPT_S, Firing, How
from swell.model.unknown import UnknownApp, unknown_trigger
from swell.model.world import World
from swell.wire.triggers import Backfill, Backfilled, Fired, FiringRow, TriggerRow


class TriggerDesk:
    """Answers to what is asked about triggers."""

    def __init__(
        self, keeper: TriggerKeeper, store: Triggers, records: CallRecords, world: World, clock: Clock
    ) -> None:
        self._keeper = keeper
        self._store = store
        self._records = records
        self._world = world
        self._clock = clock

    @property
    def keys(self) -> Collection[str]:
        """Of those there are."""
        return self._keeper.armed.keys()

    async def rows(self, namespace: str, app: str) -> list[TriggerRow]:
        """By app and name; of one app, or of all of the namespace."""
        prefix = f"{namespace}/{app}/" if app else f"{namespace}/"
        return [_row(each) for key, each in sorted(self._keeper.armed.items()) if key.startswith(prefix)]

    def next_at(self, key: str) -> float | None:
        """When a trigger fires next; None: there is no such one, it is paused, or does not any more."""
        armed = self._keeper.armed.get(key)
        return None if armed is None else _next_at(armed)

    async def firings(self, namespace: str, app: str, name: str, most: int) -> list[FiringRow]:
        """The newest, newest first."""
        armed = self._armed(namespace, app, name)
        firings = await asyncio.to_thread(self._store.history, armed.trigger.key, most)
        calls = await asyncio.to_thread(self._records.get_many, [each.call for each in firings])
        return [
            FiringRow(
                *(each.id, each.due_at, each.at, each.how, each.call),
                state=calls[each.call].state if each.call in calls else "",
                missed_from=each.missed_from,
            )
            for each in firings
        ]

    async def pause(self, namespace: str, app: str, name: str, paused: bool) -> TriggerRow:
        """Have it fire no more, or again."""
        key = self._armed(namespace, app, name).trigger.key
        armed = await self._keeper.pause(key, paused)
        return _row(armed or self._armed(namespace, app, name))

    async def fire(self, namespace: str, app: str, name: str) -> Fired:
        """Once, now, beside what is due."""
        return Fired(await self._deliver(self._armed(namespace, app, name), "manual", self._clock.now()))

    async def backfill(self, namespace: str, app: str, name: str, asked: Backfill) -> Backfilled:
        """Once for each due time that passed without it. Asked for again, it goes on with those that are left."""
        armed = self._armed(namespace, app, name)
        now, state = self._clock.now(), armed.state
        until = now if asked.until is None else asked.until
        if not (math.isfinite(asked.since) and math.isfinite(until)):
            raise _refused("since and until are times.")
        if until > now:
            raise _refused(f"{written_time(until)} is yet to come: what is due then fires by itself.")
        history = await asyncio.to_thread(self._store.history, state.key, FIRINGS_KEPT)
        oldest = _known_since(armed, history, now)
        if asked.since < oldest:
            known = f"What it fired for is known from {written_time(oldest)} on"
            raise _refused(f"{known}: before that, some would be fired for twice.")
        # Just before, so that what is due at that very moment is among them.
        since = math.nextafter(asked.since, -math.inf)
        times = islice(due_times(armed.trigger.schedule, state.began_at, since, until), BATCH_MAX + 1)
        try:
            # So many take long to find.
            due = await asyncio.to_thread(list, times)
        except (OSError, ValueError, KeyError) as error:
            raise _refused(f"When it was due cannot be told: {error!r}.") from None
        if len(due) > BATCH_MAX:
            raise _refused(f"That is due more than {BATCH_MAX} times: name a shorter time.")
        fired = {each.id for each in history}
        missing = [at for at in due if firing_id("backfill", at) not in fired]
        calls = await asyncio.gather(*(self._deliver(armed, "backfill", at) for at in missing))
        return Backfilled(tuple(calls), len(due) - len(missing))

    async def _deliver(self, armed: Armed, how: How, due_at: float) -> str:
        id = firing_id(how, due_at, os.urandom(4).hex() if how == "manual" else "")
        return await self._keeper.deliver(armed, Firing(armed.trigger.key, id, due_at, how=how))

    def _armed(self, namespace: str, app: str, name: str) -> Armed:
        armed = self._keeper.armed.get(f"{namespace}/{app}/{name}")
        if armed is not None:
            return armed
        if f"{namespace}/{app}" not in self._world.apps:
            raise UnknownApp(app, namespace, ((each.namespace, each.name) for each in self._world.apps.values()))
        prefix = f"{namespace}/{app}/"
        names = sorted(key.removeprefix(prefix) for key in self._keeper.armed if key.startswith(prefix))
        raise unknown_trigger(app, name, names)


def _known_since(armed: Armed, history: list[Firing], now: float) -> float:
    """From when on it is known of each due time whether it was fired for: by the rows of firings or, since each has
    one, by calls, as long as those of its schedule are kept."""
    oldest = now - FIRINGS_KEPT_S
    if len(history) < FIRINGS_KEPT:
        return oldest
    by_calls = max(now - (kept_s(armed.trigger.schedule) or Keeping().result_s), armed.state.began_at)
    # Not since the due time of that row: it may be a backfill of long ago. Nothing fires before it is due.
    return max(oldest, min(history[-1].at, by_calls))


def _row(armed: Armed) -> TriggerRow:
    trigger, state = armed.trigger, armed.state
    return TriggerRow(
        namespace=trigger.namespace,
        app=trigger.app,
        name=trigger.name,
        kind="schedule",
        schedule=written(trigger.schedule),
        missed=trigger.schedule.missed,
        began_at=state.began_at,
        next_at=_next_at(armed),
        fired_at=state.fired_at,
        paused_at=state.paused_at,
        why=armed.why,
    )


def _next_at(armed: Armed) -> float | None:
    if armed.state.paused_at is not None:
        return None
    return armed.owed[0] if armed.owed else armed.next_at


def _refused(words: str) -> SwellError:
    return SwellError("bad_request", words)
