"""When does a new revision take over from the one before it, and how many replicas does a revision need meanwhile?

Rolling: what has the traffic keeps it until its successor has replicas that are ready. Nothing waits for a successor
where nobody is served now; and one that does not start changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from swell.decide.scale import NEVER, Floor
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.workload import App, Revision, Workload, workload_of
from swell.model.world import World


class Roll(NamedTuple):
    """Does the traffic move now, and when is it worth looking again?"""

    move: bool
    look_again_at: float = NEVER


def rolls(world: World, before: Workload, after: Workload, revision: Revision) -> bool:
    """Should `after`, of that revision, wait for its traffic until it is ready? Not where nobody is served by what is
    `before` it, not where each call waits for a gang of its own anyway, and not where both want the same port: on one
    node there is no room for the two."""
    if before.pool == after.pool or not world.ready(before.pool) or world.ready(after.pool):
        return False
    old = world.revision(before.pool)
    if revision.gang is not None or (old is not None and old.gang is not None):
        return False
    return old is None or not set(old.needs.ports) & set(revision.needs.ports)


def follow(world: World, app: App) -> App:
    """The app as it is put in place: what has the traffic of its workloads keeps it where they should wait for it."""
    revisions = {revision.id: revision for revision in app.revisions}
    served = ((world.serving(after.key), after) for after in app.workloads)
    previous = tuple(
        before
        for before, after in served
        if before is not None and rolls(world, before, after, revisions[after.revision])
    )
    if not previous:
        return app
    for before in previous:
        revisions |= {id: world.revisions[id] for id in before.wants}
    return msgspec.structs.replace(app, revisions=tuple(revisions.values()), previous=previous)


def roll(world: World, key: str, policy: Policy, now: float) -> Roll:
    """Of a workload that is rolling."""
    rolling, workload = world.rolling[key], world.workloads[key]
    old, new = world.ready(rolling.previous.pool), world.ready(workload.pool)
    if not world.nodes:
        # Nobody told yet what runs.
        return Roll(False)
    if new >= needed(workload, old):
        return Roll(True)
    if workload.pool in world.failures:
        return Roll(False)
    if not old:
        # Who waits may as well wait for the new one.
        return Roll(True)
    if any(r.role == "serving" and r.phase is not Phase.DRAINING for r in world.in_pool(workload.pool)):
        return Roll(False)
    until = rolling.since + policy.roll_wait_s
    return Roll(now >= until, until)


def needed(workload: Workload, old: int) -> int:
    """How many of the new ones must be ready where so many old ones are: its minimum, but no more than there were."""
    return max(min(workload.scaling.min_replicas, old), 1)


def floor(world: World, pool: str) -> Floor | None:
    """The replicas a pool is to have whatever its demand; None where that is its owner's minimum alone."""
    key = workload_of(pool)
    workload, rolling = world.workloads.get(key), world.rolling.get(key)
    if workload is None or (rolling is None and not workload.splits):
        return None
    if rolling is not None and pool in rolling.previous.pools:
        return None
    if pool == workload.pool:
        if rolling is None:
            return None
        old = world.ready(rolling.previous.pool)
        return Floor(needed(workload, old) if old else 0, "started to take over from the revision before it")
    splits = [split for split in workload.splits if pool.endswith(f"@{split.revision}")]
    if any(split.warm for split in splits):
        return Floor(world.ready(workload.pool), "kept as many as take the traffic: it is to follow at once")
    # What nobody is sent to unasked is started for those who ask.
    return None if any(split.percent for split in splits) else Floor(0, "")
