"""What happens to the durable queue? Calls are accepted, handed out, heard of and recorded, round by round.

A round is one write of the store, made in a thread: all that came since the last one (new calls, ends, cancels), and
leases for the replicas that have room. So what is asked for at once shares one sync, and a call may be accepted and
handed out in the same. What is decided, by `decide.granting` and `decide.calls`, is decided on the loop between two
rounds.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from swell.control.accepting import queued
from swell.control.alarm import Alarm
from swell.control.call_tallies import CallTallies
from swell.control.call_waits import CallWaits
from swell.control.ended_groups import EndedGroups
from swell.control.gangs import GangCalls
from swell.control.hands import Hand, Hands
from swell.control.inbox import Inbox
from swell.control.leases import Leases, Seen
from swell.control.portions import Portions, is_one
from swell.control.results import LargeResults
from swell.control.rounds import Round, Told, Written, answer, fail, logged, write
from swell.control.sending import Runners, Sending
from swell.control.table import TableKeeper
from swell.control.wants import Wants
from swell.decide.calls import End, after
from swell.model.call import Body, Call, CallError, Cancel, Change, Done, Forget, Outcome, Remove, Retry, Work
from swell.model.errors import SwellError
from swell.model.metrics import Sample
from swell.model.ports import Clock, Store
from swell.model.trigger import Delivery
from swell.model.workload import workload_of
from swell.model.world import World
from swell.wire.calls import CallEnd, Lease, NewCall, Running
from swell.wire.link import Level

AGAIN_S = 1.0
"""A round that failed is made anew after this long."""
LOOK_S = 1.0
"""How often it is looked for leases that nobody renewed, while there are any."""
STALLED_S = 5.0
"""Who looks so much later than it wanted to was stopped itself, as the whole machine may have been: what others said
meanwhile is still to be read."""
SWEEP_MAX = 1000
"""Calls that one write forgets at most."""


class CallKeeper:
    """The durable queue of one server, while this incarnation of control lasts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        world: World,
        rows: TableKeeper,
        epoch: int,
        runners: Runners,
        told: Callable[[Sequence[Level]], None],
        others: Callable[[str], Iterable[tuple[str, int]]],
        useless: Callable[[str, str], None] = lambda _gang, _why: None,
        given: Callable[[str, int], None] = lambda _gang, _priority: None,
        *,
        results: LargeResults,
        queued_max: int = 1_000_000,
        chance: random.Random | None = None,
    ) -> None:
        """`told` takes what the queue wants of pools. `others`: inputs in flight at the replicas of a pool that are no
        queued calls. Of gangs, by their leaders: `useless` is told that what is left of one is of no use, and why;
        `given` that one has a call of that priority. `queued_max`: calls of one workload that may wait. `chance`: what
        ids of calls and the jitter of delays are drawn from; that of the machine by default."""
        self.leases = Leases()
        self._sending = Sending(world, epoch, runners)
        self.not_kept = self._sending.not_kept
        self.gangs = GangCalls(world, self.leases, self._sending, useless, given)
        self.hands = Hands(world, rows, self.leases, epoch, others, runners.takes_calls)
        self.wants = Wants(world, rows, self.leases, self.hands, clock.now, told)
        self.waits = CallWaits()
        self.groups = EndedGroups(clock.now)
        self.records, self.problem, self.kept = store.call_records, rows.problem, store.call_records.get_many
        self.results = results
        self._chance = chance or random.SystemRandom()
        self._store = store
        self._clock = clock
        self._world = world
        self._rows = rows
        self._epoch = epoch
        self._thread = ThreadPoolExecutor(1, "calls")
        self._stir = asyncio.Event()
        self._inbox = Inbox()
        self._portions = Portions()
        self._look: dict[str, None] = {}
        """Workloads to be looked at in the next round."""
        self._standing = False
        """What an earlier incarnation left is known."""
        self._strange: set[str] = {""}
        """Replicas with calls of which this incarnation has not heard yet; the members of gangs among them have no
        names so far."""
        self._made: Round | None = None
        # The newest round, as far as it was made.
        self._alarm = Alarm(clock, self.tick)
        self._tallies = CallTallies(self.leases, queued_max)

    # -- what is asked -----------------------------------------------------------------------

    async def accept(self, new: NewCall, delivery: Delivery | None = None) -> str:
        """The id of the call, or of the first of several."""
        return (await self.accept_all(new, delivery))[0]

    async def accept_all(self, new: NewCall, delivery: Delivery | None = None) -> tuple[str, ...]:
        """Those of all its calls, in order, once all are on disk, with the delivery that makes them. SwellError."""
        now = self._clock.now()
        self.groups.check(new)
        self.results.check_room()
        works, variant = queued(new, self._rows.routes.get(new.workload), self._world, now, self._chance)
        accepted = self._inbox.accept(works, delivery, variant)
        self.groups.comes(new.group, accepted)
        self.hands.saw_input(new.workload, max(len(work.input.data) for work in works))
        self._wake()
        return await accepted

    async def cancel(self, id: str, why: CallError) -> Call | None:
        """The call after it; None where it has ended, or is not known."""
        return await self._change(Cancel(id, self._clock.now(), why))

    async def retry(self, id: str, input: Body | None = None) -> Call | None:
        """A dead letter goes back into the queue, with this input where one is given; None where it is none."""
        return await self._change(Retry(id, self._clock.now(), input))

    async def ended(self, id: str, wait_s: float, by: str = "") -> Call | None:
        """The call, once it has ended or so much time has passed. `by`: id of the API key that asks."""
        return await self.waits.until_ended(id, wait_s, lambda: asyncio.to_thread(self.records.get, id), by)

    def seen(self, call: Call) -> Seen:
        """How it runs, where it does."""
        return self.leases.seen(call, self._world.revision(call.pool) if call.pool else None)

    def forget(self, them: Forget | Remove) -> asyncio.Future[Call | None]:
        """In some round, which may be waited for. Where it fails that is no matter: they expire."""
        forgotten = self._change(them)
        forgotten.add_done_callback(asyncio.Future.exception)
        return forgotten

    async def sweep(self) -> None:
        """Forget calls that have expired."""
        loop = asyncio.get_running_loop()
        forgotten = SWEEP_MAX
        while forgotten == SWEEP_MAX:
            swept = await loop.run_in_executor(self._thread, self._store.calls.sweep, self._clock.now(), SWEEP_MAX)
            forgotten = len(swept)

    async def sweep_results(self, some: bool) -> int:
        """Remove large results that no call has any more; `some` as for `LargeResults.sweep`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.results.sweep, some)

    def has(self, workload: str) -> bool:
        """Does anything of it wait, or is anything with a replica? As long as that is not known, too."""
        return not self._standing or self.hands.has(workload) or self.leases.has(workload)

    def metrics(self) -> tuple[Sample, ...]:
        """What is told of the queue to who scrapes."""
        return self._tallies.samples(sum(self.hands.due.values()), len(self.leases))

    # -- what is heard -----------------------------------------------------------------------

    def heard_ends(self, node: str, ends: Iterable[CallEnd]) -> None:
        """A runner says what came of calls."""
        self._inbox.hear(node, ends)
        self._wake()

    def heard_holding(self, node: str, leases: Sequence[Lease], running: Iterable[Running] = ()) -> None:
        """A runner has these, and of these run some."""
        now = self._clock.now()
        unknown = [lease for lease in self.leases.renew(leases, now) if self.gangs.claim(*lease, now) is None]
        self.leases.run(running)
        unwanted = unknown + [lease for lease in leases if self.gangs.unwanted(*lease)]
        if unwanted and self._standing:
            self._sending.revoke_leases(node, unwanted)

    def welcomed(self, node: str) -> None:
        """A runner connected and said what runs. Has it what it was given? And it takes calls again."""
        if not self._standing:
            return
        self.gangs.meet(self._clock.now())
        self._strange.difference_update(self._world.replicas)
        held = (
            (replica, tuple((call.id, call.token) for call in self.leases.at(replica)))
            for replica in self.leases.replicas()
            if self._sending.node(replica) == node or (self._sending.only_one and replica in self._strange)
        )
        self._sending.resume(node, held)
        self.roomy()

    def roomy(self) -> None:
        """A runner takes calls again."""
        self._look_at(self.hands.waiting())

    def changed(self, pools: Iterable[str], workloads: Iterable[str] = ()) -> None:
        """Replicas of these pools, their loads, or the routes of these workloads are not as they were."""
        pools, workloads = tuple(pools), tuple(workloads)
        self.gangs.look(pools)
        self.hands.forget(workloads)
        if not (self.hands.busy or self.wants.levels):
            return
        named = dict.fromkeys((*workloads, *map(workload_of, pools)))
        mine = [workload for workload in named if self.hands.has(workload)]
        self._look_at(mine)
        self.wants.changed(mine, [pool for pool in pools if pool in self.wants.levels])

    def gone(self) -> None:
        """Some replicas are. What their runners do not tell soon is lost with them."""
        now, there = self._clock.now(), self._world.replicas
        self._strange.difference_update(there)
        for replica in list(self.leases.replicas()):
            if replica not in there and replica not in self._strange:
                self.leases.gone(replica, now)
        self.hands.gone()
        if self.gangs.failed:
            self._wake()
        self._arm()

    def tick(self) -> None:
        """What only time brings: calls become due, leases expire."""
        now = self._clock.now()
        if self._alarm.rang() > STALLED_S:
            self.leases.spare(now)
        self.hands.rang(now)
        self._look_at(self.hands.waiting())
        self._sending.note_leaving(self.leases.replicas())
        self.heard_ends("", self._sending.lost(self.leases.expired(now)))
        if self.gangs.failed:
            self._wake()
        self.gangs.tick(now)
        # How long they take is worth more slots the longer they do.
        self.wants.changed(self.hands.due)
        self._arm()

    # -- rounds ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled; what is being written then is told still."""
        try:
            if not await self._stand_up():
                await self._begin_anew()
            while True:
                await self._stir.wait()
                self._stir.clear()
                try:
                    await self._round()
                except Exception as error:
                    if self._made is None or not self._not_written(self._made, error):
                        await self._begin_anew()
        finally:
            self._alarm.close()
            self.wants.close()
            self._inbox.fail(SwellError("stopping", "The server is stopping.", status=503))
            self._thread.shutdown(wait=False)

    async def _begin_anew(self) -> None:
        """In a while, with what the store has then. While it cannot be read, who asks for anything new is refused."""
        while True:
            await asyncio.sleep(AGAIN_S)
            if await self._stand_up():
                return self._wake()

    async def _stand_up(self) -> bool:
        """Go on with what an earlier incarnation left, or what a round that failed may have left."""
        try:
            standing = await asyncio.get_running_loop().run_in_executor(self._thread, self._store.calls.standing)
        except Exception as error:
            self._inbox.fail(logged("read", error))
            return False
        now = self._clock.now()
        for call in standing.leased:
            if self.leases.get(call.id, call.token) is None:
                self.leases.take(call, now)
                self.gangs.stand_up(call, now)
                if call.token >> 40 == self._epoch:
                    # It was never sent.
                    self._lose((call,), "drained", "It was not sent to its replica.")
                elif call.replica not in self._world.replicas:
                    self._strange.add(call.replica)
        self._lose(self.leases.others(standing.leased), "drained", "It was over when its round was taken for failed.")
        self._tallies.stand_up(standing.queued)
        self.hands.unseen.update(standing.queued)
        self._look_at(standing.queued)
        if not self._standing:
            self._standing = True
            for node in self._world.nodes:
                self.welcomed(node)
        self._arm()
        return True

    async def _round(self) -> None:
        now = self._clock.now()
        made = self._collect(now)
        if not (made.writes or made.hands or any(each in self.hands.unseen for each in made.looked)):
            # Nothing is otherwise than it was known to be.
            return
        writing = asyncio.get_running_loop().run_in_executor(self._thread, write, self._store, self.results, made, now)
        try:
            written = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            failed = writing.exception()
            if failed is None:
                self._deliver(made, writing.result(), self._clock.now())
            elif isinstance(failed, Exception):
                self._not_written(made, failed)
            raise
        except Exception as error:
            if not self._not_written(made, error):
                await self._begin_anew()
        else:
            self._deliver(made, written, self._clock.now())

    def _collect(self, now: float) -> Round:
        """All that came since the last round, and who is to get what."""
        inbox, most = self._inbox, self._portions.most
        looked, self._look = self._look, {}
        fenced: defaultdict[str, list[Lease]] = defaultdict(list)
        ending: Counter[str] = Counter()
        made = self._made = Round([], [], [], [], [], [], [])
        made.news.extend(self._tallies.admitted(inbox.take_news(most(made))))
        made.changes.extend(inbox.take_changes(most(made)))
        for each in inbox.take_told(most(made)):
            lease = (each.end.id, each.end.token)
            call = self.leases.get(*lease) or self.gangs.claim(*lease, now)
            if call is None:
                fenced[each.node].append(lease)
                continue
            if self.gangs.heard(each, call, now):
                continue
            made.told.append(each)
            looked[call.workload] = None
            ending[call.replica] += 1
            made.outcomes.append(self._outcome(call, each, now))
        for call, end in islice(self.gangs.settled(now), most(made)):
            made.gangs.append((call, end))
            looked[call.workload] = None
            made.outcomes.append(self._outcome(call, Told(end, ""), now))
        if inbox or len(made.gangs) >= most(made):
            self._wake()
        self._sending.heard(fenced)
        fresh = [work.call for work in made.works]
        looked |= dict.fromkeys(call.workload for call in fresh)
        coming = Counter(call.workload for call in fresh if call.due_at <= now)
        sent: Counter[str] = Counter()
        for workload in looked if most(made) else ():
            made.hands.extend(self.hands.make(workload, coming[workload], ending, sent, now))
        made.looked.extend(looked)
        return made

    def _outcome(self, call: Call, heard: Told, now: float) -> Outcome:
        end = self._portions.end(self.results.there(heard.end))
        self.hands.ended(call, end, heard.node, now)
        if not end.code:
            return Done(end.id, end.token, now, end.body, end.cpu_us, end.run_us)
        body = end.body
        told = End(end.id, end.token, end.code, end.message, body.data, body.content_type, end.cpu_us, end.run_us)
        outcome = after(call, told, now, self._chance.random())
        assert outcome is not None, "it is of the call's lease"
        return outcome

    def _not_written(self, made: Round, error: Exception) -> bool:
        """Nothing of it is on disk, but for leases. What was heard is kept for the next round; who asks is told, unless
        it may be another's fault. True: that round is to be made at once."""
        again = self._portions.refused(made, error)
        if again and not is_one(made):
            self._inbox.put_back_asked(made.news, made.changes)
        else:
            fail(made.news, made.changes, logged("written", error))
        self._inbox.put_back(made.told)
        self._look |= dict.fromkeys(made.looked)
        self.hands.unseen.update(made.looked)
        if again:
            self._wake()
        return again

    def _deliver(self, made: Round, written: Written, now: float) -> None:
        """It is written: everybody is told."""
        self._tallies.wrote(made, written)
        self._portions.written(made)
        ids = iter(written.ids)
        for new in made.news:
            answer(new.ids, tuple(next(ids) for _ in new.works))
        heard: defaultdict[str, list[Lease]] = defaultdict(list)
        pools: dict[str, None] = {}
        for end, node in made.told:
            heard[node].append((end.id, end.token))
            self._over(end.id, end.token, pools)
        for worked_at, _ in made.gangs:
            self._gang_over(worked_at, heard, pools)
        for asked, call in zip(made.changes, written.changed, strict=True):
            if call is not None:
                self._take_change(call, heard, pools)
            answer(asked.call, call)
        self._sending.heard(heard)
        sent: Counter[str] = Counter()
        for hand, works in zip(made.hands, written.leased, strict=True):
            self._grant(hand, works, now, sent)
            pools[hand.pool] = None
        served = {hand.workload for hand, works in zip(made.hands, written.leased, strict=True) if works}
        asked_for = {hand.workload for hand in made.hands}
        for workload, depth in zip(made.looked, written.depths, strict=True):
            if depth is None:
                self.hands.unseen.add(workload)
                continue
            self.hands.see(workload, depth)
            # Where a hand-out came back empty there is nothing, whatever was counted: not again at once.
            if (workload in served or workload not in asked_for) and self.hands.any(workload, now):
                self._look_at((workload,))
        self.wants.changed(made.looked, pools)
        self._arm()

    # -- handing out -------------------------------------------------------------------------

    def _grant(self, to: Hand, works: Sequence[Work], now: float, sent: Counter[str]) -> None:
        """These were leased for a replica: on their way, or back where it went away meanwhile, or where they are larger
        than was known. `sent`: bytes of what each node was sent in this round."""
        if not works:
            return
        self.hands.given(to, works, now)
        row, members = self._rows.pools.get(to.pool), self.hands.gang(to.replica)
        if members:
            parts = self.gangs.begin(works[0].call, members, now)
            back = self._sending.grant_parts(parts, works[0].input, members, row, sent)
        else:
            for work in works:
                self.leases.take(work.call, now)
            taken = self._sending.grant(to.replica, works, row, sent)
            back = [work.call for work in works[taken:]]
        self._lose(back, "drained", "It was not sent to its replica.")

    # -- ends --------------------------------------------------------------------------------

    def _over(self, id: str, token: int, pools: dict[str, None]) -> None:
        """A hand-out is over and recorded."""
        call = self.leases.end(id, token)
        replica = self._world.replicas.get(call.replica) if call is not None else None
        if replica is not None:
            pools[replica.pool] = None
        self.waits.wake(id, call.group if call is not None else "")

    def _gang_over(
        self, call: Call, heard: defaultdict[str, list[Lease]], pools: dict[str, None], unwanted: str = ""
    ) -> None:
        """What came of an attempt of a gang is recorded, or nobody wants it any more: then why."""
        for part, told in self.gangs.over(call, unwanted):
            if told is not None and told.node:
                heard[told.node].append((part.id, part.token))
            self._over(part.id, part.token, pools)

    def _take_change(self, call: Call, heard: defaultdict[str, list[Lease]], pools: dict[str, None]) -> None:
        """A call is cancelled, or queued once more."""
        if call.id in self.gangs:
            self._gang_over(call, heard, pools, "their call was cancelled")
        elif self.leases.get(call.id, call.token) is not None:
            self.hands.unspent(call.replica)
            self._over(call.id, call.token, pools)
            self._sending.revoke(call)
        self.waits.wake(call.id, call.group)
        self.hands.unseen.add(call.workload)
        self._look_at((call.workload,))

    def _lose(self, calls: Iterable[Call], code: str, message: str) -> None:
        self.heard_ends("", [CallEnd(call.id, call.token, call.replica, code, message) for call in calls])

    # -- details -----------------------------------------------------------------------------

    def _change(self, change: Change) -> asyncio.Future[Call | None]:
        changed = self._inbox.change(change)
        self._wake()
        return changed

    def _look_at(self, workloads: Iterable[str]) -> None:
        before = len(self._look)
        self._look |= dict.fromkeys(workloads)
        if len(self._look) != before:
            self._wake()

    def _wake(self) -> None:
        self._stir.set()

    def _arm(self) -> None:
        """Look again when there will be something to see."""
        now = self._clock.now()
        moments = list(self.hands.next_at.values())
        if len(self.leases) or self.hands.waiting():
            moments.append(now + LOOK_S)
        if moments:
            self._alarm.by(min(moments))
