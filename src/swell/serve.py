"""How do the parts become processes? The composition root: picks adapters, wires them, runs one of them.

`python -m swell.serve control|gateway|grpc …` is what the supervisor starts. Listening sockets come as
inherited descriptors; readiness goes out as a line on `--ready-fd`; the end of `--supervisor-fd` means
that the supervisor is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from swell.model.errors import SwellError
from swell.runtime.limits import refuse_core_dumps, take_descriptors
from swell.wire.handed import taken
from swell.wire.paths import WILDCARDS
from swell.wire.prices import read_prices
from swell.wire.settings import Settings
from swell.wire.supervised import Up

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from swell.api.port import (
        BackupsPort,
        CallsPort,
        ControlPort,
        KvPort,
        SecretsPort,
        TriggersPort,
        VolumesPort,
    )
    from swell.control.backups import BackupKeeper
    from swell.control.calls import CallKeeper
    from swell.control.deploying import Deployer
    from swell.control.keys import KeyRing
    from swell.control.link import ControlLink
    from swell.control.loop import Loop
    from swell.control.owners import Owners
    from swell.control.queries import Queries
    from swell.control.results import LargeResults
    from swell.control.secrets import SecretKeeper
    from swell.control.sweeping import Sweeper
    from swell.control.volumes import VolumeKeeper
    from swell.model.ports import Blobs, Clock, Store
    from swell.model.request import Prices
    from swell.model.workload import App
    from swell.model.world import World
    from swell.store.keys import Keys
    from swell.store.retention import Keep
    from swell.store.tables import TableStore
    from swell.wire.api import LimitRow

log = logging.getLogger("swell")


# -- processes -------------------------------------------------------------------------------


async def control(settings: Settings, link_socket: socket.socket, api_socket: socket.socket, up: Up) -> None:
    """The loop, the store and the control API, until `up` says stop."""
    from swell.control.at_work import at_work
    from swell.control.call_desk import CallDesk
    from swell.control.chores import chores
    from swell.control.clock import SystemClock
    from swell.control.deploying import Deployer
    from swell.control.kv import KvKeeper
    from swell.control.link import ControlLink
    from swell.control.loop import Loop
    from swell.control.owners import Owners
    from swell.control.reactor import Reactor
    from swell.control.secrets import SecretKeeper
    from swell.control.sweeping import Sweeper
    from swell.control.trigger_parts import TriggerParts
    from swell.engines.local import LocalEngine
    from swell.model.events import Opened
    from swell.model.world import World
    from swell.sources import feed_of
    from swell.store.blobs import BlobFolder
    from swell.store.kept import close
    from swell.store.keys import ensure_keys
    from swell.store.sealing import MasterKeySealer

    paths = settings.paths
    # First: what cannot be used ends this process before it has made or opened anything.
    prices, keys = read_prices(paths.prices), ensure_keys(paths.key, paths.call_key)
    opened = await open_store(settings, api_socket, up)
    if opened is None:
        return
    (store, epoch), clock = opened, SystemClock()
    engine = LocalEngine(
        lambda order, epoch: link.order(order, epoch, order.node), lambda revision, say: link.build(revision, say)
    )
    reactor = Reactor(World(), settings.policy, prices)
    bounds = (settings.metrics_pools_max, settings.variants_max, settings.variant_idle_s)
    loop = Loop(reactor, engine, store, clock, epoch, *bounds)
    secrets = SecretKeeper(store.secrets, MasterKeySealer(paths.master_key), reactor.world, clock, loop.take)
    volumes = volume_keeper(settings, store, reactor.world, clock)
    link = loop.link = ControlLink(epoch, loop, engine.hear, secrets, volumes)
    loop.queue = link.queue = calls = call_keeper(settings, store, clock, loop, link)
    loop.take(Opened(clock.now(), epoch, tuple(store.world.apps()), settings.policy, at_work(store)))
    await link.serve(link_socket)
    engines = {each.name: each.capabilities for each in (LocalEngine,)}
    told = (settings.base_url, engines, reactor.waiting, named_things(secrets, volumes), loop.variants)
    deployer = Deployer(reactor.world, loop.take, engine, store.world, clock, *told)
    queries = what_is_there(settings, loop, link, deployer, prices)
    blobs = BlobFolder(paths.blobs, all_max=settings.blobs_max_gib * 1024**3)
    owners = Owners(settings.owner_silent_s)
    port = Control(deployer, queries, key_ring(store, clock, loop), owners, settings)
    kv = KvKeeper(store, clock)
    sweeper = Sweeper(deployer, store.call_records, blobs, secrets, volumes, clock)
    backups = backup_keeper(settings, store, sweeper, clock)
    desk = CallDesk(calls, store.call_records, reactor.waits)
    calendar = SystemClock(pace_behind=0.0)
    triggers = TriggerParts(feed_of, store, clock, calendar, calls, secrets, reactor.world, deployer.deployed_at)
    loop.triggers, link.events, queries.next_firing = triggers, triggers.take, triggers.next_at
    api = control_api(settings, port, blobs, secrets, volumes, kv, desk, backups, triggers.desk, keys)
    await serve_until_stopped(api, api_socket, chores(deployer, sweeper, volumes, kv, calls, triggers, owners), up)
    await link.close()
    close(store)


async def open_store(settings: Settings, api_socket: socket.socket, up: Up) -> tuple[TableStore, int] | None:
    """The store, and a new epoch in it, once there is room for that on its disk; None: told to stop before.

    Who asks for anything meanwhile is told.
    """
    from swell.api.answers import refusal
    from swell.api.serving import serve_api
    from swell.control.opening import once_there_is_room
    from swell.store.kept import opened

    over, answering = asyncio.Event(), []

    def waits(error: SwellError) -> None:
        up.say(error.message)
        answering.append(asyncio.create_task(serve_api(refusal(error), api_socket.dup(), over)))

    store = cache(partial(opened, settings.store, settings.paths.database, keep(settings), up.end_soon))
    try:
        return await once_there_is_room(lambda: (store(), store().world.open_epoch()), waits, up.stopped)
    finally:
        over.set()
        await asyncio.gather(*answering)


def what_is_there(settings: Settings, loop: Loop, link: ControlLink, deployer: Deployer, prices: Prices) -> Queries:
    """What answers questions about it."""
    from swell.control.queries import Queries

    return Queries(
        loop.reactor,
        loop.history,
        loop.store,
        loop.clock,
        loop.heard,
        gateways=link.gateways,
        deployed_at=deployer.deployed_at,
        prices=prices,
        base_url=settings.base_url,
        version=version("swell"),
    )


def large(settings: Settings, store: Store) -> LargeResults:
    """Results of queued calls that are in files."""
    from swell.control.results import Results
    from swell.store.blobs import BlobFolder

    folder = settings.paths.results
    files = BlobFolder(folder, all_max=settings.results_max_gib * 1024**3)
    disk = partial(free_space, folder)
    return Results(files, store.call_records, settings.paths.call_result, disk, settings.queue_free_mib * 1024**2)


def free_space(folder: os.PathLike[str]) -> tuple[int, int]:
    """Bytes that are free on the disk of a folder, and all that it has. Where it cannot tell, its writes will."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1, 1
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def call_keeper(settings: Settings, store: Store, clock: Clock, loop: Loop, link: ControlLink) -> CallKeeper:
    """The durable queue, between the loop and the runners."""
    from swell.control.calls import CallKeeper
    from swell.control.demand import QUEUE

    world, book = loop.reactor.world, loop.reactor.book
    keeper = CallKeeper(
        *(store, clock, world, loop.reactor.keeper, loop.epoch, link),
        told=lambda levels: loop.heard_demand(QUEUE, levels, math.inf),
        others=lambda pool: book.elsewhere(pool, QUEUE),
        useless=loop.break_gang,
        given=loop.give_gang,
        results=large(settings, store),
        queued_max=settings.queued_calls_max,
    )
    loop.variants.queued = keeper.has
    return keeper


def volume_keeper(settings: Settings, store: Store, world: World, clock: Clock) -> VolumeKeeper:
    """The volumes, and where their files are."""
    from swell.control.volumes import VolumeKeeper
    from swell.model.volume import Quota
    from swell.store.volumes import VolumeFolder

    quota = Quota(settings.volume_bytes_max, settings.volume_files_max)
    return VolumeKeeper(store.volumes, VolumeFolder(settings.paths.volumes), world, clock, quota)


def backup_keeper(settings: Settings, store: TableStore, sweeper: Sweeper, clock: Clock) -> BackupKeeper:
    """What makes backups, while nothing is swept."""
    from swell.control.backups import BackupKeeper
    from swell.store.snapshot import StateFolder

    return BackupKeeper(StateFolder(settings.paths.root, store.copy), sweeper.held, clock, version("swell"))


def named_things(secrets: SecretKeeper, volumes: VolumeKeeper) -> Callable[[App], None]:
    """Refuses an app that names what is not there."""
    from swell.sources import check_libraries

    def check(app: App) -> None:
        secrets.check(app)
        volumes.check(app)
        check_libraries(app)

    return check


def keep(settings: Settings) -> Keep:
    """How long what is remembered."""
    from swell.store.retention import Keep

    return Keep(
        settings.history_days,
        records_per_pool=settings.records_per_pool,
        slow_ms=settings.slow_ms,
        versions=settings.versions_kept,
    )


def key_ring(store: Store, clock: Clock, loop: Loop) -> KeyRing:
    """The API keys, those there were among what the gateways are told."""
    from swell.control.keys import KeyRing

    ring = KeyRing(store.keys, clock, loop.tell_key)
    loop.reactor.keeper.keys.update({key.id: key for key in ring.all()})
    return ring


class Control:
    """What the API asks (`api/port`): one part deploys, one answers, one has the keys, one knows the limits."""

    def __init__(self, deployer: Deployer, queries: Queries, ring: KeyRing, owners: Owners, settings: Settings) -> None:
        from swell.control.limits import every

        built = built_limits()
        apps = deployer.world.apps
        self.limits = lambda holder: every(settings, built, apps.values(), ring.all(), holder)
        self.deploy, self.stop_app, self.rescale = deployer.deploy, deployer.stop_app, deployer.rescale
        self.vary, self.heard = deployer.vary, owners.heard
        self.version, self.versions = deployer.version, deployer.versions
        self.traffic, self.promote, self.withdraw = deployer.traffic, deployer.promote, deployer.withdraw
        self.newer, self.revision = deployer.newer, deployer.revision
        self.deployed, self.health = queries.deployed, queries.health
        self.apps, self.replicas, self.nodes = queries.apps, queries.replicas, queries.nodes
        self.requests, self.why = queries.requests, queries.why
        self.usage, self.key_usage = queries.usage, queries.key_usage
        self.key, self.keys, self.make_key, self.revoke_key = ring.get, ring.rows, ring.make, ring.revoke


def built_limits() -> list[LimitRow]:
    """Limits that are no settings: what its adapters, and this machine, have."""
    import resource

    from swell.api.answers import STALL_S
    from swell.api.routes import JSON_MAX
    from swell.control.limits import fixed
    from swell.store.blobs import BLOB_MAX

    return [
        fixed("api_body_max", JSON_MAX, "bytes", "body_too_large"),
        fixed("blob_max", BLOB_MAX, "bytes", "blob_too_large"),
        fixed("backups_max", 1, "backups", "backup_under_way"),
        fixed("backup_stall_s", STALL_S, "s"),
        # Raised to the hard limit at start; each client needs up to two. `ulimit -Hn` is where it is said.
        fixed("open_files", resource.getrlimit(resource.RLIMIT_NOFILE)[0], "files", "busy"),
    ]


def control_api(
    settings: Settings,
    port: ControlPort,
    blobs: Blobs,
    secrets: SecretsPort,
    volumes: VolumesPort,
    kv: KvPort,
    calls: CallsPort,
    backups: BackupsPort,
    triggers: TriggersPort,
    keys: Keys,
) -> ASGIApp:
    """What answers `/api`."""
    from swell.api.app import make_api
    from swell.store.logs import lines

    wildcard, hosts = served_hosts(settings)
    return make_api(
        port,
        blobs,
        partial(lines, settings.paths.logs),
        secrets,
        volumes,
        kv,
        calls,
        backups,
        triggers,
        key=keys.api,
        call_key=keys.call,
        version=version("swell"),
        allowed_hosts=hosts,
        allowed_origins=settings.allowed_origins,
        any_address=wildcard,
    )


def served_hosts(settings: Settings) -> tuple[bool, tuple[str, ...]]:
    """Is every address of this machine listened on? And the names, beside loopback, by which it may be called."""
    wildcard = settings.host in WILDCARDS
    return wildcard, (socket.gethostname() if wildcard else settings.host, *settings.allowed_hosts)


async def serve_until_stopped(
    api: ASGIApp, listener: socket.socket, chores: Iterator[Coroutine[None, None, None]], up: Up
) -> None:
    """The API, and what is done again and again beside it."""
    from swell.api.serving import serve_api

    over = asyncio.Event()
    serving = asyncio.create_task(serve_api(api, listener, over))
    tasks = [asyncio.create_task(chore) for chore in chores]
    up.ready()
    await up.stopped()
    for task in tasks:
        task.cancel()
    over.set()
    await serving
    # What the disk was given is told to who waits for it.
    await asyncio.gather(*tasks, return_exceptions=True)


async def gateway(settings: Settings, index: int, listener: socket.socket, up: Up) -> None:
    """The data plane, or one process of several, until `up` says stop; then what is in flight may finish."""
    from swell.gateway.app import Gateway
    from swell.store.keys import read_key

    paths = settings.paths
    gate = Gateway(
        settings=settings,
        key=read_key(paths.key),
        call_key=read_key(paths.call_key),
        incarnation=uuid.uuid4().hex[:12],
        version=version("swell"),
        name=str(index),
    )
    serving = asyncio.create_task(gate.serve(listener, up.ready))
    up.cut = gate.cut
    await up.stopped()
    await gate.close(settings.drain_s, up.say)
    await serving


async def grpc(settings: Settings, up: Up) -> None:
    """The Open Inference Protocol over gRPC, in front of the gateway, until `up` says stop."""
    from swell.rpc.door import Door
    from swell.wire.paths import local_url

    assert settings.grpc_port is not None
    # It would write a line for each call.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    door = Door(local_url(settings.host, settings.port), settings.body_max)
    await door.open(settings.host, settings.grpc_port)
    up.ready()
    up.cut = door.cut
    await up.stopped()
    await door.close(settings.drain_s)
    # Not in an orderly way: the library would call off what comes just now, instead of breaking its connection.
    os._exit(0)


# -- which of them --------------------------------------------------------------------------


def _run(main: Callable[[Up], Awaitable[None]], up_fds: tuple[int, int]) -> None:
    async def framed() -> None:
        up = Up(*up_fds)
        up.listen()
        await main(up)

    try:
        import uvloop
    except ImportError:
        asyncio.run(framed())
    else:
        uvloop.run(framed())


def main(argv: list[str] | None = None) -> int:
    """Entry of a process; the arguments are the supervisor's, not for people."""
    parser = argparse.ArgumentParser(prog="swell.serve")
    parser.add_argument("process", choices=("control", "gateway", "grpc"))
    parser.add_argument("--settings", required=True, help="all settings as JSON")
    parser.add_argument("--index", type=int, default=0, help="which of the gateways")
    parser.add_argument("--control-fd", type=int, default=-1)
    parser.add_argument("--api-fd", type=int, default=-1)
    parser.add_argument("--listener-fd", type=int, default=-1)
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--supervisor-fd", type=int, default=-1)
    args = parser.parse_args(argv)
    who = f"{args.process}-{args.index}" if args.index else args.process
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {who} %(levelname)s %(message)s")
    take_descriptors()
    refuse_core_dumps()
    settings = msgspec.convert(taken(args.settings, os.environ), Settings)
    fds = (args.ready_fd, args.supervisor_fd)
    try:
        if args.process == "control":
            link, api = socket.socket(fileno=args.control_fd), socket.socket(fileno=args.api_fd)
            _run(lambda up: control(settings, link, api, up), fds)
        elif args.process == "grpc":
            _run(lambda up: grpc(settings, up), fds)
        else:
            listener = socket.socket(fileno=args.listener_fd)
            _run(lambda up: gateway(settings, args.index, listener, up), fds)
    except SwellError as error:
        log.error("%s", error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
