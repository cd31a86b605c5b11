"""Which version of which volume does each process see, and when do others see what it changed?

Control tells which version is the newest. A process that starts is given that one, and what it changes is kept in a
folder of its own. A commit puts new contents on the disk and asks control for a version with them; a reload commits and
mounts the newest. Whoever ends in order has committed all; of one that was killed only what it had committed stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from swell.model.errors import SwellError
from swell.model.volume import Change, VolumeState, VolumeUse
from swell.runtime.runner import cache
from swell.runtime.runner.children import Child
from swell.runtime.runner.volumes import delta, points, remount
from swell.runtime.runner.volumes.trees import Trees
from swell.wire import link as wire
from swell.wire.child import AskVolume, Mount, VolumeDone
from swell.wire.frames import FRAME_MAX, pack
from swell.wire.paths import Home

log = logging.getLogger("swell.runner")

ANSWER_S = 60.0
"""A commit that control has not answered by then is told to have failed; it may have been done."""
AWAY_S = 60.0
"""While control has been away for less, a commit waits for it: it is being started again."""
AGAIN_S = 0.1
"""Pause between looks whether it is there."""
LAST_COMMITS_S = 10.0
"""A runner that ends waits this long for commits of what ended in order."""
RENEWED_MAX = 3
"""A reload whose replica writes on and on shows a version that was the newest."""
ASKS_MAX = 1000
"""Commits and reloads that a process may have asked for and not be answered yet."""
SAID_MAX = FRAME_MAX // 2
"""Bytes of what is said of a commit."""
Key = tuple[str, str]
_committed = msgspec.msgpack.Decoder(dict[str, tuple[str | int, ...]])


class Mounting:
    """The volumes of one runner's processes."""

    def __init__(self, home: Home, tell: Callable[[wire.CommitVolume], bool]) -> None:
        """`tell`: to control; False when that cannot be told."""
        self.home = home
        self.lacks = ""
        """Why this node can mount nothing; empty where it can."""
        self.trees = Trees(home)
        self._tell = tell
        self._away_since: float | None = None
        """When a commit first met no control, on the loop's clock; None while there is one."""
        self._told: dict[Key, VolumeState] = {}
        self._made: dict[Key, VolumeState] = {}
        """The newest version that is made into a folder."""
        self._asks: dict[int, asyncio.Future[wire.VolumeCommitted]] = {}
        self._numbers = itertools.count(1)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By process: one commit or reload at a time."""
        self._asked: Counter[str] = Counter()
        """By process: what is not answered yet."""
        self._making: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._coming: list[Mount] = []
        """What takes the place of what is mounted."""
        self._ended: list[Child] = []
        """Processes that are over, and whose last commit is not."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: Callable[[], Iterable[Child]] = lambda: ()
        self.remade: Callable[[Child], None] = lambda _child: None
        """Called when what a process has mounted is another version."""
        self.unfit: Callable[[Child, str], None] = lambda _child, _why: None
        """Called when a process must not go on: it has none any more where one is to be, or has written too much."""

    def probe(self) -> None:
        """Find out whether this node can mount any. To be called in the runner's main thread, before anybody else waits
        for its children."""
        top = self.home.mounts / "views" / "probe"
        cache.erase(top)
        try:
            for name in ("upper", "work", "lower", "at"):
                (top / name).mkdir(parents=True)
            self.lacks = remount.tried(Mount("", "probe", "", 0, str(top / "at"), str(top / "lower"), str(top)))
        except OSError as error:
            self.lacks = str(error)
        finally:
            cache.erase(top)
        if self.lacks:
            log.info("no volumes on this node: %s", self.lacks)

    # -- what is known ---------------------------------------------------------------------------

    def hear(self, message: wire.Volumes) -> list[VolumeState]:
        """What control told; returns those that are other than they were."""
        told = {state.key: state for state in message.volumes}
        changed = [state for key, state in told.items() if self._told.get(key) != state]
        self._told = told if message.whole else {**self._told, **told}
        # Of one that is gone, or that nothing uses any more, nothing is kept but what is mounted.
        forgotten = [key for key, state in self._made.items() if self._id(key) != state.id]
        for key in forgotten:
            del self._made[key]
        if forgotten:
            self.do(self.collect())
        for state in changed:
            if state.id and state.key in self._made:
                # Who starts next is not to wait for it.
                self.do(self._make(state.key))
        return changed

    def lacking(self, uses: Sequence[VolumeUse]) -> str:
        """Why nothing that uses them can start; empty where it can."""
        if uses and self.lacks:
            return f"this node cannot mount volumes: {self.lacks}"
        gone = next((use.name for use in uses if not self._state(use).id), None)
        if gone is None:
            return ""
        return f"the volume {gone!r} is gone: make it again (`swell volume create {gone}`), or deploy without it"

    def _id(self, key: Key) -> str:
        return self._told[key].id if key in self._told else ""

    def _state(self, use: VolumeUse) -> VolumeState:
        return self._told.get(use.key, VolumeState(*use.key))

    # -- before a start --------------------------------------------------------------------------

    def ready(self, uses: Iterable[VolumeUse]) -> bool:
        """Can it be mounted at once?"""
        return all(self._told.get(use.key) == self._made.get(use.key) for use in uses)

    async def prepare(self, uses: Iterable[VolumeUse]) -> None:
        """Make folders of the versions that are the newest now."""
        for key in dict.fromkeys(use.key for use in uses):
            await self._make(key)

    async def _make(self, key: Key) -> None:
        async with self._making[key]:
            while (state := self._told.get(key)) is not None and state.id and self._made.get(key) != state:
                try:
                    await asyncio.to_thread(self.trees.make, state)
                except FileNotFoundError as error:
                    if self._told.get(key) == state:
                        words = f"Version {state.version} of the volume {state.name!r} cannot be read: {error}."
                        raise SwellError("environment", words) from error
                    continue
                # While it was made it may have become an old one, and have been put aside.
                if self._id(key) == state.id and self.trees.there(state):
                    self._made[key] = state
                    await self.collect()

    def equip(self, child: Child) -> tuple[Mount, ...]:
        """What a process that is about to start is to have mounted, with empty folders of its own. A template reads."""
        if child.volumes:
            self._clear(child.id)
            child.behind = ()
            points.check(self.home, [use.path for use in child.volumes])
            if not child.isolated:
                points.make(self.home, [use.path for use in child.volumes])
            child.mounts = tuple(self._mount(child, index, use) for index, use in enumerate(child.volumes))
        return child.mounts

    def _mount(self, child: Child, index: int, use: VolumeUse) -> Mount:
        state = self._made.get(use.key)
        if state is None:
            raise SwellError("unknown_volume", f"the volume {use.name!r} is gone")
        own = "" if use.read_only or child.role == "template" else self._own(child.id, f"{index}")
        lower = self._lower(state, use.sub_path)
        return Mount(*use.key, state.id, state.version, use.path, lower, own, use.sub_path)

    def _lower(self, state: VolumeState, sub_path: str) -> str:
        tree = self.trees.path(state)
        below = os.path.join(os.path.realpath(tree / "root"), *sub_path.split("/")).rstrip("/")
        # A folder that is not there yet comes to be with the first commit. A link in the volume may lead anywhere.
        return below if os.path.isdir(below) and os.path.realpath(below) == below else str(tree / "none")

    def _own(self, replica: str, name: str) -> str:
        top = self.home.mounts / "views" / replica / name
        for folder in (top / "upper", top / "work"):
            folder.mkdir(parents=True)
            folder.chmod(0o777)
        return str(top)

    # -- what a replica asks for -----------------------------------------------------------------

    def heard(self, child: Child, message: AskVolume) -> None:
        """Do it, in the background, and answer."""
        if self._asked[child.id] >= ASKS_MAX:
            words = f"{ASKS_MAX} commits and reloads of this replica are under way already: wait for their end."
            _say(child, VolumeDone(message.ask, "volume_busy", words))
            return
        self._asked[child.id] += 1
        self.do(self._answer(child, message))

    async def _answer(self, child: Child, message: AskVolume) -> None:
        try:
            _say(child, await self._done(child, message))
        finally:
            self._asked[child.id] -= 1
            self._asked += Counter()

    async def _done(self, child: Child, message: AskVolume) -> VolumeDone:
        try:
            mine = self._mine(child, (message.namespace, message.name))
            async with self._locks[child.id]:
                if message.what == "reload":
                    await self._reload(child, mine)
                else:
                    await self._commit_all(child, mine, explicit=True)
        except SwellError as error:
            return VolumeDone(message.ask, error.code, error.message)
        except Exception:
            log.exception("%s of a volume of %s went wrong", message.what, child.id)
            return VolumeDone(message.ask, "internal", "The server made a mistake; its log says which.")
        return VolumeDone(message.ask)

    def _mine(self, child: Child, key: Key) -> list[int]:
        found = [index for index, mount in enumerate(child.mounts) if mount.key == key]
        if not found:
            words = f"The volume {key[1]!r} is not mounted in this function: name it in its volumes=."
            raise SwellError("not_mounted", words)
        return found

    async def _commit_all(self, child: Child, mine: Sequence[int], explicit: bool = False) -> None:
        writable = [index for index in mine if child.mounts[index].own]
        if explicit and not writable:
            words = f"The volume {child.mounts[mine[0]].name!r} is read-only here: there is nothing to commit."
            raise SwellError("not_mounted", words)
        await self._catch_up(child, child.mounts[mine[0]].key)
        for index in writable:
            await self.commit(child.mounts[index], child.pool)

    async def _catch_up(self, child: Child, key: Key) -> bool:
        """Commit what it wrote to what a reload of this volume then took away. SwellError: it is kept for the next try;
        what was written after it must not be committed before it."""
        found = False
        for mount in [each for each in child.behind if each.key == key]:
            found |= await self.commit(mount, child.pool)
            child.behind = tuple(each for each in child.behind if each is not mount)
            self.remade(child)
            self.do(cache.remove([Path(mount.own)]))
        return found

    async def commit(self, mount: Mount, pool: str) -> bool:
        """Make a version with what is other than at the last commit; False where nothing is. SwellError: nothing was
        done."""
        contents = delta.Contents(self.home.volumes / mount.namespace / "files", self.home.mounts / "drafts")
        try:
            change, known = await asyncio.to_thread(self._changed, mount, contents)
            if change:
                id = await asyncio.to_thread(_commit_id, mount, change)
                await self._made_of(wire.CommitVolume(next(self._numbers), mount.volume, change, pool, id))
            await asyncio.to_thread(_note, mount, known)
            return bool(change)
        finally:
            contents.drop()

    def _changed(self, mount: Mount, contents: delta.Contents) -> tuple[Change, delta.Fingerprints]:
        upper = Path(mount.own) / "upper"
        state = VolumeState(mount.namespace, mount.name, mount.volume, mount.version)
        base, folders = delta.below(self.trees.read(state), mount.sub_path)
        now = delta.seen(upper, base, folders, delta.clock_ns())
        change, known = delta.change(now, _noted(mount), base, mount.sub_path, delta.entries(upper, contents))
        contents.settle({entry.digest for _, entry in change.put})
        return change, known

    async def _made_of(self, asked: wire.CommitVolume) -> None:
        """Asked again where control is away, or ended without an answer: it knows by the id what it has done."""
        if len(pack(asked)) > SAID_MAX:
            words = f"The commit names too many files at once ({len(asked.change.put)}): commit more often."
            raise SwellError("volume_full", words)
        clock = asyncio.get_running_loop().time
        begun = clock()
        while True:
            try:
                return await self._answered(asked)
            except SwellError as error:
                since = begun if self._away_since is None else min(begun, self._away_since)
                if error.code != "control_down" or clock() - since >= AWAY_S:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _answered(self, asked: wire.CommitVolume) -> None:
        answer: asyncio.Future[wire.VolumeCommitted] = asyncio.get_running_loop().create_future()
        self._asks[asked.ask] = answer
        try:
            if not self._tell(asked):
                if self._away_since is None:
                    self._away_since = asyncio.get_running_loop().time()
                words = "The control plane is not running now, so nothing was committed. Try again in a moment."
                raise SwellError("control_down", words)
            done = await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise SwellError("no_answer", "Control did not say in time what became of the commit: try again.") from None
        finally:
            del self._asks[asked.ask]
        if done.code:
            raise SwellError(done.code, done.message)

    def answered(self, message: wire.VolumeCommitted) -> None:
        """Control has done it, or not."""
        waiting = self._asks.get(message.ask)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def lost(self) -> None:
        """There is a new control: nobody will answer what was asked of the one before."""
        self._away_since = None
        for ask in self._asks:
            words = "Control ended before it said what became of the commit: try again."
            self.answered(wire.VolumeCommitted(ask, 0, "control_down", words))

    async def _reload(self, child: Child, mine: Sequence[int]) -> None:
        await self._commit_all(child, mine)
        for index in mine:
            for _ in range(RENEWED_MAX):
                if not await self._renewed(child, index):
                    break

    async def _renewed(self, child: Child, index: int) -> bool:
        """Show it the newest version. True where that is not the newest by now: another of its inputs wrote something
        between the commit and the change, which others had to be given first."""
        mount = child.mounts[index]
        await self._make(mount.key)
        state = self._made.get(mount.key)
        if state is None or state.id != mount.volume:
            raise SwellError("unknown_volume", f"The volume {mount.name!r} was deleted.")
        if state.version == mount.version or child.pid is None:
            return False
        own = self._own(child.id, f"{index}-{next(self._numbers)}") if mount.own else ""
        newer = replace(mount, version=state.version, lower=self._lower(state, mount.sub_path), own=own)
        self._coming.append(newer)
        try:
            await remount.remount(child.pid, newer)
        except BaseException as error:
            if newer.own:
                self.do(cache.remove([Path(newer.own)]))
            if isinstance(error, remount.Unmounted):
                self.unfit(child, error.message)
            raise
        finally:
            self._coming.remove(newer)
        child.mounts = (*child.mounts[:index], newer, *child.mounts[index + 1 :])
        child.behind += (mount,) if mount.own else ()
        self.remade(child)
        return await self._catch_up(child, mount.key)

    async def bound(self, bytes_max: int) -> None:
        """End what is in a sandbox and has written more than that: no quota counts it before it is committed."""
        for child in [each for each in self._held() if each.isolated and each.mounts]:
            uppers = [Path(mount.own) / "upper" for mount in _seen(child) if mount.own]
            try:
                written = sum([await asyncio.to_thread(delta.taken, upper) for upper in uppers])
            except (OSError, RecursionError) as error:
                self.unfit(child, f"what it wrote to volumes cannot be measured: {error}")
                continue
            if written > bytes_max:
                most = f"{bytes_max} there (sandbox_volume_bytes_max)"
                self.unfit(child, f"it wrote {written} bytes to volumes, and may have {most}")

    # -- the end ---------------------------------------------------------------------------------

    def ended(self, child: Child, orderly: bool, say: Callable[[str], None]) -> None:
        """Its process is over. What it had not committed is, where it ended in order; `say` tells why where that
        cannot be."""
        if child.mounts:
            self._ended.append(child)
            self.do(self._last(child, orderly, say))

    async def _last(self, child: Child, orderly: bool, say: Callable[[str], None]) -> None:
        async with self._locks[child.id]:
            for mount in _seen(child) if orderly else ():
                lost = f"what it had not committed of the volume {mount.name!r} is lost"
                try:
                    if mount.own:
                        await self.commit(mount, child.pool)
                except SwellError as error:
                    say(f"{lost}: {error.message}")
                except Exception as error:
                    log.exception("the last commit of %s went wrong", child.id)
                    say(f"{lost}: {error}")
                except asyncio.CancelledError:
                    say(f"{lost}: the server ended before it was on disk")
                    raise
        self._locks.pop(child.id, None)
        self._ended.remove(child)
        child.mounts = child.behind = ()
        await asyncio.to_thread(self._clear, child.id)
        await self.collect()

    def _clear(self, replica: str) -> None:
        cache.erase(self.home.mounts / "views" / replica)

    def hold(self, children: Callable[[], Iterable[Child]]) -> None:
        """`children()`: all that runs, or is about to."""
        self._held = children

    def sweep(self) -> None:
        """Remove what an earlier runner left of processes that are not any more. To be asked before anything starts."""
        held = {child.id for child in self._held()}
        views = self.home.mounts / "views"
        for path in list(views.iterdir()) if views.is_dir() else ():
            if path.name not in held:
                cache.erase(path)
        cache.erase(self.home.mounts / "drafts")
        for path in self.trees.remains(self._in_use()):
            cache.erase(path)
        self.sweep_points()

    def sweep_points(self) -> None:
        """Remove folders that were made to mount on, and that nothing has mounted any more."""
        points.remove(self.home, {mount.path for child in self._held() for mount in child.mounts})

    async def collect(self) -> None:
        """Remove versions that nothing sees and that are not the newest."""
        await cache.remove(self.trees.put_aside(self._in_use()))

    def _in_use(self) -> set[Path]:
        seen = {
            self.trees.path(VolumeState(mount.namespace, mount.name, mount.volume, mount.version))
            for mount in (*self._coming, *(each for child in (*self._held(), *self._ended) for each in _seen(child)))
        }
        return seen | {self.trees.path(state) for state in (*self._made.values(), *self._told.values())}

    async def close(self) -> None:
        """Everything has ended: let last commits come to their end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_COMMITS_S)
        for task in list(self._tasks):
            task.cancel()
        self.sweep_points()

    def do(self, work: asyncio._CoroutineLike[None]) -> None:
        """In the background; what goes wrong is logged."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("work on volumes went wrong", exc_info=task.exception())


def _seen(child: Child) -> tuple[Mount, ...]:
    """What is still looked at of what it has, and had, mounted; in the order in which it wrote there."""
    return (*child.behind, *child.mounts)


def _say(child: Child, done: VolumeDone) -> None:
    if child.link is not None:
        with suppress(OSError):
            child.link.send(done)


def _noted(mount: Mount) -> delta.Fingerprints:
    """What was committed before."""
    try:
        return _committed.decode((Path(mount.own) / "committed").read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}


def _commit_id(mount: Mount, change: Change) -> str:
    """The same for the same commit, whoever asks for it again; another once one more was noted, whatever is in it."""
    try:
        status = (Path(mount.own) / "committed").stat()
        before = (status.st_ino, status.st_mtime_ns)
    except FileNotFoundError:
        before = (0, 0)
    what = (mount, before, dict(change.put), sorted(change.removed))
    return hashlib.blake2b(msgspec.msgpack.encode(what, order="deterministic"), digest_size=8).hexdigest()


def _note(mount: Mount, known: delta.Fingerprints) -> None:
    """For the next commit, which another runner may make."""
    draft = Path(mount.own) / "committed.new"
    draft.write_bytes(msgspec.msgpack.encode(known))
    draft.replace(Path(mount.own) / "committed")
