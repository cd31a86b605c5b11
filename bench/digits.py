"""What does a small model cost, one picture a request: one by one, and in batches? Beside a bare uvicorn, and LitServe.

scikit-learn's MLPClassifier((100,)) on load_digits, BLAS on one thread everywhere. One by one at 16 connections; in
batches (at most 32, 5 ms) at 64, against the floor that does each by itself. LitServe is installed, when it is first
needed, into an environment of its own below bench/out; where that cannot be, it is left out and a line says so.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import APPS
from bench.row import Options, Row, row
from bench.wrk import Door, Slice, floor, listening, measured, wrk
from private_swell import Failed, PrivateSwell, free_port, private_swell, wait_until

PATH = "/predict"
PICTURE = [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0]
PICTURE += [0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0]
BODY = f'{{"pixels": {[value / 16 for value in PICTURE]}}}'
"""A nought."""
LITSERVE = "litserve==0.2.19"
OTHERS = Path(__file__).with_name("out") / "litserve"
WARM_UP_S = 2
CASES = (("Single", "one by one", 16, 1, "≥ 1.0"), ("Batched", "in batches of 32, 5 ms", 64, 32, "≥ 2.0"))
"""Class of the app, in words, connections, size of LitServe's batches, goal."""


def run(options: Options) -> list[Row]:
    """Requests per second of each, its ratio to the floor's, and CPU per request."""
    wrk()
    rows: list[Row] = []
    with private_swell() as here, floor("digits_floor", PATH, BODY) as bare:
        here.run("deploy", str(APPS / "digits_app.py"))
        for name, words, connections, size, goal in CASES:
            with ExitStack() as stack:
                doors = [bare, _swell(here, name), *_litserve(stack, size)]
                seen = _slices(doors, connections, options)
            rows += _rows(seen, f", {words}, {connections} connections", goal)
            if len(seen) < 3:
                rows.append(row("digits", f"LitServe {words}", "", [0.0], note="left out; why is on standard error"))
    return rows


def _swell(here: PrivateSwell, name: str) -> Door:
    """The gateway, and the one replica of this class."""
    target = f"/call/bench-digits/{name}.predict"

    def replicas() -> list[dict[str, object]]:
        return [one for one in here.serving() if one["workload"].endswith(f"/{name}") and one["phase"] == "ready"]

    wait_until(f"{name} is ready", lambda: len(replicas()) == 1, wait_s=60)
    pid = replicas()[0]["pid"]
    assert isinstance(pid, int)
    return Door("Swell", here.port, target, BODY, {"gateway": here.server("gateway"), "replica": pid})


def _litserve(stack: ExitStack, size: int) -> list[Door]:
    """LitServe, where it can be had."""
    python = OTHERS / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "-p", sys.executable, OTHERS], check=True)
        install = ["-q", "--python", python, LITSERVE, "scikit-learn>=1.5"]
        subprocess.run([sys.executable, "-m", "uv", "pip", "install", *install], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"bench: LitServe is left out: {error}\n")
        return []
    try:
        return [stack.enter_context(_other(python, size))]
    except Failed as error:
        sys.stderr.write(f"bench: LitServe is left out: {error}\n")
        return []


@contextmanager
def _other(python: Path, size: int) -> Iterator[Door]:
    port = free_port()
    words = [str(python), str(APPS / "digits_litserve.py"), str(port), str(size)]
    with listening(words, port, PATH, BODY) as pid:
        yield Door("LitServe", port, PATH, BODY, {"server": pid})


def _slices(doors: Sequence[Door], connections: int, options: Options) -> dict[str, list[Slice]]:
    """In turn, so that a neighbour's load hits all."""
    for door in doors:
        measured(door, connections, options.rounds(WARM_UP_S, 1))
    seen: dict[str, list[Slice]] = defaultdict(list)
    for _ in range(options.rounds(7, 2)):
        for door in doors:
            seen[door.name].append(measured(door, connections, options.rounds(3, 1)))
    return seen


def _rows(seen: dict[str, list[Slice]], at: str, goal: str) -> list[Row]:
    rows = [row("digits", f"{name}{at}", "req/s", [one.rps for one in slices]) for name, slices in seen.items()]
    bare = [one.rps for one in seen["floor"]]
    if not all(bare):
        raise Failed("the floor answered nothing")
    for name, slices in seen.items():
        if name != "floor":
            ratios = [one.rps / floor_rps for one, floor_rps in zip(slices, bare, strict=True)]
            rows.append(row("digits", f"{name} of the floor{at}", "×", ratios, goal if name == "Swell" else ""))
    for process in seen["Swell"][0].cpu_us:
        used = [one.cpu_us[process] for one in seen["Swell"]]
        rows.append(row("digits", f"CPU per request, Swell: {process}{at}", "µs", used))
    used = [one.cpu_us["floor"] for one in seen["floor"]]
    return [*rows, row("digits", f"CPU per request, floor{at}", "µs", used)]
