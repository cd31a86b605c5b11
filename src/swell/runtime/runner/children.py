"""What is one replica or template on this node: its process, what it said, and why it ended?"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from swell.model.ends import ORDERED, in_words
from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.orders import StartOrder, StopOrder
from swell.model.replica import Phase, Role
from swell.model.secret import SecretUse
from swell.model.volume import VolumeUse
from swell.runtime import limits
from swell.runtime.runner.cgroup import Group
from swell.runtime.runner.child_link import ChildLink
from swell.runtime.runner.meter import Meter
from swell.runtime.runner.processes import Exit
from swell.runtime.runner.spool import LogPipe
from swell.wire.child import Failed, Mount, Ready
from swell.wire.identity import how_ended, send_signal
from swell.wire.loglines import LogLine

HERE = "127.0.0.1"
"""Where the members of a gang on this node find each other."""


class ForkProbe(StrEnum):
    """Whether a template is known to survive being forked."""

    UNTRIED = "untried"
    RUNNING = "running"
    """One fork was ordered, and has to say that it lives before there is another."""
    ALIVE = "alive"
    """A fork runs the user's start-up hooks; none has come to their end yet."""
    PASSED = "passed"


class Ending(msgspec.Struct, frozen=True):
    """Why the runner, or the replica itself, decided that it ends."""

    reason: str
    detail: str = ""


class Child:
    """One replica or template, from the order to its end. The fleet changes it; this only knows it."""

    volumes: tuple[VolumeUse, ...] = ()
    mounts: tuple[Mount, ...] = ()
    """What it has of them."""
    behind: tuple[Mount, ...] = ()
    """What it had of them before a reload, and wrote to until then: that is not committed yet."""
    left = False
    """It said that it did all there was to do before its end."""
    snapped = False
    """Its start-up code ran, or runs, in a template, which has loaded what it found in volumes."""
    max_inputs = 1
    seat: Seat | None = None
    gpus: tuple[str, ...] = ()
    """Ids of the devices that it was given, and of nobody else's."""
    meeting = ""
    call = ""
    """Of a member of a gang: the queued call that it has."""
    keeps = False
    """Its runtime keeps answers of queued calls, as far as is known yet."""
    warned: object | None = None
    """The link by which it was told that its machine goes."""
    cut_at = math.inf
    """Monotonic time at which its grace is over, where it is told to end."""
    terminated = False
    """Its runner sent it SIGTERM."""
    unanswered = 0
    """Forks that were ordered of a template, and of which it said nothing yet."""

    def __init__(
        self, id: str, pool: str, role: Role, template: str | None, startup_timeout_s: float, ordered_at: float
    ) -> None:
        self.id = id
        self.pool = pool
        self.role: Role = role
        self.template = template
        self.startup_timeout_s = startup_timeout_s
        self.ordered_at = ordered_at
        self.ordered_monotonic_s = time.monotonic()
        self.begun_monotonic_s = self.ordered_monotonic_s
        """When its process was asked for."""
        self.ready_monotonic_s: float | None = None
        self.order: StartOrder | None = None
        """None when it was adopted from an earlier runner."""
        self.isolated = False
        """It runs in a sandbox: what it says of pids is nothing to go by."""
        self.phase = Phase.STARTING
        self.address = ""
        self.uses: tuple[str, ...] = ()
        """Folders in the cache that it runs from."""
        self.applied: tuple[str, ...] = ()
        self.secrets: tuple[SecretUse, ...] = ()
        self.redact: Callable[[str], str] = str
        """Takes what it may have been told of secrets out of what it says."""
        self.outdated = ""
        """Why a template is to be made anew: it loads, or has loaded, what secrets or volumes were before they were
        changed."""
        self.rlimits = limits.RLIMITS
        self.timings_ms: tuple[tuple[str, float], ...] = ()
        self.memory_mib = 0.0
        self.stuck: dict[str, float] = {}  # request of an input that cannot be stopped → since when, monotonic seconds
        # Its process and what is held for it
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.link: ChildLink | None = None
        self.log: LogPipe | None = None
        self.group: Group | None = None
        self.meter: Meter | None = None
        self.preparing: asyncio.Task[None] | None = None
        self.timers: dict[str, asyncio.TimerHandle] = {}
        # Why it ends
        self.stop: StopOrder | None = None
        self.ending: Ending | None = None
        self.failed: Failed | None = None
        self.again = False
        """Its process was a fork that failed: once it is gone, start it fresh under the same id."""
        self.attempt = 0
        self.forked = False
        self.early: Ready | None = None
        """What it said before its template said which process it is."""
        self.unforked = ""
        """Why it was started fresh although it was to be forked."""
        self.awaited = False
        """Adopted, and its process has not connected to this runner yet."""
        # A template's forks
        self.probe = ForkProbe.UNTRIED
        self.fork_refused = ""
        self.waiting: list[Child] = []
        self.forking: set[str] = set()
        """Replicas whose fork was ordered and not confirmed."""
        self.forks_cpu_s = 0.0
        """CPU seconds of the forks it waited for, which the kernel adds to its own."""

    @classmethod
    def ordered(cls, order: StartOrder, now: float) -> Child:
        child = cls(order.replica, order.pool, order.role, order.template, order.revision.startup_timeout_s, now)
        child.order = order
        child.seat = order.seat
        child.gpus = order.gpus
        child.isolated = order.revision.isolation is not None
        child.max_inputs = order.revision.max_inputs
        child.secrets = order.revision.secrets
        child.volumes = order.revision.volumes
        child.snapped = bool(order.revision.entry.enter_snap)
        return child

    def is_fork_of(self, template: Child, pid: int) -> bool:
        """Is it the very process that a template says is over? Of another's replicas a template has nothing to say."""
        ours = self.template == template.id
        return ours and (self.pid == pid or (template.isolated and self.forked and self.pid is not None))

    @property
    def group_name(self) -> str:
        """Another one for another attempt: what is left of the last may still die in the old one."""
        return f"{self.id}.{self.attempt}" if self.attempt else self.id

    def seen(self, node: str) -> ReplicaSeen:
        """It as control hears of it."""
        return ReplicaSeen(
            at=time.time(),
            replica=self.id,
            phase=self.phase,
            pool=self.pool,
            role=self.role,
            node=node,
            pid=self.pid,
            address=self.address if self.phase is not Phase.STARTING else "",
            rss_mib=self.memory_mib,
            timings_ms=self.timings_ms,
            applied=self.applied,
            reason=self._ends_for(),
            template=self.template,
            seat=self.seat,
            gpus=self.gpus,
            meeting=self.meeting,
            unforked=self.unforked,
            ordered_at=self.ordered_at,
            fork_refused=self.fork_refused,
            stuck=len(self.stuck),
        )

    def meets(self, port: int) -> bool:
        """Others of its gang find it at that port. Is that news? 0: it has none, or did not say."""
        meeting = f"{HERE}:{port}" if port else self.meeting
        news, self.meeting = meeting != self.meeting, meeting
        return news

    def given(self, call: str) -> None:
        """What it works on, of a member of a gang."""
        self.call = call

    def terminate(self) -> None:
        """Tell its process itself that it is to end: its code may have asked for that (signal.signal)."""
        if self.pid is not None:
            self.terminated = True
            send_signal(self.pid, self.pidfd, signal.SIGTERM)

    def lines(self, parts: Sequence[tuple[str, str, str]]) -> list[LogLine]:
        """What it printed, (stream, request, text) each, as it is kept. Of a member of a gang all is of its call."""
        now, rank = time.time(), self.seat.rank if self.seat is not None else None
        return [
            LogLine(now, self.pool, self.id, request or self.call, stream, text, rank)
            for stream, request, text in parts
        ]

    def _ends_for(self) -> str:
        """Why it is to end; empty while it is not."""
        if self.stop is not None:
            return self.stop.reason
        return self.ending.reason if self.ending is not None and self.phase is Phase.DRAINING else ""

    def after(self, delay_s: float, name: str, then: Callable[[], None]) -> None:
        """Do `then` in a while, unless it is over before; a timer of the same name is replaced."""
        self.cancel_timer(name)
        self.timers[name] = asyncio.get_running_loop().call_later(delay_s, then)

    def cancel_timer(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def cancel_timers(self) -> None:
        for name in list(self.timers):
            self.cancel_timer(name)


def unknown(replica: str, node: str) -> ReplicaSeen:
    """What is said of a replica that nobody here has heard of."""
    return ReplicaSeen(
        at=time.time(),
        replica=replica,
        phase=Phase.GONE,
        pool="",
        role="serving",
        node=node,
        reason="unknown",
        detail="this node has no such replica",
    )


def waited_ms(child: Child, template: Child | None) -> tuple[tuple[str, float], ...]:
    """From the order to the start of its process, by phase: a fork may have waited for its template to load."""
    waited = (child.begun_monotonic_s - child.ordered_monotonic_s) * 1000
    if template is None or (template.ready_monotonic_s or 0.0) <= child.ordered_monotonic_s:
        return (("order", waited),)
    assert template.ready_monotonic_s is not None
    loading = (template.ready_monotonic_s - child.ordered_monotonic_s) * 1000
    # It may have begun to load before the order: only the end of its phases was waited for.
    parts: list[tuple[str, float]] = []
    left = loading
    for name, ms in reversed(template.timings_ms):
        if left > 0 and name != "order":
            parts.insert(0, (f"template_{name}", min(ms, left)))
            left -= ms
    return (("order", waited - sum(ms for _, ms in parts)), *parts)


def verdict(child: Child, exit: Exit | None, oom_kills: int, tail: Sequence[str]) -> Ending:
    """Why it is over: its own words first, then what was ordered, then what the kernel says. A crash is one also of
    what was told to end.

    The detail's first line says it; the traceback, or the last lines it printed, may follow. What it printed need have
    nothing to do with its end, and is told as what it is.
    """
    printed = (*tail[:-1], *(f"its last output line: {line}" for line in tail[-1:]))
    if child.failed is not None:
        # What ended is not our runtime, which has a traceback to tell: it is a program of the user's.
        told = printed if child.failed.reason == "not_listening" else ()
        return Ending(child.failed.reason, "\n".join((child.failed.detail, *told)))
    status = exit.status if exit is not None else None
    # The kernel may also have taken a program that it started, which it outlived.
    out_of_memory = bool(oom_kills) and status in (None, -signal.SIGKILL)
    # What was told to end may yet have ended by itself before it heard of it, with an input under way. We kill by
    # SIGKILL only.
    itself = out_of_memory or status not in (None, 0, -signal.SIGKILL)
    if child.stop is not None and not itself:
        return Ending(child.stop.reason, child.ending.detail if child.ending else "")
    if child.ending is not None:
        return child.ending
    if out_of_memory:
        return Ending("out_of_memory", "\n".join(("the kernel killed it", *printed)))
    if status == 0:
        return Ending("exited", "")
    return Ending("crashed", "\n".join((how_ended(status), *printed)))


def farewell(end: Ending, attempt: int) -> str:
    """The one line its log gets. What it printed itself, a traceback say, is in the log already.

    `attempt`: which start in a row it was that did not come to be ready; 0 when it was ready.
    """
    what = in_words(end.reason)
    if end.reason in ORDERED:
        what = f"stopped: {what}"
    elif attempt:
        what += f" (attempt {attempt})"
    return ": ".join(filter(None, (what, *end.detail.splitlines()[:1])))
