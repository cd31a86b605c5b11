"""What is a gang: replicas that start together or not at all, and work on one call together?"""

from __future__ import annotations

import msgspec

SIZE_MAX = 1024
"""Members of one gang."""


class Gang(msgspec.Struct, frozen=True):
    """That a call of a function is worked on by several replicas at the same time."""

    size: int
    """Replicas of one call, where there is room for so many."""
    least: int = 0
    """It starts with so many where there is no room for more; 0: with `size`, or not at all."""

    @property
    def at_least(self) -> int:
        """Fewer than this never start."""
        return self.least or self.size


class Seat(msgspec.Struct, frozen=True):
    """A replica's place in its gang."""

    gang: str
    """Id of the replica with rank 0, its leader; the gang has no other name."""
    rank: int
    size: int
    """Replicas that it was started with."""
    priority: int = 0
    """Of the call that it was started for: until it is given one, what is of a higher priority may have its room."""
