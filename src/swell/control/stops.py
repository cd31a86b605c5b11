"""Which apps were stopped since it was last looked, though they may be deployed again by now?

A stop that the disk refuses is taken back: the app is there again, as it was deployed before.
"""

from __future__ import annotations

from collections.abc import Mapping

from swell.model.world import World


class Stops:
    """Those that are not dealt with."""

    def __init__(self, world: World, deployed_at: Mapping[str, float]) -> None:
        """`deployed_at`: when each app was deployed, by its key; of one that is stopped until that is on disk."""
        self._world = world
        self._deployed_at = deployed_at
        self._stopped: dict[str, float | None] = {}
        """With when they had been deployed before the first time."""

    def changed(self, app: str) -> None:
        """It was deployed or stopped."""
        if app not in self._world.apps:
            self._stopped.setdefault(app, self._deployed_at.get(app))

    def take(self) -> dict[str, float | None]:
        """All of them, to be dealt with."""
        stopped, self._stopped = self._stopped, {}
        return stopped

    def put_back(self, stopped: Mapping[str, float | None]) -> None:
        """They could not be."""
        self._stopped = {**self._stopped, **stopped}

    def real(self, stopped: Mapping[str, float | None]) -> set[str]:
        """Those of them whose stop was not taken back."""
        there, at = self._world.apps, self._deployed_at
        return {app for app, before in stopped.items() if app not in there or before is None or at.get(app) != before}
