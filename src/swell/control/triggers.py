"""When does which trigger fire? At its next due time, as the apps that are deployed have it.

What triggers there are follows from the world; how far each has come stands in the store. The next times of all are in
a heap, and one timer waits for the first. What is due together is accepted together: up to `BATCH_MAX` calls, the
history of their triggers and how far these have come, in one write. So whatever dies when, a due time is fired for or
it is not, and if not it is still owed.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import os
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from swell.control.stops import Stops
from swell.decide.schedules import kept_s, next_due, owed, written_time
from swell.model.call import BATCH_MAX, Body
from swell.model.errors import SwellError
from swell.model.ports import Clock, Store
from swell.model.trigger import FIRINGS_KEPT, Delivery, Firing, How, Trigger, TriggerState, triggers
from swell.model.world import World
from swell.wire.calls import NewCall
from swell.wire.http import JSON, JSON_OR_PICKLE

log = logging.getLogger("swell.control")

AGAIN_S = 5.0
"""What could not be written, or accepted, is tried again after this long."""
CLOCK_LOOK_S = 60.0
"""The timer is not of the clock that people set, nor does it run while a machine is suspended: so often it is looked at
the clock itself, while there are triggers."""
BREATH = 100
"""Triggers, and due times of them, that are reckoned with before others get their turn."""
PUT_OFF_S = 600.0
"""A trigger of which it cannot be told when it is due (its time zone is not on this machine, say) is looked at again
after this long."""
WAITING_MAX = 500
"""While so many calls that its schedule made wait, a trigger makes no further ones: due times are owed, or missed."""
LOOKED_MAX = 10
"""Triggers of which it is looked together whether so many wait: each takes some milliseconds of the store."""
NO_ARGUMENTS = Body(JSON, b"{}")

Accept = Callable[[NewCall, Delivery], Awaitable[str]]


class Armed:
    """A trigger that is deployed."""

    def __init__(self, trigger: Trigger, state: TriggerState) -> None:
        self.trigger = trigger
        self.state = state
        self.next_at: float | None = None
        """The first due time that is not dealt with; None: there is none, or it is not known, or it is paused."""
        self.look_at: float | None = None
        """When it is looked at again; None while a firing is under way."""
        self.owed: deque[float] = deque()
        """Due times to fire for, before `next_at`."""
        self.missed_from: float | None = None
        self.why = ""
        """Why it does not fire when it is due, as the log was told; empty where it does."""


class Due(NamedTuple):
    """A firing that is under way."""

    armed: Armed
    firing: Firing


class TriggerKeeper:
    """The triggers of one server, while this incarnation of control lasts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        world: World,
        accept: Accept,
        due: Callable[[str], int],
        deployed_at: Mapping[str, float],
    ) -> None:
        """`accept`: a call, and its delivery, into the durable queue. `due`: how many calls of a workload wait there,
        as far as is known. `deployed_at`: when each app was deployed, by its key."""
        self.armed: dict[str, Armed] = {}
        """By key."""
        self._store = store.triggers
        self._records = store.call_records
        self._clock = clock
        self._world = world
        self._accept = accept
        self._due_calls = due
        self._deployed_at = deployed_at
        self._kept: dict[str, TriggerState] = {}
        """What stands in the store, of triggers that are deployed or were until now."""
        self._changed: dict[str, float] = {}
        """Apps that are not as they were, and since when."""
        self._stops = Stops(world, deployed_at)
        self._times: list[tuple[float, str]] = []
        """A heap of when to look at which trigger. Those that say something else by now are passed over."""
        self._stir = asyncio.Event()
        self._writing = asyncio.Lock()
        """States are written one after the other."""

    # -- what is heard -----------------------------------------------------------------------

    def changed(self, app: str, at: float) -> None:
        """The app of that key was deployed or stopped, or another version of it has the traffic."""
        self._changed[app] = at
        self._stops.changed(app)
        self._stir.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._stand_up()
        while True:
            self._stir.clear()
            try:
                await self._take_changes()
                await self._fire()
                wait_s = self._wait_s()
            except Exception as error:
                if isinstance(error, SwellError):
                    log.error("triggers cannot be kept: %s", error.message)
                else:
                    log.exception("a round of triggers failed")
                wait_s = AGAIN_S
                self._arm_again()
                # Arming stirs: what fails each time would be tried without end.
                self._stir.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stir.wait()

    async def _stand_up(self) -> None:
        """Go on with what an earlier incarnation left."""
        while True:
            try:
                self._kept = {state.key: state for state in await asyncio.to_thread(self._store.all)}
                break
            except SwellError as error:
                log.error("triggers cannot be read: %s", error.message)
            except Exception:
                log.exception("triggers cannot be read")
            await asyncio.sleep(AGAIN_S)
        now, deployed_at = self._clock.now(), self._deployed_at
        there = {*self._world.apps, *(key.rpartition("/")[0] for key in self._kept)}
        self._changed = {app: deployed_at.get(app, now) for app in there} | self._changed

    # -- what there is -----------------------------------------------------------------------

    async def _take_changes(self) -> None:
        """Have the triggers of the apps as they are now; on disk before any of them fires."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        stopped = self._stops.take()
        try:
            async with self._writing:
                await self._follow(changed, self._stops.real(stopped))
        except BaseException:
            self._changed = changed | self._changed
            self._stops.put_back(stopped)
            raise

    async def _follow(self, changed: Mapping[str, float], stopped: Collection[str]) -> None:
        wanted: dict[str, Trigger] = {}
        for app in changed.keys() & self._world.apps.keys():
            wanted |= {trigger.key: trigger for trigger in triggers(self._world.apps[app])}
        apps = {key: key.rpartition("/")[0] for key in self._kept}
        gone = [key for key, app in apps.items() if app in stopped or (app in changed and key not in wanted)]
        for key in gone:
            self.armed.pop(key, None)
        if gone:
            await asyncio.to_thread(self._store.remove, gone)
        for key in gone:
            del self._kept[key]
        begun = {key: state for key, each in wanted.items() if (state := self._begun(each, changed))}
        # Until it is known on disk what they are now, they do not fire as they were either.
        for key in begun:
            self.armed.pop(key, None)
        if begun:
            await asyncio.to_thread(self._store.put, tuple(begun.values()))
        for state in begun.values():
            self._keep(state)
        for number, (key, trigger) in enumerate(wanted.items(), 1):
            if key in begun or key not in self.armed:
                self._arm(Armed(trigger, self._kept[key]))
            if not number % BREATH:
                await asyncio.sleep(0)

    def _begun(self, trigger: Trigger, changed: Mapping[str, float]) -> TriggerState | None:
        """As it stands from now on; None where it goes on as it does."""
        at = changed[trigger.key.rpartition("/")[0]]
        state = self._kept.get(trigger.key)
        if state is None:
            return TriggerState(trigger.key, trigger.schedule, at, at, incarnation=os.urandom(8).hex())
        if state.schedule == trigger.schedule:
            return None
        if state.schedule is not None and replace(state.schedule, missed=trigger.schedule.missed) == trigger.schedule:
            return replace(state, schedule=trigger.schedule)
        return replace(state, schedule=trigger.schedule, began_at=at, fired_to=max(at, state.fired_to))

    # -- when to look at which ---------------------------------------------------------------

    def _arm(self, armed: Armed) -> None:
        """Have it looked at when it is due next."""
        state = armed.state
        self.armed[state.key] = armed
        armed.owed.clear()
        armed.next_at, armed.why = None, ""
        if state.paused_at is None:
            try:
                armed.next_at = next_due(armed.trigger.schedule, state.began_at, state.fired_to)
            except Exception as error:
                self._put_off(armed, error)
                return
        self._look(armed, armed.next_at)

    def _put_off(self, armed: Armed, error: Exception) -> None:
        """When it is due cannot be told now, which is nothing to the others."""
        armed.why = f"when it is due cannot be told: {error!r}"
        log.error("%s does not fire: %s", armed.trigger.shown, armed.why)
        armed.owed.clear()
        armed.next_at = None
        self._look(armed, self._clock.now() + PUT_OFF_S)

    def _arm_again(self) -> None:
        """A round broke off: what was under way in it is to be looked at still, and what it had taken out for that."""
        now = self._clock.now()
        for armed in self.armed.values():
            if armed.look_at is None or armed.look_at <= now:
                self._arm(armed)

    def _look(self, armed: Armed, at: float | None) -> None:
        armed.look_at = at
        if at is None:
            return
        heapq.heappush(self._times, (at, armed.state.key))
        if self._times[0][1] == armed.state.key:
            self._stir.set()
        if len(self._times) > 2 * len(self.armed) + BREATH:
            # Most of them are of times that no longer hold.
            self._times = [(each.look_at, key) for key, each in self.armed.items() if each.look_at is not None]
            heapq.heapify(self._times)

    def _wait_s(self) -> float | None:
        """How long there is nothing to do; None: until something changes."""
        if not self._times:
            return None
        return min(max(self._times[0][0] - self._clock.now(), 0.0), CLOCK_LOOK_S)

    def _again_at(self) -> float:
        """When to try again what could not be now: all of it together."""
        return (math.floor(self._clock.now() / AGAIN_S) + 1) * AGAIN_S

    # -- firing ------------------------------------------------------------------------------

    async def _fire(self) -> None:
        """All that is due, a batch at a time, with one firing of each trigger: so its firings are accepted in order.
        Where apps changed meanwhile, the rest is due after that."""
        while batch := await self._due():
            answers = await asyncio.gather(
                *(self.deliver(each.armed, each.firing, moves=True) for each in batch), return_exceptions=True
            )
            refused = [each for each in answers if isinstance(each, BaseException)]
            again_at = self._again_at()
            for each, answer in zip(batch, answers, strict=True):
                self._fired(each, None if not isinstance(answer, BaseException) else again_at)
            for error in refused[:1]:
                said = error.message if isinstance(error, SwellError) else repr(error)
                log.error("%d firings of triggers were not accepted, and are tried again: %s", len(refused), said)
            if self._changed:
                return

    async def _due(self) -> list[Due]:
        batch: list[Due] = []
        skipped: list[Armed] = []
        crowded: list[tuple[float, str]] = []
        reckoned, now = 0, self._clock.now()
        while self._times and self._times[0][0] <= now and len(batch) < BATCH_MAX:
            at, key = heapq.heappop(self._times)
            armed = self.armed.get(key)
            if armed is None or armed.look_at != at:
                continue
            if self._due_calls(armed.trigger.workload) >= WAITING_MAX:
                crowded.append((at, key))
            else:
                self._reckon(armed, now, batch, skipped)
            reckoned += 1 + len(armed.owed)
            if reckoned >= BREATH:
                reckoned = 0
                await asyncio.sleep(0)
        for armed in await self._with_room(crowded):
            self._reckon(armed, now, batch, skipped)
        if skipped:
            await self._skip(skipped, now)
        # Others were paused meanwhile.
        return [each for each in batch if each.armed.owed]

    def _reckon(self, armed: Armed, now: float, batch: list[Due], skipped: list[Armed]) -> None:
        """It has come to its time, and nothing holds it up: it fires next, or has missed it."""
        armed.why = ""
        try:
            firing = self._next_firing(armed, now)
        except Exception as error:
            self._put_off(armed, error)
            return
        if firing is not None:
            armed.look_at = None
            batch.append(Due(armed, firing))
        else:
            skipped.append(armed)

    async def _with_room(self, crowded: list[tuple[float, str]]) -> list[Armed]:
        """Of triggers whose functions have many calls waiting, when they are due: the first of those that may fire all
        the same. If their schedules made these calls they make no more now: so it is where a function is slower than
        its schedule, or does not start. To see that takes a while, so few are looked at together, and others go on in
        between."""
        for each in crowded[LOOKED_MAX:]:
            heapq.heappush(self._times, each)
        looked = crowded[:LOOKED_MAX]
        counts = await asyncio.gather(*(asyncio.to_thread(self._waiting, key) for _, key in looked))
        found = []
        for (at, key), waiting in zip(looked, counts, strict=True):
            armed = self.armed.get(key)
            # It may have been paused meanwhile, or resumed.
            if armed is not None and armed.look_at == at:
                if waiting < WAITING_MAX:
                    found.append(armed)
                else:
                    self._hold_back(armed)
        return found

    def _hold_back(self, armed: Armed) -> None:
        """It makes no more calls now, and is looked at again."""
        why = f"{WAITING_MAX} of its calls wait"
        if armed.why != why:
            log.warning("%s does not fire: %s", armed.trigger.shown, why)
        self._arm(armed)
        armed.why = why
        self._look(armed, self._again_at())

    def _waiting(self, key: str) -> int:
        """In a thread: how many of the newest calls that its schedule made wait. The others of its function are not
        counted: for who has it work on very many inputs it is due all the same."""
        firings = self._store.history(key, FIRINGS_KEPT)
        calls = self._records.get_many([each.call for each in firings if each.how == "schedule"])
        return sum(call.state == "queued" for call in calls.values())

    def _next_firing(self, armed: Armed, now: float) -> Firing | None:
        """What it is to fire for next; None where all that is due was missed for good, and where nothing is due."""
        state = armed.state
        if not armed.owed and armed.next_at is None:
            # It was put off.
            armed.next_at = next_due(armed.trigger.schedule, state.began_at, state.fired_to)
        if not armed.owed and armed.next_at is not None:
            found = owed(armed.trigger.schedule, state.began_at, armed.next_at, now)
            armed.owed.extend(found.due)
            armed.next_at, armed.missed_from = found.next_at, found.missed_from
        if not armed.owed:
            return None
        due_at, missed_from = armed.owed[0], armed.missed_from
        return Firing(armed.trigger.key, firing_id("schedule", due_at), due_at, missed_from=missed_from)

    def _fired(self, due: Due, again_at: float | None) -> None:
        """It is on disk, or it is not and still owed: `again_at` that time."""
        armed, firing = due
        if self.armed.get(firing.trigger) is not armed or armed.look_at is not None or not armed.owed:
            # It was deployed anew, paused or resumed meanwhile.
            return
        if again_at is not None:
            self._arm(armed)
            self._look(armed, again_at)
            return
        armed.owed.popleft()
        armed.missed_from = None
        self._look(armed, armed.owed[0] if armed.owed else armed.next_at)

    async def _skip(self, skipped: Iterable[Armed], now: float) -> None:
        """They were due when nobody was there, and are to leave it at that."""
        for armed in skipped:
            self._look(armed, armed.next_at)
        try:
            async with self._writing:
                states = [armed.state for armed in skipped if self.armed.get(armed.state.key) is armed]
                await self._put([replace(state, fired_to=max(now, state.fired_to)) for state in states])
        except SwellError as error:
            # Who looks again skips them again.
            log.error("that triggers were missed cannot be kept: %s", error.message)

    async def deliver(self, armed: Armed, firing: Firing, moves: bool = False) -> str:
        """The id of the call, once it and the firing are on disk. Raises SwellError."""
        trigger, incarnation = armed.trigger, armed.state.incarnation
        call = NewCall(
            trigger.workload,
            trigger.method,
            NO_ARGUMENTS,
            # For whoever asks what came of it. Whoever deployed it may have any result, as who calls it from Python.
            accept=JSON_OR_PICKLE,
            idempotency_key=" ".join(filter(None, (trigger.name, incarnation, firing.id))),
            keep_s=kept_s(trigger.schedule),
        )
        id = await self._accept(call, Delivery(firing, moves))
        there = self.armed.get(trigger.key)
        if there is not None and there.state.incarnation == incarnation:
            fired_to = max(there.state.fired_to, firing.due_at) if moves else there.state.fired_to
            there.state = self._kept[trigger.key] = replace(there.state, fired_to=fired_to, fired_at=self._clock.now())
        return id

    # -- what people ask ---------------------------------------------------------------------

    async def pause(self, key: str, paused: bool) -> Armed | None:
        """Have it fire no more, or again; on disk before it returns. What is due meanwhile is not made up for. None
        where there is no such trigger."""
        async with self._writing:
            armed = self.armed.get(key)
            if armed is None or paused is (armed.state.paused_at is not None):
                return armed
            now = self._clock.now()
            to = armed.state.fired_to if paused else max(now, armed.state.fired_to)
            await self._put([replace(armed.state, paused_at=now if paused else None, fired_to=to)])
            if self.armed.get(key) is armed:
                self._arm(armed)
        return armed

    async def _put(self, states: list[TriggerState]) -> None:
        await asyncio.to_thread(self._store.put, states)
        for state in states:
            self._keep(state)

    def _keep(self, state: TriggerState) -> None:
        """It is on disk, and may have fired while it was written."""
        last, armed = self._kept.get(state.key), self.armed.get(state.key)
        if last is not None:
            state = replace(state, fired_to=max(state.fired_to, last.fired_to), fired_at=last.fired_at)
        self._kept[state.key] = state
        if armed is not None:
            armed.state = state


def firing_id(how: How, due_at: float, chance: str = "") -> str:
    """Of a firing for that time. What was missed, and is fired later because somebody asks, is the same firing; one by
    hand is another each time (`chance`)."""
    return f"{'manual' if how == 'manual' else 'due'} {written_time(due_at)}{chance and ' '}{chance}"
