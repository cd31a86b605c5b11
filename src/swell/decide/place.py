"""Which node takes this replica, or which ones a gang, and if none: what is nearest, what could give way, and can any
ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from swell.model.node import Node
from swell.model.resources import Held, Needs, Room

T = TypeVar("T")

NO_NODE = "no node is connected, or none that stays"


def place(needs: Needs, rooms: Mapping[str, Room], prefer: Callable[[str], int]) -> tuple[str | None, str]:
    """(node, "") or (None, why not).

    Among the nodes it fits, those with the GPUs that it would rather have; of these the one with the highest `prefer`
    (a template of the pool is there, say), then the one with the fewest free GPUs, and then the one it leaves least
    memory free on, so that large holes stay whole.
    """
    best: tuple[int, int, int, float, str] | None = None
    nearest = NO_NODE
    for node in sorted(rooms):
        room = rooms[node]
        lacking = room.lacks(needs)
        if lacking is not None:
            nearest = _nearer(needs, room, lacking, nearest)
            continue
        rank = (room.choice(needs) or 0, -prefer(node), room.free_gpus, room.memory_mib, node)
        if best is None or rank < best:
            best = rank
    return (best[-1], "") if best is not None else (None, nearest)


def _nearer(needs: Needs, room: Room, lacking: str, nearest: str) -> str:
    """What is said of a node where it does not fit: of one that has such GPUs rather than of another."""
    return nearest if needs.gpu and nearest != NO_NODE and not room.could(needs) else lacking


def place_all(
    needs: Needs, rooms: Mapping[str, Room], most: int, prefer: Callable[[str], int]
) -> tuple[list[tuple[str, Held]], str]:
    """Nodes for as many replicas as fit beside each other, `most` at most, with what each gets there; and why it is no
    more. `rooms` is spent.

    They are alike, so who of them is where makes no difference to how many fit.
    """
    placed: list[tuple[str, Held]] = []
    while len(placed) < most:
        node, why_not = place(needs, rooms, prefer)
        if node is None:
            return placed, why_not
        placed.append((node, rooms[node].take(needs)))
    return placed, ""


def capacity(needs: Needs, rooms: Iterable[Room]) -> int:
    """How many replicas fit beside each other."""
    return sum(room.times(needs) for room in rooms)


def holds(needs: Needs, rooms: Mapping[str, Room], count: int) -> bool:
    """Is there room for so many replicas beside each other?"""
    return capacity(needs, rooms.values()) >= count


def make_rooms(
    needs: Needs, rooms: Mapping[str, Room], count: int, less: Iterable[tuple[T, Sequence[tuple[str, Held]]]]
) -> list[T] | None:
    """Which of `less`, each with what it holds where, must go so that so many replicas fit together; None when they do
    not even if all go.

    The first ones go first, and of those nobody whose going does not help. `rooms` is spent.
    """
    going: list[tuple[T, Sequence[tuple[str, Held]]]] = []
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
            rooms[node].hold(held)
        if not holds(needs, rooms, count):
            for node, held in parts:
                rooms[node].give_back(held)
            needed.append(each)
    return needed[::-1]


def make_room(needs: Needs, room: Room, idle: Iterable[tuple[T, Held]]) -> list[T] | None:
    """Which of `idle` (each with what it holds) must go so that `needs` fit; None when they do not fit even if all go.

    The first ones go first, and of those nobody whose going does not help. `room` is spent.
    """
    going: list[tuple[T, Held]] = []
    left = iter(idle)
    while room.lacks(needs) is not None:
        following = next(left, None)
        if following is None:
            return None
        going.append(following)
        room.give_back(following[1])
    needed: list[T] = []
    for each, held in reversed(going):
        room.hold(held)
        if room.lacks(needs) is not None:
            room.give_back(held)
            needed.append(each)
    return needed[::-1]


def never_fits(needs: Needs, nodes: Iterable[Node]) -> str | None:
    """Why no node could take this replica even when empty; None when one could (or none is known yet)."""
    nearest = NO_NODE
    for node in nodes:
        room = node.room()
        lacking = room.lacks(needs)
        if lacking is None:
            return None
        nearest = _nearer(needs, room, lacking, nearest)
    return nearest if nearest != NO_NODE else None
