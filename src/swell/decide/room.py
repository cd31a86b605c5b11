"""How much of ours may be at a replica whose slots others fill, too? And which of those that are full are asked?

What a gateway believes of one replica. The replica's own counter is the truth: who sends too much is refused, and who
asks is told. So these are estimates that may be wrong in both directions for a moment; they save questions and
refusals, and they decide nothing about how many inputs there are at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

ASKED_MAX = 8
"""Replicas of one pool that a gateway asks at a time; of more that are full the likeliest are chosen."""


class Room(msgspec.Struct, frozen=True):
    """What one gateway believes of one replica's slots."""

    slots: int
    """Inputs that it works on at a time, whoever sent them."""
    limit: int
    """Of ours so many may be there; others have the rest."""
    contended: bool = False
    """Others wait for its slots, too: who asks takes turns with them, who sends would be refused."""


class Told(msgspec.Struct, frozen=True):
    """What a replica says when it gives one of its slots."""

    free: int
    """Slots beside that one."""
    waiting: int
    """Others that wait."""


class Full(Protocol):
    """A replica that was found full."""

    id: str

    @property
    def load(self) -> int:
        """Inputs there, ours and what was told of others'."""
        ...


F = TypeVar("F", bound=Full)


def unknown(slots: int) -> Room:
    """Of a replica that was not heard of lately: taken to be all ours."""
    return Room(slots, slots)


def refused(room: Room, in_flight: int) -> Room:
    """It was full: beside the `in_flight` of ours, what was refused not among them, others have all slots."""
    return Room(room.slots, in_flight, contended=True)


def given(room: Room, in_flight: int, told: Told, used: bool) -> Room:
    """It gave a slot for one more. Where that is not `used`, those who wait have it now, if any do."""
    contended = told.waiting > 0 or (room.contended and not told.free)
    more = 1 + told.free if used or not told.waiting else 0
    return Room(room.slots, min(in_flight + more, room.slots), contended)


def ended(room: Room, in_flight: int, asked: int) -> Room:
    """One of ours ended, `in_flight` are left, and more of ours wait: the slot is for whose turn it is. Where so many
    are `asked` that this one cannot be, it is tried."""
    return Room(room.slots, in_flight, contended=True) if room.contended and asked < ASKED_MAX else room


def likeliest(full: Iterable[F], asked: int) -> list[F]:
    """Which replicas to ask for a slot, where so many are asked already."""
    more = max(ASKED_MAX - asked, 0)
    return sorted(full, key=lambda replica: (replica.load, replica.id))[:more] if more else []
