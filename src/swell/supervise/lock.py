"""Who serves this state directory? One server at a time, held by an flock and named in the locked file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    """It was started for clients and ends after the last of them."""
    end_s: float = 60.0
    """How long it may take to end, once told to."""
    waits_for: str = ""
    """What its end waits for, in words."""

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
        with writing(home):
            home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with writing(home), _taken(home):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.say("starting")
        except SwellError:
            os.close(self._fd)
            raise

    def say(self, state: State, **more: Any) -> None:
        """Write what the server is at now, for others to read; `more` are further fields of `Holder` that changed."""
        self.holder = self.holder._replace(state=state, **more)
        text = json.dumps(self.holder._asdict()).encode()
        with writing(self._home):
            # One write, and only then the cut: a reader never finds half of it.
            os.pwrite(self._fd, text.ljust(os.fstat(self._fd).st_size), 0)
            os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Give it back. The file stays, empty: removing it could take it from under a server that waits for it."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


@contextmanager
def writing(home: Home) -> Iterator[None]:
    """Around what is written to the state directory: one that is read-only, full, or no directory, is said to be."""
    try:
        yield
    except OSError as error:
        mend = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make it writable"
        raise SwellError(
            "home_unwritable",
            f"The state directory {home.root} cannot be used: {error.strerror or error}. "
            f"{mend}, or set SWELL_HOME (or --home) to another.",
        ) from None


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
