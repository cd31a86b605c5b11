"""Which functions are called for events now, and how far has each come?

What there is follows from the world, and how far it came stands in the store, as of schedules. What has a source is
read in a task of its own (`feeds`, `own_sources`), which is ended before anything of its trigger is changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress

from msgspec.structs import replace

from swell.control.stops import Stops
from swell.model.call import group_id
from swell.model.errors import SwellError
from swell.model.event_trigger import EventTrigger, EventTriggerState, event_triggers
from swell.model.objects import new_since
from swell.model.ports import Clock, Triggers
from swell.model.source import Objects, SourceState
from swell.model.source_ports import Feed
from swell.model.subscription import HttpEvents, OwnSource, Subscription, same
from swell.model.trigger import Delivery
from swell.model.world import World
from swell.wire.calls import NewCall

log = logging.getLogger("swell.control")

AGAIN_S = 5.0
"""What could not be read or written is tried again after this long."""
SETTLED_S = 5.0
"""Who brings an event right after a deploy, or a start, waits so long for what takes it."""
UNREADABLE = (
    "what is kept of it cannot be read, so how far it came is not known: stop the app and deploy it, and it begins anew"
)
WAITING_MAX = 1000
"""While so many calls of a function wait, nothing more is taken of its source."""
LATER_S = 0.001
"""A trigger that begins anew does so by at least so much later: the times tell what came when."""

Accept = Callable[[NewCall, Delivery], Awaitable[str]]
"""A call, and what makes it, into the durable queue: the call's id once both are on disk. SwellError where not."""


class Live:
    """A trigger that is deployed."""

    def __init__(self, trigger: EventTrigger, state: EventTriggerState) -> None:
        self.trigger = trigger
        self.state = state
        self.source: SourceState | None = None
        """Is what it reads reached? None: nothing is read."""
        self.feed: Feed | None = None
        """What comes of that, where there is one now."""
        self.held_back = ""
        """Why nothing more is taken now of what came; empty: it is."""
        self.reading: asyncio.Task[None] | None = None

    def fired(self, at: float, watermark: str = "") -> None:
        """It made calls, which are on disk."""
        self.state = replace(self.state, fired_at=at, watermark=watermark or self.state.watermark)


class EventTriggers:
    """Those of one server, while this incarnation of control lasts."""

    def __init__(
        self,
        store: Triggers,
        clock: Clock,
        world: World,
        read: Callable[[Live], Coroutine[None, None, None]],
        deployed_at: Mapping[str, float],
        leave: Callable[[Live], Awaitable[None]],
    ) -> None:
        """`read` reads the source of a trigger until it is cancelled. `deployed_at`: when each app was deployed.
        `leave` ends what would go on of that: it is told of triggers that are not to be read any more."""
        self.live: dict[str, Live] = {}
        """By key."""
        self._store = store
        self._clock = clock
        self._world = world
        self._read = read
        self._deployed_at = deployed_at
        self._leave = leave
        self._kept: dict[str, EventTriggerState] = {}
        """Of those in the store that are not live: what an earlier incarnation left."""
        self._changed: dict[str, float] = {}
        """Apps that are not as they were, and since when."""
        self._stops = Stops(world, deployed_at)
        self._following: Collection[str] | None = None
        """Apps whose triggers are being made what they are to be; None: it is not known yet what there was."""
        self._stir = asyncio.Event()
        self._followed = asyncio.Event()
        """Some of them are. It is another one each time."""
        self._writing = asyncio.Lock()
        """States are written one after the other."""

    def of(self, workload: str) -> Live | None:
        """That of a function."""
        return next((live for live in self.live.values() if live.trigger.workload == workload), None)

    def names(self, namespace: str, app: str) -> list[str]:
        """Of an app's."""
        prefix = f"{namespace}/{app}/"
        return sorted(live.trigger.name for key, live in self.live.items() if key.startswith(prefix))

    def changed(self, app: str, at: float) -> None:
        """The app of that key was deployed or stopped, or another version of it has the traffic."""
        self._changed[app] = at
        self._stops.changed(app)
        self._stir.set()

    async def settled(self, app: str) -> None:
        """Returns once what is live of the app of that key is what is deployed. SwellError busy where that takes
        long."""
        try:
            async with asyncio.timeout(SETTLED_S):
                while self._following is None or app in self._changed or app in self._following:
                    await self._followed.wait()
        except TimeoutError:
            words = "What takes events is not known yet: the disk does not take it, or is slow. Try again in a moment."
            raise SwellError("busy", words, status=503) from None

    async def run(self) -> None:
        """Until it is cancelled; then nothing is read any more."""
        try:
            await self._stand_up()
            while True:
                self._stir.clear()
                wait_s: float | None = None
                try:
                    await self._take_changes()
                except SwellError as error:
                    log.error("triggers for events cannot be kept: %s", error.message)
                    wait_s = AGAIN_S
                except Exception:
                    log.exception("a change of triggers for events failed")
                    wait_s = AGAIN_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stir.wait()
        finally:
            await asyncio.gather(*(self._end(live) for live in self.live.values()))

    async def pause(self, key: str, paused: bool) -> Live | None:
        """Have nothing more be read or taken, or again; on disk before it returns. None: there is no such trigger."""
        async with self._writing:
            live = self.live.get(key)
            if live is None or paused is (live.state.paused_at is not None):
                return live
            await self._end(live)
            await self._leave(live)
            try:
                state = replace(live.state, paused_at=self._clock.now() if paused else None)
                await asyncio.to_thread(self._store.put, [state])
                live.state = state
            finally:
                self._begin(live)
        return live

    # -- what there is -----------------------------------------------------------------------

    async def _stand_up(self) -> None:
        """Go on with what an earlier incarnation left."""
        while True:
            try:
                self._kept = {state.key: state for state in await asyncio.to_thread(self._store.for_events)}
                break
            except SwellError as error:
                log.error("triggers for events cannot be read: %s", error.message)
            except Exception:
                log.exception("triggers for events cannot be read")
            await asyncio.sleep(AGAIN_S)
        now, there = self._clock.now(), {*self._world.apps, *map(_app_of, self._kept)}
        self._changed = {app: self._deployed_at.get(app, now) for app in there} | self._changed
        self._following = ()

    async def _take_changes(self) -> None:
        changed, self._changed = self._changed, {}
        stopped = self._stops.take()
        self._following = changed
        try:
            async with self._writing:
                await self._follow(changed, self._stops.real(stopped))
        except BaseException:
            self._changed = changed | self._changed
            self._stops.put_back(stopped)
            raise
        finally:
            self._following = ()
            self._followed.set()
            self._followed = asyncio.Event()

    async def _follow(self, changed: Mapping[str, float], stopped: Collection[str]) -> None:
        """Have the triggers of these apps as they are now. Until that is on disk, nothing is read for those that are
        not as they were. Those of `stopped` were gone in between: they begin anew."""
        wanted: dict[str, EventTrigger] = {}
        for app in changed.keys() & self._world.apps.keys():
            wanted |= {each.key: each for each in event_triggers(self._world.apps[app])}
        there = [key for key in {**self._kept, **self.live} if _app_of(key) in changed]
        gone = {key for key in there if key not in wanted or _app_of(key) in stopped}
        others = {key for key, each in wanted.items() if key not in self.live or self.live[key].trigger != each}
        others |= gone & wanted.keys()
        ended = [self.live[key] for key in gone | others if key in self.live]
        # Beside each other: of each, a source that hangs is waited for.
        await asyncio.gather(*(self._end(live) for live in ended))
        await asyncio.gather(*(self._leave(live) for live in ended))
        for live in ended:
            self._kept[live.trigger.key] = self.live.pop(live.trigger.key).state
        if gone:
            await asyncio.to_thread(self._store.remove, sorted(gone))
        states = {key: self._begun(wanted[key], changed[_app_of(key)], key in gone) for key in sorted(others)}
        begun = [state for key, state in states.items() if state != self._kept.get(key)]
        if begun:
            await asyncio.to_thread(self._store.put, begun)
        for key in gone | others:
            self._kept.pop(key, None)
        fresh = {key: Live(wanted[key], state) for key, state in states.items()}
        # Of a backup that was restored what it had under way is, too.
        await asyncio.gather(*(self._leave(live) for live in fresh.values() if live.state.paused_at is not None))
        for key, live in fresh.items():
            self.live[key] = live
            self._begin(live)

    def _begun(self, trigger: EventTrigger, at: float, gone: bool) -> EventTriggerState:
        """As it stands from now on: as it did, where the same is read, and it was never `gone`."""
        state = self._kept.get(trigger.key)
        if state is None:
            return EventTriggerState(trigger.key, trigger.subscription, at, _first(trigger.subscription, at))
        began_at = max(at, state.began_at + LATER_S)
        first = _first(trigger.subscription, began_at)
        if gone:
            return EventTriggerState(trigger.key, trigger.subscription, began_at, first)
        if state.subscription is None and trigger.subscription.read is not None:
            # Is it what was read? Nobody knows: neither is it read on, nor all of it anew.
            return state
        if state.subscription is None or same(state.subscription, trigger.subscription):
            return replace(state, subscription=trigger.subscription)
        return replace(state, subscription=trigger.subscription, began_at=began_at, watermark=first)

    # -- reading -----------------------------------------------------------------------------

    def _begin(self, live: Live) -> None:
        if isinstance(live.trigger.subscription.source, HttpEvents):
            return
        if live.state.subscription is None:
            live.held_back = UNREADABLE
        elif live.state.paused_at is None:
            live.reading = asyncio.create_task(self._read(live), name=f"read {live.trigger.key}")

    async def _end(self, live: Live) -> None:
        """What was under way is on disk, or is not, when this returns."""
        if live.reading is not None:
            live.reading.cancel()
            await asyncio.wait({live.reading})
            if not live.reading.cancelled() and (error := live.reading.exception()) is not None:
                log.error("reading for %s ended: %r", live.trigger.shown, error)
            live.reading, live.source, live.held_back = None, None, ""


def _first(subscription: Subscription, at: float) -> str:
    """The watermark of one that begins anew."""
    match subscription.source:
        case OwnSource():
            return group_id(int(at * 1000), os.urandom(10))
        case Objects(since="new"):
            return new_since(at)
    return ""


def _app_of(key: str) -> str:
    """Key of its app."""
    return key.rpartition("/")[0]
