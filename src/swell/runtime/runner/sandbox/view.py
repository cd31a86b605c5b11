"""What does a sandboxed process see of the node's files? A list, and nothing that is not on it.

The system's libraries, the interpreter with its packages, the runtime, the source, the folders its author named, and
the folder with the socket over which it finds the next runner. No home folders, no state directory, no other's /tmp.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

import swell
from swell.model.errors import SwellError
from swell.model.isolation import Isolation
from swell.wire.paths import Home

SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr")
SETTINGS = (
    "alternatives", "ca-certificates", "fonts", "group", "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki", "protocols",
    "resolv.conf", "services", "ssl", "timezone",
)  # fmt: skip
"""Of /etc: how names, certificates, libraries and times are found."""
_COVERED = (*SYSTEM, "/")
"""What is in these is there, or never is: the root itself."""
DEVICES = ("null", "zero", "full", "random", "urandom")


class View(msgspec.Struct, frozen=True):
    """Paths of the node, at which a sandboxed process finds the same."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    scratch: tuple[str, ...]
    """Folders that are its own and empty: all of them one."""


def of(isolation: Isolation, python: Path, folder: Path, home: Home, scratch: str) -> View:
    """What a process sees that `python` runs, with its source in `folder`. `scratch`: what TMPDIR says.

    Raises SwellError where a folder that was named is not there, or where one would give the server's own away.
    """
    for path in (*isolation.readable, *isolation.writable):
        _check_named(path, home)
    own = (Path(swell.__file__).parent, folder, home.runner_socket.parent)
    seen = dict.fromkeys((*_interpreter(python, home), *map(str, own)))
    readable = [path for path in (*seen, *isolation.readable) if not _within(path, _COVERED)]
    private = ("/tmp", "/var/tmp", *([scratch] if scratch.startswith("/") else []))
    return View(tuple(_outermost(readable)), isolation.writable, tuple(dict.fromkeys(private)))


def _check_named(path: str, home: Home) -> None:
    if not os.path.isdir(path):
        raise SwellError("environment", f"@isolated names the folder {path!r}, which is not on this node: make it.")
    real, root = os.path.realpath(path), os.path.realpath(home.root)
    if _shows(path, home) or _within(real, (root,)):
        raise _refused(f"@isolated names the folder {path!r}", home, "name another")


def _shows(path: str, home: Home) -> bool:
    """Is the server's state directory in this folder, or is this in what is the server's there?"""
    real, root = os.path.realpath(path), os.path.realpath(home.root)
    theirs = [os.path.realpath(home.root / name) for name in home.names()]
    holds = any(_within(each, (real,)) for each in (root, *theirs))
    return real == "/" or holds or _within(real, tuple(theirs))


def _refused(found: str, home: Home, way_out: str) -> SwellError:
    root = os.path.realpath(home.root)
    return SwellError("environment", f"{found}, and the server's state directory {root} is there: {way_out}.")


def _interpreter(python: Path, home: Home) -> Iterator[str]:
    """Folders an interpreter needs: its environment, the Python that one was made of, and what its path files add.

    What was installed into an environment that was built here adds nothing outside of it: it is not to be trusted,
    and may have brought such files along.
    """
    environment = python.parent.parent
    is_built = environment.parent == home.environments
    if is_built:
        yield str(environment)
    found = [*_made_of(environment, python), *([] if is_built else [environment, *_added(environment)])]
    for path in (os.path.normpath(each) for each in found):
        if os.path.isdir(path) and not _within(path, _COVERED):
            if _shows(path, home):
                uses = f"The interpreter {python} uses the folder {path!r}"
                raise _refused(uses, home, "start the server on another one (SWELL_HOME), or use another interpreter")
            yield path


def _made_of(environment: Path, python: Path) -> Iterator[Path]:
    with suppress(OSError, UnicodeDecodeError):
        for line in (environment / "pyvenv.cfg").read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home":
                yield from (Path(value.strip()).parent, Path(os.path.realpath(value.strip())).parent)
    yield Path(os.path.realpath(python)).parent.parent


def _added(environment: Path) -> Iterator[Path]:
    for listed in environment.glob("lib/python*/site-packages/*.pth"):
        with suppress(OSError, UnicodeDecodeError):
            yield from (Path(line) for line in listed.read_text().splitlines() if line.startswith("/"))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    """Is it one of them, or (the root apart) in one of them?"""
    return any(path == folder or (folder != "/" and path.startswith(folder.rstrip("/") + "/")) for folder in folders)


def _outermost(paths: list[str]) -> Iterator[str]:
    """Each folder that is there, but not those within another of them."""
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        if os.path.isdir(path) and not _within(path, tuple(kept)):
            kept.append(path)
    yield from kept
