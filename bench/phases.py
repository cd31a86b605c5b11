"""Where does the CPU time of one wake go?

The platform's processes are read from outside before the request, at its answer and once its replica is gone:
each has its own part in a wake, so that process and half are the phase. The replica is one process with many
phases, and reads its own CPU clock at their ends. All figures are means, since means add up.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from statistics import fmean

from bench.kernel import children_cpu_s, cpu_s
from bench.row import Row, row
from private_swell import SERVERS, PrivateSwell, wait_until

OVER_S = 1.6
"""A replica with a second to idle is gone by then. Nobody asks meanwhile: asking would be counted."""
GONE_S = 30.0

TO_ANSWER = {
    "gateway": "take in, hold, tell; pass on, answer",
    "control": "plan, order, table",
    "runner": "group, socket, pipe, hand over; report",
    "template": "take the order up, fork",
}
AFTER = {
    "gateway": "record",
    "control": "log, plan the stop",
    "runner": "meter, drain, clean up",
    "template": "reap",
}


def rows(here: PrivateSwell, target: str, arguments: object, wakes: int) -> list[Row]:
    """CPU ms per wake of `target`, which answers with its own clock (`wake_app.Stamped`), by phase and in sum."""
    app = target.partition("/")[0]
    with here.connect() as client:
        client.call(target, arguments)
        wait_until("a loaded template", here.parked)
        pids = {**{name: here.server(name) for name in SERVERS}, "template": here.replicas()[0]["pid"]}
        others = [one.pid for one in here.processes() if one.pid not in pids.values()]
        unseen = len(_left_ms(here, app))
        reaped_s = children_cpu_s(pids["template"])
        spent: dict[str, list[float]] = defaultdict(list)
        for _ in range(wakes):
            begun = _clocks(pids)
            others_s = sum(map(cpu_s, others))
            stamps = client.call(target, arguments).value
            answered = _clocks(pids)
            time.sleep(OVER_S)
            over = _clocks(pids)
            for name in pids:
                spent[f"to the answer: {name}"].append(answered[name] - begun[name])
                spent[f"after it: {name}"].append(over[name] - answered[name])
            spent["others"].append((sum(map(cpu_s, others)) - others_s) * 1000)
            for name, ms in stamps.items():
                spent[name].append(ms)
            wait_until("the replica is gone", here.parked, GONE_S)
    mean = {name: fmean(values) for name, values in spent.items()}
    mean["left"] = fmean(_left_ms(here, app)[unseen:])
    replica = (children_cpu_s(pids["template"]) - reaped_s) * 1000 / wakes
    return _told(mean, replica)


def _told(mean: dict[str, float], replica_ms: float) -> list[Row]:
    by_phase = [(f"{name}: {what}", mean[f"to the answer: {name}"], "") for name, what in TO_ANSWER.items()]
    by_phase += [
        ("replica: fork to @enter", mean["woken"], "limits, event loop, first touch of shared pages"),
        ("replica: listen, take the request in", mean["called"] - mean["woken"], ""),
        ("replica: run", mean["found"] - mean["called"], "the prediction"),
    ]
    after = [(f"{name}, after: {what}", mean[f"after it: {name}"], "") for name, what in AFTER.items()]
    after[0] = (*after[0][:2], f"until {OVER_S:g} s after the answer, what it costs to be there included")
    after.append(("replica, after: answer, drain, @exit", mean["left"] - mean["found"], ""))
    phases_ms = sum(ms for _, ms, _ in by_phase + after)
    servers_ms = sum(mean[f"{half}: {name}"] for half in ("to the answer", "after it") for name in TO_ANSWER)
    processes_ms = servers_ms + replica_ms + mean["others"]
    note = "what no phase has: the end of the replica's process, the supervisor"
    return [
        *(row("wake", f"CPU, {name}", "ms", [ms], note=why) for name, ms, why in by_phase + after),
        row("wake", "CPU per wake, sum to the answer", "ms", [sum(ms for _, ms, _ in by_phase)]),
        row("wake", "CPU per wake, sum of the phases", "ms", [phases_ms]),
        row("wake", "CPU per wake, sum of the processes", "ms", [processes_ms], note=note),
    ]


def _clocks(pids: dict[str, int]) -> dict[str, float]:
    """CPU ms so far."""
    return {name: cpu_s(pid) * 1000 for name, pid in pids.items()}


def _left_ms(here: PrivateSwell, app: str) -> list[float]:
    """What each replica that is over read last of its clock: it is in the log."""
    lines = map(json.loads, here.run("logs", app, "--json", "--tail", "100000").splitlines())
    return [float(line["text"]) for line in lines if line["stream"] == "out"]
