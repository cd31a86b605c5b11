"""What is promised of queued calls, and was it kept? Asked of the disk, and of what callers were told."""

from __future__ import annotations

from collections import Counter

from swell.control.hands import DUE_MAX
from swell.decide.calls import FAILURES, LOST_RETRIES
from swell.model.call import LOSSES, Body, Call, CallError
from swell.sim.callers import Callers, Spawned
from swell.sim.system import System
from swell.wire.calls import Lease

IN_VAIN_S = 60.0
"""A call that is due beside a replica that is free is begun sooner: it takes a lease that has to expire, a disk that is
slow or full, and a link that carries nothing for a while."""

BUSY_STILL_S = 60.0
"""What was under way when the cluster was left alone is over by then, for the most part."""

STOPPED_S = 3.5
"""What a replica works on and nobody waits for is stopped before its runner was in touch with control for so long."""


class CallPromises:
    """Those of one system. What is broken is told to it."""

    def __init__(self, system: System, callers: Callers) -> None:
        assert system.queue is not None
        self._system = system
        self._queue = system.queue
        self._callers = callers
        self._ends: dict[str, tuple[str, float, Body | None]] = {}
        """How calls ended, when, and with what: as it was first on the disk."""
        self._looked: set[str] = set()
        """Those of which it was seen whose result it is."""
        self._leased: dict[Lease, CallError | None] = {}
        """Leases as of the last look → the error of the attempt before."""
        self._waits: dict[tuple[str, str], float] = {}
        """Workload and replica → since when calls of it wait, and that is free."""
        self._useless: dict[tuple[str, Lease], float] = {}
        """What replicas work on → since when control knows of no such lease, and could have said so."""

    def watch(self) -> None:
        """Each second while anything happens; less often once it is quiet."""
        now = self._system.time.now()
        if now < self._system.scenario.busy_s + BUSY_STILL_S or not round(now) % 20:
            self.hold()

    def hold(self) -> None:
        """Of each call that was accepted."""
        for one in self._callers.spawned:
            if len(one.ids) > 1:
                self._system.broke(f"one idempotency key is {len(one.ids)} calls: {sorted(one.ids)}")
            for id in one.ids:
                call = self._queue.kept(id)
                if call is None:
                    self._system.broke(f"call {id} was accepted, and is lost")
                else:
                    self._holds(one, call)
        self._suspects_are_alone()
        self._nothing_is_given_up_at_work()
        self._nobody_waits_in_vain()
        self._nobody_works_in_vain()

    def _holds(self, one: Spawned, call: Call) -> None:
        id, seen = call.id, one.seen
        if one.cancelled and call.state != "cancelled":
            self._system.broke(f"call {id} was cancelled, and is {call.state}")
        if seen is not None and (seen.state, seen.ended_at) != (call.state, call.ended_at):
            self._system.broke(f"call {id} was {seen.state} for its caller, and is {call.state}")
        result = self._queue.disk.call_records.result(id) if call.ended_at is not None else None
        if call.ended_at is not None:
            self._ends.setdefault(id, (call.state, call.ended_at, result))
        if id in self._ends and self._ends[id] != (call.state, call.ended_at, result):
            self._system.broke(f"call {id} was {self._ends[id][0]}, and is {call.state}, or with another result")
        if call.state == "done":
            if result is None or not result.data.startswith(id.encode()):
                self._system.broke(f"call {id} is done, with the result of another")
            elif call.id not in self._looked:
                self._looked.add(call.id)
                self._of_a_gang(id, result.data.decode().split()[2:])
        if call.state == "failed" and call.error is not None and call.error.code in LOSSES:
            least = max(LOST_RETRIES, call.retrying.max_retries)
            if call.attempts <= least:
                self._system.broke(f"call {id} was given up after {call.attempts} attempts of more than {least}")
        # At a deadline nobody raises for others: the runner says so of one that hangs.
        itself = call.error is not None and call.error.code in FAILURES - {"deadline"}
        if call.state == "failed" and call.members and itself and (id, call.token) not in self._queue.around.failed:
            self._system.broke(f"call {id} failed, and its code did only as it was told to end, or lost a member")

    def _of_a_gang(self, id: str, seat: list[str]) -> None:
        """What a gang worked on is done with the result of its leader, once all of its members ended well."""
        if seat:
            token, rank, size = map(int, seat)
            if rank:
                self._system.broke(f"call {id} is done, with the result of rank {rank}")
            missing = [rank for rank in range(size) if (id, token + rank) not in self._queue.around.well]
            if missing:
                self._system.broke(f"call {id} is done, and the ranks {missing} did not end well")

    def _suspects_are_alone(self) -> None:
        """So a call that kills nothing is no dead letter for those beside it, however many of these kill replicas."""
        leased = self._queue.disk.calls.standing().leased
        counts = Counter(call.replica for call in leased)
        for call in leased:
            if call.is_suspect and counts[call.replica] > 1:
                self._system.broke(f"call {call.id} was lost, and is tried again beside others at {call.replica}")
        for id, times in self._queue.beside.items():
            if times > 1:
                self._system.broke(f"call {id} was {times} times with others where one of them killed the replica")

    def _nothing_is_given_up_at_work(self) -> None:
        """A call is, for want of a word of it, only where its replica has ended, or was not known to this control."""
        worked_on = {lease: replica for runner in self._queue.runners.values() for replica, lease in runner.worked_on()}
        for lease, error in self._leased.items():
            call = self._queue.kept(lease[0]) if lease in worked_on else None
            ours = call is not None and not call.members and lease[1] >> 40 == self._system.epoch
            if call is None or not ours or call.token == lease[1] or call.error in (None, error):
                continue
            if call.error.code == "lease_expired" and not self._queue.around.unknown(call.id, worked_on[lease]):
                self._system.broke(f"call {call.id} was given up ({call.error.message}), and is worked on still")
        leased = self._queue.disk.calls.standing().leased
        self._leased = {(call.id, call.token): call.error for call in leased}

    def _nobody_waits_in_vain(self) -> None:
        system, now = self._system, self._system.time.now()
        waits: dict[tuple[str, str], float] = {}
        for workload in self._queue.due():
            suspects = self._queue.disk.calls.depth(workload, self._queue.clock.now(), DUE_MAX).suspects > 0
            route = system.reactor.keeper.routes.get(workload)
            row = system.reactor.keeper.pools.get(route.pool) if route is not None else None
            for endpoint in row.replicas if row is not None else ():
                if self._is_free(endpoint.replica, suspects):
                    # Of each replica by itself: where calls end replicas it is another one every so often.
                    waiting = workload, endpoint.replica
                    since = waits[waiting] = self._waits.get(waiting, now)
                    if now - since > IN_VAIN_S:
                        system.broke(f"calls of {workload} wait, and {endpoint.replica} is free for {IN_VAIN_S:g} s")
        self._waits = waits

    def _nobody_works_in_vain(self) -> None:
        """Who was away has its calls given to others, and comes back with them."""
        now, useless = self._system.time.now(), {}
        # While control does not know what an earlier one left it has no word of anything.
        told = not self._queue.keeper.has("")
        for runner in self._queue.runners.values() if told else ():
            for replica, lease in runner.worked_on() if runner.link.up and not runner.link.silent else ():
                if self._queue.keeper.leases.get(*lease) is None:
                    since = useless[replica, lease] = self._useless.get((replica, lease), now)
                    if now - since > STOPPED_S:
                        self._system.broke(f"{replica} still works on {lease}, which is nobody's for {STOPPED_S:g} s")
        self._useless = useless

    def _is_free(self, replica: str, suspects: bool) -> bool:
        """Could it begin a call, and is kept free for no suspect? Of a gang only all members together."""
        system, known = self._system, self._system.reactor.world.replicas.get(replica)
        leases = self._queue.keeper.leases
        if known is None or not self._queue.takes_calls(known.node):
            return False
        if leases.count(replica) and (suspects or leases.has_suspect(replica)):
            return False
        seat = known.seat if known is not None else None
        there = [replica] if seat is None else list(system.reactor.world.gangs.get(seat.gang, ()))
        slots = [system.slots_of.get(id) for id in there]
        free = all(each is None or each.free > 0 for each in slots) and all(system.listens(id) for id in there)
        return free and (seat is None or len(there) == seat.size)

    def rest(self) -> None:
        """At the end: each call has ended, and nobody has any."""
        self.hold()
        states = Counter[str]()
        for one in self._callers.spawned:
            for id in one.ids:
                call = self._queue.kept(id)
                if call is not None:
                    states[call.state] += 1
                    if call.ended_at is None:
                        self._system.broke(f"call {id} never ended: it is {call.state}")
            if not one.ids and not one.refused:
                self._system.broke(f"the call with the key {one.new.idempotency_key} was never accepted or refused")
        keeper, now = self._queue.keeper, self._system.time.now()
        if len(keeper.leases):
            self._system.broke(f"control still has {len(keeper.leases)} leases")
        if keeper.wants.levels:
            self._system.broke(f"the queue still wants {sorted(keeper.wants.levels)}")
        for runner in self._queue.runners.values():
            if now - runner.held_at < 10.0:
                self._system.broke(f"the runner of {runner.node} still has calls")
        for state, number in states.items():
            self._system.count(f"call {state}", number)
        self._system.count("call begun", self._queue.around.runs)
