"""Does it hold under faults? One seeded run of a whole system: demand and faults come, then it is left alone."""

from __future__ import annotations

from collections import Counter

import msgspec

from swell.control.reactor import Effects
from swell.control.rescaling import rescaled
from swell.model.events import AppDeployed
from swell.sim.call_promises import CallPromises
from swell.sim.callers import Callers
from swell.sim.faults import KINDS, Faults
from swell.sim.promises import Promises
from swell.sim.served import Request
from swell.sim.settings import Scenario
from swell.sim.system import System
from swell.wire.api import Rescale

EVENTS_MIN = 500
KINDS_MIN = 3
"""So many things happen in each run, and so many kinds of faults."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run."""

    history: str
    """Hash of everything that happened, in order."""
    events: int
    """Requests and calls that came, and what was said, ordered and decided: not the looks at what is promised."""
    requests: int
    answered: int
    refused: int
    deadline: int
    held: int
    """Those that waited too long."""
    starts: int
    faults: dict[str, int]
    """How often what went wrong, or was done about it."""
    broken: tuple[str, ...]
    """Promises not kept; empty when all were."""

    @property
    def kinds(self) -> list[str]:
        """Of faults that it met."""
        return sorted(KINDS & self.faults.keys())

    @property
    def poor(self) -> str:
        """Why it proves little; empty where it does not."""
        if self.events < EVENTS_MIN:
            return f"it has {self.events} events, and is to have {EVENTS_MIN}"
        if len(self.kinds) < KINDS_MIN:
            return f"it met {len(self.kinds)} kinds of faults, and is to meet {KINDS_MIN}"
        return ""


class Cluster(System):
    """One run. Make it, `run()` it, look at the outcome."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed, scenario)
        self._promises = Promises(self)
        self._faults = Faults(self)
        self._callers = Callers(self.queue, self.stream("calls")) if self.queue is not None else None
        self._call_promises = CallPromises(self, self._callers) if self._callers is not None else None

    def run(self) -> Outcome:
        """Deploy, let demand and faults come, then leave it alone until it should be at zero."""
        for i in range(self.scenario.workloads):
            self.deploy(i, generation=0)
        for engine in self.engines.values():
            engine.report_node()
        self._schedule_requests()
        self._faults.schedule()
        self.every(1.0, self._promises.nobody_waits_in_vain)
        self.every(0.1, self._promises.nobody_waits_beside_a_free_slot)
        if self._callers is not None and self._call_promises is not None:
            self._callers.schedule(self.scenario.workloads, self.scenario.busy_s)
            self.every(1.0, self._call_promises.watch)
        self.time.run(self.scenario.busy_s)
        if self.queue is not None:
            self.queue.around.faulty = False
        self._ask_for_no_minimum()
        self.time.run(self.scenario.busy_s + self.scenario.quiet_s)
        self._promises.rest()
        if self.queue is not None and self._call_promises is not None:
            self._call_promises.rest()
            self.queue.close()
        outcomes = [request.outcome for request in self.requests]
        return Outcome(
            history=self.hash.hexdigest(),
            events=self.happened + len(outcomes) + (len(self._callers.spawned) if self._callers is not None else 0),
            requests=len(outcomes),
            answered=outcomes.count("answered"),
            refused=outcomes.count("refused"),
            deadline=outcomes.count("deadline"),
            held=outcomes.count("held"),
            starts=sum(len(engine.starts) for engine in self.engines.values()),
            faults=dict(sum((engine.faults for engine in self.engines.values()), Counter(self.faults))),
            broken=tuple(self.broken),
        )

    # -- what is watched ---------------------------------------------------------------------

    def decided(self, effects: Effects) -> None:
        self._promises.decided(effects)

    def told(self) -> None:
        self._promises.told()

    def restarted(self) -> None:
        self._promises.begin_anew()

    # -- demand ------------------------------------------------------------------------------

    def _schedule_requests(self) -> None:
        scenario, chance = self.scenario, self.stream("demand")
        doors = self.stream("doors")
        for number in range(scenario.workloads):
            if scenario.gang(number) is not None:
                continue
            at = chance.expovariate(scenario.rate)
            while at < scenario.busy_s:
                request = Request(
                    number=len(self.requests),
                    workload=f"default/app{number}/f",
                    came_at=at,
                    until=at + scenario.deadline_s,
                    work_s=chance.expovariate(1 / scenario.work_s),
                )
                gateway = doors.choice(self.gateways)
                self.requests.append(request)
                self.time.at(at, lambda request=request, gateway=gateway: gateway.arrive(request))  # type: ignore[misc]
                # Bursts and silences: now and then nothing comes for longer than an idle time.
                at += chance.expovariate(scenario.rate) if chance.random() > 0.02 else chance.uniform(10, 60)

    def _ask_for_no_minimum(self) -> None:
        for app in list(self.reactor.world.apps.values()):
            changed = rescaled(app, app.workloads[0].name, Rescale(min_replicas=0))
            self.reactor.take(AppDeployed(self.clock.now(), changed))
        self.wake()
