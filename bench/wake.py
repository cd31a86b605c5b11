"""How long does a request wait for a model that is not running?

From a template, in turn with a bare fork of a process with the same imports; from nothing, beside it; and
a hundred services at once.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench import APPS, ROOT
from bench.crowd import source
from bench.kernel import children_cpu_s, cpu_s
from bench.row import Options, Row, quantile, row
from private_swell import SERVERS, Answer, PrivateSwell, private_swell, wait_until

PIXELS = {"pixels": [0.5] * 64}
GONE_S = 30.0
SETTLE_S = 0.1
"""For what is done after the answer to be counted too: records, reaping, metering."""


def run(options: Options) -> list[Row]:
    """Wakes from a template, from a fresh process, and many at once."""
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "wake_app.py"))
        rows = _parked(here, options)
        rows += _fresh(here, options)
    with private_swell(template_idle_s=600) as here:
        return rows + _at_once(here, options)


def _parked(here: PrivateSwell, options: Options) -> list[Row]:
    with here.connect() as client:
        client.call("bench-wake/Parked.predict", PIXELS)
    wait_until("a loaded template", here.parked)
    template = here.replicas()[0]["pid"]
    pids = {**{name: here.server(name) for name in SERVERS}, "template": template}
    wakes: list[Answer] = []
    bare: list[float] = []
    cpu_ms: dict[str, list[float]] = defaultdict(list)
    reaped_s = children_cpu_s(template)
    with here.connect() as client, _bare() as fork:
        for _ in range(options.rounds(200, 10)):
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            wakes.append(client.call("bench-wake/Parked.predict", PIXELS))
            time.sleep(SETTLE_S)
            for name, pid in pids.items():
                cpu_ms[name].append((cpu_s(pid) - before[name]) * 1000)
            bare.append(fork())
            wait_until("the replica is gone", here.parked, GONE_S)
    # A reaped child's CPU time is counted in ticks of 10 ms: only the mean of many means something.
    replica_ms = (children_cpu_s(template) - reaped_s) * 1000 / len(wakes)
    return [
        *_told(wakes, bare),
        *(row("wake", f"CPU per wake: {name}", "ms", values) for name, values in cpu_ms.items()),
        row("wake", "CPU per wake: replica", "ms", [replica_ms], note="its whole life; a mean, from kernel ticks"),
    ]


def _told(wakes: list[Answer], bare: list[float]) -> list[Row]:
    ms = [one.ms for one in wakes]
    over = statistics.median(ms) - statistics.median(bare)
    phases: dict[str, list[float]] = defaultdict(list)
    for one in wakes:
        for name, value in one.phases_ms.items():
            phases[name].append(value)
    return [
        row("wake", "bare fork, connect, answer", "ms", bare, note="same imports, same prediction"),
        row("wake", "from a template, request to answer", "ms", ms),
        Row("wake", "p50 over the bare fork", "ms", over, over, over, 1, "≤ 15"),
        Row("wake", "p99 of the bare fork", "ms", *[quantile(bare, 0.99)] * 3, 1),
        Row("wake", "p99 from a template", "ms", *[quantile(ms, 0.99)] * 3, 1),
        *(row("wake", f"  of it: {name}", "ms", values) for name, values in phases.items()),
    ]


def _fresh(here: PrivateSwell, options: Options) -> list[Row]:
    """The same model without a template."""
    answers = []
    with here.connect() as client:
        for _ in range(options.rounds(20, 3)):
            answers.append(client.call("bench-wake/Fresh.predict", PIXELS).ms)
            wait_until("the replica is gone", lambda: not here.serving(), GONE_S)
    return [row("wake", "fresh process, no template", "ms", answers)]


def _at_once(here: PrivateSwell, options: Options) -> list[Row]:
    """Parked services of a plain function, all called in the same moment."""
    count = options.rounds(100, 10)
    file = here.scratch / "crowd.py"
    file.write_text(source("bench-crowd", count, scaledown_window=2, enable_memory_snapshot=True))
    here.run("deploy", str(file))

    def call(number: int) -> float:
        with here.connect() as client:
            answer = client.call(f"bench-crowd/f{number}")
        if answer.value != number:
            raise AssertionError(f"f{number} answered {answer.body!r}")
        return answer.ms

    for number in range(count):
        call(number)
    wait_until("all parked", lambda: here.parked(count), pause_s=0.5)
    with ThreadPoolExecutor(count) as pool:
        ms = list(pool.map(call, range(count)))
    return [
        row("wake", f"{count} services at once, request to answer", "ms", ms, note="plain functions; all answered"),
        Row("wake", f"{count} services at once, p99", "ms", *[quantile(ms, 0.99)] * 3, 1),
    ]


@contextmanager
def _bare() -> Iterator[Callable[[], float]]:
    """A function that forks once in the process beside, and returns its milliseconds."""
    beside = subprocess.Popen(
        [sys.executable, "-m", "bench.bare"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert beside.stdin is not None
    assert beside.stdout is not None
    stdin, stdout = beside.stdin, beside.stdout
    stdout.readline()

    def fork() -> float:
        stdin.write("fork\n")
        stdin.flush()
        return float(stdout.readline())

    try:
        yield fork
    finally:
        stdin.close()
        beside.wait()
