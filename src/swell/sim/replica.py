"""What does a simulated replica do with queued calls? It speaks as `runtime` does with a runner, and shares its slots.

Beside these comes what gateways send (`sim/served`): both fill the same slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random

import msgspec

from swell.model.orders import StartOrder
from swell.sim.clock import Timeline
from swell.sim.served import Request
from swell.sim.slots import Slots, Ticket
from swell.sim.wires import End, Wire, answer
from swell.wire.calls import Lease
from swell.wire.child import KeptCall
from swell.wire.http import ERROR, HAND_OUT, REMAINING_MS, REQUEST_ID, RUN_US

HOP_S = 0.0005
"""The longest way of bytes between a runner and its replicas."""
LONG_S = 40.0
"""What a call that takes long takes beside what others do."""


class Fates(msgspec.Struct, frozen=True):
    """How often an input of a call does what (probabilities), and how long it takes usually (seconds)."""

    work_s: float = 0.3
    long: float = 0.0
    """It takes longer than a lease lasts of which nothing is heard."""
    raises: float = 0.0
    hangs: float = 0.0
    """It does not end, not even at its deadline."""
    kills: float = 0.0
    """The replica ends of it, out of memory."""
    breaks: float = 0.0
    """The connection that it is to be answered on breaks, and its replica lives."""
    gang_times: float = 1.0
    """So many times as long a gang works."""
    heeds: float = 0.0
    """Of a gang: it raises once it is told to end, or once another member is gone."""
    lingers_s: float = 0.0
    """Of a gang: what is stopped goes on for so long at most: it keeps what it has done."""


class Around:
    """What replicas of one run have in common."""

    def __init__(
        self,
        time: Timeline,
        chance: Random,
        fates: Fates,
        broke: Callable[[str], None],
        kill: Callable[[str], None],
        count: Callable[[str], None],
        once_awake: Callable[[str, Callable[[], None]], None],
    ) -> None:
        """`once_awake`: what a replica does is done once it hangs no more."""
        self.time = time
        self.chance = chance
        self.fates = fates
        self.broke = broke
        self.kill = kill
        self.count = count
        self.once_awake = once_awake
        self.began: Callable[[str], None] = lambda _call: None
        """Told of each attempt as it begins."""
        self.faulty = True
        self.runs = 0
        """Inputs of queued calls that were begun."""
        self.unknown: Callable[[str, str], bool] = lambda _call, _replica: False
        """Could control not know of that replica when it handed out the call?"""
        self.well: set[Lease] = set()
        """What members of gangs had that ended well."""
        self.failed: set[Lease] = set()
        """The attempts of gangs, by the leader's lease, in which the code of one failed by itself."""
        self.power_cuts = 0
        """A lease that was lost so is nobody's, and what was begun by it goes on beside the next attempt."""
        self._begun: dict[str, list[tuple[Replica, int]]] = {}
        """By call: the members of gangs that began it, and how many power cuts there had been."""

    def happens(self, what: str, probability: float) -> bool:
        happens = self.faulty and probability > 0 and self.chance.random() < probability
        if happens:
            self.count(what)
        return happens

    def begins(self, call: str, member: Replica) -> None:
        """Nothing of an attempt before is there any more: both would write in the same checkpoint folder."""
        assert member.seat is not None
        there = [(each, cuts) for each, cuts in self._begun.get(call, ()) if each.lives()]
        for each, cuts in there:
            of_another = each.seat is not None and each.seat.gang != member.seat.gang
            if of_another and cuts == self.power_cuts and not self.unknown(call, each.id):
                self.broke(f"{member.id} begins call {call}, and {each.id} of another attempt is there still")
        self._begun[call] = [*there, (member, self.power_cuts)]

    def hop(self, do: Callable[[], None]) -> None:
        self.time.at(self.arrival(), do)

    def arrival(self) -> float:
        return self.time.now() + self.chance.uniform(0.1, 1.0) * HOP_S


class Replica:
    """What of a replica is there for queued calls: its slots, and the calls that it began, until they are safe."""

    def __init__(
        self,
        around: Around,
        order: StartOrder,
        slots: Slots[Request],
        takes: Callable[[], bool],
        lives: Callable[[], bool],
        served: Callable[[str, Callable[[], bool]], None],
    ) -> None:
        """`takes`: does it take anything new? `lives`: is there a process of it? `served`: one that takes a single
        input has had it, and ends once what it is given says that it has told of that."""
        self.around = around
        self.id = order.replica
        self.pool = order.pool
        self.slots = slots
        self.kept: dict[Lease, Work] = {}
        self.seat = order.seat
        self.lives = lives
        self._takes = takes
        self._served = served
        self._single_use = order.revision.single_use
        self._used = False

    @property
    def takes(self) -> bool:
        """Does it take anything new?"""
        return self._takes() and not (self._single_use and self._used)

    def over(self) -> None:
        """An input is."""
        if self._single_use:
            self._served(self.id, lambda: not self.kept)

    def listed(self) -> tuple[KeptCall, ...]:
        """For a runner that comes."""
        now = self.around.time.now()
        return tuple(
            KeptCall(*lease, work.remaining_s(now), now - work.job.came_at, work.ended)
            for lease, work in self.kept.items()
        )

    def forget(self, leases: Iterable[Lease]) -> None:
        """Nobody needs these any more."""
        for lease in leases:
            if lease in self.kept:
                self.kept[lease].stop()

    @property
    def works(self) -> bool:
        """Is any of what it has not over?"""
        return any(not work.ended for work in self.kept.values())

    def is_to_end(self, why: str) -> None:
        """Its code is told so, or sees it: that may raise then."""
        for work in self.kept.values() if self.lives() else ():
            work.heed(why)

    def begin(self, lease: Lease, timeout_s: float, ticket: Ticket | None) -> Work | None:
        """None where no slot is free."""
        around, now = self.around, self.around.time.now()
        job = Request(-1, "", now, now + timeout_s, 0.0, pool=self.pool, replica=self.id)
        if not self.takes or not self.slots.take(job, ticket):
            if ticket is not None:
                self.slots.leave(ticket)
            return None
        self._used = True
        if self.seat is not None:
            around.begins(lease[0], self)
        around.runs += 1
        if len(self.slots.running) > self.slots.limit:
            around.broke(f"{self.id} was given {len(self.slots.running)} inputs at once, calls among them")
        work = self.kept[lease] = Work(self, lease, job)
        work.begin(f"{lease[0]} {around.runs}{self._named(lease)}".encode(), timeout_s)
        around.began(lease[0])
        return work

    def _named(self, lease: Lease) -> str:
        """Whose result it is: of what hand-out, and of which member of a gang."""
        return f" {lease[1] - self.seat.rank} {self.seat.rank} {self.seat.size}" if self.seat is not None else ""


class Work:
    """One call that was begun: what comes of it, with somebody who listens or with nobody."""

    def __init__(self, replica: Replica, lease: Lease, job: Request) -> None:
        self.job = job
        self.answer = b""
        """Once it has ended."""
        self.listener: Served | None = None
        self._replica = replica
        self._lease = lease

    def begin(self, result: bytes, timeout_s: float) -> None:
        around = self._replica.around
        fates, after = around.fates, self._after
        times = fates.gang_times if self._replica.seat is not None else 1.0
        takes_s = around.chance.expovariate(1 / fates.work_s) * times
        takes_s += LONG_S if around.happens("a call takes long", fates.long) else 0.0
        if around.happens("a connection breaks", fates.breaks):
            after(around.chance.uniform(0.0, takes_s), self._break)
        if around.happens("a call kills its replica", fates.kills):
            after(takes_s, lambda: around.kill(self._replica.id) if self._runs else None)
        elif around.happens("a call hangs", fates.hangs):
            self._fails()
        elif takes_s > timeout_s:
            after(timeout_s, lambda: self._ended(504, f"{ERROR}: 504 deadline\r\n", b"{}", self._fails))
        elif around.happens("a call raises", fates.raises):
            after(takes_s, lambda: self._ended(500, f"{ERROR}: 500 exception\r\n", b"{}", self._fails))
        else:
            after(takes_s, lambda: self._ended(200, f"{RUN_US}: {int(takes_s * 1e6)}\r\n", result))

    def _after(self, delay_s: float, do: Callable[[], None]) -> None:
        """What its replica does, when it does anything."""
        around, replica = self._replica.around, self._replica.id
        around.time.after(delay_s, lambda: around.once_awake(replica, do))

    def listen(self, listener: Served) -> None:
        """This one alone is told."""
        before, self.listener = self.listener, listener
        if before is not None and before is not listener:
            before.wire.reset()
        if self.answer:
            self._pass_on()

    @property
    def ended(self) -> bool:
        return bool(self.answer)

    def remaining_s(self, now: float) -> float:
        """Until its deadline; none once it has ended."""
        return 0.0 if self.answer else max(0.0, self.job.until - now)

    def heed(self, why: str) -> None:
        """It is to end."""
        around = self._replica.around
        if self._runs and around.happens(f"a member raises: {why}", around.fates.heeds):
            after_s = around.chance.uniform(0.0, 1.0)
            around.time.after(after_s, lambda: self._ended(500, f"{ERROR}: 500 exception\r\n", b"{}"))

    def stop(self) -> None:
        """Nobody wants it any more. Of a gang it may go on for a while."""
        around, lingers_s = self._replica.around, 0.0
        self._replica.kept.pop(self._lease, None)
        often = 0.5 if self._replica.seat is not None and self._runs and around.fates.lingers_s else 0.0
        if around.happens("a stopped member goes on", often):
            lingers_s = around.chance.uniform(0.0, around.fates.lingers_s)
        if lingers_s:
            around.time.after(lingers_s, self._let_go)
        else:
            self._let_go()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.work = None
            listener.wire.reset()

    def _let_go(self) -> None:
        self._replica.slots.end(self.job)
        self._replica.over()

    def _fails(self) -> None:
        """By itself."""
        if self._replica.seat is not None:
            id, token = self._lease
            self._replica.around.failed.add((id, token - self._replica.seat.rank))

    def _break(self) -> None:
        listener = self.listener
        if listener is not None:
            listener.closed()
            listener.work = None
            listener.wire.reset()

    @property
    def _runs(self) -> bool:
        return self.job in self._replica.slots.running

    def _ended(self, status: int, headers: str, body: bytes, then: Callable[[], None] = lambda: None) -> None:
        if self._runs and self._lease in self._replica.kept:
            then()
            self._replica.slots.end(self.job)
            self.answer = answer(status, headers, body)
            if status == 200 and self._replica.seat is not None:
                self._replica.around.well.add(self._lease)
            self._pass_on()
            self._replica.over()

    def _pass_on(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.work = None
            listener.wire.answer(self.answer)


class Served(End):
    """A replica's end of a connection that calls come on."""

    def __init__(self, replica: Replica, wire: Wire) -> None:
        super().__init__(wire, replica.around, lambda: replica.slots, lambda: replica.takes)
        self.work: Work | None = None
        """What it is to be told of."""
        self._replica = replica

    def serve(self, line: str, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 - what it says is nothing
        lease = headers[REQUEST_ID.lower()], int(headers[HAND_OUT.lower()])
        if line.startswith("POST /kept ") or lease in self._replica.kept:
            self.work = self._replica.kept.get(lease)
        else:
            self.work = self._replica.begin(lease, int(headers[REMAINING_MS.lower()]) / 1000, self._taken())
        if self.work is not None:
            self.work.listen(self)
        else:
            self.refuse(503)

    def cancelled(self) -> None:
        """The runner wants nothing of what it sent."""
        if self.work is not None:
            self.work.stop()
        super().cancelled()

    def closed(self) -> None:
        """What runs goes on."""
        if self.work is not None and self.work.listener is self:
            self.work.listener = None
        super().closed()
