"""How much goes into one round? All that waits; and less while the store refuses something of it, until it shows what.

A round is written whole or not at all. Where it is refused for what one row says, a half of it is tried next, and so
on: what is refused alone is to blame, and others go on. Whoever asked for that is told. The end of a call that cannot
be recorded as it is, is recorded as one that came to nothing.
"""

from __future__ import annotations

import msgspec

from swell.control.inbox import BATCH
from swell.control.rounds import Round
from swell.model.errors import SwellError
from swell.wire.calls import CallEnd, Lease

USED_MAX_US = 10**15
"""More than that, some thirty years, no attempt is believed to have used: sums of them can be kept."""
NOT_KEPT = "What came of it cannot be recorded: the server's log says why."


class Portions:
    """What the next rounds may take in."""

    def __init__(self) -> None:
        self._most = BATCH
        self._refused: set[Lease] = set()
        """Hand-outs whose end was refused, alone in its round."""

    def most(self, made: Round) -> int:
        """Things of one more kind that the round may take in, as far as it is made. One that has one thing at most has
        that of one kind."""
        return 0 if self._most == 1 and made.writes else self._most

    def end(self, end: CallEnd) -> CallEnd:
        """As it can be recorded, as far as is known."""
        if (end.id, end.token) in self._refused:
            return CallEnd(end.id, end.token, end.replica, "internal", NOT_KEPT)
        cpu_us, run_us = (min(max(us, 0), USED_MAX_US) for us in (end.cpu_us, end.run_us))
        if (cpu_us, run_us) == (end.cpu_us, end.run_us):
            return end
        return msgspec.structs.replace(end, cpu_us=cpu_us, run_us=run_us)

    def written(self, made: Round) -> None:
        """All of it is."""
        self._most = min(2 * self._most, BATCH)
        self._refused.difference_update((outcome.id, outcome.token) for outcome in made.outcomes)

    def refused(self, made: Round, error: Exception) -> bool:
        """Is what waits to be tried anew at once, in smaller rounds, or as it is told now? False: it is no row's fault,
        or nothing else can be said of it."""
        if not made.writes or not isinstance(error, SwellError) or error.code != "row_refused":
            return False
        if not is_one(made):
            size = max(len(made.news), len(made.outcomes), len(made.changes))
            self._most = max(min(self._most, size) // 2, 1)
            return True
        ends = {(outcome.id, outcome.token) for outcome in made.outcomes}
        again = not ends & self._refused
        self._refused |= ends
        return again


def is_one(made: Round) -> bool:
    """Is there one thing in it, and nothing beside?"""
    return len(made.news) + len(made.outcomes) + len(made.changes) == 1 and not made.hands
