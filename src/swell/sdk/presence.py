"""What of an app that is there for a while does its program hear, and how does it end?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from swell.model.errors import SwellError
from swell.model.owner import Owner
from swell.sdk.client import Client
from swell.wire import settings
from swell.wire.api import LogRow
from swell.wire.identity import machine, myself

_LOG_QUIET_S = 0.3
"""Output counts as complete after this silence."""
_LOG_WAIT_S = 3.0
"""Longest wait for that."""
_EXIT_LOOK_S = 0.1
"""How often it is looked whether replicas with exit hooks are over."""


def me() -> Owner:
    """This process, as the owner of an app or a volume."""
    mine = myself()
    return Owner(mine.pid, mine.start_ticks, machine())


class Once:
    """Passes each line of a log on once, also where it is read from its start again. Lines are in the order of their
    times; several may have the same."""

    def __init__(self, heard: Callable[[LogRow], None]) -> None:
        self._heard = heard
        self.at = 0.0
        """Of the line that was passed on last; 0: none was."""
        self._alike = 0
        """Lines of that time that were."""
        self._again = 0
        """Of these, the ones that came again."""
        self._known = False
        """What comes may have been passed on."""

    def begin(self) -> None:
        """It is read anew, from its start or from the first line of the time of the last one."""
        self._known, self._again = True, 0

    def __call__(self, row: LogRow) -> None:
        """The next line."""
        if self._known and row.at < self.at:
            return
        if self._known and row.at == self.at and self._again < self._alike:
            self._again += 1
            return
        self._known = False
        self._alike = self._alike + 1 if row.at == self.at else 1
        self.at = row.at
        self._heard(row)


class Presence:
    """One app on a server, of which this program shows the output and which it stops."""

    def __init__(
        self, client: Client, namespace: str, name: str, owner: Owner | None, since: float | None = None
    ) -> None:
        """`owner`: what it ends with. `since`: when it was begun (monotonic), where an earlier one of its name may have
        written, too."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._since = since
        self._following: Future[None] | None = None
        self._present = None if owner is None else client.present(owner)
        self._heard_at = 0.0
        """When a line of output came last, by the monotonic clock."""

    def follow(self, log: Callable[[LogRow], None]) -> None:
        """Every line that it writes goes to `log` from now on, on another thread."""
        once = Once(partial(self._hear, log))

        def since() -> tuple[float, float]:
            once.begin()
            # Seconds count from when control hears of them, which may be long after it was asked: it is away, say.
            if once.at or self._since is None:
                return 0.0, once.at
            return time.monotonic() - self._since, 0.0

        self._following = self._client.follow_logs(self._name, self._namespace, since, once)

    def _hear(self, log: Callable[[LogRow], None], row: LogRow) -> None:
        self._heard_at = time.monotonic()
        log(row)

    async def stop(self, hooked: Collection[str]) -> SwellError | None:
        """Take the app away and, where its output is shown, let exit hooks speak, which the workloads `hooked` have;
        returns why it could not be."""
        try:
            await self._client.stop.start(self._name, self._namespace)
        except SwellError as error:
            return error
        if self._following is not None:
            # Should control be gone, there is nobody to ask, and no more to wait for.
            with suppress(SwellError):
                await self._outlast_hooks({f"{self._namespace}/{self._name}/{each}" for each in hooked})
        return None

    async def _outlast_hooks(self, hooked: Collection[str]) -> None:
        """Wait until no replica is left whose exit hooks may print, for as long as hooks may take.

        Input that is in flight still may take longer: the server finishes that without us.
        """
        until = time.monotonic() + settings.load().policy.stop_grace_s
        while hooked and time.monotonic() < until:
            if not any(row.workload in hooked and row.role == "serving" for row in await self._client.replicas.start()):
                return
            await self._client.transport.pause(_EXIT_LOOK_S)

    async def hear_out(self) -> None:
        """What was written last may still be on its way here."""
        if self._following is None:
            return
        begun = self._heard_at = time.monotonic()
        while (quiet_s := time.monotonic() - self._heard_at) < _LOG_QUIET_S and self._heard_at < begun + _LOG_WAIT_S:
            await self._client.transport.pause(_LOG_QUIET_S - quiet_s)

    def close(self) -> None:
        """No more of its output is shown, and it is there no longer for our sake."""
        if self._present is not None:
            self._present.cancel()
        if self._following is not None:
            self._following.cancel()
