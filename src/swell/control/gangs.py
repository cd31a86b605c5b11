"""Which calls do gangs work on, who of a gang has which part, and what do the ends of the parts come to?

A hand-out to a gang has as many fencing tokens as there are members: rank r's is the call's token + r, and so each
member has a lease of its own. The store knows the leader's alone, which is that of rank 0. What one member ended with
is acknowledged once the attempt is over and recorded: so it is told again to the next incarnation of control, which
knows the other leases from the replicas that it finds, and from what their runners say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from swell.control.leases import LEASE_S, Leases
from swell.control.rounds import Told
from swell.decide.calls import CANCELLED, FAILURES, LOSSES, PREEMPTED
from swell.decide.gangs import staying
from swell.model import ends
from swell.model.call import Call
from swell.model.replica import Replica
from swell.model.world import World
from swell.wire.calls import CallEnd

SETTLE_S = 1.0
"""What the code of a member raised counts after so long: by then it is known whether another member was lost, which is
what others raise for."""


class _Attempt(msgspec.Struct):
    """One hand-out of a call to a gang."""

    call: Call
    """As the store has it: with the token and the replica of the leader."""
    size: int | None
    """Members; None while none was found by this incarnation of control, which did not hand it out."""
    most: int
    """It has no more members than this."""
    ended: dict[int, Told] = {}
    """By rank, in the order in which they were heard."""
    failed_at: float | None = None
    """When the first one ended without a result."""
    preempted: bool = False
    """The gang was stopped for others."""


class Part(NamedTuple):
    """What one member had of an attempt that is over."""

    call: Call
    """With its own token and replica."""
    told: Told | None
    """Its end; None: it has not ended."""


class GangCalls:
    """All attempts that are under way."""

    def __init__(self, world: World, leases: Leases, given: Callable[[str, int], None]) -> None:
        """`given` is told of gangs that have a call, and of its priority."""
        self._world = world
        self._leases = leases
        self._given = given
        self._attempts: dict[str, _Attempt] = {}
        """By call."""
        self._idle: dict[str, float] = {}
        """Gang that has no call and lacks members → since when."""

    def __contains__(self, id: str) -> bool:
        return id in self._attempts

    # -- begins ------------------------------------------------------------------------------

    def begin(self, call: Call, members: list[Replica], now: float) -> list[Call]:
        """The call was handed out to all of these, who stand by rank: the call as each of them has it."""
        self._attempts[call.id] = _Attempt(call, len(members), len(members))
        self._leases.take(call, now)
        parts = [_part(call, rank, member.id) for rank, member in enumerate(members)]
        for part in parts[1:]:
            self._leases.join(part, now)
        self._given(call.replica, call.priority)
        return parts

    def stand_up(self, call: Call, now: float) -> None:
        """It was handed out, which is not known here, and its lease is taken: to a gang, perhaps."""
        revision = self._world.revision(call.pool)
        if revision is not None and revision.gang is not None:
            self._attempts[call.id] = _Attempt(call, None, revision.gang.size)
            self.meet(now)

    def meet(self, now: float) -> None:
        """Members may have become known: what they have is leased to them."""
        for attempt in self._attempts.values():
            gang = attempt.call.replica
            if gang in self._world.gangs and gang not in self._world.given:
                self._given(gang, attempt.call.priority)
            for member in self._world.gangs.get(gang, {}).values():
                assert member.seat is not None
                if attempt.size is None:
                    self._size(attempt, member.seat.size, now)
                part = _part(attempt.call, member.seat.rank, member.id)
                known = self._leases.get(part.id, part.token)
                if known is not None and not known.replica:
                    self._leases.join(part, now)

    def _size(self, attempt: _Attempt, size: int, now: float) -> None:
        """It has so many members. Those of which nothing is known are waited for as long as a lease holds."""
        attempt.size = size
        for rank in range(size):
            part = _part(attempt.call, rank, "")
            if self._leases.get(part.id, part.token) is None:
                self._leases.join(part, now)

    def claim(self, id: str, token: int, now: float) -> Call | None:
        """What a runner says to have, or to have had, and is no lease: may it be that of a member that is not known
        yet? Then it is one from now on."""
        attempt = self._attempts.get(id)
        if attempt is None or attempt.size is not None or not 0 < token - attempt.call.token < attempt.most:
            return None
        part = _part(attempt.call, token - attempt.call.token, "")
        self._leases.join(part, now)
        return part

    # -- ends --------------------------------------------------------------------------------

    def look(self) -> None:
        """Gangs may have been stopped for others."""
        for attempt in self._attempts.values():
            members = self._world.gangs.get(attempt.call.replica, {}).values()
            attempt.preempted |= any(member.reason == ends.PREEMPTED for member in members)

    def heard(self, told: Told, call: Call, now: float) -> bool:
        """A part of that call is over, of which there is a lease; False where no gang works on it."""
        attempt = self._attempts.get(call.id)
        if attempt is None and not told.end.members:
            return False
        if attempt is None:
            # It was not known for that of a gang: what this runs was deployed anew before control began.
            attempt = self._attempts[call.id] = _Attempt(call, None, told.end.members)
        if attempt.size is None and told.end.members:
            self._size(attempt, told.end.members, now)
        rank = told.end.token - attempt.call.token
        before = attempt.ended.get(rank)
        # What its runner says is worth more than what control takes for lost.
        if before is None or (told.node and not before.node):
            attempt.ended[rank] = told
        if told.end.code and attempt.failed_at is None:
            attempt.failed_at = now
        return True

    def settled(self, now: float) -> Iterator[tuple[Call, CallEnd]]:
        """The attempts that are over, with what they came to. They are told again until `over` takes them out."""
        self.look()
        for attempt in self._attempts.values():
            end = _result(attempt) or _failure(attempt, attempt.size or len(self._parts(attempt)), now)
            if end is not None:
                yield attempt.call, end

    def over(self, call: Call) -> list[Part]:
        """What came of the attempt is recorded, or nobody wants it any more."""
        attempt = self._attempts.pop(call.id)
        return [Part(part, attempt.ended.get(part.token - call.token)) for part in self._parts(attempt)]

    def _parts(self, attempt: _Attempt) -> list[Call]:
        """All that are leased: that of the leader always is."""
        tokens = (attempt.call.token + rank for rank in range(attempt.most))
        found = (self._leases.get(attempt.call.id, token) for token in tokens)
        return [part for part in found if part is not None]

    @property
    def failed(self) -> bool:
        """Is there one that will be settled by time alone?"""
        return any(attempt.failed_at is not None for attempt in self._attempts.values())

    def useless(self, now: float) -> list[str]:
        """Gangs that cannot be given a call any more: an incarnation of control before had begun them, and members of
        them were lost before this one heard of them."""
        busy = {attempt.call.replica for attempt in self._attempts.values()}
        idle = (gang for gang in self._world.gangs if gang not in busy and gang not in self._world.broken)
        lacking = [gang for gang in idle if _lacks_some(staying(self._world, gang))]
        self._idle = {gang: self._idle.get(gang, now) for gang in lacking}
        return [gang for gang, since in self._idle.items() if since + LEASE_S <= now]


def _part(call: Call, rank: int, replica: str) -> Call:
    """The call as the member of that rank has it."""
    return msgspec.structs.replace(call, token=call.token + rank, replica=call.replica if rank == 0 else replica)


def _lacks_some(members: list[Replica]) -> bool:
    return bool(members) and members[0].seat is not None and len(members) < members[0].seat.size


def _result(attempt: _Attempt) -> CallEnd | None:
    """The leader's, once all have ended well."""
    told = [each.end for each in attempt.ended.values()]
    if attempt.size is None or len(told) < attempt.size or any(end.code for end in told):
        return None
    return msgspec.structs.replace(attempt.ended[0].end, cpu_us=sum(end.cpu_us for end in told))


def _failure(attempt: _Attempt, parts: int, now: float) -> CallEnd | None:
    """Why it failed: for a member that was lost, if one was, since others fail of that; else what failed first. It has
    so many `parts`."""
    failed = [(_rank_of(end.code), rank, end) for rank, (end, _) in attempt.ended.items() if end.code]
    if attempt.failed_at is None or not failed:
        return None
    _, rank, end = min(failed, key=lambda each: each[0])
    code = PREEMPTED if attempt.preempted else end.code
    # Who was preempted may use its time, whatever others of its gang do with theirs.
    waited_for = code == PREEMPTED or (code in FAILURES and now < attempt.failed_at + SETTLE_S)
    if waited_for and len(attempt.ended) < parts:
        return None
    # Nobody but control cancels a call, and then it is not heard of any more: this one was not where it should be.
    code = "lease_expired" if code == CANCELLED else code
    message = f"rank {rank}: {end.message}"
    cpu_us = sum(each.end.cpu_us for each in attempt.ended.values())
    return CallEnd(
        attempt.call.id, attempt.call.token, attempt.call.replica, code, message, end.body, cpu_us, end.run_us
    )


def _rank_of(code: str) -> int:
    """Which of several ends is the reason of the others? The least."""
    if code == PREEMPTED:
        return 0
    return 1 if code in LOSSES else 3 if code == CANCELLED else 2
