"""What did a replica change in a volume since it last committed? Read from the folder in which the kernel keeps it.

An overlay keeps in its upper folder each file that was written, whole; a mark (a device 0:0) in place of one that was
removed; and folders, of which one that replaced another hides all that was in it (`opaque`). What was committed stays
there: only what is other than at the last commit is a change, so that a later one of somebody else is not undone.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from swell.model.errors import SwellError
from swell.model.volume import Change, Entry, Tree, clean, parents, pointing
from swell.runtime.runner.sandbox import kernel

Fingerprint = tuple[str | int, ...]
"""Tells whether what is at a path is as it was."""
Fingerprints = dict[str, Fingerprint]

GONE: Fingerprint = ("gone",)
UNSURE = -1
"""In place of when a file changed: it is to be read anew the next time."""
_FILE_MARKS = 5
"""Of a file; what is known of one that was committed has its digest and whether it is executable, too."""
_CLOCK_OF_FILES = 5
"""CLOCK_REALTIME_COARSE"""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPAQUE = "trusted.overlay.opaque"
_PIECE = 1 << 20
_SYNC_EACH_MAX = 8
"""More files than that are put on disk by one call for the whole file system."""


def seen(upper: Path, base: Collection[str], folders: Collection[str], since_ns: int) -> Fingerprints:
    """What is kept there, by path. `base`: paths of what is below it, `folders`: those that are folders. `since_ns`:
    `clock_ns()` before; what changed since then may change once more and look the same.

    SwellError bad_path for a name that no volume can have.
    """
    found: Fingerprints = {}
    hidden: set[str] = set()
    there: set[str] = set()
    for path, name, folder, status in _below(upper):
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            hidden.add(path)
        elif stat.S_ISDIR(status.st_mode):
            there.add(path)
            if clean(path) not in folders:
                found[path] = ("dir",)
            if _is_opaque(name, folder):
                hidden.add(path)
        elif stat.S_ISREG(status.st_mode):
            found[clean(path)] = _of_file(status, since_ns)
        elif stat.S_ISLNK(status.st_mode):
            # It may be gone since the folder was read.
            with suppress(FileNotFoundError):
                found[clean(path)] = ("link", pointing(path, os.readlink(name, dir_fd=folder)))
    # Also folders of which the tree has no entry, since they only hold something. One that is kept anew needs no word.
    for path in {*base, *folders} if hidden else ():
        gone = path in hidden or not hidden.isdisjoint(parents(path))
        if gone and path not in found and path not in there:
            found[path] = GONE
    return found


Found = tuple[str, str, int, os.stat_result]
"""A path, its last name, a descriptor of the folder that is in, and its status."""


def _below(top: Path) -> Iterator[Found]:
    """All that lies in a folder, but what goes meanwhile. No link is followed, whatever others put there."""
    folder = os.open(top, _FOLDER)
    try:
        yield from _walk(folder, "")
    finally:
        os.close(folder)


def _walk(folder: int, path: str) -> Iterator[Found]:
    for name in sorted(os.listdir(folder)):
        inner = f"{path}/{name}" if path else name
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            yield inner, name, folder, status
            if stat.S_ISDIR(status.st_mode):
                below = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(below, inner)
                finally:
                    os.close(below)


def _is_opaque(name: str, folder: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{folder}/{name}", _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def clock_ns() -> int:
    """As the kernel stamps files: it goes on in ticks, and a file may be written again in the one it was looked at."""
    return time.clock_gettime_ns(_CLOCK_OF_FILES)


def _of_file(status: os.stat_result, since_ns: int) -> Fingerprint:
    # Whoever writes may set any other time but this.
    changed = status.st_ctime_ns if status.st_ctime_ns < since_ns else UNSURE
    return ("file", status.st_ino, status.st_size, status.st_mtime_ns, changed)


def change(
    now: Mapping[str, Fingerprint],
    committed: Mapping[str, Fingerprint],
    base: Mapping[str, Entry],
    sub_path: str,
    entry_of: Callable[[str, Fingerprint], Entry | None],
) -> tuple[Change, Fingerprints]:
    """What is other now than when it was last committed, by paths in the volume; and what the next commit is to know.
    `entry_of` keeps a file's content, and is None for one that is gone by then.

    A file that was written anew with what it had is none: that would undo what somebody else made of it.
    """
    put: list[tuple[str, Entry]] = []
    known: Fingerprints = {}
    for path, mark in sorted(now.items()):
        before = committed.get(path, ())
        if mark == GONE or (before[: len(mark)] == mark and mark[-1] != UNSURE):
            known[path] = mark if mark == GONE else before
        elif (entry := entry_of(path, mark)) is None:
            # What was committed of it is to be removed by the next commit, which finds it gone.
            known |= {path: before} if before else {}
        else:
            held = _held(entry)
            known[path] = (*mark, *held[1:]) if held[0] == "file" else mark
            if held != (_noted(before) if before else _held(base[path]) if path in base else ()):
                put.append((path, entry))
    removed = [path for path, mark in now.items() if mark == GONE and committed.get(path) != GONE]
    removed += [path for path, mark in committed.items() if mark != GONE and path not in now]
    top = f"{sub_path}/" if sub_path else ""
    named = tuple((top + path, entry) for path, entry in put)
    return Change(named, tuple(sorted(top + path for path in removed))), known


def _held(entry: Entry) -> Fingerprint:
    """What a path has, whenever it was written."""
    if entry.kind == "file":
        return ("file", entry.digest, int(entry.executable))
    return ("link", entry.target) if entry.kind == "link" else ("dir",)


def _noted(known: Fingerprint) -> Fingerprint:
    """The same of what an earlier commit left."""
    return ("file", *known[_FILE_MARKS:]) if known[0] == "file" else known


def taken(upper: Path) -> int:
    """Bytes on disk of what is kept there. OSError, RecursionError where it is too deep to be looked at."""

    # A reload may have removed it meanwhile.
    with suppress(FileNotFoundError):
        return sum(status.st_blocks * 512 for *_, status in _below(upper))
    return 0


def below(tree: Tree, sub_path: str) -> tuple[Tree, set[str]]:
    """What is in a folder of a version, seen from there; and all paths there that are folders."""
    top = f"{sub_path}/" if sub_path else ""
    inner = {path[len(top) :]: entry for path, entry in tree.items() if path.startswith(top)}
    folders = {path for path, entry in inner.items() if entry.kind == "dir"}
    return inner, folders | {folder for path in inner for folder in parents(path)}


class Contents:
    """Puts what is in files of one folder where contents of a namespace are, durably."""

    def __init__(self, files: Path, drafts: Path) -> None:
        """`drafts`: a folder on the same file system."""
        self._files = files
        self._drafts = drafts
        self._kept: list[tuple[Path, str]] = []

    def keep(self, folder: int, path: str) -> Entry:
        """Copy one of the folder of this descriptor; returns what a tree has of it. It counts once `settle` was called.

        Whoever changes things there, in a sandbox perhaps, must not come to read with our rights what is elsewhere.
        """
        self._drafts.mkdir(parents=True, exist_ok=True, mode=0o700)
        reading = kernel.open_beneath(folder, path)
        descriptor, name = tempfile.mkstemp(dir=self._drafts)
        draft = Path(name)
        try:
            digest, size = hashlib.sha256(), 0
            with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(descriptor, "wb", buffering=0) as file:
                # Who writes on and on would keep us here for ever. What comes now is another change.
                status = os.fstat(source.fileno())
                while piece := source.read(min(_PIECE, status.st_size - size)):
                    digest.update(piece)
                    size += len(piece)
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
                os.fchmod(file.fileno(), 0o666)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        named = f"sha256-{digest.hexdigest()}"
        self._kept.append((draft, named))
        return Entry(digest=named, size=size, executable=bool(status.st_mode & 0o100), at=status.st_mtime)

    def settle(self, wanted: Collection[str]) -> None:
        """Those of these digests are on disk, and have their names."""
        self.drop(wanted)
        if not self._kept:
            return
        if len(self._kept) <= _SYNC_EACH_MAX:
            for draft, _ in self._kept:
                _with_descriptor(draft, os.fsync)
        else:
            _with_descriptor(self._drafts, kernel.sync_all)
        self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
        for draft, digest in self._kept:
            os.replace(draft, self._files / digest)
        _with_descriptor(self._files, os.fsync)
        self._kept.clear()

    def drop(self, wanted: Collection[str] = ()) -> None:
        """Forget what was not settled, but these digests."""
        for draft, digest in self._kept:
            if digest not in wanted:
                draft.unlink(missing_ok=True)
        self._kept = [(draft, digest) for draft, digest in self._kept if digest in wanted]


def _with_descriptor(path: Path, do: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        do(descriptor)
    finally:
        os.close(descriptor)


def entries(upper: Path, contents: Contents) -> Callable[[str, Fingerprint], Entry | None]:
    """How what is in a folder becomes what a tree says of it."""

    def entry_of(path: str, mark: Fingerprint) -> Entry | None:
        if mark[0] == "dir":
            return Entry(kind="dir")
        if mark[0] == "link":
            return Entry(kind="link", target=str(mark[1]))
        folder = os.open(upper, _FOLDER)
        try:
            return contents.keep(folder, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            words = f"{path} could not be committed: {error.strerror}. Nothing was."
            raise SwellError("state_failed", words, status=500) from error
        finally:
            os.close(folder)

    return entry_of
