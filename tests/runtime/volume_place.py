"""A home with one volume, and what a process has mounted of it: with real mounts, as a runner makes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from swell.decide.volumes import merged
from swell.model.volume import Change, Tree, VolumeState
from swell.runtime import volumes
from swell.runtime.runner.volumes import delta
from swell.runtime.runner.volumes.trees import Trees
from swell.wire.child import Mount
from swell.wire.paths import Home


class Place:
    """A home with one volume, and what one process has mounted of it."""

    def __init__(self, top: Path) -> None:
        self.home = Home(top)
        self.trees = Trees(self.home)
        self.state = VolumeState("default", "v", "vo-1", 0)
        self.own = top / "mounts" / "views" / "r1-1" / "0"
        self.at = top / "at"
        for folder in (self.own / "upper", self.own / "work", self.at):
            folder.mkdir(parents=True)
        self.tree: Tree = {}
        self.committed: delta.Fingerprints = {}

    def mount(self, sub_path: str = "") -> Mount:
        self.trees.make(self.state)
        lower = self.trees.path(self.state) / "root" / sub_path
        mine = ("default", "v", self.state.id, self.state.version)
        return Mount(*mine, str(self.at), str(lower), str(self.own), sub_path)

    def within(self, work: Callable[[], object]) -> None:
        """Do it in a process that has it mounted, as a replica does."""
        mount = self.mount()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                volumes.enter([mount])
                os.chdir(self.at)
                work()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def commit(self) -> Change:
        """As a runner does, and as control does with it."""
        contents = delta.Contents(self.home.volumes / "default" / "files", self.home.mounts / "drafts")
        base, folders = delta.below(self.trees.read(self.state), "")
        upper = self.own / "upper"
        now = delta.seen(upper, base, folders, delta.clock_ns())
        change, self.committed = delta.change(now, self.committed, base, "", delta.entries(upper, contents))
        contents.settle({entry.digest for _, entry in change.put})
        self.tree = merged(self.tree, change)
        return change

    def shown(self) -> dict[str, str]:
        """What its process sees, by path."""
        found = Path(f"{self.home.root}/shown")
        self.within(lambda: found.write_text(repr(dict(walked(Path(self.at))))))
        return eval(found.read_text())

    def renew(self) -> None:
        """Another process, with the newest version."""
        path = self.home.volumes / "default" / "vo-1" / f"v{self.state.version + 1}"
        path.parent.mkdir(parents=True, exist_ok=True)
        import msgspec

        path.write_bytes(msgspec.msgpack.encode(self.tree))
        self.state = VolumeState("default", "v", "vo-1", self.state.version + 1)
        for name in ("upper", "work"):
            shutil.rmtree(self.own / name)
            (self.own / name).mkdir()
        self.committed = {}


def walked(top: Path) -> Iterator[tuple[str, str]]:
    for parent, folders, names in os.walk(top):
        for name in (*folders, *names):
            path = Path(parent) / name
            what = "dir" if path.is_dir() and not path.is_symlink() else "x"
            if path.is_symlink():
                what = f"-> {os.readlink(path)}"
            elif path.is_file():
                what = f"{path.read_text()} {os.access(path, os.X_OK) and bool(path.stat().st_mode & 0o100)}"
            yield path.relative_to(top).as_posix(), what
