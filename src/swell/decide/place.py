"""Which node takes this replica, and if none: what is nearest, what could give way, and can any ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from swell.model.node import Node
from swell.model.resources import Needs, Room

T = TypeVar("T")


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
            nearest = lacking
            continue
        rank = (-prefer(node), room.memory_mib, node)
        if best is None or rank < best:
            best = rank
    return (best[2], "") if best is not None else (None, nearest)


def make_room(needs: Needs, room: Room, idle: Iterable[tuple[T, Needs]]) -> list[T] | None:
    """Which of `idle` (each with what it holds) must go so that `needs` fit; None when they do not fit even if all go.

    The first ones go first, and of those nobody whose going does not help. `room` is spent.
    """
    going: list[tuple[T, Needs]] = []
    left = iter(idle)
    while room.lacks(needs) is not None:
        following = next(left, None)
        if following is None:
            return None
        going.append(following)
        room.give_back(following[1])
    needed: list[T] = []
    for each, held in reversed(going):
        room.take(held)
        if room.lacks(needs) is not None:
            room.give_back(held)
            needed.append(each)
    return needed[::-1]


def never_fits(needs: Needs, nodes: Iterable[Node]) -> str | None:
    """Why no node could take this replica even when empty; None when one could (or none is known yet)."""
    reason = None
    for node in nodes:
        reason = node.room().lacks(needs)
        if reason is None:
            return None
    return reason
