"""What does a warm call cost? Gateway and one replica, beside a bare uvicorn and a bare proxy, in turn.

Eight numbers in JSON are doubled by a plain `def`, with policy, metering and logs on. The floor is one
uvicorn worker (uvloop, httptools) with an `async def` that does the same. The bare proxy passes bytes to the same
replica and looks at none: what it costs more, the gateway costs for what it does.
"""

from __future__ import annotations

import http.client
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench import APPS, ROOT
from bench.kernel import cpu_s
from bench.load import Load
from bench.row import Options, Row, row
from private_swell import Failed, PrivateSwell, free_port, private_swell, wait_until
from swell.wire.paths import Home

TARGET = "bench-echo/double"
PATH = f"/call/{TARGET}"
PATH_AT_REPLICA = "/call/double"
HEADERS = {"Content-Type": "application/json"}
HEADERS_AT_REPLICA = {**HEADERS, "Swell-Request-Id": "bench", "Swell-Remaining-Ms": "60000"}
"""What the gateway would have added: the replica is to do the same work."""
BODY = json.dumps({"values": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]})
CONNECTIONS = (1, 16, 64)
GOALS_AT_16 = {"of the floor": "≥ 1.2", "gateway": "≤ 20", "replica": "≤ 40"}
WARM_UP_S = 1
"""For caches, first connections and whatever else happens once."""


class Door(NamedTuple):
    """What a client may call, and the processes that work for the answer."""

    name: str
    port: int
    path: str
    pids: dict[str, int]
    headers: dict[str, str] = HEADERS


class Slice(NamedTuple):
    """A few seconds of load: requests per second, and CPU µs per request of each process and of the client."""

    rps: float
    cpu_us: dict[str, float]


def run(options: Options) -> list[Row]:
    """RPS beside the floor, CPU per request, and the tail at a fixed rate."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Failed("wrk is not here, and nothing else is as light. As root: apt-get install wrk")
    with private_swell() as here, floor() as bare:
        here.run("deploy", str(APPS / "echo_app.py"))
        with here.connect() as client:
            client.call(TARGET, json.loads(BODY))
        wait_until("one ready replica", lambda: [r["phase"] for r in here.serving()] == ["ready"])
        with _proxy(here) as proxy:
            gateway = Door(
                "through the gateway", here.port, PATH, {"gateway": here.server("gateway"), **_replica(here)}
            )
            rows, floor_rps = _throughput(wrk, (proxy, bare, gateway), options)
        return rows + _tail((bare, gateway), floor_rps / 2, options)


def _throughput(wrk: str, doors: Sequence[Door], options: Options) -> tuple[list[Row], float]:
    """Slices in turn; each ratio is of neighbours, so that a neighbour's load hits both. Also the floor's rate."""
    for door in doors:
        _slice(wrk, door, max(CONNECTIONS), WARM_UP_S)
    rows: list[Row] = []
    floor_at_16 = 0.0
    for connections in CONNECTIONS:
        seen: dict[str, list[Slice]] = defaultdict(list)
        for _ in range(options.rounds(7, 2)):
            for door in doors:
                seen[door.name].append(_slice(wrk, door, connections, options.rounds(3, 1)))
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


def _slice(wrk: str, door: Door, connections: int, seconds: int) -> Slice:
    """Some seconds of requests, every one of them answered 200."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in door.headers.items())
        script.write(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n{headers}\n")
        script.flush()
        url = f"http://127.0.0.1:{door.port}{door.path}"
        words = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, url]
        before = _clocks_s(door)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        after = _clocks_s(door)
    if bad := re.search(r"Non-2xx.*|Socket errors:.*", done.stdout):
        raise Failed(f"wrk saw {bad.group()} at {url}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if rate is None or count is None:
        raise Failed(f"wrk said:\n{done.stdout}{done.stderr}")
    return Slice(
        float(rate.group(1)), {name: (after[name] - before[name]) / int(count.group(1)) * 1e6 for name in after}
    )


def _clocks_s(door: Door) -> dict[str, float]:
    """CPU seconds so far of those that work for its answers, and of all clients that are over."""
    clients = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**{name: cpu_s(pid) for name, pid in door.pids.items()}, "client": clients.ru_utime + clients.ru_stime}


def _fixed_rate(door: Door, rate: float, seconds: int) -> Load:
    where = ["--port", str(door.port), "--path", door.path, "--body", BODY]
    words = [sys.executable, "-m", "bench.load", *where, "--rate", f"{rate:.0f}", "--seconds", str(seconds)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Load)


@contextmanager
def floor() -> Iterator[Door]:
    """The bare uvicorn."""
    port = free_port()
    words = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
    words = ["-m", "uvicorn", "floor:app", "--app-dir", str(APPS), "--host", "127.0.0.1", *words]
    with _listening(words, port, PATH) as pid:
        yield Door("floor", port, PATH, {"floor": pid})


@contextmanager
def _proxy(here: PrivateSwell) -> Iterator[Door]:
    """The bare proxy, in front of the replica that the gateway uses."""
    port = free_port()
    socket = Home(Path(here.home)).replica_socket(here.serving()[0]["id"])
    words = ["--port", str(port), "--socket", str(socket), "--connections", str(max(CONNECTIONS))]
    with _listening([str(APPS / "proxy.py"), *words], port, PATH_AT_REPLICA) as pid:
        yield Door("bare proxy", port, PATH_AT_REPLICA, {"proxy": pid, **_replica(here)}, HEADERS_AT_REPLICA)


@contextmanager
def _listening(words: list[str], port: int, path: str) -> Iterator[int]:
    """A Python process that answers there; its pid."""
    server = subprocess.Popen([sys.executable, *words])
    try:
        wait_until(f"{words[0]} answers", lambda: _answers(port, path), wait_s=30, pause_s=0.2)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def _replica(here: PrivateSwell) -> dict[str, int]:
    return {"replica": here.serving()[0]["pid"]}


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, BODY)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
