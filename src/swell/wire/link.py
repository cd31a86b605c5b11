"""What control says with gateways and runners over the control link.

Control listens on `run/control.sock`; gateways and runners connect, say `Hello`, and connect again
whenever the link breaks. Everything is level: after a reconnect each side sends its whole state.
"""

from __future__ import annotations

import msgspec

from swell.model.environment import Environment
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.key import ApiKey
from swell.model.limits import UNLIMITED, Limits
from swell.model.orders import BuildReport, Inventory, StartOrder, StopOrder
from swell.model.request import KeyCount, PoolCount, Prices, RequestRecord, Usage
from swell.model.secret import Revealed
from swell.model.subscription import Events
from swell.model.traffic import Branch
from swell.model.variant import Parameter, Value
from swell.model.volume import Change, VolumeState
from swell.model.workload import Method, Revision
from swell.wire.calls import (
    AskKept,
    Ended,
    EndedHeard,
    Grant,
    Holding,
    NotKept,
    Resume,
    Revoke,
    Submit,
    SubmitEvent,
    Submitted,
)
from swell.wire.exposition import Report

UNSENT_MAX = 64 * 1024 * 1024
"""Bytes that a peer which does not read may leave standing before the link to it is cut."""

# -- up: gateway or runner → control ----------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message on the link. `incarnation` is new at each start of the process."""

    role: str
    """"gateway" or "runner"."""
    incarnation: str


class Level(msgspec.Struct, frozen=True):
    """One pool's absolute level at one gateway."""

    pool: str
    held: int
    in_flight: int
    replicas: tuple[tuple[str, int], ...] = ()
    """In flight by replica, where there are any: at the moment of the report, while `in_flight` may be the peak since
    the last one. Empty for a pool of many replicas."""
    present: int = -1
    """In flight at that moment, all in all: what several gateways have is summed from this, since their peaks were not
    at the same time. -1: as many as `in_flight`."""
    priorities: tuple[tuple[int, int], ...] = ()
    """(priority, how many of what is held have it), the highest first: of calls that gangs work on alone."""


class DemandReport(msgspec.Struct, frozen=True, tag="demand"):
    """Levels that changed since the last report. Pools not named keep theirs until `ttl_s` passes."""

    levels: tuple[Level, ...]
    ttl_s: float
    """Without another report (or `KeepAlive`) within this time, all levels of this gateway count as zero."""


class KeepAlive(msgspec.Struct, frozen=True, tag="keep_alive"):
    """Nothing changed; I am here."""

    levels: int = 0
    """How many pools have a level, by what was told. Control that knows of another number asks for all (`TellAll`)."""


class Requests(msgspec.Struct, frozen=True, tag="requests"):
    """Finished requests worth keeping, and counts of all of them. At most 1 s old."""

    records: tuple[RequestRecord, ...]
    counts: tuple[PoolCount, ...]
    by_key: tuple[KeyCount, ...] = ()
    """Of those that came with an API key."""


class UsageReport(msgspec.Struct, frozen=True, tag="usage"):
    """Runner: what replicas used since the last report (at most 1 s)."""

    rows: tuple[Usage, ...]


class AskVariant(msgspec.Struct, frozen=True, tag="ask_variant"):
    """Gateway: requests wait for a workload with these parameters, which has no row. Answered by a row in the table, or
    by `NoVariant`."""

    workload: str
    """Key of the one that was deployed."""
    parameters: tuple[Value, ...]
    key: str = ""
    """Id of the API key of who asked first."""


class AskMetrics(msgspec.Struct, frozen=True, tag="ask_metrics"):
    """Gateway: somebody scrapes; what do control and all others that it knows have to tell? Answered by `Metrics`."""

    ask: int
    within_s: float
    """Who has not answered by then is left out."""


class MetricsTold(msgspec.Struct, frozen=True, tag="metrics_told"):
    """Runner, or another gateway: the answer to `TellMetrics`."""

    ask: int
    report: Report


class Built(msgspec.Struct, frozen=True, tag="built"):
    """Runner: a `Build` is over."""

    ask: int
    report: BuildReport


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Runner: a line about a `Build` under way."""

    ask: int
    text: str


class AskWanted(msgspec.Struct, frozen=True, tag="ask_wanted"):
    """Runner: which revisions are still wanted? Answered by `Wanted`."""


class CommitVolume(msgspec.Struct, frozen=True, tag="commit_volume"):
    """Runner: a replica changed this in a volume; its contents are put. Answered by `VolumeCommitted`."""

    ask: int
    volume: str
    """Its id."""
    change: Change
    by: str
    """The replica's pool."""
    id: str
    """Of this commit, however often it is asked for."""


class RunnerNode(msgspec.Struct, frozen=True, tag="runner_node"):
    seen: NodeSeen


class RunnerReplica(msgspec.Struct, frozen=True, tag="runner_replica"):
    seen: ReplicaSeen


class RunnerInventory(msgspec.Struct, frozen=True, tag="runner_inventory"):
    """Sent right after `Welcome` and then every few seconds."""

    inventory: Inventory


Up = (
    Hello
    | DemandReport
    | KeepAlive
    | Requests
    | UsageReport
    | AskVariant
    | AskMetrics
    | MetricsTold
    | Built
    | Progress
    | AskWanted
    | CommitVolume
    | RunnerNode
    | RunnerReplica
    | RunnerInventory
    | Submit
    | SubmitEvent
    | Ended
    | Holding
    | AskKept
)

# -- down: control → gateway or runner --------------------------------------------------------


class Endpoint(msgspec.Struct, frozen=True):
    """A ready replica."""

    replica: str
    address: str
    """"unix:/path" or "tcp:host:port"."""
    timings_ms: tuple[tuple[str, float], ...] = ()
    """How its start-up went, by phase: told to the callers who waited for it."""


class PoolRow(msgspec.Struct, frozen=True):
    """What a gateway must know of one pool."""

    pool: str
    max_inputs: int
    timeout_s: float
    """What one input may take there at most."""
    memory_mib: int
    """What each replica was given: holding it for a second is part of what a request costs."""
    single_use: bool
    native: bool
    """True: our runtime answers (Swell-* headers, busy refusals); False: a foreign process that listens."""
    replicas: tuple[Endpoint, ...]
    batch_max: int = 0
    """Inputs that a replica works on together; 0: each by itself."""
    failing: str = ""
    """Why the last start failed, if none has worked since: what a request that waited in vain is told."""
    retry_at: float = 0.0
    """No start is tried again before then (seconds since the epoch, by the clock that `at` of the table is of)."""
    closed: bool = False
    """Starts keep failing: until `retry_at` requests, held ones too, are refused with `failing`; from then on they
    are held, so that one can ask for the next try."""
    limited_by: str = "timeout"
    """The argument of the function that sets `timeout_s`."""
    gang: bool = False
    """Several replicas work on a call, and only the queue gives them one."""


class Route(msgspec.Struct, frozen=True):
    """One workload's name and the pool that takes its traffic."""

    namespace: str
    app: str
    name: str
    pool: str
    methods: tuple[Method, ...]
    is_class: bool
    limits: Limits = UNLIMITED
    version: int = 0
    """Of the app, that its revision was deployed with."""
    branches: tuple[Branch, ...] = ()
    """Further revisions that requests may go to."""
    hash_header: str = ""
    """Requests with the same value of it go to the same revision; empty: each is drawn anew."""
    parameters: tuple[Parameter, ...] = ()
    """What whoever calls it may, or has to, choose. A variant, of which they are chosen, has none."""
    events: Events = ""

    @property
    def pools(self) -> set[str]:
        """All that its requests may go to."""
        return {self.pool, *(branch.pool for branch in self.branches)}

    @property
    def key(self) -> str:
        """Of the workload."""
        return f"{self.namespace}/{self.app}/{self.name}"


class Table(msgspec.Struct, frozen=True, tag="table"):
    """Everything a gateway needs; replaces what it had."""

    version: int
    routes: tuple[Route, ...]
    pools: tuple[PoolRow, ...]
    prices: Prices
    keys: tuple[ApiKey, ...] = ()
    """All that were ever made: of one that does not work any more, callers are told why."""
    gateways: int = 1
    """How many gateways there are. Each lets in that part of what keys and workloads are limited to."""
    at: float = 0.0
    """When it was sent, by control's clock (seconds since the epoch): it need not say what others do."""


class TableDelta(msgspec.Struct, frozen=True, tag="table_delta"):
    """Rows that changed since `base`. A gateway whose version is not `base` reconnects for a `Table`."""

    base: int
    version: int
    routes: tuple[Route, ...] = ()
    gone_routes: tuple[str, ...] = ()
    """Workload keys."""
    pools: tuple[PoolRow, ...] = ()
    gone_pools: tuple[str, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    gateways: int = 0
    """There are so many now; 0: as many as before."""
    at: float = 0.0
    """As of a table; 0: not told, nothing in it is of a time."""


class Elsewhere(msgspec.Struct, frozen=True, tag="elsewhere"):
    """To a gateway: what the others have in flight, by pool and replica, of pools where that changed."""

    pools: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """A replica that is not named has nothing of theirs."""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """To a runner: the epoch whose orders it is to obey from now on."""

    epoch: int


class Order(msgspec.Struct, frozen=True, tag="order"):
    epoch: int
    order: StartOrder | StopOrder


class Build(msgspec.Struct, frozen=True, tag="build"):
    """Make the environment exist and import the module in it; answered by `Built` with the same `ask`."""

    ask: int
    revision: Revision


class Wanted(msgspec.Struct, frozen=True, tag="wanted"):
    """To a runner: what the revisions that are deployed, or still run, are made of. Any other may be forgotten."""

    environments: tuple[Environment, ...]
    bundles: tuple[str, ...]


class Secrets(msgspec.Struct, frozen=True, tag="secrets"):
    """To a runner: values of secrets. Sent before each start and build that needs them, and when one has changed."""

    epoch: int
    secrets: tuple[Revealed, ...]
    whole: bool = False
    """These are all there are to know; sent after a (re)connect."""


class NoVariant(msgspec.Struct, frozen=True, tag="no_variant"):
    """To a gateway: why what it asked for is not to be had."""

    key: str
    """Of the variant."""
    status: int
    code: str
    message: str


class Volumes(msgspec.Struct, frozen=True, tag="volumes"):
    """To a runner: volumes as they are now. Sent before each start that needs them, and when one has changed."""

    epoch: int
    volumes: tuple[VolumeState, ...]
    whole: bool = False
    """These are all there are to know; sent after a (re)connect."""


class VolumeCommitted(msgspec.Struct, frozen=True, tag="volume_committed"):
    """To a runner: what became of a `CommitVolume`."""

    ask: int
    version: int = 0
    code: str = ""
    """Why nothing of it was done; empty where it was."""
    message: str = ""


class ReplicaEnded(msgspec.Struct, frozen=True, tag="replica_ended"):
    """To a gateway: what ended a replica, for the callers whose requests it had. Sent before the table says that it is
    gone; who misses it knows less, and no more."""

    replica: str
    why: str
    """In words."""


class TellAll(msgspec.Struct, frozen=True, tag="tell_all"):
    """To a gateway: its levels were forgotten, since it was not heard for their time to live."""


class TellMetrics(msgspec.Struct, frozen=True, tag="tell_metrics"):
    """To a runner or a gateway: what are your numbers? Answered by `MetricsTold` with the same `ask`."""

    ask: int


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """To a gateway that asked: what one process told, control itself included. Who did not answer is told of, too."""

    ask: int
    report: Report
    last: bool = False
    """No more follow."""


Down = (
    Table
    | TableDelta
    | Elsewhere
    | Welcome
    | Order
    | Build
    | Wanted
    | Secrets
    | NoVariant
    | Volumes
    | VolumeCommitted
    | ReplicaEnded
    | TellAll
    | TellMetrics
    | Metrics
    | Submitted
    | Grant
    | Revoke
    | Resume
    | EndedHeard
    | NotKept
)
