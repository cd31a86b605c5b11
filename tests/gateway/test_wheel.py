"""Is everything told once its time has come, once, and nothing that was taken away?"""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.gateway.wheel import TICK_S, Slot, Wheel


class Thing:
    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.told: list[float] = []

    def due(self, now: float) -> None:
        self.told.append(now)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.1, 0.25), st.sampled_from(["keep", "discard", "later"])), max_size=20))
def test_everything_is_told_after_its_time_and_once(plan: list[tuple[float, str]]) -> None:
    async def scenario() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        now = time.monotonic()
        waiting: list[tuple[Thing, float]] = []
        for wait_s, fate in plan:
            thing = Thing()
            at = now + wait_s
            wheel.add(thing, at)
            if fate == "discard":
                wheel.discard(thing)
                at = -1.0
            elif fate == "later":
                at += 0.1
                wheel.add(thing, at)
            waiting.append((thing, at))
        end = time.monotonic() + 60
        while any(at >= 0 and not thing.told for thing, at in waiting):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        # What was taken away leaves its slot behind, which is dropped when its own time has come.
        last = now + max((wait_s for wait_s, _ in plan), default=0.0)
        await asyncio.sleep(max(last - time.monotonic(), 0.0) + 2 * TICK_S)
        while wheel._timer is not None:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        for thing, at in waiting:
            assert len(thing.told) == (at >= 0)
            assert all(told >= at for told in thing.told)
            assert thing.slot is None
        assert wheel._timer is None

    asyncio.run(scenario())


def test_a_thing_may_wait_again_when_it_is_told() -> None:
    class Again(Thing):
        def due(self, now: float) -> None:
            super().due(now)
            if len(self.told) < 3:
                wheel.add(self, now)

    async def scenario() -> None:
        nonlocal wheel
        wheel = Wheel(asyncio.get_running_loop())
        thing = Again()
        wheel.add(thing, 0.0)
        end = time.monotonic() + 60
        while len(thing.told) < 3:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert thing.told == sorted(set(thing.told))

    wheel: Wheel
    asyncio.run(scenario())


def test_what_fails_at_its_time_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Thing):
        def due(self, now: float) -> None:
            super().due(now)
            raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        now = time.monotonic()
        faulty = [Faulty() for _ in range(3)]
        beside, later = Thing(), Thing()
        for thing in (*faulty, beside):
            wheel.add(thing, now)
        wheel.add(later, now + 3 * TICK_S)
        end = now + 60
        while not later.told:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert [len(thing.told) for thing in (*faulty, beside)] == [1] * 4
        assert caplog.text.count("what was due at its time failed") == 3

    asyncio.run(scenario())


def test_what_is_told_may_take_others_of_the_same_moment_away() -> None:
    """The end of a request at its deadline ends its connection, which may be due in the same slot."""

    class Ending(Thing):
        other: Ending

        def due(self, now: float) -> None:
            super().due(now)
            wheel.discard(self.other)

    async def scenario() -> None:
        nonlocal wheel
        wheel = Wheel(asyncio.get_running_loop())
        now = time.monotonic()
        pair = Ending(), Ending()
        pair[0].other, pair[1].other = pair[1], pair[0]
        later = Thing()
        for thing in (*pair, *(Thing() for _ in range(20))):
            wheel.add(thing, now)
        wheel.add(later, now + TICK_S)
        while not later.told:
            assert time.monotonic() < now + 60
            await asyncio.sleep(0.01)
        assert sum(len(thing.told) for thing in pair) == 1

    wheel: Wheel
    asyncio.run(scenario())


def test_it_sleeps_until_something_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was added and taken away before, and with something far away still waiting."""
    turns = 0
    turn = Wheel._turn

    def counted(self: Wheel) -> None:
        nonlocal turns
        turns += 1
        turn(self)

    monkeypatch.setattr(Wheel, "_turn", counted)

    async def scenario() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        now = time.monotonic()
        for number in range(200):
            passing = Thing()
            wheel.add(passing, now + 0.3 + number * TICK_S)
            wheel.discard(passing)
        far, near = Thing(), Thing()
        wheel.add(far, now + 600)
        wheel.add(near, now + 1)
        while not near.told:
            assert time.monotonic() < now + 60
            await asyncio.sleep(0.01)
        assert near.told[0] >= now + 1
        # Once for the first slot that was left empty, once for the near one; not twenty times a second. A machine that
        # had no time in between does both at once.
        assert turns <= 2
        assert not far.told
        assert wheel._timer is not None

    asyncio.run(scenario())
