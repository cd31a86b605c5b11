"""Does every source bring all that was published, at least once and with the same id, whatever dies meanwhile?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from places import Broker, Bucket, Folder, Nats, Place, Postgres, RedisPlace, Sqlite

from swell.model.retrying import Retrying
from swell.model.source import Message, SourceState
from swell.sources import feed
from swell.sources.feed import Feed
from unshrunk import UNSHRUNK

UNACKNOWLEDGED_MAX = 7
WAIT_S = 60.0
"""For what is to come: until then nobody hopes, it is waited for."""
SOON = Retrying(initial_delay_s=0.01, max_delay_s=0.1)
FAULTS = ("connect", "take", "cancelled", "again", "acknowledge", "acknowledged", "hold", "waiting", "close")


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside all else, what waits is asked for again and again."""
    monkeypatch.setattr(feed, "MEASURE_S", 0.02)


async def until(true: Callable[[], bool]) -> None:
    while True:
        if true():
            return
        await asyncio.sleep(0.005)


class Brought(RuleBasedStateMachine):
    """A consumer that takes and acknowledges as a queue would, and dies; a place that goes and comes back."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = place
        self.published: list[int] = []
        self.ids: dict[int, str] = {}
        """Of each item that came, the id it came with."""
        self.acknowledged: set[int] = set()
        """In the queue."""
        self.untold: set[int] = set()
        """Of these, what a consumer that died may not have passed on."""
        self.known: set[int] = set()
        """And the source knows it for sure: never again."""
        self.taken: list[Message] = []
        """By this incarnation of the consumer, and not acknowledged."""
        self.came: set[int] = set()
        """All that this incarnation took."""
        self.watermark = ""
        self.up = True
        self.run(self.place.begin())
        self.feed = self.run(self.opened())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(WAIT_S):
                return await work

        return self.runner.run(bounded())

    async def opened(self) -> Feed:
        feed = Feed("orders", self.place.source(), self.watermark, UNACKNOWLEDGED_MAX, reconnecting=SOON)
        return await feed.__aenter__()

    # -- what happens ------------------------------------------------------------------------

    @precondition(lambda self: self.up)
    @rule(many=st.integers(1, 5))
    def publish(self, many: int) -> None:
        numbers = [*range(len(self.published), len(self.published) + many)]
        self.run(self.place.publish(numbers))
        self.published += numbers

    def due(self) -> bool:
        room = UNACKNOWLEDGED_MAX - len(self.taken)
        return self.up and room > 0 and bool({*self.published} - self.acknowledged - self.came)

    # How much comes at once is chance, and what is drawn may not depend on that: what cannot be done is not done.

    @rule(most=st.integers(1, 9))
    def take(self, most: int) -> None:
        if not self.due():
            return
        messages = self.run(self.feed.take(most))
        assert 0 < len(messages) <= most
        self.took(messages)

    def took(self, messages: list[Message]) -> None:
        for each in messages:
            number = self.place.number(each)
            assert number in self.published
            assert self.ids.setdefault(number, each.id) == each.id, "the same id whenever it comes"
            assert number not in self.came, "one incarnation is told once"
            assert number not in self.known, "what the source was told of never comes again"
            fresh = {*self.published} - self.acknowledged - self.came
            if number in fresh and (each.watermark or isinstance(self.place, Broker)):
                assert number == min(fresh), "in the source's order"
            self.came.add(number)
            if number in self.acknowledged:
                self.feed.acknowledge([each])
                self.untold.discard(number)
            else:
                self.taken.append(each)
        assert len(set(self.ids.values())) == len(self.ids), "an id is of one item"
        assert len(self.taken) <= UNACKNOWLEDGED_MAX

    @rule(many=st.integers(1, 9), last_first=st.booleans())
    def acknowledge(self, many: int, last_first: bool) -> None:
        """In order where the watermark stands for what was before; else in any."""
        if not self.taken:
            return
        some = self.taken[:many]
        if last_first and not some[0].watermark:
            some = self.taken[::-1][:many]
        self.feed.acknowledge(some)
        self.taken = [each for each in self.taken if each not in some]
        self.acknowledged |= {self.place.number(each) for each in some} if self.up else self.numbers(some)
        self.watermark = some[-1].watermark

    def numbers(self, messages: list[Message]) -> set[int]:
        """Also of those whose place is away."""
        by_id = {id: number for number, id in self.ids.items()}
        return {by_id[each.id] for each in messages}

    @precondition(lambda self: self.up)
    @rule()
    def settles(self) -> None:
        self.run(self.feed.settled())
        self.known |= self.acknowledged - self.untold

    @rule(kind=st.sampled_from(FAULTS))
    def fault(self, kind: str) -> None:
        self.place.fault(kind)

    @rule(clean=st.booleans())
    def consumer_dies(self, clean: bool) -> None:
        """Killed, or stopped: what it took and did not acknowledge comes again, to the next one."""

        async def die() -> None:
            if not clean:
                self.feed._untold.clear()
            await self.feed.__aexit__()

        self.run(die())
        self.untold |= self.acknowledged - self.known
        self.taken, self.came = [], set()
        self.feed = self.run(self.opened())

    @precondition(lambda self: self.up)
    @rule()
    def place_goes(self) -> None:
        self.run(self.place.stop())
        self.up = False

    @precondition(lambda self: not self.up)
    @rule(seen=st.booleans())
    def place_comes_back(self, seen: bool) -> None:
        if seen:
            self.run(self.is_down())
        self.run(self.place.start())
        self.up = True
        if seen:
            self.run(self.is_up())

    async def is_down(self) -> None:
        room = UNACKNOWLEDGED_MAX - len(self.feed._held) - len(self.feed._untold)
        # Nobody asks a folder while there is no room for more.
        if room > 0:
            await self.is_so(lambda state: not state.up and state.failures > 0)
            assert self.feed.state.why

    async def is_up(self) -> None:
        await self.is_so(lambda state: state.up)
        assert not self.feed.state.why

    async def none_waits(self) -> None:
        """What comes once more, since its source may not have heard of it, is taken until then."""
        while self.feed.lag.waiting != 0:
            if self.feed._ready:
                self.took(await self.feed.take(9))
            await asyncio.sleep(0.005)
        assert self.feed.lag.oldest_at is None

    async def is_so(self, true: Callable[[SourceState], bool]) -> None:
        await until(lambda: true(self.feed.state))

    @invariant()
    def bounded(self) -> None:
        assert len(self.feed._held) + len(self.feed._untold) <= UNACKNOWLEDGED_MAX

    # -- how it ends ---------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if not self.up:
                self.place_comes_back(False)
            while self.due() or self.taken:
                if self.taken:
                    self.acknowledge(99, False)
                if self.due():
                    self.take(9)
            assert self.acknowledged == {*self.published}, "all of it was delivered"
            self.settles()
            self.run(self.none_waits())
            self.consumer_dies(True)
            self.publish(1)
            # Anything that comes again would come before it, or be refused by `take`.
            self.take(9)
        finally:
            self.run(self.feed.__aexit__())
            self.runner.close()


KINDS = (Broker, Folder, Sqlite, Bucket, Nats, RedisPlace, Postgres)


@pytest.mark.slow
@pytest.mark.parametrize("somewhere", KINDS, ids=lambda kind: kind.__name__.lower(), indirect=True)
def test_what_waits_is_counted(somewhere: Place) -> None:
    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([0, 1, 2, 3, 4])
        # More than there is room for.
        async with asyncio.timeout(WAIT_S), Feed("orders", somewhere.source(), "", 2, reconnecting=SOON) as came:
            for left in (5, 3, 1):
                await until(lambda left=left: (came.lag.waiting, came.lag.oldest_at is None) == (left, False))
                messages: list[Message] = []
                while len(messages) < min(left, 2):
                    messages += await came.take(2)
                assert came.lag.oldest_at == min(each.at for each in messages)
                came.acknowledge(messages)
            await until(lambda: came.lag.waiting == 0)
            assert came.lag.oldest_at is None

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("somewhere", "examples"),
    [(Broker, 60), (Folder, 10), (Sqlite, 20), (Bucket, 2), (Nats, 5), (RedisPlace, 8), (Postgres, 4)],
    ids=lambda value: value.__name__.lower() if isinstance(value, type) else str(value),
    indirect=["somewhere"],
)
def test_what_is_published_is_brought(somewhere: Place, examples: int) -> None:
    run_state_machine_as_test(
        lambda: Brought(somewhere),
        settings=settings(deadline=None, max_examples=examples, stateful_step_count=25, phases=UNSHRUNK),
    )
