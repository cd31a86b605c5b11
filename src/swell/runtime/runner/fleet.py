"""What runs on this node, and how does it come and go? Starts, forks, watches and ends replicas."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from swell.model.events import ReplicaSeen
from swell.model.orders import Order, StartOrder, StopOrder
from swell.model.replica import Phase
from swell.model.request import Usage
from swell.model.resources import Needs
from swell.runtime import limits
from swell.runtime.runner import launching, meter, processes, records
from swell.runtime.runner.builds import Builder, Prepared, unprepared
from swell.runtime.runner.cgroup import Group, Groups
from swell.runtime.runner.child_link import ChildLink
from swell.runtime.runner.children import Child, Ending, unknown, verdict, waited_ms
from swell.runtime.runner.forks import Forks
from swell.runtime.runner.launching import Ends, Terms
from swell.runtime.runner.meter import Meter
from swell.runtime.runner.processes import Exit
from swell.runtime.runner.records import Record
from swell.runtime.runner.spool import LogPipe, Spool
from swell.wire.child import Alive, Drain, Exited, Failed, Fork, Forked, Ready, Served, Stuck, Up
from swell.wire.identity import open_pidfd
from swell.wire.loglines import LogLine
from swell.wire.paths import Home

ENDED_KEPT = 10_000
"""Ids of replicas that are over: an order repeated for one of them must not bring it back."""
_LAST_WORDS_S = 2.0
"""A process that said it failed ends itself; after this long it is helped."""
_STATUS_S = 1.0
"""A fork's exit status comes from its template; after this long it will not come any more."""


class Fleet:
    """Every replica and template of one runner."""

    def __init__(
        self,
        home: Home,
        terms: Terms,
        groups: Groups,
        builder: Builder,
        spool: Spool,
        tell: Callable[[ReplicaSeen], None],
        use: Callable[[Usage], None],
    ) -> None:
        self.home = home
        self.terms = terms
        self.groups = groups
        self.builder = builder
        self.spool = spool
        self._tell = tell
        self._use = use
        self.children: dict[str, Child] = {}
        self.ended: OrderedDict[str, ReplicaSeen] = OrderedDict()
        self.by_pid: dict[int, Child] = {}
        self.forks = Forks(self, terms.fork_probe_s)
        self._dying: list[Group] = []
        """Groups that could not be removed yet."""

    # -- orders ------------------------------------------------------------------------------

    def obey(self, order: Order) -> None:
        """Do what control wants. Repeating it changes nothing."""
        match order:
            case StartOrder():
                self._start(order)
            case StopOrder():
                self.stop(order)

    def _start(self, order: StartOrder) -> None:
        known = self.children.get(order.replica)
        if known is not None:
            self._report(known)
            return
        if order.replica in self.ended:
            self._tell(self.ended[order.replica])
            return
        child = Child.ordered(order, time.time())
        self.children[child.id] = child
        child.meter = Meter(child.id, child.pool, child.role, child.ordered_at)
        child.address = "" if child.role == "template" else launching.address(self.home, child.id, order.revision)
        self.limit_startup(child)
        if child.template is not None and child.role == "serving":
            self.forks.request(child)
        else:
            self.fresh(child, "")
        if child.id in self.children:
            self._report(child)

    def stop(self, order: StopOrder) -> None:
        """Drain a ready replica; end at once what has nothing in flight."""
        child = self.children.get(order.replica)
        if child is None:
            # It never may come to be either: its start order could still be on the way.
            self._tell(self.ended.get(order.replica) or self._remember(unknown(order.replica, self.terms.node)))
            return
        if child.stop is not None:
            return
        child.stop = order
        # One that was adopted and not heard yet may have inputs in flight: it is told when it is heard.
        idle = child.role == "template" or (child.phase is Phase.STARTING and not child.awaited)
        child.phase = Phase.DRAINING
        self._report(child)
        if idle:
            self._end(child)
            return
        self._say_drain(child, order)
        words = f"cut after {order.grace_s:g} s of draining"
        child.after(order.grace_s, "grace", lambda: self._end(child, order.reason, words))

    @staticmethod
    def _say_drain(child: Child, order: StopOrder) -> None:
        if child.link is not None:
            with suppress(OSError):
                child.link.send(Drain(grace_s=order.grace_s, reason=order.reason))

    # -- starting ----------------------------------------------------------------------------

    def find(self, replica: str) -> Child | None:
        return self.children.get(replica)

    def fresh(self, child: Child, why: str) -> None:
        """Start by exec. `why`: what kept it from being forked."""
        if why:
            child.unforked = why
            self.spool.note(child.pool, child.id, f"started fresh instead of forked: {why}")
        if child.order is None:
            self._end(child, "crashed", f"{why}; it cannot be started again by a runner that did not start it")
            return
        ready = self.builder.ready(child.order.revision)
        if ready is not None:
            self._exec(child, child.order, ready)
        else:
            child.preparing = asyncio.get_running_loop().create_task(self._prepare(child, child.order))

    async def _prepare(self, child: Child, order: StartOrder) -> None:
        try:
            prepared = await self.builder.prepare(
                order.revision, lambda line: self.spool.note(child.pool, child.id, line)
            )
        except Exception as error:
            child.failed = unprepared(child.id, error)
            self.over(child, None)
        else:
            child.preparing = None
            self._exec(child, order, prepared)

    def _exec(self, child: Child, order: StartOrder, prepared: Prepared) -> None:
        try:
            with self._equip(child, order.revision.needs) as ends:
                pid = processes.spawn(
                    [str(prepared.python), "-P", "-m", "swell.runtime.child"],
                    launching.environ(order.revision, prepared.python, os.environ),
                    ends.numbered(),
                    order.revision.environment.workdir or str(prepared.folder),
                    child.group.membership if child.group else (),
                    child.rlimits,
                )
        except OSError as error:
            self._end(child, "crashed", f"the runner could not prepare its start: {error}")
            return
        self._has_process(child, pid, open_pidfd(pid), ours=True)
        launch = launching.launch(self.home, self.terms, order, child.address, str(prepared.folder))
        if child.link is not None:
            with suppress(OSError):
                child.link.send(launch)

    def fork(self, template: Child, child: Child) -> None:
        """Order a fork of `template`. Raises OSError when that cannot be."""
        assert child.order is not None
        assert template.link is not None
        with self._equip(child, child.order.revision.needs) as ends:
            groups = child.group.membership if child.group else ()
            order = Fork(replica=child.id, address=child.address, cgroup_procs=groups, rlimits=child.rlimits)
            child.forked = True
            template.link.send(order, ends.three())

    def _equip(self, child: Child, needs: Needs) -> Ends:
        """Make its group, log pipe, channel and listener; returns the ends it is to get."""
        child.begun_monotonic_s = time.monotonic()
        child.forked = False
        child.group = self.groups.create(child.group_name, needs)
        bounds, said = limits.address_space(needs.memory_limit_mib if "memory" in child.group.unmet else None)
        child.rlimits = (*limits.RLIMITS, *bounds)
        child.applied = (*child.group.applied, *said, *limits.RLIMITS_APPLIED)
        self.open_log(child)
        ours, theirs = socket.socketpair()
        self.attach(child, ChildLink(ours))
        unix = child.address.startswith("unix:")
        listener = launching.listen(self.home.replica_socket(child.id)) if unix else None
        assert child.log is not None
        return Ends(theirs, listener, child.log.open_end())

    def open_log(self, child: Child) -> None:
        """Read what it prints, from its FIFO into its app's log file."""

        def heard(parts: list[tuple[str, str, str]]) -> None:
            now = time.time()
            lines = [LogLine(now, child.pool, child.id, request, stream, text) for stream, request, text in parts]
            self.spool.write(lines)

        child.log = LogPipe(self.home.replica_records / f"{child.id}.log", heard)

    def _has_process(self, child: Child, pid: int, pidfd: int | None, ours: bool) -> None:
        child.pid = pid
        self.by_pid[pid] = child
        self.watch(child, pidfd, ours)
        records.write(
            self.home.replica_records,
            Record(
                replica=child.id,
                pool=child.pool,
                role=child.role,
                pid=pid,
                start_ticks=processes.start_ticks(pid) or 0,
                address=child.address,
                template=child.template,
                ordered_at=child.ordered_at,
                startup_timeout_s=child.startup_timeout_s,
                applied=child.applied,
                group=child.group_name,
            ),
        )

    def watch(self, child: Child, pidfd: int | None, ours: bool) -> None:
        """Notice the end of a process. Our own children are reaped; of others the pidfd tells."""
        child.pidfd = pidfd
        if pidfd is not None and not ours:
            loop = asyncio.get_running_loop()

            def ended() -> None:
                loop.remove_reader(pidfd)
                child.after(_STATUS_S, "status", lambda: self.over(child, Exit(None, None)))

            loop.add_reader(pidfd, ended)

    def limit_startup(self, child: Child) -> None:
        """End it when it is not ready in time, counted from its order."""
        words = f"not ready {child.startup_timeout_s:g} s after it was ordered"
        left_s = child.ordered_at + child.startup_timeout_s - time.time()
        child.after(max(0.0, left_s), "startup", lambda: self._end(child, "startup_timeout", words))

    # -- what a process says -----------------------------------------------------------------

    def attach(self, child: Child, link: ChildLink) -> None:
        """Hear `child` on this channel from now on."""
        child.link = link
        child.awaited = False
        child.cancel_timer("channel")
        link.heard = lambda message, fds: self._heard(child, message, fds)
        link.ended = lambda: self.unheard(child)
        if child.stop is not None:
            self._say_drain(child, child.stop)

    def returned(self, child: Child, link: ChildLink) -> None:
        """It found the runner again."""
        self.attach(child, link)
        if child.phase is Phase.STARTING:
            self.limit_startup(child)
        self._report(child)
        if child.role == "template":
            self.forks.flush(child)

    def _heard(self, child: Child, message: Up, fds: deque[int]) -> None:
        match message:
            case Alive():
                self.forks.alive(child)
            case Ready():
                self._ready(child, message)
            case Failed():
                child.failed = message
                self.forks.settled(child)
                child.after(_LAST_WORDS_S, "last words", lambda: self._end(child))
            case Forked():
                self._forked(message, fds.popleft() if fds else None)
            case Exited():
                gone = self.by_pid.get(message.pid)
                if gone is not None and gone.id == message.replica:
                    self.over(gone, Exit(message.status, message.cpu_s))
            case Stuck():
                child.stuck = message.count
                if message.ending:
                    child.ending = child.ending or Ending("stuck", f"inputs that cannot be stopped: {message.requests}")
                self._report(child)
            case Served():
                child.ending = child.ending or Ending("served")
                self._to_phase(child, Phase.DRAINING)

    def _ready(self, child: Child, message: Ready) -> None:
        child.cancel_timer("startup")
        if child.pid is None:
            self._has_process(child, message.pid, open_pidfd(message.pid), ours=False)
        now = time.monotonic()
        child.ready_monotonic_s = now
        started_ms = (now - child.begun_monotonic_s) * 1000
        own_ms = sum(ms for _, ms in message.timings_ms)
        # What nobody timed in the process itself: the interpreter's start, or the hand-over to a template.
        rest = ("hand_over" if child.forked else "exec", max(0.0, started_ms - own_ms))
        template = self.children.get(child.template or "") if child.forked else None
        child.timings_ms = (*waited_ms(child, template), rest, *message.timings_ms)
        if message.threads:
            child.applied += (f"threads that a fork will not have: {', '.join(message.threads)}",)
        child.fork_refused = message.refused
        self._measure(child)
        self._to_phase(child, Phase.READY)
        self.forks.settled(child)
        if child.role == "template":
            self.forks.flush(child)

    def _forked(self, message: Forked, pidfd: int | None) -> None:
        child = self.children.get(message.replica)
        if child is None or not child.forked or child.pid not in (None, message.pid):
            # Stopped, or given up and started fresh, while it was being forked.
            processes.kill(message.pid, pidfd)
            if pidfd is not None:
                os.close(pidfd)
            return
        if child.pid is None:
            self._has_process(child, message.pid, pidfd, ours=False)
        elif pidfd is not None:
            # It was ready, and said who it is, before its template had come back from the fork.
            os.close(pidfd)
        self.forks.confirmed(child)

    def unheard(self, child: Child) -> None:
        """Its channel broke. It connects again if it lives; if not, its end is noticed elsewhere."""
        child.link = None
        words = f"its channel to the runner broke and did not come back within {self.terms.orphan_s:g} s"
        child.after(self.terms.orphan_s, "channel", lambda: self._end(child, "crashed", words))

    def _to_phase(self, child: Child, phase: Phase) -> None:
        if child.phase is not Phase.DRAINING:
            child.phase = phase
        self._report(child)

    def _report(self, child: Child) -> None:
        self._tell(child.seen(self.terms.node))

    def hung(self, template: Child) -> None:
        """It did not even come back from fork()."""
        self._end(template, "crashed", f"it hung when it was to fork: {template.fork_refused}")

    def refused(self, template: Child) -> None:
        self.spool.note(template.pool, template.id, f"not forked any more: {template.fork_refused}")
        self._report(template)

    # -- ending ------------------------------------------------------------------------------

    def _end(self, child: Child, reason: str = "", detail: str = "") -> None:
        """Kill it with all it started. Its end is told when its process is really over."""
        if reason and child.ending is None:
            child.ending = Ending(reason, detail)
        if child.pid is None:
            self.over(child, None)
            return
        processes.kill(child.pid, child.pidfd)
        processes.kill_session(child.pid)

    def again(self, child: Child, why: str) -> None:
        """End its process and start it fresh under the same id."""
        child.again = True
        child.unforked = why
        self.spool.note(child.pool, child.id, f"starts again: {why}")
        if self.children.get(child.id) is child:
            self._end(child)

    def reaped(self, pid: int, exit: Exit) -> None:
        """A child process of the runner is over: one we started, or one whose parent died below us."""
        child = self.by_pid.get(pid)
        if child is not None:
            self.over(child, exit)

    def over(self, child: Child, exit: Exit | None) -> None:
        """Nothing of it runs any more: account for it, clean up after it, and tell why."""
        if self.children.get(child.id) is not child:
            return
        if child.link is not None:
            # It may have said why just before it ended.
            child.link.drain()
        if child.preparing is not None and child.preparing is not asyncio.current_task():
            child.preparing.cancel()
        killed_by = -exit.status if exit is not None and exit.status is not None and exit.status < 0 else None
        oom_kills = child.group.oom_kills() if child.group else 0
        if not child.again:
            self.forks.settled(child, None if oom_kills or child.ending or child.stop else killed_by)
        child.cancel_timers()
        pid = child.pid
        tail = self._clean(child, exit)
        if child.again and child.stop is None:
            child.again = False
            child.attempt += 1
            child.meter = Meter(child.id, child.pool, child.role, time.time())
            self.limit_startup(child)
            self.fresh(child, "")
            return
        del self.children[child.id]
        end = verdict(child, exit, oom_kills, tail)
        child.phase = Phase.GONE
        seen = msgspec.structs.replace(child.seen(self.terms.node), pid=pid, reason=end.reason, detail=end.detail)
        self._remember(seen)
        self.spool.note(child.pool, child.id, " · ".join(filter(None, ("over", end.reason, end.detail))))
        self._tell(seen)
        if child.role == "template":
            self.forks.over(child)

    def _remember(self, seen: ReplicaSeen) -> ReplicaSeen:
        self.ended[seen.replica] = seen
        while len(self.ended) > ENDED_KEPT:
            self.ended.popitem(last=False)
        return seen

    def _clean(self, child: Child, exit: Exit | None) -> list[str]:
        """Take away what was made for its process; returns the last lines it wrote."""
        tail: list[str] = []
        if child.pid is not None:
            processes.kill_session(child.pid)
            self.by_pid.pop(child.pid, None)
        if child.log is not None:
            child.log.close()
            tail = list(child.log.tail)
        self._measure(child, exit)
        if child.pidfd is not None:
            asyncio.get_running_loop().remove_reader(child.pidfd)
            os.close(child.pidfd)
        if child.link is not None:
            child.link.close()
        if child.group is not None:
            self.discard(child.group)
        self.home.replica_socket(child.id).unlink(missing_ok=True)
        records.remove(self.home.replica_records, child.id)
        child.pid = child.pidfd = child.link = child.log = child.group = None
        return tail

    def discard(self, group: Group) -> None:
        """Kill what runs in the group and take it away, now or in a moment."""
        if not self._remove(group):
            self._dying.append(group)

    @staticmethod
    def _remove(group: Group) -> bool:
        return group.kill() and group.remove()

    # -- every second ------------------------------------------------------------------------

    def tick(self) -> None:
        """Meter what lives, and finish what could not be finished at once."""
        for child in list(self.children.values()):
            self._measure(child)
            if child.pid is not None and child.pidfd is None and processes.is_over(child.pid):
                self.over(child, Exit(None, None))
        self._dying = [group for group in self._dying if not self._remove(group)]

    def _measure(self, child: Child, exit: Exit | None = None) -> None:
        if child.meter is None or child.group is None:
            return
        used_s = meter.cpu_s(child.group, child.pid)
        if exit is not None and exit.cpu_s is not None:
            used_s = max(used_s, exit.cpu_s)
        memory_mib = meter.memory_mib(child.group, child.pid)
        if exit is None:
            child.memory_mib = memory_mib
        self._use(child.meter.sample(time.time(), used_s, memory_mib, child.phase is Phase.STARTING))

    def inventory(self) -> tuple[ReplicaSeen, ...]:
        return tuple(child.seen(self.terms.node) for child in self.children.values())

    async def stop_all(self, reason: str, grace_s: float) -> None:
        """Drain and end everything; returns when nothing is left."""
        for child in list(self.children.values()):
            self.stop(StopOrder(replica=child.id, reason=reason, grace_s=grace_s))
        while self.children or self._dying:
            await asyncio.sleep(0.02)
            self.tick()
