"""Which cluster, demand and faults does a seed stand for?"""

from __future__ import annotations

import math
from random import Random

import msgspec

from swell.engines.fake import Behaviour
from swell.model.policy import Policy
from swell.sim.cluster import KINDS_MIN, Cluster, Outcome
from swell.sim.faults import KINDS
from swell.sim.network import Weather
from swell.sim.replica import Fates
from swell.sim.settings import DISTURBING, SHORT_S, QueueSettings, Scenario

ENOUGH = 150
"""So many requests and calls make a run that proves something, usually…"""
BUSY_MAX_S = 800.0
"""…but they are waited for no longer than this."""


def scenario(seed: int) -> Scenario:
    """A scenario drawn from the seed: every kind of fault is absent in some and present in others."""
    draw = Random(f"{seed}/scenario")
    # Streams of their own, so that older seeds stay what they were in everything else.
    scaling = Random(f"{seed}/scaling")
    patience = Random(f"{seed}/patience")
    several = Random(f"{seed}/several")
    gateways = Random(f"{seed}/gateways")
    clocks = Random(f"{seed}/clocks drawn")
    hanging = Random(f"{seed}/hanging")
    holding = Random(f"{seed}/holding")
    behaviour = _behaviour(draw, Random(f"{seed}/link"), hanging)
    drawn = Scenario(
        workloads=draw.randint(1, 6),
        nodes=draw.randint(1, 3),
        rate=draw.choice([0.2, 1.0, 4.0]),
        work_s=draw.choice([0.05, 0.5, 3.0]),
        deadline_s=patience.choice([60.0, 60.0, math.inf]),
        hold_s=patience.choice([600.0, 20.0]),
        timeout_s=patience.choice([60.0, 60.0, 4.0]),
        hold_max=holding.choice([1000, 1000, 1000, 3]),
        hold_bytes_max=holding.choice([2**28, 2**28, 2**28, 6]),
        large=holding.random() < 0.25,
        behaviour=behaviour,
        skew_s=clocks.choice([0.0, 0.2, 30.0]),
        clock_set_every_s=clocks.choice([0.0, 0.0, 40.0]),
        gateway_partition_every_s=gateways.choice([0.0, 30.0]),
        gateway_crash_every_s=gateways.choice([0.0, 0.0, 40.0]),
        replica_hang_every_s=hanging.choice([0.0, 20.0]),
        replica_crash_every_s=draw.choice([0.0, 10.0]),
        node_loss_every_s=draw.choice([0.0, 40.0]),
        node_leave_every_s=Random(f"{seed}/leaving").choice([0.0, 0.0, 40.0]),
        control_crash_every_s=draw.choice([0.0, 30.0]),
        redeploy_every_s=draw.choice([0.0, 20.0]),
        split_every_s=several.choice([0.0, 15.0]),
        gateways=several.choice([1, 1, 2, 3]),
        hop_s=several.choice([0.001, 0.01]),
        rolls=Random(f"{seed}/rolls").random() < 0.7,
        policy=Policy(
            templates=draw.random() < 0.8,
            template_idle_s=draw.choice([5.0, 120.0]),
            template_memory_share=draw.choice([0.5, 0.15]),
        ),
        min_replicas=scaling.choice([0, 0, 1]),
        idle_s=scaling.choice([0.0, 0.0, 600.0]),
        queue=queue(seed),
        node_gpus=Random(f"{seed}/devices").choice([0, 0, 0, 2, 4]),
        gang_every=Random(f"{seed}/gangs").choice([0, 0, 2, 2, 3]),
    )
    if drawn.queue is not None and drawn.gang_every:
        # All members of a gang have to start: with more failures than that one of several hardly ever does.
        few = {"fail_start": min(behaviour.fail_start, 0.1), "hang_start": min(behaviour.hang_start, 0.01)}
        behaviour = msgspec.structs.replace(behaviour, **few)
        drawn = msgspec.structs.replace(drawn, behaviour=behaviour)
    if drawn.gateways == 1 and several.random() < 0.5:
        drawn = msgspec.structs.replace(drawn, hop_s=0.0)
    if Random(f"{seed}/calm").random() < 0.1:
        drawn = _calm(drawn)
    return _eventful(drawn, Random(f"{seed}/least"))


def _behaviour(draw: Random, link: Random, hanging: Random) -> Behaviour:
    return Behaviour(
        start_s=draw.choice([0.2, 2.0, 10.0]),
        fork_s=draw.choice([0.005, 0.05]),
        fail_start=draw.choice([0.0, 0.1, 0.4]),
        hang_start=hanging.choice([0.0, 0.0, 0.05]),
        refuse_fork=draw.choice([0.0, 0.2]),
        lose_order=draw.choice([0.0, 0.3]),
        repeat_order=link.choice([0.0, 0.3]),
        delay_order_s=link.choice([0.0, 0.05, 20.0]),
        repeat_fact=draw.choice([0.0, 0.3]),
        delay_fact_s=draw.choice([0.0, 0.05]) * link.choice([1, 1, 100]),
    )


def queue(seed: int) -> QueueSettings | None:
    """The calls that are queued; in one of four scenarios there are none."""
    draw = Random(f"{seed}/queued")
    if draw.random() < 0.25:
        return None
    often, told = draw.choice([0.5, 1.0]), Random(f"{seed}/told")
    # Runners are away for long, again and again, and nothing else disturbs what they work on.
    lasting = Random(f"{seed}/long")
    away = lasting.random() < 0.2
    fates = Fates(
        work_s=draw.choice([0.01, 0.3, 2.0]),
        long=0.5 if away else lasting.choice([0.0, 0.1]),
        raises=draw.choice([0.0, 0.2]),
        hangs=draw.choice([0.0, 0.02]),
        kills=draw.choice([0.0, 0.05]),
        breaks=Random(f"{seed}/breaks").choice([0.0, 0.05]),
        heeds=told.choice([0.0, 1.0, 1.0]),
        lingers_s=told.choice([0.0, 3.0]),
        gang_times=told.choice([1.0, 10.0, 30.0]),
    )
    weather = Weather(
        delay_s=draw.choice([0.001, 0.05]), reorder=draw.choice([0.0, 0.1]), repeat=draw.choice([0.0, 0.1])
    )
    settings = QueueSettings(
        rate=draw.choice([0.1, 0.5]),
        fates=fates,
        weather=weather,
        sqlite=draw.random() < 0.06,
        cancelled=draw.choice([0.0, 0.1]),
        cancelled_at_work=Random(f"{seed}/cancels").choice([0.0, 0.1, 0.4]),
        delayed=draw.choice([0.0, 0.3]),
        slow_disk_s=draw.choice([0.1, 2.0]),
        power_cut_every_s=often * draw.choice([0.0, 40.0]),
        control_kill_every_s=often * draw.choice([0.0, 30.0]),
        runner_kill_every_s=often * draw.choice([0.0, 20.0]),
        partition_every_s=often * draw.choice([0.0, 30.0]),
        slow_disk_every_s=often * draw.choice([0.0, 40.0]),
        full_disk_every_s=often * draw.choice([0.0, 40.0]),
    )
    if away:
        calm = {"power_cut_every_s": 0.0, "control_kill_every_s": 0.0, "runner_kill_every_s": 0.0}
        settings = msgspec.structs.replace(settings, partition_every_s=10.0, **calm)
    return settings


def _calm(drawn: Scenario) -> Scenario:
    """The same where nothing fails and there is room for all; still redeployed, and control still crashes."""
    replace = msgspec.structs.replace
    behaviour = replace(drawn.behaviour, fail_start=0.0, hang_start=0.0, lose_order=0.0, delay_order_s=0.0)
    return replace(
        drawn,
        behaviour=behaviour,
        node_cpu=256.0,
        node_memory_mib=1024 * 1024,
        node_gpus=0,
        work_s=min(drawn.work_s, 0.5),
        hold_s=600.0,
        hold_max=1000,
        hold_bytes_max=2**28,
        timeout_s=60.0,
        gateway_partition_s=SHORT_S,
        **{f"{what.replace(' ', '_')}_every_s": 0.0 for what in DISTURBING},
        queue=QueueSettings() if drawn.queue is not None else None,
    )


def _eventful(drawn: Scenario, chance: Random) -> Scenario:
    """The same, for longer where little happens, with three kinds of faults at least that are sure to come: what is
    added disturbs nobody for long."""
    requests = drawn.rate * sum(drawn.gang(number) is None for number in range(drawn.workloads))
    calls = drawn.queue.rate * drawn.workloads if drawn.queue is not None else 0.0
    busy_s = min(max(drawn.busy_s, ENOUGH / (requests + calls)), BUSY_MAX_S)
    drawn = msgspec.structs.replace(drawn, busy_s=busy_s)
    come = sum(1 for what, period_s in drawn.periods.items() if period_s and what in KINDS)
    mild = [("control_crash_every_s", 30.0), ("gateway_partition_every_s", 30.0), ("clock_set_every_s", 40.0)]
    chance.shuffle(mild)
    for name, period_s in mild:
        if come < KINDS_MIN and not getattr(drawn, name):
            drawn, come = msgspec.structs.replace(drawn, **{name: period_s}), come + 1
    return drawn


def run(seed: int) -> Outcome:
    """One seed's whole run."""
    return Cluster(seed, scenario(seed)).run()
