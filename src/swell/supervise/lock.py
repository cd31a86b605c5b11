"""Who serves this state directory? One server at a time, held by an flock and named in the locked file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from swell.model.errors import SwellError
from swell.wire.identity import Identity, myself
from swell.wire.paths import Home, local_url

State = Literal["starting", "ready", "stopping"]

_WRITTEN_WITHIN_S = 1.0


class Holder(NamedTuple):
    """The server on a state directory, as it says of itself in the lock file."""

    pid: int
    start_ticks: int
    state: State = "starting"
    host: str = ""
    port: int = 0
    """0 until it listens."""
    attached: bool = False
    """It was started for clients and ends after the last of them; no longer so once it is kept for others."""
    end_s: float = 60.0
    """How long it may take to end, once told to."""
    waits_for: str = ""
    """What its end waits for, in words."""
    grpc_port: int = 0
    """Where it speaks gRPC; 0: it does not."""

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_ticks)

    @property
    def url(self) -> str:
        """What clients on this machine call."""
        return local_url(self.host, self.port)


def holder(home: Home) -> Holder | None:
    """The live server on this state directory; None when there is none."""
    try:
        found = Holder(**json.loads(home.lock.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.identity.alive else None


class Lock:
    """The state directory, held by this process until `release` or its end."""

    def __init__(self, home: Home, attached: bool = False) -> None:
        """Take it. Raises SwellError when another server has it, or when it cannot be written."""
        me = myself()
        self.holder = Holder(me.pid, me.start_ticks, attached=attached)
        self._home = home
        self._fresh = not home.root.exists()
        self._fd = self._open()
        try:
            with writing(home), _taken(home):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                while not _is_at(home.lock, self._fd):
                    # A start that was refused took it away before it was ours.
                    gone, self._fd = self._fd, self._open()
                    os.close(gone)
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.say("starting")
        except SwellError:
            os.close(self._fd)
            raise

    def _open(self) -> int:
        with writing(self._home):
            self._home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def say(self, state: State, **more: Any) -> None:
        """Write what the server is at now, for others to read; `more` are further fields of `Holder` that changed."""
        self.holder = self.holder._replace(state=state, **more)
        text = json.dumps(self.holder._asdict()).encode()
        with writing(self._home):
            # One write, and only then the cut: a reader never finds half of it.
            os.pwrite(self._fd, text.ljust(os.fstat(self._fd).st_size), 0)
            os.ftruncate(self._fd, len(text))

    @property
    def there(self) -> bool:
        """Is it still the state directory's? Not where that was removed, or another is in its place. One that cannot be
        looked at now (a file system elsewhere that does not answer, say) is."""
        try:
            return _is_at(self._home.lock, self._fd)
        except OSError:
            return True

    def release(self) -> None:
        """Give it back. The file stays, empty; but of a directory that was made for a start which was refused before
        it listened, nothing stays."""
        if self._fresh and not self.holder.port:
            shutil.rmtree(self._home.root, ignore_errors=True)
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _is_at(path: Path, fd: int) -> bool:
    """Is the open file the one that has this path?"""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def writing(home: Home) -> Iterator[None]:
    """Around what is written to the state directory: why it cannot be used is said, and the way out."""
    try:
        yield
    except OSError as error:
        what, mend = _wrong(home.root, error)
        other = f"{mend}, or set SWELL_HOME" if mend else "Set SWELL_HOME"
        raise SwellError(
            "home_unwritable",
            f"The state directory {home.root} cannot be used: {what}. {other} (or --home) to another.",
        ) from None


def _wrong(root: Path, error: OSError) -> tuple[str, str]:
    """What is wrong with it, and what mends that; empty where only another directory does."""
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return said, "Free some space"
    # The first that is there at all, from the directory up.
    there = next(path for path in (root, *root.parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        what = "a file, not a directory" if os.path.exists(there) else "a link to what is not there"
        return f"{'it' if there == root else there} is {what}", "Move it away"
    denied = error.errno in (errno.EACCES, errno.EROFS)
    if there != root:
        return f"it is not there, and cannot be made in {there}: {said}", "Make it" if denied else ""
    if denied:
        return said, "Make it writable"
    # Something below it.
    return f"{error.filename}: {said}" if error.filename else said, ""


@contextmanager
def _taken(home: Home) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise _held(home) from None


def _held(home: Home) -> SwellError:
    until = time.monotonic() + _WRITTEN_WITHIN_S
    while (found := holder(home)) is None and time.monotonic() < until:
        time.sleep(_WRITTEN_WITHIN_S / 50)
    place = f" --home {home.root}"
    if found is None:
        return SwellError("home_in_use", f"Another process holds {home.lock}. Choose another --home.", status=409)
    where = f" at {found.url}" if found.port else ""
    return SwellError(
        "home_in_use",
        f"A server already runs on {home.root}: pid {found.pid}{where}. "
        f"Stop it with `swell down{place}`, or choose another --home.",
        status=409,
    )
