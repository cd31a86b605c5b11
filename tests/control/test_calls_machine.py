"""Is no queued call lost, none recorded twice, and no replica given more than it takes, whatever dies or fails?"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from control.calls_place import LONG_US, MAX_INPUTS, NODE, WAIT_S, Place, new
from swell.control import calls as module
from swell.control import wants
from swell.control.results import Results
from swell.decide.granting import HAND_S
from swell.model.call import Body, CallError
from swell.model.errors import SwellError
from swell.model.ports import Store
from swell.store.blobs import BlobFolder
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore

STOPPED = CallError("cancelled", "nobody wants it")
APPS = ("a", "b")
RARELY = st.sampled_from((False,) * 5 + (True,))
SHORT_US = 20_000
SHORT_HAND = round(MAX_INPUTS * HAND_S * 1e6 / SHORT_US)
"""As many wait beside a replica where all calls are so short."""
PICKS = st.integers(0, 1000)
"""One of some that there are: how many is no part of what is drawn, since a round takes as long as it takes."""
CODES = ("", "", "", "exception", "drained", "busy", "replica_died", "bad_arguments", "cancelled")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a while does not."""
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    monkeypatch.setattr(wants, "TELL_S", 0.0)


def picked(them: list[Any], pick: int) -> Any:
    """That one of them."""
    return them[pick % len(them)]


class Machine(RuleBasedStateMachine):
    """Control, its store and a runner; nothing but what is said between them."""

    def opened(self, folder: Path) -> Store:
        return MemoryStore()

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        hasten(self.patches)
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        folder = Path(self.folder.name)
        self.files = BlobFolder(folder / "results")
        store = self.opened(folder)
        results = Results(self.files, store.call_records, lambda *lease: self.place.runner.file(*lease))
        self.place = Place(store, results)
        self.place.runner.files = folder
        self.accepted: set[str] = set()
        self.results: dict[str, Body] = {}
        self.cancelled: set[str] = set()
        self.short = False
        for app in APPS:
            self.do(self.begin(app))

    async def begin(self, app: str) -> None:
        if self.place.running is None:
            await self.place.open()
        self.place.deploy(app)
        self.place.start(app)

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, WAIT_S))

    def teardown(self) -> None:
        try:
            self.do(self.finish())
        finally:
            self.do(self.place.close())
            self.loop.close()
            self.place.store.store.close()
            self.folder.cleanup()
            self.patches.undo()

    async def finish(self) -> None:
        """When nothing fails any more, everything ends."""
        place = self.place
        place.store.how = ""
        if not place.runner.there:
            place.connect()
        for app in APPS:
            if app not in place.apps:
                place.deploy(app)
            place.start(app)
        await place.settle()
        for _ in range(400):
            for lease in list(place.runner.held):
                place.runner.end(lease)
            await place.settle()
            place.pass_time(2.0)
            await place.settle()
            if all(call.ended_at is not None for call in self.calls()):
                break
        assert all(call.ended_at is not None for call in self.calls())
        assert len(place.keeper.leases) == 0
        assert not place.runner.held
        assert not place.runner.ends
        await asyncio.sleep(0.01)
        assert all(level.held == level.in_flight == 0 for level in place.levels.values())
        assert place.keeper.wants.levels == {}

    def calls(self) -> list[Any]:
        kept = self.place.store.call_records.newest("", None, 10_000)
        assert {call.id for call in kept} >= self.accepted
        return kept

    # -- what happens ------------------------------------------------------------------------

    @rule(
        app=st.sampled_from(APPS),
        count=st.integers(1, 6),
        priority=st.integers(-1, 1),
        delay_s=st.sampled_from((0.0, 0.0, 0.0, 3.0, 40.0)),
    )
    def submit(self, app: str, count: int, priority: int, delay_s: float) -> None:
        calls = [new(app, priority=priority, delay_s=delay_s) for _ in range(count)]

        async def accept() -> list[Any]:
            accepting = [self.place.keeper.accept(call) for call in calls]
            return await asyncio.gather(*accepting, return_exceptions=True)

        for answer in self.do(accept()):
            if app in self.place.apps:
                assert isinstance(answer, str)
                self.accepted.add(answer)
            else:
                assert isinstance(answer, SwellError)
                assert answer.code == "unknown_function"

    @rule(
        picks=st.lists(PICKS, min_size=1, max_size=8),
        code=st.sampled_from(CODES),
        short=RARELY,
        large=st.sampled_from((b"", b"one", b"two")),
    )
    def end(self, picks: list[int], code: str, short: bool, large: bytes) -> None:
        held = sorted(self.place.runner.held)
        self.short |= short and bool(held)
        for lease in {picked(held, pick) for pick in picks} if held else ():
            self.place.runner.end(lease, code, SHORT_US if short else LONG_US, large)

    @rule(seconds=st.sampled_from((1.0, 5.0, 20.0)))
    def wait(self, seconds: float) -> None:
        self.do(self.timed(seconds))

    async def timed(self, seconds: float) -> None:
        self.place.pass_time(seconds)

    @rule(seconds=st.sampled_from((4.0, 20.0, 26.0)))
    def stand_still(self, seconds: float) -> None:
        """The runner does, and what it has goes on: nothing of that is lost at replicas that control knows. It does not
        know one of an app that was stopped before it began."""

        async def stand_still() -> None:
            place = self.place
            place.pass_time(1.0)
            await place.settle()
            leased = [(lease, place.keeper.leases.get(*lease)) for lease in place.runner.held]
            held = [lease for lease, call in leased if call is not None and call.replica in place.world.replicas]
            place.stand_still(seconds)
            await place.settle()
            assert all(place.keeper.leases.get(*lease) is not None for lease in held)

        if self.place.runner.there:
            self.do(stand_still())

    @rule(app=st.sampled_from(APPS))
    def start(self, app: str) -> None:
        async def start() -> None:
            if app in self.place.apps and len(self.place.replicas) < 6:
                self.place.start(app)

        self.do(start())

    @rule(pick=PICKS, drains=st.booleans())
    def leave(self, pick: int, drains: bool) -> None:
        async def leave(replica: str) -> None:
            if drains and self.place.runner.there:
                self.place.drain(replica)
            else:
                self.place.die(replica)

        if self.place.replicas:
            self.do(leave(picked(sorted(self.place.replicas), pick)))

    @rule(pick=PICKS)
    def replaced(self, pick: int) -> None:
        """One that works dies, and its successor is there when its calls are due again."""

        async def replace(replica: str) -> None:
            app = self.place.replicas[replica].split("/")[1]
            self.place.die(replica)
            if app in self.place.apps:
                self.place.start(app)
            await self.place.settle()
            self.place.pass_time(1.0)

        busy = {replica for replica, _ in self.place.runner.held.values()} & self.place.replicas.keys()
        if busy:
            self.do(replace(picked(sorted(busy), pick)))

    @rule(kill=st.booleans())
    def runner(self, kill: bool) -> None:
        """It comes and goes; where it is killed, with all that it knew."""

        async def change() -> None:
            if self.place.runner.there:
                self.place.disconnect()
                if kill:
                    self.place.runner.kill()
            else:
                self.place.connect()

        self.do(change())

    @rule(killed=st.booleans())
    def control(self, killed: bool) -> None:
        async def restart() -> None:
            await (self.place.crash() if killed else self.place.close())
            await self.place.open()

        self.do(restart())

    @rule(how=st.sampled_from(("before", "after", "leases")), app=st.sampled_from(APPS), ends=st.booleans())
    def fail(self, how: str, app: str, ends: bool) -> None:
        """The disk is full for a while."""

        async def fail() -> None:
            place = self.place
            await place.settle()
            place.store.how = how
            if ends:
                for lease in list(place.runner.held):
                    place.runner.end(lease)
                place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
            if app in place.apps:
                accepting = asyncio.create_task(place.keeper.accept(new(app)))
                await asyncio.wait({accepting})
                if accepting.exception() is None:
                    self.accepted.add(accepting.result())
            place.store.how = ""

        self.do(fail())

    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        if not self.accepted:
            return
        id = picked(sorted(self.accepted), pick)
        call = self.do(self.place.keeper.cancel(id, STOPPED))
        if call is not None:
            assert call.state == "cancelled"
            self.cancelled.add(id)

    @rule(pick=PICKS)
    def retry(self, pick: int) -> None:
        failed = [call.id for call in self.calls() if call.state == "failed"]
        if failed:
            call = self.do(self.place.keeper.retry(picked(sorted(failed), pick)))
            assert call is not None
            assert call.state == "queued"

    @rule()
    def sweep(self) -> None:
        """Nothing that is large is left but what calls name."""
        self.do(self.place.keeper.sweep_results(True))
        named = set(self.place.store.call_records.digests())
        assert {each.name for each in self.files.folder.iterdir()} == named

    @rule(app=st.sampled_from(APPS), anew=st.booleans())
    def deploy(self, app: str, anew: bool) -> None:
        """An app is stopped, deployed again, or with other code."""

        async def change() -> None:
            if app in self.place.apps and not anew:
                self.place.stop(app)
            else:
                self.place.deploy(app, timeout_s=float(len(self.accepted) + 1))

        self.do(change())

    # -- what holds --------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        self.do(self.place.settle())
        place = self.place
        calls = self.calls()
        for call in calls:
            if call.id in self.cancelled:
                assert call.state == "cancelled"
            result = place.store.call_records.result(call.id) if call.state == "done" else None
            if result is not None and result.digest:
                content = Path(self.files.path(result.digest)).read_bytes()
                assert result.digest == f"sha256-{hashlib.sha256(content).hexdigest()}"
            if result is not None:
                assert self.results.setdefault(call.id, result) == result, "a result changed"
        for id in self.results:
            assert place.store.call_records.get(id).state == "done"  # type: ignore[union-attr]
        waiting = Counter(call.workload for call in calls if call.state == "queued")
        assert place.keeper._tallies.queued == waiting, "what waits is not what the store says"
        leased = {(call.id, call.token) for call in calls if call.state == "leased"}
        known = {
            (call.id, call.token) for each in place.keeper.leases.replicas() for call in place.keeper.leases.at(each)
        }
        assert known == leased, "control's memory is not what the store says"
        counts = Counter(call.replica for call in calls if call.state == "leased")
        assert max(counts.values(), default=0) <= MAX_INPUTS + (SHORT_HAND if self.short else 0)
        for call in calls:
            if call.state == "leased" and call.is_suspect:
                assert counts[call.replica] == 1, "something is beside a call that may be what ends replicas"
        if place.runner.there:
            # What is due is with somebody, where anybody had room.
            assert not any(place.keeper.hands.any(workload, place.clock.at) for workload in place.keeper.hands.due)
            for lease, (replica, _) in place.runner.held.items():
                assert replica in place.replicas or lease not in leased


class SqliteMachine(Machine):
    def opened(self, folder: Path) -> Store:
        return SqliteStore(folder / "control.db")


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
SqliteMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestInMemory = pytest.mark.slow(Machine.TestCase)
TestInSqlite = pytest.mark.slow(SqliteMachine.TestCase)
