"""When does a batch go, and with whom? Pure: told what comes and ends and what time it is, it says who goes now.

Nobody waits while nothing runs and nothing ran a moment ago. While batches run, the next one fills; it goes when it is
full, or when there is room for it and its first input has waited for `wait_s`. When the last batch that ran has ended,
its callers may be about to come back: until as many wait as had come then (or the batch is full) they are waited for,
for `wait_s` from that end, but nobody waits for longer than `wait_s` while there is room. So somebody who calls alone,
again and again, never waits, and many who do so stay together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

NOW, NEVER = -math.inf, math.inf
Given = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


class Gathering(Generic[T]):
    """The inputs of one method that wait, in the order in which they came, and how many batches run.

    At most `side_by_side` batches run at a time, of `max_size` inputs each. Times are of one clock, in seconds.
    """

    def __init__(self, max_size: int, wait_s: float, side_by_side: int) -> None:
        self.max_size = max_size
        self.wait_s = wait_s
        self.side_by_side = side_by_side
        self.running = 0
        self._waiting: dict[T, float] = {}
        """Since when each waits."""
        self._hoped_for = 0
        """So many are worth waiting for now that nothing runs…"""
        self._hoped_until = NOW
        """…until then."""
        self._room_since = NOW
        """Since when fewer run than may."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[T]:
        return iter(self._waiting)

    def add(self, item: T, now: float) -> None:
        """One more waits."""
        self._waiting[item] = now

    def leave(self, item: T) -> None:
        """It waits no longer."""
        self._waiting.pop(item, None)

    def ended(self, size: int, now: float) -> None:
        """A batch that `take` gave, of so many, is over."""
        if self.running == self.side_by_side:
            self._room_since = now
        self.running -= 1
        if not self.running:
            self._hoped_for = size + len(self._waiting)
            self._hoped_until = now + self.wait_s

    def due(self) -> float:
        """When those that wait are to go, as things are: NOW, at a time, or not before something happens (NEVER)."""
        waiting = len(self._waiting)
        if not waiting or self.running >= self.side_by_side:
            return NEVER
        if waiting >= self.max_size:
            return NOW
        first = next(iter(self._waiting.values()))
        if self.running:
            return first + self.wait_s
        if waiting >= self._hoped_for:
            return NOW
        return min(self._hoped_until, max(first, self._room_since) + self.wait_s)

    def take(self, now: float) -> list[T]:
        """The batch that goes now; empty while none does."""
        if self.due() > now:
            return []
        items = list(self._waiting)[: self.max_size]
        for item in items:
            del self._waiting[item]
        self.running += 1
        return items


class Group(NamedTuple):
    """Inputs that gave the same arguments: one call of the function."""

    members: list[int]
    """Their places among all."""
    args: tuple[list[Any], ...]
    kwargs: dict[str, Any]


def groups(given: Sequence[Given]) -> list[Group]:
    """Single arguments as lists. Inputs stay together where the same arguments were given, so that one that was left
    out is left to the function's default; in the order of those who came first, and of coming within."""
    alike: dict[tuple[int, frozenset[str]], list[int]] = {}
    for place, (args, kwargs) in enumerate(given):
        alike.setdefault((len(args), frozenset(kwargs)), []).append(place)
    return [_group(given, members) for members in alike.values()]


def _group(given: Sequence[Given], members: list[int]) -> Group:
    first_args, first_kwargs = given[members[0]]
    args = tuple([given[place][0][at] for place in members] for at in range(len(first_args)))
    return Group(members, args, {name: [given[place][1][name] for place in members] for name in first_kwargs})


def stacks(keys: Sequence[Hashable], rows: Sequence[int], most: int) -> list[list[int]]:
    """Places of inputs that are one call of the function: alike by their keys, and with `most` rows together, more only
    where one alone has them. In the order of those who came first, and of coming within."""
    found: list[list[int]] = []
    open_: dict[Hashable, tuple[list[int], int]] = {}
    for place, (key, count) in enumerate(zip(keys, rows, strict=True)):
        members, total = open_.get(key, ([], most + 1))
        if total + count > most:
            members, total = [], 0
            found.append(members)
        members.append(place)
        open_[key] = members, total + count
    return found


def shares(total: int, count: int) -> list[int]:
    """A whole number in `count` parts that differ by one at most and add up to it."""
    return [total * (at + 1) // count - total * at // count for at in range(count)]
