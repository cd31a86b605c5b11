"""Which calls do gangs work on, who of a gang has which part, and what do the ends of the parts come to?

A hand-out to a gang has as many fencing tokens as there are members: rank r's is the call's token + r, and so each
member has a lease of its own. The store knows the leader's alone, which is that of rank 0. What one member ended with
is acknowledged once the attempt is over and recorded: so it is told again to the next incarnation of control, which
knows the other leases from the replicas that it finds, and from what their runners say.

An attempt that came to nothing is stopped at once, and over once nothing of it is left: the next one begins in the same
checkpoint folders, and none of the last is to write there then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from swell.control.leases import LEASE_S, Leases
from swell.control.rounds import Told
from swell.control.sending import Sending
from swell.decide.calls import CANCELLED, FAILURES, PREEMPTED
from swell.decide.gangs import staying
from swell.model import ends
from swell.model.call import LOSSES, Call
from swell.model.gang import SIZE_MAX
from swell.model.replica import Replica
from swell.model.world import World
from swell.wire.calls import CallEnd

SETTLE_S = 2.0
"""What the code of a member raised counts once all others were heard of so much later: their runners have noticed by
then whether one of them had died, which is what others raise for."""

DOUBTED = FAILURES | {PREEMPTED, CANCELLED}
"""Codes of ends that are not the reason yet: what others come to may say more."""


class _Attempt(msgspec.Struct):
    """One hand-out of a call to a gang."""

    call: Call
    """As the store has it: with the token and the replica of the leader."""
    size: int | None
    """Members; None while this incarnation of control, which did not hand it out, has not heard how many there are."""
    most: int
    """It has no more members than this."""
    ended: dict[int, Told] = {}
    """By rank, in the order in which they were heard."""
    failed_at: float | None = None
    """When the first one ended without a result."""
    preempted: bool = False
    """The gang was stopped for others."""
    lost: bool = False
    """The gang was taken for broken before anything of it had failed: others of it fail of that."""
    failure: CallEnd | None = None
    """What it comes to, which is none: all that is left of it was told to stop."""


class Part(NamedTuple):
    """What one member had of an attempt that is over."""

    call: Call
    """With its own token and replica."""
    told: Told | None
    """Its end; None: it has not ended."""


class GangCalls:
    """All attempts that are under way."""

    def __init__(
        self,
        world: World,
        leases: Leases,
        sending: Sending,
        useless: Callable[[str, str], None],
        given: Callable[[str, int], None],
    ) -> None:
        """Of gangs `useless` is told that what is left of one is of no use, and why; `given` that one has a call of
        that priority."""
        self._world = world
        self._leases = leases
        self._sending = sending
        self._useless = useless
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
                attempt.preempted |= member.reason == ends.PREEMPTED
                if attempt.size is None:
                    self._size(attempt, member.seat.size, now)
                part = _part(attempt.call, member.seat.rank, member.id)
                known = self._leases.get(part.id, part.token)
                if known is not None and not known.replica:
                    self._leases.join(part, now)

    def _size(self, attempt: _Attempt, size: int, now: float) -> None:
        """It has so many members. Those of which nothing is known are waited for as long as a lease holds."""
        attempt.size = attempt.most = size
        for rank in range(size):
            part = _part(attempt.call, rank, "")
            if self._leases.get(part.id, part.token) is None:
                self._leases.join(part, now)

    def claim(self, id: str, token: int, now: float) -> Call | None:
        """What a runner says to have, or to have had, and is no lease: may it be that of a member that is not known
        yet? Then it is one from now on."""
        attempt = self._attempts.get(id) or self._unknown(id, token)
        if attempt is None or attempt.size is not None or not 0 < token - attempt.call.token < attempt.most:
            return None
        part = _part(attempt.call, token - attempt.call.token, "")
        self._leases.join(part, now)
        return part

    def _unknown(self, id: str, token: int) -> _Attempt | None:
        """A gang's, where a token just above that of the call's lease was handed out: to nobody but the members of one.
        What these run was deployed anew before control began."""
        leader = next((call for call in self._leases.of(id) if 0 < token - call.token < SIZE_MAX), None)
        if leader is not None:
            self._attempts[id] = _Attempt(leader, None, SIZE_MAX)
        return self._attempts.get(id)

    # -- ends --------------------------------------------------------------------------------

    def look(self, pools: Iterable[str]) -> None:
        """Gangs of these may have been stopped for others, or since a member of them is gone."""
        changed = frozenset(pools)
        for attempt in self._attempts.values():
            if attempt.call.pool in changed:
                gang = attempt.call.replica
                members = self._world.gangs.get(gang, {}).values()
                attempt.preempted |= any(member.reason == ends.PREEMPTED for member in members)
                attempt.lost |= attempt.failed_at is None and gang in self._world.broken

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

    def unwanted(self, id: str, token: int) -> bool:
        """Is it a part of an attempt that is to stop, as its runner may not have heard?"""
        attempt = self._attempts.get(id)
        return attempt is not None and attempt.failure is not None and not _is_told(attempt, token)

    def settled(self, now: float) -> Iterator[tuple[Call, CallEnd]]:
        """The attempts that are over, with what they came to. They are told again until `over` takes them out. What is
        known now to come to nothing is told to stop."""
        for attempt in self._attempts.values():
            result = _result(attempt)
            if result is None and attempt.failure is None:
                attempt.failure = self._failure(attempt, now)
                if attempt.failure is not None:
                    self._stop(attempt, f"their call failed: {attempt.failure.message}")
            end = result or (None if self._is_left(attempt, now) else attempt.failure)
            if end is not None:
                cpu_us = sum(each.end.cpu_us for each in attempt.ended.values())
                yield attempt.call, msgspec.structs.replace(end, cpu_us=cpu_us)

    def over(self, call: Call, unwanted: str = "") -> list[Part]:
        """What came of the attempt is recorded, or nobody wants it any more: then why."""
        attempt = self._attempts.pop(call.id)
        if unwanted:
            self._stop(attempt, unwanted)
        return [Part(part, attempt.ended.get(part.token - call.token)) for part in self._parts(attempt)]

    def _stop(self, attempt: _Attempt, why: str) -> None:
        for part in self._parts(attempt):
            if not _is_told(attempt, part.token):
                self._sending.revoke(part)
        self._useless(attempt.call.replica, why)

    def _failure(self, attempt: _Attempt, now: float) -> CallEnd | None:
        """Why it came to nothing: for a member that was lost, if one was, since others fail of that; else what failed
        first."""
        failed = [(_rank_of(end.code), rank, end) for rank, (end, _) in attempt.ended.items() if end.code]
        if attempt.failed_at is None or not failed:
            return None
        _, rank, end = min(failed, key=lambda each: each[0])
        code = PREEMPTED if attempt.preempted else end.code
        code = "replica_died" if attempt.lost and code in FAILURES else code
        if not self._is_sure(attempt, code, now):
            return None
        # Nobody but control cancels a call, and then it is not heard of any more: this one was not where it should be.
        code = "lease_expired" if code == CANCELLED else code
        message = f"rank {rank}: {end.message}"
        call = attempt.call
        return CallEnd(call.id, call.token, call.replica, code, message, end.body, run_us=end.run_us)

    def _is_sure(self, attempt: _Attempt, code: str, now: float) -> bool:
        """Is that why it failed, whatever those come to that have not ended?"""
        assert attempt.failed_at is not None
        if code not in DOUBTED:
            return True
        if attempt.size is None:
            return now >= attempt.failed_at + LEASE_S
        # Who was preempted may use its time, whatever others of its gang do with theirs.
        heard = [self._leases.seen(part, None).heard_at for part in self._open(attempt)]
        since = attempt.failed_at + SETTLE_S
        return not heard or (code != PREEMPTED and all(at is not None and at >= since for at in heard))

    def _is_left(self, attempt: _Attempt, now: float) -> bool:
        """Is anything of it there still, as far as is known?"""
        if attempt.size is None and attempt.failed_at is not None and now < attempt.failed_at + LEASE_S:
            return True
        return attempt.call.replica in self._world.gangs or bool(self._open(attempt))

    def _open(self, attempt: _Attempt) -> list[Call]:
        """The parts that have not ended."""
        return [part for part in self._parts(attempt) if part.token - attempt.call.token not in attempt.ended]

    def _parts(self, attempt: _Attempt) -> list[Call]:
        """All that are leased: that of the leader always is."""
        tokens = (attempt.call.token + rank for rank in range(attempt.most))
        found = (self._leases.get(attempt.call.id, token) for token in tokens)
        return [part for part in found if part is not None]

    @property
    def failed(self) -> bool:
        """Is there one that will be settled by what is not told of it: by time, or as its replicas go?"""
        return any(attempt.failed_at is not None for attempt in self._attempts.values())

    def tick(self, now: float) -> None:
        """Gangs that cannot be given a call any more are of no use: an incarnation of control before had begun them,
        and members of them were lost before this one heard of them."""
        busy = {attempt.call.replica for attempt in self._attempts.values()}
        idle = (gang for gang in self._world.gangs if gang not in busy and gang not in self._world.broken)
        lacking = [gang for gang in idle if _lacks_some(staying(self._world, gang))]
        self._idle = {gang: self._idle.get(gang, now) for gang in lacking}
        for gang, since in self._idle.items():
            if since + LEASE_S <= now:
                self._useless(gang, "members of it were lost before it had a call")


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
    return attempt.ended[0].end


def _is_told(attempt: _Attempt, token: int) -> bool:
    """Did a runner say that this part is over?"""
    told = attempt.ended.get(token - attempt.call.token)
    return told is not None and bool(told.node)


def _rank_of(code: str) -> int:
    """Which of several ends is the reason of the others? The least."""
    if code == PREEMPTED:
        return 0
    return 1 if code in LOSSES else 3 if code == CANCELLED else 2
