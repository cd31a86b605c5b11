"""How does a client tell a server that was started for clients how long it is needed? By a note in its directory.

A note names a process: the server runs as long as one of those lives. The server's own says: until it is stopped.
"""

from __future__ import annotations

import os
from typing import Literal

from swell.wire.identity import Identity
from swell.wire.paths import Home

Stay = Literal["stays", "kept", "ends"]
"""What becomes of a server once its clients are gone: it stays as ever, or from now on, or it is ending already."""


def note(home: Home, process: Identity) -> None:
    """Let the server on this state directory live as long as this process does."""
    home.attached.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete at once: a server that finds half a note would take it for nobody's.
    fresh = home.attached / f"{process.pid}.new"
    process.write(fresh)
    os.replace(fresh, home.attached / str(process.pid))


def keep(home: Home) -> Stay:
    """Let the server on this state directory outlive those it was started for."""
    server, for_clients = home.server(), home.for_clients()
    if for_clients:
        note(home, server)
    # The server says "stopping" before it looks for the last time: either it sees the note, or we see that.
    if home.ending() is not None or not server.alive:
        return "ends"
    return "kept" if for_clients else "stays"
