"""What owns the processes of one node? The runner: it obeys control, and outlives it.

`python -m swell.runtime.runner --settings JSON`. It ends on SIGTERM, or `orphan_s` after its supervisor did,
and leaves nothing behind; killed outright, it leaves its children to the next runner of the same home.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.model.errors import SwellError
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.metrics import NODE_CORES, NODE_MEMORY, Sample
from swell.model.node import Node
from swell.model.orders import Inventory
from swell.model.replica import Phase
from swell.model.request import Usage
from swell.runtime.limits import refuse_core_dumps, take_descriptors
from swell.runtime.runner import adoption, capacity, cgroup, checkpoints, departure, gpus, numbers
from swell.runtime.runner.adoption import Arrivals
from swell.runtime.runner.builds import Builder, made_for
from swell.runtime.runner.cache import Cache, remove
from swell.runtime.runner.ending import ENDED_KEPT
from swell.runtime.runner.environment import digest
from swell.runtime.runner.fleet import Fleet
from swell.runtime.runner.link import RunnerLink
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.queued.calls import HOLDING_S, QueuedCalls
from swell.runtime.runner.sandbox.maker import Sandboxes
from swell.runtime.runner.secrets import Confiding, SecretBook, files_folder
from swell.runtime.runner.spool import Spool
from swell.runtime.runner.volumes.mounting import Mounting
from swell.wire import link as wire
from swell.wire.calls import AskKept, EndedHeard, Grant, NotKept, Resume, Revoke
from swell.wire.exposition import report
from swell.wire.identity import adopt_orphans
from swell.wire.paths import Home
from swell.wire.process import process_samples
from swell.wire.settings import Settings

log = logging.getLogger("swell.runner")

TICK_S = 1.0
COLLECT_FIRST_S = 60.0
COLLECT_S = 3600.0
INVENTORY_S = 5.0
BOUND_S = 5.0
"""Pause between looks at what sandboxes wrote to volumes."""
GPUS_WAIT_S = 8.0
"""Until control hears of this node, whether or not its driver has told of its GPUs. Less than a node may be silent."""
READY_WAIT_S = 5.0
_LOCK_PAUSE_S = 0.05


class Runner:
    """Wires the fleet to the link, and says once a second what was used."""

    def __init__(self, settings: Settings, node: str) -> None:
        self.settings = settings
        self.home = home = settings.paths
        self.node = node
        self.epoch = 0
        self._leaving_at = departure.leaving_at(self.home.leaving)
        self.cache = Cache(home, settings.cache_days, settings.cache_max_gib)
        self.link = RunnerLink(home.control_socket, self._heard, lambda: self.calls.lost())
        self.reaper = Reaper(lambda pid, exit: self.fleet.endings.reaped(pid, exit))
        self.spool = Spool(home.logs, settings.log_max_mib * 2**20)
        home.replica_groups.touch()
        self.groups = cgroup.find(cgroup.name_for(home.root))
        self.sandboxes = Sandboxes(home, self.groups)
        book = SecretBook()
        self.confiding = Confiding(book, files_folder(home.root), lambda: "mount" in self.sandboxes.layers)
        self.builder = Builder(home, self.reaper, os.environ, self.sandboxes, book)
        self.mounting = Mounting(home, self.link.send)
        parts = (self.groups, self.sandboxes, self.builder, self.spool, self.confiding, self.mounting)
        self.fleet = Fleet(settings, node, *parts, self._tell, self._use)
        self.builder.unseen = self.fleet.gpus.unseen
        self.calls = QueuedCalls(home, lambda: self.fleet.children, self.link.send)
        self.calls.leaves(self._leaving_at is not None)
        self.fleet.reported = lambda child, said: self.calls.reported(child.id, said.reports, child.redact)
        self._untold: deque[ReplicaSeen] = deque(maxlen=ENDED_KEPT)
        """Ends that nobody heard: said again when control is back, since no inventory says why one ended."""
        self._used: dict[str, Usage] = {}
        self._welcomed = asyncio.Event()
        self._ending = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- to control --------------------------------------------------------------------------

    def _tell(self, seen: ReplicaSeen) -> None:
        self.calls.seen(seen)
        if not self.link.send(wire.RunnerReplica(seen)) and seen.phase is Phase.GONE:
            self._untold.append(seen)

    def _use(self, usage: Usage) -> None:
        before = self._used.get(usage.replica)
        self._used[usage.replica] = before.plus(usage) if before is not None else usage

    def _tell_usage(self) -> None:
        """What was used since the last report; kept, and added to, while nobody listens."""
        if self._used and self.link.send(wire.UsageReport(tuple(self._used.values()))):
            self._used.clear()

    def _tell_node(self) -> None:
        self.link.send(wire.RunnerNode(NodeSeen(at=time.time(), node=self._node())))

    def _tell_all(self) -> None:
        self._tell_node()
        # Before it hears of replicas that ended: what came of their calls.
        self.calls.welcomed()
        while self._untold and self.link.send(wire.RunnerReplica(self._untold[0])):
            self._untold.popleft()
        self._tell_inventory()

    def _tell_inventory(self) -> None:
        self.link.send(
            wire.RunnerInventory(
                Inventory(node=self.node, at=time.time(), epoch=self.epoch, replicas=self.fleet.inventory())
            )
        )

    async def _find_gpus(self) -> None:
        self.fleet.gpus.are(await gpus.find(self.settings.gpus, self.reaper, os.environ))
        self.builder.unseen = self.fleet.gpus.unseen
        self._tell_node()

    def _node(self) -> Node:
        return Node(
            id=self.node,
            cpu=float(capacity.cores()),
            memory_mib=capacity.memory_mib(),
            cpu_overcommit=self.settings.cpu_overcommit,
            spot=self.settings.spot,
            leaving_at=self._leaving_at,
            gpus=self.fleet.gpus.found,
            lacks=(*self.sandboxes.lacks.items(), *([("volumes", why)] if (why := self.mounting.lacks) else [])),
        )

    # -- from control ------------------------------------------------------------------------

    def _heard(self, message: wire.Down) -> None:
        match message:
            case wire.Welcome():
                self._accept_epoch(message.epoch)
                self.mounting.lost()
                self._tell_all()
                self._welcomed.set()
            case wire.Order():
                # One that ends obeys no more: it would be given new replicas for those it stops.
                if self._accept_epoch(message.epoch) and not self._ending:
                    self.fleet.obey(message.order)
            case wire.Secrets():
                if self._accept_epoch(message.epoch):
                    self.fleet.hear_secrets(message)
            case wire.Volumes():
                if self._accept_epoch(message.epoch):
                    self.fleet.hear_volumes(message)
            case wire.VolumeCommitted():
                self.mounting.answered(message)
            case Grant():
                if self._accept_epoch(message.epoch):
                    self.calls.granted(message)
            case Resume():
                if self._accept_epoch(message.epoch):
                    self.calls.resumed(message)
            case Revoke():
                self.calls.revoked(message)
            case EndedHeard():
                self.calls.heard(message)
            case NotKept():
                self._do(asyncio.to_thread(checkpoints.remove, self.home.checkpoints, message.calls))
            case wire.Build():
                self._do(self._build(message))
            case wire.TellMetrics():
                self._do(self._tell_metrics(message.ask))
            case wire.Wanted():
                self._do(self.cache.collect(lambda: self._held(message)))

    def _do(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """In the background, until it is done or the runner ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept_epoch(self, epoch: int) -> bool:
        if epoch < self.epoch:
            log.warning("an order of epoch %d is refused: epoch %d has been seen", epoch, self.epoch)
            return False
        self.epoch = epoch
        return True

    def _held(self, wanted: wire.Wanted) -> Iterator[Path]:
        """Folders in the cache that something is made from, now or at its next start."""
        yield from (self.home.bundles / bundle for bundle in wanted.bundles)
        yield from (self.home.environments / digest(environment) for environment in wanted.environments)
        for child in self.fleet.children.values():
            yield from map(Path, child.uses)
        for revision in self.builder.building:
            yield from made_for(revision.environment, revision.bundle, self.home)

    async def _build(self, message: wire.Build) -> None:
        def progress(line: str) -> None:
            self.link.send(wire.Progress(message.ask, line))

        report = await self.builder.build(message.revision, progress)
        self.link.send(wire.Built(message.ask, report))

    async def _tell_metrics(self, ask: int) -> None:
        self.link.send(wire.MetricsTold(ask, await report("runner", self.node, self._metrics())))

    def _metrics(self) -> Iterator[Sample]:
        children = ((child.pool, child.role, child.memory_mib) for child in self.fleet.children.values())
        yield from numbers.memory(children, self.node, self.settings.metrics_pools_max)
        node = self._node()
        yield Sample(NODE_CORES, (self.node,), node.cpu)
        yield Sample(NODE_MEMORY, (self.node,), node.memory_mib * 2**20)
        yield from process_samples("runner", self.node)

    # -- life --------------------------------------------------------------------------------

    async def run(
        self,
        supervisor_fd: int | None,
        inventory_s: float,
        collect_first_s: float,
        gpus_wait_s: float,
        ready_fd: int | None = None,
    ) -> None:
        """Until told to end. Once it obeys, it says so on `ready_fd`."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        supervision = Supervision(supervisor_fd, self.settings.orphan_s, ending)
        # A runner that starts while this one is an orphan asks it to leave its children to it.
        loop.add_signal_handler(signal.SIGUSR1, supervision.give_way)
        await self._only_one()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        adopt_orphans()
        self._do(remove(self.cache.remains()))
        self.sandboxes.probe()
        self.mounting.probe()
        self.reaper.start()
        # Meanwhile what was left behind is taken over, which would not wait for long.
        finding = self._do(self._find_gpus())
        adoption.adopt(self.fleet)
        self.calls.read()
        arrivals = Arrivals(self.fleet, self.calls.returned)
        await arrivals.all_back()
        # Of a driver that takes longer is told later: what runs here would count as lost meanwhile.
        await asyncio.wait([finding], timeout=gpus_wait_s)
        self.link.start()
        # Also while replicas drain: leases of what still runs go on.
        holding = loop.create_task(every(HOLDING_S, self.calls.hold))
        self._do(self._say_ready(ready_fd))
        self._do(every(TICK_S, self._tick))
        self._do(every(inventory_s, self._tell_inventory))
        self._do(every(COLLECT_S, self._collect, first_s=collect_first_s))
        self._do(self._bound_volumes())
        try:
            await ending.wait()
        finally:
            self._ending = True
            for task in list(self._tasks):
                task.cancel()
            await self.fleet.endings.stop_all("shutdown", self.settings.policy.stop_grace_s)
            await self.mounting.close()
            await self.calls.close()
            holding.cancel()
            self._tell_usage()
            arrivals.close()
            await self.link.close()
            self.spool.close()
            self.groups.remove()
            self.confiding.close()
            self.home.replica_groups.unlink(missing_ok=True)

    async def _say_ready(self, descriptor: int | None) -> None:
        """Once control was found, so that a deploy finds a runner; without control, after a while all the same."""
        if descriptor is None:
            return
        os.set_inheritable(descriptor, False)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._welcomed.wait(), READY_WAIT_S)
        os.write(descriptor, b"ready\n")
        os.close(descriptor)

    def _tick(self) -> None:
        leaving_at = departure.leaving_at(self.home.leaving)
        if leaving_at != self._leaving_at:
            self._leaving_at = leaving_at
            self._tell_node()
            self.calls.leaves(leaving_at is not None)
        departure.tell(self.fleet.children.values(), leaving_at is not None)
        self.fleet.tick()
        self.calls.tick()
        self._tell_usage()

    async def _bound_volumes(self) -> None:
        while True:
            begun = time.monotonic()
            await self.mounting.bound(self.settings.sandbox_volume_bytes_max)
            # Where there is much to look at, the more rarely.
            await asyncio.sleep(max(BOUND_S, 20 * (time.monotonic() - begun)))

    def _collect(self) -> None:
        """Old logs go, and of the cache what is not wanted. Without control nobody knows that, and nothing does."""
        self.spool.forget(time.time() - self.settings.history_days * 86400.0)
        self.link.send(wire.AskWanted())
        for calls in checkpoints.asked(self.home.checkpoints):
            self.link.send(AskKept(calls))

    async def _only_one(self) -> None:
        """Hold the lock of this home's runner; ask one whose supervisor is gone to make room."""
        path = self.home.run / "runner.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # First the pause: a holder that just took the lock has yet to write its own pid.
                await asyncio.sleep(_LOCK_PAUSE_S)
                holder = os.pread(descriptor, 32, 0)
                if holder.isdigit():
                    with suppress(ProcessLookupError):
                        os.kill(int(holder), signal.SIGUSR1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


async def every(seconds: float, do: Callable[[], None], first_s: float | None = None) -> None:
    """Again and again, the first time after `first_s`; what goes wrong once is logged and does not end it."""
    await asyncio.sleep(seconds if first_s is None else first_s)
    while True:
        try:
            do()
        except Exception:
            log.exception("a periodic task failed")
        await asyncio.sleep(seconds)


class Supervision:
    """Whether the supervisor lives: its end of a pipe is open for as long."""

    def __init__(self, descriptor: int | None, orphan_s: float, ending: asyncio.Event) -> None:
        self.descriptor = descriptor
        self.orphan_s = orphan_s
        self.ending = ending
        self.orphaned = False
        if descriptor is not None:
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            asyncio.get_running_loop().add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        assert self.descriptor is not None
        if os.read(self.descriptor, 1024):
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.descriptor)
        self.orphaned = True
        log.warning("the supervisor is gone; everything ends in %g s", self.orphan_s)
        loop.call_later(self.orphan_s, self.ending.set)

    def give_way(self) -> None:
        """Leave at once, as if killed: what runs is adopted by the runner that asks."""
        if self.orphaned:
            os._exit(0)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="swell.runtime.runner", description="Owns the processes of one node.")
    parser.add_argument("--settings", required=True, help="all settings as JSON")
    parser.add_argument("--node", default="local", help="name of this node")
    parser.add_argument("--inventory-s", type=float, default=INVENTORY_S, help="time between full inventories")
    parser.add_argument("--collect-first-s", type=float, default=COLLECT_FIRST_S, help="until the cache is looked at")
    parser.add_argument("--gpus-wait-s", type=float, default=GPUS_WAIT_S, help="how long a driver is waited for")
    parser.add_argument("--ready-fd", type=int, default=None, help='where to write "ready" to, once')
    parser.add_argument("--supervisor-fd", type=int, default=None, help="a pipe that ends when the supervisor does")
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = msgspec.json.decode(given.settings, type=Settings)
    try:
        settings.paths.check_socket_length()
        make_folders(settings.paths)
    except (SwellError, OSError) as error:
        log.error("%s", error)
        return 1
    take_descriptors()
    refuse_core_dumps()
    runner = Runner(settings, given.node)
    times_s = (given.inventory_s, given.collect_first_s, given.gpus_wait_s)
    asyncio.run(runner.run(given.supervisor_fd, *times_s, given.ready_fd))
    return 0


def make_folders(home: Home) -> None:
    """The folders a runner writes to; sockets' folder for the owner only."""
    for folder in (home.run, home.replica_sockets, home.replica_records, home.call_ends):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    for folder in (home.back, home.empty):
        # Within one for the owner only. In a sandbox the first is seen by nobody.
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    for folder in (home.environments, home.bundles, home.logs):
        folder.mkdir(parents=True, exist_ok=True)
