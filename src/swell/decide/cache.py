"""Which answer is kept for which request, for how long, and which goes when there is no room? Pure: told the time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

BODY_MAX = 1024 * 1024
"""Bytes of a request's body with which its answer is looked for; a larger one is passed on as it comes."""
ANSWER_MAX = 1024 * 1024
"""Bytes of an answer, head and body, that is kept."""
OVERHEAD = 512
"""Bytes that one more answer takes beside its own."""


class Kept(msgspec.Struct, frozen=True):
    """An answer, as it is given again. Times are of one clock, in seconds."""

    content_type: bytes
    lines: bytes
    """Its further header lines, each with its CRLF."""
    body: bytes
    request: str
    """Id of the request it was made for."""
    at: float
    """When it came."""
    until: float
    """From then on it is not given any more."""

    @property
    def size(self) -> int:
        return len(self.content_type) + len(self.lines) + len(self.body) + OVERHEAD


class Store:
    """Answers by key, `bytes_max` of them: the one that was not asked for longest goes first."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._kept: dict[bytes, Kept] = {}
        """The one that was asked for last is last."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, now: float) -> Kept | None:
        """What is kept under a key and may still be given."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        if now >= kept.until:
            self.bytes -= kept.size
            return None
        self._kept[key] = kept
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer, if there is room for it at all."""
        before = self._kept.pop(key, None)
        if before is not None:
            self.bytes -= before.size
        if kept.size > self.bytes_max:
            return
        self._kept[key] = kept
        self.bytes += kept.size
        while self.bytes > self.bytes_max:
            self.bytes -= self._kept.pop(next(iter(self._kept))).size


def key_of(parts: Sequence[bytes], body: Iterable[bytes]) -> bytes:
    """One key for what an answer depends on: equal exactly where each part and the whole body are."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    for piece in body:
        digest.update(piece)
    return digest.digest()


class Wish(msgspec.Struct, frozen=True):
    """What a request's `Cache-Control` says."""

    age_max_s: float = math.inf
    """It takes an answer that is no older; below 0: none that is kept."""
    keep: bool = True
    """What it is answered may be kept."""


def wish_of(cache_control: str) -> Wish:
    """No header, or one that cannot be read, wishes for nothing."""
    words = _words(cache_control)
    if "no-store" in words:
        return Wish(-1.0, keep=False)
    if "no-cache" in words:
        return Wish(-1.0)
    ages = [word.partition("=")[2] for word in words if word.startswith("max-age=")]
    return Wish(min((float(age) for age in ages if age.isdecimal() and len(age) < 12), default=math.inf))


def may_keep(cache_control: str) -> bool:
    """Does an answer's own `Cache-Control` let it be kept and given to others?"""
    return not _words(cache_control) & {"no-store", "no-cache", "private"}


def _words(cache_control: str) -> set[str]:
    return {word.strip().lower() for word in cache_control.split(",")}
