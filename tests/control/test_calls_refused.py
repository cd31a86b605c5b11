"""Does what the database refuses for one row cost that one call, or its one asker, and nobody else?"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.calls_place import NODE, WAIT_S, Place, new
from control.gang_place import given_out, heard, play
from control.test_calls import STOPPED, hasten
from swell.control.portions import USED_MAX_US
from swell.model.call import Body, Change, Failed, Outcome, Work
from swell.model.errors import SwellError
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore

BAD = Body("x", b"bad")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def refused() -> SwellError:
    return SwellError("row_refused", "The database cannot hold a row.", status=500)


class Refusing:
    """A store that refuses some rows."""

    def __init__(self, place: Place) -> None:
        self.ends: set[str] = set()
        """Calls whose result it refuses."""
        self.cancels: set[str] = set()
        """Calls that it does not let be cancelled."""
        self.rounds = 0
        self._calls = place.store.store.calls
        for name in ("add", "finish", "change"):
            setattr(place.store.calls, name, getattr(self, name))

    def add(self, works: Sequence[Work], *variants: Any) -> Any:
        self.rounds += 1
        self._check(work.input == BAD for work in works)
        return self._calls.add(works, *variants)

    def finish(self, outcomes: Sequence[Outcome]) -> Any:
        self._check(each.id in self.ends and not isinstance(each, Failed) for each in outcomes)
        return self._calls.finish(outcomes)

    def change(self, changes: Sequence[Change]) -> Any:
        self._check(getattr(each, "id", "") in self.cancels for each in changes)
        return self._calls.change(changes)

    def _check(self, bad: Iterable[bool]) -> None:
        if any(bad):
            raise refused()


async def code(act: Any) -> str:
    """What came of it: the code of the error, or nothing."""
    try:
        await asyncio.wait_for(act, WAIT_S)
    except SwellError as error:
        return error.code
    return ""


async def many(place: Place, running: list[bool], coming: list[bool], leaving: list[bool]) -> None:
    """Calls that run and end, that come, and that are cancelled, all at once. True: its row is refused."""
    keeper = place.keeper
    for _ in running:
        place.start("a")
    ids = [await keeper.accept(new()) for _ in running]
    await place.settle()
    waiting = [await keeper.accept(new(delay_s=1000.0)) for _ in leaving]
    store = Refusing(place)
    store.ends = {id for id, bad in zip(ids, running, strict=True) if bad}
    store.cancels = {id for id, bad in zip(waiting, leaving, strict=True) if bad}
    for lease in list(place.runner.held):
        place.runner.end(lease)
    keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
    accepted = [code(keeper.accept(new(input=BAD if bad else Body("x", b"1"), delay_s=9.0))) for bad in coming]
    cancelled = [code(keeper.cancel(id, STOPPED)) for id in waiting]
    told = await asyncio.gather(*accepted, *cancelled)
    assert told == ["row_refused" if bad else "" for bad in (*coming, *leaving)]
    for id, bad in zip(ids, running, strict=True):
        call = await keeper.ended(id, WAIT_S)
        assert call is not None
        assert call.state == ("failed" if bad else "done")
        assert call.error is None or call.error.code == "internal"
    await place.settle()
    assert not place.runner.ends, "all are acknowledged"
    assert place.store.call_records.newest("", "leased", 99) == []
    rows = sum((*running, *coming, *leaving))
    assert store.rounds <= 40 + 25 * rows, "others are not written one by one"


things = st.lists(st.booleans(), max_size=9)


@settings(max_examples=30, deadline=None)
@given(things, things, things)
def test_a_row_that_is_refused_costs_one_call_or_asker(
    running: list[bool], coming: list[bool], leaving: list[bool]
) -> None:
    async def begun() -> None:
        place = Place(MemoryStore())
        await place.open()
        place.deploy("a", max_inputs=1)
        try:
            await many(place, running, coming, leaving)
        finally:
            await place.close()

    asyncio.run(begun())


def test_a_gangs_result_that_is_refused_ends_its_call_and_no_others() -> None:
    async def scenario(place: Place) -> None:
        id, _, leases = await given_out(place)
        Refusing(place).ends = {id}
        others = [asyncio.create_task(place.keeper.accept(new())) for _ in range(5)]
        for lease in leases:
            place.runner.end(lease)
        call, _ = await asyncio.gather(place.keeper.ended(id, WAIT_S), place.settle())
        assert call is not None
        assert call.state == "failed"
        assert heard(place) >= set(leases)
        assert len(await asyncio.gather(*others)) == 5

    play(scenario)


@pytest.mark.parametrize("how", ["refused", "too much used"])
def test_in_a_file(tmp_path: Path, how: str) -> None:
    """Where a row is refused in earnest, or would be."""

    async def begun(store: SqliteStore) -> None:
        place = Place(store)
        await place.open()
        place.deploy("a", max_inputs=9)
        try:
            place.start("a")
            ids = await asyncio.gather(*(place.keeper.accept(new()) for _ in range(9)))
            await place.settle()
            if how == "refused":
                refuse(tmp_path / "state.db", ids[4])
            for lease in list(place.runner.held):
                place.runner.end(lease, run_us=2**64 - 1 if how != "refused" and lease[0] == ids[4] else 5)
            await place.settle()
            calls = [await place.keeper.ended(id, WAIT_S) for id in ids]
            states = [call.state for call in calls if call is not None]
            assert states[4] == ("failed" if how == "refused" else "done")
            assert set(states[:4] + states[5:]) == {"done"}
            assert max(call.run_us for call in calls if call is not None) == (5 if how == "refused" else USED_MAX_US)
        finally:
            await place.close()

    store = SqliteStore(tmp_path / "state.db")
    try:
        asyncio.run(begun(store))
    finally:
        store.close()


def refuse(path: Path, id: str) -> None:
    """Of that call no result can be recorded."""
    with sqlite3.connect(path) as connection:
        which = f"NEW.id = '{id}' AND NEW.state = 'done'"
        words = f"CREATE TRIGGER refuse BEFORE UPDATE ON calls WHEN {which} BEGIN SELECT RAISE(ABORT, 'no'); END"
        connection.execute(words)
    connection.close()
