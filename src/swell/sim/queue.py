"""What is the durable queue in a simulated cluster? The keeper of control over a disk, the runners, and who calls.

The keeper and the runners are the code that is shipped, each in a process of its own that can be killed between any two
things that it does: also between a write and the word that it was made.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

from swell.control.calls import CallKeeper
from swell.control.clock import SystemClock
from swell.control.demand import QUEUE
from swell.control.link import SILENT_S
from swell.control.loop import NODE_LEASE_S
from swell.control.reactor import Effects, Reactor
from swell.engines.fake import FakeEngine
from swell.model.call import Call, Outcome
from swell.model.ends import UNKNOWN
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.replica import OVER
from swell.model.workload import Revision, revision_of
from swell.model.world import World
from swell.sim.clock import Timeline
from swell.sim.disk import Database, Disk, Memory
from swell.sim.network import Link
from swell.sim.process import process_of
from swell.sim.replica import Around
from swell.sim.runner import Runner
from swell.sim.served import Request
from swell.sim.settings import QueueSettings
from swell.sim.slots import Slots
from swell.wire.calls import CallEnd, Down, Ended, Holding, NewCall
from swell.wire.link import Level

BACK_S = 0.2
"""A runner that lost control, or was killed, tries again within this time."""


SILENT_FOR_S = (0.1, 3.0, 20.0, 100.0)
"""A link carries nothing for so long: the last is longer than a node may be away."""
TOLD_S = 1.0
"""What the queue wants is known everywhere after this long."""


class Small:
    """What results here are: none is in a file."""

    def check_room(self) -> None:
        pass

    def there(self, end: CallEnd) -> CallEnd:
        return end

    def take(self, outcomes: Iterable[Outcome]) -> None:
        pass

    def path(self, digest: str, id: str) -> str:
        raise AssertionError(digest, id)

    def sweep(self, some: bool) -> int:  # noqa: ARG002 - of the port
        return 0


class Site(Protocol):
    """The cluster that the queue is in."""

    epoch: int
    reactor: Reactor

    @property
    def engines(self) -> Mapping[str, FakeEngine]: ...

    time: Timeline
    clock: SystemClock

    def stream(self, name: str) -> Random: ...
    def broke(self, problem: str) -> None: ...
    def note(self, kind: str, what: object) -> None: ...
    def count(self, what: str) -> None: ...
    def slots(self, replica: str, limit: int) -> Slots[Request]: ...
    def demand(self, gateway: str, levels: list[Level], ttl_s: float) -> None: ...
    def kill_replica(self, replica: str) -> None: ...
    def lose_node(self, node: str) -> None: ...
    def once_awake(self, replica: str, do: Callable[[], None]) -> None: ...
    def break_gang(self, gang: str, why: str) -> None: ...
    def give_gang(self, gang: str, priority: int) -> None: ...


class Queue:
    """One incarnation of the keeper after the other."""

    def __init__(self, system: Site, settings: QueueSettings) -> None:
        self.settings = settings
        self.system = system
        self.disk = Disk(Database() if settings.sqlite else Memory())
        self._chance = system.stream("queue")
        self._folder = tempfile.mkdtemp(prefix="swell-sim-")
        told = (system.broke, self._kill_replica, system.count, system.once_awake)
        self.around = Around(system.time, system.stream("fates"), settings.fates, *told)
        self.beside = Counter[str]()
        """How often a call was with others at a replica that one of them killed, while control had leases of them."""
        self.runners = {name: self._runner(name, engine) for name, engine in system.engines.items()}
        self._lost: dict[str, float | None] = {}
        """Replicas that were taken for lost while they lived, and when control knew better."""
        self.around.unknown = self._is_unknown
        self._told_all: set[str] = set()
        self._silent_since: dict[str, float] = {}
        """Nodes whose runner nothing comes from or goes to."""
        self._cut_at: dict[str, float] = {}
        """Those of them to whose runner control has no link any more, which that does not know."""
        self.wanted_at: dict[str, float] = {}
        """When what is wanted of a pool was told last."""
        self._open()

    def close(self) -> None:
        """Nothing is left on the real disk."""
        self.process.kill()
        self.disk.medium.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _runner(self, name: str, engine: FakeEngine) -> Runner:
        system = self.system
        link = Link(system.time, system.stream(f"link {name}"), self.settings.weather, system.count)
        return Runner(name, Path(self._folder) / name, system.time, engine, link, self.around, self)

    # -- control ---------------------------------------------------------------------------------

    def _open(self) -> None:
        system, chance = self.system, self._chance
        self.process = process = process_of("control", system.time, system.broke, self._thread_s)
        self.clock = system.clock
        book = system.reactor.book
        with process.running():
            self.keeper = CallKeeper(
                self.disk,  # type: ignore[arg-type]
                self.clock,
                system.reactor.world,
                system.reactor.keeper,
                system.epoch,
                self,
                told=self._levels,
                others=lambda pool: book.elsewhere(pool, QUEUE),
                useless=system.break_gang,
                given=system.give_gang,
                results=Small(),
                chance=Random(chance.random()),
            )
            process.create_task(self.keeper.run())
        for runner in self.runners.values():
            self._reconnect(runner)

    def kill(self) -> None:
        """Control is. What it was about to write is not written."""
        self.process.kill()
        self._told_all.clear()
        self._cut_at.clear()
        for runner in self.runners.values():
            if runner.link.up:
                runner.disconnect()

    def restart(self) -> None:
        """The reactor is another one."""
        self.disk.medium.restart()
        self._open()

    def _disconnect(self, runner: Runner) -> None:
        self._told_all.discard(runner.node)
        runner.disconnect()
        self._reconnect(runner)

    def _reconnect(self, runner: Runner) -> None:
        self.system.time.after(self._chance.uniform(0.001, BACK_S), runner.connect)

    def _thread_s(self) -> float:
        return self._chance.uniform(0.0001, 1.0) * max(self.disk.slow_s, 0.002)

    @property
    def only_one(self) -> bool:
        return len(self.runners) == 1

    def takes_calls(self, node: str) -> bool:
        """As the link to its runner tells."""
        silent_s = self.system.time.now() - self._silent_since.get(node, self.system.time.now())
        return self.runners[node].link.up and node in self._told_all and silent_s <= SILENT_S

    def cut(self, node: str) -> None:
        """Control ends its end of the link to a runner, which notices once it reads anything."""
        if not self.runners[node].link.up or node in self._cut_at:
            return
        self._told_all.discard(node)
        self.system.count("link cut")
        if self.runners[node].link.silent:
            self._cut_at[node] = at = self.system.time.now()
            self.system.time.after(NODE_LEASE_S, lambda: self._lose_silent(node, at))
        else:
            self._disconnect(self.runners[node])

    def _lose_silent(self, node: str, cut_at: float) -> None:
        if self._cut_at.get(node) == cut_at:
            for replica in self.runners[node].engine.replicas:
                self._lost[replica] = None
            self.system.lose_node(node)

    def _is_unknown(self, call: str, replica: str) -> bool:
        kept, back_at = self.kept(call), self._lost.get(replica)
        sooner = kept is None or kept.leased_at is None or back_at is None or kept.leased_at <= back_at
        return replica in self._lost and sooner

    def send(self, node: str, frame: Down) -> bool:
        """To a runner; False where there is no link to it, as far as control knows."""
        runner = self.runners[node]
        if node in self._cut_at:
            return False

        def arrive() -> None:
            self.system.note("down", frame)
            runner.hear(frame)

        return runner.link.send("down", arrive)

    def _levels(self, levels: Sequence[Level]) -> None:
        self.wanted_at.update((level.pool, self.system.time.now()) for level in levels)
        self.system.demand(QUEUE, list(levels), math.inf)

    # -- what control hears ----------------------------------------------------------------------

    def heard(self, node: str, frame: Ended | Holding) -> None:
        # But for when calls were begun, which is told by the clock of the machine.
        self.system.note("up", frame.calls)
        if isinstance(frame, Ended):
            self.process.do(lambda: self.keeper.heard_ends(node, frame.calls))
        else:
            self.process.do(lambda: self.keeper.heard_holding(node, frame.calls))

    def told_all(self, node: str) -> None:
        self._told_all.add(node)
        self.process.do(lambda: self.keeper.welcomed(node))

    def changed(self, pools: Iterable[str]) -> None:
        """What gateways have there."""
        self.process.do(lambda: self.keeper.changed(pools))

    def stepped(self, effects: Effects) -> None:
        """As the loop tells the queue."""
        world, delta = self.system.reactor.world, effects.delta
        for id in [id for id, back_at in self._lost.items() if back_at is None and id in world.replicas]:
            self._lost[id] = self.clock.now() if world.replicas[id].reason == UNKNOWN else math.inf
        if delta is not None:
            pools = (*(row.pool for row in delta.pools), *delta.gone_pools)
            workloads = (*(route.key for route in delta.routes), *delta.gone_routes)
            self.process.do(lambda: self.keeper.changed(pools, workloads))
        for event in effects.events:
            gone = isinstance(event, NodeSeen) and not event.node.alive
            if gone or (isinstance(event, ReplicaSeen) and event.phase in OVER):
                self.process.do(self.keeper.gone)
                return

    def wants(self, pool: str) -> bool:
        """Does it want replicas of the pool, or did a moment ago?"""
        return pool in self.keeper.wants.levels or self.system.time.now() - self.wanted_at.get(pool, -9.0) < TOLD_S

    # -- what runners see ------------------------------------------------------------------------

    def slots(self, replica: str, limit: int) -> Slots[Request]:
        return self.system.slots(replica, limit)

    def seen(self, seen: ReplicaSeen) -> None:
        self.runners[seen.node].seen(seen)

    def member_gone(self, gang: str) -> None:
        for runner in self.runners.values():
            runner.peer_gone(gang)

    def node_lost(self, node: str) -> None:
        self._told_all.discard(node)
        self.runners[node].lose()

    def node_back(self, node: str) -> None:
        self.runners[node].revive()
        self._reconnect(self.runners[node])

    # -- what is asked of control ----------------------------------------------------------------

    def ask(self, asked: Callable[[CallKeeper], Coroutine[Any, Any, Any]], told: Callable[[Any], None]) -> None:
        """`told` is given the answer, an exception perhaps; it is never called where control dies over it."""
        process, keeper = self.process, self.keeper

        async def answer() -> None:
            try:
                result = await asked(keeper)
            except Exception as error:
                result = error
            self.system.time.after(0.001, lambda: told(result))

        process.do(lambda: process.create_task(answer()))

    def accept(self, new: NewCall, told: Callable[[Any], None]) -> None:
        self.ask(lambda keeper: keeper.accept(new), told)

    def kept(self, id: str) -> Call | None:
        """As any reader of the disk sees it."""
        return self.disk.call_records.get(id)

    def at_work(self, world: World) -> tuple[Revision, ...]:
        """What calls were handed out for, and is deployed no more, as `control/at_work` finds it among the versions."""
        named = {revision_of(call.pool) for call in self.disk.calls.standing().leased}
        named -= {revision.id for app in world.apps.values() for revision in app.revisions}
        return tuple(world.revisions[id] for id in sorted(named) if id in world.revisions)

    def due(self) -> list[str]:
        """Workloads of which calls could be handed out by now, as the disk has it."""
        standing, now = self.disk.calls.standing(), self.clock.now()
        return [workload for workload, queued in standing.queued.items() if queued.due_at <= now]

    # -- what goes wrong -------------------------------------------------------------------------

    def _kill_replica(self, replica: str) -> None:
        """One of its calls does."""
        worked_on = [lease for runner in self.runners.values() for id, lease in runner.worked_on() if id == replica]
        calls = [call for id, token in worked_on if (call := self.kept(id)) and call.token == token]
        if len(calls) > 1:
            self.beside.update(call.id for call in calls if call.state == "leased")
        self.system.kill_replica(replica)

    def cut_power(self, chance: Random) -> None:
        """Of control's machine: what was not synced is lost. Its successor opens what there is."""
        self.around.power_cuts += 1
        if self.disk.medium.cut_power(chance):
            self.system.count("torn write")

    def kill_runner(self, chance: Random) -> bool:
        runner = self.runners[chance.choice(sorted(self.runners))]
        if runner.process.dead:
            return False
        self._told_all.discard(runner.node)
        runner.kill()

        def again() -> None:
            if runner.engine.alive:
                runner.revive()
                self._reconnect(runner)

        self.system.time.after(chance.uniform(0.1, 3.0), again)
        return True

    def partition(self, chance: Random) -> bool:
        """A runner's link carries nothing for a while; then it is seen to be broken, and made anew."""
        runner = self.runners[chance.choice(sorted(self.runners))]
        if not runner.link.up:
            return False
        lasts_s = chance.choice(SILENT_FOR_S)
        runner.link.silent = True
        self._silent_since[runner.node] = self.system.time.now()

        def broken() -> None:
            runner.link.silent = False
            self._silent_since.pop(runner.node, None)
            self._cut_at.pop(runner.node, None)
            if runner.link.up:
                self._disconnect(runner)

        self.system.time.after(lasts_s, broken)
        return True

    def slow_disk(self, chance: Random) -> bool:
        return self._for_a_while(chance, "slow_s", self.settings.slow_disk_s, 0.0)

    def full_disk(self, chance: Random) -> bool:
        return self._for_a_while(chance, "full", chance.choice(["before", "after"]), "")

    def _for_a_while(self, chance: Random, name: str, value: object, after: object) -> bool:
        setattr(self.disk, name, value)
        self.system.time.after(chance.uniform(0.5, 6.0), lambda: setattr(self.disk, name, after))
        return True
