"""How often is a failed call tried again, and after how long?"""

from __future__ import annotations

import msgspec


class Retrying(msgspec.Struct, frozen=True):
    """How often a failed call is tried again, and after how long (seconds)."""

    max_retries: int = 0
    backoff_coefficient: float = 2.0
    initial_delay_s: float = 1.0
    max_delay_s: float = 60.0

    def delay_s(self, failed: int) -> float:
        """What to wait after the `failed`th failure (1 = first)."""
        try:
            grown = self.initial_delay_s * self.backoff_coefficient ** (failed - 1)
        except OverflowError:
            grown = self.max_delay_s
        return min(grown, self.max_delay_s)
