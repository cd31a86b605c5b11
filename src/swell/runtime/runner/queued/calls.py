"""Which queued calls does this runner have, at which replica each, and what does control hear of them?"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from swell.model.ends import PREEMPTED, end_told
from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.replica import OVER, Phase
from swell.runtime.runner.queued.answer import failed, of_stopped, unfinished
from swell.runtime.runner.queued.ends import Ends, had
from swell.runtime.runner.queued.hand import CANCELLED, DRAINED, Hand, died
from swell.runtime.runner.queued.lane import sendable
from swell.runtime.runner.queued.running import Begun
from swell.wire.calls import LEFT, NOTHING, CallEnd, Ended, EndedHeard, Grant, Granted, Holding, Lease, Resume, Revoke
from swell.wire.child import Forget, KeptCall, Report
from swell.wire.paths import Home

HOLDING_S = 2.0
"""Pause between two times that control is told what is held here: that renews the leases."""
LOCAL = "unix:"
KEPT_MAX = 10_000
"""So many calls a replica may say to have at most: as many as one of ours keeps."""
KEPT_TIME_MAX_S = 366 * 86400.0
"""What it says of their times is not taken for more."""
STOPPED = frozenset({"deadline", "cancelled"})
"""Codes of what a replica is told to stop: the next runner would find nothing of it there."""


class Link(Protocol):
    """The way to a replica."""

    def send(self, message: Forget) -> None: ...


class Serving(Protocol):
    """A replica, as far as calls care."""

    @property
    def role(self) -> str: ...
    @property
    def phase(self) -> Phase: ...
    @property
    def address(self) -> str: ...
    @property
    def max_inputs(self) -> int: ...
    @property
    def awaited(self) -> bool:
        """It was adopted, and has not said yet what it has."""
        ...

    @property
    def keeps(self) -> bool:
        """Its runtime keeps answers of queued calls, as far as is known yet."""
        ...

    @property
    def link(self) -> Link | None: ...
    @property
    def seat(self) -> Seat | None: ...
    def given(self, call: str) -> None:
        """Of a member of a gang: this is the call that it works on."""
        ...

    def terminate(self) -> None:
        """Tell its process that it is to end."""
        ...


class QueuedCalls:
    """All calls that were granted to replicas of this runner and that control may still wait for."""

    def __init__(
        self, home: Home, children: Callable[[], Mapping[str, Serving]], send: Callable[[Ended | Holding], bool]
    ) -> None:
        """`send` to control; False where it does not listen. `children`: what is not over, by id."""
        self._home = home
        self._children = children
        self._send = send
        self._hands: dict[str, Hand] = {}
        self._held: dict[str, dict[int, tuple[Granted, Hand]]] = {}
        """By id and token, what is not over: of a call the newest hand-out, and of that the members that are here."""
        self._ends_for: dict[str, str] = {}
        """Replica that is to end → why."""
        self._begun = Begun()
        self._awaited: dict[str, set[Lease]] = {}
        """What control takes to be at replicas that have not said yet what they have."""
        self._said: set[str] = set()
        """Replicas of an earlier runner that came back and said what they have: what is not here was never begun."""
        self._ends = Ends(home, send, self._pump, self.forget)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False
        """This machine is about to go."""
        self._left = home.left.exists()
        """It went, as had been said, before this server began: what was here then was lost with it."""
        self._newest = 0
        """Highest token that came. They come in their order, so what has a higher one never did; of what was handed
        out before this runner began nothing is known."""

    @property
    def full(self) -> bool:
        """So much waits to be heard that nothing more is begun."""
        return self._ends.full

    # -- from control ----------------------------------------------------------------------------

    def granted(self, message: Grant) -> None:
        """Calls for a replica."""
        child = self._children().get(message.replica)
        for call in message.calls:
            self._newest = max(self._newest, call.token)
            rank = call.member.rank if call.member is not None else 0
            if not self._is_old(call, rank) and not self._has(call.id, call.token):
                self._grant(call, message.replica, child)

    def revoked(self, message: Revoke) -> None:
        """Nobody wants these any more."""
        unknown = []
        for id, token in message.calls:
            known = self._find(id, token)
            if known is not None:
                call, hand = known
                child = self._children().get(hand.replica)
                if child is not None and child.seat is not None:
                    child.terminate()
                self.ended(unfinished(call, hand.replica, "cancelled", CANCELLED))
                hand.drop(call)
            elif (id, token) not in self._ends:
                # Where its replica has it yet, that says so, and it is revoked anew.
                for leases in self._awaited.values():
                    leases.discard((id, token))
                unknown.append(CallEnd(id, token, "", "cancelled", CANCELLED))
        self._tell(unknown)

    def resumed(self, message: Resume) -> None:
        """Control says what it believes to be here."""
        for replica, leases in message.calls:
            missing = [lease for lease in leases if not self._has(*lease)]
            child = self._children().get(replica)
            if child is not None and child.awaited:
                self._awaited.setdefault(replica, set()).update(missing)
            else:
                self._tell(self._missing(*lease, replica) for lease in missing)
        if self._left:
            self._left = False
            self._home.left.unlink(missing_ok=True)

    def heard(self, message: EndedHeard) -> None:
        """These ends are recorded."""
        self._ends.heard(message.calls)

    # -- from the link ---------------------------------------------------------------------------

    def welcomed(self) -> None:
        """Control is there: what it does not know it is told."""
        self._ends.welcomed()
        self.hold()

    def lost(self) -> None:
        """Control is away."""
        self._ends.lost()

    def hold(self) -> None:
        """Say what is here."""
        awaited = (lease for leases in self._awaited.values() for lease in leases)
        held = (*((id, token) for id, tokens in self._held.items() for token in tokens), *self._ends, *awaited)
        if held:
            self._send(Holding(held, self._begun.told()))

    # -- from the fleet --------------------------------------------------------------------------

    def seen(self, seen: ReplicaSeen) -> None:
        """A replica is in this phase. Before control hears that it is over it has heard what came of its calls."""
        hand = self._hands.get(seen.replica)
        if seen.phase is Phase.DRAINING:
            # Also where it has nothing of ours yet: one that came back says next what it has.
            self._ends_for[seen.replica] = seen.reason
        if seen.phase in OVER:
            self._said.discard(seen.replica)
            why = end_told(seen.reason, seen.detail)
            if hand is not None:
                del self._hands[seen.replica]
                hand.gone(why)
            for id, token in self._awaited.pop(seen.replica, ()):
                self.ended(CallEnd(id, token, seen.replica, "replica_died", died(why)))
            self._ends_for.pop(seen.replica, None)
            self._ends.flush()
        elif hand is None:
            return
        elif seen.phase is Phase.DRAINING:
            hand.leave()
            self._ends.secure(seen.replica)
        elif seen.phase is Phase.READY:
            hand.ready = True
            hand.pump()

    def reported(self, replica: str, reports: Iterable[Report], redact: Callable[[str], str]) -> None:
        """What the code of a replica says of how far it is. Of others' calls it has nothing to say."""
        for report in reports:
            for token, (_, hand) in self._held.get(report.request, {}).items():
                if hand.replica == replica:
                    self._begun.hear((report.request, token), report, redact, time.time())

    def returned(self, replica: str, kept: tuple[KeptCall, ...] | None) -> None:
        """One came back, with what it has of a runner before, or of this one. None: that is not known."""
        child = self._children().get(replica)
        awaited = self._awaited.pop(replica, set())
        if child is None:
            return
        if kept is not None:
            self._said.add(replica)
        for one in (kept or ())[:KEPT_MAX]:
            awaited.discard((one.id, one.token))
            self._take_over(one, replica, child)
        for id, token in awaited:
            self.ended(self._missing(id, token, replica))

    def leaves(self, leaving: bool) -> None:
        """This machine is about to go, or stays after all. What is not begun is for others; what runs is tried again
        where it does not end well, since it was told to come to an end."""
        self._leaving = leaving
        for hand in self._hands.values() if leaving else ():
            hand.give_back()

    def tick(self) -> None:
        for hand in self._hands.values():
            hand.close_idle()

    # -- life ------------------------------------------------------------------------------------

    def read(self) -> None:
        """What an earlier runner had to say and was not heard."""
        self._ends.read()

    async def close(self) -> None:
        """The runner ends, and all replicas have. What control does not hear in a moment is left for the next one."""
        for task in self._tasks:
            task.cancel()
        for _ in range(100):
            if not self._ends.awaited:
                break
            await asyncio.sleep(0.01)
        self._ends.lost()

    # -- for hands -------------------------------------------------------------------------------

    def begun(self, call: Granted) -> None:
        """It is sent to its replica."""
        self._begun.begin(call, time.time())

    def not_begun(self, call: Granted) -> None:
        """The replica did not take it."""
        self._begun.end((call.id, call.token))

    def ended(self, end: CallEnd) -> None:
        """One hand-out is over."""
        end = of_stopped(end, PREEMPTED if self._leaving else self._ends_for.get(end.replica, ""))
        ran = self._begun.end((end.id, end.token))
        known = self._find(end.id, end.token)
        if known is not None:
            end = known[1].told(end)
            self._drop(end.id, end.token)
        hand = self._hands.get(end.replica)
        at_once = (hand is not None and hand.closed and had(end)) or (ran and end.code in STOPPED)
        self._ends.add(end, at_once)

    def keeps(self, replica: str) -> bool:
        """Is this one there, as far as is known, and has what it answered?"""
        child = self._children().get(replica)
        return child is not None and child.keeps

    def forget(self, replica: str, calls: tuple[Lease, ...]) -> None:
        """A replica need not keep these any more. Where it cannot be told it says that it has them when it comes
        back."""
        child = self._children().get(replica)
        if child is not None and child.keeps and child.link is not None:
            with suppress(OSError):
                child.link.send(Forget(calls))

    # -- details ---------------------------------------------------------------------------------

    def _has(self, id: str, token: int) -> bool:
        return (
            self._find(id, token) is not None
            or (id, token) in self._ends
            or any((id, token) in leases for leases in self._awaited.values())
        )

    def _missing(self, id: str, token: int, replica: str) -> CallEnd:
        """The end of what control believes to be here. What never came was no attempt."""
        if (id, token) in self._ends.unreadable:
            return CallEnd(id, token, replica, "lease_expired", "What its runner noted down of it cannot be read.")
        if replica in self._said:
            return CallEnd(id, token, replica, "drained", "Its runner ended before the replica had begun it.")
        if 0 < self._newest < token:
            return CallEnd(id, token, replica, "drained", "Its runner never had the call.")
        if self._left:
            return CallEnd(id, token, replica, PREEMPTED, LEFT)
        return CallEnd(id, token, replica, "lease_expired", "Its runner does not have the call any more.")

    def _is_old(self, call: Granted, rank: int) -> bool:
        """A later hand-out of it is here. One of an earlier hand-out is nobody's from now on. To the members of a gang
        one hand-out is made, with a token for each rank."""
        for token, (known, hand) in list(self._held.get(call.id, {}).items()):
            if token - hand.rank > call.token - rank:
                return True
            if token - hand.rank < call.token - rank:
                self._drop(call.id, token)
                self._begun.end((call.id, token))
                hand.drop(known)
        return False

    def _find(self, id: str, token: int) -> tuple[Granted, Hand] | None:
        return self._held.get(id, {}).get(token)

    def _drop(self, id: str, token: int) -> None:
        tokens = self._held[id]
        del tokens[token]
        if not tokens:
            del self._held[id]

    def _grant(self, call: Granted, replica: str, child: Serving | None) -> None:
        if (
            self._leaving
            or child is None
            or child.role != "serving"
            or child.phase not in (Phase.STARTING, Phase.READY)
        ):
            self.ended(unfinished(call, replica, "drained", DRAINED))
        elif not child.address.startswith(LOCAL) or call.input.digest or not sendable(call):
            self.ended(failed(call, replica, "bad_request", "This cannot be called by way of the queue."))
        else:
            self._hold(call, replica, child).add(call)

    def _hold(self, call: Granted, replica: str, child: Serving) -> Hand:
        hand = self._hand(replica, child)
        self._held.setdefault(call.id, {})[call.token] = (call, hand)
        if child.seat is not None:
            child.given(call.id)
        return hand

    def _hand(self, replica: str, child: Serving) -> Hand:
        hand = self._hands.get(replica)
        if hand is None:
            path = child.address.removeprefix(LOCAL)
            hand = self._hands[replica] = Hand(self, replica, path, child.max_inputs, self._tasks, self._home)
            hand.ready = child.phase is Phase.READY
            hand.closed = child.phase is Phase.DRAINING
            hand.seat = child.seat
        return hand

    def _take_over(self, one: KeptCall, replica: str, child: Serving) -> None:
        """A replica has this call: its answer is waited for, unless it is known what is to become of it."""
        lease = one.id, one.token
        if lease in self._ends:
            if self._ends.is_safe(lease):
                self.forget(replica, (lease,))
        elif self._find(*lease) is None:
            left_s = math.inf if one.ended else _bounded(one.remaining_s)
            call = Granted(one.id, one.token, "", NOTHING, "", left_s)
            if self._is_old(call, child.seat.rank if child.seat is not None else 0):
                self.forget(replica, (lease,))
            elif not self._has(*lease):
                self._begun.begin(call, time.time() - _bounded(one.ran_s))
                self._hold(call, replica, child).fetch(call)

    def _tell(self, ends: Iterable[CallEnd]) -> None:
        """Say these once: control asks again where it did not hear."""
        told = tuple(ends)
        if told:
            self._send(Ended(told))

    def _pump(self) -> None:
        for hand in self._hands.values():
            hand.pump()


def _bounded(seconds: float) -> float:
    """What a replica says. Whoever got hold of it may say anything."""
    return min(seconds, KEPT_TIME_MAX_S) if seconds > 0 else 0.0
