"""What is around a keeper of triggers? A durable queue, apps that come and go, and a store that may fail."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from control.calls_place import Place, app_of
from control.test_control_link import until
from swell.control.trigger_desk import TriggerDesk
from swell.control.triggers import TriggerKeeper
from swell.model.events import AppDeployed
from swell.model.owner import Owner
from swell.model.ports import Store
from swell.model.schedule import Schedule
from swell.model.workload import App


def key_of(app: str) -> str:
    """Of the trigger of its function."""
    return f"default/{app}/f"


def scheduled(name: str, schedule: Schedule | None, **fields: Any) -> App:
    """An app whose function has it."""
    owner = Owner(1, 1) if fields.pop("owned", False) else None
    made = app_of(name, **fields)
    return replace(made, workloads=tuple(replace(each, schedule=schedule) for each in made.workloads), owner=owner)


class TriggerPlace(Place):
    """Control as far as triggers and queued calls go, one incarnation after the other, over one store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.deployed_at: dict[str, float] = {}
        self.firing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """A new incarnation of control."""
        await super().open()
        self.triggers = TriggerKeeper(
            self.store,  # type: ignore[arg-type]
            self.clock,
            self.world,
            self.keeper.accept,
            self.keeper.hands.counted,
            self.deployed_at,
        )
        self.desk = TriggerDesk(
            self.triggers,
            self.store.triggers,
            self.store.call_records,
            self.world,
            self.clock,
        )
        self.firing = asyncio.create_task(self.triggers.run())

    async def close(self) -> None:
        """Control ends."""
        if self.firing is not None:
            self.firing.cancel()
            await asyncio.wait({self.firing})
            self.firing = None
        await super().close()

    def schedule(self, name: str, schedule: Schedule | None, **fields: Any) -> None:
        """Deploy an app whose function has it."""
        self.put(scheduled(name, schedule, **fields))

    def put(self, app: App) -> None:
        """Deploy an app as it is."""
        self.apps[app.name] = app
        self.deployed_at[app.key] = self.clock.at
        self.take(AppDeployed(self.clock.at, app))
        self.triggers.changed(app.key, self.clock.at)

    def stop(self, name: str) -> None:
        """As the API does."""
        super().stop(name)
        self.deployed_at.pop(f"default/{name}", None)
        self.triggers.changed(f"default/{name}", self.clock.at)

    def ring(self) -> None:
        """The timer rings: it goes by another clock."""
        self.triggers._stir.set()

    async def fired(self) -> None:
        """Until nothing is due or changed any more."""

        def idle() -> bool:
            keeper = self.triggers
            if keeper._changed or keeper._stir.is_set() or keeper._writing.locked():
                return False
            armed = keeper.armed.values()
            waits = [each.look_at for each in armed if each.state.paused_at is None]
            return all(at is not None and at > self.clock.at for at in waits)

        self.ring()
        await until(idle)
