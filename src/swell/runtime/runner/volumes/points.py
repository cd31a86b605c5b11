"""Which folders were made on this node for volumes to be mounted on? Those that were not there, noted to be removed.

What is mounted is seen by its replica alone; the empty folder below it is seen by all. It is removed when nothing has a
volume there any more: never before, since that would take the volume away from under those that have.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from swell.model.errors import SwellError
from swell.wire.paths import Home


def check(home: Home, paths: Iterable[str]) -> None:
    """SwellError where one of them must not be mounted on."""
    root = str(home.root)
    for path in paths:
        if _within(root, path) or _within(path, root):
            where = "in there" if _within(root, path) else root
            words = f"A volume cannot be at {path}: the server's state directory is {where}. Choose another path."
            raise SwellError("environment", words)


def make(home: Home, paths: Iterable[str]) -> None:
    """Each of them is a folder, from here on. SwellError where one cannot be made."""
    for path in paths:
        _make(home, Path(path))


def _make(home: Home, path: Path) -> None:
    missing: list[Path] = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    if missing:
        home.mounts.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Noted first: a folder that nobody knows of would stay.
        with open(_list(home), "a", encoding="utf-8") as listed:
            listed.writelines(f"{each}\n" for each in reversed(missing))
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        words = f"{each} cannot be made, for a volume to be mounted on: {error.strerror}."
        raise SwellError("environment", words) from error
    if not (missing[0] if missing else path).is_dir():
        raise SwellError("environment", f"A volume cannot be at {path}, which is a file on this node.")


def remove(home: Home, used: Collection[str]) -> None:
    """Those that nothing has a volume at, or below, and that are empty."""
    try:
        made = dict.fromkeys(_list(home).read_text(encoding="utf-8").splitlines())
    except OSError:
        return
    # Another server of this machine may have its volumes there, too.
    mounted = {*used, *_mounted()}
    inner_first = reversed(list(made))
    left = [path for path in inner_first if any(_within(each, path) for each in mounted) or not _removed(path)]
    if left:
        _list(home).write_text("".join(f"{path}\n" for path in reversed(left)), encoding="utf-8")
    else:
        _list(home).unlink(missing_ok=True)


def _mounted() -> Iterator[str]:
    """Where anything is mounted for any process."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile; and elsewhere than on Linux there is nothing to be found.
        with suppress(OSError):
            namespace = os.readlink(process / "ns" / "mnt")
            if namespace not in seen:
                lines = (process / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
                yield from (line.split()[4].replace("\\040", " ") for line in lines)
                seen.add(namespace)


def _removed(path: str) -> bool:
    """True where it is ours no more: gone, or somebody put something there."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return bool(os.path.isdir(path) and os.listdir(path))
    return True


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _list(home: Home) -> Path:
    return home.mounts / "points"
