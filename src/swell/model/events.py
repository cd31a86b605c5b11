"""What can change the world? Facts, in a closed union: nothing else does."""

from __future__ import annotations

import msgspec

from swell.model.gang import Seat
from swell.model.node import Node
from swell.model.plan import Plan
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica, Role
from swell.model.workload import App, Revision, Version, Workload


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A control began: the world is the apps on disk, and what is known to run. Nodes and replicas come back by
    report."""

    at: float
    epoch: int
    apps: tuple[App, ...]
    policy: Policy
    """What it decides by: with the events that follow, all that is needed to decide everything again."""
    revisions: tuple[Revision, ...] = ()
    """Of earlier versions, which may be at work still."""


class AppDeployed(msgspec.Struct, frozen=True, tag="app_deployed"):
    """An app's set of workloads was replaced as a whole."""

    at: float
    app: App
    how: str = ""
    """What made a new version of it: that is kept in the same transaction. Empty: none is made."""
    tag: str = ""
    """What its author calls that version."""
    released: App | None = None
    """That version, where it is not what is in place now."""
    over: int = 0
    over_served: bool = True
    """As in that version."""

    @property
    def version(self) -> Version | None:
        """The version that this made."""
        app = self.released or self.app
        return Version(app.version, self.at, self.how, self.tag, app, self.over, self.over_served) if self.how else None


class AppStopped(msgspec.Struct, frozen=True, tag="app_stopped"):
    """An app was taken away by its owner; its replicas drain."""

    at: float
    namespace: str
    name: str


class VariantsSet(msgspec.Struct, frozen=True, tag="variants_set"):
    """Some of an app's workloads are wanted with other parameters or options, or are not any more."""

    at: float
    namespace: str
    name: str
    added: tuple[Workload, ...] = ()
    revisions: tuple[Revision, ...] = ()
    """Of those that are added."""
    removed: tuple[str, ...] = ()
    """Names of workloads."""

    @property
    def key(self) -> str:
        """Of the app."""
        return f"{self.namespace}/{self.name}"


class SecretChanged(msgspec.Struct, frozen=True, tag="secret_changed"):
    """A secret has other values, of which the world knows nothing but that."""

    at: float
    namespace: str
    name: str


class NodeSeen(msgspec.Struct, frozen=True, tag="node_seen"):
    """A runner reported its node, or (alive=False) is no longer heard."""

    at: float
    node: Node


class ReplicaSeen(msgspec.Struct, frozen=True, tag="replica_seen"):
    """What an engine says of one replica. `pool`, `role`, `node` and `template` let a fresh control adopt it."""

    at: float
    replica: str
    phase: Phase
    pool: str
    role: Role
    node: str
    pid: int | None = None
    address: str = ""
    rss_mib: float = 0.0
    timings_ms: tuple[tuple[str, float], ...] = ()
    applied: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    """Human words for the reason: the last lines of a traceback, the exit code, …"""
    template: str | None = None
    seat: Seat | None = None
    meeting: str = ""
    """Where others of its gang find it, once it is ready: "host:port"."""
    gpus: tuple[str, ...] = ()
    """Ids of the devices that it has."""
    unforked: str = ""
    """Why it is a fresh process although it was to be forked from `template`."""
    fork_refused: str = ""
    ordered_at: float = 0.0
    """When its runner was ordered to start it: how old it is, to a control that did not plan it; 0 = not said."""
    stuck: int = 0
    """Inputs whose caller left and whose code could not be stopped: still running."""

    def as_found(self) -> Replica:
        """The replica, to who knows of it by this alone."""
        return Replica(
            id=self.replica,
            pool=self.pool,
            node=self.node,
            role=self.role,
            phase=self.phase,
            planned_at=self.ordered_at or self.at,
            ready_at=self.at if self.phase is Phase.READY else None,
            template=self.template,
            seat=self.seat,
            gpus=self.gpus,
            meeting=self.meeting,
            pid=self.pid,
            address=self.address,
            rss_mib=self.rss_mib,
            timings_ms=self.timings_ms,
            applied=self.applied,
            reason=self.reason,
            fork_refused=self.fork_refused,
        )


class ReplicaAdopted(msgspec.Struct, frozen=True, tag="replica_adopted"):
    """A runner's inventory holds a live replica that an earlier control planned; this one takes it over.

    Only an inventory may say so: a lone report can be late, and its replica long gone.
    """

    at: float
    seen: ReplicaSeen


class GpusHeld(msgspec.Struct, frozen=True, tag="gpus_held"):
    """Which devices of a node replicas have that are nobody's to this control: they are told to end, and keep them
    until then."""

    at: float
    node: str
    gpus: tuple[str, ...]
    """All of them."""


class GangBroken(msgspec.Struct, frozen=True, tag="gang_broken"):
    """What is left of a gang is of no use any more: the attempt that it worked at is over."""

    at: float
    gang: str
    """Its leader's id."""
    why: str
    """In words."""


class GangGiven(msgspec.Struct, frozen=True, tag="gang_given"):
    """A gang was handed a call, of this priority: what is of a higher one may have its room."""

    at: float
    gang: str
    """Its leader's id."""
    priority: int


class PlanCommitted(msgspec.Struct, frozen=True, tag="plan_committed"):
    """A plan became part of the world."""

    at: float
    plan: Plan


Event = (
    Opened
    | AppDeployed
    | AppStopped
    | VariantsSet
    | SecretChanged
    | NodeSeen
    | ReplicaSeen
    | ReplicaAdopted
    | GpusHeld
    | GangBroken
    | GangGiven
    | PlanCommitted
)
