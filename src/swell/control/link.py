"""How does control speak with its gateways and runners? Accepts them on `run/control.sock`.

One connection per peer, frames of `wire.link`. A gateway is sent the whole table when it says hello
and deltas afterwards; a runner is welcomed with this control's epoch and then ordered. What runners
say of replicas goes to their engine, all else that peers say to a `Listener`, in the order it arrives,
on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import Protocol, cast

from swell.control.loads import Loads
from swell.control.scrapes import Scrapes
from swell.control.submits import Submits
from swell.model.errors import SwellError
from swell.model.metrics import Sample
from swell.model.orders import BuildReport, Order, StartOrder
from swell.model.ports import Fact
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.secret import Revealed, SecretUse
from swell.model.variant import Value
from swell.model.volume import Change, Volume, VolumeState, VolumeUse
from swell.model.workload import Revision, Variant
from swell.wire import calls
from swell.wire import link as wire
from swell.wire.frames import Unpacker, pack

log = logging.getLogger("swell.control")

SILENT_S = 7.5
"""A runner of which nothing was read for this long stands still, as far as is known: it says more often what runs."""
OPEN_AFTER_S = 5.0
"""Gateways are told the table once a runner said what runs; if none does, after this long all the same."""


class Listener(Protocol):
    """What control does with what it hears."""

    def table(self) -> wire.Table: ...

    def heard_demand(self, gateway: str, levels: Sequence[wire.Level], ttl_s: float) -> None: ...

    def heard_nothing_new(self, gateway: str, levels: int) -> bool:
        """False: other levels are known than the gateway told."""
        ...

    def elsewhere(self, pool: str, gateway: str) -> tuple[tuple[str, int], ...]:
        """What others than this gateway have in flight, by replica."""
        ...

    def loaded(self) -> Collection[str]:
        """Pools that any gateway has something of."""
        ...

    def heard_requests(
        self, records: Sequence[RequestRecord], counts: Sequence[PoolCount], by_key: Sequence[KeyCount]
    ) -> None: ...

    def heard_usage(self, rows: Sequence[Usage]) -> None: ...

    def count_gateways(self, connected: int) -> wire.TableDelta | None:
        """What those that are connected must know of their number."""
        ...

    def heard_variant_wanted(self, workload: str, parameters: tuple[Value, ...], by: str) -> None:
        """Have it in the table. SwellError where it is not to be had."""
        ...

    def gateway_left(self, gateway: str) -> None: ...

    def runner_left(self, node: str) -> None: ...

    def metrics(self) -> Sequence[Sample]:
        """Control's own numbers."""
        ...

    def nodes(self) -> Iterable[str]:
        """Those that are known, connected or not."""
        ...

    def wanted(self) -> Iterable[Revision]:
        """The revisions that are deployed, or still run."""
        ...


class Confidant(Protocol):
    """Who knows the values of secrets."""

    def reveal(self, uses: Iterable[SecretUse]) -> tuple[Revealed, ...]: ...

    publish: Callable[[tuple[Revealed, ...]], None]
    """Called with those that changed."""

    def all_used(self) -> tuple[Revealed, ...]:
        """Those of all that is deployed or still runs."""
        ...


class Librarian(Protocol):
    """Who knows what is in which volume."""

    publish: Callable[[tuple[VolumeState, ...]], None]
    """Called with those that changed."""

    def states(self, uses: Iterable[VolumeUse]) -> tuple[VolumeState, ...]: ...

    def all_used(self) -> tuple[VolumeState, ...]:
        """Those of all that is deployed or still runs."""
        ...

    async def commit(self, id: str, change: Change, by: str, commit: str) -> Volume:
        """What a replica of the pool `by` changed, whose contents are here."""
        ...


class Queue(Protocol):
    """The durable queue."""

    async def accept(self, new: calls.NewCall) -> str:
        """The id of the call, once it is on disk. SwellError where it is not accepted."""
        ...

    async def accept_all(self, new: calls.NewCall) -> tuple[str, ...]:
        """The same of several."""
        ...

    def kept(self, ids: Sequence[str], /) -> Collection[str]:
        """Which of these calls are kept, by the store: asked in a thread."""
        ...

    def heard_ends(self, node: str, ends: Iterable[calls.CallEnd]) -> None: ...

    def heard_holding(self, node: str, leases: Sequence[calls.Lease], running: Iterable[calls.Running]) -> None: ...

    def welcomed(self, node: str) -> None:
        """A runner connected and said what runs."""
        ...

    def roomy(self) -> None:
        """A runner takes calls again."""
        ...


class ControlLink:
    """The listening end of the control link."""

    only_one = True
    """The supervisor starts one runner."""

    def __init__(
        self,
        epoch: int,
        listener: Listener,
        hear: Callable[[Fact], None],
        secrets: Confidant | None = None,
        volumes: Librarian | None = None,
    ) -> None:
        """`hear` takes what runners say: the inlet of the engine that stands for them."""
        self.epoch = epoch
        self.secrets = secrets
        if secrets is not None:
            secrets.publish = self.tell_secrets
        self.volumes = volumes
        if volumes is not None:
            volumes.publish = self.tell_volumes
        self._tasks: set[asyncio.Task[None]] = set()
        self.listener = listener
        self.hear = hear
        self.gateways: dict[str, Peer] = {}
        self.runners: dict[str, Peer] = {}
        self.asks: dict[int, tuple[asyncio.Future[BuildReport], Callable[[str], None]]] = {}
        self.scrapes = Scrapes(self)
        self.loads = Loads(listener, self.gateways)
        self.queue: Queue | None = None
        self.events: Callable[[calls.NewEvent], Awaitable[str | tuple[str, ...]]] | None = None
        """Takes those that were posted; the id of its call, once that is on disk."""
        self.submits = Submits()
        self.opened = False
        """Gateways are told the table. A control that just began knows of no replica: until runners have said
        what they have, a gateway goes on with the table it got from the control before."""
        self._numbers = itertools.count(1)
        self._opening: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Start accepting; returns at once."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Peer(self), sock=listening)
        self._opening = loop.call_later(OPEN_AFTER_S, self.open)

    def open(self) -> None:
        """Tell gateways the table from now on, and those that wait for it at once."""
        if self.opened:
            return
        self.opened = True
        for peer in self.gateways.values():
            peer.write(pack(self.listener.table()))

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._server is not None:
            self._server.close()
        self.scrapes.close()
        self.loads.close()
        self.submits.close()
        for peer in [*self.gateways.values(), *self.runners.values()]:
            peer.close()

    def publish(self, delta: wire.TableDelta) -> None:
        """To every gateway."""
        if self.gateways and self.opened:
            frame = pack(delta)
            for peer in self.gateways.values():
                peer.write(frame)

    def tell_end(self, replica: str, why: str) -> None:
        """To every gateway: what ended a replica."""
        for peer in self.gateways.values():
            peer.write(pack(wire.ReplicaEnded(replica, why)))

    def count_gateways(self, connected: int) -> None:
        """One more is about to be connected, or one less is."""
        delta = self.listener.count_gateways(connected)
        if delta is not None:
            self.publish(delta)

    def order(self, order: Order, epoch: int, node: str) -> None:
        """To the node's runner, if it is connected; `drive` repeats what was not heard."""
        peer = self.runners.get(node)
        if peer is not None:
            if isinstance(order, StartOrder):
                self._confide(peer, order.revision)
                if order.revision.volumes and self.volumes is not None:
                    peer.write(pack(wire.Volumes(self.epoch, self.volumes.states(order.revision.volumes))))
            peer.write(pack(wire.Order(epoch=epoch, order=order)))

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        """Ask a runner to build a revision; `progress` gets its lines."""
        if not self.runners:
            raise SwellError("no_runner", "No runner is connected yet, so nothing can be built. Try again.", status=503)
        ask = next(self._numbers)
        future: asyncio.Future[BuildReport] = asyncio.get_running_loop().create_future()
        self.asks[ask] = (future, progress)
        runner = next(iter(self.runners.values()))
        self._confide(runner, revision)
        runner.write(pack(wire.Build(ask=ask, revision=revision)))
        try:
            return await future
        finally:
            del self.asks[ask]

    def _confide(self, runner: Peer, revision: Revision) -> None:
        """A runner has the values of what it is to start."""
        if revision.secret_uses and self.secrets is not None:
            runner.write(pack(wire.Secrets(self.epoch, self.secrets.reveal(revision.secret_uses))))

    def tell_secrets(self, changed: tuple[Revealed, ...]) -> None:
        """To every runner."""
        for peer in self.runners.values():
            peer.write(pack(wire.Secrets(self.epoch, changed)))

    def tell_volumes(self, changed: tuple[VolumeState, ...]) -> None:
        """To every runner."""
        for peer in self.runners.values():
            peer.write(pack(wire.Volumes(self.epoch, changed)))

    def commit_volume(self, asked: wire.CommitVolume, runner: Peer) -> None:
        """In the background, and told to the runner when it is done."""
        self.begin(self._commit(asked, runner))

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """In the background, until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _commit(self, asked: wire.CommitVolume, runner: Peer) -> None:
        assert self.volumes is not None
        try:
            made = await self.volumes.commit(asked.volume, asked.change, asked.by, asked.id)
            answer = wire.VolumeCommitted(asked.ask, made.version)
        except SwellError as error:
            answer = wire.VolumeCommitted(asked.ask, 0, error.code, error.message)
        except Exception:
            log.exception("a commit to the volume %s went wrong", asked.volume)
            answer = wire.VolumeCommitted(asked.ask, 0, "internal", "The server made a mistake; its log says which.")
        runner.write(pack(answer))

    def send(self, node: str, frame: calls.Down) -> bool:
        """To the runner of a node; False where it is not connected."""
        peer = self.runners.get(node)
        if peer is None:
            return False
        peer.write(pack(frame))
        return True

    def takes_calls(self, node: str) -> bool:
        """Is its runner there, did it say what runs, does it go on speaking, and read what it is sent?"""
        peer = self.runners.get(node)
        return peer is not None and peer.told_all and not (peer.behind or peer.is_silent)

    def cut(self, node: str) -> None:
        """End the connection to its runner, where there is one."""
        peer = self.runners.get(node)
        if peer is not None:
            log.warning("the runner of %s does not say what it was given; the link to it is cut", node)
            peer.abort()

    def fail_asks(self, why: str) -> None:
        for future, _ in self.asks.values():
            if not future.done():
                future.set_exception(SwellError("runner_lost", why, status=503))


class Peer(asyncio.Protocol):
    """One gateway's or runner's connection."""

    def __init__(self, link: ControlLink) -> None:
        self.link = link
        self.unpacker: Unpacker[wire.Up] = Unpacker(wire.Up)
        self.role = ""
        self.name = ""
        self.told_all = False
        """A runner: an inventory was heard on this connection."""
        self.behind = False
        """It does not read as fast as it is written to."""
        self._heard_at = time.monotonic()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop has transports of its own.
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.behind = True

    def resume_writing(self) -> None:
        self.behind = False
        self._roomy()

    def _roomy(self) -> None:
        """A runner takes calls again."""
        if self.role == "runner" and self.link.queue is not None:
            self.link.queue.roomy()

    @property
    def is_silent(self) -> bool:
        return time.monotonic() - self._heard_at > SILENT_S

    def write(self, frame: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame)
            if self.transport.get_write_buffer_size() > wire.UNSENT_MAX:
                log.warning("a %s does not read what it is sent; the link to it is cut", self.role or "peer")
                self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Whatever was not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        was_silent, self._heard_at = self.is_silent, time.monotonic()
        try:
            for message in self.unpacker.feed(data):
                self._heard(message)
            if was_silent:
                self._roomy()
        except Exception:
            log.exception("a %s on the control link sent what cannot be used; it is cut off", self.role or "peer")
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        link = self.link
        if self.role == "gateway" and link.gateways.get(self.name) is self:
            del link.gateways[self.name]
            link.count_gateways(len(link.gateways))
            link.listener.gateway_left(self.name)
        if self.role == "runner" and link.runners.get(self.name) is self:
            del link.runners[self.name]
            link.fail_asks("The runner went away while it built; deploy again.")
            link.listener.runner_left(self.name)

    def _heard(self, message: wire.Up) -> None:
        listener = self.link.listener
        match message:
            case wire.DemandReport():
                listener.heard_demand(self.name, message.levels, message.ttl_s)
            case wire.RunnerReplica():
                self.link.hear(message.seen)
            case wire.RunnerInventory():
                self.link.hear(message.inventory)
                self._told_all()
            case wire.RunnerNode():
                self.name = message.seen.node.id
                self.link.runners[self.name] = self
                if self.link.secrets is not None:
                    self.write(pack(wire.Secrets(self.link.epoch, self.link.secrets.all_used(), whole=True)))
                if self.link.volumes is not None:
                    self.write(pack(wire.Volumes(self.link.epoch, self.link.volumes.all_used(), whole=True)))
                self.link.hear(message.seen)
            case wire.CommitVolume():
                self.link.commit_volume(message, self)
            case wire.KeepAlive():
                if not listener.heard_nothing_new(self.name, message.levels):
                    self.write(pack(wire.TellAll()))
            case wire.Requests():
                listener.heard_requests(message.records, message.counts, message.by_key)
            case wire.UsageReport():
                listener.heard_usage(message.rows)
            case wire.AskVariant():
                self._variant_wanted(message)
            case wire.AskMetrics():
                self.link.scrapes.begin(self, message)
            case wire.MetricsTold():
                self.link.scrapes.told(message)
            case wire.AskWanted():
                wanted = tuple(listener.wanted())
                environments = {revision.environment for revision in wanted if revision.environment.is_built}
                bundles = {revision.bundle for revision in wanted}
                self.write(pack(wire.Wanted(tuple(environments), tuple(bundles))))
            case calls.AskKept() if self.link.queue is not None:
                self.link.begin(self._tell_kept(message.calls, self.link.queue.kept))
            case wire.Progress():
                if message.ask in self.link.asks:
                    self.link.asks[message.ask][1](message.text)
            case wire.Built():
                if message.ask in self.link.asks and not self.link.asks[message.ask][0].done():
                    self.link.asks[message.ask][0].set_result(message.report)
            case wire.Hello():
                self._hello(message)
            case _ if self.link.queue is not None:
                self._heard_of_calls(message, self.link.queue)

    async def _tell_kept(self, asked: Sequence[str], kept: Callable[[Sequence[str]], Collection[str]]) -> None:
        try:
            there = await asyncio.to_thread(kept, asked)
        except Exception:
            log.exception("which calls are kept could not be read")
            return
        self.write(pack(calls.NotKept(tuple(id for id in asked if id not in there))))

    def _heard_of_calls(self, message: wire.Up, queue: Queue) -> None:
        match message:
            case calls.Submit():
                accept = queue.accept if message.call.many is None else queue.accept_all
                self.link.submits.begin(partial(accept, message.call), message.ask, self)
            case calls.SubmitEvent() if self.link.events is not None:
                self.link.submits.begin(partial(self.link.events, message.event), message.ask, self)
            case calls.Ended():
                queue.heard_ends(self.name, message.calls)
            case calls.Holding():
                queue.heard_holding(self.name, message.calls, message.running)

    def _told_all(self) -> None:
        """Only now it is known which replicas are of its node."""
        if not self.told_all:
            self.told_all = True
            if self.link.queue is not None:
                self.link.queue.welcomed(self.name)

    def _variant_wanted(self, asked: wire.AskVariant) -> None:
        try:
            self.link.listener.heard_variant_wanted(asked.workload, asked.parameters, asked.key)
        except SwellError as error:
            key = asked.workload + Variant(asked.parameters).name
            self.write(pack(wire.NoVariant(key, error.status, error.code, error.message)))

    def _hello(self, hello: wire.Hello) -> None:
        self.role = hello.role
        if hello.role == "gateway":
            self.name = hello.incarnation
            if self.name in self.link.gateways:
                # It is here again before its earlier connection was seen to be broken, and tells what is not zero.
                self.link.listener.gateway_left(self.name)
            # The others first: this one is told with its table.
            self.link.count_gateways(len({*self.link.gateways, self.name}))
            self.link.gateways[self.name] = self
            if self.link.opened:
                self.write(pack(self.link.listener.table()))
            self.link.loads.changed(self.link.listener.loaded(), alone=self.link.queue is not None)
        else:
            # A runner is known by its node, which it names next.
            self.write(pack(wire.Welcome(epoch=self.link.epoch)))
