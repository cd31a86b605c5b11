"""How does a replica end? Asked to drain, killed with all it started, accounted for, cleaned up after and told of."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Protocol

import msgspec

from swell.model.ends import REASONS, SOON, TERMINATED
from swell.model.events import ReplicaSeen
from swell.model.orders import StopOrder
from swell.model.replica import Phase
from swell.runtime.runner import processes, records
from swell.runtime.runner.cgroup import Group
from swell.runtime.runner.children import Child, Ending, farewell, unknown, verdict
from swell.runtime.runner.gpus import Gpus
from swell.runtime.runner.processes import Exit
from swell.runtime.runner.secrets import Confiding
from swell.runtime.runner.spool import Spool
from swell.runtime.runner.volumes.mounting import Mounting
from swell.wire.child import Drain, Stuck
from swell.wire.identity import identify, send_signal
from swell.wire.paths import Home
from swell.wire.settings import Settings

ENDED_KEPT = 10_000
"""Ids of replicas that are over: an order repeated for one of them must not bring it back."""


class ForkQueue(Protocol):
    """What is told of ends because others may wait for them."""

    def settled(self, child: Child, killed_by: int | None = None) -> None:
        """What was to be, or is, a fork is over; `killed_by` a signal."""
        ...

    def over(self, template: Child, failed: Ending | None) -> None:
        """A template is over; `failed`: how, if it never was ready."""
        ...


class Owner(Protocol):
    """What the fleet is to what ends its replicas."""

    settings: Settings
    home: Home
    node: str
    spool: Spool
    children: dict[str, Child]
    """Everything that is not over, by id."""
    by_pid: dict[int, Child]

    confiding: Confiding
    mounting: Mounting
    gpus: Gpus

    @property
    def forks(self) -> ForkQueue: ...

    def report(self, child: Child) -> None:
        """Tell control how it is."""
        ...

    def measure(self, child: Child, exit: Exit | None = None) -> None:
        """Account for what it used; `exit`: for the last time."""
        ...

    def restart(self, child: Child) -> None:
        """Its process is over and cleaned up after: start it fresh under the same id."""
        ...


class Endings:
    """Ends the replicas of one fleet, and remembers how they ended."""

    def __init__(self, owner: Owner, tell: Callable[[ReplicaSeen], None]) -> None:
        self.owner = owner
        self._tell = tell
        self._ended: OrderedDict[str, ReplicaSeen] = OrderedDict()
        self._dying: list[Group] = []
        """Groups that could not be removed yet."""

    def told(self, replica: str) -> bool:
        """Is it over? If so, control hears once more how it ended."""
        if replica in self._ended:
            self._tell(self._ended[replica])
        return replica in self._ended

    # -- asked to --------------------------------------------------------------------------------

    def stop(self, order: StopOrder) -> None:
        """Drain a ready replica; end at once what has nothing in flight."""
        child = self.owner.children.get(order.replica)
        if child is None:
            # It never may come to be either: its start order could still be on the way.
            self._tell(self._ended.get(order.replica) or self._remember(unknown(order.replica, self.owner.node)))
            return
        if child.stop is None:
            self._drain(child, order)

    def _drain(self, child: Child, order: StopOrder) -> None:
        """As ordered, whatever was ordered before."""
        child.stop, child.cut_at = order, time.monotonic() + order.grace_s
        # One that was adopted and not heard yet may have inputs in flight: it is told when it is heard.
        idle = child.role == "template" or (child.phase is Phase.STARTING and not child.awaited)
        child.phase = Phase.DRAINING
        self.owner.report(child)
        if idle:
            self.end(child)
            return
        say_drain(child, order.reason)
        words = f"cut after {order.grace_s:g} s of draining"
        child.after(order.grace_s, "grace", lambda: self.end(child, order.reason, words))

    def closed(self, child: Child, why: str) -> None:
        """It takes nothing new: a runner before told it to end, somebody else did, or it does so by itself."""
        if child.phase is not Phase.DRAINING:
            child.phase = Phase.DRAINING
            child.ending = child.ending or (Ending(why) if why in REASONS else None)
            self.owner.report(child)

    def terminated(self, child: Child) -> None:
        """It was sent SIGTERM."""
        if not child.terminated:
            self.closed(child, TERMINATED)

    async def stop_all(self, reason: str, grace_s: float) -> None:
        """Drain and end everything, what drains already and had more time than that included; returns when nothing is
        left."""
        cut_at = time.monotonic() + grace_s
        for child in list(self.owner.children.values()):
            if child.cut_at > cut_at:
                self._drain(child, StopOrder(replica=child.id, reason=reason, grace_s=grace_s))
        while self.owner.children or self._dying:
            await asyncio.sleep(0.02)
            self.tick()

    def stuck(self, child: Child, message: Stuck) -> None:
        """It cannot stop these inputs. Where it ends by itself for that, its exit hooks are not waited for for ever.
        Where it goes on beside others, it takes nothing new once one has outlasted the same time, and ends when the
        others have."""
        now, grace_s = time.monotonic(), self.owner.settings.policy.stop_grace_s
        child.stuck = {request: child.stuck.get(request, now) for request in message.requests}
        if message.ending:
            self._give_up(child)
            if "leaving" not in child.timers:
                child.after(grace_s, "leaving", lambda: self.end(child))
        elif not child.stuck:
            child.cancel_timer("stuck")
        elif child.phase is not Phase.DRAINING:
            child.after(max(0.0, min(child.stuck.values()) + grace_s - now), "stuck", lambda: self._outlasted(child))

    def _outlasted(self, child: Child) -> None:
        if child.phase is not Phase.DRAINING:
            self._give_up(child)
            # Control says for how long, once it has heard.
            self.owner.report(child)
            say_drain(child, "stuck")

    def _give_up(self, child: Child) -> None:
        child.ending = child.ending or Ending("stuck", f"request {', '.join(child.stuck)}")
        child.phase = Phase.DRAINING

    # -- made to ---------------------------------------------------------------------------------

    def end(self, child: Child, reason: str = "", detail: str = "") -> None:
        """Kill it with all it started. Its end is told when its process is really over."""
        if reason and child.ending is None:
            child.ending = Ending(reason, detail)
        if child.pid is None:
            self.over(child, None)
            return
        send_signal(child.pid, child.pidfd, signal.SIGKILL)
        processes.kill_session(child.pid)

    def again(self, child: Child, why: str) -> None:
        """End its process and start it fresh under the same id."""
        child.again = True
        child.unforked = why
        self.owner.spool.note(child.pool, child.id, f"starts again: {why}")
        if self.owner.children.get(child.id) is child:
            self.end(child)

    def discard(self, group: Group) -> None:
        """Kill what runs in the group and take it away, now or in a moment."""
        if not _remove(group):
            self._dying.append(group)

    # -- over ------------------------------------------------------------------------------------

    def reaped(self, pid: int, exit: Exit) -> None:
        """A child process of the runner is over: one we started, or one whose parent died below us."""
        child = self.owner.by_pid.get(pid)
        if child is not None:
            self.over(child, exit)

    def tick(self) -> None:
        """Notice ends that nothing tells of, and finish what could not be finished at once."""
        for child in list(self.owner.children.values()):
            if child.pid is not None and child.pidfd is None and identify(child.pid) is None:
                self.over(child, Exit(None, None))
        self._dying = [group for group in self._dying if not _remove(group)]

    def failed_with(self, child: Child, template: Child, end: Ending) -> None:
        """It was to be forked from a template that could not be loaded: that is how its own start failed."""
        child.ending = end
        self.over(child, None, f"not started: its template {template.id} failed")

    def over(self, child: Child, exit: Exit | None, said: str = "") -> None:
        """Nothing of it runs any more: account for it, clean up after it, and tell why. `said`: its log's last line."""
        owner = self.owner
        if owner.children.get(child.id) is not child:
            return
        if child.link is not None:
            # It may have said why just before it ended.
            child.link.drain()
        if child.preparing is not None and child.preparing is not asyncio.current_task():
            child.preparing.cancel()
        killed_by = -exit.status if exit is not None and exit.status is not None and exit.status < 0 else None
        oom_kills = child.group.oom_kills() if child.group else 0
        if not child.again:
            owner.forks.settled(child, None if oom_kills or child.ending or child.stop else killed_by)
        child.cancel_timers()
        pid = child.pid
        tail = self._clean(child, exit)
        if child.again and child.stop is None:
            owner.restart(child)
            return
        del owner.children[child.id]
        end = verdict(child, exit, oom_kills, tail)
        unready = child.phase is Phase.STARTING
        attempt = self._attempt(child) if unready else 0
        child.phase = Phase.GONE
        seen = msgspec.structs.replace(child.seen(owner.node), pid=pid, reason=end.reason, detail=end.detail)
        owner.spool.note(child.pool, child.id, said or farewell(end, attempt))
        orderly = child.left or (exit is not None and exit.status == 0)
        owner.mounting.ended(child, orderly, partial(owner.spool.note, child.pool, child.id))
        self._remember(seen)
        self._tell(seen)
        if child.role == "template":
            owner.forks.over(child, end if unready else None)
        owner.gpus.freed()

    def _attempt(self, child: Child) -> int:
        """Which start it was since one of its pool and role was last ready."""
        kind = (child.pool, child.role)
        if any(c.phase is Phase.READY and (c.pool, c.role) == kind for c in self.owner.children.values()):
            return 1
        before = (seen for seen in reversed(self._ended.values()) if (seen.pool, seen.role) == kind)
        return 1 + sum(1 for _ in takewhile(lambda seen: not seen.timings_ms, before))

    def _remember(self, seen: ReplicaSeen) -> ReplicaSeen:
        self._ended[seen.replica] = seen
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)
        return seen

    def _clean(self, child: Child, exit: Exit | None) -> list[str]:
        """Take away what was made for its process; returns the last lines it wrote."""
        owner = self.owner
        tail: list[str] = []
        if child.pid is not None:
            processes.kill_session(child.pid)
            owner.by_pid.pop(child.pid, None)
        if child.log is not None:
            child.log.close()
            tail = child.log.last_words()
        else:
            # Of one that was taken over, before it was known which secrets it may have printed: nobody may read it.
            (owner.home.replica_records / f"{child.id}.log").unlink(missing_ok=True)
        owner.measure(child, exit)
        if child.pidfd is not None:
            asyncio.get_running_loop().remove_reader(child.pidfd)
            os.close(child.pidfd)
        if child.link is not None:
            child.link.close()
        if child.group is not None:
            self.discard(child.group)
        owner.home.replica_socket(child.id).unlink(missing_ok=True)
        owner.confiding.forget(child.id)
        records.remove(owner.home.replica_records, child.id)
        child.pid = child.pidfd = child.link = child.log = child.group = None
        return tail


def say_drain(child: Child, reason: str) -> None:
    """Tell it to finish what it has; one that cannot be told is told when it is heard again."""
    if child.link is not None:
        with suppress(OSError):
            soon = reason in SOON
            child.link.send(Drain(reason, soon))
            if soon and child.seat is not None:
                child.terminate()


def _remove(group: Group) -> bool:
    return group.kill() and group.remove()
