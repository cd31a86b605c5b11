"""What is around a keeper of queued calls? Replicas, a runner that may be away, and a store that may fail."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from swell.control.calls import CallKeeper
from swell.control.loop import NODE_LEASE_S
from swell.control.results import LargeResults
from swell.control.table import TableKeeper
from swell.model.call import Body
from swell.model.call_ports import CallRecords
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.event_trigger import EventTriggerState
from swell.model.events import (
    AppDeployed,
    AppStopped,
    Event,
    GangBroken,
    GangGiven,
    NodeSeen,
    Opened,
    ReplicaAdopted,
    ReplicaSeen,
)
from swell.model.gang import Seat
from swell.model.node import Node
from swell.model.owner import Owner
from swell.model.policy import Policy
from swell.model.ports import Store
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.retrying import Retrying
from swell.model.trigger import Delivery, Firing, TriggerState
from swell.model.workload import App, Entry, Method, Revision, Web, Workload
from swell.model.world import World
from swell.sim.queue import Small
from swell.wire.calls import CallEnd, Down, EndedHeard, Grant, Granted, Lease, NewCall, Resume, Revoke
from swell.wire.link import Level

NODE = "n1"
WAIT_S = 60.0
MAX_INPUTS = 2
LONG_US = 2_000_000
"""So long that no call waits beside a replica."""


def revision(**fields: Any) -> Revision:
    """What the function of an app runs."""
    methods = (
        Method("f"),
        Method("many", generator=True),
        Method("page", web=Web("endpoint", "page")),
    )
    entry = Entry("m", "f", "function", methods)
    fields = {"max_inputs": MAX_INPUTS, "retrying": Retrying(1, 1.0, 1.0, 1.0), **fields}
    return Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, **fields)


def app_of(name: str, **fields: Any) -> App:
    """An app with one function."""
    made = revision(**fields)
    return App("default", name, (Workload("default", name, "f", made.id),), (made,))


def new(app: str = "a", **fields: Any) -> NewCall:
    """A call of its function."""
    return NewCall(f"default/{app}/f", "f", fields.pop("input", Body("application/json", b"1")), **fields)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


class Runner:
    """The runner of the node, as far as calls go."""

    def __init__(self) -> None:
        self.there = True
        self.silent = False
        """It stands still, with an open connection."""
        self.held: dict[Lease, tuple[str, Granted]] = {}
        self.ends: dict[Lease, CallEnd] = {}
        """What control has not heard, or not said so."""
        self.inbox: list[Down] = []
        self.newest = 0
        """Highest token that came."""
        self.lost: list[CallEnd] = []
        """Said once, of what it does not have."""
        self.files: Path | None = None
        """Where large results are."""

    def take(self, alive: Callable[[str], bool]) -> None:
        """Do what it was told."""
        inbox, self.inbox = self.inbox, []
        for frame in inbox:
            match frame:
                case Grant(replica=replica, calls=calls):
                    for each in calls:
                        self.newest = max(self.newest, each.token)
                        self.held[each.id, each.token] = (replica, each)
                        if not alive(replica):
                            self.end((each.id, each.token), "drained")
                case Revoke(calls=calls):
                    for lease in calls:
                        if lease in self.held:
                            self.end(lease, "cancelled")
                        elif lease not in self.ends:
                            self.lost.append(CallEnd(*lease, "", "cancelled", "nobody has it"))
                case Resume(calls=calls):
                    for replica, leases in calls:
                        for lease in leases:
                            if lease not in self.held and lease not in self.ends:
                                code = "drained" if 0 < self.newest < lease[1] else "lease_expired"
                                self.lost.append(CallEnd(*lease, replica, code, "not here"))
                case EndedHeard(calls=calls):
                    for lease in calls:
                        self.ends.pop(lease, None)
                        if self.files is not None:
                            self.file(*lease).unlink(missing_ok=True)

    def file(self, id: str, token: int) -> Path:
        """Where the large result of one hand-out is."""
        assert self.files is not None
        return self.files / f"{id}-{token}"

    def end(self, lease: Lease, code: str = "", run_us: int = LONG_US, large: bytes = b"") -> None:
        """What came of a call; `large`: its result is in a file."""
        replica, call = self.held.pop(lease)
        body = Body("application/json", b"%d" % lease[1]) if not code else Body("application/json", b"{}")
        members, size = len(call.member.peers) if call.member is not None else 0, 0
        if large and not code:
            self.file(*lease).write_bytes(large)
            body, size = Body("application/json", digest=f"sha256-{hashlib.sha256(large).hexdigest()}"), len(large)
        self.ends[lease] = CallEnd(*lease, replica, code, code and "words", body, 10, run_us, members, size)

    def kill(self) -> None:
        """With all that it knew."""
        self.held.clear()
        for lease in self.ends if self.files is not None else ():
            self.file(*lease).unlink(missing_ok=True)
        self.ends.clear()


def full_disk() -> SwellError:
    return SwellError("state_full", "There is no space left.", status=507)


class Failing:
    """A store that fails while it is to: "before" anything is written, "after" it was, or at the second of several
    "leases"."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.how = ""
        self.commits = 0
        self.calls = _FailingCalls(self)
        self.triggers = _FailingTriggers(self)

    @property
    def call_records(self) -> CallRecords:
        return self.store.call_records

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.store.transaction():
            yield
            if self.how == "before":
                raise full_disk()
        self.commits += 1
        if self.how == "after":
            raise full_disk()


class _FailingTriggers:
    def __init__(self, place: Failing) -> None:
        self._place = place
        self._store = place.store.triggers

    def put(self, states: list[TriggerState | EventTriggerState]) -> None:
        if self._place.how == "before":
            raise full_disk()
        self._store.put(states)
        if self._place.how == "after":
            raise full_disk()

    def remove(self, keys: list[str]) -> None:
        if self._place.how == "before":
            raise full_disk()
        self._store.remove(keys)

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        self._store.deliver(deliveries)

    def all(self) -> list[TriggerState]:
        return self._store.all()

    def for_events(self) -> list[EventTriggerState]:
        return self._store.for_events()

    def history(self, key: str, most: int) -> list[Firing]:
        return self._store.history(key, most)


class _FailingCalls:
    def __init__(self, place: Failing) -> None:
        self._place = place
        self._leases = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place.store.calls, name)

    def lease(self, *args: Any) -> Any:
        self._leases += 1
        if self._place.how == "leases" and self._leases % 2 == 0:
            raise full_disk()
        return self._place.store.calls.lease(*args)


class Connected:
    """The runner, for one incarnation of control."""

    only_one = True

    def __init__(self, place: Place, epoch: int) -> None:
        self._place = place
        self._epoch = epoch

    def takes_calls(self, node: str) -> bool:
        return self._place.runner.there and self._epoch == self._place.epoch

    def send(self, node: str, frame: Down) -> bool:
        assert node == NODE
        if not self.takes_calls(node):
            return False
        self._place.runner.inbox.append(frame)
        self._place.sent.append(frame)
        return True

    def cut(self, node: str) -> None:
        """What speaks makes another connection."""
        if self.takes_calls(node):
            self._place.cuts += 1
            self._place.disconnect()
            if not self._place.runner.silent:
                asyncio.get_running_loop().call_soon(self._place.connect)


class Place:
    """Control as far as queued calls go, one incarnation after the other, over one store."""

    def __init__(self, store: Store, results: LargeResults | None = None) -> None:
        """`results`: none is large, else."""
        self.store = Failing(store)
        self.results = results or Small()
        self.clock = Clock()
        self.runner = Runner()
        self.replicas: dict[str, str] = {}
        """Those that are ready or drain, and their pools."""
        self.apps: dict[str, App] = {}
        self.levels: dict[str, Level] = {}
        self.others: dict[str, tuple[tuple[str, int], ...]] = {}
        self.sent: list[Down] = []
        self.cuts = 0
        """How often control ended the connection."""
        self._away_s = 0.0
        self._numbers = itertools.count(1)
        self.seats: dict[str, Seat] = {}
        self.useless: list[str] = []
        """Gangs that are said to be so."""
        self.lingers = False
        """What is left of these stays, with nothing to do."""
        self.epoch = 0
        self.running: asyncio.Task[None] | None = None

    # -- control -----------------------------------------------------------------------------

    async def open(self) -> None:
        """A new incarnation of control, which hears of everything anew."""
        self.epoch += 1
        self.world = World()
        self.rows = TableKeeper(self.world, Policy(), Prices())
        self.levels = {}
        epoch = self.epoch

        def told(levels: Sequence[Level]) -> None:
            if epoch == self.epoch:
                self.levels |= {level.pool: level for level in levels}

        self.keeper = CallKeeper(
            self.store,  # type: ignore[arg-type]
            self.clock,
            self.world,
            self.rows,
            epoch,
            Connected(self, epoch),
            told,
            lambda pool: self.others.get(pool, ()),
            self._break,
            lambda gang, priority: self.take(GangGiven(self.clock.at, gang, priority)),
            results=self.results,
        )
        self.take(Opened(self.clock.at, epoch, tuple(self.apps.values()), Policy()))
        self.running = asyncio.create_task(self.keeper.run())
        if self.runner.there:
            self._say_what_runs()

    async def close(self) -> None:
        """Control ends in order."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})
            self.running = None

    async def crash(self) -> None:
        """Control is killed: what it was about to say is not said."""
        self.epoch += 1
        self.runner.inbox.clear()
        await self.close()

    def take(self, event: Event) -> None:
        """As the loop does."""
        pools = self.world.apply(event)
        delta = self.rows.refresh(pools)
        if delta is not None:
            changed = (*(row.pool for row in delta.pools), *delta.gone_pools)
            self.keeper.changed(changed, (*(route.key for route in delta.routes), *delta.gone_routes))
        gone = isinstance(event, NodeSeen) and not event.node.alive
        if gone or (isinstance(event, ReplicaSeen) and event.phase is Phase.GONE):
            self.keeper.gone()

    async def settle(self) -> None:
        """Until nothing is left to do or to say."""
        quiet = 0
        while quiet < 3:
            before = len(self.sent)
            self.runner.take(self.replicas.__contains__)
            self._stop_broken()
            if self.runner.there:
                ends = (*self.runner.ends.values(), *self.runner.lost)
                self.runner.lost = []
                # Each is said again and again, as after reconnects.
                self.keeper.heard_ends(NODE, ends)
            with suppress(SwellError):
                await asyncio.wait_for(self.keeper.retry("nobody"), WAIT_S)
            busy = self.keeper._stir.is_set() or len(self.sent) != before or bool(self.runner.inbox)
            quiet = 0 if busy else quiet + 1

    # -- what happens ------------------------------------------------------------------------

    def deploy(self, name: str, **fields: Any) -> None:
        self.apps[name] = app_of(name, **fields)
        self.take(AppDeployed(self.clock.at, self.apps[name]))

    def run(self, name: str) -> None:
        """Deploy one that belongs to a program."""
        self.apps[name] = msgspec.structs.replace(app_of(name), owner=Owner(1, 1))
        self.take(AppDeployed(self.clock.at, self.apps[name]))

    def deploy_only(self, name: str, **fields: Any) -> None:
        """While there is no control that could hear of it."""
        self.apps[name] = app_of(name, **fields)

    def stop(self, name: str) -> None:
        del self.apps[name]
        self.take(AppStopped(self.clock.at, "default", name))

    def start(self, app: str, pool: str = "") -> str:
        """One more replica is ready; of the app's one workload, or of that pool."""
        pool = pool or self.apps[app].workloads[0].pool
        replica = f"r0-{next(self._numbers)}"
        self.replicas[replica] = pool
        self.take(ReplicaAdopted(self.clock.at, self._seen(replica, Phase.READY)))
        return replica

    def start_gang(self, app: str, size: int, ready: bool = True) -> list[str]:
        """One more gang is there; its members by rank."""
        ids = [f"r0-{next(self._numbers)}" for _ in range(size)]
        for rank, id in enumerate(ids):
            self.replicas[id] = self.apps[app].workloads[0].pool
            self.seats[id] = Seat(ids[0], rank, size)
            self.take(ReplicaAdopted(self.clock.at, self._seen(id, Phase.READY if ready else Phase.STARTING)))
        return ids

    def become_ready(self, replica: str) -> None:
        self.take(self._seen(replica, Phase.READY))

    def _break(self, gang: str, why: str) -> None:
        self.useless.append(gang)
        self.world.apply(GangBroken(self.clock.at, gang, why))

    def _stop_broken(self) -> None:
        """What is left of gangs that are of no use ends once it has nothing more to do."""
        there = [id for gang in self.world.broken for id in self.world.gangs[gang] if id in self.replicas]
        for replica in there if not self.lingers else ():
            if all(at != replica for at, _ in self.runner.held.values()):
                self.leave(replica)

    def die(self, replica: str) -> None:
        """With all that it has; its runner says so, if it is there."""
        for lease, (at, _) in list(self.runner.held.items()):
            if at == replica:
                self.runner.end(lease, "replica_died")
        seen = self._seen(replica, Phase.GONE)
        del self.replicas[replica]
        if self.runner.there:
            self.take(seen)

    def leave(self, replica: str) -> None:
        """Its one input is over, and so is it."""
        seen = msgspec.structs.replace(self._seen(replica, Phase.GONE), reason="served")
        del self.replicas[replica]
        if self.runner.there:
            self.take(seen)

    def drain(self, replica: str) -> None:
        self.take(self._seen(replica, Phase.DRAINING))

    def disconnect(self) -> None:
        self.runner.there = False
        self.runner.inbox.clear()

    def connect(self) -> None:
        self.runner.there = True
        self._say_what_runs()

    def pass_time(self, seconds: float) -> None:
        """Runners say every 2 s what they have."""
        while seconds > 0:
            step = min(seconds, 2.0)
            seconds -= step
            self.clock.at += step
            self._away_s = 0.0 if self.runner.there else self._away_s + step
            node = self.world.nodes.get(NODE)
            if node is not None and node.alive and self._away_s >= NODE_LEASE_S:
                self.take(NodeSeen(self.clock.at, msgspec.structs.replace(node, alive=False)))
            if self.runner.there and not self.runner.silent:
                self.keeper.heard_holding(NODE, [*self.runner.held, *self.runner.ends])
            self.keeper.tick()

    def stand_still(self, seconds: float) -> None:
        """The runner does; what it has goes on."""
        self.runner.silent = True
        self.pass_time(seconds)
        self.runner.silent = False
        if not self.runner.there:
            self.connect()

    def _say_what_runs(self) -> None:
        self.take(NodeSeen(self.clock.at, Node(NODE, 64.0, 65536)))
        for replica in self.replicas:
            if replica not in self.world.replicas:
                self.take(ReplicaAdopted(self.clock.at, self._seen(replica, Phase.READY)))
        for replica in [*self.world.replicas]:
            if replica not in self.replicas:
                self.take(self._seen(replica, Phase.GONE))
        self.keeper.welcomed(NODE)

    def _seen(self, replica: str, phase: Phase) -> ReplicaSeen:
        pool, seat = self.replicas.get(replica, ""), self.seats.get(replica)
        meeting = f"here:{replica}" if seat is not None and phase is Phase.READY else ""
        return ReplicaSeen(self.clock.at, replica, phase, pool, "serving", NODE, seat=seat, meeting=meeting)
