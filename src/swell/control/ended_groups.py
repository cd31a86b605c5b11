"""Which groups of calls were ended of late? Inputs of them that are still on their way come too late.

Who leaves a map ends its group, and may have sent inputs just before that a gateway, or the disk, still has.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from swell.model.call import Mine
from swell.model.errors import SwellError
from swell.model.workload import app_of
from swell.wire.calls import NewCall

REMEMBERED_S = 60.0
"""What is under way for longer was given up by who sent it."""
REMEMBERED_MAX = 1000
"""Groups; the oldest goes."""


class EndedGroups:
    """Those of the last minute, and who waits for inputs to be accepted."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ended: dict[str, tuple[float, tuple[Mine, ...]]] = {}
        """When each was ended last, and which calls of it; the oldest first."""
        self._coming: defaultdict[str, set[asyncio.Future[str]]] = defaultdict(set)
        """Those that are being written, by their group."""

    async def end(self, group: str, mine: Mine) -> None:
        """No more of these calls of it are accepted; what was let in before is on disk then, or failed."""
        now = self._now()
        self._forget(now)
        _, others = self._ended.pop(group, (0.0, ()))
        if len(self._ended) >= REMEMBERED_MAX:
            del self._ended[next(iter(self._ended))]
        # Of one group a few keys at most have calls.
        self._ended[group] = now, (*others[-9:], mine)
        if group in self._coming:
            await asyncio.wait(set(self._coming[group]))

    def check(self, new: NewCall) -> None:
        """SwellError group_ended where it comes too late."""
        self._forget(self._now())
        _, ended = self._ended.get(new.group, (0.0, ()))
        if any(mine(*app_of(new.workload), new.key) for mine in ended):
            words = f"The group {new.group} was ended by its sender: nothing more of it is accepted."
            raise SwellError("group_ended", words, status=409)

    def comes(self, group: str, accepted: asyncio.Future[str]) -> None:
        """Inputs of it are being written, until that is done."""
        if not group:
            return
        self._coming[group].add(accepted)
        accepted.add_done_callback(lambda _: self._came(group, accepted))

    def _came(self, group: str, accepted: asyncio.Future[str]) -> None:
        self._coming[group].discard(accepted)
        if not self._coming[group]:
            del self._coming[group]

    def _forget(self, now: float) -> None:
        while self._ended:
            group, (at, _) = next(iter(self._ended.items()))
            if now - at < REMEMBERED_S:
                break
            del self._ended[group]
