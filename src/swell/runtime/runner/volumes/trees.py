"""Where is a version of a volume as a folder? Made of links to its contents, once, and shared by all that see it.

Nobody writes to one: what mounts it has changes of its own over it, or may not write. So contents have one place on the
disk, however many versions have them.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from swell.model.volume import Tree, VolumeState, parents
from swell.wire.paths import Home

_MODE = 0o777
"""Of folders: whoever sees them in a replica may write there. Their parent is closed to all others on the node."""
_GONE, _NEW = ".gone-", ".new-"
_tree = msgspec.msgpack.Decoder(Tree)


class Trees:
    """The folders `mounts/trees/{id}-v{number}` of one node: `root` is what is mounted, `tree` what is in it."""

    def __init__(self, home: Home) -> None:
        self.folder = home.mounts / "trees"
        self._volumes = home.volumes

    def path(self, state: VolumeState) -> Path:
        return self.folder / f"{state.id}-v{state.version}"

    def there(self, state: VolumeState) -> bool:
        """Is it made?"""
        return self.path(state).is_dir()

    def read(self, state: VolumeState) -> Tree:
        """What is in it."""
        return _tree.decode((self.path(state) / "tree").read_bytes())

    def make(self, state: VolumeState) -> None:
        """Make it, unless it is there; whole or not at all. In a thread.

        FileNotFoundError where the version is an old one that is not kept any more.
        """
        if self.there(state):
            return
        body = msgspec.msgpack.encode({})
        if state.version:
            body = (self._volumes / state.namespace / state.id / f"v{state.version}").read_bytes()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.folder))
        try:
            # Not closed to nobody, whom a sandbox has.
            fresh.chmod(0o755)
            (fresh / "tree").write_bytes(body)
            _fill(fresh / "root", _tree.decode(body), self._volumes / state.namespace / "files")
            _folder(fresh / "none")
            os.rename(fresh, self.path(state))
        except OSError as error:
            # Another was first.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def put_aside(self, kept: Collection[Path]) -> list[Path]:
        """Take all others out of use, at once; returns what is to be removed."""
        aside = []
        for path in self._each():
            if path in kept or path.name.startswith(_NEW):
                continue
            gone = path if path.name.startswith(_GONE) else path.with_name(_GONE + path.name)
            if gone != path:
                os.rename(path, gone)
            aside.append(gone)
        return aside

    def remains(self, kept: Collection[Path]) -> list[Path]:
        """The same for a runner that has made nothing yet: what an earlier one was making goes, too. A tree that stood
        half on the disk when the power went is made anew."""
        drafts = [path for path in self._each() if path.name.startswith(_NEW)]
        return [*drafts, *self.put_aside(kept)]

    def _each(self) -> Iterator[Path]:
        return iter(list(self.folder.iterdir()) if self.folder.is_dir() else ())


def _fill(root: Path, tree: Tree, contents: Path) -> None:
    _folder(root)
    made = {""}
    for path, entry in sorted(tree.items()):
        inner = [path] if entry.kind == "dir" else []
        for folder in (*reversed(list(parents(path))), *inner):
            if folder not in made:
                made.add(folder)
                _folder(root / folder)
        if entry.kind == "link":
            os.symlink(entry.target, root / path)
        elif entry.kind == "file":
            _file(contents / entry.digest, root / path, entry.executable)


def _folder(path: Path) -> None:
    path.mkdir()
    path.chmod(_MODE)


def _file(content: Path, path: Path, executable: bool) -> None:
    if not executable:
        try:
            os.link(content, path)
            return
        except OSError as error:
            # A file has so many names at most.
            if error.errno != errno.EMLINK:
                raise
    shutil.copyfile(content, path)
    path.chmod(_MODE if executable else 0o666)
