"""How many replicas should this pool have, why, and when is it worth looking again?

The fixed rule: as many as the demand of this moment needs; an extra one goes when the highest demand of
the last `idle_s` did not need it. What is not ready yet is never given up for idleness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from swell.model.demand import Demand
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.workload import Revision, Workload
from swell.model.world import Failures

NEVER = math.inf


class Scaled(msgspec.Struct, frozen=True):
    """How many to add, which to stop, and why."""

    add: int
    stop: tuple[str, ...]
    reason: str
    """Code of the stop: "idle", "superseded" or "over_max"."""
    why: str
    look_again_at: float
    wait: str = ""
    """Why something wanted is not added now; empty when nothing is held back."""


def scale(
    workload: Workload | None,
    revision: Revision,
    demand: Demand,
    serving: Sequence[Replica],
    failures: Failures | None,
    policy: Policy,
    now: float,
    spent: int = 0,
) -> Scaled:
    """Size one pool. `workload` is None once its revision is superseded; `serving` are its live, not draining replicas.
    `spent` inputs are over, but still in the demand that was last heard of.

    Times in seconds since the epoch; `look_again_at` is infinite when only an event can change the answer.
    """
    least, most, buffer, idle_s = _bounds(workload, len(serving))
    need = _replicas_for(max(demand.level - spent, 0), revision.target_inputs)
    wanted = min(max(need + (buffer if demand.level else 0), least), most)
    have = len(serving)
    if have > most:
        return _shrink_to(most, serving)
    if wanted > have:
        return _grow(wanted, have, demand, revision, failures, policy, now, _kept(least, buffer, demand))
    peak = _replicas_for(demand.peak_within(idle_s, now), revision.target_inputs)
    keep = min(max(peak + (buffer if peak else 0), wanted), most)
    spare = have - keep
    idle = [r for r in serving if r.phase is Phase.READY and (r.ready_at or now) + idle_s <= now]
    # The newest go first: the oldest have the warmest caches and the longest record of working.
    stop = tuple(r.id for r in sorted(idle, key=lambda r: (r.planned_at, r.id), reverse=True)[: max(spare, 0)])
    reason = "idle" if workload is not None else "superseded"
    return Scaled(
        add=0,
        stop=stop,
        reason=reason,
        why=_why_stop(workload, keep, idle_s) if stop else "",
        look_again_at=_next_look(demand, [r for r in serving if r.id not in stop], least, keep, idle_s, now),
        wait=_at_most(need, most, demand) if need > most else "",
    )


def restart_at(failures: Failures | None, policy: Policy) -> float:
    """When a pool whose starts failed may be started again; 0 = at once."""
    if failures is None:
        return 0.0
    delay_s = policy.restart_backoff_s * 2.0 ** min(failures.count - 1, 30)
    return failures.at + min(delay_s, policy.restart_backoff_max_s)


def _bounds(workload: Workload | None, have: int) -> tuple[int, int, int, float]:
    """(least, most, buffer, idle_s). A superseded pool only finishes what it has."""
    if workload is None:
        return 0, have, 0, 0.0
    scaling = workload.scaling
    return scaling.min_replicas, scaling.max_replicas, scaling.buffer_replicas, scaling.idle_s


def _replicas_for(level: int, inputs: int) -> int:
    return -(-level // inputs)


def _grow(
    wanted: int,
    have: int,
    demand: Demand,
    revision: Revision,
    failures: Failures | None,
    policy: Policy,
    now: float,
    kept: str,
) -> Scaled:
    again_at = restart_at(failures, policy)
    if failures is not None and again_at > now:
        times = "once" if failures.count == 1 else f"{failures.count} times in a row"
        return Scaled(
            add=0,
            stop=(),
            reason="",
            why="",
            look_again_at=again_at,
            wait=f"its start failed {times} ({failures.reason}); tried again in {again_at - now:.1f} s",
        )
    inputs = f"{demand.level} request{'s' if demand.level != 1 else ''}, {demand.held} of them waiting"
    each = f"a replica takes {revision.target_inputs}"
    return Scaled(
        add=wanted - have,
        stop=(),
        reason="",
        why=f"{inputs}; {each}{kept}: {wanted} needed, {have} there",
        look_again_at=NEVER,
    )


def _shrink_to(most: int, serving: Sequence[Replica]) -> Scaled:
    """More than the owner allows (the limit was lowered, or two controls' replicas met): the newest drain now."""
    newest = sorted(serving, key=lambda r: (r.planned_at, r.id), reverse=True)
    return Scaled(
        add=0,
        stop=tuple(r.id for r in newest[: len(serving) - most]),
        reason="over_max",
        why=f"{len(serving)} are more than max_replicas = {most}",
        look_again_at=NEVER,
    )


def _kept(least: int, buffer: int, demand: Demand) -> str:
    """What the owner asked for beyond the demand, in words."""
    words = f", {buffer} in reserve" if buffer and demand.level else ""
    return f"{words}, never fewer than {least}" if least else words


def _why_stop(workload: Workload | None, keep: int, idle_s: float) -> str:
    if workload is None:
        return "another revision takes its traffic, or its app was stopped"
    return f"{keep} would have been enough for the last {idle_s:g} s"


def _at_most(need: int, most: int, demand: Demand) -> str:
    return f"{demand.level} inputs need {need} replicas; its max_replicas is {most}"


def _next_look(demand: Demand, staying: Sequence[Replica], least: int, keep: int, idle_s: float, now: float) -> float:
    """The first moment at which, with nothing new, one of those that stay could become spare."""
    if len(staying) <= least:
        return NEVER
    unneeded_at = now
    if len(staying) <= keep:
        unneeded_at = min((at + idle_s for at, _ in demand.peaks if at + idle_s > now), default=NEVER)
    idle_at = min((r.ready_at + idle_s for r in staying if r.ready_at is not None), default=NEVER)
    return max(unneeded_at, idle_at)
