"""What does the gateway's door cost: knowing a key, holding limits, counting for `/metrics`? By CPU time, in turn.

The same echo without key and limits, with an API key, and with a key and limits of rate and concurrency on it and on
the function; and once more without any, while nothing is counted. That cannot be turned off, but in a gateway which was
started with `apps/switched`. All are of one gateway, and each difference is of slices of the same round.
"""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench import APPS
from bench.row import Options, Row, row
from bench.wrk import HEADERS, Door, measured, wrk
from private_swell import Failed, PrivateSwell, private_swell, wait_until

CONNECTIONS = 16
BODY = json.dumps({"values": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]})
LIMITS = ("--rate", "1000000/s", "--concurrency", "1000")
WARM_UP_S = 1
SLICE_S = 1
"""Short, so that what is compared is near: what else a machine does comes and goes."""

UNCOUNTED, OPEN, KEY, BOUNDED = "no key, nothing counted", "no key", "an API key", "a key and limits"
DIFFERENCES = {
    "of it: metrics": (OPEN, UNCOUNTED),
    "of it: auth": (KEY, OPEN),
    "of it: limits": (BOUNDED, KEY),
    "metrics, limits and auth together": (BOUNDED, UNCOUNTED),
}
GOAL = "≤ 6"
"""Of all together."""
NOTE = "what a request does for /metrics (Count.add) does nothing"


def run(options: Options) -> list[Row]:
    """CPU µs of the gateway by request, each way in, and what one costs more than another."""
    wrk()
    path = os.pathsep.join(filter(None, (str(APPS / "switched"), os.environ.get("PYTHONPATH"))))
    with private_swell({**os.environ, "PYTHONPATH": path}) as here:
        doors = _doors(here)
        for door in doors:
            measured(door, CONNECTIONS, WARM_UP_S)
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds(36, 3)):
            for door in doors:
                seen[door.name].append(_cpu_us(here, door))
    return rows_of(seen)


def rows_of(seen: Mapping[str, Sequence[float]]) -> list[Row]:
    """What was seen of each way in, and by how much one was dearer than another in the same round."""
    rows = [row("door", f"CPU per request, gateway: {name}", "µs", seen[name]) for name in (OPEN, KEY, BOUNDED)]
    rows.append(row("door", f"CPU per request, gateway: {UNCOUNTED}", "µs", seen[UNCOUNTED], note=NOTE))
    for what, (dear, cheap) in DIFFERENCES.items():
        more = [one - other for one, other in zip(seen[dear], seen[cheap], strict=True)]
        rows.append(row("door", what, "µs", more, "" if what.startswith("of it") else GOAL))
    return rows


def _cpu_us(here: PrivateSwell, door: Door) -> float:
    """The gateway's, by request, in some moments of one way in."""
    counts = door.name != UNCOUNTED
    os.kill(door.pids["gateway"], signal.SIGUSR2 if counts else signal.SIGUSR1)
    before = _counted(here)
    used = measured(door, CONNECTIONS, SLICE_S).cpu_us["gateway"]
    if (_counted(here) > before) != counts:
        raise Failed("what was to count for /metrics did not, or what was not to did")
    return used


def _doors(here: PrivateSwell) -> list[Door]:
    here.run("deploy", str(APPS / "door_app.py"))
    wait_until("two ready replicas", lambda: [r["phase"] for r in here.serving()] == ["ready"] * 2)
    gateway = {"gateway": here.server("gateway")}

    def door(name: str, function: str, key: str = "") -> Door:
        headers = {**HEADERS, "Authorization": f"Bearer {key}"} if key else HEADERS
        return Door(name, here.port, f"/call/bench-door/{function}", BODY, gateway, headers)

    return [
        door(UNCOUNTED, "double"),
        door(OPEN, "double"),
        door(KEY, "double", _key(here, "plain")),
        door(BOUNDED, "bounded", _key(here, "bounded", *LIMITS)),
    ]


def _key(here: PrivateSwell, name: str, *limits: str) -> str:
    made = json.loads(here.run("key", "create", name, "--scope", "call:default/bench-door", "--json", *limits))
    return str(made["key"])


def _counted(here: PrivateSwell) -> float:
    """Requests to the app's functions, by its metrics."""
    with here.connect() as client:
        lines = client.get("/metrics").body.decode().splitlines()
    ours = [line for line in lines if line.startswith("swell_requests_total{") and 'app="bench-door"' in line]
    return sum(float(line.split()[-1]) for line in ours)
