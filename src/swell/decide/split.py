"""Which revision of a workload is this request for? By a header, else by shares that keep callers where they are.

Weighted rendezvous: each version draws a number from the caller's key, and the highest wins, weighted by its share. So
one whose share grows only takes callers over, and one whose share shrinks only gives some up.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import msgspec

from swell.model.request import Led
from swell.model.workload import Method


class Choice(msgspec.Struct, frozen=True):
    """One that has the method a request is for."""

    pool: str
    version: int
    method: Method
    percent: float
    header: tuple[str, str] | None = None


def drawn(
    choices: Sequence[Choice], hash_header: str, header: Callable[[str], str | None], lot: Callable[[], bytes]
) -> tuple[Choice, Led]:
    """One of the choices, and what led there. `hash_header` is what callers are told apart by, empty where by nothing;
    `lot` gives random bytes."""
    key = header(hash_header) if hash_header else None
    choice = choose(choices, key.encode("latin-1") if key is not None else lot(), header)
    if choice.header is not None and header(choice.header[0]) == choice.header[1]:
        return choice, Led(choice.version, "header", choice.header[0])
    return choice, Led(choice.version, "lot" if key is None else "hash", hash_header, choice.percent)


def choose(choices: Sequence[Choice], key: bytes, header: Callable[[str], str | None]) -> Choice:
    """One of the choices. `key`: of the caller, or random; `header` looks one up by its name in small letters."""
    for choice in choices:
        if choice.header is not None and header(choice.header[0]) == choice.header[1]:
            return choice
    shares = [choice for choice in choices if choice.percent > 0]
    return max(shares, key=lambda choice: _score(choice, key), default=choices[0])


def _score(choice: Choice, key: bytes) -> float:
    digest = hashlib.blake2b(b"%d:%b" % (choice.version, key), digest_size=8).digest()
    return choice.percent / -math.log((int.from_bytes(digest, "big") + 0.5) / 2**64)
