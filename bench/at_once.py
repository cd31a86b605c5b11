"""What if a hundred parked models are called in the same moment?

Each service is a class with the model of wake_app in a template of its own. All have to be answered; how soon the
last one can be is bounded by the CPU time that all of it takes, shared by the cores.
"""

from __future__ import annotations

import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import fmean

from bench.apps.wake_app import Loaded, Model
from bench.kernel import cores, family_cpu_s, memory_mib
from bench.row import Row, quantile, row
from private_swell import Client, PrivateSwell, private_swell, wait_until

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


def rows(arguments: object, services: int, rounds: int) -> list[Row]:
    """Request to answer of every service, `rounds` times all at once; and what bounds it."""
    ms: list[float] = []
    last: list[float] = []
    floor: list[float] = []
    each: list[float] = []
    with private_swell(template_idle_s=3600, template_memory_share=SHARE) as here, ExitStack() as stack:
        private_mib = _park(here, arguments, services)
        clients = [stack.enter_context(here.connect()) for _ in range(services)]
        pids = [one.pid for one in here.processes()]
        for _ in range(rounds):
            before_s, own_s = family_cpu_s(pids), time.process_time()
            begun = time.perf_counter()
            ms += _call_all(clients, arguments)
            last.append((time.perf_counter() - begun) * 1000)
            own_ms = (time.process_time() - own_s) * 1000
            # The replicas are there still, and began at zero.
            used_ms = (family_cpu_s(one.pid for one in here.processes()) - before_s) * 1000
            each.append(used_ms / services)
            floor.append((used_ms + own_ms) / cores())
            wait_until("all parked again", lambda: here.parked(services), pause_s=1)
    what = f"{services} models at once"
    shared = f"of which the template's {private_mib:.0f} MiB are private"
    return [
        row("wake", f"{what}, request to answer", "ms", ms, note=f"all answered; each its own template, {shared}"),
        row("wake", f"{what}, p99", "ms", [quantile(ms, 0.99)]),
        row("wake", f"{what}, the last one", "ms", last),
        row("wake", f"{what}, CPU per wake", "ms", each, note="all processes, to the last answer"),
        row("wake", f"{what}, that CPU on {cores()} cores", "ms", floor, note="the client's included"),
    ]


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


def _call_all(clients: list[Client], arguments: object) -> list[float]:
    """Every service over a connection of its own, in the same moment. Whatever is not answered 200 is Failed."""
    together = threading.Barrier(len(clients))

    def call(number: int) -> float:
        together.wait()
        return clients[number].call(f"{APP}/Service{number}.predict", arguments).ms

    with ThreadPoolExecutor(len(clients)) as callers:
        return list(callers.map(call, range(len(clients))))
