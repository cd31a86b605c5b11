"""A program that Debian or Ubuntu packs, for tests: the one that is installed, or one that is only unpacked.

Nothing is installed, so that no service begins to run and no user need be root.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

APT_S = 280.0
"""For a mirror that is slow."""


@contextmanager
def unpacked(package: str, program: str) -> Iterator[None]:
    """Inside, `program` is found on the PATH, and the libraries that it needs are found too."""
    place = _place(package, program)
    before = {name: os.environ.get(name) for name in ("PATH", "LD_LIBRARY_PATH")}
    try:
        os.environ["PATH"] = f"{place.programs}:{before['PATH']}"
        os.environ["LD_LIBRARY_PATH"] = place.libraries
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Place(NamedTuple):
    """Where a package was unpacked."""

    programs: Path
    libraries: str
    """As LD_LIBRARY_PATH has it."""


@cache
def _place(package: str, program: str) -> Place:
    """It stays until the end of this process: to fetch it takes long, and several tests need it."""
    folder = Path(tempfile.mkdtemp(prefix="sw-deb", dir="/tmp"))
    _REMOVED_AT_THE_END.append(folder)
    # Who is root runs some programs as nobody.
    folder.chmod(0o755)
    found = unpack(package, program, folder)
    return Place(found.parent, ":".join({str(path.parent) for path in folder.rglob("*.so*")}))


_REMOVED_AT_THE_END: list[Path] = []


@atexit.register
def remove_unpacked() -> None:
    """All of it. Processes of a test run call it by themselves: not each of them ends as others do."""
    _place.cache_clear()
    while _REMOVED_AT_THE_END:
        shutil.rmtree(_REMOVED_AT_THE_END.pop(), ignore_errors=True)


def unpack(package: str, program: str, folder: Path, alone: bool = False) -> Path:
    """The program, with all that its package needs, or with that package `alone`. Fails where it cannot be had."""
    told = ""
    for words in ([], ["apt-get", "update", "-q"]):
        # The lists may be missing or of an earlier version: they are only fetched then.
        told += _run(words, folder) if words else ""
        names = [package]
        if not alone:
            planned = _run(["apt-get", "-s", "--no-install-recommends", "install", package], folder)
            names = re.findall(r"^Inst (\S+)", planned, re.MULTILINE)
            told += planned
        told += _run(["apt-get", "download", "-q", *names], folder)
        for packed in folder.glob("*.deb"):
            told += _run(["dpkg", "-x", str(packed), str(folder)], folder)
            packed.unlink()
        found = [path for path in folder.rglob(f"bin/{program}") if os.access(path, os.X_OK) and path.is_file()]
        if found:
            return found[0]
    raise AssertionError(f"This test needs {program}: apt-get install {package}. What was tried:\n{told}")


def _run(words: list[str], folder: Path) -> str:
    """What it said; that it failed shows by what is not there."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=APT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(words)}: {error}\n"
    return f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}\n"
