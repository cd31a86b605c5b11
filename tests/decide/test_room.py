"""With several gateways: never more at a replica than it has slots, nobody waiting beside a free one, and turns taken?

The beliefs of `decide.room` and the line of `runtime.turns` in a seeded model of what is around them: every message
takes a while of its own, and nothing is known but by message.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.decide import room
from swell.decide.room import ASKED_MAX, Room, Told, likeliest, unknown
from swell.runtime.turns import Line

LATENCY_S = 0.001
"""The longest that a message takes."""
FORGET_S = 0.05
WAIT_S = 5.0


@dataclass(eq=False)
class Input:
    """One request, and when it was where."""

    gateway: Gateway
    came: float
    work_s: float
    begun: float = math.inf
    ended: float = math.inf
    sent: int = 0


@dataclass(eq=False)
class Ticket:
    """A question for a slot, and the slot."""

    belief: Belief
    alive: bool = True


@dataclass(eq=False)
class Replica:
    """The replica's side: the counter, and the line."""

    world: World
    id: str
    slots: int
    running: int = 0
    line: Line[Ticket] = field(default_factory=Line)
    begun: list[Gateway] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.slots - self.running - len(self.line.given)

    def arrive(self, one: Input, belief: Belief, ticket: Ticket | None) -> None:
        if ticket is not None:
            self.line.leave(ticket)
        if self.free <= 0:
            self.world.send(belief.refused, one)
        else:
            self.running += 1
            assert self.running <= self.slots
            self.begun.append(one.gateway)
            one.begun = self.world.now
            self.world.after(one.work_s, self.end, one, belief)
        self.pass_on()

    def end(self, one: Input, belief: Belief) -> None:
        self.running -= 1
        one.ended = self.world.now
        self.pass_on()
        self.world.send(belief.ended, one)

    def ask(self, ticket: Ticket) -> None:
        self.line.waiting.append(ticket)
        self.world.after(WAIT_S, self.in_vain, ticket)
        self.pass_on()

    def in_vain(self, ticket: Ticket) -> None:
        if ticket in self.line.waiting:
            self.line.leave(ticket)
            self.world.send(ticket.belief.denied)

    def leave(self, ticket: Ticket) -> None:
        self.line.leave(ticket)
        self.pass_on()

    def pass_on(self) -> None:
        while self.line.waiting and self.free > 0:
            ticket = self.line.next()
            self.world.send(ticket.belief.given, ticket, Told(self.free, len(self.line.waiting)))


@dataclass(eq=False)
class Belief:
    """One gateway's side of one replica."""

    gateway: Gateway
    replica: Replica
    room: Room
    in_flight: int = 0
    asked: bool = False
    ages: bool = False

    @property
    def id(self) -> str:
        return self.replica.id

    @property
    def load(self) -> int:
        return self.in_flight

    @property
    def fit(self) -> bool:
        return self.in_flight < self.room.limit

    def believe(self, found: Room) -> None:
        self.room = found
        if found.limit < found.slots and not self.ages:
            self.ages = True
            self.gateway.world.after(FORGET_S, self.forget)

    def forget(self) -> None:
        self.ages = False
        if not self.asked:
            self.believe(unknown(self.room.slots))
        self.gateway.serve()

    def refused(self, one: Input) -> None:
        self.believe(room.refused(self.room, self.in_flight - 1))
        self.in_flight -= 1
        self.gateway.held.appendleft(one)
        self.gateway.serve()

    def ended(self, _one: Input) -> None:
        self.in_flight -= 1
        if self.gateway.held:
            self.believe(room.ended(self.room, self.in_flight, self.gateway.asked))
        self.gateway.serve()

    def given(self, ticket: Ticket, told: Told) -> None:
        self.asked = False
        gateway = self.gateway
        self.believe(room.given(self.room, self.in_flight, told, used=bool(gateway.held)))
        if gateway.held:
            gateway.send(gateway.held.popleft(), self, ticket)
        else:
            gateway.world.send(self.replica.leave, ticket)
        gateway.serve()

    def denied(self) -> None:
        self.asked = False
        self.believe(self.room)
        self.gateway.serve()


@dataclass(eq=False)
class Gateway:
    """What a pool does with its beliefs."""

    world: World
    name: str
    held: deque[Input] = field(default_factory=deque)
    beliefs: list[Belief] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(belief.asked for belief in self.beliefs)

    def arrive(self, one: Input) -> None:
        self.held.append(one)
        self.serve()

    def serve(self) -> None:
        while self.held and (fit := [belief for belief in self.beliefs if belief.fit]):
            belief = self.world.chance.choice(fit)
            self.send(self.held.popleft(), belief, None)
        if self.held:
            full = [b for b in self.beliefs if b.room.limit < b.room.slots and not b.asked]
            for belief in likeliest(full, self.asked):
                belief.asked = True
                self.world.send(belief.replica.ask, Ticket(belief))

    def send(self, one: Input, belief: Belief, ticket: Ticket | None) -> None:
        belief.in_flight += 1
        one.sent += 1
        self.world.send(belief.replica.arrive, one, belief, ticket)


class World:
    """Time, messages that each take a while, and for how long somebody was held beside a free slot with no message
    under way that might mend it."""

    def __init__(self, seed: int, gateways: int, replicas: int, slots: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self.numbers = itertools.count()
        self.replicas = [Replica(self, f"r{n}", slots) for n in range(replicas)]
        self.gateways = [Gateway(self, f"g{n}") for n in range(gateways)]
        for gateway in self.gateways:
            gateway.beliefs = [Belief(gateway, replica, unknown(slots)) for replica in self.replicas]
        self.inputs: list[Input] = []
        self.flying = 0
        self.idle_s = 0.0

    def after(self, seconds: float, do: Callable[..., None], *given: object) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), do, given))

    def send(self, do: Callable[..., None], *given: object) -> None:
        self.flying += 1
        self.after(self.chance.uniform(LATENCY_S / 10, LATENCY_S), self._arrived, do, *given)

    def _arrived(self, do: Callable[..., None], *given: object) -> None:
        self.flying -= 1
        do(*given)

    def come(self, at: float, gateway: int, work_s: float) -> Input:
        one = Input(self.gateways[gateway], at, work_s)
        self.inputs.append(one)
        self.after(at - self.now, one.gateway.arrive, one)
        return one

    def run(self, until: float = math.inf) -> None:
        while self.events and self.events[0][0] <= until:
            at, _, do, arguments = heapq.heappop(self.events)
            if not self.flying and any(g.held for g in self.gateways) and any(r.free > 0 for r in self.replicas):
                self.idle_s += at - self.now
            self.now = at
            do(*arguments)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    gateways=st.integers(1, 4),
    replicas=st.integers(1, ASKED_MAX),
    slots=st.sampled_from([1, 1, 2, 3, 8]),
    load=st.floats(0.3, 3.0),
    long_s=st.sampled_from([0.0005, 0.01, 0.3, 8.0]),
)
def test_all_are_served_and_nobody_waits_beside_a_free_slot(
    seed: int, gateways: int, replicas: int, slots: int, load: float, long_s: float
) -> None:
    world = World(seed, gateways, replicas, slots)
    chance = random.Random(seed)
    at = 0.0
    shares = [chance.random() + 0.01 for _ in range(gateways)]
    for _ in range(150):
        at += chance.expovariate(load * replicas * slots / long_s)
        world.come(at, chance.choices(range(gateways), shares)[0], chance.expovariate(1 / long_s))
    world.run()
    assert all(one.ended < math.inf for one in world.inputs)
    assert all(not replica.line.waiting and not replica.line.given for replica in world.replicas)
    assert all(belief.in_flight == 0 for gateway in world.gateways for belief in gateway.beliefs)
    if gateways == 1:
        # Nothing is refused, and so nothing is asked.
        assert {one.sent for one in world.inputs} == {1}
    assert world.idle_s == 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("slots", [1, 2])
def test_more_replicas_than_are_asked_at_a_time_are_found_all_the_same(seed: int, slots: int) -> None:
    world = World(seed, gateways=2, replicas=3 * ASKED_MAX, slots=slots)
    chance = random.Random(seed)
    for _ in range(800):
        world.come(chance.uniform(0.0, 5.0), chance.randrange(2), chance.expovariate(1 / 0.25))
    world.run()
    assert all(one.ended < math.inf for one in world.inputs)
    # Of those that are not asked each is tried now and then.
    assert world.idle_s / world.now <= 0.03


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("gateways", [2, 3])
@pytest.mark.parametrize("slots", [1, 4])
def test_one_beside_a_thousand_gets_its_turn(seed: int, gateways: int, slots: int) -> None:
    world = World(seed, gateways, 1, slots)
    chance = random.Random(seed)
    for n in range(1000):
        world.come(0.0, n % (gateways - 1), chance.uniform(0.005, 0.02))
    alone = [world.come(at, gateways - 1, 0.01) for at in (0.5, 1.0, 1.5)]
    (replica,) = world.replicas
    for one in alone:
        world.run(until=one.came)
        before = len(replica.begun)
        while one.begun == math.inf:
            world.run(until=world.events[0][0])
        # Refused, then in the line behind one of each other gateway; slots that are given meanwhile go to those.
        assert len(replica.begun) - before <= 2 * gateways + slots
    world.run()
    assert all(one.ended < math.inf for one in world.inputs)
    sent = sum(one.sent for one in world.inputs) / len(world.inputs)
    assert sent < 1.5, "most are sent once: they are asked for, not tried"


def test_beliefs() -> None:
    whole = unknown(8)
    assert (whole.limit, whole.contended) == (8, False)
    full = room.refused(whole, 3)
    assert (full.limit, full.contended) == (3, True)
    # The slot is used: it, and what is free beside it. It is not contended any more.
    more = room.given(full, 3, Told(free=2, waiting=0), used=True)
    assert (more.limit, more.contended) == (6, False)
    assert room.ended(more, 2, asked=0) == more
    # Nothing beside it, and others wait: after the next end it is their turn.
    turn = room.given(full, 3, Told(free=0, waiting=1), used=True)
    assert (turn.limit, turn.contended) == (4, True)
    assert room.ended(turn, 3, asked=0).limit == 3
    assert room.ended(turn, 3, asked=ASKED_MAX) == turn, "it cannot be asked"
    # Not used: whoever waits has it now; else it is free, as what is beside it.
    assert room.given(full, 3, Told(free=0, waiting=1), used=False).limit == 3
    assert room.given(full, 3, Told(free=1, waiting=0), used=False).limit == 5
    # Never more than there are.
    assert room.given(full, 3, Told(free=30, waiting=0), used=True).limit == 8


@given(st.lists(st.sampled_from("jjnl"), max_size=60), st.data())
def test_a_line_is_first_come_first_served_and_forgets_who_leaves(steps: list[str], data: st.DataObject) -> None:
    line: Line[int] = Line()
    numbers = itertools.count()
    waiting: list[int] = []
    given_to: set[int] = set()
    for step in steps:
        if step == "j":
            waiting.append(next(numbers))
            line.waiting.append(waiting[-1])
        elif step == "n" and waiting:
            one = waiting.pop(0)
            given_to.add(one)
            assert line.next() == one
        elif step == "l" and (waiting or given_to):
            one = data.draw(st.sampled_from([*waiting, *sorted(given_to)]))
            waiting = [other for other in waiting if other != one]
            given_to.discard(one)
            line.leave(one)
            line.leave(one)
        assert (list(line.waiting), line.given) == (waiting, given_to)
