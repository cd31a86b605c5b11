"""How would an engine behave that takes no time and no machine, but can fail in every way a real one can?

The simulator, the planner's benchmark and the conformance suite run on it. Time comes from outside: what
is to happen later is handed to `after`, which calls it when its clock gets there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import msgspec

from swell.model.ends import SERVED
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import BuildReport, Inventory, Order, StartOrder, StopOrder
from swell.model.ports import Fact
from swell.model.replica import OVER, Phase
from swell.model.workload import Revision

After = Callable[[float, Callable[[], None]], None]
"""(seconds from now, what to do then)."""


DRAIN_LOOK_S = 0.25
"""How often a drain looks whether what was in flight is over."""
ORPHAN_S = 10.0
"""So long a replica that is to end waits for somebody who takes what it has to say."""


class Behaviour(msgspec.Struct, frozen=True):
    """How long things take (seconds) and how often they go wrong (probabilities)."""

    start_s: float = 1.0
    """A fresh process until it is ready."""
    fork_s: float = 0.005
    """A fork of a loaded template until it is ready."""
    stop_s: float = 0.01
    fail_start: float = 0.0
    hang_start: float = 0.0
    """A process is made, and is never ready: its runner ends it after its `startup_timeout_s`."""
    refuse_fork: float = 0.0
    """A template turns out not to be forkable; its replicas start fresh."""
    lose_order: float = 0.0
    repeat_order: float = 0.0
    """An order arrives a second time; each copy may be lost or late by itself."""
    delay_order_s: float = 0.0
    """Orders arrive up to this much late, and so out of order: also after the node was lost and came back."""
    repeat_fact: float = 0.0
    delay_fact_s: float = 0.0
    """Facts arrive up to this much late, and so out of order."""


class _Fake(msgspec.Struct):
    order: StartOrder
    phase: Phase = Phase.STARTING
    waiting: bool = False
    """For its template to be loaded."""
    barred: bool = False
    """Its devices are another's, until that is over."""
    reason: str = ""
    """Why it drains, where it was ordered to."""


class FakeEngine:
    """One node's worth of replicas that only exist as values."""

    name = "fake"
    capabilities: frozenset[str] = frozenset()

    def __init__(
        self,
        node: Node,
        now: Callable[[], float],
        after: After,
        chance: Random,
        behaviour: Behaviour | None = None,
        works: Callable[[str], bool] = lambda _replica: False,
    ) -> None:
        self.node = node
        self.now = now
        self.after = after
        self.chance = chance
        self.behaviour = behaviour or Behaviour()
        self.works = works
        """Has a replica something in flight? A drain waits for it."""
        self.replicas: dict[str, _Fake] = {}
        self.ended: dict[str, ReplicaSeen] = {}
        """Those that are over, and how they ended: told once more to who orders one to start."""
        self.starts: dict[str, int] = {}
        """Replica → times a process was really made for it; never above one."""
        self.cut: dict[str, str] = {}
        """Replica that still worked when the grace of its drain was over → why it was stopped."""
        self.faults: Counter[str] = Counter()
        """What went wrong on the way, and how often."""
        self.epoch = 0
        self.alive = True
        self._losses = 0
        self._listeners: list[Callable[[Fact], None]] = []

    # -- the Engine port ---------------------------------------------------------------------

    def listen(self, heard: Callable[[Fact], None]) -> None:
        self._listeners.append(heard)

    def hear(self, fact: Fact) -> None:
        for heard in self._listeners:
            heard(fact)

    def apply(self, order: Order, epoch: int) -> None:
        for _ in self._copies("order", self.behaviour.repeat_order):
            if self._happens(self.behaviour.lose_order):
                self.faults["order lost"] += 1
            elif self.behaviour.delay_order_s:
                late_s = self.chance.uniform(0, self.behaviour.delay_order_s)
                self.after(late_s, partial(self._obey, order, epoch, self._losses))
            else:
                self._obey(order, epoch, self._losses)

    def _obey(self, order: Order, epoch: int, losses: int) -> None:
        """An order arrives, which was given when the node had been lost `losses` times."""
        if not self.alive or epoch < self.epoch:
            return
        self.faults["order from before a node loss"] += losses < self._losses
        self.epoch = epoch
        if isinstance(order, StopOrder):
            self._stop(order)
        elif order.replica in self.ended:
            self._emit(self.ended[order.replica])
        elif order.replica not in self.replicas:
            self._start(order)

    def inventory(self) -> Inventory | None:
        if not self.alive:
            return None
        return Inventory(self.node.id, self.now(), self.epoch, tuple(self._seen(id) for id in self.replicas))

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        progress(f"{revision.entry.module}: nothing to build on the fake engine")
        return BuildReport(ok=True)

    # -- what a test or the simulator does to it -------------------------------------------------

    def report_node(self) -> None:
        """As a runner does when it connects: the node, then everything it has."""
        if self.alive:
            self.hear(NodeSeen(self.now(), self.node))
            self.report_inventory()

    def report_inventory(self) -> None:
        """In one piece and on time, as a link that keeps order does after what was said before it."""
        inventory = self.inventory()
        if inventory is not None:
            self.hear(inventory)

    def listens(self, id: str) -> bool:
        """Would this replica take a connection now?"""
        return id in self.replicas and self.replicas[id].phase is Phase.READY

    def drains(self, id: str) -> list[ReplicaSeen]:
        """As a runner that takes it over hears of it, where it was told to end."""
        fake = self.replicas.get(id)
        return [self._seen(id)] if fake is not None and fake.phase is Phase.DRAINING and fake.reason else []

    def crash(self, id: str, reason: str = "crashed") -> None:
        """One replica dies."""
        if id in self.replicas:
            self._end(id, reason)

    def lose(self) -> None:
        """The node is gone, with all that ran on it."""
        self.alive = False
        self._losses += 1
        self.ended.update((id, self._over(id, "lost")) for id in self.replicas)
        self.replicas.clear()

    def come_back(self) -> None:
        """The node is there again, empty."""
        self.alive = True
        self.report_node()

    def served(self, id: str, told: Callable[[], bool]) -> None:
        """One had the one input that it was for: it ends once it has `told` what came of that, or nobody asks."""
        fake = self.replicas.get(id)
        if fake is not None and fake.phase is Phase.READY:
            fake.phase = Phase.DRAINING
            self._report(id)
            self._served(id, told, self.now() + ORPHAN_S)

    def _served(self, id: str, told: Callable[[], bool], until: float) -> None:
        if told() or self.now() >= until:
            self._end(id, SERVED)
        else:
            self.after(DRAIN_LOOK_S, lambda: self._served(id, told, until))

    # -- lives -------------------------------------------------------------------------------

    def _start(self, order: StartOrder) -> None:
        fake = _Fake(order)
        self.replicas[order.replica] = fake
        self._report(order.replica)
        fake.barred = self._bars(fake)
        if fake.barred:
            self.faults["GPU not free yet"] += 1
        else:
            self._begin(fake)

    def _bars(self, fake: _Fake) -> bool:
        """Has another one a device that this one was given?"""
        others = (each for each in self.replicas.values() if each is not fake and not each.barred)
        return any(not set(fake.order.gpus).isdisjoint(each.order.gpus) for each in others)

    def _begin(self, fake: _Fake) -> None:
        order = fake.order
        template = self.replicas.get(order.template) if order.template else None
        if template is None:
            self._make(order.replica, self.behaviour.start_s)
        elif template.phase is Phase.READY:
            self._make(order.replica, self.behaviour.fork_s)
        else:
            fake.waiting = True

    def _make(self, id: str, takes_s: float) -> None:
        """A process is made for it."""
        self.starts[id] = self.starts.get(id, 0) + 1
        if self._happens(self.behaviour.hang_start):
            self.faults["start hangs"] += 1
            timeout_s = self.replicas[id].order.revision.startup_timeout_s
            self.after(timeout_s, lambda: self._end(id, "startup_timeout"))
        else:
            self.after(takes_s, lambda: self._started(id))

    def _started(self, id: str) -> None:
        fake = self.replicas.get(id)
        if fake is None or fake.phase is not Phase.STARTING:
            return
        if self._happens(self.behaviour.fail_start):
            self.faults["start fails"] += 1
            self._end(id, "enter_error")
            return
        fake.phase = Phase.READY
        self._report(id)
        if fake.order.role == "template":
            self._loaded(id)

    def _loaded(self, template: str) -> None:
        refused = self._happens(self.behaviour.refuse_fork)
        if refused:
            self.faults["fork refused"] += 1
            self._report(template, fork_refused="its first fork hung")
        for id, fake in self.replicas.items():
            if fake.waiting and fake.order.template == template:
                fake.waiting = False
                self._make(id, self.behaviour.start_s if refused else self.behaviour.fork_s)

    def _stop(self, order: StopOrder) -> None:
        fake = self.replicas.get(order.replica)
        if fake is None:
            # It never came to be, and never may: a start order that is still on its way must not make it.
            self._emit(self.ended.setdefault(order.replica, self._over(order.replica, "unknown")))
            return
        if fake.phase is not Phase.DRAINING:
            fake.phase, fake.reason = Phase.DRAINING, order.reason
            self._report(order.replica)
            until = self.now() + order.grace_s
            self.after(self.behaviour.stop_s, lambda: self._drained(order.replica, order.reason, until))

    def _drained(self, id: str, reason: str, until: float) -> None:
        if id in self.replicas and self.works(id):
            if self.now() < until:
                self.after(DRAIN_LOOK_S, lambda: self._drained(id, reason, until))
                return
            self.cut[id] = reason
        self._end(id, reason)

    def _end(self, id: str, reason: str) -> None:
        fake = self.replicas.pop(id, None)
        if fake is None:
            return
        failed = fake.phase is Phase.STARTING
        fake.phase = Phase.GONE
        self.ended[id] = self._fact(id, fake, reason)
        self._emit(self.ended[id])
        if fake.order.role == "template":
            for other, waiting in list(self.replicas.items()):
                if waiting.waiting and waiting.order.template == id:
                    waiting.waiting = False
                    # What could not be loaded is not loaded once more; what was stopped says nothing of that.
                    if failed:
                        self._end(other, reason)
                    else:
                        self._make(other, self.behaviour.start_s)
        for each in [each for each in self.replicas.values() if each.barred]:
            if not self._bars(each):
                each.barred = False
                if each.phase is Phase.STARTING:
                    self._begin(each)

    # -- telling -----------------------------------------------------------------------------

    def _seen(self, id: str) -> ReplicaSeen:
        return self._fact(id, self.replicas[id])

    def _fact(self, id: str, fake: _Fake, reason: str = "", fork_refused: str = "") -> ReplicaSeen:
        serving = fake.order.role == "serving" and fake.phase not in OVER and fake.phase is not Phase.STARTING
        return ReplicaSeen(
            at=self.now(),
            replica=id,
            phase=fake.phase,
            pool=fake.order.pool,
            role=fake.order.role,
            node=self.node.id,
            address=f"unix:/fake/{id}" if serving else "",
            reason=reason or fake.reason,
            template=fake.order.template,
            fork_refused=fork_refused,
            seat=fake.order.seat,
            gpus=fake.order.gpus,
            meeting=f"fake:{id}" if serving and fake.order.seat is not None else "",
        )

    def _over(self, id: str, reason: str) -> ReplicaSeen:
        """Of one that nothing is known of any more."""
        return ReplicaSeen(self.now(), id, Phase.GONE, "", "serving", self.node.id, reason=reason)

    def _report(self, id: str, fork_refused: str = "") -> None:
        self._emit(self._fact(id, self.replicas[id], fork_refused=fork_refused))

    def _emit(self, fact: Fact) -> None:
        """Tell, perhaps late, perhaps twice."""
        for _ in self._copies("report", self.behaviour.repeat_fact):
            if self.behaviour.delay_fact_s:
                self.after(self.chance.uniform(0, self.behaviour.delay_fact_s), lambda: self.hear(fact))
            else:
                self.hear(fact)

    def _copies(self, what: str, repeat: float) -> range:
        """Once, or twice."""
        if not self._happens(repeat):
            return range(1)
        self.faults[f"{what} repeated"] += 1
        return range(2)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.chance.random() < probability
