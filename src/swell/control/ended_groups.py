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
"""Groups that were ended with one key; the oldest goes. So nobody has those of others forgotten."""
WRITTEN_S = 30.0
"""Inputs that are being written are waited for so long: the disk may be full."""


class EndedGroups:
    """Those of the last minute, and who waits for inputs to be accepted."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ended: dict[str, dict[str, tuple[float, Mine]]] = {}
        """By the key that ended them: of each group, when it did so last, and which calls; the oldest first."""
        self._coming: defaultdict[str, set[asyncio.Future[tuple[str, ...]]]] = defaultdict(set)
        """Those that are being written, by their group."""

    async def end(self, group: str, by: str, mine: Mine) -> None:
        """No more of these calls of it are accepted; what was let in before is on disk then, or failed. `by`: with that
        key. SwellError busy where that takes too long."""
        now = self._now()
        self._forget(now)
        ended = self._ended.setdefault(by, {})
        ended.pop(group, None)
        if len(ended) >= REMEMBERED_MAX:
            del ended[next(iter(ended))]
        ended[group] = now, mine
        if group in self._coming:
            _, late = await asyncio.wait(set(self._coming[group]), timeout=WRITTEN_S)
            if late:
                words = f"Inputs of the group {group} that came before wait to be written: end it again in a moment."
                raise SwellError("busy", words, status=503)

    def check(self, new: NewCall) -> None:
        """SwellError group_ended where it comes too late."""
        if not new.group:
            return
        self._forget(self._now())
        found = [ended[new.group][1] for ended in self._ended.values() if new.group in ended]
        if any(mine(*app_of(new.workload), new.key) for mine in found):
            words = f"The group {new.group} was ended by its sender: nothing more of it is accepted."
            raise SwellError("group_ended", words, status=409)

    def comes(self, group: str, accepted: asyncio.Future[tuple[str, ...]]) -> None:
        """Inputs of it are being written, until that is done."""
        if not group:
            return
        self._coming[group].add(accepted)
        accepted.add_done_callback(lambda _: self._came(group, accepted))

    def _came(self, group: str, accepted: asyncio.Future[tuple[str, ...]]) -> None:
        self._coming[group].discard(accepted)
        if not self._coming[group]:
            del self._coming[group]

    def _forget(self, now: float) -> None:
        for by, ended in list(self._ended.items()):
            while ended:
                group, (at, _) = next(iter(ended.items()))
                if now - at < REMEMBERED_S:
                    break
                del ended[group]
            if not ended:
                del self._ended[by]
