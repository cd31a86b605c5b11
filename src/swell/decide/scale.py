"""How many replicas should this pool have, why, and when is it worth looking again?

The fixed rule: as many as the demand of this moment needs; an extra one goes when the highest demand of
the last `idle_s` did not need it. What is not ready yet is never given up for idleness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from swell.decide.retry import failed, restart_at
from swell.model.demand import REPORT_LAG_S, Demand
from swell.model.failures import Failures
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.workload import Revision, Workload

NEVER = math.inf


class Floor(NamedTuple):
    """Replicas that a pool is to have whatever its demand, and why."""

    replicas: int
    why: str


class PoolState(msgspec.Struct, frozen=True):
    """A pool as it is now: what its size depends on."""

    workload: Workload | None
    """None once its revision is superseded."""
    revision: Revision
    demand: Demand
    serving: Sequence[Replica]
    """Its live replicas that do not drain."""
    failures: Failures | None = None
    ended: Sequence[float] = ()
    """When replicas of it that had been ready ended unasked."""
    floor: Floor | None = None
    """What is kept instead of its owner's minimum."""


class Scaled(msgspec.Struct, frozen=True):
    """What to add, which to stop, and why."""

    starts: tuple[str, ...]
    """One for each to add: why it is started. What is needed comes before the reserve."""
    stop: tuple[str, ...]
    reason: str
    """Code of the stop: "idle", "superseded" or "over_max"."""
    why: str
    """Of the stop."""
    look_again_at: float
    wait: str = ""
    """Why something wanted is not added now; empty when nothing is held back."""
    reserve: int = 0
    """How many of the starts, the last ones, are for the reserve: nobody waits for them."""


def scale(pool: PoolState, policy: Policy, now: float) -> Scaled:
    """Size one pool. Times in seconds since the epoch; `look_again_at` is infinite when only an event can change the
    answer."""
    demand, told = pool.demand, _inputs(pool)
    scaled = _size(pool, told, policy, now)
    untold = [at for at in pool.ended if at > demand.heard_at and at + REPORT_LAG_S > now]
    if not scaled.starts or not untold:
        return scaled
    # Its inputs ended with it, and held requests may have been assigned to it.
    sure = max(min(told, demand.level - len(untold) * pool.revision.max_inputs), 0)
    surely = _size(pool, sure, policy, now)
    if len(surely.starts) == len(scaled.starts):
        return scaled
    doubt = f"a replica just ended; decided again within {REPORT_LAG_S:g} s, when the gateway has reported"
    until = min(surely.look_again_at, min(untold) + REPORT_LAG_S)
    return msgspec.structs.replace(surely, look_again_at=until, wait=surely.wait or doubt)


class Unneeded(NamedTuple):
    """A ready replica beyond what the demand and the minimum need."""

    since: float
    """Not needed from then on (seconds since the epoch)."""
    reserve: bool
    """It is in the reserve that its owner asked for."""
    replica: Replica


def unneeded(pool: PoolState) -> list[Unneeded]:
    """What is there beyond need and minimum, those that would go first in front."""
    ready = _newest_first([r for r in pool.serving if r.phase is Phase.READY])
    least, most, buffer, _ = _bounds(pool)

    def wanted(inputs: int, reserve: int) -> int:
        return _wanted(_replicas_for(inputs, pool.revision.target_inputs), least, most, reserve)

    inputs, found = _inputs(pool), []
    for gone, replica in enumerate(ready[: max(len(ready) - wanted(inputs, 0), 0)], 1):
        left = len(ready) - gone
        reserve = left < wanted(inputs, buffer)
        kept = 0 if reserve else buffer
        needed_until = max((at for at, level in pool.demand.peaks if wanted(level, kept) > left), default=0.0)
        found.append(Unneeded(max(needed_until, replica.ready_at or replica.planned_at), reserve, replica))
    return found


def _inputs(pool: PoolState) -> int:
    """Inputs that want a replica. Of those in flight no more than the ready ones can work on: the rest is over, since
    its replica crashed, or goes on in one that drains."""
    demand = pool.demand
    waiting = demand.held + demand.queued
    if not demand.in_flight:
        return waiting
    ready = sum(r.phase is Phase.READY for r in pool.serving)
    return waiting + min(demand.in_flight, ready * pool.revision.max_inputs)


def _size(pool: PoolState, inputs: int, policy: Policy, now: float) -> Scaled:
    """For so many `inputs` now, and what the demand was lately."""
    demand, serving, target = pool.demand, pool.serving, pool.revision.target_inputs
    least, most, buffer, idle_s = _bounds(pool)
    need = _replicas_for(inputs, target)
    wanted = _wanted(need, least, most, buffer)
    have = len(serving)
    if have > most:
        return _shrink_to(most, serving, now)
    if wanted > have:
        words = _why_start(inputs, min(demand.held, inputs), target)
        whys = [words if n < need else _kept(n, pool, least, buffer) for n in range(have, wanted)]
        return _grow(tuple(whys), wanted - max(have, _wanted(need, least, most, 0)), pool.failures, policy, now)
    peak = _replicas_for(demand.peak_within(idle_s, now), target)
    keep = _wanted(peak, wanted, most, buffer)
    spare = have - keep
    idle = [r for r in serving if r.phase is Phase.READY and (r.ready_at or now) + idle_s <= now]
    # The newest go first: the oldest have the warmest caches and the longest record of working.
    stop = tuple(r.id for r in _newest_first(idle)[: max(spare, 0)])
    reason = "idle" if pool.workload is not None else "superseded"
    return Scaled(
        starts=(),
        stop=stop,
        reason=reason,
        why=_why_stop(pool.workload, keep, idle_s) if stop else "",
        look_again_at=_next_look(demand, [r for r in serving if r.id not in stop], least, keep, idle_s, now),
        wait=_at_most(need, most, inputs) if need > most else "",
    )


def _bounds(pool: PoolState) -> tuple[int, int, int, float]:
    """(least, most, buffer, idle_s). A superseded pool only finishes what it has."""
    if pool.workload is None:
        return 0, len(pool.serving), 0, 0.0
    scaling = pool.workload.scaling
    least = scaling.min_replicas if pool.floor is None else min(pool.floor.replicas, scaling.max_replicas)
    return least, scaling.max_replicas, scaling.buffer_replicas, scaling.idle_s


def _wanted(need: int, least: int, most: int, buffer: int) -> int:
    """So many are needed; with the reserve beside what works, and inside the owner's limits."""
    return min(max(need + (buffer if need else 0), least), most)


def _newest_first(replicas: Sequence[Replica]) -> list[Replica]:
    return sorted(replicas, key=lambda r: (r.planned_at, r.id), reverse=True)


def _replicas_for(level: int, inputs: int) -> int:
    return -(-level // inputs)


def _grow(whys: tuple[str, ...], reserve: int, failures: Failures | None, policy: Policy, now: float) -> Scaled:
    again_at = restart_at(failures, policy)
    if failures is not None and again_at > now:
        wait = f"{failed(failures)}; tried again in {again_at - now:.1f} s"
        return Scaled(starts=(), stop=(), reason="", why="", look_again_at=again_at, wait=wait)
    return Scaled(starts=whys, stop=(), reason="", why="", look_again_at=NEVER, reserve=reserve)


def _shrink_to(most: int, serving: Sequence[Replica], now: float) -> Scaled:
    """More than the owner allows (the limit was lowered, or two controls' replicas met): the newest drain now, and
    then those that stay are looked at."""
    return Scaled(
        starts=(),
        stop=tuple(r.id for r in _newest_first(serving)[: len(serving) - most]),
        reason="over_max",
        why=f"{len(serving)} are more than max_containers={most}",
        look_again_at=now,
    )


def _why_start(inputs: int, held: int, target: int) -> str:
    """The demand of this moment, told as what a replica was started for."""
    each = f", at {target} each" if target > 1 else ""
    plural = "s" if inputs != 1 else ""
    if held == inputs:
        return f"started for {held} waiting request{plural}{each}"
    waiting = f", {held} of them waiting" if held else ""
    return f"started for {inputs} request{plural}{waiting}{each}"


def _kept(number: int, pool: PoolState, least: int, buffer: int) -> str:
    """Why there is a replica that the demand does not need, with so many beside it."""
    if pool.floor is not None and number < least:
        return pool.floor.why
    return f"kept by min_containers={least}" if number < least else f"kept in reserve (buffer_containers={buffer})"


def _why_stop(workload: Workload | None, keep: int, idle_s: float) -> str:
    if workload is None:
        return "another revision takes its traffic, or its app was stopped"
    return f"{keep} would have been enough for the last {idle_s:g} s"


def _at_most(need: int, most: int, inputs: int) -> str:
    return f"{inputs} inputs need {need} replicas; max_containers={most} allows no more"


def _next_look(demand: Demand, staying: Sequence[Replica], least: int, keep: int, idle_s: float, now: float) -> float:
    """The first moment at which, with nothing new, one of those that stay could become spare."""
    if len(staying) <= least:
        return NEVER
    unneeded_at = now
    if len(staying) <= keep:
        unneeded_at = min((at + idle_s for at, _ in demand.peaks if at + idle_s > now), default=NEVER)
    idle_at = min((r.ready_at + idle_s for r in staying if r.ready_at is not None), default=NEVER)
    return max(unneeded_at, idle_at)
