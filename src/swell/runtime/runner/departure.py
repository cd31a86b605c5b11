"""Is this machine about to go, and when? What `swell node leave` noted down says so, and what runs here is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from swell.wire.child import Leaving


class Link(Protocol):
    """The way to a replica."""

    def send(self, message: Leaving) -> None: ...


class Telling(Protocol):
    """A replica, as far as it can be told."""

    @property
    def keeps(self) -> bool:
        """Its runtime keeps queued calls, as far as is known yet: it understands what it is told."""
        ...

    @property
    def link(self) -> Link | None: ...

    warned: object | None
    """The link by which it was told last that its machine goes; None: it was told since that this stays, or
    nothing."""


def leaving_at(path: Path) -> float | None:
    """When the node goes (seconds since the epoch), where this file says that it does."""
    try:
        at = float(path.read_text())
    except (OSError, ValueError):
        return None
    return at if math.isfinite(at) else None


def tell(children: Iterable[Telling], leaving: bool) -> None:
    """Say to those that do not know yet that their machine goes, or that it stays after all. To be called again and
    again: one that cannot be told now is told later."""
    for child in children:
        # By another link than before: it has forgotten what it was told.
        knows = (child.warned is child.link) == leaving
        if child.link is None or not child.keeps or knows:
            continue
        with suppress(OSError):
            child.link.send(Leaving(leaving))
            child.warned = child.link if leaving else None
