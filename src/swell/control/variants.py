"""Which variants of workloads are there? Made when somebody asks for one, forgotten when nobody has for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from swell.decide.variants import Known, forgotten, given_up, problems, varied_workload
from swell.model.demand import IDLE, Demand
from swell.model.errors import SwellError
from swell.model.events import Event, VariantsSet
from swell.model.ports import Clock
from swell.model.replica import Phase
from swell.model.variant import MARK, is_variant
from swell.model.workload import App, Revision, Variant, Workload, shown
from swell.model.world import World

NEW_S = 10.0
"""One that was just made is not given up: who asked for it is about to call. Where those at zero stay for less than
this, for no longer than that."""
STARTING = (Phase.PLANNED, Phase.STARTING)


class Made(msgspec.Struct, frozen=True):
    """A variant as it is, or would be."""

    workload: Workload
    revisions: tuple[Revision, ...]


class Variants:
    """Those of all workloads in the world."""

    def __init__(
        self,
        world: World,
        take: Callable[[Event], None],
        demand: Mapping[str, Demand],
        clock: Clock,
        most: int,
        keep_s: float,
    ) -> None:
        """`take` brings an event into the world and the log. `most`: of one workload. `keep_s`: how long one stays that
        is at zero."""
        self.world = world
        self.take = take
        self.demand = demand
        self.clock = clock
        self.most = most
        self.keep_s = keep_s
        self._begun_at = clock.now()
        self._made_at: dict[str, float] = {}
        self._made_by: dict[str, str] = {}
        self.queued: Callable[[str], bool] = lambda _key: False
        """Do queued calls wait for it?"""

    def want(self, key: str, variant: Variant, by: str = "") -> Workload:
        """Have it in the world from now on. `by`: the API key that asks. SwellError where it cannot be, or too many are
        in use."""
        return self.put(self.made(key, variant), by)

    def made(self, key: str, variant: Variant) -> Made:
        """What it would be, of the workload of that key. SwellError where that cannot be run so."""
        workload = self.of(key)
        made = varied_workload(workload, variant, self.world.revisions)
        if made is None:
            wrong = problems(variant, workload, self.world.revisions[workload.revision])
            raise SwellError("bad_option", f"{shown(key)} cannot be had so: {'; '.join(wrong)}.", status=422)
        return Made(*made)

    def of(self, key: str) -> Workload:
        """What was deployed under that key. SwellError where nothing was."""
        workload = self.world.workloads.get(key)
        if workload is None or is_variant(key):
            words = f"There is no function or class {shown(key)[:200]} here: `swell app list` shows what there is."
            raise SwellError("unknown_function", words, status=404)
        return workload

    def put(self, made: Made, by: str = "") -> Workload:
        """Have it in the world, in place of others that nobody uses if need be."""
        workload, now = made.workload, self.clock.now()
        known = self.world.workloads.get(workload.key)
        if known is not None:
            return known
        base = f"{workload.namespace}/{workload.app}/{workload.base}"
        others = list(self._known(self._of(base), now))
        gone = tuple(each.key.rpartition("/")[2] for each in given_up(others, self.most, shown(base), by))
        self._made_at[workload.key], self._made_by[workload.key] = now, by
        self.take(VariantsSet(now, workload.namespace, workload.app, (workload,), made.revisions, gone))
        return workload

    async def sweep(self) -> None:
        """Forget those that have been at zero for long enough."""
        now, there = self.clock.now(), self.world.workloads
        self._made_at = {key: at for key, at in self._made_at.items() if key in there}
        self._made_by = {key: by for key, by in self._made_by.items() if key in there}
        keys = forgotten(self._known((key for key in list(there) if is_variant(key)), now), self.keep_s, now)
        by_app: dict[tuple[str, str], list[str]] = {}
        for key in keys:
            namespace, app, name = key.split("/", 2)
            by_app.setdefault((namespace, app), []).append(name)
        for (namespace, app), names in by_app.items():
            self.take(VariantsSet(now, namespace, app, removed=tuple(names)))

    def _of(self, base: str) -> list[str]:
        """Keys of a workload's variants."""
        namespace, name, _ = base.split("/", 2)
        app: App | None = self.world.apps.get(f"{namespace}/{name}")
        return [each.key for each in (app.workloads if app is not None else ()) if each.key.startswith(base + MARK)]

    def _known(self, keys: Iterator[str] | list[str], now: float) -> Iterator[Known]:
        for key in keys:
            pools = self.world.wanted_pools(key)
            levels = [self.demand.get(pool, IDLE) for pool in pools]
            members = [replica for pool in pools for replica in self.world.in_pool(pool)]
            made_at = self._made_at.get(key, self._begun_at)
            # Of those that an earlier control made it is not heard at once whether they are used.
            new_s = min(NEW_S, self.keep_s) if key in self._made_at else NEW_S
            used_at = max((made_at, *(level.used_at for level in levels)))
            wanted = any(level.level for level in levels) or any(replica.phase in STARTING for replica in members)
            # Its owner said that there be some, whoever calls.
            kept = self.world.workloads[key].scaling.min_replicas > 0
            kept |= self.queued(key)
            idle = not wanted and not kept and made_at + new_s <= now
            yield Known(key, used_at, idle, zero=idle and not members, by=self._made_by.get(key, ""))
