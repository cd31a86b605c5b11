"""Does a runner give each process the volumes it is to have, and lose nothing of what that writes? With real mounts."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from volume_place import Place

from swell.decide.volumes import merged
from swell.model.errors import SwellError
from swell.model.volume import Change, Entry, VolumeState, VolumeUse
from swell.runtime import volumes
from swell.runtime.runner import records
from swell.runtime.runner.child_link import UNSENT_MAX, ChildLink
from swell.runtime.runner.children import Child
from swell.runtime.runner.sandbox import kernel
from swell.runtime.runner.volumes import delta, mounting, points
from swell.runtime.runner.volumes.mounting import ASKS_MAX, Mounting
from swell.runtime.runner.volumes.remount import Unmounted
from swell.runtime.runner.volumes.trees import Trees
from swell.wire import link as wire
from swell.wire.child import AskVolume, VolumeDone
from swell.wire.frames import Unpacker

KILLED = 3
"""Not that it fails so often: whoever tries it is ended."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Desk:
    """A control that takes what a runner commits to the volume of a place, and a replica that has it mounted."""

    def __init__(self, place: Place, pid: int) -> None:
        self.place = place
        self.mounting = Mounting(place.home, self.heard)
        self.child = Child("r1-1", "default/a/f@rv-1", "serving", None, 1.0, 0.0)
        self.child.pid = pid
        self.child.mounts = (place.mount(),)
        self.running = [self.child]
        self.mounting.hold(lambda: self.running)
        self.tell()
        self.asked = 0
        self.there = True
        self.meanwhile: Callable[[], object] = lambda: None
        """What another input does between a commit and the change of what is mounted."""

    def tell(self, id: str = "vo-1") -> None:
        state = self.place.state if id else VolumeState("default", "v")
        self.mounting.hear(wire.Volumes(1, (state,)))

    def version(self, change: Change) -> None:
        """Somebody's commit."""
        place = self.place
        place.tree = merged(place.tree, change)
        place.state = write_version(place)

    def adopt(self) -> None:
        """Another runner takes the replica over."""
        record = records.of(self.child, os.getpid(), 0)
        self.child = Child("r1-1", "default/a/f@rv-1", "serving", None, 1.0, 0.0)
        self.child.pid, self.child.mounts, self.child.behind = record.pid, record.mounts, record.behind
        self.running = [self.child]
        self.mounting = Mounting(self.place.home, self.heard)
        self.mounting.hold(lambda: self.running)
        self.mounting.sweep()
        self.tell()

    def heard(self, asked: wire.CommitVolume) -> bool:
        if not self.there:
            return False
        self.version(asked.change)
        self.asked += 1
        self.meanwhile()
        self.tell()
        self.mounting.answered(wire.VolumeCommitted(asked.ask, self.place.state.version))
        return True


def write_version(place: Place) -> VolumeState:
    import msgspec

    state = VolumeState("default", "v", "vo-1", place.state.version + 1)
    path = place.home.volumes / "default" / "vo-1" / f"v{state.version}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.msgpack.encode(place.tree))
    return state


@contextmanager
def mounted(place: Place) -> Iterator[int]:
    """A process that has it mounted, and does nothing."""
    mount = place.mount()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            volumes.enter([mount])
            os.write(writing, b"ready")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 5) == b"ready"
    os.close(reading)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_reload_loses_nothing_that_is_written_meanwhile(place: Place) -> None:
    async def reload(pid: int) -> None:
        desk = Desk(place, pid)
        seen = Path(f"/proc/{pid}/root{place.at}")
        (seen / "first").write_text("1")

        def meanwhile() -> None:
            desk.meanwhile = lambda: None
            (seen / "late").write_text("by another input")

        desk.meanwhile = meanwhile
        await desk.mounting._reload(desk.child, [0])
        assert set(place.tree) == {"first", "late"}
        assert (seen / "late").read_text() == "by another input"
        assert desk.asked == 2
        await desk.mounting.close()
        assert [path.name for path in (place.home.mounts / "views" / "r1-1").iterdir() if path.name != "0"] != []
        assert not (place.home.mounts / "views" / "r1-1" / "0").exists()

    with mounted(place) as pid:
        asyncio.run(reload(pid))


@pytest.mark.parametrize("how", ["not there", "not answered"])
def test_a_commit_is_asked_for_again_while_control_is_away_for_a_moment(place: Place, how: str) -> None:
    """Twice the same, so that it can be told from another."""

    async def commit(pid: int) -> None:
        desk = Desk(place, pid)
        (Path(f"/proc/{pid}/root{place.at}") / "first").write_text("1")
        asked: list[str] = []

        def heard(message: wire.CommitVolume) -> bool:
            asked.append(message.id)
            if len(asked) > 2:
                return desk.heard(message)
            if how == "not there":
                return False
            # It comes back without having answered.
            asyncio.get_running_loop().call_soon(desk.mounting.lost)
            return True

        desk.mounting._tell = heard
        await desk.mounting._commit_all(desk.child, [0], explicit=True)
        assert set(place.tree) == {"first"}
        assert len(asked) == 3
        assert len(set(asked)) == 1
        (Path(f"/proc/{pid}/root{place.at}") / "first").write_text("2")
        await desk.mounting._commit_all(desk.child, [0], explicit=True)
        assert len(set(asked)) == 2
        await desk.mounting.close()

    with mounted(place) as pid:
        asyncio.run(commit(pid))


def test_the_same_change_at_another_time_is_another_commit(place: Place) -> None:
    """What is put back as it was is not taken for what was committed before."""

    async def commit(pid: int) -> None:
        desk = Desk(place, pid)
        path = Path(f"/proc/{pid}/root{place.at}") / "kept"
        asked: list[wire.CommitVolume] = []
        desk.mounting._tell = lambda message: asked.append(message) or desk.heard(message)
        for there in (True, False, True, False, True):
            if there:
                path.write_text("1")
                os.utime(path, (1e9, 1e9))
            else:
                path.unlink()
            await desk.mounting._commit_all(desk.child, [0], explicit=True)
            assert set(place.tree) == ({"kept"} if there else set())
        assert asked[0].change == asked[2].change == asked[4].change
        assert len({message.id for message in asked}) == 5
        await desk.mounting.close()

    with mounted(place) as pid:
        asyncio.run(commit(pid))


def test_who_commits_while_control_is_away_for_long_is_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit(pid: int) -> None:
        desk = Desk(place, pid)
        seen = Path(f"/proc/{pid}/root{place.at}")
        monkeypatch.setattr(mounting, "AWAY_S", 0.3)
        tries: list[str] = []

        def away(asked: wire.CommitVolume) -> bool:
            tries.append(asked.id)
            return False

        desk.mounting._tell = away
        for name in ("first", "second"):
            (seen / name).write_text("1")
            with pytest.raises(SwellError) as raised:
                await desk.mounting._commit_all(desk.child, [0], explicit=True)
            assert raised.value.code == "control_down"
        # The second does not wait once more for what was waited for in vain.
        assert tries.count(tries[-1]) == 1
        assert tries.count(tries[0]) > 1
        desk.mounting.lost()
        desk.mounting._tell = desk.heard
        await desk.mounting._commit_all(desk.child, [0], explicit=True)
        assert set(place.tree) == {"first", "second"}
        await desk.mounting.close()

    with mounted(place) as pid:
        asyncio.run(commit(pid))


@pytest.mark.parametrize("then", ["commit", "end", "adopted"])
def test_what_a_reload_could_not_commit_is_committed_later(
    place: Place, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other inputs wrote between its commit and the change of what is mounted, where control goes just then."""
    monkeypatch.setattr(mounting, "AWAY_S", 0.0)

    async def reload(pid: int) -> None:
        desk = Desk(place, pid)
        seen = Path(f"/proc/{pid}/root{place.at}")
        (seen / "first").write_text("1")

        def meanwhile() -> None:
            (seen / "late").write_text("by another input")
            desk.there = False

        desk.meanwhile = meanwhile
        with pytest.raises(SwellError) as raised:
            await desk.mounting._reload(desk.child, [0])
        assert raised.value.code == "control_down"
        assert (set(place.tree), set(os.listdir(seen))) == ({"first"}, {"first"})
        (seen / "later").write_text("2")
        desk.there, desk.meanwhile = True, lambda: None
        if then == "adopted":
            desk.adopt()
        if then == "end":
            desk.running.clear()
            desk.mounting.ended(desk.child, True, pytest.fail)
        else:
            await desk.mounting._commit_all(desk.child, [0], explicit=True)
        await desk.mounting.close()
        assert set(place.tree) == {"first", "late", "later"}
        left = list((place.home.mounts / "views").glob("r1-1/*"))
        assert len(left) == (0 if then == "end" else 1)

    with mounted(place) as pid:
        asyncio.run(reload(pid))


def test_who_ends_commits_what_it_saw_whatever_is_the_newest_by_then(place: Place) -> None:
    """Others commit before it does, and nothing that runs sees its version any more."""

    async def end() -> None:
        desk = Desk(place, os.getpid())
        await desk.mounting.prepare([VolumeUse("default", "v", "/v")])
        place.within(lambda: Path("mine").write_text("kept"))
        async with desk.mounting._locks[desk.child.id]:
            desk.running.clear()
            desk.mounting.ended(desk.child, True, pytest.fail)
            desk.version(Change((("theirs", Entry(kind="dir")),)))
            desk.tell()
            await desk.mounting.prepare([VolumeUse("default", "v", "/v")])
        await desk.mounting.close()
        assert set(place.tree) == {"mine", "theirs"}

    asyncio.run(end())


async def reload_to_the_next(desk: Desk) -> None:
    desk.version(Change((("new", Entry(kind="dir")),)))
    desk.tell()
    await desk.mounting._reload(desk.child, [0])


def test_others_go_on_while_a_volume_is_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = os.pipe(), os.pipe()

    def unmount(path: str, plain: Callable[[str], None] = kernel.unmount) -> None:
        os.write(begun[1], b"x")
        os.read(go[0], 1)
        plain(path)

    monkeypatch.setattr(kernel, "unmount", unmount)

    async def both(pid: int) -> None:
        desk = Desk(place, pid)
        reload = asyncio.create_task(reload_to_the_next(desk))
        await asyncio.to_thread(os.read, begun[0], 1)
        desk.version(Change((("newer", Entry(kind="dir")),)))
        desk.tell()
        await desk.mounting.prepare([VolumeUse("default", "v", "/v")])
        assert not reload.done()
        os.write(go[1], b"x")
        await reload
        assert "new" in os.listdir(f"/proc/{pid}/root{place.at}")
        await desk.mounting.close()

    with mounted(place) as pid:
        asyncio.run(both(pid))
    for descriptor in (*begun, *go):
        os.close(descriptor)


@pytest.mark.parametrize("fails", [1, 2, pytest.param(KILLED, id="killed")])
def test_what_cannot_be_put_in_its_place_leaves_what_was_there_or_ends_the_replica(
    place: Place, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    left = [OSError(errno.ENOMEM, "no room")] * fails

    def attach(made: int, path: str, plain: Callable[[int, str], None] = kernel.attach) -> None:
        if fails == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if left:
            raise left.pop()
        plain(made, path)

    monkeypatch.setattr(kernel, "attach", attach)

    async def reload(pid: int) -> None:
        desk = Desk(place, pid)
        told: list[str] = []
        desk.mounting.unfit = lambda _child, why: told.append(why)
        seen = Path(f"/proc/{pid}/root{place.at}")
        (seen / "mine").write_text("kept")
        before = desk.child.mounts
        with pytest.raises(SwellError, match="could not be mounted anew") as raised:
            await reload_to_the_next(desk)
        assert isinstance(raised.value, Unmounted) == (fails != 1)
        assert bool(told) == (fails != 1)
        assert desk.child.mounts == before
        if fails == 1:
            assert (seen / "mine").read_text() == "kept"
            (seen / "later").write_text("1")
            await desk.mounting._commit_all(desk.child, [0])
            assert {"mine", "later", "new"} == set(place.tree)
        await desk.mounting.close()
        assert [path.name for path in (place.home.mounts / "views" / "r1-1").iterdir()] == ["0"]

    with mounted(place) as pid:
        asyncio.run(reload(pid))


def test_a_sandbox_that_writes_too_much_is_ended(place: Place) -> None:
    async def bound() -> None:
        desk = Desk(place, os.getpid())
        told: list[str] = []
        desk.mounting.unfit = lambda _child, why: told.append(why)
        await desk.mounting.bound(2**20)
        place.within(lambda: [os.mkdir("d"), Path("d/large").write_bytes(b"x" * 2**21)])
        await desk.mounting.bound(2**20)
        # Who is in no sandbox may write anywhere.
        assert told == []
        desk.child.isolated = True
        assert delta.taken(place.own / "nobody") == 0
        await desk.mounting.bound(2**22)
        assert told == []
        await desk.mounting.bound(2**20)
        assert "may have 1048576 there (sandbox_volume_bytes_max)" in told[0]
        # Nor is it hidden where no path leads.
        name = "d" * 200
        place.within(lambda: [[os.mkdir(name), os.chdir(name)] for _ in range(30)])
        place.within(lambda: [[os.chdir(name) for _ in range(30)], Path("large").write_bytes(b"x" * 2**22)])
        await desk.mounting.bound(2**22)
        assert len(told) == 2

    asyncio.run(bound())


def test_folders_that_are_written_to_a_volume_count(place: Place) -> None:
    place.within(lambda: [os.makedirs(f"a/{number}") for number in range(50)])
    upper = place.own / "upper"
    assert delta.taken(upper) == sum(path.lstat().st_blocks * 512 for path in upper.rglob("*"))


def test_of_a_volume_that_is_gone_nothing_is_kept(place: Place) -> None:
    """What stood in its files is there as long as a folder has links to it."""
    place.within(lambda: Path("large").write_text("x"))
    place.commit()
    place.renew()

    async def forget() -> None:
        mounting = Mounting(place.home, lambda _asked: True)
        mounting.hear(wire.Volumes(1, (place.state,), whole=True))
        use = VolumeUse("default", "v", "/v")
        await mounting.prepare([use])
        assert mounting.ready([use])
        tree = place.trees.path(place.state)
        assert tree.is_dir()
        mounting.hear(wire.Volumes(1, (VolumeState("default", "v"),)))
        await mounting.close()
        assert not tree.exists()
        assert "is gone" in mounting.lacking([use])
        mounting.hear(wire.Volumes(1, (place.state,), whole=True))
        await mounting.prepare([use])
        mounting.hear(wire.Volumes(1, (), whole=True))
        await mounting.close()
        assert not tree.exists()

    asyncio.run(forget())


def test_what_many_starts_need_is_made_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.within(lambda: Path("a").write_text("x"))
    place.commit()
    place.renew()
    made = []
    plain = Trees.make
    monkeypatch.setattr(Trees, "make", lambda trees, state: [made.append(state), plain(trees, state)])

    async def starts() -> None:
        mounting = Mounting(place.home, lambda _asked: True)
        mounting.hear(wire.Volumes(1, (place.state,), whole=True))
        await asyncio.gather(*(mounting.prepare([VolumeUse("default", "v", "/v")]) for _ in range(9)))

    asyncio.run(starts())
    assert made == [place.state]


async def answers(theirs: socket.socket, count: int) -> list[VolumeDone]:
    """What a process is told."""
    told: list[VolumeDone] = []
    unpacker = Unpacker(VolumeDone)
    theirs.setblocking(False)
    while len(told) < count:
        told += unpacker.feed(await asyncio.get_running_loop().sock_recv(theirs, 65536))
    return told


@pytest.mark.slow
def test_who_asks_and_asks_is_told_to_wait(place: Place) -> None:
    async def ask() -> None:
        desk = Desk(place, os.getpid())
        ours, theirs = socket.socketpair()
        link = desk.child.link = ChildLink(ours)
        for number in range(ASKS_MAX + 2):
            desk.mounting.heard(desk.child, AskVolume(number, "commit", "default", "v"))
        told = await answers(theirs, ASKS_MAX + 2)
        assert [(done.ask, done.code) for done in told[:2]] == [(n, "volume_busy") for n in (ASKS_MAX, ASKS_MAX + 1)]
        assert [done.code for done in told[2:]] == [""] * ASKS_MAX
        desk.mounting.heard(desk.child, AskVolume(9, "commit", "default", "v"))
        assert await answers(theirs, 1) == [VolumeDone(9)]
        link.close()
        theirs.close()

    asyncio.run(ask())


def test_who_reads_nothing_is_not_kept_words_for(place: Place) -> None:
    async def ask() -> None:
        desk = Desk(place, os.getpid())
        ours, theirs = socket.socketpair()
        link = desk.child.link = ChildLink(ours)
        desk.mounting._asked[desk.child.id] = ASKS_MAX
        for number in range(20_000):
            desk.mounting.heard(desk.child, AskVolume(number, "commit", "default", "v"))
        assert UNSENT_MAX < link.unsent < 2 * UNSENT_MAX
        link.close()
        theirs.close()

    asyncio.run(ask())


def test_what_another_has_mounted_is_not_taken_away_from_under_it(place: Place) -> None:
    """Of another server of this machine, say: where a folder is removed, what others have mounted on it is gone."""
    place.at = place.home.root / "a folder" / "at"
    points.make(place.home, [str(place.at)])
    with mounted(place) as pid:
        (Path(f"/proc/{pid}/root{place.at}") / "file").touch()
        points.remove(place.home, ())
        assert (Path(f"/proc/{pid}/root{place.at}") / "file").exists()
        assert place.at.is_dir()
    points.remove(place.home, ())
    assert not place.at.parent.exists()
