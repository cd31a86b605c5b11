"""What if a hundred parked models are called in the same moment?

Each service is a class with the model of wake_app in a template of its own. All have to be answered; how soon the
last one can be is bounded by the CPU time that all of it takes, shared by the cores. So each round is set beside its
own CPU time, and it is told where the time of its last answer went.
"""

from __future__ import annotations

import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import fmean
from typing import NamedTuple

from bench.apps.wake_app import Loaded, Model
from bench.kernel import cores, family_cpu_s, memory_mib
from bench.row import Row, quantile, row
from private_swell import Answer, Client, PrivateSwell, private_swell, wait_until

APP = "bench-crowd"
MEMORY_MIB = 64
"""What each service asks for, for its template and for its replica: together they hold about twice that."""
SHARE = 0.8
"""Of the node's memory, for templates: a hundred of these want 10 GiB."""
SERVICE = """

@app.cls(scaledown_window=10, enable_memory_snapshot=True, memory={memory_mib})
class Service{number}(Loaded):
    '''One of many.'''
"""


class Round(NamedTuple):
    """All services, called once at the same time."""

    ms: list[float]
    """From request to answer, of each."""
    last_ms: float
    """From the first request to the last answer."""
    last_phases_ms: dict[str, float]
    """Where the time of the one that took longest went."""
    wake_cpu_ms: float
    """CPU per wake of all processes of the platform."""
    cpu_ms: float
    """In sum, the client's included."""


def rows(arguments: object, services: int, rounds: int) -> list[Row]:
    """Request to answer of every service, `rounds` times all at once; and what bounds it."""
    seen: list[Round] = []
    with private_swell(template_idle_s=3600, template_memory_share=SHARE) as here, ExitStack() as stack:
        private_mib = _park(here, arguments, services)
        clients = [stack.enter_context(here.connect()) for _ in range(services)]
        for _ in range(rounds):
            seen.append(_round(here, clients, arguments))
            wait_until("all parked again", lambda: here.parked(services), pause_s=1)
    what = f"{services} models at once"
    shared = f"of which the template's {private_mib:.0f} MiB are private"
    every = [ms for one in seen for ms in one.ms]
    last = [one.last_ms for one in seen]
    bound = [one.cpu_ms / cores() for one in seen]
    over = [ms / least for ms, least in zip(last, bound, strict=True)]
    phases = {name: [one.last_phases_ms.get(name, 0.0) for one in seen] for name in seen[0].last_phases_ms}
    return [
        row("wake", f"{what}, request to answer", "ms", every, note=f"all answered; each its own template, {shared}"),
        row("wake", f"{what}, p99", "ms", [quantile(every, 0.99)], note=f"of all {len(every)}: the slowest round's"),
        row("wake", f"{what}, the last one", "ms", last, note="of each round"),
        *(row("wake", f"  of it: {name}", "ms", values) for name, values in phases.items()),
        row("wake", f"{what}, CPU per wake", "ms", [one.wake_cpu_ms for one in seen], note="without the client"),
        row("wake", f"{what}, that CPU on {cores()} cores", "ms", bound, note="with it; to the last answer"),
        row("wake", f"{what}, the last one by that", "×", over, note="1: no core was idle, or at others' work"),
    ]


def _round(here: PrivateSwell, clients: list[Client], arguments: object) -> Round:
    """All services once, in the same moment."""
    before_s, own_s = family_cpu_s(one.pid for one in here.processes()), time.process_time()
    begun = time.perf_counter()
    answers = _call_all(clients, arguments)
    last_ms = (time.perf_counter() - begun) * 1000
    own_ms = (time.process_time() - own_s) * 1000
    # The replicas are there still, and began at zero.
    used_ms = (family_cpu_s(one.pid for one in here.processes()) - before_s) * 1000
    slowest = max(answers, key=lambda one: one.ms)
    return Round([one.ms for one in answers], last_ms, slowest.phases_ms, used_ms / len(clients), used_ms + own_ms)


def _park(here: PrivateSwell, arguments: object, services: int) -> float:
    """Deploy and call each once, as many at a time as there are cores; returns the private MiB of a template."""
    file = here.scratch / "crowd.py"
    file.write_text(_source(services))
    here.run("deploy", str(file))
    with ThreadPoolExecutor(cores()) as callers:
        list(callers.map(lambda number: _first_call(here, number, arguments), range(services)))
    wait_until("all parked", lambda: here.parked(services), pause_s=1)
    return fmean(memory_mib(one["pid"])["private"] for one in here.replicas())


def _source(services: int) -> str:
    head = f'"""Many models."""\n\nimport swell\n\napp = swell.App({APP!r})\n'
    head += "".join(f"\n\n{inspect.getsource(part)}" for part in (Model, Loaded))
    return head + "".join(SERVICE.format(number=number, memory_mib=MEMORY_MIB) for number in range(services))


def _first_call(here: PrivateSwell, number: int, arguments: object) -> None:
    with here.connect() as client:
        client.call(f"{APP}/Service{number}.predict", arguments)


def _call_all(clients: list[Client], arguments: object) -> list[Answer]:
    """Every service over a connection of its own, in the same moment. Whatever is not answered 200 is Failed."""
    together = threading.Barrier(len(clients))

    def call(number: int) -> Answer:
        together.wait()
        return clients[number].call(f"{APP}/Service{number}.predict", arguments)

    with ThreadPoolExecutor(len(clients)) as callers:
        return list(callers.map(call, range(len(clients))))
