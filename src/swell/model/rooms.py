"""How much of each node is free? Kept live: what begins there takes of it, and what ends gives it back."""

from __future__ import annotations

from collections.abc import Iterable

from swell.model.node import Node
from swell.model.resources import NOTHING, Held, Room


class Rooms:
    """Those of the nodes that are there."""

    def __init__(self) -> None:
        self.strangers: dict[str, Held] = {}
        """Node → what replicas hold of it that are nobody's."""
        self._rooms: dict[str, Room] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._rooms

    def copy_of(self, node: str) -> Room:
        """What is free there, to be spent."""
        return self._rooms[node].copy()

    def begin(self, node: Node, held: Iterable[Held]) -> None:
        """A node is there, or is another one than it was; that is what its replicas have of it."""
        room = self._rooms[node.id] = node.room()
        for each in (*held, self.strangers.get(node.id, Held(NOTHING))):
            room.hold(each)

    def end(self, node: str) -> None:
        self.strangers.pop(node, None)
        self._rooms.pop(node, None)

    def hold(self, node: str, held: Held) -> None:
        if node in self._rooms:
            self._rooms[node].hold(held)

    def give_back(self, node: str, held: Held) -> None:
        if node in self._rooms:
            self._rooms[node].give_back(held)

    def are_free(self, node: str, gpus: tuple[str, ...]) -> bool:
        """Are these devices nobody's?"""
        devices = self._rooms[node].devices
        return all(devices.get(gpu, 1) > 0 for gpu in gpus)

    def gpus_of_strangers(self, node: str) -> tuple[str, ...]:
        return self.strangers.get(node, Held(NOTHING)).gpus

    def strangers_have(self, node: str, gpus: tuple[str, ...]) -> None:
        """All that is held there by replicas that are nobody's."""
        self.give_back(node, self.strangers.pop(node, Held(NOTHING)))
        if gpus and node in self._rooms:
            self.strangers[node] = Held(NOTHING, gpus)
            self.hold(node, self.strangers[node])
