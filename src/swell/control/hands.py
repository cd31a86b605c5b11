"""Who is to get which queued calls now? What is known of the queues and the replicas, put before `decide.granting`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from swell.control.leases import Leases
from swell.control.table import TableKeeper
from swell.decide.calls import NOT_BEGUN
from swell.decide.gangs import staying
from swell.decide.granting import Taker, grants, hand, slots_wanted
from swell.model.call import BATCH_MAX, LOSSES, Call, Depth, Work, fencing_token
from swell.model.ends import UNKNOWN
from swell.model.replica import Phase, Replica
from swell.model.workload import workload_of
from swell.model.world import World
from swell.wire.calls import INPUT_MAX, CallEnd, Granted, Member
from swell.wire.link import PoolRow

DUE_MAX = 2000
"""Calls of a workload that are due are counted up to here: each round does that, and it takes 0.5 µs for each."""
MEMORY = 0.2
"""Share of the newest call in what is taken for the usual time of a workload's calls."""
AWAY_S = 0.5
"""A replica that hands back what it was given is given nothing for so long."""
HAND_BYTES_MAX = 16 * 1024 * 1024
"""Inputs that one round hands out to the replicas of a node have so many bytes at most: a few times as many, unsent,
and the link to its runner is cut."""


class Hand(NamedTuple):
    """Calls that a replica is to get."""

    workload: str
    pool: str
    replica: str
    most: int
    token: int
    idle: bool
    """It has none: it may get a suspect."""


class _Learned(msgspec.Struct):
    """What is known of the calls of a workload, as long as it has a route."""

    run_s: float | None = None
    """How long they usually take."""
    begun_at: float | None = None
    """When the first ones were handed out."""
    largest: int | None = None
    """Bytes of the largest input that was seen. One that was not seen may be of any size."""


_NOTHING = _Learned()


class Hands:
    """What there is to hand out, and to whom."""

    def __init__(
        self,
        world: World,
        rows: TableKeeper,
        leases: Leases,
        epoch: int,
        others: Callable[[str], Iterable[tuple[str, int]]],
        reachable: Callable[[str], bool],
    ) -> None:
        """`others`: inputs in flight at the replicas of a pool that are no queued calls. `reachable`: does the runner
        of that node take calls now?"""
        self._world = world
        self._rows = rows
        self._leases = leases
        self._epoch = epoch
        self._others = others
        self._reachable = reachable
        self.due: dict[str, int] = {}
        """Calls that may be handed out, by workload, where there are any."""
        self.next_at: dict[str, float] = {}
        """When the next one becomes due, where one does."""
        self.priorities: dict[str, tuple[tuple[int, int], ...]] = {}
        """(priority, how many of those that are due have it), the highest first, by workload, where there are any."""
        self._suspects: dict[str, tuple[int, bool]] = {}
        """How many of those that are due are suspects, and whether the first is one, by workload, where there are
        any."""
        self.unseen: set[str] = set()
        """Workloads of which it is not known how many calls are due."""
        self._tokens = 0
        self._learned: dict[str, _Learned] = {}
        self._spent: set[str] = set()
        """Replicas that take one input in their life, and were given it."""
        self._away_until: dict[str, float] = {}
        """Replicas that handed back what they were given: they may be about to end."""

    # -- what becomes known ------------------------------------------------------------------

    def see(self, workload: str, depth: Depth) -> None:
        """What the queue of a workload asks for."""
        self.unseen.discard(workload)
        if depth.due:
            self.due[workload], self.priorities[workload] = depth.due, depth.priorities
        else:
            self.due.pop(workload, None)
            self.priorities.pop(workload, None)
        if depth.suspects:
            self._suspects[workload] = depth.suspects, depth.suspect_first
        else:
            self._suspects.pop(workload, None)
        if depth.next_at is not None:
            self.next_at[workload] = depth.next_at
        else:
            self.next_at.pop(workload, None)

    def rang(self, now: float) -> list[str]:
        """The workloads of which more calls are due by now than was known."""
        found = [workload for workload, at in self.next_at.items() if at <= now]
        for workload in found:
            del self.next_at[workload]
            self.unseen.add(workload)
        return found

    def waiting(self) -> list[str]:
        """The workloads of which calls are due, or may be."""
        return [*self.due, *sorted(self.unseen)]

    def queued(self) -> set[str]:
        """The workloads of which calls wait, due or not, or may."""
        return {*self.due, *self.next_at, *self.unseen}

    @property
    def busy(self) -> bool:
        """Does anything wait anywhere?"""
        return bool(self.due or self.next_at or self.unseen)

    def counted(self, workload: str) -> int:
        """How many of its calls are known to be due, counted up to `DUE_MAX`."""
        return self.due.get(workload, 0)

    def has(self, workload: str) -> bool:
        """Does anything wait there?"""
        return workload in self.due or workload in self.next_at or workload in self.unseen

    def given(self, to: Hand, works: Iterable[Work], now: float) -> None:
        """These were leased to that replica."""
        learned = self._learn(to.workload)
        learned.begun_at = now if learned.begun_at is None else learned.begun_at
        pool = self._rows.pools.get(to.pool)
        if pool is not None and pool.single_use:
            self._spent.add(to.replica)
        for work in works:
            self.saw_input(to.workload, len(work.input.data))

    def saw_input(self, workload: str, size: int) -> None:
        """One of so many bytes."""
        learned = self._learn(workload)
        learned.largest = max(size, learned.largest or 0)

    def _learn(self, workload: str) -> _Learned:
        """What is known of it, to be added to. Of one that has no route any more nothing is kept."""
        if workload not in self._rows.routes:
            return _Learned()
        return self._learned.setdefault(workload, _Learned())

    def forget(self, workloads: Iterable[str]) -> None:
        """The routes of these are not as they were: where there is none any more, what was known of its calls goes."""
        for workload in workloads:
            if workload not in self._rows.routes:
                self._learned.pop(workload, None)

    def ended(self, call: Call, end: CallEnd, node: str, now: float) -> None:
        """An attempt is over, as the runner of that node said; empty: nobody did. One that failed took
        its time as well."""
        if end.run_us > 0:
            learned, taken_s = self._learn(call.workload), end.run_us / 1e6
            before_s = taken_s if learned.run_s is None else learned.run_s
            learned.run_s = before_s + MEMORY * (taken_s - before_s)
        if end.code in NOT_BEGUN or end.code in LOSSES:
            self.unspent(call.replica)
        if end.code in NOT_BEGUN and node:
            self._away_until[call.replica] = now + AWAY_S

    def unspent(self, replica: str) -> None:
        """It may not have begun what it was given. One that did hands back what it is given next."""
        self._spent.discard(replica)

    def gone(self) -> None:
        """Some replicas are."""
        there = self._world.replicas
        self._spent.intersection_update(there)
        self._away_until = {replica: at for replica, at in self._away_until.items() if replica in there}

    # -- who gets what -----------------------------------------------------------------------

    def make(self, workload: str, coming: int, ending: Counter[str], sent: Counter[str], now: float) -> Iterator[Hand]:
        """Who is to get calls of a workload, in the round that adds those that are `coming` and ends at each replica
        as many as are `ending`. `sent`: bytes that this round hands out to each node, counted on."""
        for pool, replica, most in self._shares(workload, coming, ending, sent, now):
            idle = self._count(replica, ending) == 0
            yield Hand(workload, pool, replica, most, fencing_token(self._epoch, self._tokens + 1), idle)
            # Each member of a gang has its own, from that on.
            self._tokens += len(self._world.gangs.get(replica, (replica,)))

    def any(self, workload: str, now: float) -> bool:
        """Is there somebody who is to get some?"""
        return any(True for _ in self._shares(workload, 0, Counter(), Counter(), now))

    def _shares(
        self, workload: str, coming: int, ending: Counter[str], sent: Counter[str], now: float
    ) -> Iterator[tuple[str, str, int]]:
        due = DUE_MAX if workload in self.unseen else self.due.get(workload, 0) + coming
        suspects = (0, False) if workload in self.unseen else self._suspects.get(workload, (0, False))
        pool = self._pool(workload)
        if not due or pool is None or self._is_left(workload, pool):
            return
        learned = self._learned.get(workload, _NOTHING)
        kept = 0 if pool.single_use else hand(pool.max_inputs, learned.run_s)
        largest = max(INPUT_MAX if learned.largest is None else learned.largest, 1)
        takers = tuple(self._takers(pool, ending, now))
        for replica, most in grants(due, takers, pool.max_inputs, kept, *suspects).items():
            taking = self.gang(replica) or [self._world.replicas[replica]]
            size = largest + peers_size(taking)
            # Each member of a gang is sent all of it.
            each = {node: copies * size for node, copies in Counter(member.node for member in taking).items()}
            fits = min(most, BATCH_MAX, *((HAND_BYTES_MAX - sent[node]) // size for node, size in each.items()))
            if fits < 1 and not any(sent[node] for node in each):
                # One alone is sent, however many members it is for.
                fits = 1
            if fits > 0:
                sent.update({node: fits * size for node, size in each.items()})
                yield pool.pool, replica, fits

    def _is_left(self, workload: str, pool: PoolRow) -> bool:
        """Are members of a gang there that had been taken for lost? What they have was to be handed out once nothing of
        them is left."""
        revision = self._world.revision(pool.pool)
        if revision is None or revision.gang is None:
            return False
        members = (each for gang in self._world.gangs.values() for each in gang.values())
        return any(each.reason == UNKNOWN and workload_of(each.pool) == workload for each in members)

    def _takers(self, pool: PoolRow, ending: Counter[str], now: float) -> Iterator[Taker]:
        others = dict(self._others(pool.pool))
        for each in pool.replicas:
            id = each.replica
            known = self._world.replicas.get(id)
            used = pool.single_use and (id in self._spent or others.get(id, 0) > 0)
            used |= self._away_until.get(id, 0.0) > now
            if known is not None and not used and (self.gang(id) if known.seat else self._takes(known.node)):
                leased = self._count(id, ending)
                yield Taker(id, leased, others.get(id, 0), bool(leased) and self._leases.has_suspect(id))

    def _takes(self, name: str) -> bool:
        """Are calls begun there? Not where the machine is about to go: they would be told at once to come to an end."""
        node = self._world.nodes.get(name)
        return self._reachable(name) and (node is None or node.leaving_at is None)

    def _count(self, replica: str, ending: Counter[str]) -> int:
        """Calls that it has once so many have ended."""
        return max(self._leases.count(replica) - ending[replica], 0)

    def gang(self, leader: str) -> list[Replica]:
        """The members of a gang by rank, where all of them could take a call now; else nobody."""
        members = staying(self._world, leader)
        seat = members[0].seat if members and leader not in self._world.broken else None
        whole = seat is not None and len(members) == seat.size and members[0].id == leader
        ready = all(each.phase is Phase.READY and each.meeting and self._reachable(each.node) for each in members)
        return members if whole and ready else []

    # -- what is wanted ----------------------------------------------------------------------

    def wanted(self, workload: str, now: float) -> int:
        """How many slots what is due is worth."""
        due, pool = self.due.get(workload, 0), self._pool(workload)
        if pool is not None and pool.single_use:
            # However short they are: each uses one up.
            return due
        learned = self._learned.get(workload, _NOTHING)
        begun_at = now if learned.begun_at is None else learned.begun_at
        run_s = now - begun_at if learned.run_s is None else learned.run_s
        suspects, _ = self._suspects.get(workload, (0, False))
        return slots_wanted(due, run_s, suspects, pool.max_inputs if pool is not None else 1)

    def _pool(self, workload: str) -> PoolRow | None:
        route = self._rows.routes.get(workload)
        return self._rows.pools.get(route.pool) if route is not None else None


def peers_size(members: Iterable[Replica]) -> int:
    """Bytes, about, in which each member of a gang is told where all of them are."""
    return sum(len(member.meeting) + 2 for member in members if member.seat is not None)


def fitting(works: Iterable[Work], sent: int) -> list[Work]:
    """The first of these that a node may be sent in the round that sent it so many bytes; one alone always."""
    taken: list[Work] = []
    for work in works:
        size = len(work.input.data)
        if sent and sent + size > HAND_BYTES_MAX:
            break
        sent += size
        taken.append(work)
    return taken


def granted(works: Sequence[Work], pool: PoolRow | None, member: Member | None = None) -> tuple[Granted, ...]:
    """As their runner is told of them. `pool`: what works on them, where that is there."""
    found = []
    for call, input in ((work.call, work.input) for work in works):
        limit = pool.limited_by if pool is not None else "timeout"
        limit = limit if pool is None or call.timeout_s >= pool.timeout_s else ""
        about = (call.id, call.token, call.method, input, call.accept, call.timeout_s, call.attempts)
        found.append(Granted(*about, limit, member))
    return tuple(found)
