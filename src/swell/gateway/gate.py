"""Is there room for one more request of a key, or to a workload? Their limits, and what is used of them here."""

from __future__ import annotations

from collections.abc import Sequence

from swell.decide.admit import Refusal
from swell.decide.limit import changed, enter, full, leave, share
from swell.model.limits import Limits


class Gate:
    """One key's or one workload's limits, as this gateway keeps them."""

    __slots__ = ("level", "limits", "who")

    def __init__(self, who: str, limits: Limits, gateways: int, now: float) -> None:
        self.who = who
        self.limits = share(limits, gateways)
        self.level = full(self.limits, now)

    def set(self, limits: Limits, gateways: int, now: float) -> None:
        """There are other limits, or another number of gateways that share them."""
        shared = share(limits, gateways)
        if shared != self.limits:
            self.level = changed(self.limits, shared, self.level, now)
            self.limits = shared

    def leave(self) -> None:
        """A request that was let in has ended."""
        self.level = leave(self.level)


def let_in(gates: Sequence[Gate], now: float) -> Refusal | None:
    """Count one more request at all of them, or say why it may not come in: then it counts at none."""
    levels = enter(gates, now)
    if isinstance(levels, Refusal):
        return levels
    for gate, level in zip(gates, levels, strict=True):
        gate.level = level
    return None
