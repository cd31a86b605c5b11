"""What do people get to see of control? Listings, costs, and where a request's time went. Never plans."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

import msgspec

from swell.control.addresses import url
from swell.control.history import History
from swell.control.reactor import Reactor
from swell.control.rolling import story
from swell.control.versions import current
from swell.control.why import explain, origin
from swell.decide.access import Holder, may_see
from swell.decide.price import PoolCost, pool_cost
from swell.model.demand import IDLE
from swell.model.ends import in_words
from swell.model.errors import SwellError
from swell.model.node import Node
from swell.model.ports import Clock, Store
from swell.model.replica import Phase, Replica
from swell.model.request import KeyCount, PoolCount, Prices, Usage, is_id
from swell.model.resources import Room
from swell.model.unknown import no_request_id, unknown_request
from swell.model.variant import is_variant
from swell.model.workload import Workload, app_of, revision_of, workload_of
from swell.wire.api import AppRow, PoolUsage, ReplicaRow, RequestRow, ShareRow, Why, WorkloadRow
from swell.wire.nodes import GpuRow, NodeRow

WHY_WINDOW_S = 86_400.0
"""A request's share of idle and start-up time is an average over its pool's last day."""

HEAR_S = 2.0
"""How long a question about replicas waits for a node to say what it has: a control that just began knows of none."""


class Queries:
    """Answers to what is asked of control."""

    def __init__(
        self,
        reactor: Reactor,
        history: History,
        store: Store,
        clock: Clock,
        heard: asyncio.Event,
        *,
        gateways: Collection[str],
        deployed_at: Mapping[str, float],
        prices: Prices,
        base_url: str,
        version: str,
    ) -> None:
        """`heard` is set once a node said what it has; `gateways` are connected now; `deployed_at`: app → when it was
        last deployed."""
        self.reactor = reactor
        self.history = history
        self.store = store
        self.clock = clock
        self.heard = heard
        self.gateways = gateways
        self.deployed_at = deployed_at
        self.prices = prices
        self.base_url = base_url
        self.version = version
        self.next_firing: Callable[[str], float | None] = lambda _workload: None
        """When the schedule of a workload calls it next."""

    def health(self) -> dict[str, object]:
        reactor = self.reactor
        return {
            "ok": True,
            "version": self.version,
            "pid": os.getpid(),
            "epoch": reactor.world.epoch,
            "nodes": sum(node.alive for node in reactor.world.nodes.values()),
            "gateways": len(self.gateways),
            "waiting": dict(reactor.waiting),
            "trouble": self.store.trouble,
        }

    def deployed(self) -> list[tuple[str, str]]:
        return sorted((app.namespace, app.name) for app in self.reactor.world.apps.values())

    async def _hear(self) -> bool:
        """Is it known what runs? Replicas that nobody told of yet must not be counted as none."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.heard.wait(), HEAR_S)
        return self.heard.is_set()

    async def apps(self, *, counts: bool) -> list[AppRow]:
        if counts:
            await self._hear()
        world = self.reactor.world
        rows = []
        for app in sorted(world.apps.values(), key=lambda a: a.key):
            workloads = tuple(self._workload_row(world.workloads[w.key]) for w in app.workloads)
            at = self.deployed_at.get(app.key, 0.0)
            owned = app.owner is not None
            rows.append(
                AppRow(app.namespace, app.name, at, owned, app.source, workloads, app.tags, version=current(app))
            )
        return rows

    def _workload_row(self, workload: Workload) -> WorkloadRow:
        reactor = self.reactor
        pools = reactor.world.wanted_pools(workload.key)
        members = [r for pool in pools for r in reactor.world.in_pool(pool) if r.role == "serving"]
        demands = [reactor.book.demand.get(pool, IDLE) for pool in pools]
        known = self.heard.is_set()
        revision = reactor.world.revisions[workload.revision]
        entry = revision.entry
        serving = reactor.world.serving(workload.key) or workload
        return WorkloadRow(
            name=workload.name,
            revision=workload.revision,
            kind=entry.kind,
            methods=tuple(m.name for m in entry.methods),
            url=url(self.base_url, workload, entry, entry.methods[0]),
            ready=sum(r.phase is Phase.READY for r in members) if known else None,
            live=len(members) if known else None,
            held=sum(demand.held for demand in demands),
            in_flight=sum(demand.in_flight for demand in demands),
            generators=tuple(m.name for m in entry.methods if m.generator),
            cached=tuple(m.name for m in entry.methods if m.cache is not None),
            traffic=tuple(_shares(serving)),
            hash_header=serving.hash_header,
            rolling=story(reactor.world, workload.key, reactor.waiting.get(workload.pool, "")),
            retrying=revision.retrying,
            scaling=workload.scaling,
            nodes=revision.gang.size if revision.gang is not None else 0,
            written=workload.written,
            next_at=self.next_firing(workload.key),
        )

    async def replicas(self) -> list[ReplicaRow]:
        if not await self._hear():
            raise SwellError(
                "no_runner",
                "What runs is not known yet: control has just begun, and the runner has not told it. Try again.",
                status=503,
            )
        now = self.clock.now()
        rows = sorted(self.reactor.world.replicas.values(), key=lambda r: (r.pool, r.role, r.planned_at, r.id))
        return [self._replica_row(replica, now) for replica in rows]

    async def nodes(self) -> list[NodeRow]:
        await self._hear()
        world = self.reactor.world
        return [_node_row(node, world.room(id) if id in world.rooms else None) for id, node in world.nodes.items()]

    def _replica_row(self, replica: Replica, now: float) -> ReplicaRow:
        reactor = self.reactor
        past = self.history.get(replica.id)
        why = past.why if past is not None else ""
        if replica.reason:
            why = in_words(replica.reason, past.stop_why if past is not None else "")
        if past is not None and replica.role == "serving":
            why += f"; {origin(past, reactor.unforkable(replica.pool))}"
        if says := story(reactor.world, workload_of(replica.pool), reactor.waiting.get(replica.pool, "")):
            why += f"; {says}"
        if past is not None and past.stuck:
            who = "1 input goes on after its" if past.stuck == 1 else f"{past.stuck} inputs go on after their"
            why += f"; {who} caller left and cannot be stopped"
        if replica.gpus:
            node = reactor.world.nodes[replica.node]
            models = dict.fromkeys(each.model for each in node.gpus if each.id in replica.gpus)
            why += f"; has {len(replica.gpus)} {' and '.join(models) or 'GPUs'}"
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
            written=self._written(workload_of(replica.pool)),
            gang=replica.seat.gang if replica.seat is not None else "",
            rank=replica.seat.rank if replica.seat is not None else None,
            gpus=replica.gpus,
        )

    async def why(self, request_id: str, holder: Holder) -> Why:
        if not is_id(request_id):
            raise no_request_id(request_id)
        record = await asyncio.to_thread(self.store.usage.request, request_id)
        if record is None or not may_see(holder, *app_of(record.pool)):
            # Only what a gateway that lives gave an id to may still come.
            gateway = request_id.partition("-")[0]
            raise unknown_request(request_id, may_come=gateway in self.gateways)
        cost = (await self._costs(WHY_WINDOW_S, record.pool)).get(record.pool, PoolCost())
        found = explain(record, self.history.get(record.replica), cost)
        return msgspec.structs.replace(found, written=self._written(record.workload))

    async def requests(self, namespace: str, app: str, most: int) -> list[RequestRow]:
        prefix = f"{namespace}/{app}/" if app else f"{namespace}/"
        records = await asyncio.to_thread(self.store.usage.requests, prefix, most)
        rows = (msgspec.convert(record, RequestRow, from_attributes=True) for record in records)
        return [msgspec.structs.replace(row, written=self._written(row.workload)) for row in rows]

    def _written(self, key: str) -> str:
        """A variant's key with its name as people write it; empty for any other, and once it is forgotten."""
        workload = self.reactor.world.workloads.get(key) if is_variant(key) else None
        return "" if workload is None else f"{workload.namespace}/{workload.app}/{workload.written}"

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
                written=self._written(workload_of(pool)),
            )
            for pool, cost in sorted((await self._costs(since_s)).items())
        ]

    async def key_usage(self, since_s: float) -> list[KeyCount]:
        now = self.clock.now()
        return await asyncio.to_thread(self.store.usage.key_counts, now - since_s if since_s else 0.0, now + 60)

    async def _costs(self, since_s: float, pool: str = "") -> dict[str, PoolCost]:
        """Cost per pool, of one or of all, over the last `since_s` seconds; 0 = all that is kept."""
        now = self.clock.now()
        since = now - since_s if since_s else 0.0
        usage = await asyncio.to_thread(self.store.usage.usage, since, now + 60, pool)
        counts = await asyncio.to_thread(self.store.usage.counts, since, now + 60, pool)
        rows: dict[str, tuple[list[Usage], list[PoolCount]]] = defaultdict(lambda: ([], []))
        for used in usage:
            rows[used.pool][0].append(used)
        for counted in counts:
            rows[counted.pool][1].append(counted)
        return {pool: pool_cost(*both, self.prices) for pool, both in rows.items()}


def _node_row(node: Node, room: Room | None) -> NodeRow:
    """`room`: what is free there; None where it is not there."""
    devices = room.devices if room is not None else {}
    return NodeRow(
        id=node.id,
        alive=node.alive,
        cpu=node.cpu,
        cpu_left=max(room.cpu, 0.0) if room is not None else 0.0,
        memory_mib=node.memory_mib,
        memory_left_mib=max(room.memory_mib, 0.0) if room is not None else 0.0,
        gpus=tuple(GpuRow(gpu.id, gpu.model, gpu.memory_mib, devices.get(gpu.id, 0) > 0) for gpu in node.gpus),
        spot=node.spot,
        leaving_at=node.leaving_at,
    )


def _shares(workload: Workload) -> Iterator[ShareRow]:
    """Where a workload's requests go."""
    if workload.version:
        yield ShareRow(workload.version, 100 - sum(split.percent for split in workload.splits))
    for split in workload.splits:
        yield ShareRow(split.version, split.percent, "=".join(split.header or ()), split.tag)
