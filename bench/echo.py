"""What does a warm call cost? Gateway and one replica, beside a bare uvicorn and a bare proxy, in turn.

Eight numbers in JSON are doubled by a plain `def`, with policy, metering and logs on. The floor is one
uvicorn worker (uvloop, httptools) with an `async def` that does the same. The bare proxy passes bytes to the same
replica and looks at none: what it costs more, the gateway costs for what it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from bench import APPS, ROOT
from bench.load import Load
from bench.row import Options, Row, row
from bench.wrk import HEADERS, Door, Slice, floor, listening, measured, wrk
from private_swell import PrivateSwell, free_port, private_swell, wait_until
from swell.wire.paths import Home

TARGET = "bench-echo/double"
PATH = f"/call/{TARGET}"
PATH_AT_REPLICA = "/call/double"
HEADERS_AT_REPLICA = {**HEADERS, "Swell-Request-Id": "bench", "Swell-Remaining-Ms": "60000"}
"""What the gateway would have added: the replica is to do the same work."""
BODY = json.dumps({"values": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]})
CONNECTIONS = (1, 16, 64)
GOALS_AT_16 = {"of the floor": "≥ 1.2", "gateway": "≤ 20", "replica": "≤ 40"}
WARM_UP_S = 1
"""For caches, first connections and whatever else happens once."""


def run(options: Options) -> list[Row]:
    """RPS beside the floor, CPU per request, and the tail at a fixed rate."""
    wrk()
    with private_swell() as here, floor("floor", PATH, BODY) as bare:
        here.run("deploy", str(APPS / "echo_app.py"))
        with here.connect() as client:
            client.call(TARGET, json.loads(BODY))
        wait_until("one ready replica", lambda: [r["phase"] for r in here.serving()] == ["ready"])
        with _proxy(here) as proxy:
            gateway = Door(
                "through the gateway", here.port, PATH, BODY, {"gateway": here.server("gateway"), **_replica(here)}
            )
            rows, floor_rps = _throughput((proxy, bare, gateway), options)
        return rows + _tail((bare, gateway), floor_rps / 2, options)


def _throughput(doors: Sequence[Door], options: Options) -> tuple[list[Row], float]:
    """Slices in turn; each ratio is of neighbours, so that a neighbour's load hits both. Also the floor's rate."""
    for door in doors:
        measured(door, max(CONNECTIONS), WARM_UP_S)
    rows: list[Row] = []
    floor_at_16 = 0.0
    for connections in CONNECTIONS:
        seen: dict[str, list[Slice]] = defaultdict(list)
        for _ in range(options.rounds(7, 2)):
            for door in doors:
                seen[door.name].append(measured(door, connections, options.rounds(3, 1)))
        rows += _rows(seen, connections)
        if connections == 16:
            floor_at_16 = median(one.rps for one in seen["floor"])
    return rows, floor_at_16


def _rows(seen: dict[str, list[Slice]], connections: int) -> list[Row]:
    goals = GOALS_AT_16 if connections == 16 else {}
    at = f", {connections} connection{'s' if connections > 1 else ''}"
    rows = [row("echo", f"{name}{at}", "req/s", [one.rps for one in slices]) for name, slices in seen.items()]
    ours = seen["through the gateway"]
    ratios = [one.rps / bare.rps for one, bare in zip(ours, seen["floor"], strict=True)]
    rows.append(row("echo", f"of the floor{at}", "×", ratios, goals.get("of the floor", "")))
    for name, slices in seen.items():
        for process in slices[0].cpu_us:
            what = f"CPU per request, {name}: {process}{at}"
            goal = goals.get(process, "") if slices is ours else ""
            rows.append(row("echo", what, "µs", [one.cpu_us[process] for one in slices], goal))
    return rows


def _tail(doors: Sequence[Door], rate: float, options: Options) -> list[Row]:
    """The 99th percentile at half of what the floor can do, in turn; what was not answered is in it, and told."""
    tails: dict[str, list[Load]] = defaultdict(list)
    for _ in range(options.rounds(5, 1)):
        for door in doors:
            tails[door.name].append(_fixed_rate(door, rate, options.rounds(5, 2)))
    at = "at half the floor's rate"
    rows = []
    for name, seen in tails.items():
        late, failed = [one.late_ms for one in seen], [one.failed for one in seen]
        rows += [
            row("echo", f"p50 {at}, {name}", "ms", [one.p50_ms for one in seen], note=f"{rate:,.0f} req/s"),
            row("echo", f"p99 {at}, {name}", "ms", [one.p99_ms for one in seen], note="from when each was due"),
            row("echo", f"  in it: the client late, p99, {name}", "ms", late),
            row("echo", f"failed {at}, {name}", "", failed, note=f"of {seen[0].sent:,} each time"),
        ]
    return rows


def _fixed_rate(door: Door, rate: float, seconds: int) -> Load:
    where = ["--port", str(door.port), "--path", door.path, "--body", BODY]
    words = [sys.executable, "-m", "bench.load", *where, "--rate", f"{rate:.0f}", "--seconds", str(seconds)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Load)


@contextmanager
def _proxy(here: PrivateSwell) -> Iterator[Door]:
    """The bare proxy, in front of the replica that the gateway uses."""
    port = free_port()
    socket = Home(Path(here.home)).replica_socket(here.serving()[0]["id"])
    words = ["--port", str(port), "--socket", str(socket), "--connections", str(max(CONNECTIONS))]
    with listening([sys.executable, str(APPS / "proxy.py"), *words], port, PATH_AT_REPLICA, BODY) as pid:
        yield Door("bare proxy", port, PATH_AT_REPLICA, BODY, {"proxy": pid, **_replica(here)}, HEADERS_AT_REPLICA)


def _replica(here: PrivateSwell) -> dict[str, int]:
    return {"replica": here.serving()[0]["pid"]}
