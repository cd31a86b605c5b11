"""What happens to the durable queue? Calls are accepted, handed out, heard of and recorded, round by round.

A round is one write of the store, made in a thread: all that came since the last one (new calls, ends, cancels), and
leases for the replicas that have room. So what is asked for at once shares one sync, and a call may be accepted and handed
out in the same. What is decided, by `decide.granting` and `decide.calls`, is decided on the loop between two rounds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from swell.control.leases import Leases
from swell.control.table import TableKeeper
from swell.decide.calls import End, after
from swell.decide.granting import Taker, grants, hand, slots_wanted
from swell.model.call import (
    Call,
    CallError,
    Cancel,
    Change,
    Depth,
    Done,
    Outcome,
    Retry,
    Work,
    call_id,
    fencing_token,
)
from swell.model.errors import SwellError
from swell.model.ports import Clock, Store
from swell.model.world import World
from swell.wire.calls import CallEnd, EndedHeard, Grant, Granted, Lease, NewCall, Resume, Revoke
from swell.wire.link import Level

log = logging.getLogger("swell.control")

Down = Grant | Revoke | Resume | EndedHeard
T = TypeVar("T")

BATCH = 1000
"""New calls, and ends, that one round takes in at most."""
DUE_MAX = 10_000
"""Calls that are due are counted up to here."""
AGAIN_S = 1.0
"""A round that failed is made anew after this long."""
SWEEP_S = 60.0
MEMORY = 0.2
"""Share of the newest call in what is taken for the usual time of a workload's calls."""


class _Hand(NamedTuple):
    """Calls that a replica is to get."""

    workload: str
    pool: str
    replica: str
    most: int
    token: int


class _Round(NamedTuple):
    """What one write has in it, and who waits for it."""

    news: list[tuple[Work, asyncio.Future[str]]]
    ends: list[tuple[CallEnd, str]]
    """And the node whose runner told."""
    outcomes: list[Outcome]
    """Of those ends, one each."""
    changes: list[tuple[Change, asyncio.Future[Call | None] | None]]
    hands: list[_Hand]
    looked: list[str]
    """Workloads whose queue may be otherwise after it."""


class _Written(NamedTuple):
    """What the store answered."""

    ids: Sequence[str]
    recorded: Sequence[bool]
    changed: Sequence[Call | None]
    leased: list[Sequence[Work]]
    depths: list[Depth]


class CallKeeper:
    """The durable queue of one server, while this incarnation of control lasts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        world: World,
        rows: TableKeeper,
        epoch: int,
        send: Callable[[str, Down], bool],
        told: Callable[[Sequence[Level]], None],
        others: Callable[[str], Iterable[tuple[str, int]]],
    ) -> None:
        """`send` to the runner of a node, False where it is not connected. `told` takes what the queue wants of pools.
        `others`: inputs in flight at the replicas of a pool that are no queued calls."""
        self.leases = Leases()
        self._store = store
        self._clock = clock
        self._world = world
        self._rows = rows
        self._epoch = epoch
        self._send = send
        self._told = told
        self._others = others
        self._thread = ThreadPoolExecutor(1, "calls")
        self._stir = asyncio.Event()
        self._news: list[tuple[Work, asyncio.Future[str]]] = []
        self._ends: list[tuple[CallEnd, str]] = []
        self._changes: list[tuple[Change, asyncio.Future[Call | None] | None]] = []
        self._look: dict[str, None] = {}
        """Workloads to be looked at in the next round."""
        self._unseen: set[str] = set()
        """Of these it is not known how many calls are due."""
        self._due: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """When the next call of a workload becomes due."""
        self._tokens = 0
        self._run_s: dict[str, float] = {}
        """How long a workload's calls usually take."""
        self._begun_at: dict[str, float] = {}
        """When calls of a workload of which that is not known were first handed out."""
        self._spent: set[str] = set()
        """Replicas that take one input in their life, and had it."""
        self._levels: dict[str, Level] = {}
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    # -- what is asked -----------------------------------------------------------------------

    async def accept(self, new: NewCall) -> str:
        """The id of the call, once it is on disk. Raises SwellError."""
        return await self._asked(self._news, Work(self._call(new), new.input))

    async def cancel(self, id: str, why: CallError) -> Call | None:
        """The call after it; None where it has ended, or is not known."""
        return await self._asked(self._changes, Cancel(id, self._clock.now(), why))

    async def retry(self, id: str) -> Call | None:
        """A dead letter goes back into the queue; None where it is none."""
        return await self._asked(self._changes, Retry(id, self._clock.now()))

    async def ended(self, id: str, wait_s: float) -> Call | None:
        """The call, once it has ended or so much time has passed."""
        event = asyncio.Event()
        self._waiting[id].add(event)
        try:
            loop = asyncio.get_running_loop()
            ends = loop.time() + wait_s
            while True:
                event.clear()
                call = await asyncio.to_thread(self._store.call_records.get, id)
                left_s = ends - loop.time()
                if call is None or call.ended_at is not None or left_s <= 0:
                    return call
                try:
                    async with asyncio.timeout(left_s):
                        await event.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]

    # -- what is heard -----------------------------------------------------------------------

    def heard_ends(self, node: str, ends: Iterable[CallEnd]) -> None:
        """A runner says what came of calls."""
        self._ends += [(end, node) for end in ends]
        self._stir.set()

    def heard_holding(self, leases: Iterable[Lease]) -> None:
        """A runner has these."""
        self.leases.renew(leases, self._clock.now())

    def welcomed(self, node: str) -> None:
        """A runner connected: does it have what it was given?"""
        held = [
            (replica, tuple((call.id, call.token) for call in self.leases.at(replica)))
            for replica in self.leases.replicas()
            if self._node(replica) == node
        ]
        if held:
            self._send(node, Resume(self._epoch, tuple(held)))

    def gone(self, replica: str) -> None:
        """The replica has ended, and all that it was given with it."""
        self._spent.discard(replica)
        self._lose(self.leases.at(replica), "replica_died", "Its replica ended while it had the call.")

    def changed(self, pools: Iterable[str]) -> None:
        """Replicas or routes of these pools are not as they were: there may be room."""
        for key in {pool.rpartition("@")[0] for pool in pools}:
            if self._due.get(key) or key in self._unseen:
                self._look[key] = None
                self._stir.set()

    # -- rounds ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._stand_up()
        while True:
            await self._stir.wait()
            self._stir.clear()
            collected = self._collect(self._clock.now())
            try:
                written = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._write, collected, self._clock.now()
                )
            except Exception as error:
                self._not_written(collected, error)
                await asyncio.sleep(AGAIN_S)
                self._stir.set()
            else:
                self._deliver(collected, written, self._clock.now())

    async def _stand_up(self) -> None:
        """Go on with what an earlier incarnation left."""
        standing = await asyncio.to_thread(self._store.calls.standing)
        now = self._clock.now()
        for call in standing.leased:
            self.leases.take(call, self._pool(call.replica), now)
        for workload in standing.queued:
            self._unseen.add(workload)
            self._look[workload] = None
        self._stir.set()

    def _collect(self, now: float) -> _Round:
        """All that came since the last round, and who is to get what."""
        news, self._news = self._news[:BATCH], self._news[BATCH:]
        heard, self._ends = self._ends[:BATCH], self._ends[BATCH:]
        changes, self._changes = self._changes, []
        looked, self._look = self._look, {}
        if self._news or self._ends:
            self._stir.set()
        ends, outcomes = [], []
        for end, node in heard:
            call = self.leases.get(end.id, end.token)
            if call is None:
                self._send(node, EndedHeard(((end.id, end.token),)))
                continue
            looked[call.workload] = None
            outcome = self._outcome(call, end, now)
            if isinstance(outcome, Cancel):
                changes.append((outcome, None))
                continue
            ends.append((end, node))
            outcomes.append(outcome)
        coming = Counter(work.call.workload for work, _ in news if work.call.due_at <= now)
        looked |= dict.fromkeys(work.call.workload for work, _ in news)
        ending = Counter(end.replica for end, _ in ends)
        hands = [each for workload in looked for each in self._hands(workload, coming[workload], ending)]
        return _Round(news, ends, outcomes, changes, hands, list(looked))

    def _write(self, collected: _Round, now: float) -> _Written:
        """In the thread."""
        calls = self._store.calls
        changes = [change for change, _ in collected.changes]

        def lease() -> list[Sequence[Work]]:
            return [calls.lease(each.workload, each.most, now, each.token, each.replica) for each in collected.hands]

        if collected.news or collected.outcomes or changes:
            with self._store.transaction():
                ids = calls.add([work for work, _ in collected.news])
                recorded = calls.finish(collected.outcomes)
                changed = calls.change(changes)
                leased = lease()
        else:
            ids, recorded, changed, leased = [], [], [], lease()
        return _Written(
            ids, recorded, changed, leased, [calls.depth(workload, now, DUE_MAX) for workload in collected.looked]
        )

    def _not_written(self, collected: _Round, error: Exception) -> None:
        """Nothing of it is on disk. Who asks is told; what was heard is heard again."""
        log.error("the queue of calls cannot be written: %s", error)
        for _, future in (*collected.news, *collected.changes):
            if future is not None and not future.done():
                future.set_exception(error)
        self._ends[:0] = collected.ends
        self._look |= dict.fromkeys(collected.looked)

    def _deliver(self, collected: _Round, written: _Written, now: float) -> None:
        """It is written: everybody is told."""
        for (_, asked), id in zip(collected.news, written.ids, strict=True):
            _answer(asked, id)
        heard: defaultdict[str, list[Lease]] = defaultdict(list)
        touched: set[str] = set()
        for end, node in collected.ends:
            heard[node].append((end.id, end.token))
            self._over(end.id, end.token, touched)
        for (_, changing), call in zip(collected.changes, written.changed, strict=True):
            if call is not None:
                self._changed(call, touched)
            if changing is not None:
                _answer(changing, call)
        for node, leases in heard.items():
            self._send(node, EndedHeard(tuple(leases)))
        for each, works in zip(collected.hands, written.leased, strict=True):
            self._grant(each, works, now)
            touched.add(each.pool)
        for workload, depth in zip(collected.looked, written.depths, strict=True):
            self._see(workload, depth, now)
        self._tell(collected.looked, touched, now)

    # -- handing out -------------------------------------------------------------------------

    def _hands(self, workload: str, coming: int, ending: Counter[str]) -> Iterable[_Hand]:
        """Who is to get calls of this workload. `coming` are added just before, `ending` is over by then."""
        due = DUE_MAX if workload in self._unseen else self._due.get(workload, 0) + coming
        route = self._rows.routes.get(workload)
        pool = self._rows.pools.get(route.pool) if route is not None else None
        if not due or pool is None:
            return
        leased = self.leases.by_replica(pool.pool)
        others = dict(self._others(pool.pool))
        takers = [
            Taker(one.replica, leased.get(one.replica, 0) - ending[one.replica], others.get(one.replica, 0))
            for one in pool.replicas
            if one.replica not in self._spent
        ]
        kept = 0 if pool.single_use else hand(pool.max_inputs, self._run_s.get(workload))
        for replica, most in grants(due, takers, pool.max_inputs, kept).items():
            self._tokens += 1
            yield _Hand(workload, pool.pool, replica, most, fencing_token(self._epoch, self._tokens))

    def _grant(self, to: _Hand, works: Sequence[Work], now: float) -> None:
        """These were leased for a replica: on their way, or back where it went away meanwhile."""
        if not works:
            return
        self._begun_at.setdefault(to.workload, now)
        pool = self._rows.pools.get(to.pool)
        if pool is not None and pool.single_use:
            self._spent.add(to.replica)
        calls = [work.call for work in works]
        for call in calls:
            self.leases.take(call, to.pool, now)
        granted = tuple(
            Granted(call.id, call.token, call.method, work.input, call.accept, call.timeout_s, call.attempts)
            for call, work in zip(calls, works, strict=True)
        )
        node = self._node(to.replica)
        if node is None or not self._send(node, Grant(self._epoch, to.replica, granted)):
            self._lose(calls, "drained", "Its replica went away before it had the call.")

    def _see(self, workload: str, depth: Depth, now: float) -> None:
        """What the queue of a workload asks for is known."""
        self._unseen.discard(workload)
        if depth.due:
            self._due[workload] = depth.due
        else:
            self._due.pop(workload, None)
        timer = self._timers.pop(workload, None)
        if timer is not None:
            timer.cancel()
        if depth.next_at is not None:
            loop = asyncio.get_running_loop()
            self._timers[workload] = loop.call_later(max(depth.next_at - now, 0.001), self._rang, workload)

    def _rang(self, workload: str) -> None:
        self._timers.pop(workload, None)
        self._unseen.add(workload)
        self._look[workload] = None
        self._stir.set()

    def _tell(self, workloads: Iterable[str], touched: set[str], now: float) -> None:
        """What the queue wants of pools, where that is not what it wanted."""
        held: dict[str, int] = {}
        for workload in workloads:
            route = self._rows.routes.get(workload)
            if route is not None:
                run_s = self._run_s.get(workload, now - self._begun_at.get(workload, now))
                held[route.pool] = slots_wanted(self._due.get(workload, 0), run_s)
        levels = []
        for pool in {*held, *touched}:
            row = self._rows.pools.get(pool)
            most = row.max_inputs if row is not None else 1
            leased = tuple((replica, min(count, most)) for replica, count in self.leases.by_replica(pool).items())
            before = self._levels.get(pool)
            waiting = held.get(pool, before.held if before is not None else 0)
            level = Level(pool, waiting, sum(count for _, count in leased), leased)
            if level != before and (before is not None or level.held or level.in_flight):
                self._levels[pool] = level
                levels.append(level)
                if not (level.held or level.in_flight):
                    del self._levels[pool]
        if levels:
            self._told(levels)

    # -- ends --------------------------------------------------------------------------------

    def _outcome(self, call: Call, end: CallEnd, now: float) -> Outcome | Cancel:
        if not end.code:
            run_s = self._run_s.get(call.workload, end.run_us / 1e6)
            self._run_s[call.workload] = run_s + MEMORY * (end.run_us / 1e6 - run_s)
            return Done(end.id, end.token, now, end.body, end.cpu_us, end.run_us)
        told = End(end.code, end.message, end.body.data, end.body.content_type, end.cpu_us, end.run_us)
        return after(call, told, now, random.random())

    def _over(self, id: str, token: int, touched: set[str]) -> None:
        """A hand-out is over and recorded."""
        call = self.leases.get(id, token)
        if call is not None:
            touched.add(self._pool(call.replica))
            self.leases.end(id, token)
        self._wake(id)

    def _changed(self, call: Call, touched: set[str]) -> None:
        """A call is cancelled, or queued once more."""
        if self.leases.get(call.id, call.token) is not None:
            node = self._node(call.replica)
            self._over(call.id, call.token, touched)
            if node is not None:
                self._send(node, Revoke(((call.id, call.token),)))
        self._wake(call.id)
        if call.state == "queued":
            self._unseen.add(call.workload)
            self._look[call.workload] = None
            self._stir.set()

    def _wake(self, id: str) -> None:
        for event in self._waiting.get(id, ()):
            event.set()

    def expire(self) -> None:
        """Leases that nobody renewed are over. To be called every second or so."""
        lost = self.leases.expired(self._clock.now())
        self._lose(lost, "lease_expired", "Nothing was heard of its replica for too long.")

    def _lose(self, calls: Iterable[Call], code: str, message: str) -> None:
        ends = [CallEnd(call.id, call.token, call.replica, code, message) for call in calls]
        if ends:
            self.heard_ends("", ends)

    # -- details -----------------------------------------------------------------------------

    def _asked(self, waiting: list[tuple[T, asyncio.Future[object]]], what: T) -> asyncio.Future[object]:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        waiting.append((what, future))
        self._stir.set()
        return future

    def _call(self, new: NewCall) -> Call:
        """The call as it is queued. Raises SwellError."""
        route = self._rows.routes.get(new.workload)
        revision = self._world.revision(route.pool) if route is not None else None
        if revision is None:
            raise SwellError("unknown_function", f"There is no {new.workload} here.", status=404)
        now = self._clock.now()
        return Call(
            id=call_id(int(now * 1000), os.urandom(10)),
            workload=new.workload,
            method=new.method,
            accepted_at=now,
            due_at=now + new.delay_s,
            accept=new.accept,
            key=new.key,
            priority=new.priority,
            idempotency_key=new.idempotency_key,
            retrying=revision.retrying,
            timeout_s=revision.timeout_s,
        )

    def _node(self, replica: str) -> str | None:
        known = self._world.replicas.get(replica)
        return known.node if known is not None else None

    def _pool(self, replica: str) -> str:
        known = self._world.replicas.get(replica)
        return known.pool if known is not None else ""


def _answer(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
