"""Which answers are kept, for how long, and what are they kept apart by?"""

from __future__ import annotations

import msgspec


class Caching(msgspec.Struct, frozen=True):
    """What a call is answered is kept by gateways, and given to whoever calls with the same."""

    ttl_s: float
    vary: tuple[str, ...] = ()
    """Headers of a request, in small letters, on which its answer depends, beside its body."""
