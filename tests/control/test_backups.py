"""Is a backup whole, of one moment, alone, and gone when it is closed?"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from control.homes import Home, digest
from control.keepers import Clock
from swell.control.backups import BackupKeeper, manifest, pieces
from swell.control.sweeping import KEPT_S, Sweeper
from swell.control.volumes import VolumeKeeper
from swell.model.backup import DATABASE, Manifest
from swell.model.errors import SwellError
from swell.model.events import NodeSeen
from swell.model.node import Node
from swell.model.volume import Entry, Quota, Volume
from swell.model.world import World
from swell.store.blobs import BlobFolder
from swell.store.snapshot import StateFolder
from swell.store.sqlite import SqliteStore
from swell.store.volumes import VolumeFolder
from swell.wire.archive import Reader

WAIT_S = 60.0


def keeper_of(home: Home) -> tuple[BackupKeeper, asyncio.Lock]:
    held = asyncio.Lock()
    return BackupKeeper(home.state, held, Clock(), "1.2.3"), held


@pytest.fixture
def home(tmp_path: Path) -> Any:
    home = Home(tmp_path)
    yield home
    home.store.close()


def read(data: bytes) -> tuple[Manifest, dict[str, bytes]]:
    reader = Reader(io.BytesIO(data).read, "FILE")
    return reader.manifest, {name: b"".join(found) for name, found in reader.members()}


async def whole(keeper: BackupKeeper, key_files: bool = False) -> bytes:
    backup = await keeper.open(key_files)
    try:
        return b"".join([piece async for piece in backup.stream()])
    finally:
        await backup.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), WAIT_S))


def test_all_that_the_state_names_is_in_it_and_nothing_else(home: Home) -> None:
    async def test() -> None:
        home.put("prices.toml", b"usd = 1")
        home.put("key", b"sk-1")
        home.put("master.key", b"mk-1")
        home.put(f"blobs/{digest(b'of nobody')}", b"of nobody")
        result = home.large_result(b"large")
        home.put(f"results/{digest(b'of nobody')}", b"of nobody")
        home.put("logs/default/a.ndjson", b"{}")
        home.put("volumes/default/vo-1/v3", b"older")
        keeper, _ = keeper_of(home)
        told, files = read(await whole(keeper))
        tree = "volumes/default/vo-1/v4"
        contents = {f"volumes/default/files/{digest(body)}" for body in (b"one", b"two")}
        assert files.keys() == {DATABASE, "prices.toml", tree, f"blobs/{home.source}", *contents, result}
        assert (told.version, told.made_at, told.contents, told.contents_bytes) == ("1.2.3", 100.0, 4, 17)
        assert (told.lost, told.key_files) == ((), ())
        with_keys, files = read(await whole(keeper, key_files=True))
        assert (with_keys.key_files, files["master.key"]) == (("key", "master.key"), b"mk-1")
        assert home.clean

    run(test)


def test_what_nobody_waited_for_is_in_it_too(home: Home) -> None:
    for n in range(20):
        home.store.world.append([NodeSeen(time.time(), Node(f"n{n}", 1.0, 1))])
        snapshot = home.state.snapshot(False)
        store = SqliteStore(Path(snapshot.path(DATABASE)))
        seen = [event.node.id for _, event in store.world.events() if isinstance(event, NodeSeen)]
        assert seen == [f"n{m}" for m in range(n + 1)]
        store.close()
        snapshot.close()


def test_one_at_a_time_and_sweeps_wait(home: Home) -> None:
    async def test() -> None:
        keeper, held = keeper_of(home)
        backup = await keeper.open(False)
        assert held.locked()
        with pytest.raises(SwellError) as refused:
            await keeper.open(False)
        assert (refused.value.code, refused.value.status) == ("backup_under_way", 409)
        # Nobody ever read of it.
        await backup.close()
        assert not held.locked()
        assert home.clean
        assert read(await whole(keeper))

    run(test)


def test_nothing_is_swept_while_one_is_read_and_then_it_is(home: Home) -> None:
    """What it names is deleted meanwhile, and all of it is there at the end."""

    async def test() -> None:
        rows, files = home.store.volumes, VolumeFolder(home.root / "volumes")
        volumes = VolumeKeeper(rows, files, World(), Clock(), Quota(1_000_000, 100))
        blobs, deployer = BlobFolder(home.root / "blobs"), Deployed()
        calls, nobody = home.store.call_records, cast(Any, None)
        sweeper = Sweeper(cast(Any, deployer), calls, blobs, nobody, volumes, cast(Any, Later()))
        keeper = BackupKeeper(home.state, sweeper.held, Clock(), "1")
        backup = await keeper.open(False)
        # By a state in which nothing is left nothing would be swept.
        await volumes.create("default", "other", Quota())
        await volumes.delete("default", "v")
        sweeps = [asyncio.create_task(sweep()) for sweep in (sweeper.sweep_blobs, sweeper.sweep_volumes)]
        await asyncio.sleep(0)
        assert not any(sweep.done() for sweep in sweeps)
        told, found = read(b"".join([piece async for piece in backup.stream()]))
        assert (told.lost, len(found)) == ((), 5)
        await backup.close()
        await asyncio.gather(*sweeps)
        assert not (home.root / "volumes/default/vo-1").exists()
        assert list((home.root / "volumes/default/files").iterdir()) == []
        assert list((home.root / "blobs").glob("sha256-*")) == [home.root / "blobs/sha256-0"]
        # One that comes now is of what is there now.
        told, found = read(await whole(keeper))
        assert told.lost == (f"blobs/{home.source}",)
        assert found.keys() == {DATABASE}

    run(test)


@pytest.mark.parametrize("seed", range(5))
def test_each_is_whole_whatever_is_put_deleted_and_swept_meanwhile(home: Home, seed: int) -> None:
    chance = Random(seed)

    async def test() -> None:
        rows, files = home.store.volumes, VolumeFolder(home.root / "volumes")
        volumes = VolumeKeeper(rows, files, World(), Clock(), Quota(1_000_000, 1000))
        blobs = BlobFolder(home.root / "blobs")
        clock = Clock()
        sweeper = Sweeper(cast(Any, Deployed()), home.store.call_records, blobs, cast(Any, None), volumes, clock)
        keeper = BackupKeeper(home.state, sweeper.held, Clock(), "1")
        putting, over = asyncio.Lock(), asyncio.Event()

        async def change() -> None:
            while not over.is_set():
                name, body = f"n{chance.randrange(3)}", chance.randbytes(20)
                # What was put of late is not swept: all of a put is before a moment or behind it.
                async with putting:
                    if chance.random() < 0.2:
                        with suppress(SwellError):
                            await volumes.delete("default", name)
                    else:
                        await volumes.create("default", name, Quota(), if_missing=True)
                        await volumes.contents("default").put(digest(body), _chunks(body))
                        entry = Entry(digest=digest(body))
                        await volumes.put("default", name, [(f"f{chance.randrange(4)}", entry)], force=True)
                await asyncio.sleep(0)

        async def sweep() -> None:
            while not over.is_set():
                async with putting:
                    # Times of files come from a clock that may be behind by a tick.
                    clock.at = time.time() - 0.05 + KEPT_S
                await sweeper.sweep_volumes()
                await asyncio.sleep(0)

        others = [asyncio.create_task(each()) for each in (change, change, sweep)]
        seen = set()
        for _ in range(12):
            told, found = read(await whole(keeper))
            assert told.lost == ()
            seen.add(tuple(sorted(found)))
            await asyncio.sleep(chance.random() / 50)
        over.set()
        await asyncio.gather(*others)
        assert len(seen) > 1

    run(test)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


class Deployed:
    """Nothing is."""

    async def bundles(self) -> set[str]:
        return set()


class Later:
    """When everything is old."""

    def now(self) -> float:
        return 1e11


def test_one_waits_for_a_sweep_and_may_be_given_up_meanwhile(home: Home) -> None:
    async def test() -> None:
        keeper, held = keeper_of(home)
        async with held:
            waiting = asyncio.create_task(keeper.open(False))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        assert read(await whole(keeper))

    run(test)


def test_one_that_is_given_up_while_it_is_taken_leaves_nothing(home: Home) -> None:
    async def test() -> None:
        begun, go = threading.Event(), threading.Event()

        def copy(target: Path) -> None:
            begun.set()
            assert go.wait(WAIT_S)
            home.store.copy(target)

        held = asyncio.Lock()
        keeper = BackupKeeper(StateFolder(home.root, copy), held, Clock(), "1")
        waiting = asyncio.create_task(keeper.open(False))
        await asyncio.to_thread(begun.wait, WAIT_S)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert held.locked(), "it is still being taken"
        go.set()
        async with held:
            pass
        assert home.clean
        assert read(await whole(keeper))

    run(test)


def test_one_that_cannot_be_taken_says_why_and_the_next_one_can(home: Home) -> None:
    async def test() -> None:
        fails = [True]

        def copy(target: Path) -> None:
            if fails.pop():
                raise SwellError("state_full", "There is no space left.", status=507)
            home.store.copy(target)

        keeper = BackupKeeper(StateFolder(home.root, copy), asyncio.Lock(), Clock(), "1")
        with pytest.raises(SwellError, match="no space"):
            await keeper.open(False)
        assert home.clean
        fails.append(False)
        assert read(await whole(keeper))

    run(test)


def test_a_reader_that_stops_in_the_middle_leaves_nothing(home: Home) -> None:
    async def test() -> None:
        keeper, held = keeper_of(home)
        backup = await keeper.open(False)
        stream = backup.stream()
        assert await anext(stream)
        await stream.aclose()
        await backup.close()
        assert home.clean
        assert not held.locked()

    run(test)


def test_what_is_lost_is_told_and_the_rest_is_there(home: Home) -> None:
    async def test() -> None:
        gone = f"volumes/default/files/{digest(b'one')}"
        (home.root / gone).unlink()
        (home.root / f"blobs/{home.source}").unlink()
        home.store.volumes.put(Volume("default", "w", "vo-2", 1.0, version=1))
        keeper, _ = keeper_of(home)
        told, files = read(await whole(keeper))
        assert told.lost == ("volumes/default/vo-2/v1", f"blobs/{home.source}", gone)
        assert (told.lost_count, told.contents) == (3, 1)
        assert DATABASE in files

    run(test)


@pytest.mark.parametrize("body", [b"other", b"", b"longer than it was"])
def test_a_file_that_is_not_what_its_name_says_ends_it_with_words(home: Home, body: bytes) -> None:
    home.put(f"blobs/{home.source}", body)
    snapshot = home.state.snapshot(False)
    data = b"".join(pieces(snapshot, manifest(snapshot, 1.0, "1")))
    snapshot.close()
    with pytest.raises(SwellError) as refused:
        read(data)
    assert refused.value.code == "backup_broken"
    assert home.source in refused.value.message


def test_a_file_that_vanishes_meanwhile_ends_it_with_words(home: Home) -> None:
    snapshot = home.state.snapshot(False)
    told = manifest(snapshot, 1.0, "1")
    os_path = Path(snapshot.path("volumes/default/vo-1/v4"))
    os_path.unlink()
    with pytest.raises(SwellError) as refused:
        read(b"".join(pieces(snapshot, told)))
    snapshot.close()
    assert refused.value.code == "backup_broken"


@pytest.mark.slow
def test_what_was_written_before_is_in_it_and_memory_is_bounded(home: Home) -> None:
    """Writers go on meanwhile; what is in the copy is a beginning of what each of them wrote."""
    stop = threading.Event()
    done = [0, 0]

    def write(which: int) -> None:
        while not stop.is_set():
            volume = Volume("default", f"n{which}-{done[which] + 1}", f"vo-{which}-{done[which] + 1}", 1.0)
            home.store.volumes.put(volume)
            done[which] += 1

    threads = [threading.Thread(target=write, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            before = list(done)
            snapshot = home.state.snapshot(False)
            try:
                store = SqliteStore(Path(snapshot.path(DATABASE)))
                names = {volume.name for volume in store.volumes.all()} - {"v"}
                store.close()
            finally:
                snapshot.close()
            for which in range(2):
                count = sum(name.startswith(f"n{which}-") for name in names)
                assert count >= before[which]
                assert {f"n{which}-{n}" for n in range(1, count + 1)} <= names
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
