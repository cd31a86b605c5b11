"""What does a plan in the making know of a pool that gets replicas, and of one that finds no room for them?"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from swell.decide.spare import Spare, Use
from swell.model.replica import Replica
from swell.model.resources import Needs
from swell.model.workload import Revision


class Growth(msgspec.Struct):
    """A pool that gets replicas: what is there of it, and what is added meanwhile."""

    pool: str
    revision: Revision
    templates: list[Replica]
    full: set[str]
    """Nodes on which another replica must not even be wished for: it owns a port there already."""
    forked: bool
    """Are its replicas forked?"""
    have: int
    """Replicas it has."""
    needed: list[str]
    """Why, for each to start; the next one last."""
    reserve: list[str]
    """The same for those that nobody waits for."""
    priorities: list[int] = []
    """Of the call that each gang of `needed` is for: the higher has its turn first, and may have the room of a lower
    one."""

    @property
    def priority(self) -> int:
        """Of the next one."""
        return self.priorities[-1] if self.priorities else 0


class Short(NamedTuple):
    """A replica that found no room."""

    pool: str
    needs: Needs
    nodes: tuple[str, ...]
    """Where it may be."""
    why_not: str
    """Why it is on none of them now."""


class Choice(NamedTuple):
    """A node on which room can be made."""

    at: float
    """From then on."""
    use: Use
    """Of the most useful that goes."""
    node: str
    going: list[Spare]
