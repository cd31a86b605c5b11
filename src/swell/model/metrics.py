"""Which numbers does Swell tell a Prometheus, and what is counted into them? All are declared here, by every process.

Names and units are Prometheus's: base units in the name, `_total` for what only grows. Each label has few values: a
workload's three are bounded by the setting `metrics_pools_max`, what lies beyond is summed as `app="_other"`; codes,
reasons and phases are from fixed sets, and what is in none of them is `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Generic, Literal, TypeVar

import msgspec

from swell.model.ends import REASONS
from swell.model.errors import KNOWN_CODES

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Metric(msgspec.Struct, frozen=True):
    """One name, and what is told under it."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram: upper ends of its buckets, without the infinite one."""


class Sample(msgspec.Struct, frozen=True):
    """What one metric is for one set of labels, at the moment it was asked for."""

    name: str
    labels: Labels
    """Their values, in the order of the metric's; an empty one is left out."""
    value: float = 0.0
    """Of a histogram: the sum of what was observed."""
    counts: tuple[int, ...] = ()
    """Of a histogram: observations by bucket, the infinite one last; each is counted once."""


class Histogram:
    """Observations by bucket. Cheap to add to: a request does."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def sample(self, name: str, labels: Labels = ()) -> Sample:
        return Sample(name, labels, self.total, tuple(self.counts))


_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_START_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_OWN_WORK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_POOLS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10000.0)

WORKLOAD = ("namespace", "app", "function")
AT_GATEWAY = (*WORKLOAD, "gateway")
PROCESS = ("process", "gateway", "node")

REQUESTS = "swell_requests_total"
REQUEST_SECONDS = "swell_request_duration_seconds"
COLD_REQUESTS = "swell_cold_requests_total"
CACHE_HITS = "swell_cache_hits_total"
CACHE_BYTES = "swell_cache_bytes"
HELD_SECONDS = "swell_held_seconds"
IN_FLIGHT = "swell_requests_in_flight"
HELD = "swell_requests_held"
HELD_BYTES = "swell_held_bytes"
REFUSED = "swell_requests_refused_total"
CONNECTIONS = "swell_client_connections"
RECORDS_LOST = "swell_request_records_lost_total"
LINK = "swell_link_connected"
REPLICAS = "swell_replicas"
STARTS = "swell_replica_starts_total"
START_SECONDS = "swell_replica_start_seconds"
PHASE_SECONDS = "swell_cold_start_seconds"
ENDS = "swell_replica_ends_total"
CPU_SECONDS = "swell_replica_cpu_seconds_total"
REPLICA_SECONDS = "swell_replica_seconds_total"
STARTING_SECONDS = "swell_starting_seconds_total"
BUSY_SECONDS = "swell_busy_seconds_total"
IDLE_SECONDS = "swell_idle_seconds_total"
COST = "swell_cost_usd_total"
WORKLOAD_INFO = "swell_workload_info"
WAITING = "swell_pools_waiting"
CALLS_DUE = "swell_queued_calls_due"
CALLS_LEASED = "swell_queued_calls_leased"
CALLS_TOTAL = "swell_queued_calls_total"
SOURCE_UP = "swell_source_up"
SOURCE_WAITING = "swell_source_messages_waiting"
SOURCE_OLDEST = "swell_source_oldest_message_seconds"
STEP_SECONDS = "swell_control_step_seconds"
PLAN_POOLS = "swell_plan_pools"
PLANS_REFUSED = "swell_plans_refused_total"
WRITE_SECONDS = "swell_store_write_seconds"
ROWS_DROPPED = "swell_store_rows_dropped_total"
MEMORY = "swell_replica_memory_bytes"
NODE_CORES = "swell_node_cpu_cores"
NODE_MEMORY = "swell_node_memory_bytes"
UP = "swell_up"
BUILD_INFO = "swell_build_info"
PROCESS_CPU = "process_cpu_seconds_total"
PROCESS_RSS = "process_resident_memory_bytes"
PROCESS_FDS = "process_open_fds"
PROCESS_FDS_MAX = "process_max_fds"
PROCESS_START = "process_start_time_seconds"

METRICS: tuple[Metric, ...] = (
    # Told by each gateway
    Metric(
        REQUESTS,
        "counter",
        "Requests that ended, by the status sent (499: the caller left) and Swell's own error code, if any.",
        (*WORKLOAD, "code", "error", "gateway"),
    ),
    Metric(
        REQUEST_SECONDS,
        "histogram",
        "From a request's first byte to its end, waiting included.",
        AT_GATEWAY,
        _REQUEST_S,
    ),
    Metric(COLD_REQUESTS, "counter", "Requests that came when no replica was ready.", AT_GATEWAY),
    Metric(
        CACHE_HITS, "counter", "Requests answered with what was kept of an equal one (`@swell.cached`).", AT_GATEWAY
    ),
    Metric(CACHE_BYTES, "gauge", "Bytes that kept answers take.", ("gateway",)),
    Metric(
        HELD_SECONDS,
        "histogram",
        "How long requests that had to wait for a replica waited, each counted once, at its end.",
        AT_GATEWAY,
        _REQUEST_S,
    ),
    Metric(IN_FLIGHT, "gauge", "Requests that have a slot in a replica.", AT_GATEWAY),
    Metric(HELD, "gauge", "Requests that wait for a replica.", AT_GATEWAY),
    Metric(HELD_BYTES, "gauge", "Bytes of the bodies of all requests that wait.", ("gateway",)),
    Metric(
        REFUSED,
        "counter",
        "Errors answered to requests that came to no workload: no such path, no key, over a limit, the API down.",
        ("code", "error", "gateway"),
    ),
    Metric(CONNECTIONS, "gauge", "Connections of clients that are open.", ("gateway",)),
    Metric(
        RECORDS_LOST, "counter", "Request records thrown away because control took none for too long.", ("gateway",)
    ),
    Metric(BUILD_INFO, "gauge", "1, with the version as a label.", ("version", "gateway")),
    # Told by control
    Metric(LINK, "gauge", "1 while the process is connected to control.", PROCESS),
    Metric(REPLICAS, "gauge", "Replicas (serving) and templates, by phase.", (*WORKLOAD, "role", "phase")),
    Metric(
        STARTS,
        "counter",
        "Starts that were ordered and are over: ready, or the reason why not. By how: fork or exec.",
        (*WORKLOAD, "role", "start", "outcome"),
    ),
    Metric(
        START_SECONDS,
        "histogram",
        "From the decision to start a replica until control knew that it is ready.",
        (*WORKLOAD, "start"),
        _START_S,
    ),
    Metric(
        PHASE_SECONDS,
        "histogram",
        "Start-ups of replicas and templates that came to be ready, phase by phase, all workloads together.",
        ("role", "start", "phase"),
        _START_S,
    ),
    Metric(
        ENDS,
        "counter",
        "Replicas and templates that ended, by the reason their runner gave.",
        (*WORKLOAD, "role", "reason"),
    ),
    Metric(CPU_SECONDS, "counter", "CPU time that replicas and templates used.", (*WORKLOAD, "role")),
    Metric(REPLICA_SECONDS, "counter", "Time for which replicas and templates existed, added up.", (*WORKLOAD, "role")),
    Metric(
        STARTING_SECONDS, "counter", "Part of swell_replica_seconds_total of serving ones: not ready yet.", WORKLOAD
    ),
    Metric(BUSY_SECONDS, "counter", "The part in which at least one input was worked on.", WORKLOAD),
    Metric(IDLE_SECONDS, "counter", "The part in which they were ready and had nothing to do.", WORKLOAD),
    Metric(COST, "counter", "What CPU and memory of replicas and templates cost, by prices.toml.", (*WORKLOAD, "role")),
    Metric(WORKLOAD_INFO, "gauge", "1 for each workload that is deployed.", (*WORKLOAD, "revision")),
    Metric(WAITING, "gauge", "Pools that wait for room or for another try.", ()),
    Metric(CALLS_DUE, "gauge", "Queued calls that are due and wait; of each workload up to 2000 are counted.", ()),
    Metric(CALLS_LEASED, "gauge", "Queued calls that replicas have.", ()),
    Metric(
        CALLS_TOTAL,
        "counter",
        "Queued calls that were accepted, and what came of attempts: done, again, failed, cancelled; retried by hand.",
        ("event",),
    ),
    Metric(SOURCE_UP, "gauge", "1 while what a function's events come of is reached.", WORKLOAD),
    Metric(
        SOURCE_WAITING,
        "gauge",
        "Messages of a source that are not in the queue yet, where it can tell, asked every 10 s.",
        WORKLOAD,
    ),
    Metric(SOURCE_OLDEST, "gauge", "How old the oldest of them is that was taken; 0: none was.", WORKLOAD),
    Metric(STEP_SECONDS, "histogram", "Deciding once about all pools that are due.", (), _OWN_WORK_S),
    Metric(PLAN_POOLS, "histogram", "Pools that were due in one step.", (), _POOLS),
    Metric(PLANS_REFUSED, "counter", "Plans that would have broken an invariant: a defect.", ()),
    Metric(WRITE_SECONDS, "histogram", "One commit of the state's database, synced to disk.", (), _OWN_WORK_S),
    Metric(ROWS_DROPPED, "counter", "Rows that could not be written and were given up.", ()),
    # Told by each runner
    Metric(MEMORY, "gauge", "Memory that replicas and templates hold now.", (*WORKLOAD, "role", "node")),
    Metric(NODE_CORES, "gauge", "Cores that the node's replicas may use together.", ("node",)),
    Metric(NODE_MEMORY, "gauge", "Memory that the node's replicas may be promised together.", ("node",)),
    # Told by all
    Metric(UP, "gauge", "1 when the process answered this scrape.", PROCESS),
    Metric(PROCESS_CPU, "counter", "CPU time this process used.", PROCESS),
    Metric(PROCESS_RSS, "gauge", "Memory resident in this process.", PROCESS),
    Metric(PROCESS_FDS, "gauge", "Files this process has open.", PROCESS),
    Metric(PROCESS_FDS_MAX, "gauge", "Files it may have open.", PROCESS),
    Metric(PROCESS_START, "gauge", "When it began, in seconds since the epoch.", PROCESS),
)
BY_NAME = {metric.name: metric for metric in METRICS}

OTHER = "_other"
"""An app beyond the bound: no app's own name begins so."""
OTHER_LABELS = ("", OTHER, "")

PHASES = frozenset({"order", "exec", "hand_over", "fork", "load", "enter", "listen"})
"""What start-ups are made of, as a runner and its children time them."""
_STATUSES = {int(status): str(int(status)) for status in HTTPStatus} | {499: "499"}


def histogram(name: str) -> Histogram:
    """An empty one, with the buckets that are declared."""
    return Histogram(BY_NAME[name].bounds)


def workload_labels(workload: str) -> Labels:
    """Values of `WORKLOAD` for a workload's key."""
    namespace, app, function = workload.split("/", 2)
    return (namespace, app, function)


def code_label(status: int) -> str:
    """A web application may send any number as its status."""
    return _STATUSES.get(status) or (f"{status // 100}xx" if 100 <= status < 1000 else "other")


def error_label(error: str) -> str:
    """A web application may name any code as its error."""
    return error if not error or error in KNOWN_CODES else "other"


def reason_label(reason: str) -> str:
    """A runner of another version may know other reasons."""
    return reason if reason in REASONS else "other"


def phase_label(phase: str) -> str:
    """Of a replica that waited for its template to load, that one's phases are its own, too."""
    return phase if phase.removeprefix("template_") in PHASES else "other"


T = TypeVar("T")


class Bounded(Generic[T]):
    """Something of each workload, for at most so many of them; all others share one.

    A workload that is gone keeps its own, which a scraper may not have seen yet, until another one needs the room.
    Counters thus never go back while a workload comes and goes.
    """

    def __init__(self, most: int, make: Callable[[], T]) -> None:
        self.most = most
        self.others: T | None = None
        self._make = make
        self._own: dict[str, T] = {}
        self._retired: dict[str, None] = {}

    def of(self, workload: str) -> T:
        """What the workload has."""
        found = self._own.get(workload)
        if found is not None:
            if self._retired:
                self._retired.pop(workload, None)
            return found
        if len(self._own) >= self.most and self._retired:
            oldest = next(iter(self._retired))
            del self._retired[oldest], self._own[oldest]
        if len(self._own) < self.most:
            made = self._own[workload] = self._make()
            return made
        if self.others is None:
            self.others = self._make()
        return self.others

    def retire(self, workload: str) -> None:
        """It is gone; its place may be given to another."""
        if workload in self._own:
            self._retired[workload] = None

    def labels(self, workload: str) -> Labels:
        """Its values of `WORKLOAD`, or those of all that share one."""
        return workload_labels(workload) if workload in self._own else OTHER_LABELS

    def workloads(self) -> tuple[str, ...]:
        """Those that have one of their own."""
        return tuple(self._own)

    def items(self) -> Iterator[tuple[Labels, T]]:
        """By values of `WORKLOAD`."""
        for workload, own in self._own.items():
            yield workload_labels(workload), own
        if self.others is not None:
            yield OTHER_LABELS, self.others
