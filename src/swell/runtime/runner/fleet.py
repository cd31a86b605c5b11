"""What runs on this node? Starts, forks, hears and measures replicas; how they end is in `ending`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TypeVar

from swell.model.errors import SwellError
from swell.model.events import ReplicaSeen
from swell.model.limits import SANDBOX_PROCESSES_MAX
from swell.model.orders import Order, StartOrder, StopOrder
from swell.model.replica import Phase
from swell.model.request import Usage
from swell.model.workload import Revision
from swell.runtime import limits
from swell.runtime.runner import launching, meter, processes, records
from swell.runtime.runner.builds import Builder, Prepared, made_for, unprepared
from swell.runtime.runner.cgroup import Groups
from swell.runtime.runner.child_link import ChildLink
from swell.runtime.runner.children import Child, Ending, waited_ms
from swell.runtime.runner.ending import Endings, say_drain
from swell.runtime.runner.forks import Forks
from swell.runtime.runner.gpus import Gpus
from swell.runtime.runner.heard import abridged
from swell.runtime.runner.launching import ChildFds
from swell.runtime.runner.meter import Meter
from swell.runtime.runner.processes import Exit
from swell.runtime.runner.sandbox import start
from swell.runtime.runner.sandbox.maker import Sandboxes, bounded
from swell.runtime.runner.sandbox.start import Command
from swell.runtime.runner.secrets import Confiding
from swell.runtime.runner.spool import LogPipe, Spool
from swell.runtime.runner.volumes.mounting import Mounting
from swell.wire import link as wire
from swell.wire.child import (
    AskVolume,
    Exited,
    Failed,
    Fork,
    Forked,
    ForkStarted,
    Left,
    Ready,
    Reports,
    Served,
    Stuck,
    Terminated,
    Unforked,
    Up,
)
from swell.wire.identity import identify, open_pidfd, pid_of, send_signal
from swell.wire.settings import Settings

T = TypeVar("T")

_LAST_WORDS_S = 2.0
"""A process that said it failed ends itself; after this long it is helped."""
_STATUS_S = 1.0
"""A fork's exit status comes from its template; after this long it will not come any more."""


class Fleet:
    """Every replica and template of one runner."""

    def __init__(
        self,
        settings: Settings,
        node: str,
        groups: Groups,
        sandboxes: Sandboxes,
        builder: Builder,
        spool: Spool,
        confiding: Confiding,
        mounting: Mounting,
        tell: Callable[[ReplicaSeen], None],
        use: Callable[[Usage], None],
    ) -> None:
        self.settings = settings
        self.home = settings.paths
        self.node = node
        self.groups = groups
        self.sandboxes = sandboxes
        self.builder = builder
        self.spool = spool
        self.confiding = confiding
        self.mounting = mounting
        mounting.hold(lambda: self.children.values())
        mounting.remade = self._note_down
        self._tell = tell
        self._use = use
        self.reported: Callable[[Child, Reports], None] = lambda _child, _reports: None
        self.children: dict[str, Child] = {}
        self.gpus = Gpus(self)
        self.by_pid: dict[int, Child] = {}
        self.endings = Endings(self, tell)
        mounting.unfit = lambda child, why: self.endings.end(child, "crashed", why)
        self.forks = Forks(self, self.endings, settings.fork_probe_s)

    # -- orders ------------------------------------------------------------------------------

    def obey(self, order: Order) -> None:
        """Do what control wants. Repeating it changes nothing."""
        match order:
            case StartOrder():
                self._start(order)
            case StopOrder():
                self.endings.stop(order)

    def _start(self, order: StartOrder) -> None:
        known = self.children.get(order.replica)
        if known is not None:
            self.report(known)
            return
        if self.endings.told(order.replica):
            return
        child = Child.ordered(order, time.time())
        self.children[child.id] = child
        child.meter = Meter(child.id, child.pool, child.role, child.ordered_at)
        revision = order.revision
        child.address = "" if child.role == "template" else launching.address(self.home, child.id, revision)
        child.uses = tuple(map(str, made_for(revision.environment, revision.bundle, self.home)))
        self.limit_startup(child)
        lacking = self.confiding.book.lacking(child.secrets)
        if lacking:
            self._cannot_start(child, Failed("secret_gone", lacking))
            return
        if gone := self.mounting.lacking(child.volumes):
            self._cannot_start(child, Failed("volume_gone", gone))
        elif self.mounting.ready(child.volumes):
            self.gpus.admit(child)
        else:
            # Their newest versions are no folders yet.
            self._prepare(child, partial(self.mounting.prepare, child.volumes), lambda _: self.gpus.admit(child))
            self.report(child)

    def begin(self, child: Child) -> None:
        if child.template is not None and child.role == "serving":
            self.forks.request(child)
        else:
            self.fresh(child, "")
        if child.id in self.children:
            self.report(child)

    def hear_secrets(self, message: wire.Secrets) -> None:
        """What was told is passed on, and what could not be read without knowing it is read."""
        changed = self.confiding.book.hear(message)
        for child in self.children.values():
            if child.secrets and child.log is None and child.awaited and self.confiding.book.knows(child.secrets):
                self.open_log(child)
        self.confiding.changed(list(self.children.values()), changed, self._outdated)

    def hear_volumes(self, message: wire.Volumes) -> None:
        """What was told is noted; templates that have loaded what is no longer so are disposed of."""
        changed = {state.key: state for state in self.mounting.hear(message)}
        for child in list(self.children.values()):
            states = [changed.get(mount.key) for mount in child.mounts if child.snapped]
            # What its own replicas commit is theirs: they would never have a template for long.
            if child.role == "template" and any(state and state.by != child.pool for state in states):
                child.outdated = "renewed"
                if child.ready_monotonic_s is not None:
                    self._outdated(child)

    def _outdated(self, template: Child) -> None:
        """It has loaded what is no longer so: it is made anew when it is needed."""
        self.endings.stop(StopOrder(replica=template.id, reason=template.outdated, grace_s=0.0, node=self.node))

    # -- starting ----------------------------------------------------------------------------

    def fresh(self, child: Child, why: str) -> None:
        """Start by exec. `why`: what kept it from being forked."""
        if why:
            child.unforked = why
            self.spool.note(child.pool, child.id, f"started fresh instead of forked: {why}")
        if child.order is None:
            self.endings.end(child, "crashed", f"{why}; it cannot be started again by a runner that did not start it")
            return
        revision = child.order.revision
        ready = self.builder.ready(revision)
        if ready is not None:
            self._exec(child, child.order, ready)
        else:
            note = partial(self.spool.note, child.pool, child.id)
            self._prepare(child, partial(self.builder.prepare, revision, note), partial(self._exec, child, child.order))

    def _prepare(self, child: Child, prepare: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> None:
        """Do that first, and then go on with its start."""

        async def first() -> None:
            try:
                prepared = await prepare()
            except Exception as error:
                failed = unprepared(child.id, error)
                # No process of its own has printed it.
                self.spool.note(child.pool, child.id, failed.detail)
                self._cannot_start(child, failed)
            else:
                child.preparing = None
                then(prepared)

        child.preparing = asyncio.get_running_loop().create_task(first())

    def _cannot_start(self, child: Child, why: Failed) -> None:
        child.failed = why
        self.endings.over(child, None)

    def _exec(self, child: Child, order: StartOrder, prepared: Prepared) -> None:
        try:
            with self._equip(child, order.revision) as fds:
                pid, pidfd = self._spawn(child, order.revision, prepared, fds)
        except (OSError, SwellError) as error:
            self.endings.end(child, "crashed", f"the runner could not prepare its start: {error}")
            return
        # A template in a sandbox is the child of that one's first process.
        self._has_process(child, pid, pidfd, ours=not child.isolated or child.role == "serving")
        key = launching.read_key(self.home.call_key)
        launch = launching.launch(self.settings, order, child.address, str(prepared.folder), key, child.mounts)
        if child.link is not None:
            with suppress(OSError):
                child.link.send(launch)
                self.confiding.tell(child)

    def _spawn(self, child: Child, revision: Revision, prepared: Prepared, fds: ChildFds) -> tuple[int, int | None]:
        argv = [str(prepared.python), "-P", "-m", "swell.runtime.child"]
        environ = launching.environ(revision, prepared.python, os.environ, self.gpus.unseen, self.gpus.given(child))
        cwd = revision.environment.workdir or str(prepared.folder)
        groups = child.group.membership if child.group else ()
        if revision.isolation is None:
            pid = processes.spawn(argv, environ, fds.numbered(), cwd, groups, child.rlimits)
            return pid, open_pidfd(pid)
        around = self.sandboxes.around(revision, prepared.python, prepared.folder, environ, child.mounts)
        command = Command(argv, environ, fds.numbered(), cwd, groups, child.rlimits)
        return start.spawn(command, around, forked=child.role == "template")

    def fork(self, template: Child, child: Child) -> None:
        """Order a fork of `template`. Raises OSError or SwellError when that cannot be."""
        assert child.order is not None
        assert template.link is not None
        with self._equip(child, child.order.revision) as fds, ExitStack() as opened:
            paths = child.group.membership if child.group else ()
            # A sandbox does not see them: there they are handed in, open.
            groups = [opened.enter_context(open(path, "wb", 0)).fileno() for path in paths if child.isolated]
            order = Fork(
                replica=child.id,
                address=child.address,
                cgroup_procs=() if child.isolated else paths,
                rlimits=child.rlimits,
                groups=len(groups),
                mounts=child.mounts,
                rest_s=self.forks.rest_s,
                environ=self.gpus.given(child),
            )
            child.forked = True
            # What it reads first.
            self.confiding.tell(child)
            template.link.send(order, [*fds.three(), *groups])

    def _equip(self, child: Child, revision: Revision) -> ChildFds:
        """Make its group, log pipe, channel and listener; returns the descriptors it is to get."""
        child.begun_monotonic_s = time.monotonic()
        child.forked = False
        child.early = None
        needs = bounded(revision.needs, revision.isolation)
        child.group = self.groups.create(child.group_name, needs, SANDBOX_PROCESSES_MAX if child.isolated else None)
        bounds, said = limits.address_space(needs.memory_limit_mib if "memory" in child.group.unmet else None)
        child.rlimits = (*limits.RLIMITS, *bounds)
        mounted = tuple(f"volume {m.name} v{m.version} at {m.path}" for m in self.mounting.equip(child))
        more = (*self.sandboxes.applied(revision.isolation), *self.confiding.applied(child), *mounted)
        child.applied = (*child.group.applied, *said, *limits.RLIMITS_APPLIED, *more, *self.gpus.applied(child))
        self.open_log(child)
        ours, theirs = socket.socketpair()
        self.attach(child, ChildLink(ours))
        # A foreign process listens elsewhere by itself; what starts it says here which slots are free.
        listener = launching.listen(self.home.replica_socket(child.id)) if child.address else None
        assert child.log is not None
        return ChildFds(theirs, listener, child.log.open_end())

    def open_log(self, child: Child) -> None:
        """Read what it prints, from its FIFO into its app's log file."""
        path = self.home.replica_records / f"{child.id}.log"
        child.log = LogPipe(path, lambda parts: self.spool.write(child.lines(parts)))
        self.confiding.learn(child)

    def _has_process(self, child: Child, pid: int, pidfd: int | None, ours: bool) -> None:
        child.pid = pid
        self.by_pid[pid] = child
        self.watch(child, pidfd, ours)
        self._note_down(child)

    def _note_down(self, child: Child) -> None:
        """For the next runner, where it has a process."""
        if child.pid is None:
            return
        process = identify(child.pid)
        start_ticks = process.start_ticks if process is not None else 0
        records.write(self.home.replica_records, records.of(child, child.pid, start_ticks))

    def watch(self, child: Child, pidfd: int | None, ours: bool) -> None:
        """Notice the end of a process. Our own children are reaped; of others the pidfd tells."""
        child.pidfd = pidfd
        if pidfd is not None and not ours:
            loop = asyncio.get_running_loop()

            def ended() -> None:
                loop.remove_reader(pidfd)
                child.after(_STATUS_S, "status", lambda: self.endings.over(child, Exit(None, None)))

            loop.add_reader(pidfd, ended)

    def limit_startup(self, child: Child) -> None:
        """End it when it is not ready in time, counted from its order."""
        words = f"startup_timeout= gave it {child.startup_timeout_s:g} s from its order"
        left_s = child.ordered_monotonic_s + child.startup_timeout_s - time.monotonic()
        child.after(max(0.0, left_s), "startup", lambda: self.endings.end(child, "startup_timeout", words))

    # -- what a process says -----------------------------------------------------------------

    def attach(self, child: Child, link: ChildLink) -> None:
        """Hear `child` on this channel from now on."""
        child.link = link
        link.name = child.id
        child.awaited = False
        child.cancel_timer("channel")
        link.heard = lambda message, fds: self._heard(child, abridged(message, child.redact), fds)
        link.ended = lambda: self.unheard(child)
        if child.stop is not None:
            say_drain(child, child.stop.reason)

    def returned(self, child: Child, link: ChildLink, ready: bool, port: int) -> None:
        """It found the runner again, or the next one."""
        self.attach(child, link)
        if child.meets(port):
            self._note_down(child)
        with suppress(OSError):
            # They may have changed while it could not hear.
            self.confiding.tell(child)
        if child.phase is Phase.STARTING and ready:
            self._is_ready(child)
            return
        if child.phase is Phase.STARTING:
            self.limit_startup(child)
        self.report(child)
        if child.role == "template":
            self.forks.flush(child)

    def _heard(self, child: Child, message: Up, fds: deque[int]) -> None:
        match message:
            case ForkStarted():
                self.forks.alive(child)
            case Ready():
                self._ready(child, message)
            case Failed():
                child.failed = message
                self.forks.settled(child)
                child.after(_LAST_WORDS_S, "last words", lambda: self.endings.end(child))
            case Forked():
                self._forked(child, message, fds.popleft() if fds else None)
            case Unforked():
                self.forks.unforked(child, message.replica, message.why)
            case Exited():
                child.forks_cpu_s += message.cpu_s
                gone = self.children.get(message.replica)
                if gone is not None and gone.is_fork_of(child, message.pid):
                    self.endings.over(gone, Exit(message.status, message.cpu_s))
            case Left():
                child.left = True
            case Reports():
                self.reported(child, message)
            case AskVolume():
                self.mounting.heard(child, message)
            case Stuck():
                self.endings.stuck(child, message)
                self.report(child)
            case Terminated():
                self.endings.terminated(child)
            case Served():
                child.ending = child.ending or Ending("served")
                self._to_phase(child, Phase.DRAINING)

    def _ready(self, child: Child, message: Ready) -> None:
        if child.pid is None and child.isolated:
            child.early = message
            return
        if child.pid is None:
            self._has_process(child, message.pid, open_pidfd(message.pid), ours=False)
        started_ms = (time.monotonic() - child.begun_monotonic_s) * 1000
        own_ms = sum(ms for _, ms in message.timings_ms)
        # What nobody timed in the process itself: the interpreter's start, or the hand-over to a template.
        rest = ("hand_over" if child.forked else "exec", max(0.0, started_ms - own_ms))
        template = self.children.get(child.template or "") if child.forked else None
        child.timings_ms = (*waited_ms(child, template), rest, *message.timings_ms)
        if message.threads and child.ready_monotonic_s is None:
            child.applied += (f"threads that a fork will not have: {', '.join(message.threads)}",)
        child.fork_refused = message.refused
        child.keeps = message.keeps
        if child.meets(message.port) or message.refused:
            self._note_down(child)
        self._is_ready(child)

    def _is_ready(self, child: Child) -> None:
        child.cancel_timer("startup")
        child.ready_monotonic_s = time.monotonic()
        self.measure(child)
        self._to_phase(child, Phase.READY)
        self.forks.settled(child)
        if child.outdated:
            self._outdated(child)
        elif child.role == "template":
            self.forks.flush(child)

    def _forked(self, template: Child, message: Forked, pidfd: int | None) -> None:
        pid = message.pid
        if template.isolated:
            if pidfd is None:  # Whose process it is cannot be known: as if nothing had been said.
                return
            try:
                pid = pid_of(pidfd)
            except OSError:
                # It is over already; that it was there is all that is left to say of it.
                pid = 0
        self.forks.confirmed(template, message.replica)
        child = self.children.get(message.replica)
        if child is None or child.template != template.id or not child.forked or child.pid not in (None, pid):
            # Stopped, or given up and started fresh, while it was being forked.
            if pid:
                send_signal(pid, pidfd, signal.SIGKILL)
            if pidfd is not None:
                os.close(pidfd)
            return
        if not pid:
            assert pidfd is not None
            os.close(pidfd)
            self.endings.over(child, Exit(None, None))
            return
        if child.pid is None:
            self._has_process(child, pid, pidfd, ours=False)
            if child.early is not None:
                self._ready(child, child.early)
        elif pidfd is not None:
            # It was ready, and said who it is, before its template had come back from the fork.
            os.close(pidfd)

    def unheard(self, child: Child) -> None:
        """Its channel broke. It connects again if it lives; if not, its end is noticed elsewhere."""
        child.link = None
        words = f"its channel to the runner broke and did not come back within {self.settings.orphan_s:g} s"
        child.after(self.settings.orphan_s, "channel", lambda: self.endings.end(child, "crashed", words))

    def _to_phase(self, child: Child, phase: Phase) -> None:
        if child.phase is not Phase.DRAINING:
            child.phase = phase
        self.report(child)

    def report(self, child: Child) -> None:
        """Tell control how it is."""
        self._tell(child.seen(self.node))

    def refused(self, template: Child) -> None:
        self.spool.note(template.pool, template.id, f"not forked any more: {template.fork_refused}")
        self.report(template)
        self._note_down(template)

    # -- ending ------------------------------------------------------------------------------

    def restart(self, child: Child) -> None:
        """Start it fresh under the same id, now that its process is over."""
        child.again = False
        child.attempt += 1
        child.meter = Meter(child.id, child.pool, child.role, time.time())
        self.limit_startup(child)
        self.fresh(child, "")

    # -- every second ------------------------------------------------------------------------

    def tick(self) -> None:
        """Meter what lives, and notice what does not any more."""
        for child in self.children.values():
            self.measure(child)
        self.endings.tick()

    def measure(self, child: Child, exit: Exit | None = None) -> None:
        """Account for what it used since the last time; `exit`: for the last time."""
        if child.meter is None or child.group is None:
            return
        in_all_s = exit.cpu_s - child.forks_cpu_s if exit is not None and exit.cpu_s is not None else None
        used_s = meter.cpu_s(child.group, child.pid, child.role, in_all_s)
        memory_mib = meter.memory_mib(child.group, child.pid, child.role)
        if exit is None:
            child.memory_mib = memory_mib
        self._use(child.meter.sample(time.time(), used_s, memory_mib, child.phase is Phase.STARTING))

    def inventory(self) -> tuple[ReplicaSeen, ...]:
        return tuple(child.seen(self.node) for child in self.children.values())
