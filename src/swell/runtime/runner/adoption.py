"""How does a runner take over what the one before it left? By its records, and by who connects."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from swell.runtime.runner import meter, records
from swell.runtime.runner.child_link import ChildLink
from swell.runtime.runner.children import Child
from swell.runtime.runner.fleet import Fleet
from swell.runtime.runner.meter import Meter
from swell.runtime.runner.records import Record
from swell.wire.child import Drain, Forget, KeptCall, Reattach, Up
from swell.wire.identity import open_pidfd

log = logging.getLogger("swell.runner")

BACK_S = 1.0
"""Who lives comes back within a twentieth of that, unless its code blocks it."""
STRANGERS_MAX = 32
"""Connections that have not said who they are, of processes that are not known. Who is closed for it comes again."""
INTRODUCE_S = 10.0
"""Within that a connection says who it is. It does so as soon as it is made."""
REATTACH_MAX = 4 * 1024 * 1024
"""Bytes of what it says then: more than a `Reattach` has with all the queued calls that a replica keeps."""
_SAID_MAX = 200
"""Characters that are logged of what one said that is not ours."""
_ACCEPT_AGAIN_S = 1.0
"""Where no connection can be taken, for want of descriptors."""


def adopt(fleet: Fleet) -> None:
    """Take over every recorded process that still lives, and remove what is left of the others."""
    for record in records.read_all(fleet.home.replica_records):
        pidfd = open_pidfd(record.pid)
        # Asked after the pidfd was opened: from here on it is this very process, or none.
        if record.process.alive:
            _take_over(fleet, record, pidfd)
        elif pidfd is not None:
            os.close(pidfd)
    _sweep(fleet)


def _take_over(fleet: Fleet, record: Record, pidfd: int | None) -> None:
    child = Child(
        record.replica, record.pool, record.role, record.template, record.startup_timeout_s, record.ordered_at
    )
    child.ordered_monotonic_s = child.begun_monotonic_s = record.ordered_monotonic_s
    child.pid = record.pid
    child.address = record.address
    child.applied = record.applied
    child.uses = record.uses
    child.fork_refused = record.fork_refused
    child.isolated = record.isolated
    child.seat = record.seat
    child.gpus = record.gpus
    child.meeting = record.meeting
    child.secrets = record.secrets
    child.mounts = record.mounts
    child.behind = record.behind
    child.snapped = record.snapped
    child.max_inputs = record.max_inputs
    child.group = fleet.groups.open(record.group)
    child.awaited = True
    used_s = meter.cpu_s(child.group, child.pid, child.role)
    child.meter = Meter(child.id, child.pool, child.role, time.time(), used_s)
    fleet.children[child.id] = child
    fleet.by_pid[record.pid] = child
    fleet.watch(child, pidfd, ours=False)
    if not child.secrets:
        # Else it is read once control has said what must not be seen in it.
        fleet.open_log(child)
    fleet.unheard(child)
    log.info("took over %s (pid %d)", child.id, record.pid)


def _sweep(fleet: Fleet) -> None:
    """Remove groups (with whatever runs in them), sockets, pipes and records that belong to nobody."""
    groups = {child.group_name for child in fleet.children.values()}
    for name in fleet.groups.names() - groups:
        fleet.endings.discard(fleet.groups.open(name))
    for folder in (fleet.home.replica_sockets, fleet.home.replica_records):
        for path in folder.iterdir():
            if path.name.partition(".")[0] not in fleet.children:
                path.unlink(missing_ok=True)
    fleet.confiding.sweep(fleet.children)
    fleet.mounting.sweep()


def _is(child: Child, message: Reattach, link: ChildLink) -> bool:
    """Is it the process that connected? The kernel tells; in a sandbox that alone counts, since pids differ there."""
    peer = link.peer_pid()
    return peer == child.pid if child.isolated else {message.pid, peer or message.pid} == {child.pid}


class Arrivals:
    """Listens on `run/back/runner.sock` for children whose channel broke with the runner before."""

    def __init__(self, fleet: Fleet, returned: Callable[[str, tuple[KeptCall, ...] | None], None]) -> None:
        """`returned` is told who came back, with which queued calls."""
        self.fleet = fleet
        self._returned = returned
        self._came = asyncio.Event()
        self._silent: dict[ChildLink, asyncio.TimerHandle] = {}
        """Who has not said who it is, and when it is hung up on for that; the oldest first."""
        self._paused: asyncio.TimerHandle | None = None
        path = fleet.home.runner_socket
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        # Its folder's parent is for the owner only; in a sandbox, which sees the folder, it is for nobody, too.
        path.chmod(0o666)
        self._listening.listen(1024)
        self._listening.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    async def all_back(self) -> None:
        """Once all that were taken over have come back, or so much time has passed. Before that it is not known who of
        them is ready; a control that is as new would have gateways hold the requests of those that are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BACK_S):
                while any(child.awaited for child in self.fleet.children.values()):
                    self._came.clear()
                    await self._came.wait()

    def close(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
        for link in list(self._silent):
            self._hang_up(link)
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self.fleet.home.runner_socket.unlink(missing_ok=True)

    def _listen(self) -> None:
        self._paused = None
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            log.warning("nobody can connect to the runner for now: %s", error.strerror)
            loop.remove_reader(self._listening.fileno())
            self._paused = loop.call_later(_ACCEPT_AGAIN_S, self._listen)
            return
        link = ChildLink(connection, REATTACH_MAX)
        link.heard = lambda message, _fds: self._introduced(link, message)
        link.ended = lambda: self._hang_up(link)
        self._make_room(link)
        self._silent[link] = loop.call_later(INTRODUCE_S, self._hang_up, link)

    def _make_room(self, link: ChildLink) -> None:
        """A sandbox's processes, which are not trusted, can connect as well, as often as they like: of a process of
        ours its newest connection counts, and of all others so many."""
        pid = link.peer_pid()
        if pid in self.fleet.by_pid:
            rivals, most = [other for other in self._silent if other.peer_pid() == pid], 1
        else:
            rivals, most = [other for other in self._silent if other.peer_pid() not in self.fleet.by_pid], STRANGERS_MAX
        for other in rivals[: max(0, len(rivals) + 1 - most)]:
            self._hang_up(other)

    def _hang_up(self, link: ChildLink) -> None:
        self._silent.pop(link).cancel()
        link.close()

    def _introduced(self, link: ChildLink, message: Up) -> None:
        """The first message must say who it is; one that is not ours is told to end."""
        if link not in self._silent:
            return  # It was told so, and had said more.
        self._silent.pop(link).cancel()
        child = self.fleet.children.get(message.replica) if isinstance(message, Reattach) else None
        if child is not None and child.link is not None:
            # What it said before it came back is heard first.
            child.link.drain()
        if not isinstance(message, Reattach) or child is None or not _is(child, message, link):
            log.warning("process %s is none of this runner's: %s", link.peer_pid(), str(message)[:_SAID_MAX])
            # Said, not only hung up on: a broken channel alone means that the runner died, and is come back to.
            kept = (message.kept or ()) if isinstance(message, Reattach) else ()
            with suppress(OSError):
                # Nor does anybody know of its queued calls: it must not wait for who would ask for them.
                if kept:
                    link.send(Forget(tuple((call.id, call.token) for call in kept)))
                link.send(Drain(reason="the runner did not adopt this replica"))
            link.close()
            return
        if child.link is not None:
            child.link.close()
        link.trust()
        child.keeps = message.kept is not None
        self.fleet.returned(child, link, message.ready, message.port)
        if message.closed:
            self.fleet.endings.closed(child, message.closed)
        self._returned(child.id, message.kept)
        self._came.set()
