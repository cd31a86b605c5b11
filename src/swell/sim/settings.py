"""What is a simulated run made of? Its demand, its faults, and the apps that are deployed."""

from __future__ import annotations

import msgspec

from swell.engines.fake import Behaviour
from swell.model.environment import Environment
from swell.model.gang import Gang
from swell.model.gpu import Gpu
from swell.model.policy import Policy
from swell.model.resources import Needs
from swell.model.retrying import Retrying
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.sim.network import Weather
from swell.sim.replica import Fates

VERSIONS_KEPT = 3
"""Of an app, that its traffic may be divided among."""


STARTUP_S = 30.0
"""What is not ready by then is ended."""
DISTURBING = ("replica crash", "replica hang", "node loss", "node leave", "gateway crash")
"""What a request may not be answered for. All else only takes time."""
SHORT_S = 3.0
"""Who waits for as long is answered all the same."""


class QueueSettings(msgspec.Struct, frozen=True):
    """What the durable queue of a run is made of. Times in seconds, rates per second."""

    rate: float = 0.3
    """Calls of each workload."""
    fates: Fates = Fates()
    weather: Weather = Weather()
    sqlite: bool = False
    cancelled: float = 0.0
    """Share of calls that are cancelled a while later."""
    cancelled_at_work: float = 0.0
    """Share of attempts that are cancelled while they last, or just after."""
    delayed: float = 0.0
    """Share of calls that are put off."""
    slow_disk_s: float = 0.0
    """The longest that half an access takes in times when the disk is slow."""
    power_cut_every_s: float = 0.0
    control_kill_every_s: float = 0.0
    runner_kill_every_s: float = 0.0
    partition_every_s: float = 0.0
    slow_disk_every_s: float = 0.0
    full_disk_every_s: float = 0.0

    @property
    def periods(self) -> dict[str, float]:
        """As those of a scenario."""
        return {
            "power cut": self.power_cut_every_s,
            "control kill": self.control_kill_every_s,
            "runner kill": self.runner_kill_every_s,
            "partition": self.partition_every_s,
            "slow disk": self.slow_disk_every_s,
            "full disk": self.full_disk_every_s,
        }


class Scenario(msgspec.Struct, frozen=True):
    """What a run is made of. Times in seconds, rates per second, the rest probabilities."""

    workloads: int = 4
    nodes: int = 2
    node_cpu: float = 4.0
    node_memory_mib: int = 4096
    node_gpus: int = 0
    """Of each node, of two models in turn; each second workload asks for some."""
    busy_s: float = 120.0
    """Requests and faults come during this time; after it the cluster is left alone."""
    quiet_s: float = 1800.0
    """Long enough for everything to fall to zero."""
    rate: float = 2.0
    work_s: float = 0.5
    deadline_s: float = 60.0
    """Of each caller's own, waiting included."""
    hold_s: float = 600.0
    hold_max: int = 1000
    hold_bytes_max: int = 2**28
    """Of bodies; each is a number of some digits."""
    large: bool = False
    """Some workloads ask for more than one core."""
    timeout_s: float = 60.0
    """Of each workload."""
    behaviour: Behaviour = Behaviour()
    skew_s: float = 0.0
    """Each machine has a clock that is wrong by up to this much, and each incarnation of control has another one."""
    clock_set_every_s: float = 0.0
    """The clock of control's machine is set, by seconds or an hour."""
    gateway_partition_every_s: float = 0.0
    gateway_partition_s: float = 20.0
    """The longest that a connection carries nothing before it breaks."""
    gateway_crash_every_s: float = 0.0
    replica_hang_every_s: float = 0.0
    """One does nothing for a while."""
    replica_crash_every_s: float = 0.0
    node_loss_every_s: float = 0.0
    node_leave_every_s: float = 0.0
    """One says that it is to go; then it does, or stays."""
    control_crash_every_s: float = 0.0
    redeploy_every_s: float = 0.0
    split_every_s: float = 0.0
    """A workload's traffic is divided anew among its latest versions."""
    max_inputs: int = 0
    """Of each workload; 0 = another number for each."""
    gateways: int = 1
    hop_s: float = 0.0
    """The longest that bytes take between a gateway and a replica."""
    rolls: bool = True
    """What is redeployed waits for its traffic until it is ready; else it takes it at once."""
    policy: Policy = Policy(template_idle_s=120.0)
    min_replicas: int = 0
    """Of each workload, until the cluster is left alone."""
    idle_s: float = 0.0
    """Of each workload; 0 = another one for each."""

    queue: QueueSettings | None = None
    """None: nobody queues calls."""
    gang_every: int = 0
    """Each so-many-th workload is one of gangs, which nobody sends requests to; 0: none is."""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Of each node."""
        return tuple(Gpu(str(number), ("L4", "A100")[number % 2]) for number in range(self.node_gpus))

    def cpu(self, number: int) -> float:
        """What each replica of the app of that number asks for."""
        if not number % 2 or self.gang(number) is not None:
            return 0.5
        return 1.5 if self.large else 1.0

    def gpu(self, number: int) -> tuple[str, ...]:
        """What an app of that number asks for, of which there is enough for one at least."""
        gang, of_a_model = self.gang(number), self.nodes * (self.node_gpus // 2)
        if of_a_model < (gang.at_least if gang is not None else 1):
            return ()
        return (("A100", "any"), (), ("L4",), ())[number % 4]

    def gang(self, number: int) -> Gang | None:
        """What works on the calls of an app, of that number, together."""
        if self.queue is None or not self.gang_every or (number + 1) % self.gang_every:
            return None
        return Gang(2 + number % 3, least=2 if number % 3 == 2 else 0)

    @property
    def periods(self) -> dict[str, float]:
        """What goes wrong, or is changed, at times of its own: the usual time between two, s; 0: never."""
        alone = {
            "replica crash": self.replica_crash_every_s,
            "replica hang": self.replica_hang_every_s,
            "node loss": self.node_loss_every_s,
            "node leave": self.node_leave_every_s,
            "control crash": self.control_crash_every_s,
            "gateway crash": self.gateway_crash_every_s,
            "gateway partition": self.gateway_partition_every_s,
            "clock set": self.clock_set_every_s,
            "redeploy": self.redeploy_every_s,
            "split": self.split_every_s,
        }
        queue = self.queue
        return alone if queue is None else {**queue.periods, **alone}

    @property
    def calm(self) -> bool:
        """Nothing goes wrong, and there is room for the most that every workload may have."""
        behaviour = self.behaviour
        wrong = behaviour.fail_start + behaviour.hang_start + behaviour.lose_order + behaviour.delay_order_s
        crashes = sum(self.periods[what] for what in DISTURBING)
        crashes += self.gateway_partition_every_s * max(self.gateway_partition_s - SHORT_S, 0.0)
        shapes = [
            (app.workloads[0].scaling.max_replicas * (revision.gang.size if revision.gang else 1), revision.needs)
            for app in self.apps(0)
            for revision in app.revisions
        ]
        # With a template for each replica, and what a redeploy or another split drains beside what follows it.
        pools = VERSIONS_KEPT if self.split_every_s else 1
        cpu = 2 * pools * sum(most * needs.cpu for most, needs in shapes)
        memory_mib = 4 * pools * sum(most * needs.memory_mib for most, needs in shapes)
        return not wrong + crashes and cpu <= self.nodes * self.node_cpu and memory_mib <= self.node_memory_mib

    def apps(self, generation: int) -> list[App]:
        return [self.app(number, generation) for number in range(self.workloads)]

    def app(self, number: int, generation: int) -> App:
        """A small app of one function; its number gives it another shape, its generation another revision."""
        gang = self.gang(number)
        revision = Revision(
            environment=Environment("/usr/bin/python3", "3.11"),
            bundle=f"sha256-{number:x}-{generation:x}",
            entry=Entry("main", "f", "function", (Method("f"),)),
            needs=Needs(cpu=self.cpu(number), memory_mib=256 * (1 + number % 3), gpu=self.gpu(number)),
            max_inputs=1 if gang is not None else self.max_inputs or 1 + number % 3,
            target_inputs=1 if gang is not None else self.max_inputs or 1 + number % 3,
            single_use=gang is not None,
            gang=gang,
            template=number % 4 != 3,
            timeout_s=self.timeout_s,
            startup_timeout_s=STARTUP_S,
            retrying=Retrying(max_retries=number % 3) if self.queue is not None else Retrying(),
        )
        scaling = Scaling(
            min_replicas=self.min_replicas if gang is None else 0,
            max_replicas=4,
            buffer_replicas=number % 2 if gang is None else 0,
            idle_s=self.idle_s or 10.0 + 5 * number,
        )
        workload = Workload("default", f"app{number}", "f", revision.id, scaling)
        return App("default", f"app{number}", (workload,), (revision,))
