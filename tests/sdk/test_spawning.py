"""Is each that is spawned accepted once, and told its own id, however they share requests and whatever these meet?"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk.simulated import Transport, simulated
from swell.sdk import protocol, spawning
from swell.sdk.protocol import Answer, Request
from swell.sdk.queueing import IN_TURN, Queueing
from swell.wire import http

HOW = (http.PRIORITY, http.DELAY, http.TIMEOUT)


@pytest.fixture(autouse=True, scope="module")
def patient() -> Iterator[None]:
    """However slow this machine is, what is under way does not take too long."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spawning, "BEHIND_S", 60.0)
        yield


class Queue(Transport):
    """It takes calls in, each key once, and of a group as many as it wants."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.kept: dict[tuple[str, str, int], str] = {}
        self.inputs: dict[str, bytes] = {}
        self.accepts: list[int] = []
        self.how: dict[str, dict[str, str]] = {}
        self.at_once = 1
        self.under_way = 0
        self.requests = 0
        self.moment = asyncio.Event()

    async def answer(self, request: Request) -> Answer:
        self.requests += 1
        self.under_way += 1
        assert self.under_way <= self.at_once, "the others gather meanwhile"
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if request.method == "GET":
            assert self.old
            group, number = request.path.removeprefix("/calls/groups/").split("/inputs/")
            return self.accepted({"id": self.kept["/call/a/f", group, int(number)]})
        group, key = request.headers.get(http.GROUP, ""), request.headers.get(http.IDEMPOTENCY_KEY, "")
        assert bool(group) != bool(key)
        if key:
            return self.accepted({"id": self.keep(request, key, 0, request.body)})
        first = int(request.headers[http.FIRST])
        inputs = list(protocol.Frames(Answer(200, {http.ITEM_TYPE.lower(): http.OCTETS}, b"")).feed(request.body))
        assert len(inputs) > 1 or first
        inputs = inputs[: self.accepts.pop() if self.accepts else None]
        ids = [self.keep(request, group, first + at, each) for at, each in enumerate(inputs)]
        return self.accepted({"group": group, "accepted": len(ids), **({} if self.old else {"ids": ids})})

    def accepted(self, told: dict[str, Any]) -> Answer:
        return Answer(202, {}, msgspec.json.encode(told))

    def keep(self, request: Request, key: str, number: int, body: bytes) -> str:
        id = self.kept.setdefault((request.path, key, number), f"fc-{len(self.kept)}")
        self.how[id] = {name: request.headers[name] for name in HOW if name in request.headers}
        assert self.inputs.setdefault(id, body) == body, "sent again it is the same"
        return id


def asked(number: int) -> Request:
    headers = {"content-type": http.OCTETS, "accept": http.OCTETS}
    return Request("POST", "/call/a/f", headers, b"%d" % number)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4), st.booleans()), max_size=8),
    st.lists(st.integers(1, 3), max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
def test_each_that_is_spawned_is_accepted_once_and_told_its_id(
    comes: list[tuple[int, int, bool]], accepts: list[int], lose: int, old: bool
) -> None:
    """`comes`: how many at a time, how much happens before the next ones, and whether one of them leaves."""
    with simulated(Queue) as server:
        server.accepts, server.lose, server.old = accepts, lose, old
        server.at_once = 99 if old else 1
        each = spawning.Spawning(server)
        told: list[Future[str]] = []

        async def scenario() -> None:
            for count, steps, leaves in comes:
                told.extend(each.accepted(asked(len(told))) for _ in range(count))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if leaves and count:
                    told[-1].cancel()
            await asyncio.gather(*map(asyncio.wrap_future, told), return_exceptions=True)
            # One that left may still be asked for.
            for _ in range(200):
                await asyncio.sleep(0)

        server.loop.run_until_complete(asyncio.wait_for(scenario(), 60))
        there = {number: future.result() for number, future in enumerate(told) if not future.cancelled()}
        assert len(set(there.values())) == len(there)
        assert all(server.inputs[id] == b"%d" % number for number, id in there.items())
        assert sorted(server.inputs.values()) == sorted(set(server.inputs.values())), "none twice"
        assert not each._lines


def test_one_alone_goes_at_once_and_those_behind_it_together() -> None:
    with simulated(Queue) as server:
        each = spawning.Spawning(server)
        first = each.accepted(asked(0))
        server.loop.run_until_complete(asyncio.sleep(0))
        server.loop.run_until_complete(asyncio.sleep(0))
        others = [each.accepted(asked(n)) for n in range(1, 40)]
        server.settle()
        assert len({future.result(0) for future in (first, *others)}) == 40
        assert server.requests == 2


def test_who_leaves_does_not_have_others_taken_for_it() -> None:
    """All were accepted, the answer was lost, and when they are sent again a limit lets in one: the others keep their
    numbers."""
    with simulated(Queue) as server:
        server.lose, server.accepts = 1, [1, 99]
        each = spawning.Spawning(server)
        told = [each.accepted(asked(n)) for n in range(3)]
        server.loop.run_until_complete(asyncio.sleep(0))
        told[1].cancel()
        server.settle()
        assert [server.inputs[told[n].result(0)] for n in (0, 2)] == [b"0", b"2"]
        assert len(server.inputs) == 3


@given(st.lists(st.sampled_from([IN_TURN, Queueing(7), Queueing(delay_s=1.5), Queueing(7, timeout_s=2)]), max_size=20))
def test_those_that_are_queued_in_other_ways_do_not_go_along(hows: list[Queueing]) -> None:
    with simulated(Queue) as server:
        each, server.at_once = spawning.Spawning(server), 4
        told = [each.accepted(asked(n), how) for n, how in enumerate(hows)]
        server.settle()
        assert [server.how[future.result(0)] for future in told] == [how.headers for how in hows]
        assert server.requests <= 2 * len(set(hows))


def test_what_is_spawned_at_a_server_that_is_too_old_goes_alone_from_then_on() -> None:
    with simulated(Queue) as server:
        server.old, server.at_once = True, 99
        each = spawning.Spawning(server)
        for _ in range(2):
            told = [each.accepted(asked(n)) for n in range(len(server.kept), len(server.kept) + 20)]
            server.settle()
            assert len({future.result(0) for future in told}) == 20
        groups = {group for _, group, _ in server.kept if group.startswith("fg-")}
        assert len(groups) == 1
        # One group, the ids of its calls, and all that came after it.
        assert server.requests == 1 + 20 + 20


def test_a_request_that_hangs_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Queue):
        async def answer(self, request: Request) -> Answer:
            if request.body == b"0":
                await asyncio.Event().wait()
            return await super().answer(request)

    monkeypatch.setattr(spawning, "BEHIND_S", 0.0)
    with simulated(Hanging) as server:
        each = spawning.Spawning(server)
        hanging = each.accepted(asked(0))
        server.settle()
        assert each.accepted(asked(1)) is not None
        other = each.accepted(asked(2))
        server.settle()
        assert other.result(0)
        assert not hanging.done()
        hanging.cancel()
        server.settle()
        assert not each._tasks


def test_an_input_goes_with_who_sent_it() -> None:
    """It may be large. What collects cycles comes by their number, not by their size."""
    gc.disable()
    try:
        with simulated(Queue) as server:
            spawn = spawning.Spawning(server)
            requests = [asked(n) for n in range(3)]
            inputs = [weakref.ref(request) for request in requests]
            ids = [spawn.accepted(request) for request in requests]
            requests.clear()
            server.settle()
            assert all(future.done() for future in ids)
            ids.clear()
            assert [each() for each in inputs] == [None] * 3
    finally:
        gc.enable()
