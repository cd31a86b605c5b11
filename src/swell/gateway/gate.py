"""Is there room for one more request of a key, or to a workload? Their limits, and what is used of them here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swell.decide.admit import Refusal
from swell.decide.limit import changed, enter, in_flight_max, share, spare, tokens_max
from swell.model.limits import UNLIMITED, Limits


class Gate:
    """One key's or one workload's limits, as this gateway keeps them: what each request asks for as plain numbers."""

    __slots__ = ("_name", "at", "in_flight", "in_flight_max", "limits", "rate_per_s", "tokens", "tokens_max", "who")

    def __init__(self, who: str, limits: Limits, gateways: int, now: float) -> None:
        self.who = self._name = who
        self.in_flight = 0
        self.tokens = tokens_max(UNLIMITED)
        self._hold(UNLIMITED, now)
        self.set(limits, gateways, now)

    def set(self, limits: Limits, gateways: int, now: float) -> None:
        """There are other limits, or another number of gateways that share them."""
        shared = share(limits, gateways)
        # Whoever is refused is told what may be here, which is only a part.
        self.who = self._name if shared is limits else f"{self._name} at one of {gateways} gateways"
        if shared != self.limits:
            self.tokens = changed(self, shared, now)
            self._hold(shared, now)

    def _hold(self, limits: Limits, now: float) -> None:
        self.at = now
        self.limits = limits
        self.rate_per_s = limits.rate_per_s
        self.tokens_max = tokens_max(limits)
        self.in_flight_max = in_flight_max(limits)

    def leave(self) -> None:
        """A request that was let in has ended."""
        self.in_flight -= 1


def let_in(gates: Sequence[Gate], now: float) -> Refusal | None:
    """Count one more request at all of them, or say why it may not come in: then it counts at none."""
    left = enter(gates, now)
    if isinstance(left, Refusal):
        return left
    for gate, tokens in zip(gates, left, strict=True):
        gate.tokens = tokens
        gate.at = now
        gate.in_flight += 1
    return None


def at_once(gates: Sequence[object]) -> float:
    """How many requests may come at once at all of these, by their rates."""
    return min((gate.tokens_max for gate in gates if isinstance(gate, Gate) and gate.rate_per_s), default=math.inf)


def let_in_all(gates: Sequence[object], most: int, now: float) -> bool:
    """Count so many more at all of these, with a request that was let in; none where there is no room for all."""
    rated = (gate for gate in gates if isinstance(gate, Gate) and gate.rate_per_s)
    return all(spare(gate, now) >= most for gate in rated) and let_in_more(gates, most, now) == most


def let_in_more(gates: Sequence[object], most: int, now: float) -> int:
    """Count up to so many more at all of these, with a request that was let in: how many there is room for."""
    met = [gate for gate in gates if isinstance(gate, Gate) and gate.rate_per_s]
    more = min([most, *(spare(gate, now) for gate in met)])
    for gate in met:
        gate.tokens = min(gate.tokens + (now - gate.at) * gate.rate_per_s, gate.tokens_max) - more
        gate.at = now
    return more
