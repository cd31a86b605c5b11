"""Which node takes this replica, and if none: what is nearest, and can any ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from swell.model.node import Node
from swell.model.resources import Needs, Room


def place(needs: Needs, rooms: Mapping[str, Room], prefer: Callable[[str], int]) -> tuple[str | None, str]:
    """(node, "") or (None, why not).

    Among the nodes it fits, the one with the highest `prefer` (a template of the pool is there, say),
    then the one it leaves least memory free on, so that large holes stay whole.
    """
    best: tuple[int, float, str] | None = None
    nearest = "no node is connected"
    for node in sorted(rooms):
        room = rooms[node]
        lacking = room.lacks(needs)
        if lacking is not None:
            nearest = f"{node} {lacking}"
            continue
        rank = (-prefer(node), room.memory_mib, node)
        if best is None or rank < best:
            best = rank
    return (best[2], "") if best is not None else (None, nearest)


def never_fits(needs: Needs, nodes: Iterable[Node]) -> str | None:
    """Why no node could take this replica even when empty; None when one could (or none is known yet)."""
    reason = None
    for node in nodes:
        lacking = node.room().lacks(needs)
        if lacking is None:
            return None
        reason = f"{node.id} {lacking}, even when empty"
    return reason
