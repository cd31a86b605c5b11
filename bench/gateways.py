"""What do several gateways add, and what does it cost where they contend? One process at the port beside two, in turn.

Where client and replicas keep all cores busy, two answer no more requests than one: what is to be seen then is the CPU
time of each request, which must not grow. With one slot for all the gateways take turns, and a request has a question
more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import ExitStack
from typing import NamedTuple

from bench import APPS
from bench.kernel import cores
from bench.row import Options, Row, row
from bench.wrk import Door, Slice, measured, wrk
from private_swell import PrivateSwell, private_swell, wait_until

GATEWAYS = (1, 2)
REPLICAS = 5
CONNECTIONS = 32
BODY = json.dumps({"values": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]})
CASES = {"double": "four replicas", "one": "one slot for all"}
WARM_UP_S = 1


class Server(NamedTuple):
    """One with so many gateways."""

    gateways: int
    doors: dict[str, Door]


def run(options: Options) -> list[Row]:
    """RPS, and CPU time of all gateways and all replicas by request."""
    wrk()
    with ExitStack() as opened:
        servers = [_server(opened.enter_context(private_swell(gateways=number)), number) for number in GATEWAYS]
        rows: list[Row] = []
        for case, words in CASES.items():
            seen: dict[int, list[Slice]] = defaultdict(list)
            for server in servers:
                measured(server.doors[case], CONNECTIONS, WARM_UP_S)
            for _ in range(options.rounds(7, 2)):
                for server in servers:
                    slice = measured(server.doors[case], CONNECTIONS, options.rounds(3, 1))
                    seen[server.gateways].append(slice)
            rows += _rows(seen, words)
        return rows


def _rows(seen: dict[int, list[Slice]], case: str) -> list[Row]:
    rows = []
    note = f"{cores()} cores, client and replicas included; {CONNECTIONS} connections"
    for number, slices in seen.items():
        what = f"{case}, {number} gateway{'s' if number > 1 else ''}"
        rows.append(row("gateways", what, "req/s", [one.rps for one in slices], note=note))
        for who in ("gateway", "replica"):
            used = [sum(us for name, us in one.cpu_us.items() if name.startswith(who)) for one in slices]
            rows.append(row("gateways", f"  CPU per request: {who}{'s' if who == 'replica' else ''}", "µs", used))
        note = ""
    return rows


def _server(here: PrivateSwell, gateways: int) -> Server:
    here.run("deploy", str(APPS / "gateways_app.py"))
    wait_until("all replicas", lambda: [r["phase"] for r in here.serving()] == ["ready"] * REPLICAS)
    pids = {f"gateway {number}": pid for number, pid in enumerate(here.servers("gateway"))}
    doors = {}
    for case in CASES:
        mine = [r["pid"] for r in here.serving() if r["workload"].endswith(f"/{case}")]
        replicas = {f"replica {number}": pid for number, pid in enumerate(mine)}
        doors[case] = Door(case, here.port, f"/call/bench-gateways/{case}", BODY, {**pids, **replicas})
    assert len(pids) == gateways
    return Server(gateways, doors)
