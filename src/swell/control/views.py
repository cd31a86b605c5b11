"""What do people ask of control, and what do they get to see? The API's port, over the loop and the store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from swell.control.loop import Loop
from swell.control.why import explain, origin
from swell.decide.place import never_fits
from swell.decide.price import PoolCost, pool_cost
from swell.model.demand import IDLE
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped
from swell.model.replica import Phase, Replica
from swell.model.request import Prices
from swell.model.workload import App, Method, Revision, Workload, workload_of
from swell.wire.api import AppRow, DeployLine, PoolUsage, ReplicaRow, Why, WorkloadRow

WHY_WINDOW_S = 86_400.0
"""A request's share of idle and start-up time is an average over its pool's last day."""


class Views:
    """Deploys, stops and listings. Reads the live world; never plans."""

    def __init__(self, loop: Loop, prices: Prices, base_url: str, version: str) -> None:
        self.loop = loop
        self.prices = prices
        self.base_url = base_url
        self.version = version
        self._writing = asyncio.Lock()

    def health(self) -> dict[str, object]:
        reactor = self.loop.reactor
        return {
            "ok": True,
            "version": self.version,
            "pid": os.getpid(),
            "epoch": self.loop.epoch,
            "nodes": sum(node.alive for node in reactor.world.nodes.values()),
            "gateways": len(self.loop.link.gateways) if self.loop.link is not None else 0,
            "waiting": dict(reactor.waiting),
            "trouble": self.loop.store.trouble,
        }

    # -- deploying ---------------------------------------------------------------------------

    async def deploy(self, app: App, progress: Callable[[str], None]) -> DeployLine:
        """Build and import every revision, then put the app in place in one event; or change nothing."""
        known = self.loop.reactor.world.apps.get(app.key)
        self._check_fits(app)
        built: set[tuple[object, str, str]] = set()
        for revision in app.revisions:
            what = (revision.environment, revision.bundle, revision.entry.module)
            if what in built:
                continue
            built.add(what)
            await self._build(revision, progress)
        await self._commit(AppDeployed(at=self.loop.clock.now(), app=app))
        verb = "deployed" if known is None else "deployed again"
        return DeployLine("done", f"{app.name} {verb}: {len(app.workloads)} workloads", urls=tuple(self._urls(app)))

    async def _build(self, revision: Revision, progress: Callable[[str], None]) -> None:
        report = await self.loop.engine.build(revision, progress)
        if not report.ok:
            raise SwellError(report.error, report.message, status=422, detail=report.detail)

    def _check_fits(self, app: App) -> None:
        revisions = {revision.id: revision for revision in app.revisions}
        nodes = [node for node in self.loop.reactor.world.nodes.values() if node.alive]
        for workload in app.workloads:
            why = never_fits(revisions[workload.revision].needs, nodes)
            if why is not None:
                raise SwellError(
                    "never_fits",
                    f"{workload.name} can never be placed here: {why}. Ask for less (cpu=, memory=, gpu=), "
                    "or deploy it where there is more.",
                    status=422,
                )

    async def stop_app(self, namespace: str, name: str) -> None:
        if f"{namespace}/{name}" not in self.loop.reactor.world.apps:
            names = sorted(a.name for a in self.loop.reactor.world.apps.values() if a.namespace == namespace)
            there = f"There are: {', '.join(names)}." if names else "No app is deployed."
            raise SwellError("unknown_app", f"There is no app {name!r}. {there}", status=404)
        await self._commit(AppStopped(at=self.loop.clock.now(), namespace=namespace, name=name))

    async def _commit(self, event: AppDeployed | AppStopped) -> None:
        """On disk first, then in the world. Whoever asked may leave; what has begun is finished."""
        await asyncio.shield(self._write(event))

    async def _write(self, event: AppDeployed | AppStopped) -> None:
        async with self._writing:
            await asyncio.to_thread(self.loop.store.world.append, [event], True)
            self.loop.reactor.applied(event)
            self.loop.wake()

    def owned(self) -> list[App]:
        """Apps that belong to a program and end with it."""
        return [app for app in self.loop.reactor.world.apps.values() if app.owner is not None]

    # -- listings ----------------------------------------------------------------------------

    def apps(self) -> list[AppRow]:
        world = self.loop.reactor.world
        rows = []
        deployed_at = self.loop.store.world.deployed_at()
        for app in sorted(world.apps.values(), key=lambda a: a.key):
            workloads = tuple(self._workload_row(world.workloads[w.key]) for w in app.workloads)
            at = deployed_at.get(app.key, 0.0)
            rows.append(AppRow(app.namespace, app.name, at, app.owner is not None, app.source, workloads, app.tags))
        return rows

    def _workload_row(self, workload: Workload) -> WorkloadRow:
        reactor = self.loop.reactor
        members = [r for r in reactor.world.in_pool(workload.pool) if r.role == "serving"]
        demand = reactor.book.demand.get(workload.pool, IDLE)
        entry = reactor.world.revisions[workload.revision].entry
        return WorkloadRow(
            name=workload.name,
            revision=workload.revision,
            kind=entry.kind,
            methods=tuple(m.name for m in entry.methods),
            url=self._url(workload, entry.methods[0]),
            ready=sum(r.phase is Phase.READY for r in members),
            live=len(members),
            held=demand.held,
            in_flight=demand.in_flight,
        )

    def replicas(self) -> list[ReplicaRow]:
        now = self.loop.clock.now()
        rows = sorted(self.loop.reactor.world.replicas.values(), key=lambda r: (r.pool, r.role, r.planned_at, r.id))
        return [self._replica_row(replica, now) for replica in rows]

    def _replica_row(self, replica: Replica, now: float) -> ReplicaRow:
        reactor = self.loop.reactor
        ready = [
            r
            for r in reactor.world.in_pool(replica.pool)
            if r.role == "serving" and r.phase in (Phase.READY, Phase.DRAINING)
        ]
        story = self.loop.history.get(replica.id)
        going = f"{replica.reason}: {story.stop_why}" if story is not None and story.stop_why else replica.reason
        why = going or (story.why if story is not None else "")
        if story is not None and replica.role == "serving":
            why += f"; {origin(story, reactor.world.refused.get(replica.pool, ''))}"
        if story is not None and story.stuck:
            why += f"; {story.stuck} inputs go on after their caller left and cannot be stopped"
        return ReplicaRow(
            id=replica.id,
            workload=workload_of(replica.pool),
            revision=replica.pool.partition("@")[2],
            role=replica.role,
            phase=replica.phase.value,
            node=replica.node,
            pid=replica.pid,
            age_s=round(now - replica.planned_at, 3),
            in_flight=reactor.book.demand.get(replica.pool, IDLE).in_flight if replica in ready else 0,
            shared=len(ready) > 1 and replica in ready,
            memory_mib=round(replica.rss_mib, 1),
            why=why,
            applied=replica.applied,
        )

    async def why(self, request_id: str) -> Why:
        record = await asyncio.to_thread(self.loop.store.usage.request, request_id)
        if record is None:
            raise SwellError(
                "not_kept",
                f"Request {request_id} is not kept. Errors, cold and slow requests and the last of each pool are; "
                "a request shows up within two seconds of its end.",
                status=404,
            )
        cost = (await self._costs(WHY_WINDOW_S)).get(record.pool, PoolCost())
        refused = self.loop.reactor.world.refused.get(record.pool, "")
        return explain(record, self.loop.history.get(record.replica), cost, refused)

    async def usage(self, since_s: float) -> list[PoolUsage]:
        return [
            PoolUsage(
                pool=pool,
                requests=cost.requests,
                errors=cost.errors,
                cold=cost.cold,
                cpu_s=cost.cpu_s,
                replica_s=cost.replica_s,
                template_s=cost.template_s,
                starting_s=cost.starting_s,
                busy_s=cost.busy_s,
                memory_gib_s=cost.memory_gib_s,
                cost_usd=cost.cost_usd,
            )
            for pool, cost in sorted((await self._costs(since_s)).items())
        ]

    async def _costs(self, since_s: float) -> dict[str, PoolCost]:
        """Cost per pool over the last `since_s` seconds; 0 = all that is kept."""
        now = self.loop.clock.now()
        since = now - since_s if since_s else 0.0
        usage = await asyncio.to_thread(self.loop.store.usage.usage, since, now + 60)
        counts = await asyncio.to_thread(self.loop.store.usage.counts, since, now + 60)
        pools = dict.fromkeys([*(u.pool for u in usage), *(c.pool for c in counts)])
        return {
            pool: pool_cost((u for u in usage if u.pool == pool), (c for c in counts if c.pool == pool), self.prices)
            for pool in pools
        }

    # -- addresses ---------------------------------------------------------------------------

    def _urls(self, app: App) -> list[tuple[str, str]]:
        revisions = {revision.id: revision for revision in app.revisions}
        urls = []
        for workload in app.workloads:
            entry = revisions[workload.revision].entry
            for method in entry.methods:
                name = f"{workload.name}.{method.name}" if entry.kind == "cls" else workload.name
                urls.append((name, self._url(workload, method)))
        return urls

    def _url(self, workload: Workload, method: Method) -> str:
        if method.web is not None:
            return f"{self.base_url}/web/{method.web.label}/"
        entry = self.loop.reactor.world.revisions.get(workload.revision)
        is_class = entry is not None and entry.entry.kind == "cls"
        name = f"{workload.name}.{method.name}" if is_class else workload.name
        space = "" if workload.namespace == "default" else f"{workload.namespace}/"
        return f"{self.base_url}/call/{space}{workload.app}/{name}"
