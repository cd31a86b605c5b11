"""What goes wrong in a run, and what is changed from outside? Each kind comes at times of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import msgspec

from swell.decide.traffic import split
from swell.model.events import NodeSeen
from swell.model.traffic import Traffic
from swell.sim.system import System


class Faults:
    """Those of one system."""

    def __init__(self, system: System) -> None:
        self.system = system

    def schedule(self) -> None:
        """All there will be."""
        system = self.system
        scenario = system.scenario
        for name, period_s, do in (
            *self._of_queue(),
            ("replica crash", scenario.replica_crash_every_s, self._crash_replica),
            ("node loss", scenario.node_loss_every_s, self._lose_node),
            ("node leave", scenario.node_leave_every_s, self._leave_node),
            ("control crash", scenario.control_crash_every_s, self._crash_control),
            ("redeploy", scenario.redeploy_every_s, self._redeploy),
            ("split", scenario.split_every_s, self._split),
        ):
            chance = system.stream(name)
            at = chance.expovariate(1 / period_s) if period_s else scenario.busy_s
            while at < scenario.busy_s:
                system.time.at(at, lambda name=name, do=do, chance=chance: self._fault(name, do, chance))  # type: ignore[misc]
                at += chance.expovariate(1 / period_s)

    def _fault(self, name: str, do: object, chance: Random) -> None:
        assert callable(do)
        if do(chance):
            self.system.count(name)

    def _of_queue(self) -> Iterator[tuple[str, float, Callable[[Random], bool]]]:
        queue, settings = self.system.queue, self.system.scenario.queue
        if queue is not None and settings is not None:
            yield "power cut", settings.power_cut_every_s, self._cut_power
            yield "control kill", settings.control_kill_every_s, self._crash_control
            yield "runner kill", settings.runner_kill_every_s, queue.kill_runner
            yield "partition", settings.partition_every_s, queue.partition
            yield "slow disk", settings.slow_disk_every_s, queue.slow_disk
            yield "full disk", settings.full_disk_every_s, queue.full_disk

    def _cut_power(self, chance: Random) -> bool:
        queue = self.system.queue
        assert queue is not None
        queue.kill()
        queue.cut_power(chance)
        self.system.restart()
        return True

    def _crash_replica(self, chance: Random) -> bool:
        system = self.system
        alive = sorted((id, node) for node, engine in system.engines.items() for id in engine.replicas)
        if alive:
            id, node = chance.choice(alive)
            system.died(id)
            system.engines[node].crash(id)
        return bool(alive)

    def _lose_node(self, chance: Random) -> bool:
        system = self.system
        return self._lose(chance.choice(sorted(system.engines)), chance)

    def _lose(self, name: str, chance: Random) -> bool:
        system = self.system
        engine = system.engines[name]
        if not engine.alive:
            return False
        for id in list(engine.replicas):
            system.died(id)
        engine.lose()
        if system.queue is not None:
            system.queue.node_lost(name)
        system.time.after(15.0, lambda: self._node_lost(name))
        system.time.after(chance.uniform(1.0, 60.0), lambda: self._come_back(name))
        return True

    def _leave_node(self, chance: Random) -> bool:
        """It says when it is to go."""
        system = self.system
        name = chance.choice(sorted(system.engines))
        engine = system.engines[name]
        if not engine.alive or engine.node.leaving_at is not None:
            return False
        left_s, goes = chance.choice([0.5, 10.0, 40.0]), chance.random() < 0.5
        engine.node = msgspec.structs.replace(engine.node, leaving_at=system.time.now() + left_s)
        engine.report_node()

        def over() -> None:
            engine.node = msgspec.structs.replace(engine.node, leaving_at=None)
            if not (goes and self._lose(name, chance)):
                engine.report_node()

        system.time.after(left_s, over)
        return True

    def _come_back(self, name: str) -> None:
        self.system.engines[name].come_back()
        if self.system.queue is not None:
            self.system.queue.node_back(name)

    def _node_lost(self, name: str) -> None:
        system = self.system
        if not system.engines[name].alive:
            lost = msgspec.structs.replace(system.engines[name].node, alive=False)
            system.reactor.take(NodeSeen(system.time.now(), lost))
            system.wake()

    def _crash_control(self, _chance: Random) -> bool:
        self.system.restart()
        return True

    def _redeploy(self, chance: Random) -> bool:
        system = self.system
        system.deploy(chance.randrange(system.scenario.workloads), generation=system.time.done)
        return True

    def _split(self, chance: Random) -> bool:
        """Its traffic goes to several of its versions, in any parts."""
        system = self.system
        number = chance.randrange(system.scenario.workloads)
        kept, live = system.versions[number], system.reactor.world.apps[f"default/app{number}"]
        several = sorted(chance.sample(sorted(kept), chance.randint(1, len(kept))))
        at = [0, *sorted(chance.sample(range(5, 100, 5), len(several) - 1)), 100]
        shares = tuple((version, float(at[i + 1] - at[i])) for i, version in enumerate(several))
        # As a split is asked for: what has the traffic, and beside it what is named.
        system.put(split(live, Traffic(shares), {version: kept[version] for version in several}))
        return len(several) > 1
