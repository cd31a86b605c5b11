"""Is a large result recorded once its file is here, had from there, and gone with its call, whatever fails?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from control.calls_place import NODE, WAIT_S, Place, new
from control.test_calls import code, hasten
from control.test_control_link import until
from swell.control.call_desk import CallDesk
from swell.control.chores import sweep_results
from swell.control.results import Results
from swell.model.call import Call, Forget, member_key
from swell.model.errors import SwellError
from swell.store.blobs import BlobFolder
from swell.store.memory import MemoryStore


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.mark.parametrize(
    ("free", "size", "refused"),
    [(10, 10_000, True), (99, 10_000, True), (100, 10_000, False), (4, 100, True), (6, 100, False), (0, 0, False)],
)
def test_what_is_left_of_a_disk_is_not_for_new_calls(tmp_path: Path, free: int, size: int, refused: bool) -> None:
    results = Results(
        BlobFolder(tmp_path / "results"), MemoryStore().call_records, lambda *_: tmp_path, lambda: (free, size), 100
    )
    with pytest.raises(SwellError, match="queue_free_mib") if refused else nullcontext():
        results.check_room()


class Large(Place):
    """Where results are large."""

    def __init__(self, folder: Path, all_max: float) -> None:
        self.files = BlobFolder(folder / "results", all_max=all_max)
        store = MemoryStore()
        super().__init__(store, Results(self.files, store.call_records, lambda *lease: self.runner.file(*lease)))
        self.runner.files = folder

    async def accept(self, **fields: Any) -> str:
        """One that is with its replica."""
        id = await self.keeper.accept(new(**fields))
        await self.settle()
        return id

    def end(self, id: str, result: bytes) -> None:
        """Its runner has that, and did not say so yet."""
        (lease,) = (each for each in self.runner.held if each[0] == id)
        self.runner.end(lease, large=result)

    async def ended(self, id: str) -> Call:
        await self.settle()
        call = await self.keeper.ended(id, WAIT_S)
        assert call is not None
        return call

    async def done(self, result: bytes, **fields: Any) -> str:
        """One that is, with that result."""
        id = await self.accept(**fields)
        self.end(id, result)
        assert (await self.ended(id)).state == "done"
        return id

    def content(self, id: str) -> bytes:
        body = self.store.call_records.result(id)
        assert body is not None
        assert body.data == b""
        return Path(self.results.path(body.digest, id)).read_bytes()

    def kept(self) -> list[bytes]:
        """What all files here have, of those that are whole."""
        assert all(name.startswith("sha256-") for name in os.listdir(self.files.folder))
        return sorted(path.read_bytes() for path in self.files.folder.iterdir())

    def told(self) -> list[str]:
        """The files that the runner has."""
        assert self.runner.files is not None
        return [path.name for path in self.runner.files.iterdir() if path.is_file()]


def run(folder: Path, scenario: Callable[[Large], Awaitable[None]], all_max: float = float("inf")) -> None:
    async def begun() -> None:
        place = Large(folder, all_max)
        await place.open()
        place.deploy("a")
        place.start("a")
        try:
            await asyncio.wait_for(scenario(place), WAIT_S)
        finally:
            await place.close()

    asyncio.run(begun())


def test_it_is_here_when_it_is_recorded_and_the_runner_need_not_keep_it(tmp_path: Path) -> None:
    async def scenario(place: Large) -> None:
        one, other = await place.done(b"one"), await place.done(b"other")
        assert [place.content(id) for id in (one, other)] == [b"one", b"other"]
        assert place.told() == []

    run(tmp_path, scenario)


def test_one_that_was_taken_in_and_not_recorded_may_go_and_is_taken_in_again(tmp_path: Path) -> None:
    """Control is killed, or the disk is full, between the file and the row."""

    async def scenario(place: Large) -> None:
        named, id = await place.done(b"named"), await place.accept()
        place.end(id, b"large")
        place.store.how = "before"
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        await until(lambda: len(place.kept()) == 2)
        await place.crash()
        place.store.how = ""
        await place.open()
        assert await place.keeper.sweep_results(True) == 1
        assert place.kept() == [b"named"], "in use"
        assert (await place.ended(id)).state == "done"
        assert (place.content(id), place.content(named), place.told()) == (b"large", b"named", [])
        assert await place.keeper.sweep_results(True) == 0

    run(tmp_path, scenario)


def test_one_that_is_nowhere_is_worked_on_again_and_holds_nobody_up(tmp_path: Path) -> None:
    async def scenario(place: Large) -> None:
        lost, torn = [await place.accept() for _ in range(2)]
        for id in (lost, torn):
            place.end(id, b"large")
        first, second = (place.runner.file(*each) for each in place.runner.ends)
        first.unlink()
        # Of a power cut, say.
        second.write_bytes(b"lar")
        place.keeper.heard_ends(NODE, tuple(place.runner.ends.values()))
        await place.settle()
        assert place.runner.ends == {}
        assert place.kept() == []
        other = await place.keeper.accept(new())
        for _ in range(3):
            place.pass_time(60.0)
            await place.settle()
        ended: set[str] = set()
        while len(ended) < 3:
            await place.settle()
            for lease in [*place.runner.held]:
                place.runner.end(lease, large=b"again")
                ended.add(lease[0])
        for id in (lost, torn, other):
            assert (await place.ended(id)).state == "done"
        assert {place.content(id) for id in (lost, torn, other)} == {b"again"}
        assert place.kept() == [b"again"]

    run(tmp_path, scenario)


def test_what_is_said_by_who_has_lost_the_call_is_not_taken_in(tmp_path: Path) -> None:
    async def scenario(place: Large) -> None:
        id = await place.accept()
        ((_, token),) = place.runner.held
        place.runner.end((id, token), large=b"late")
        late = tuple(place.runner.ends.values())
        place.runner.ends.clear()
        # Nothing is heard of it for too long, and others have it.
        place.disconnect()
        place.pass_time(100.0)
        place.connect()
        await place.settle()
        place.keeper.heard_ends(NODE, late)
        await place.settle()
        assert (await place.keeper.ended(id, 0.0)).state != "done"  # type: ignore[union-attr]
        assert place.kept() == []

    run(tmp_path, scenario)


def test_it_goes_with_the_last_call_that_has_it_and_not_while_anybody_reads_them_all(tmp_path: Path) -> None:
    group = "fg-" + "0" * 26

    class Held:
        """A sweeper, as far as calls go."""

        held = asyncio.Lock()

        async def names_any(self) -> bool:
            return any_named

    async def scenario(place: Large) -> None:
        nonlocal any_named
        fields = [{"group": group, "idempotency_key": member_key(group, n)} for n in range(2)]
        results = zip((b"same", b"same", b"mine"), (fields[0], {}, fields[1]), strict=True)
        ids = [await place.done(result, **more) for result, more in results]
        place.keeper.forget(Forget(group, "", 1_000_000))
        await place.settle()
        assert place.store.call_records.result(ids[0]) is None
        any_named = False
        await sweep_results(place.keeper, cast(Any, Held()))
        assert place.kept() == [b"mine", b"same"], "the state may have lost what it named"
        any_named = True
        async with Held.held:
            sweeping = asyncio.create_task(sweep_results(place.keeper, cast(Any, Held())))
            await place.settle()
            assert place.kept() == [b"mine", b"same"], "a backup is read"
        await sweeping
        assert place.kept() == [b"same"]
        assert place.content(ids[1]) == b"same"
        place.clock.at += 366 * 86_400
        await place.keeper.sweep()
        await sweep_results(place.keeper, cast(Any, Held()))
        assert place.kept() == []

    any_named = True
    run(tmp_path, scenario)


def test_where_there_is_no_room_for_them_nothing_is_accepted_and_nothing_that_was_is_lost(tmp_path: Path) -> None:
    async def scenario(place: Large) -> None:
        first, second = await place.accept(), await place.accept()
        place.end(first, bytes(5000))
        assert (await place.ended(first)).state == "done"
        assert await code(place.keeper.accept(new())) == "results_full"
        place.end(second, bytes(6000))
        assert (await place.ended(second)).state == "done"
        assert len(place.content(second)) == 6000
        place.clock.at += 366 * 86_400
        await place.keeper.sweep()
        await place.keeper.sweep_results(True)
        await place.keeper.accept(new())

    run(tmp_path, scenario, all_max=8192)


def test_people_see_that_it_is_large_and_have_its_file(tmp_path: Path) -> None:
    async def scenario(place: Large) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        id = await place.done(b'"large"')
        row = await desk.row(id)
        assert row is not None
        assert (row.result, row.result_apart, row.result_type) == (None, True, "application/json")
        body = await desk.result(id)
        assert body is not None
        path = await desk.file(id, body)
        assert place.kept() == [b'"large"']
        os.unlink(path)
        assert await code(desk.file(id, body)) == "unknown_call"

    run(tmp_path, scenario)
