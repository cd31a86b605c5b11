"""For which processes does a server run that was only started for clients? It ends after the last of them."""

from __future__ import annotations

from contextlib import suppress

from swell.model.errors import SwellError
from swell.supervise.lock import Lock, holder, writing
from swell.wire.attached import note
from swell.wire.identity import identify, read
from swell.wire.paths import Home


def attach(home: Home, pid: int) -> bool:
    """Let the server on this state directory live as long as this process does. False: it is ending already."""
    identity = identify(pid)
    if identity is None:
        return False
    with writing(home):
        note(home, identity)
    # The server says "stopping" before it looks for the last time: either it sees us, or we see that.
    found = holder(home)
    return found is not None and found.state != "stopping"


def detach(home: Home, pid: int) -> None:
    """This process needs the server no more."""
    (home.attached / str(pid)).unlink(missing_ok=True)


def check_still_wanted(home: Home, lock: Lock) -> bool:
    """Does any attached process live? If not, the lock says "stopping" from then on.

    One that was kept (`wire.attached`) is wanted for ever, and its lock says that it is nobody's in particular.
    """
    us = lock.holder.identity
    if lock.holder.attached and read(home.attached / str(us.pid)) == us:
        with suppress(SwellError):
            lock.say(lock.holder.state, attached=False)
    if not lock.holder.attached or _any_alive(home):
        return True
    state = lock.holder.state
    lock.say("stopping")
    if _any_alive(home):
        lock.say(state)
        return True
    return False


def ending(home: Home) -> bool:
    """Will the server here end by itself soon: told to stop, or started for clients that are gone?"""
    found = holder(home)
    return found is not None and (found.state == "stopping" or (found.attached and not _any_alive(home)))


def forget(home: Home) -> None:
    """Remove all notes: the server has ended."""
    for path in home.attached.glob("*"):
        path.unlink(missing_ok=True)
    if home.attached.exists():
        home.attached.rmdir()


def _any_alive(home: Home) -> bool:
    alive = False
    for path in home.attached.glob("[0-9]*"):
        if path.suffix:
            continue
        identity = read(path)
        if identity is not None and identity.alive:
            alive = True
        else:
            path.unlink(missing_ok=True)
    return alive
