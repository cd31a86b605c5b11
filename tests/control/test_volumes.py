"""Are volumes kept, changed, swept and told of as their users are told they are? With real files and a world."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from control.keepers import Clock, user
from swell.control import volumes
from swell.control.volumes import VolumeKeeper
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.owner import Owner
from swell.model.volume import Change, Entry, Quota, Volume, VolumeState, VolumeUse
from swell.model.workload import App
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.store.volumes import VolumeFolder

T = TypeVar("T")
AT = ("default", "data")


class Desk:
    """A keeper, what is behind it, and what it told runners."""

    def __init__(self, folder: Path) -> None:
        self.store, self.world, self.clock = MemoryStore(), World(), Clock()
        self.folder = folder / "volumes"
        self.published: list[VolumeState] = []
        self.keeper = self.open()

    def open(self) -> VolumeKeeper:
        """As after a restart of control."""
        files = VolumeFolder(self.folder)
        keeper = VolumeKeeper(self.store.volumes, files, self.world, self.clock, Quota(1000, 10))
        keeper.publish = self.published.extend
        return keeper

    def deploy(self, *uses: VolumeUse, name: str = "a") -> App:
        app = user(name, volumes=uses)
        self.keeper.check(app)
        self.world.apply(AppDeployed(1.0, app))
        return app

    async def content(self, text: bytes, namespace: str = "default") -> str:
        digest = f"sha256-{hashlib.sha256(text).hexdigest()}"

        async def chunks() -> AsyncIterator[bytes]:
            yield text

        await self.keeper.contents(namespace).put(digest, chunks())
        return digest

    async def put(self, path: str, text: bytes, force: bool = True) -> None:
        await self.keeper.put(*AT, [(path, Entry(digest=await self.content(text), at=5.0))], force)

    async def paths(self) -> dict[str, int]:
        return {row.path: row.size for row in await self.keeper.listed(*AT, "", True) if row.kind == "file"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def working() -> T:
        return await work()

    return asyncio.run(working())


def refused(work: Callable[[], Awaitable[object]], code: str) -> str:
    with pytest.raises(SwellError) as raised:
        run(work)
    assert raised.value.code == code
    return raised.value.message


def test_each_change_is_a_version_that_stays(desk: Desk) -> None:
    async def write() -> None:
        await desk.keeper.create(*AT, Quota())
        await desk.put("a", b"one")
        await desk.put("b/c", b"three")
        await desk.put("a", b"one")

    run(write)
    (row,) = desk.keeper.rows("default")
    assert (row.version, row.size_bytes, row.files, row.bytes_max, row.files_max) == (2, 8, 2, 1000, 10)
    again = desk.open()
    assert again.rows("default") == [row]
    assert run(lambda: again.listed(*AT, "b", False))[0].path == "b/c"
    content = run(lambda: again.content(*AT, "a"))
    assert Path(content).read_bytes() == b"one"
    assert Path(content).stat().st_mode & 0o777 == 0o666


def test_names(desk: Desk) -> None:
    run(lambda: desk.keeper.create(*AT, Quota()))
    assert "use it, or delete it" in refused(lambda: desk.keeper.create(*AT, Quota()), "volume_exists")
    assert run(lambda: desk.keeper.create(*AT, Quota(), if_missing=True)).name == "data"
    refused(lambda: desk.keeper.create("default", "a/b", Quota()), "bad_name")
    assert "There are: data." in refused(lambda: desk.keeper.listed("default", "x", "", False), "unknown_volume")
    run(lambda: desk.keeper.create("default", "other", Quota()))
    refused(lambda: desk.keeper.alter("default", "other", "data", None, None), "volume_exists")
    row = run(lambda: desk.keeper.alter("default", "other", "new", 5, None))
    assert (row.name, row.bytes_max, row.files_max) == ("new", 5, 10)
    assert [each.name for each in desk.open().rows("default")] == ["data", "new"]
    # Whoever had it made into a folder is to know, though nothing uses it.
    assert desk.published[-2:] == [VolumeState("default", "other"), VolumeState("default", "new", row.id)]
    run(lambda: desk.keeper.delete("default", "new"))
    assert [each.name for each in desk.open().rows("default")] == ["data"]


def test_what_an_app_uses_stays_unless_it_is_forced(desk: Desk) -> None:
    use = VolumeUse("default", "data", "/data")
    with pytest.raises(SwellError, match="There is no volume 'data'"):
        desk.deploy(use)
    run(lambda: desk.keeper.create(*AT, Quota()))
    desk.deploy(use)
    assert desk.keeper.rows("default")[0].apps == ("default/a",)
    assert "is used by a" in refused(lambda: desk.keeper.delete(*AT), "volume_in_use")
    refused(lambda: desk.keeper.alter(*AT, "new", None, None), "volume_in_use")
    assert run(lambda: desk.keeper.alter(*AT, None, None, 3)).files_max == 3
    run(lambda: desk.keeper.delete(*AT, force=True))
    assert desk.published[-1] == VolumeState("default", "data")
    assert desk.keeper.all_used() == (VolumeState("default", "data"),)


def test_runners_are_told_of_each_version_and_who_made_it(desk: Desk) -> None:
    run(lambda: desk.keeper.create(*AT, Quota()))
    desk.deploy(VolumeUse("default", "data", "/data"))
    id = desk.keeper.rows("default")[0].id
    run(lambda: desk.put("a", b"one"))

    async def commit() -> Volume:
        digest = await desk.content(b"two")
        return await desk.keeper.commit(
            id, Change((("b", Entry(digest=digest, size=99)),), ("a",)), "default/a/f@rv-1", "c1"
        )

    made = run(commit)
    assert (made.version, made.size_bytes, made.files) == (2, 3, 1)
    states = [VolumeState("default", "data", id, 1), VolumeState("default", "data", id, 2, "default/a/f@rv-1")]
    assert desk.published == [VolumeState("default", "data", id), *states]
    assert desk.keeper.states([VolumeUse("default", "data", "/x"), VolumeUse("default", "data", "/y")]) == (states[1],)
    refused(lambda: desk.keeper.commit("vo-nobody", Change(), "", "c1"), "unknown_volume")


def test_a_commit_that_is_asked_for_again_is_not_done_again(desk: Desk) -> None:
    """Who did not hear the answer asks again, the next control perhaps; others may have written the same since."""
    row = run(lambda: desk.keeper.create(*AT, Quota()))

    async def commit(text: bytes, id: str) -> int:
        change = Change((("a", Entry(digest=await desk.content(text), at=5.0)),))
        return (await desk.keeper.commit(row.id, change, "default/a/f@rv-1", id)).version

    assert run(lambda: commit(b"mine", "c1")) == 1
    assert run(lambda: commit(b"theirs...", "c2")) == 2
    for again in (desk.keeper, desk.open()):
        desk.keeper = again
        assert run(lambda: commit(b"mine", "c1")) == 2
        assert run(desk.paths) == {"a": len(b"theirs...")}
    assert run(lambda: commit(b"mine", "c3")) == 3
    assert run(desk.paths) == {"a": len(b"mine")}


def test_a_commit_that_changed_nothing_is_not_done_later(desk: Desk) -> None:
    """It was made, though no version was: what others wrote since then is newer."""
    row = run(lambda: desk.keeper.create(*AT, Quota()))

    async def commit(text: bytes, id: str) -> int:
        change = Change((("a", Entry(digest=await desk.content(text), at=5.0)),))
        return (await desk.keeper.commit(row.id, change, "default/a/f@rv-1", id)).version

    assert run(lambda: commit(b"both", "c1")) == 1
    told = [*desk.published]
    assert run(lambda: commit(b"both", "c2")) == 1
    assert desk.published == told
    assert run(lambda: commit(b"theirs...", "c3")) == 2
    for again in (desk.keeper, desk.open()):
        desk.keeper = again
        assert run(lambda: commit(b"both", "c2")) == 2
        assert run(desk.paths) == {"a": len(b"theirs...")}


def test_commits_are_known_for_a_while_and_the_newest_for_longer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "COMMITS_KEPT", 3)
    monkeypatch.setattr(volumes, "COMMITS_MAX", 7)
    row = run(lambda: desk.keeper.create(*AT, Quota()))

    def known_after(n: int) -> tuple[str, ...]:
        change = Change((("a", Entry("link", target=f"{n}")),))
        run(lambda: desk.keeper.commit(row.id, change, "", f"c{n}"))
        (kept,) = desk.store.volumes.all()
        return tuple(each.id for each in kept.committed)

    assert [known_after(n) for n in range(6)][-1] == ("c0", "c1", "c2", "c3", "c4", "c5")
    desk.clock.at += volumes.COMMITS_KEPT_S - 1
    assert known_after(6) == ("c0", "c1", "c2", "c3", "c4", "c5", "c6")
    desk.clock.at += 1
    assert known_after(7) == ("c5", "c6", "c7")
    assert [known_after(n) for n in range(8, 13)][-1] == ("c6", "c7", "c8", "c9", "c10", "c11", "c12")
    assert known_after(13) == ("c7", "c8", "c9", "c10", "c11", "c12", "c13"), "no more than that"
    # A clock that was wrong.
    desk.clock.at -= 10 * volumes.COMMITS_KEPT_S
    for n in range(14, 17):
        assert len(known_after(n)) == 3


def test_what_is_given_another_name_has_it_before_anything_else_is_done_whoever_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write = threading.Event(), threading.Event()
    put = desk.store.volumes.put

    def slowly(volume: Volume) -> None:
        writing.set()
        assert may_write.wait(60)
        put(volume)

    async def scenario() -> None:
        row = await desk.keeper.create(*AT, Quota())
        monkeypatch.setattr(desk.store.volumes, "put", slowly)
        asked = asyncio.create_task(desk.keeper.alter(*AT, "new", None, None))
        assert await asyncio.to_thread(writing.wait, 60)
        asked.cancel()
        await asyncio.wait({asked})
        change = Change((("a", Entry("link", target="b")),))
        committing = asyncio.create_task(desk.keeper.commit(row.id, change, "", "c1"))
        for _ in range(30):
            await asyncio.sleep(0)
        may_write.set()
        await committing
        (kept,) = desk.store.volumes.all()
        assert (kept.name, kept.version) == ("new", 1)

    run(scenario)


def test_a_change_that_is_refused_changes_nothing(desk: Desk) -> None:
    run(lambda: desk.keeper.create(*AT, Quota()))
    run(lambda: desk.put("a", b"one"))
    before = desk.keeper.rows("default")
    missing = Entry(digest="sha256-" + "0" * 64)
    assert "put the content first" in refused(lambda: desk.keeper.put(*AT, [("b", missing)], True), "unknown_blob")
    refused(lambda: desk.keeper.put(*AT, [("b", Entry(digest="../../key"))], True), "bad_digest")
    refused(lambda: desk.keeper.put(*AT, [("../b", missing)], True), "bad_path")
    assert "with force" in refused(lambda: desk.put("a", b"two", force=False), "file_exists")
    assert "may have 1000" in refused(lambda: desk.put("b", b"x" * 998), "volume_full")
    run(lambda: desk.put("b", b"x" * 997))
    refused(lambda: desk.keeper.copy(*AT, ["b"], "c", False), "volume_full")
    refused(lambda: desk.keeper.content(*AT, "nobody"), "no_such_file")
    run(lambda: desk.keeper.remove(*AT, "b", False))
    assert msgspec.structs.replace(before[0], version=3, at=100.0) == desk.keeper.rows("default")[0]
    assert run(desk.paths) == {"a": 3}


def test_many_at_once_come_one_after_the_other(desk: Desk) -> None:
    async def write() -> None:
        await desk.keeper.create(*AT, Quota())
        await asyncio.gather(*(desk.put(f"f{number}", b"%d" % number) for number in range(9)))

    run(write)
    assert run(desk.paths) == {f"f{number}": 1 for number in range(9)}
    assert desk.keeper.rows("default")[0].version == 9


def test_what_no_version_has_is_swept_in_time(desk: Desk) -> None:
    async def write() -> str:
        await desk.keeper.create(*AT, Quota())
        await desk.put("a", b"one")
        await desk.put("a", b"two")
        return await desk.content(b"about to be named")

    run(write)
    files = desk.folder / "default" / "files"
    assert run(lambda: desk.keeper.sweep(time.time() - 3600)) == 0
    assert len(list(files.iterdir())) == 3
    assert run(lambda: desk.keeper.sweep(time.time() + 1)) == 2
    assert [path.read_bytes() for path in files.iterdir()] == [b"two"]
    assert run(desk.paths) == {"a": 3}
    run(lambda: desk.keeper.delete(*AT))
    assert run(lambda: desk.keeper.sweep(time.time() + 1)) == 1
    assert [path.name for path in (desk.folder / "default").iterdir()] == ["files"]


def test_a_tree_that_cannot_be_read_keeps_all_contents(desk: Desk) -> None:
    run(lambda: desk.keeper.create(*AT, Quota()))
    run(lambda: desk.put("a", b"one"))
    (tree,) = (desk.folder / "default").glob("vo-*/v1")
    tree.write_bytes(b"\xff not a tree")
    run(lambda: desk.content(b"nobody's", "elsewhere"))
    assert "Restore it from a backup" in refused(desk.paths, "state_unreadable")
    with pytest.raises(msgspec.DecodeError):
        run(lambda: desk.keeper.sweep(time.time() + 1))
    assert len(list((desk.folder / "default" / "files").iterdir())) == 1
    # What is wrong there is nothing to others.
    assert not list((desk.folder / "elsewhere" / "files").iterdir())


def test_what_belongs_to_a_program_is_told_apart(desk: Desk) -> None:
    run(lambda: desk.keeper.create(*AT, Quota()))
    run(lambda: desk.keeper.create("default", "mine", Quota(), owner=Owner(17, 99, "m")))
    assert [(each.name, each.owner) for each in desk.open().owned()] == [("mine", Owner(17, 99, "m"))]
