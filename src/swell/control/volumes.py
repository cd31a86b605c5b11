"""Which volumes are there, and what is in the newest version of each? Changes come one after the other, whole or not at
all.

A change is made of the newest version there is: what a replica commits was begun from an older one, perhaps, and meets
what others did file by file (`decide/volumes`). Contents are on disk before a tree names them, that before the version.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from swell.control.named import Key, check_name, unknown, users
from swell.decide import volumes as decide
from swell.model.errors import SwellError
from swell.model.owner import Owner
from swell.model.ports import Blobs, Clock, VolumeFiles, Volumes
from swell.model.volume import (
    Change,
    Committed,
    Entry,
    Quota,
    Tree,
    Volume,
    VolumeState,
    VolumeUse,
    clean,
    pointing,
)
from swell.model.workload import App, shown
from swell.model.world import World
from swell.wire.api import FileRow, VolumeRow

COMMITS_KEPT = 256
"""Commits of each volume that are known at least, however long ago they were…"""
COMMITS_KEPT_S = 300.0
"""…and for so long: longer than one is asked for again where control is away, or is started again."""
COMMITS_MAX = 4096
"""Commits of each volume that are known at most: all of them are written with each commit."""


class VolumeKeeper:
    """The volumes of one server."""

    def __init__(self, rows: Volumes, files: VolumeFiles, world: World, clock: Clock, quota: Quota) -> None:
        """`quota`: of those that have none of their own."""
        self._rows = rows
        self._files = files
        self._world = world
        self._clock = clock
        self._quota = quota
        self.publish: Callable[[tuple[VolumeState, ...]], None] = lambda _changed: None
        """Tells every runner."""
        self._naming = asyncio.Lock()
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By id: one change at a time."""
        self._kept: dict[Key, Volume] = {volume.key: volume for volume in rows.all()}
        self._by: dict[str, str] = {}
        """Id → pool of the replica that made its newest version."""

    # -- for runners -------------------------------------------------------------------------

    def states(self, uses: Iterable[VolumeUse]) -> tuple[VolumeState, ...]:
        """As they are now; one that is gone is told as such."""
        return tuple(self._state(key) for key in dict.fromkeys(use.key for use in uses))

    def all_used(self) -> tuple[VolumeState, ...]:
        """Those of all that is deployed or still runs."""
        return self.states(use for revision in self._world.revisions.values() for use in revision.volumes)

    def _state(self, key: Key) -> VolumeState:
        volume = self._kept.get(key)
        if volume is None:
            return VolumeState(*key)
        return VolumeState(*key, volume.id, volume.version, self._by.get(volume.id, ""))

    async def commit(self, id: str, change: Change, by: str, commit: str) -> Volume:
        """What a replica of the pool `by` changed, whose contents are here. A `commit` (its id) that was done already,
        and is asked for again, is not done once more: others may have changed the same since."""
        return await self._change(self._of(id), lambda _tree: change, by, commit)

    def _of(self, id: str) -> Volume:
        found = next((volume for volume in self._kept.values() if volume.id == id), None)
        if found is None:
            raise SwellError("unknown_volume", "The volume was deleted: what is in it now is lost.", status=404)
        return found

    # -- for deploys -------------------------------------------------------------------------

    def check(self, app: App) -> None:
        """Refuse an app whose volumes are not there."""
        for use in (use for revision in app.revisions for use in revision.volumes):
            if use.key not in self._kept:
                raise self._unknown(use.key)

    def _get(self, namespace: str, name: str) -> Volume:
        if (namespace, name) not in self._kept:
            raise self._unknown((namespace, name))
        return self._kept[namespace, name]

    def _unknown(self, key: Key) -> SwellError:
        name = key[1]
        way = f"`swell volume create {name}` makes it, and so does Volume.from_name({name!r}, create_if_missing=True)"
        return unknown("volume", key, self._kept, way)

    # -- for people --------------------------------------------------------------------------

    def rows(self, namespace: str) -> list[VolumeRow]:
        """The volumes of a namespace."""
        return [self._row(volume) for key, volume in sorted(self._kept.items()) if key[0] == namespace]

    def contents(self, namespace: str) -> Blobs:
        """What is, or is to be, in its volumes."""
        return self._files.contents(namespace)

    async def create(
        self, namespace: str, name: str, quota: Quota, if_missing: bool = False, owner: Owner | None = None
    ) -> VolumeRow:
        """A new one, empty; with `if_missing` the one that is there is as good."""
        return await asyncio.shield(self._created(namespace, name, quota, if_missing, owner))

    async def alter(
        self, namespace: str, name: str, new_name: str | None, bytes_max: int | None, files_max: int | None
    ) -> VolumeRow:
        """Give it another name, or another quota. What runs goes on with it under either name."""
        return await asyncio.shield(self._altered(namespace, name, new_name, bytes_max, files_max))

    async def delete(self, namespace: str, name: str, force: bool = False) -> None:
        """Forget it. What is in it goes within the hour, and stays for those that have it mounted until they end."""
        await asyncio.shield(self._deleted(namespace, name, force))

    # -- as a whole: whoever asked may leave, and others wait until it is written --------------

    async def _created(
        self, namespace: str, name: str, quota: Quota, if_missing: bool, owner: Owner | None
    ) -> VolumeRow:
        check_name("volume", namespace, name)
        _check_quota(quota)
        async with self._naming:
            if (namespace, name) in self._kept:
                if if_missing:
                    return self._row(self._kept[namespace, name])
                raise SwellError(
                    "volume_exists", f"There is a volume {name!r} already: use it, or delete it.", status=409
                )
            id = f"vo-{secrets.token_hex(8)}"
            volume = Volume(namespace, name, id, self._clock.now(), quota=quota)
            if owner is not None:
                whose = {"owner_pid": owner.pid, "owner_ticks": owner.start_ticks, "owner_machine": owner.machine}
                volume = replace(volume, **whose)
            await self._set(volume)
            return self._row(volume)

    async def _altered(
        self, namespace: str, name: str, new_name: str | None, bytes_max: int | None, files_max: int | None
    ) -> VolumeRow:
        async with self._naming:
            volume = self._get(namespace, name)
            if new_name is not None and new_name != name:
                check_name("volume", namespace, new_name)
                if (namespace, new_name) in self._kept:
                    raise SwellError("volume_exists", f"There is a volume {new_name!r} already.", status=409)
                self._check_unused(volume, "give it another name")
            async with self._changing[volume.id]:
                volume = self._get(namespace, name)
                quota = Quota(
                    volume.quota.bytes_max if bytes_max is None else bytes_max,
                    volume.quota.files_max if files_max is None else files_max,
                )
                _check_quota(quota)
                changed = replace(volume, name=new_name or name, quota=quota)
                await self._set(changed)
            return self._row(changed)

    async def _deleted(self, namespace: str, name: str, force: bool) -> None:
        async with self._naming:
            volume = self._get(namespace, name)
            if not force:
                self._check_unused(volume, "delete it (with --force it is deleted all the same)")
            async with self._changing[volume.id]:
                await self._forget(volume)

    def _check_unused(self, volume: Volume, what: str) -> None:
        users = self._users(volume.key)
        if users:
            words = (
                f"The volume {volume.name!r} is used by {', '.join(map(shown, users))}: deploy without it, then {what}."
            )
            raise SwellError("volume_in_use", words, status=409)

    async def listed(self, namespace: str, name: str, path: str, recursive: bool) -> list[FileRow]:
        """What a folder holds, or the file itself."""
        tree = await self._tree(self._get(namespace, name))
        return [
            FileRow(each, entry.kind, entry.size, entry.at, entry.executable, entry.target, entry.digest)
            for each, entry in decide.listed(tree, clean(path, root=True), recursive)
        ]

    async def content(self, namespace: str, name: str, path: str) -> str:
        """The file of this node that holds the content of a file."""
        tree = await self._tree(self._get(namespace, name))
        entry = decide.find(tree, clean(path))
        if entry is None:
            raise SwellError("no_such_file", f"There is no {path!r} in the volume {name!r}.", status=404)
        if entry.kind != "file":
            what = "a folder" if entry.kind == "dir" else f"a link to {entry.target}"
            raise SwellError("no_file", f"{path!r} is {what}, and has no content of its own.", status=422)
        contents = self.contents(namespace)
        # It is needed: it stays while it is read, whatever becomes of the file.
        contents.has(entry.digest)
        return contents.path(entry.digest)

    async def put(self, namespace: str, name: str, put: Sequence[tuple[str, Entry]], force: bool) -> VolumeRow:
        """A version with these files, whose contents are here."""
        change = Change(put=tuple((clean(path), entry) for path, entry in put))
        for path, entry in change.put:
            if entry.kind == "link":
                pointing(path, entry.target)

        def make(tree: Tree) -> Change:
            taken = "" if force else decide.taken(tree, change)
            if taken:
                words = f"There is a {taken!r} in the volume {name!r} already: with force (-f) it is written over."
                raise SwellError("file_exists", words, status=409)
            return change

        return self._row(await self._change(self._get(namespace, name), make))

    async def remove(self, namespace: str, name: str, path: str, recursive: bool) -> VolumeRow:
        """A version without a file or folder."""
        at = clean(path, root=recursive)
        return self._row(
            await self._change(self._get(namespace, name), lambda tree: decide.removal(tree, at, recursive))
        )

    async def copy(self, namespace: str, name: str, sources: Sequence[str], to: str, recursive: bool) -> VolumeRow:
        """A version with copies, which take no room."""
        make = partial(
            decide.copying,
            sources=[clean(each, root=recursive) for each in sources],
            target=clean(to, root=True),
            recursive=recursive,
        )
        return self._row(await self._change(self._get(namespace, name), make))

    def _row(self, volume: Volume) -> VolumeRow:
        quota = self._quota_of(volume)
        return VolumeRow(
            volume.namespace,
            volume.name,
            volume.id,
            volume.version,
            volume.made_at,
            volume.at or volume.made_at,
            volume.size_bytes,
            volume.files,
            quota.bytes_max,
            quota.files_max,
            tuple(self._users(volume.key)),
        )

    def _quota_of(self, volume: Volume) -> Quota:
        own, usual = volume.quota, self._quota
        return Quota(own.bytes_max or usual.bytes_max, own.files_max or usual.files_max)

    def _users(self, key: Key) -> list[str]:
        return users(self._world, key, lambda revision: revision.volumes)

    # -- sweeping ----------------------------------------------------------------------------

    async def sweep(self, before: float) -> int:
        """Remove what no volume has any more, and nobody needed since then; returns how many contents."""
        return await asyncio.to_thread(self._files.sweep, list(self._kept.values()), before)

    def known(self) -> bool:
        """Are there any?"""
        return bool(self._kept)

    def owned(self) -> list[Volume]:
        """Those that end with a program."""
        return [volume for volume in self._kept.values() if volume.owner is not None]

    # -- writing -----------------------------------------------------------------------------

    async def _tree(self, volume: Volume) -> Tree:
        return await asyncio.to_thread(self._files.read, volume)

    async def _change(self, volume: Volume, make: Callable[[Tree], Change], by: str = "", commit: str = "") -> Volume:
        """The volume after what `make` makes of its newest version. Whoever asked may leave; what has begun is
        finished."""
        return await asyncio.shield(self._changed(volume.id, make, by, commit))

    async def _changed(self, id: str, make: Callable[[Tree], Change], by: str, commit: str) -> Volume:
        async with self._changing[id]:
            # It may have another name, or be gone, since it was asked for.
            volume = self._of(id)
            if commit and any(commit == each.id for each in volume.committed):
                return volume
            next_one = await asyncio.to_thread(self._next, volume, make)
            if next_one is None and not commit:
                return volume
            committed = _with(volume.committed, commit, self._clock.now()) if commit else volume.committed
            made = replace(next_one or volume, committed=committed)
            if next_one is None:
                await self._write(made)
            else:
                self._by[id] = by
                await self._set(made)
            return made

    def _next(self, volume: Volume, make: Callable[[Tree], Change]) -> Volume | None:
        """Write the tree of the version after this one; None where nothing changes. In a thread."""
        tree = self._files.read(volume)
        change = self._weighed(volume.namespace, make(tree))
        after = decide.merged(tree, change)
        if after == tree:
            return None
        size = decide.size(after)
        refused = decide.beyond(volume.name, (volume.size_bytes, volume.files), size, volume.quota, self._quota)
        if refused is not None:
            raise refused
        made = replace(volume, version=volume.version + 1, at=self._clock.now(), size_bytes=size[0], files=size[1])
        self._files.write(made, after)
        return made

    def _weighed(self, namespace: str, change: Change) -> Change:
        """The change with the sizes that its contents really have."""
        contents = self.contents(namespace)
        put: list[tuple[str, Entry]] = []
        for path, entry in change.put:
            if entry.kind != "file":
                put.append((path, replace(entry, digest="", size=0)))
                continue
            if not contents.has(entry.digest):
                words = f"What {path!r} is to hold ({entry.digest[:20]}…) is not here: put the content first."
                raise SwellError("unknown_blob", words, status=409)
            put.append((path, replace(entry, size=os.path.getsize(contents.path(entry.digest)))))
        return replace(change, put=tuple(put))

    async def _set(self, volume: Volume) -> None:
        """In the database, which is what makes it so, and told."""
        before = next((each for each in self._kept.values() if each.id == volume.id), None)
        await self._write(volume)
        if before is not None and before.key != volume.key:
            del self._kept[before.key]
            self._tell(before.key)
        self._tell(volume.key)

    async def _write(self, volume: Volume) -> None:
        await asyncio.to_thread(self._rows.put, volume)
        self._kept[volume.key] = volume

    async def _forget(self, volume: Volume) -> None:
        await asyncio.to_thread(self._rows.remove, volume.id)
        self._kept.pop(volume.key, None)
        self._by.pop(volume.id, None)
        self._tell(volume.key)

    def _tell(self, key: Key) -> None:
        """To runners, whoever uses it: they may have what is no longer so from the last time that somebody did."""
        self.publish((self._state(key),))


def _with(committed: Sequence[Committed], commit: str, now: float) -> tuple[Committed, ...]:
    """Those that are known once this one is done, too. A clock that was wrong keeps none for ever."""
    newest = len(committed) + 1 - COMMITS_KEPT
    kept = (each for at, each in enumerate(committed) if at >= newest or abs(now - each.at) < COMMITS_KEPT_S)
    return (*tuple(kept)[-(COMMITS_MAX - 1) :], Committed(commit, now))


def _check_quota(quota: Quota) -> None:
    if quota.bytes_max < 0 or quota.files_max < 0:
        raise SwellError("invalid", "A quota is a number above 0, or 0 for the server's own.", status=422)
