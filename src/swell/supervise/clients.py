"""For which processes does a server run that was only started for clients? It ends after the last of them."""

from __future__ import annotations

import os

from swell.supervise.lock import Lock, holder, writing
from swell.wire.identity import identify, read
from swell.wire.paths import Home


def attach(home: Home, pid: int) -> bool:
    """Let the server on this state directory live as long as this process does. False: it is ending already."""
    identity = identify(pid)
    if identity is None:
        return False
    with writing(home):
        home.attached.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Complete at once: a server that finds half a note would take it for nobody's.
        fresh = home.attached / f"{pid}.new"
        identity.write(fresh)
        os.replace(fresh, home.attached / str(pid))
    # The server says "stopping" before it looks for the last time: either it sees us, or we see that.
    found = holder(home)
    return found is not None and found.state != "stopping"


def detach(home: Home, pid: int) -> None:
    """This process needs the server no more."""
    (home.attached / str(pid)).unlink(missing_ok=True)


def check_still_wanted(home: Home, lock: Lock) -> bool:
    """Does any attached process live? If not, the lock says "stopping" from then on."""
    if _any_alive(home):
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
