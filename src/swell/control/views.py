"""What do people ask of control, and what do they get to see? The API's port, over the loop and the store."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from swell.control import port_conflicts
from swell.control.loop import Loop
from swell.control.why import explain, origin
from swell.decide.place import never_fits
from swell.decide.powers import refusal
from swell.decide.price import PoolCost, pool_cost
from swell.model.demand import IDLE
from swell.model.ends import in_words
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped
from swell.model.replica import Phase, Replica
from swell.model.request import PoolCount, Prices, Usage, is_id
from swell.model.unknown import no_request_id, unknown_app, unknown_request
from swell.model.workload import App, Method, Revision, Workload, revision_of, shown, workload_of
from swell.wire.api import AppRow, DeployLine, PoolUsage, ReplicaRow, RequestRow, Why, WorkloadRow

WHY_WINDOW_S = 86_400.0
"""A request's share of idle and start-up time is an average over its pool's last day."""


class Views:
    """Deploys, stops and listings. Reads the live world; never plans."""

    def __init__(
        self, loop: Loop, prices: Prices, base_url: str, version: str, engines: Mapping[str, frozenset[str]]
    ) -> None:
        """`engines`: name → capabilities of every engine there is, to say who has what this one lacks."""
        self.loop = loop
        self.engines = engines
        self.prices = prices
        self.base_url = base_url
        self.version = version
        self._writing = asyncio.Lock()
        self._deploying: list[App] = []
        self._deployed_at = loop.store.world.deployed_at()

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
        self._deploying.append(app)
        try:
            return await self._put_in_place(app, progress)
        finally:
            self._deploying.remove(app)

    async def _put_in_place(self, app: App, progress: Callable[[str], None]) -> DeployLine:
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
        return DeployLine(
            "done",
            f"{app.name} {verb}: {len(app.workloads)} workloads",
            urls=tuple(self._urls(app)),
            changes=tuple(changes(known, app)),
            notes=tuple(port_conflicts.shared(app, self.loop.reactor.world.apps.values())),
        )

    async def _build(self, revision: Revision, progress: Callable[[str], None]) -> None:
        report = await self.loop.engine.build(revision, progress)
        if not report.ok:
            raise SwellError(report.error, report.message, status=422, detail=report.detail)

    def _check_fits(self, app: App) -> None:
        engine = self.loop.engine
        lacking = refusal(app, engine.name, {**self.engines, engine.name: engine.capabilities})
        if lacking is not None:
            raise SwellError("not_available", lacking, status=422)
        revisions = {revision.id: revision for revision in app.revisions}
        nodes = [node for node in self.loop.reactor.world.nodes.values() if node.alive]
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
        if f"{namespace}/{name}" not in self.loop.reactor.world.apps:
            deployed = self.loop.reactor.world.apps.values()
            raise unknown_app(name, namespace, ((app.namespace, app.name) for app in deployed))
        await self._commit(AppStopped(at=self.loop.clock.now(), namespace=namespace, name=name))

    async def _commit(self, event: AppDeployed | AppStopped) -> None:
        """In the world and on disk. Whoever asked may leave; what has begun is finished."""
        await asyncio.shield(self._write(event))

    async def _write(self, event: AppDeployed | AppStopped) -> None:
        """Taken in and logged in one turn, so that the log's order is the order of what was decided; then waited for.

        If the disk refuses, it is taken back: what nobody was promised must not stay.
        """
        world, log = self.loop.reactor.world, self.loop.store.world
        async with self._writing:
            if isinstance(event, AppDeployed):
                self._check_labels(event.app)
                key = event.app.key
            else:
                key = f"{event.namespace}/{event.name}"
            before = world.apps.get(key)
            self.loop.take(event)
            try:
                await asyncio.to_thread(log.flush)
            except SwellError:
                namespace, _, name = key.partition("/")
                at = self.loop.clock.now()
                self.loop.take(AppStopped(at, namespace, name) if before is None else AppDeployed(at, before))
                raise
            if isinstance(event, AppDeployed):
                self._deployed_at[key] = event.at
            else:
                self._deployed_at.pop(key, None)

    def _check_labels(self, app: App) -> None:
        """A web label leads to one app only."""
        wanted = labels(app)
        for other in self.loop.reactor.world.apps.values():
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
        return {revision.bundle for revision in (*self.loop.reactor.world.revisions.values(), *coming)}

    def owned(self) -> list[App]:
        """Apps that belong to a program and end with it."""
        return [app for app in self.loop.reactor.world.apps.values() if app.owner is not None]

    # -- listings ----------------------------------------------------------------------------

    def apps(self) -> list[AppRow]:
        world = self.loop.reactor.world
        rows = []
        for app in sorted(world.apps.values(), key=lambda a: a.key):
            workloads = tuple(self._workload_row(world.workloads[w.key]) for w in app.workloads)
            at = self._deployed_at.get(app.key, 0.0)
            rows.append(AppRow(app.namespace, app.name, at, app.owner is not None, app.source, workloads, app.tags))
        return rows

    def _workload_row(self, workload: Workload) -> WorkloadRow:
        reactor = self.loop.reactor
        members = [r for r in reactor.world.in_pool(workload.pool) if r.role == "serving"]
        demand = reactor.book.demand.get(workload.pool, IDLE)
        revision = reactor.world.revisions[workload.revision]
        entry = revision.entry
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
            generators=tuple(m.name for m in entry.methods if m.generator),
            retrying=revision.retrying,
        )

    def replicas(self) -> list[ReplicaRow]:
        now = self.loop.clock.now()
        rows = sorted(self.loop.reactor.world.replicas.values(), key=lambda r: (r.pool, r.role, r.planned_at, r.id))
        return [self._replica_row(replica, now) for replica in rows]

    def _replica_row(self, replica: Replica, now: float) -> ReplicaRow:
        reactor = self.loop.reactor
        past = self.loop.history.get(replica.id)
        why = past.why if past is not None else ""
        if replica.reason:
            why = in_words(replica.reason, past.stop_why if past is not None else "")
        if past is not None and replica.role == "serving":
            why += f"; {origin(past, reactor.unforkable(replica.pool))}"
        if past is not None and past.stuck:
            why += f"; {past.stuck} inputs go on after their caller left and cannot be stopped"
        return ReplicaRow(
            id=replica.id,
            workload=workload_of(replica.pool),
            revision=revision_of(replica.pool),
            role=replica.role,
            phase=replica.phase.value,
            node=replica.node,
            pid=replica.pid,
            age_s=round(now - replica.planned_at, 3),
            in_flight=reactor.book.in_flight(replica.pool, replica.id),
            memory_mib=round(replica.rss_mib, 1),
            why=why,
            applied=replica.applied,
        )

    async def why(self, request_id: str) -> Why:
        if not is_id(request_id):
            raise no_request_id(request_id)
        record = await asyncio.to_thread(self.loop.store.usage.request, request_id)
        if record is None:
            # Only what a gateway that lives gave an id to may still come.
            link, gateway = self.loop.link, request_id.partition("-")[0]
            raise unknown_request(request_id, may_come=link is not None and gateway in link.gateways)
        cost = (await self._costs(WHY_WINDOW_S, record.pool)).get(record.pool, PoolCost())
        return explain(record, self.loop.history.get(record.replica), cost)

    async def requests(self, namespace: str, app: str, most: int) -> list[RequestRow]:
        prefix = f"{namespace}/{app}/" if app else f"{namespace}/"
        records = await asyncio.to_thread(self.loop.store.usage.requests, prefix, most)
        return [msgspec.convert(record, RequestRow, from_attributes=True) for record in records]

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

    async def _costs(self, since_s: float, pool: str = "") -> dict[str, PoolCost]:
        """Cost per pool, of one or of all, over the last `since_s` seconds; 0 = all that is kept."""
        now = self.loop.clock.now()
        since = now - since_s if since_s else 0.0
        usage = await asyncio.to_thread(self.loop.store.usage.usage, since, now + 60, pool)
        counts = await asyncio.to_thread(self.loop.store.usage.counts, since, now + 60, pool)
        rows: dict[str, tuple[list[Usage], list[PoolCount]]] = defaultdict(lambda: ([], []))
        for used in usage:
            rows[used.pool][0].append(used)
        for counted in counts:
            rows[counted.pool][1].append(counted)
        return {pool: pool_cost(*both, self.prices) for pool, both in rows.items()}

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
        return f"{self.base_url}/call/{shown(f'{workload.namespace}/{workload.app}/{name}')}"


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
