"""How often did starts of a pool fail in a row, and how?"""

from __future__ import annotations

import msgspec


class Failures(msgspec.Struct, frozen=True):
    """Rounds of starts of a pool that failed in a row, and when the last start did."""

    count: int
    """One round is all that was under way at once: a template and what waited for it, say."""
    at: float
    reason: str
    detail: str
    took_s: float = 0.0
    """How long all of them were under way together."""
