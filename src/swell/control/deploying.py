"""How does an app get in place, and away again? Checked, built, then in the world and on disk in one event, or not at
all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from swell.control import port_conflicts
from swell.control.addresses import urls
from swell.decide.place import never_fits
from swell.decide.powers import refusal
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped, Event
from swell.model.ports import Clock, Engine, WorldLog
from swell.model.unknown import unknown_app
from swell.model.workload import App, Revision
from swell.model.world import World
from swell.wire.api import DeployLine


class Deployer:
    """Deploys and stops apps."""

    def __init__(
        self,
        world: World,
        take: Callable[[Event], None],
        engine: Engine,
        log: WorldLog,
        clock: Clock,
        base_url: str,
        engines: Mapping[str, frozenset[str]],
    ) -> None:
        """`take` brings an event into the world and the log. `engines`: name → capabilities of every engine there is,
        to say who has what this one lacks."""
        self.world = world
        self.take = take
        self.engine = engine
        self.log = log
        self.clock = clock
        self.base_url = base_url
        self.engines = engines
        self.deployed_at = log.deployed_at()
        """When each app was last deployed."""
        self._writing = asyncio.Lock()
        self._deploying: list[App] = []

    async def deploy(self, app: App, progress: Callable[[str], None]) -> DeployLine:
        """Build and import every revision, then put the app in place in one event; or change nothing."""
        self._deploying.append(app)
        try:
            return await self._put_in_place(app, progress)
        finally:
            self._deploying.remove(app)

    async def _put_in_place(self, app: App, progress: Callable[[str], None]) -> DeployLine:
        known = self.world.apps.get(app.key)
        self._check_fits(app)
        built: set[tuple[object, str, str]] = set()
        for revision in app.revisions:
            what = (revision.environment, revision.bundle, revision.entry.module)
            if what in built:
                continue
            built.add(what)
            await self._build(revision, progress)
        await self._commit(AppDeployed(at=self.clock.now(), app=app))
        verb = "deployed" if known is None else "deployed again"
        return DeployLine(
            "done",
            f"{app.name} {verb}: {len(app.workloads)} workloads",
            urls=tuple(urls(self.base_url, app)),
            changes=tuple(changes(known, app)),
            notes=tuple(port_conflicts.shared(app, self.world.apps.values())),
        )

    async def _build(self, revision: Revision, progress: Callable[[str], None]) -> None:
        report = await self.engine.build(revision, progress)
        if not report.ok:
            raise SwellError(report.error, report.message, status=422, detail=report.detail)

    def _check_fits(self, app: App) -> None:
        engine = self.engine
        lacking = refusal(app, engine.name, {**self.engines, engine.name: engine.capabilities})
        if lacking is not None:
            raise SwellError("not_available", lacking, status=422)
        revisions = {revision.id: revision for revision in app.revisions}
        nodes = [node for node in self.world.nodes.values() if node.alive]
        for workload in app.workloads:
            why = never_fits(revisions[workload.revision].needs, nodes)
            if why is not None:
                raise SwellError(
                    "never_fits",
                    f"{workload.name} can never be placed here: {why}. Ask for less (cpu=, memory=), "
                    "or deploy it where there is more.",
                    status=422,
                )

    async def stop_app(self, namespace: str, name: str) -> None:
        if f"{namespace}/{name}" not in self.world.apps:
            deployed = self.world.apps.values()
            raise unknown_app(name, namespace, ((app.namespace, app.name) for app in deployed))
        await self._commit(AppStopped(at=self.clock.now(), namespace=namespace, name=name))

    async def _commit(self, event: AppDeployed | AppStopped) -> None:
        """In the world and on disk. Whoever asked may leave; what has begun is finished."""
        await asyncio.shield(self._write(event))

    async def _write(self, event: AppDeployed | AppStopped) -> None:
        """Taken in and logged in one turn, so that the log's order is the order of what was decided; then waited for.

        If the disk refuses, it is taken back: what nobody was promised must not stay.
        """
        async with self._writing:
            if isinstance(event, AppDeployed):
                self._check_labels(event.app)
                key = event.app.key
            else:
                key = f"{event.namespace}/{event.name}"
            before = self.world.apps.get(key)
            self.take(event)
            try:
                await asyncio.to_thread(self.log.flush)
            except SwellError:
                namespace, _, name = key.partition("/")
                at = self.clock.now()
                self.take(AppStopped(at, namespace, name) if before is None else AppDeployed(at, before))
                raise
            if isinstance(event, AppDeployed):
                self.deployed_at[key] = event.at
            else:
                self.deployed_at.pop(key, None)

    def _check_labels(self, app: App) -> None:
        """A web label leads to one app only."""
        wanted = labels(app)
        for other in self.world.apps.values():
            taken = wanted & labels(other) if other.key != app.key else set()
            if taken:
                raise SwellError(
                    "label_taken",
                    f"The web label {min(taken)!r} belongs to app {other.name!r}. Give the endpoint another label=, "
                    f"or stop that app: `swell app stop {other.name}`.",
                    status=409,
                )

    def bundles(self) -> set[str]:
        """Digests of the source that is wanted, runs, or is being deployed."""
        coming = (revision for app in self._deploying for revision in app.revisions)
        return {revision.bundle for revision in (*self.world.revisions.values(), *coming)}

    def owned(self) -> list[App]:
        """Apps that belong to a program and end with it."""
        return [app for app in self.world.apps.values() if app.owner is not None]


def changes(known: App | None, app: App) -> list[tuple[str, str]]:
    """(workload, "new", "changed", "unchanged" or "removed"), by name: what a deploy over `known` does."""
    before = {workload.name: workload for workload in known.workloads} if known is not None else {}
    after = {workload.name: workload for workload in app.workloads}
    told = dict.fromkeys(before.keys() - after.keys(), "removed")
    for name, workload in after.items():
        told[name] = "new" if name not in before else "unchanged" if workload == before[name] else "changed"
    return sorted(told.items())


def labels(app: App) -> set[str]:
    """The web labels an app's endpoints have."""
    return {m.web.label for revision in app.revisions for m in revision.entry.methods if m.web is not None}
