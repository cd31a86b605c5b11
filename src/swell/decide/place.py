"""Which node takes this replica, or which ones a gang, and if none: what is nearest, what could give way, and can any
ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    nearest = "no node is connected, or none that stays"
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


def place_all(
    needs: Needs, rooms: Mapping[str, Room], most: int, prefer: Callable[[str], int]
) -> tuple[list[str], str]:
    """Nodes for as many replicas as fit beside each other, `most` at most; and why it is no more. `rooms` is spent.

    They are alike, so who of them is where makes no difference to how many fit.
    """
    nodes: list[str] = []
    while len(nodes) < most:
        node, why_not = place(needs, rooms, prefer)
        if node is None:
            return nodes, why_not
        rooms[node].take(needs)
        nodes.append(node)
    return nodes, ""


def capacity(needs: Needs, rooms: Iterable[Room]) -> int:
    """How many replicas fit beside each other."""
    return sum(room.times(needs) for room in rooms)


def holds(needs: Needs, rooms: Mapping[str, Room], count: int) -> bool:
    """Is there room for so many replicas beside each other?"""
    return capacity(needs, rooms.values()) >= count


def make_rooms(
    needs: Needs, rooms: Mapping[str, Room], count: int, less: Iterable[tuple[T, Sequence[tuple[str, Needs]]]]
) -> list[T] | None:
    """Which of `less`, each with what it holds where, must go so that so many replicas fit together; None when they do
    not even if all go.

    The first ones go first, and of those nobody whose going does not help. `rooms` is spent.
    """
    going: list[tuple[T, Sequence[tuple[str, Needs]]]] = []
    left = iter(less)
    while not holds(needs, rooms, count):
        following = next(left, None)
        if following is None:
            return None
        going.append(following)
        for node, held in following[1]:
            rooms[node].give_back(held)
    needed: list[T] = []
    for each, parts in reversed(going):
        for node, held in parts:
            rooms[node].take(held)
        if not holds(needs, rooms, count):
            for node, held in parts:
                rooms[node].give_back(held)
            needed.append(each)
    return needed[::-1]


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
