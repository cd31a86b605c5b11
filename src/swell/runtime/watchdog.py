"""What if user code blocks the event loop, or holds the interpreter lock for ever? Then nothing of ours runs.

Python's faulthandler has a thread of its own that needs neither. While inputs are worked on it is armed to
end the process, with the traceback of every thread in the log, some time after the latest moment at which
the loop would have acted on a deadline by itself.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import time

SLACK_S = 2.0
"""Beyond the deadline and the grace: the loop was late for longer than any load explains."""
_LOOK_S = 1.0
_FILE = 2


class Watchdog:
    """Armed for the earliest deadline of what runs. Cheap to tell of every input: it re-arms once a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grace_s: float) -> None:
        self._loop = loop
        self._late_s = grace_s + SLACK_S
        self._armed_for = math.inf
        self._earliest = math.inf
        self._looking = False

    def expect(self, deadline: float) -> None:
        """The loop will have to act at `deadline` (monotonic seconds), the earliest of all that run."""
        self._earliest = deadline
        if abs(deadline - self._armed_for) > _LOOK_S and deadline < math.inf:
            self._arm()
        if not self._looking and self._armed_for < math.inf:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)

    def rest(self) -> None:
        """Nothing runs."""
        self._earliest = math.inf

    def _look(self) -> None:
        self._looking = self._earliest < math.inf
        if self._looking:
            self._arm()
            self._loop.call_later(_LOOK_S, self._look)
        else:
            faulthandler.cancel_dump_traceback_later()
            self._armed_for = math.inf

    def _arm(self) -> None:
        self._armed_for = self._earliest
        ahead_s = max(0.0, self._earliest - time.monotonic()) + self._late_s
        faulthandler.dump_traceback_later(ahead_s, exit=True, file=_FILE)
