"""What is remembered of a request and of the resources a replica used."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from swell.model.workload import workload_of

_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{1,16}")


BATCH_STREAM = "batch"
"""Of a line in a log that is none: the requests, between spaces, that are worked on together under its id."""


def is_id(text: str) -> bool:
    """Could this be the id of a request? Those are a gateway's incarnation and a number: 0b30b5fa04e1-2b."""
    return _ID.fullmatch(text) is not None


def failed(status: int, error: str) -> bool:
    """Did a request end in an error? With a code of Swell's own, or a 5xx; a 404 of a web application is an answer."""
    return bool(error) or status >= 500


def notable(failed: bool, cold: bool, total_ms: float, slow_ms: float) -> bool:
    """Is a request worth remembering among many? One that failed, was cold or was slow."""
    return failed or cold or total_ms >= slow_ms


class Start(msgspec.Struct, frozen=True):
    """The start of a replica that a request waited for. Times in seconds since the epoch."""

    planned_at: float
    ready_at: float
    timings_ms: tuple[tuple[str, float], ...] = ()
    """What its processes took, in order."""


class Together(msgspec.Struct, frozen=True):
    """How an input of a batched method was worked on."""

    size: int
    """With so many inputs, itself counted."""
    waited_ms: float
    """Until they were, from when the replica had it."""
    run_ms: float
    """For so long in user code, all of them."""
    lead: str
    """The first of these requests."""


class Reused(msgspec.Struct, frozen=True):
    """The answer that a request was given, kept from another one."""

    request: str
    """Id of that one."""
    age_s: int
    """How long it had been kept."""


class Led(msgspec.Struct, frozen=True):
    """What led a request to the version of its workload that it went to."""

    version: int = 0
    """0: its app has none."""
    by: Literal["", "tag", "header", "hash", "lot"] = ""
    """Empty: it is the one that has the traffic."""
    name: str = ""
    """The tag, or the header; of a lot, the header that it lacked, if there is one to draw by."""
    percent: float = 0.0
    """The version's share, where it was drawn."""


class RequestRecord(msgspec.Struct, frozen=True):
    """One request through a gateway. Durations in ms, times in seconds since the epoch."""

    id: str
    pool: str
    method: str
    """Function or method called, or "WEB /path"."""
    received_at: float
    status: int
    """HTTP status sent; 499 = the caller left first."""
    total_ms: float
    phases_ms: tuple[tuple[str, float], ...] = ()
    """In order: ("held", …) ("connect", …) ("run", …) ("send", …), and before "run" in a batch ("batch", …).
    Of one that was answered with what was kept: ("cache", …) alone."""
    replica: str = ""
    cold: bool = False
    """True: no replica was ready when it arrived."""
    cpu_us: int = 0
    """-1: not told, as of one that was cut off."""
    cost_usd: float = 0.0
    """Marginal cost: what this request itself used; where its CPU was not told, its memory alone."""
    attempts: int = 1
    """Replicas it was given to, until one took it."""
    error: str = ""
    """Error code, when refused or failed."""
    start: Start | None = None
    """Of a cold request. Control adds it as the record reaches it, since replicas are forgotten before requests are."""
    reasons: tuple[str, ...] = ()
    """The decisions behind it, in words; control adds them likewise."""
    key: str = ""
    """Id of the API key it came with; empty for none, and for the server's own."""
    batch: Together | None = None
    reused: Reused | None = None
    """It was answered with what was kept (`@cached`)."""
    led: Led | None = None
    """None: by a gateway that did not tell it."""

    @property
    def workload(self) -> str:
        """Key of the workload that was called."""
        return workload_of(self.pool)


class Usage(msgspec.Struct, frozen=True):
    """What one replica used in one interval, measured from outside (cgroup or /proc)."""

    replica: str
    pool: str
    role: str
    at: float
    """End of the interval, seconds since the epoch."""
    wall_s: float
    cpu_s: float
    memory_mib_s: float
    """Resident memory integrated over the interval."""
    starting_s: float = 0.0
    """Part of wall_s before it was ready (cold start)."""

    def plus(self, other: Usage) -> Usage:
        """Both in one, up to the later end."""
        return Usage(
            replica=self.replica,
            pool=self.pool,
            role=self.role,
            at=max(self.at, other.at),
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            memory_mib_s=self.memory_mib_s + other.memory_mib_s,
            starting_s=self.starting_s + other.starting_s,
        )


class PoolCount(msgspec.Struct, frozen=True):
    """What a gateway counted for one pool in one interval."""

    pool: str
    at: float
    requests: int
    errors: int
    cold: int
    busy_s: float
    """Replica-seconds in which at least one input was worked on, summed over replicas."""

    def plus(self, other: PoolCount) -> PoolCount:
        """Both in one, up to the later end."""
        return PoolCount(
            pool=self.pool,
            at=max(self.at, other.at),
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            cold=self.cold + other.cold,
            busy_s=self.busy_s + other.busy_s,
        )


class KeyCount(msgspec.Struct, frozen=True):
    """What a gateway counted in one interval of the requests that came to one pool with one API key."""

    key: str
    """Its id."""
    pool: str
    at: float
    requests: int
    errors: int
    cpu_s: float
    """Of those whose replica told it."""
    cost_usd: float
    """Marginal: what they themselves used."""

    def plus(self, other: KeyCount) -> KeyCount:
        """Both in one, up to the later end."""
        return KeyCount(
            key=self.key,
            pool=self.pool,
            at=max(self.at, other.at),
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            cpu_s=self.cpu_s + other.cpu_s,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class Prices(msgspec.Struct, frozen=True):
    """USD per unit, from prices.toml; the defaults are a plain cloud VM's list price, split."""

    cpu_core_hour_usd: float = 0.0316
    memory_gib_hour_usd: float = 0.0042
    template_memory_gib_hour_usd: float = 0.0042
