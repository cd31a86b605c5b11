"""How fast is a map over many inputs with nothing to do, and how much memory does it take, here and on the server?

The client is a process of its own. Peaks are those that the kernel noted of each process since it began.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench import APPS
from bench.row import Options, Row, row
from private_swell import Failed, PrivateSwell, private_swell

CLIENT = """
import resource, sys, time
import swell

inputs = int(sys.argv[1])
same = swell.Function.from_name("bench-map", "same")
for _ in same.map(range(100)):
    pass
begun = time.perf_counter()
count = sum(1 for at, result in enumerate(same.map(range(inputs))) if at == result)
per_s = count / (time.perf_counter() - begun)
assert count == inputs
print(f'{{"per_s": {per_s}, "peak_mib": {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}}')
"""
END_S = 1800.0


class Told(msgspec.Struct):
    """What the client found."""

    per_s: float
    """Inputs whose results came, in order."""
    peak_mib: float


def run(options: Options) -> list[Row]:
    """A map of 100,000 inputs, on a server that is new each time: its peak is of that map."""
    inputs, rounds = options.rounds(100_000, 2000), options.rounds(3, 1)
    told: list[Told] = []
    servers: dict[str, list[float]] = {"control": [], "gateway": [], "runner": []}
    for _ in range(rounds):
        with private_swell() as here:
            here.run("deploy", str(APPS / "map_app.py"))
            told.append(_map(here, inputs))
            for name, peaks in servers.items():
                peaks.append(_peak_mib(here.server(name)))
    what = f"map over {inputs} inputs with nothing to do"
    return [
        row("map", what, "1/s", [one.per_s for one in told], note="results in order, one replica"),
        row("map", f"{what}, peak of the client", "MiB", [one.peak_mib for one in told]),
        *(row("map", f"{what}, peak of {name}", "MiB", peaks) for name, peaks in servers.items()),
    ]


def _map(here: PrivateSwell, inputs: int) -> Told:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(inputs)],
        env={**os.environ, **here.environ},
        capture_output=True,
        text=True,
        timeout=END_S,
    )
    if done.returncode:
        raise Failed(f"the map failed:\n{done.stderr}")
    return msgspec.json.decode(done.stdout, type=Told)


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
