"""Is each that waits told what is its own, once, however they share requests and whatever these meet?"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import time
import weakref
from concurrent.futures import Future
from urllib.parse import parse_qs

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sdk.simulated import LOST, Transport, simulated
from swell.model.errors import SwellError
from swell.sdk import shared, waiting
from swell.sdk.protocol import Answer, Request
from swell.wire import http
from swell.wire.call_rows import AskedEnds, EndRow, EndsPage

IDS = st.integers(0, 11).map("fc-{}".format)
APART = {"fc-2", "fc-7", "fc-11"}
"""Their results are large."""
ASKED_MAX = 4
SINGLE_MAX = 6


class Ends(Transport):
    """It knows which calls have ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ended: set[str] = set()
        self.unknown: set[str] = set()
        self.told_apart: set[str] = set()
        self.busy = 0
        self.page_max = 100
        """So many ends have room in an answer."""
        self.refused = 0
        """So often it was asked for what it is too old for."""
        self.under_way: list[tuple[str, ...]] = []
        self.changed = asyncio.Event()
        self.broken = asyncio.Event()

    def wake(self) -> None:
        event, self.changed = self.changed, asyncio.Event()
        event.set()

    def cut(self) -> None:
        """All that is under way breaks off."""
        event, self.broken = self.broken, asyncio.Event()
        event.set()
        self.wake()

    async def answer(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        wait_s, single = float(parse_qs(query)["wait_s"][0]), request.method == "GET"
        if single and not self.old:
            id = path.split("/")[2]
            assert id in self.told_apart
            await asyncio.sleep(0)
            return self.of_one(EndsPage((EndRow(id, "done", 200, http.OCTETS, id.encode()),)))
        if self.old and not single:
            self.refused += 1
            return Answer(404, {}, http.error_body("unknown_path", "It is not known yet."))
        asked = (path.split("/")[2],) if single else msgspec.json.decode(request.body, type=AskedEnds).ids
        assert single == self.old
        assert 1 <= len(asked) <= ASKED_MAX
        assert len(set(asked)) == len(asked)
        if wait_s and self.busy:
            self.busy -= 1
            return Answer(503, {}, http.error_body("busy", "Too many wait."))
        if wait_s:
            self.under_way.append(asked)
        try:
            page = await self.page(asked, wait_s, self.broken)
        finally:
            if wait_s:
                self.under_way.remove(asked)
        return self.of_one(page) if single else Answer(200, {}, msgspec.msgpack.encode(page))

    async def page(self, asked: tuple[str, ...], wait_s: float, broken: asyncio.Event) -> EndsPage:
        while True:
            if broken.is_set():
                raise LOST
            unknown = tuple(id for id in asked if id in self.unknown)
            ends = [id for id in asked if id in self.ended and id not in unknown][: self.page_max]
            if ends or unknown or not wait_s:
                apart = [] if self.old else [id for id in ends if id in APART]
                self.told_apart.update(apart)
                rows = tuple(
                    EndRow(id, "done", 413, http.JSON, b"", apart=True)
                    if id in apart
                    else EndRow(id, "done", 200, http.OCTETS, id.encode())
                    for id in ends
                )
                return EndsPage(rows, unknown)
            if wait_s > waiting.TURN_S:
                await self.changed.wait()
            else:
                # Its turn is over soon.
                await asyncio.sleep(0)
                wait_s = 0.0

    def of_one(self, page: EndsPage) -> Answer:
        if page.unknown:
            return Answer(404, {}, http.error_body("unknown_call", "There is none."))
        state = http.CALL_STATE.lower()
        for end in page.ends:
            return Answer(end.status, {state: end.state, "content-type": end.content_type}, end.body)
        return Answer(202, {state: "leased"}, b"{}")


class WaitingMachine(RuleBasedStateMachine):
    """Threads come, leave and look; calls end; the way to the server breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        for name in ("JOIN_S", "BUSY_S", "CROWDED_S", "EACH_S"):
            self.patched.setattr(waiting, name, 0.0)
        self.patched.setattr(waiting, "ASKED_MAX", ASKED_MAX)
        self.patched.setattr(waiting, "SINGLE_MAX", SINGLE_MAX)
        self.patched.setattr(shared, "AGAIN_S", (0.0,))
        self.loop = asyncio.new_event_loop()
        self.server = Ends(self.loop)
        self.waiting = waiting.Waiting(self.server)  # type: ignore[arg-type]
        self.waits: list[tuple[str, bool, Future[Answer | None]]] = []
        self.late: set[int] = set()
        """Which of them came once there was something to tell."""
        self.refused: int | None = None

    @initialize(old=st.booleans())
    def begin(self, old: bool) -> None:
        self.server.old = old

    @rule(id=IDS, look=st.booleans())
    def come(self, id: str, look: bool) -> None:
        until = time.monotonic() if look else math.inf
        if id in self.server.ended | self.server.unknown:
            self.late.add(len(self.waits))
        self.waits.append((id, look, self.waiting.ended(id, until)))

    @rule(ids=st.lists(IDS, max_size=20))
    def come_together(self, ids: list[str]) -> None:
        for id in ids:
            self.come(id, look=False)

    @rule(ids=st.sets(IDS, max_size=6))
    def end(self, ids: set[str]) -> None:
        self.server.ended |= ids
        self.server.wake()

    @rule(id=IDS)
    def forget(self, id: str) -> None:
        self.server.unknown.add(id)
        self.server.wake()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        there = [told for _, _, told in self.waits if not told.done()]
        if there:
            data.draw(st.sampled_from(there)).cancel()

    @rule(count=st.integers(0, 4))
    def lose_answers(self, count: int) -> None:
        self.server.lose = count

    @rule()
    def cut(self) -> None:
        self.server.cut()

    @rule(count=st.integers(0, 3), page_max=st.integers(1, 5))
    def bound(self, count: int, page_max: int) -> None:
        self.server.busy, self.server.page_max = count, page_max

    @rule()
    def settled(self) -> None:
        self.server.settle()
        over = self.server.ended | self.server.unknown
        for _ in range(50 if self.server.old else 0):
            # There they take turns.
            if all(told.done() for id, look, told in self.waits if look or id in over):
                break
            self.server.settle()
        for id, look, told in self.waits:
            assert told.done() == (look or told.cancelled() or id in over), id
        if self.server.old:
            assert len(self.server.under_way) <= SINGLE_MAX
            if self.server.older:
                self.refused = self.server.refused if self.refused is None else self.refused
                assert self.server.refused == self.refused, "once that is known it is not tried again"
            return
        most = waiting.FEW + len(self.waits) // ASKED_MAX
        assert len(self.server.under_way) <= most
        asked_for = set(itertools.chain.from_iterable(self.server.under_way))
        assert {id for id, _, told in self.waits if not told.done()} <= asked_for

    @invariant()
    def each_is_told_its_own(self) -> None:
        for number, (id, look, told) in enumerate(self.waits):
            if not told.done() or told.cancelled():
                continue
            error = told.exception()
            if error is not None:
                assert isinstance(error, SwellError)
                assert (error.code, id in self.server.unknown) == ("unknown_call", True) or (look, error.code) == (
                    True,
                    LOST.code,
                )
            elif (answer := told.result()) is None:
                assert look
                assert number not in self.late
            else:
                assert answer.body == id.encode()

    def teardown(self) -> None:
        self.server.ended = {f"fc-{n}" for n in range(12)}
        self.server.wake()
        self.server.lose = 0
        self.settled()
        assert all(told.done() for _, _, told in self.waits)
        assert not self.server.under_way
        assert not self.waiting._askings
        self.loop.close()
        self.patched.undo()


WaitingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWaiting = pytest.mark.slow(WaitingMachine.TestCase)


def test_one_alone_is_asked_for_at_once_and_who_leaves_ends_the_request() -> None:
    with simulated(Ends) as server:
        each = waiting.Waiting(server)
        for n in range(waiting.FEW):
            told = each.ended(f"fc-{n}", math.inf)
            server.settle()
            assert server.under_way[n:] == [(f"fc-{n}",)]
        told.cancel()
        server.settle()
        assert len(server.under_way) == waiting.FEW - 1
        server.ended = {"fc-0", "fc-1"}
        server.wake()
        server.settle()
        assert server.under_way == []


def test_where_some_requests_wait_already_the_next_takes_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "JOIN_S", 0.0)
    with simulated(Ends) as server:
        each = waiting.Waiting(server)
        for n in range(waiting.FEW + 1):
            each.ended(f"fc-{n}", math.inf)
            server.settle()
        assert [sorted(asked) for asked in server.under_way] == [[f"fc-{n}" for n in range(waiting.FEW + 1)]]
        server.ended = {f"fc-{n}" for n in range(99)}
        server.wake()
        server.settle()


@pytest.mark.parametrize(("old", "page_max"), [(False, 1), (True, 1)])
def test_who_only_looks_is_told_what_there_is(old: bool, page_max: int) -> None:
    """Also where an answer has no room for all, and where the server turns out to be too old to be asked for many."""
    with simulated(Ends) as server:
        server.old, server.page_max, server.ended = old, page_max, {"fc-0", "fc-1"}
        each = waiting.Waiting(server)
        told = [each.ended(f"fc-{n}", time.monotonic()) for n in range(3)]
        server.settle()
        bodies = [answer.body if answer is not None else None for answer in (future.result(0) for future in told)]
        assert bodies == [b"fc-0", b"fc-1", None]


def test_requests_that_hang_hold_up_nobody_who_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Ends):
        async def answer(self, request: Request) -> Answer:
            if len(msgspec.json.decode(request.body, type=AskedEnds).ids) == 1:
                await asyncio.Event().wait()
            return await super().answer(request)

    monkeypatch.setattr(waiting, "JOIN_S", 0.0)
    with simulated(Hanging) as server:
        each = waiting.Waiting(server)
        server.ended = {f"fc-{n}" for n in range(waiting.FEW + 1)}
        told = []
        for n in range(waiting.FEW + 1):
            assert not any(future.done() for future in told)
            told.append(each.ended(f"fc-{n}", math.inf))
            server.settle()
        assert all(future.done() for future in told)


@pytest.mark.parametrize(("code", "status"), [("bad_key", 401), ("no_scope", 403), ("no_server", 503)])
def test_what_the_server_refuses_is_told_to_all(code: str, status: int) -> None:
    class Refusing(Ends):
        async def answer(self, request: Request) -> Answer:
            return Answer(status, {}, http.error_body(code, "Why not."))

    with simulated(Refusing) as server:
        each = waiting.Waiting(server)
        told = [each.ended(f"fc-{n % 2}", math.inf) for n in range(5)]
        server.settle()
        errors = [future.exception(0) for future in told]
        assert {error.code for error in errors if isinstance(error, SwellError)} == {code}
        assert len({id(error) for error in errors}) == 5, "each thread raises one of its own"


def test_a_result_goes_with_who_had_it() -> None:
    """It may be large. What collects cycles comes by their number, not by their size."""
    gc.disable()
    try:
        with simulated(Ends) as server:
            told = [waiting.Waiting(server).ended(f"fc-{n}", math.inf) for n in range(2)]
            server.ended = {"fc-0", "fc-1"}
            server.settle()
            results = [weakref.ref(future.result(0)) for future in told]
            assert all(each() is not None for each in results)
            told.clear()
            assert [each() for each in results] == [None, None]
    finally:
        gc.enable()
