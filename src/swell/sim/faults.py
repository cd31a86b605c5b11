"""What goes wrong in a run, and what is changed from outside? Each kind comes at times of its own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from swell.control.loop import NODE_LEASE_S
from swell.decide.traffic import split
from swell.model.traffic import Traffic
from swell.sim.settings import QueueSettings, Scenario
from swell.sim.system import System

Fault = Callable[[Random], bool]

HANGS_S = (0.5, 3.0)
"""So long a replica hangs."""
SET_BY_S = (-60.0, -5.0, 5.0, 60.0, 3600.0)
"""By so much a clock is set."""
KINDS = frozenset(
    {
        *(Scenario().periods.keys() - {"redeploy", "split"}),
        *QueueSettings().periods,
        "order lost",
        "order repeated",
        "order from before a node loss",
        "report repeated",
        "message repeated",
        "message out of order",
        "start fails",
        "start hangs",
        "fork refused",
        "torn write",
        "a call kills its replica",
        "a call hangs",
        "a call raises",
        "a call takes long",
        "a connection breaks",
        "a stopped member goes on",
        "a member raises: it is told to end",
        "a member raises: another one is gone",
    }
)
"""What counts as a kind of fault, wherever it is made. All else that is counted was wanted, or came of it."""


class Faults:
    """Those of one system."""

    def __init__(self, system: System) -> None:
        self.system = system

    def schedule(self) -> None:
        """All there will be; each kind that there is comes once at least."""
        system, how = self.system, self._how()
        until = system.scenario.busy_s
        for name, period_s in system.scenario.periods.items():
            if not period_s:
                continue
            chance = system.stream(name)
            at = chance.expovariate(1 / period_s)
            at = at if at < until else chance.uniform(0.0, until)
            while at < until:
                system.time.at(at, lambda name=name, do=how[name], chance=chance: self._fault(name, do, chance))  # type: ignore[misc]
                at += chance.expovariate(1 / period_s)

    def _how(self) -> dict[str, Fault]:
        """What is done; True where it could be."""
        queue = self.system.queue
        alone = {
            "replica crash": self._crash_replica,
            "replica hang": self._hang_replica,
            "node loss": self._lose_node,
            "node leave": self._leave_node,
            "control crash": self._crash_control,
            "gateway crash": self._crash_gateway,
            "gateway partition": self._part_gateway,
            "clock set": self._set_clock,
            "redeploy": self._redeploy,
            "split": self._split,
        }
        if queue is None:
            return alone
        return {
            **alone,
            "power cut": self._cut_power,
            "control kill": self._crash_control,
            "runner kill": queue.kill_runner,
            "partition": queue.partition,
            "slow disk": queue.slow_disk,
            "full disk": queue.full_disk,
        }

    def _fault(self, name: str, do: Fault, chance: Random) -> None:
        if do(chance):
            self.system.count(name)

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

    def _hang_replica(self, chance: Random) -> bool:
        """It begins nothing and ends nothing for a while."""
        system = self.system
        alive = sorted(id for engine in system.engines.values() for id in engine.replicas if not system.hangs(id))
        if alive:
            system.hung_until[chance.choice(alive)] = system.time.now() + chance.choice(HANGS_S)
        return bool(alive)

    def _crash_gateway(self, chance: Random) -> bool:
        return self.system.links.crash(self.system.gateways, chance)

    def _part_gateway(self, chance: Random) -> bool:
        return self.system.links.partition(self.system.gateways, chance, self.system.scenario.gateway_partition_s)

    def _set_clock(self, chance: Random) -> bool:
        self.system.machine.set_by_s += chance.choice(SET_BY_S)
        return True

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
        system.time.after(NODE_LEASE_S, lambda: self._node_lost(name))
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
        engine.node = msgspec.structs.replace(engine.node, leaving_at=engine.now() + left_s)
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
            system.lose_node(name)

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
