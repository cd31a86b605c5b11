"""Which objects of a store are new, where it lists them by key, and the time of one may be long past when it shows up?

A store lists keys in their order, a portion at a time; looking through all of them, again and again, finds what is new.
An object is known that is older than a floor, or was brought: this is remembered for those that are not older. A look
that has come to its end raises the floor to `late_s` before it began. So an object comes that shows up with a time from
before others that were brought, by `late_s` at most: S3 gives an object that is uploaded in parts the time at which the
upload began. However long a look takes, what shows up behind it meanwhile is found by the next one. All times are by
the store's clock, in whole seconds; that many objects have the same one makes no difference.

All this, and the key that a look has come to, is the watermark. Of what was brought it has the newest `TOLD_MAX`. So
after a restart some may come again, with the ids that they had: those of the time from the floor on which are more than
that. Memory has the newest `KNOWN_MAX`. Where more are brought within `late_s`, the floor is raised to the oldest of
them, but not above `SOON_S` before the look began: of what is newer, that which is forgotten comes again.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from typing import NamedTuple

import msgspec

KNOWN_MAX = 100_000
"""Objects that are remembered: 10 MB."""
SOON_S = 300.0
"""What shows up so late is not missed, however much was brought since."""
TOLD_MAX = 500
"""Objects that a watermark has, in 16 characters each."""
_STAMP_BYTES = 12
_SECOND_BYTES = 4
_SECOND_MAX = 0xFFFF_FFFF


class Object(NamedTuple):
    """One as a listing has it. Written again, it is another one: then its time, or its etag, is another."""

    key: str
    etag: str
    """Without quotes; empty where the store tells none."""
    size: int
    modified_ms: int
    """By the store's clock, since the epoch."""

    @property
    def id(self) -> str:
        """Of no other object, nor of what is written there later."""
        told = f"{self.modified_ms} {self.size} {self.etag}\n{self.key}"
        return hashlib.sha256(told.encode()).hexdigest()[:40]

    @property
    def second(self) -> int:
        return min(max(self.modified_ms // 1000, 0), _SECOND_MAX)


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far objects were read."""

    floor: int = 0
    """What is older is known. Times in seconds since the epoch."""
    began: int = 0
    """When this look began."""
    key: str = ""
    """How far it has come; empty: it is about to begin."""
    told: str = ""
    """Stamps of the newest ones that were brought, in base64."""


def new_since(at: float) -> str:
    """The watermark of who wants only what is written from then on."""
    return msgspec.json.encode(Mark(floor=int(at))).decode()


class Reading:
    """How far the objects of a store were read. In each look all of a listing is given to `found` or `passed`, in its
    order."""

    def __init__(self, after: str, late_s: float, known_max: int = KNOWN_MAX, told_max: int = TOLD_MAX) -> None:
        mark = msgspec.json.decode(after, type=Mark) if after else Mark()
        self.key = mark.key
        """The listing is read on behind it."""
        self._late_s = late_s
        self._known_max = known_max
        self._told_max = told_max
        self._floor = mark.floor
        self._next_floor = mark.floor
        """What is older and was brought is not remembered any more."""
        self._began = mark.began
        stamps = base64.b64decode(mark.told)
        self._told = [stamps[i : i + _STAMP_BYTES] for i in range(0, len(stamps), _STAMP_BYTES)]
        """A heap, the oldest first."""
        heapq.heapify(self._told)
        self._known = {*self._told}

    def is_new(self, each: Object) -> bool:
        """Is it to be brought?"""
        return each.second >= self._floor and _stamp(each) not in self._known

    def begins(self, at: float) -> None:
        """A look, from the first key on. What is listed is as it was then, or later."""
        self.key, self._began = "", int(at)

    def passed(self, each: Object) -> None:
        """This one was listed, and is not brought."""
        self.key = each.key

    def found(self, each: Object) -> str:
        """This one was listed and is brought; returns the watermark behind it."""
        self.key = each.key
        stamp = _stamp(each)
        self._known.add(stamp)
        if len(self._known) > self._known_max + self._known_max // 4:
            self._forget_oldest()
        if len(self._told) < self._told_max:
            heapq.heappush(self._told, stamp)
        else:
            heapq.heappushpop(self._told, stamp)
        told = base64.b64encode(b"".join(self._told)).decode()
        return msgspec.json.encode(Mark(self._floor, self._began, self.key, told)).decode()

    def ended(self) -> bool:
        """All was listed. True: so much was brought that what shows up with a time from before the newest `known_max`
        does not come any more, though it may not be older than `late_s`."""
        floor = max(self._floor, int(self._began - self._late_s))
        # What showed up behind this look, while it took its time, is still to come.
        forgotten = min(self._next_floor, int(self._began - SOON_S))
        self._floor = self._next_floor = max(floor, forgotten)
        self._known = {each for each in self._known if _second(each) >= self._floor}
        self._told = [each for each in self._told if _second(each) >= self._floor]
        heapq.heapify(self._told)
        self.key = ""
        return forgotten > floor

    def _forget_oldest(self) -> None:
        """What was listed earlier in this look is not asked for again before the floor is raised. What is still to be
        listed, and is forgotten, comes again."""
        kept = heapq.nlargest(self._known_max, self._known)
        self._next_floor = max(self._next_floor, _second(kept[-1]) + 1)
        self._known = {*kept}


def _stamp(each: Object) -> bytes:
    """What an object is remembered by: ordered by time."""
    return each.second.to_bytes(_SECOND_BYTES, "big") + bytes.fromhex(each.id[: 2 * (_STAMP_BYTES - _SECOND_BYTES)])


def _second(stamp: bytes) -> int:
    return int.from_bytes(stamp[:_SECOND_BYTES], "big")
