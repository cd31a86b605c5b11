"""Which of the calls that one replica was given is sent to it next, and when?

A call is sent when a lane is free, of which there are as many as the replica has slots. Others fill these slots, too:
where it is refused as busy, the replica is asked for a slot (`POST /slot`), and the call is sent with it. So calls
and what gateways send take turns. A call that was not begun stays in the hand, in its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from swell.model.gang import Seat
from swell.runtime.runner.queued.answer import Answer, answered, failed, unfinished
from swell.runtime.runner.queued.lane import WAIT_S, Lane, limit
from swell.wire.calls import NOTHING, CallEnd, Granted, Lease
from swell.wire.paths import Home

REST_S = 0.05
"""A replica that could not be asked, or reached, is left alone for this long, doubled each time in a row…"""
REST_MAX_S = 2.0
"""…up to this long; its end is told before that if it is gone."""
IDLE_S = 10.0
"""A lane that was not used for this long is closed."""
BESIDE = 2
"""Lanes beside those of what runs, for answers that are there already."""
BREAKS_MAX = 3
"""So often at most the connection that a call is answered on may break while its replica lives. Each time its answer is
asked for anew."""
LEAVING_S = 1.0
"""So long after a replica said that it takes nothing any more, what is still given to it goes back: its end is told
before that, as a rule."""
DRAINED = "The replica ends, and had not begun the call."
CANCELLED = "The call was cancelled."
FORGOTTEN = "The replica does not have the call any more."
NO_ROOM = "Its result is large, and there is no room for it on the disk."
BROKEN = "The connection to its replica broke again and again."


class Owner(Protocol):
    """All that is queued at this runner."""

    @property
    def full(self) -> bool:
        """So much waits to be heard that nothing more is begun."""
        ...

    def begun(self, call: Granted) -> None:
        """It is sent to its replica."""
        ...

    def not_begun(self, call: Granted) -> None:
        """The replica did not take it."""
        ...

    def ended(self, end: CallEnd) -> None:
        """One hand-out is over."""
        ...

    def keeps(self, replica: str) -> bool:
        """Is this one there, as far as is known, and has what it answered?"""
        ...

    def forget(self, replica: str, calls: tuple[Lease, ...]) -> None:
        """Tell a replica that nobody needs these from there any more."""
        ...


class Hand:
    """The calls of one replica, and its lanes."""

    def __init__(
        self, owner: Owner, replica: str, path: str, slots: int, tasks: set[asyncio.Task[None]], home: Home
    ) -> None:
        self.replica = replica
        self.slots = slots
        self.ready = False
        """It serves; before, calls wait."""
        self.waiting: deque[Granted] = deque()
        """Not begun."""
        self.running: dict[Lane, Granted] = {}
        self.left: deque[Granted] = deque()
        """Begun, and their answers are to be asked for: they were sent by a runner before, or their lanes broke."""
        self._owner = owner
        self._path = path
        self._home = home
        self._tasks = tasks
        self.closed = False
        """It is to end: nothing is sent any more."""
        self.seat: Seat | None = None
        """In a gang, where the replica is in one."""
        self._leaving = False
        """It said that it takes nothing."""
        self._idle: list[Lane] = []
        self._asking: Lane | None = None
        self._asked_at = 0.0
        self._connecting = 0
        self._contended = False
        """Others fill its slots, as far as is known: it is asked, not tried."""
        self._breaks: dict[Lease, int] = {}
        """How often the lane of a call that is not over broke."""
        self._failures = 0
        """In a row: no call was answered since."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._resting = False
        self._time = asyncio.get_running_loop().time

    @property
    def rank(self) -> int:
        """In its gang; 0 of one that is in none."""
        return self.seat.rank if self.seat is not None else 0

    # -- what is to be done ----------------------------------------------------------------------

    def add(self, call: Granted) -> None:
        """One more, behind the others."""
        self.waiting.append(call)
        if self.closed:
            self.give_back()
        elif self._leaving:
            self._after(LEAVING_S, self.give_back)
        else:
            self.pump()

    def fetch(self, call: Granted) -> None:
        """The replica has this one already: see what comes of it."""
        self.left.append(call)
        self.pump()

    def drop(self, call: Granted) -> None:
        """Nobody wants it any more: it is not begun, or it is stopped. Its end is not told."""
        self._breaks.pop((call.id, call.token), None)
        if call in self.left:
            self.left.remove(call)
            self._owner.forget(self.replica, ((call.id, call.token),))
            return
        if call in self.waiting:
            self.waiting.remove(call)
            if not self.waiting and self._asking is not None:
                # Its place in the line, and the slot if that is on its way, are for others.
                self._asking.abort()
                self._asking = None
            return
        for lane, running in self.running.items():
            if running is call:
                del self.running[lane]
                lane.cancel()
                self.pump()
                return

    def leave(self) -> None:
        """It is to end: what runs may finish, the rest goes back."""
        self.closed = True
        for lane in (*self._idle, *([self._asking] if self._asking is not None else [])):
            lane.abort()
        self._idle, self._asking = [], None
        self.give_back()

    def gone(self, why: str) -> None:
        """It has ended, of that. What it answered before counts."""
        self.leave()
        for lane in list(self.running):
            lane.drain()
        for lane, call in self.running.items():
            lane.abort()
            self.left.append(call)
        self.running.clear()
        while self.left:
            self._owner.ended(unfinished(self.left.popleft(), self.replica, "replica_died", died(why)))
        for timer in self._timers:
            timer.cancel()

    def close_idle(self) -> None:
        """Lanes that nothing was sent on for a while are closed."""
        before = self._time() - IDLE_S
        for lane in [lane for lane in self._idle if lane.idle_at <= before]:
            self._idle.remove(lane)
            lane.abort()

    def pump(self) -> None:
        """Send what can be sent now."""
        if self._resting or self._owner.full:
            return
        self._fetch_left()
        if not self.ready or self.closed or self._leaving:
            return
        if self._contended:
            if self.waiting and self._asking is None and len(self.running) < self.slots:
                self._ask()
            return
        while self.waiting and len(self.running) < self.slots and (lane := self._spare()) is not None:
            self._begin(lane)
        while self._connecting < min(len(self.waiting), self.slots - len(self.running)):
            self._connect()

    def _fetch_left(self) -> None:
        most = self.slots + BESIDE
        while self.left and len(self.running) < most and (lane := self._spare()) is not None:
            call = self.left.popleft()
            self.running[lane] = call
            lane.fetch(call)
        while self._connecting < min(len(self.left), most - len(self.running)):
            self._connect()

    def _begin(self, lane: Lane, given: bool = False) -> None:
        lane.given = given
        call = self.waiting.popleft()
        self.running[lane] = call
        self._owner.begun(call)
        lane.send(call)

    def _ask(self) -> None:
        lane = self._spare()
        if lane is not None:
            self._asking, self._asked_at = lane, self._time()
            lane.ask()
        elif not self._connecting:
            self._connect()

    # -- lanes -----------------------------------------------------------------------------------

    def _spare(self) -> Lane | None:
        while self._idle:
            lane = self._idle.pop()
            if not lane.closing:
                return lane
            lane.abort()
        return None

    def _keep(self, lane: Lane) -> None:
        if (self.closed and not self.left) or lane.closing:
            lane.abort()
        else:
            lane.idle_at = self._time()
            self._idle.append(lane)

    def _connect(self) -> None:
        self._connecting += 1
        task = asyncio.get_running_loop().create_task(self._connected())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lane(self) -> Lane:
        return Lane(self, self._home.call_ends)

    async def _connected(self) -> None:
        try:
            _, lane = await asyncio.get_running_loop().create_unix_connection(self._lane, self._path)
        except OSError:
            self._connecting -= 1
            self._rest()
            return
        self._connecting -= 1
        self._keep(lane)
        self.pump()

    def _rest(self) -> None:
        """Leave it alone for a while."""
        if not self._resting:
            self._resting = True
            self._failures += 1
            self._after(min(REST_S * 2.0 ** min(self._failures - 1, 10), REST_MAX_S), self._rested)

    def _rested(self) -> None:
        self._resting = False
        self.pump()

    # -- what its lanes tell -----------------------------------------------------------------------

    def answered(self, lane: Lane, answer: Answer) -> None:
        """A call, or the question for a slot."""
        if lane is self._asking:
            self._asking = None
            self._slot(lane, answer)
            return
        call = self._over(lane)
        self._keep(lane)
        if answer.not_begun:
            self._owner.ended(unfinished(call, self.replica, "drained", DRAINED))
        elif answer.refused and lane.fetching:
            self._owner.ended(unfinished(call, self.replica, "lease_expired", FORGOTTEN))
        elif answer.refused:
            self._contended = True
            self._again(call)
            if lane.given:
                # It had a slot, and yet no room for what it is to keep.
                self._rest()
        else:
            self._end(call, answer)
        self.pump()

    def _end(self, call: Granted, answer: Answer) -> None:
        end = answered(call, self.replica, answer, self._home.call_result(call.id, call.token))
        if end is not None:
            self._failures = 0
            self._owner.ended(end)
        elif self._owner.keeps(self.replica):
            # It is there still: asked for again until there is room for it.
            self._rest()
            self.left.append(call)
        else:
            self._owner.ended(failed(call, self.replica, "bad_result", NO_ROOM))

    def late(self, lane: Lane) -> None:
        """It keeps deadlines itself, and did not keep this one."""
        call = self._over(lane)
        words = f"The deadline of {limit(call)} passed while it ran; it was told to stop."
        # Told first: stopped, it is not what the next runner would find.
        self._owner.ended(failed(call, self.replica, "deadline", words))
        lane.cancel()
        self.pump()

    def lost(self, lane: Lane, unread: bool) -> None:
        """The lane is closed."""
        if lane is self._asking:
            self._asking = None
            self._rest()
            return
        call = self.running.pop(lane, None)
        if call is None:
            if lane in self._idle:
                self._idle.remove(lane)
            return
        self._rest()
        if unread and not lane.fetching:
            self._again(call)
        else:
            self._broke(call)

    def _slot(self, lane: Lane, answer: Answer) -> None:
        """It was asked for a slot, and answered."""
        if answer.status == 200 and answer.free is not None and not lane.closing:
            if not self.waiting or self._owner.full:
                # It goes to others, or to ours when there is something to send.
                lane.abort()
                return
            others = not answer.free.slots and len(self.running) + 1 < self.slots
            self._contended = answer.free.waiting > 0 or others
            self._begin(lane, given=True)
            self.pump()
            return
        self._keep(lane)
        if answer.status == 410:
            self._leaving = True
            self.give_back()
        elif answer.refused and self._time() - self._asked_at > WAIT_S / 2:
            self.pump()
        else:
            # Of an earlier version, which does not know the question: it is tried. Or full of what it keeps.
            self._contended = answer.refused
            self._rest()

    def _broke(self, call: Granted) -> None:
        """Its lane did when it was begun, or may have been. A replica that lives has its answer, or will."""
        lease = call.id, call.token
        breaks = self._breaks.pop(lease, 0) + 1
        if not self._owner.keeps(self.replica):
            self._owner.ended(unfinished(call, self.replica, "replica_died", died()))
        elif breaks > BREAKS_MAX:
            self._owner.ended(unfinished(call, self.replica, "lease_expired", BROKEN))
        else:
            self._breaks[lease] = breaks
            self.left.append(call)

    # -- details -----------------------------------------------------------------------------------

    def told(self, end: CallEnd) -> CallEnd:
        """The end as control is told it. Of a member's it is told how many these are; of their results the leader's is
        the call's, and of others it is that there is one."""
        if self.seat is None:
            return end
        body = NOTHING if self.rank and not end.code else end.body
        return msgspec.structs.replace(end, members=self.seat.size, body=body)

    def _over(self, lane: Lane) -> Granted:
        """What it carried: it waits for nothing more."""
        call = self.running.pop(lane)
        self._breaks.pop((call.id, call.token), None)
        return call

    def _again(self, call: Granted) -> None:
        """It was not begun."""
        self._owner.not_begun(call)
        self.waiting.appendleft(call)
        if self.closed:
            self.give_back()

    def give_back(self) -> None:
        """What is not begun is for others."""
        while self.waiting:
            self._owner.ended(unfinished(self.waiting.popleft(), self.replica, "drained", DRAINED))

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        def now() -> None:
            self._timers.discard(timer)
            then()

        timer = asyncio.get_running_loop().call_later(seconds, now)
        self._timers.add(timer)


def died(why: str = "") -> str:
    """Of a call whose replica is no more, for who asks. `why`: what ended that, where it is known."""
    return f"The replica ended while it had the call{why and f' ({why})'}."
