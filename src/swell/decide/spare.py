"""What could a pool do without now, if others waited for its room, and since when?

What it needs it keeps: the replicas of its demand and its minimum, and a template that is being forked.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from swell.decide.roll import floor
from swell.decide.scale import PoolState, unneeded
from swell.model.demand import Demand
from swell.model.replica import Phase, Replica
from swell.model.world import World


class Use(IntEnum):
    """What it is still good for. What is of less use goes first."""

    NONE = 0
    WARM = 1
    """A template of a pool in use: better its next replicas are started fresh than that others have none at all."""
    RESERVE = 2
    """A replica that its owner wants beside those at work; nobody waits for it yet."""


class Spare(NamedTuple):
    """Something to take back."""

    use: Use
    since: float
    """Not needed from then on (seconds since the epoch)."""
    replica: Replica

    @property
    def turn(self) -> tuple[Use, float]:
        """What goes first sorts first; of equals the one listed first."""
        return (self.use, self.since)


def spare(world: World, pool: str, demand: Demand, leaving: Container[str] = ()) -> Iterator[Spare]:
    """Its ready replicas beyond need and minimum, the newest first, and its templates.

    `leaving`: those that are stopped already, or are about to be forked from.
    """
    revision = world.revision(pool)
    if revision is None:
        return
    members = [r for r in world.by_pool.get(pool, {}).values() if r.phase is not Phase.DRAINING and r.id not in leaving]
    serving = [r for r in members if r.role == "serving"]
    if revision.gang is not None:
        # One that nobody needs ends by itself soon enough: it is for calls that were due.
        yield from _templates(members, demand)
        return
    for since, reserve, replica in unneeded(
        PoolState(world.workload(pool), revision, demand, serving, floor=floor(world, pool))
    ):
        yield Spare(Use.RESERVE if reserve else Use.NONE, since, replica)
    if len(serving) < len(members):
        yield from _templates(members, demand)


def _templates(members: Iterable[Replica], demand: Demand) -> Iterator[Spare]:
    awaited = {r.template for r in members if r.phase is not Phase.READY}
    ready = [r for r in members if r.phase is Phase.READY]
    used_at = max((r.ready_at or r.planned_at for r in ready), default=0.0) if demand.level else demand.used_at
    for replica in ready:
        if replica.role == "template" and replica.id not in awaited:
            since = max(used_at, replica.ready_at or replica.planned_at)
            yield Spare(Use.WARM if demand.level else Use.NONE, since, replica)
