"""Everything the planner knows, and how each event changes it.

The world is kept live: `apply` updates it and its indexes in place, so that an event costs the same
in a world of ten pools and of ten thousand. It never does I/O and never looks at a clock.
"""

from __future__ import annotations

import msgspec

from swell.model.demand import REPORT_LAG_S
from swell.model.ends import SERVED, UNKNOWN, in_words
from swell.model.events import (
    AppDeployed,
    AppStopped,
    Event,
    GangBroken,
    GangGiven,
    GpusHeld,
    NodeSeen,
    Opened,
    PlanCommitted,
    ReplicaAdopted,
    ReplicaSeen,
    SecretChanged,
    VariantsSet,
)
from swell.model.failures import Failures
from swell.model.ids import epoch_of
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import LIVE, OVER, Phase, Replica
from swell.model.resources import NOTHING, Held, Needs, Room
from swell.model.rooms import Rooms
from swell.model.workload import App, Revision, Workload, moved, revision_of, with_variants, workload_of


class Rolling(msgspec.Struct, frozen=True):
    """A workload whose new revision is not ready yet."""

    previous: Workload
    """What has its traffic until then."""
    since: float


class World:
    """Apps, workloads, nodes and live replicas."""

    def __init__(self, epoch: int = 0) -> None:
        self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        """Nothing known yet, in this incarnation of control."""
        self.epoch = epoch
        self.started = 0
        """Replicas ever planned in this epoch: the source of new ids."""
        self.apps: dict[str, App] = {}
        self.workloads: dict[str, Workload] = {}
        self.rolling: dict[str, Rolling] = {}
        """By workload."""
        self._joint: set[str] = set()
        """Workloads of whose pools one's size depends on another's."""
        self.revisions: dict[str, Revision] = {}
        self.nodes: dict[str, Node] = {}
        self.replicas: dict[str, Replica] = {}
        """Live ones only; one that is gone or lost leaves the world."""
        self.by_pool: dict[str, dict[str, Replica]] = {}
        self.gangs: dict[str, dict[str, Replica]] = {}
        """Gang → its live members, by id."""
        self.broken: dict[str, str] = {}
        """Gang of which there are members still → why these are of no use."""
        self.given: dict[str, int] = {}
        """Gang that was handed a call → the priority of that."""
        self.templates: dict[str, Replica] = {}
        """The live templates among the replicas."""
        self.template_mib: dict[str, float] = {}
        """Node → memory its templates hold, those that are being stopped included, MiB."""
        self.failures: dict[str, Failures] = {}
        self.ended: dict[str, list[float]] = {}
        """Pool → when its ready replicas ended by themselves; their inputs may still be counted as demand."""
        self.refused: dict[str, str] = {}
        """Pool → why its template may not be forked; its replicas start fresh."""
        self.rooms = Rooms()
        self._uses: dict[str, int] = {}
        """Revision → workloads that want it + pools that run it; at zero it is forgotten."""

    # -- reading -----------------------------------------------------------------------------

    def in_pool(self, pool: str) -> list[Replica]:
        """The pool's live replicas and templates, oldest first."""
        return list(self.by_pool.get(pool, {}).values())

    def workload(self, pool: str) -> Workload | None:
        """The workload that still wants this pool's revision; None once superseded or stopped."""
        key = workload_of(pool)
        workload = self.workloads.get(key)
        if workload is None or workload.pool == pool or (workload.splits and pool in workload.pools):
            return workload
        rolling = self.rolling.get(key)
        return rolling.previous if rolling is not None and pool in rolling.previous.pools else None

    def serving(self, key: str) -> Workload | None:
        """The workload of that name as it has its traffic now: until its new revision is ready, as it was before."""
        rolling = self.rolling.get(key)
        return rolling.previous if rolling is not None else self.workloads.get(key)

    def wanted_pools(self, key: str) -> tuple[str, ...]:
        """The pools that a workload wants now."""
        found = (self.workloads.get(key), self.serving(key))
        return tuple(dict.fromkeys(pool for workload in found if workload is not None for pool in workload.pools))

    def ready(self, pool: str) -> int:
        """How many replicas of a pool are ready to serve; where it has gangs, how many of these."""
        members = self.by_pool.get(pool, {}).values()
        return sum(r.role == "serving" and r.phase is Phase.READY and r.leads for r in members)

    def revision(self, pool: str) -> Revision | None:
        return self.revisions.get(revision_of(pool))

    def needs(self, replica: Replica) -> Needs:
        """What a live replica takes from its node. A template holds memory, but no CPU and no port."""
        revision = self.revision(replica.pool)
        if revision is None:
            return NOTHING
        return revision.needs.of_template if replica.role == "template" else revision.needs

    def held(self, replica: Replica) -> Held:
        """The same, with the devices that it has."""
        return Held(self.needs(replica), replica.gpus)

    def memory_mib(self, template: Replica) -> float:
        """What a template holds: as measured, or as declared while it was not measured yet."""
        return template.rss_mib or float(self.needs(template).memory_mib)

    def room(self, node: str) -> Room:
        """A copy of the node's free capacity, for a plan to spend."""
        return self.rooms.copy_of(node)

    def adoptable(self, seen: ReplicaSeen) -> bool:
        """May a replica this world does not know be taken over? One of this epoch was taken for lost: that one is to
        end, and has its room until it has."""
        return seen.phase in LIVE and self.revision(seen.pool) is not None and seen.node in self.rooms

    # -- changing ----------------------------------------------------------------------------

    def apply(self, event: Event) -> tuple[str, ...]:
        """Take one fact in; returns the pools it touched. Late and repeated facts change nothing."""
        touched = self._apply(event)
        if not self._joint:
            return touched
        beside = (pool for each in touched if workload_of(each) in self._joint for pool in self._beside(each))
        return tuple(dict.fromkeys((*touched, *beside)))

    def _beside(self, pool: str) -> tuple[str, ...]:
        return self.wanted_pools(workload_of(pool))

    def _apply(self, event: Event) -> tuple[str, ...]:
        match event:
            case Opened():
                return self._opened(event)
            case AppDeployed():
                return self._deployed(event.app, event.at)
            case AppStopped():
                return self._stopped(f"{event.namespace}/{event.name}")
            case VariantsSet():
                return self._varied(event)
            case SecretChanged():
                return self._try_anew(event.namespace, event.name)
            case NodeSeen():
                return self._node(event)
            case ReplicaSeen():
                return self._seen(event)
            case ReplicaAdopted():
                return self._adopt(event.seen)
            case GpusHeld():
                self.rooms.strangers_have(event.node, event.gpus)
                return ()
            case GangBroken():
                return self._break(event.gang, event.why)
            case GangGiven():
                return self._give(event.gang, event.priority)
            case PlanCommitted():
                return self._committed(event.plan)

    def _opened(self, event: Opened) -> tuple[str, ...]:
        self._begin(event.epoch)
        self.revisions.update((revision.id, revision) for revision in event.revisions)
        touched: tuple[str, ...] = ()
        for app in event.apps:
            touched += self._deployed(app, event.at)
        return touched

    def _deployed(self, app: App, at: float) -> tuple[str, ...]:
        before = self.apps.get(app.key)
        touched: tuple[str, ...] = ()
        self.apps[app.key] = app
        for revision in app.revisions:
            self.revisions[revision.id] = revision
        previous = {workload.key: Rolling(workload, at) for workload in app.previous}
        for workload in app.workloads:
            touched += self._set(workload, previous.get(workload.key))
        kept = {workload.key for workload in app.workloads}
        for workload in before.workloads if before is not None else ():
            if workload.key not in kept:
                touched += self._unset(workload.key)
        return touched

    def _stopped(self, key: str) -> tuple[str, ...]:
        app = self.apps.pop(key, None)
        touched: tuple[str, ...] = ()
        for workload in app.workloads if app is not None else ():
            touched += self._unset(workload.key)
        return touched

    def _varied(self, event: VariantsSet) -> tuple[str, ...]:
        """Variants come and go beside what is there, which stays as it is."""
        app = self.apps.get(event.key)
        if app is None:
            return ()
        self.apps[app.key] = with_variants(app, event.added, event.revisions, event.removed)
        touched: tuple[str, ...] = ()
        for revision in event.revisions:
            self.revisions[revision.id] = revision
        for workload in event.added:
            touched += self._set(workload, None)
        for name in event.removed:
            touched += self._unset(f"{app.key}/{name}")
        return touched

    def _set(self, workload: Workload, rolling: Rolling | None) -> tuple[str, ...]:
        """Make this the workload of its name; a deploy also clears what earlier failures taught."""
        key = workload.key
        self._want(workload, +1)
        if rolling is not None:
            self._want(rolling.previous, +1)
        touched = self._unset(key)
        self.workloads[key] = workload
        if rolling is not None:
            self.rolling[key] = rolling
        self._join(workload)
        for pool in workload.pools:
            self.failures.pop(pool, None)
            self.refused.pop(pool, None)
        return tuple(dict.fromkeys((*touched, *self.wanted_pools(key))))

    def _unset(self, key: str) -> tuple[str, ...]:
        pools = self.wanted_pools(key)
        before, rolling = self.workloads.pop(key, None), self.rolling.pop(key, None)
        self._joint.discard(key)
        for workload in (before, rolling.previous if rolling is not None else None):
            if workload is not None:
                self._want(workload, -1)
        for pool in pools:
            if pool not in self.by_pool:
                self._forget(pool)
        return pools

    def _moved(self, key: str) -> tuple[str, ...]:
        """The workload's new revision has its traffic from now on."""
        pools, rolling = self.wanted_pools(key), self.rolling.pop(key, None)
        if rolling is None:
            return ()
        workload = self.workloads[key]
        app = self.apps[f"{workload.namespace}/{workload.app}"]
        self.apps[app.key] = moved(app, {workload.name})
        self._join(workload)
        self._want(rolling.previous, -1)
        for pool in pools:
            if pool not in self.by_pool and self.workload(pool) is None:
                self._forget(pool)
        return pools

    def _join(self, workload: Workload) -> None:
        joint = workload.key in self.rolling or any(split.warm for split in workload.splits)
        (self._joint.add if joint else self._joint.discard)(workload.key)

    def _want(self, workload: Workload, step: int) -> None:
        for revision in workload.wants:
            self._use(revision, step)

    def _use(self, revision: str, step: int) -> None:
        """Count one user of a revision more or less; one that nobody wants or runs is forgotten."""
        uses = self._uses.get(revision, 0) + step
        if uses:
            self._uses[revision] = uses
        else:
            del self._uses[revision]
            self.revisions.pop(revision, None)

    def _node(self, event: NodeSeen) -> tuple[str, ...]:
        node = event.node
        self.nodes[node.id] = node
        there = [replica for replica in self.replicas.values() if replica.node == node.id]
        if node.alive:
            self.rooms.begin(node, map(self.held, there))
        else:
            for replica in there:
                self._end(replica, "lost", failed=None)
            self.rooms.end(node.id)
        return tuple(dict.fromkeys(replica.pool for replica in there))

    def _committed(self, plan: Plan) -> tuple[str, ...]:
        touched = []
        for action in plan.actions:
            match action:
                case Start():
                    self.started += 1
                    self._put(
                        Replica(
                            id=action.replica,
                            pool=action.pool,
                            node=action.node,
                            role=action.role,
                            phase=Phase.PLANNED,
                            planned_at=plan.at,
                            template=action.template,
                            seat=action.seat,
                            gpus=action.gpus,
                        )
                    )
                    touched.append(action.pool)
                case Stop():
                    replica = self.replicas.get(action.replica)
                    if replica is not None and replica.may_become(Phase.DRAINING):
                        self._put(
                            msgspec.structs.replace(
                                replica,
                                phase=Phase.DRAINING,
                                reason=action.reason,
                                grace_s=action.grace_s,
                            )
                        )
                        touched.append(replica.pool)
        for key in plan.moves:
            touched += self._moved(key)
        return tuple(dict.fromkeys(touched))

    def _seen(self, event: ReplicaSeen) -> tuple[str, ...]:
        before = self.replicas.get(event.replica)
        if before is None:
            return ()
        served = before.role == "serving" and before.leads and before.phase is Phase.READY
        if served and event.phase in (Phase.DRAINING, Phase.GONE):
            lately = [at for at in self.ended.get(before.pool, ()) if at > event.at - REPORT_LAG_S]
            self.ended[before.pool] = [*lately, event.at]
        if event.phase in OVER:
            failed = event if before.phase in (Phase.PLANNED, Phase.STARTING) else None
            self._end(before, event.reason, failed)
            return (before.pool,)
        if event.phase is not before.phase and not before.may_become(event.phase):
            return ()
        if event.fork_refused:
            self.refused[before.pool] = event.fork_refused
        entered = event.phase is not before.phase
        if event.phase is Phase.READY and entered and not event.fork_refused and self._last_of(before):
            self.failures.pop(before.pool, None)
        if entered and event.phase is Phase.DRAINING and event.reason not in ("", SERVED):
            self._leave(before, event.reason)
        self._put(
            msgspec.structs.replace(
                before,
                phase=event.phase,
                ready_at=event.at if event.phase is Phase.READY and entered else before.ready_at,
                pid=event.pid or before.pid,
                address=event.address or before.address,
                meeting=event.meeting or before.meeting,
                rss_mib=event.rss_mib or before.rss_mib,
                timings_ms=event.timings_ms or before.timings_ms,
                applied=event.applied or before.applied,
                reason=before.reason or event.reason,
                fork_refused=event.fork_refused or before.fork_refused,
            )
        )
        return (before.pool,)

    def _adopt(self, event: ReplicaSeen) -> tuple[str, ...]:
        """Take over a live replica of a pool whose revision is still known; `drive` stops the others."""
        if event.replica in self.replicas or not self.adoptable(event):
            return ()
        robbed = not self.rooms.are_free(event.node, event.gpus)
        if robbed or epoch_of(event.replica) >= self.epoch:
            event = msgspec.structs.replace(event, phase=Phase.DRAINING, reason=UNKNOWN)
        self._put(event.as_found())
        if robbed and event.seat is not None:
            self._break(event.seat.gang, f"a GPU that rank {event.seat.rank} of it has was given to another")
        return (event.pool,)

    def _put(self, replica: Replica) -> None:
        known = replica.id in self.replicas
        self.replicas[replica.id] = replica
        members = self.by_pool.get(replica.pool)
        if members is None:
            members = self.by_pool[replica.pool] = {}
            self._use(revision_of(replica.pool), +1)
        members[replica.id] = replica
        if replica.seat is not None:
            self.gangs.setdefault(replica.seat.gang, {})[replica.id] = replica
        if replica.role == "template":
            self._count_template(replica)
        if not known:
            self.rooms.hold(replica.node, self.held(replica))

    def _count_template(self, template: Replica) -> None:
        self._uncount_template(template.id)
        self.templates[template.id] = template
        self.template_mib[template.node] = self.template_mib.get(template.node, 0.0) + self.memory_mib(template)

    def _uncount_template(self, id: str) -> None:
        before = self.templates.pop(id, None)
        if before is not None:
            self.template_mib[before.node] -= self.memory_mib(before)

    def _last_of(self, starting: Replica) -> bool:
        """Is it the last of its gang that is not ready, or in none?"""
        members = self.gangs.get(starting.seat.gang, {}).values() if starting.seat is not None else ()
        return all(member.phase is Phase.READY or member.id == starting.id for member in members)

    def _leave(self, member: Replica, reason: str) -> None:
        """A replica ends, and takes its gang along: but not who is done with its part, or drains already."""
        if member.seat is not None and member.phase is not Phase.DRAINING and reason != SERVED:
            self._break(member.seat.gang, f"rank {member.seat.rank} of it ended: {in_words(reason)}")

    def _break(self, gang: str, why: str) -> tuple[str, ...]:
        if gang in self.gangs:
            self.broken.setdefault(gang, why)
        return self._pools(gang)

    def _give(self, gang: str, priority: int) -> tuple[str, ...]:
        if gang in self.gangs:
            self.given[gang] = priority
        return self._pools(gang)

    def _pools(self, gang: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.pool for member in self.gangs.get(gang, {}).values()))

    def _end(self, replica: Replica, reason: str, failed: ReplicaSeen | None) -> None:
        """Take a replica out. `failed` is the report, when it ended before it was ready."""
        self._leave(replica, reason)
        if replica.seat is not None:
            del self.gangs[replica.seat.gang][replica.id]
            if not self.gangs[replica.seat.gang]:
                del self.gangs[replica.seat.gang]
                self.broken.pop(replica.seat.gang, None)
                self.given.pop(replica.seat.gang, None)
        self.rooms.give_back(replica.node, self.held(replica))
        del self.replicas[replica.id]
        self._uncount_template(replica.id)
        members = self.by_pool[replica.pool]
        del members[replica.id]
        if failed is not None and failed.phase is Phase.GONE:
            self._count_failure(replica, failed)
        if not members:
            del self.by_pool[replica.pool]
            self._use(revision_of(replica.pool), -1)
            if self.workload(replica.pool) is None:
                self._forget(replica.pool)

    def _count_failure(self, replica: Replica, failed: ReplicaSeen) -> None:
        """A start failed. It counts, unless it was under way when the last one did: then it is of the same round."""
        before = self.failures.get(replica.pool)
        count = before.count + (replica.planned_at > before.at) if before is not None else 1
        begun_at = max(replica.planned_at, before.at) if before is not None else replica.planned_at
        took_s = (before.took_s if before is not None else 0.0) + max(failed.at - begun_at, 0.0)
        self.failures[replica.pool] = Failures(count, failed.at, failed.reason, failed.detail, took_s)

    def _try_anew(self, namespace: str, secret: str) -> tuple[str, ...]:
        """What could not start without the new values may now: it is tried as if it had not failed."""
        uses = ((pool, self.revision(pool)) for pool in self.failures)
        pools = tuple(
            pool
            for pool, revision in uses
            if revision is not None and any(use.key == (namespace, secret) for use in revision.secret_uses)
        )
        for pool in pools:
            del self.failures[pool]
        return pools

    def _forget(self, pool: str) -> None:
        """Nobody wants it and nothing of it runs: what its replicas taught is of no use."""
        self.failures.pop(pool, None)
        self.refused.pop(pool, None)
        self.ended.pop(pool, None)
