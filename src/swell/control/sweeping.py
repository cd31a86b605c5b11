"""What is removed that nobody needs any more, and when not? Source, large results of calls, values of secrets and
contents of volumes; nothing while somebody reads them all.
"""

from __future__ import annotations

import asyncio
import logging

from swell.control.deploying import Deployer
from swell.control.secrets import SecretKeeper
from swell.control.volumes import VolumeKeeper
from swell.model.call_ports import CallRecords
from swell.model.ports import Blobs, Clock

log = logging.getLogger("swell.control")

KEPT_S = 3600.0
"""What nothing names is kept this long after it was put or asked for: a deploy may be about to name it."""

Held = asyncio.Lock
"""Who has it reads what a sweep would remove: a sweep waits for it, and so does whoever reads for a sweep."""


class Sweeper:
    """Sweeps one server. By a state that names nothing at all nothing is removed: it may have lost what it named."""

    def __init__(
        self,
        deployer: Deployer,
        calls: CallRecords,
        blobs: Blobs,
        secrets: SecretKeeper,
        volumes: VolumeKeeper,
        clock: Clock,
    ) -> None:
        self._deployer = deployer
        self._calls = calls
        self._blobs = blobs
        self._secrets = secrets
        self._volumes = volumes
        self._clock = clock
        self.held: Held = asyncio.Lock()

    async def sweep_blobs(self) -> None:
        """Remove source that no app has any more."""
        async with self.held:
            named = await self._deployer.bundles()
            removed = self._blobs.sweep(named, self._before) if await self.names_any() else 0
        if removed:
            log.info("%d blobs that no app has were removed", removed)

    async def sweep_secrets(self) -> None:
        """Remove values that programs brought along for apps that are not any more."""
        removed = await self._secrets.forget_unused(await self._deployer.secrets(), self._before)
        if removed:
            log.info("%d secrets of apps that are not any more were removed", removed)

    async def sweep_volumes(self) -> None:
        """Remove what no volume has any more."""
        async with self.held:
            removed = await self._volumes.sweep(self._before) if await self.names_any() else 0
        if removed:
            log.info("%d contents of files that no volume has any more were removed", removed)

    async def names_any(self) -> bool:
        """Does the state name any file at all?"""
        if await self._deployer.bundles() or self._volumes.known():
            return True
        return await asyncio.to_thread(lambda: any(self._calls.digests()))

    @property
    def _before(self) -> float:
        return self._clock.now() - KEPT_S
