"""What must the gateways know? Rows made from the world, and deltas of the ones that changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swell.decide.retry import closed, failed, restart_at
from swell.model.failures import Failures
from swell.model.key import ApiKey
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.traffic import Branch
from swell.model.variant import is_variant
from swell.model.workload import Split, Workload, pool_key, shown, workload_of
from swell.model.world import World
from swell.wire.http import ErrorBody
from swell.wire.link import Endpoint, PoolRow, Route, Table, TableDelta


class TableKeeper:
    """The rows last sent, so that only changed ones are sent again."""

    def __init__(self, world: World, policy: Policy, prices: Prices) -> None:
        self.world = world
        self.policy = policy
        self.prices = prices
        self.version = 0
        self.pools: dict[str, PoolRow] = {}
        self.routes: dict[str, Route] = {}
        self.keys: dict[str, ApiKey] = {}
        """API keys by their ids."""
        self.gateways = 1
        """How many are connected; at least one."""

    def whole(self) -> Table:
        """What a gateway that just connected is sent."""
        return Table(
            self.version,
            tuple(self.routes.values()),
            tuple(self.pools.values()),
            self.prices,
            tuple(self.keys.values()),
            self.gateways,
        )

    def put_key(self, key: ApiKey) -> TableDelta:
        """A key is new, or not as it was."""
        self.keys[key.id] = key
        base, self.version = self.version, self.version + 1
        return TableDelta(base, self.version, keys=(key,))

    def count(self, gateways: int) -> TableDelta | None:
        """So many gateways are connected; None when that is no news."""
        gateways = max(gateways, 1)
        if gateways == self.gateways:
            return None
        self.gateways = gateways
        base, self.version = self.version, self.version + 1
        return TableDelta(base, self.version, gateways=gateways)

    def problem(self, workload: str) -> ErrorBody | None:
        """Why no queued call of it can be worked on now, where that is known."""
        route = self.routes.get(workload)
        if route is None:
            words = f"{shown(workload)} is not here any more. What was queued for it waits until it is deployed again."
            return ErrorBody("unknown_function", words)
        pool = self.pools.get(route.pool)
        stuck = pool is not None and pool.closed and not pool.replicas
        return ErrorBody("no_replica", pool.failing) if pool is not None and stuck else None

    def refresh(self, pools: Iterable[str]) -> TableDelta | None:
        """Look at these pools (and their workloads' routes) again; None when no row changed."""
        changed_pools, gone_pools, changed_routes, gone_routes = [], [], [], []
        for pool in pools:
            row = pool_row(self.world, pool, self.policy)
            if row is None:
                if self.pools.pop(pool, None) is not None:
                    gone_pools.append(pool)
            elif row != self.pools.get(pool):
                self.pools[pool] = row
                changed_pools.append(row)
            key = workload_of(pool)
            workload = self.world.serving(key)
            route = self.route(workload) if workload is not None else None
            if route is None:
                if self.routes.pop(key, None) is not None:
                    gone_routes.append(key)
            elif route != self.routes.get(key):
                self.routes[key] = route
                changed_routes.append(route)
        if not (changed_pools or gone_pools or changed_routes or gone_routes):
            return None
        base, self.version = self.version, self.version + 1
        return TableDelta(
            base, self.version, tuple(changed_routes), tuple(gone_routes), tuple(changed_pools), tuple(gone_pools)
        )

    def route(self, workload: Workload) -> Route | None:
        revision = self.world.revisions.get(workload.revision)
        if revision is None:
            return None
        return Route(
            namespace=workload.namespace,
            app=workload.app,
            name=workload.name,
            pool=workload.pool,
            methods=revision.entry.methods,
            is_class=revision.entry.kind == "cls",
            limits=workload.limits,
            version=workload.version,
            branches=(*(self._branch(workload, split) for split in workload.splits), *self._coming(workload)),
            hash_header=workload.hash_header,
            parameters=() if is_variant(workload.name) else revision.entry.parameters,
            events=workload.subscription.events if workload.subscription is not None else "",
        )

    def _branch(self, workload: Workload, split: Split) -> Branch:
        methods = self.world.revisions[split.revision].entry.methods
        pool = pool_key(workload.key, split.revision)
        return Branch(pool, split.version, methods, split.percent, split.header, split.tag)

    def _coming(self, serving: Workload) -> Iterator[Branch]:
        """Versions that a variant is to have, by themselves: who asks for one of them waits until it is ready with
        these parameters, or is told why it does not start. Without parameters each is where its workload is."""
        workload = self.world.workloads.get(serving.key)
        if workload is not None and workload is not serving and is_variant(workload.name):
            # Of several versions with the same revision each has its number.
            splits = (Split(workload.revision, workload.version), *workload.splits)
            for revision, version in dict.fromkeys((split.revision, split.version) for split in splits):
                if revision not in serving.wants:
                    yield self._branch(workload, Split(revision, version))


def pool_row(world: World, pool: str, policy: Policy) -> PoolRow | None:
    """One pool's row; None when nobody wants the pool and nothing of it runs."""
    revision = world.revision(pool)
    members = world.in_pool(pool)
    if revision is None or (not members and world.workload(pool) is None):
        return None
    ready = [
        Endpoint(replica.id, replica.address, replica.timings_ms)
        for replica in members
        if replica.role == "serving" and replica.phase is Phase.READY
    ]
    failures = world.failures.get(pool) if not ready else None
    trying = any(r.role == "serving" and r.phase in (Phase.PLANNED, Phase.STARTING) for r in members)
    return PoolRow(
        pool=pool,
        max_inputs=revision.max_inputs,
        timeout_s=revision.longest_s,
        memory_mib=revision.needs.memory_mib,
        single_use=revision.single_use,
        native=not any(m.web is not None and m.web.kind == "server" for m in revision.entry.methods),
        replicas=tuple(ready),
        batch_max=revision.batch.max_size if revision.batch is not None else 0,
        failing=failing(failures) if failures is not None else "",
        retry_at=restart_at(failures, policy),
        closed=failures is not None and closed(failures, revision, policy, trying),
        limited_by="timeout_max" if revision.gives_time else "timeout",
        gang=revision.gang is not None,
    )


def failing(failures: Failures) -> str:
    """How often, and why, a pool's start failed."""
    return f"{failed(failures)}. {in_short(failures.detail)}".strip()


def in_short(detail: str) -> str:
    """Of how something ended: the message, or how its process did, and the end of what followed (a traceback, what it
    printed last)."""
    lines = detail.strip().splitlines() or [""]
    first, last = lines[0], lines[-1].strip()
    return first if last in first else f"{first}: {last}"
