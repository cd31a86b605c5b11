"""How long does a request wait for a model that is not running?

From a template, in turn with a bare fork of a process with the same imports; the CPU time of such a wake by
phase; from nothing, beside it; and a hundred models at once.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import APPS, ROOT, at_once, phases
from bench.row import Options, Row, quantile, row
from private_swell import Answer, PrivateSwell, private_swell, wait_until

PIXELS = {"pixels": [0.5] * 64}
GONE_S = 30.0


def run(options: Options) -> list[Row]:
    """Wakes from a template, from a fresh process, and many at once."""
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "wake_app.py"))
        rows = _parked(here, options)
        rows += _fresh(here, options)
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "wake_app.py"))
        rows += phases.rows(here, "bench-wake/Stamped.predict", PIXELS, options.rounds(60, 5))
    return rows + at_once.rows(PIXELS, services=options.rounds(100, 6), rounds=options.rounds(3, 1))


def _parked(here: PrivateSwell, options: Options) -> list[Row]:
    with here.connect() as client:
        client.call("bench-wake/Parked.predict", PIXELS)
    wait_until("a loaded template", here.parked)
    wakes: list[Answer] = []
    bare: list[float] = []
    with here.connect() as client, _bare() as fork:
        for _ in range(options.rounds(200, 10)):
            wakes.append(client.call("bench-wake/Parked.predict", PIXELS))
            bare.append(fork())
            wait_until("the replica is gone", here.parked, GONE_S)
    ms = [one.ms for one in wakes]
    over = [wake - fork for wake, fork in zip(ms, bare, strict=True)]
    by_phase: dict[str, list[float]] = defaultdict(list)
    for one in wakes:
        for name, value in one.phases_ms.items():
            by_phase[name].append(value)
    return [
        row("wake", "bare fork, connect, answer", "ms", bare, note="same imports, same prediction"),
        row("wake", "from a template, request to answer", "ms", ms),
        row("wake", "over the bare fork", "ms", over, "≤ 15", note="each wake less the bare fork right after it"),
        row("wake", "p99 of the bare fork", "ms", [quantile(bare, 0.99)], note=f"of all {len(bare)}"),
        row("wake", "p99 from a template", "ms", [quantile(ms, 0.99)], note=f"of all {len(ms)}"),
        *(row("wake", f"  of it: {name}", "ms", values) for name, values in by_phase.items()),
    ]


def _fresh(here: PrivateSwell, options: Options) -> list[Row]:
    """The same model without a template."""
    answers = []
    with here.connect() as client:
        for _ in range(options.rounds(20, 3)):
            answers.append(client.call("bench-wake/Fresh.predict", PIXELS).ms)
            wait_until("the replica is gone", lambda: not here.serving(), GONE_S)
    return [row("wake", "fresh process, no template", "ms", answers)]


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
