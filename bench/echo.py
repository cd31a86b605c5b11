"""What does a warm call cost? Gateway and one replica, beside a bare uvicorn, in turn.

Eight numbers in JSON are doubled by a plain `def`, with policy, metering and logs on. The floor is one
uvicorn worker (uvloop, httptools) with an `async def` that does the same.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench import APPS, ROOT
from bench.kernel import cpu_s
from bench.load import Load
from bench.row import Options, Row, row
from private_swell import Failed, PrivateSwell, free_port, private_swell, wait_until

TARGET = "bench-echo/double"
PATH = f"/call/{TARGET}"
BODY = json.dumps({"values": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]})
CONNECTIONS = (1, 16, 64)


def run(options: Options) -> list[Row]:
    """RPS beside the floor, CPU per request, and the tail at a fixed rate."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Failed("wrk is not here, and nothing else is as light. As root: apt-get install wrk")
    with private_swell() as here, floor() as floor_port:
        here.run("deploy", str(APPS / "echo_app.py"))
        with here.connect() as client:
            client.call(TARGET, json.loads(BODY))
        wait_until("one ready replica", lambda: [r["phase"] for r in here.serving()] == ["ready"])
        rows, floor_rps = _throughput(wrk, here, floor_port, options)
        return rows + _tail(here.port, floor_port, floor_rps / 2, options)


def _throughput(wrk: str, here: PrivateSwell, floor_port: int, options: Options) -> tuple[list[Row], float]:
    """Slices in turn; each ratio is of two neighbours, so that a neighbour's load hits both."""
    replica = here.serving()[0]["pid"]
    gateway = here.server("gateway")
    seconds = options.rounds(3, 1)
    rows: list[Row] = []
    floor_at_16 = 0.0
    for connections in CONNECTIONS:
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds(7, 2)):
            floor_rps = _slice(wrk, floor_port, connections, seconds)
            before = cpu_s(gateway), cpu_s(replica)
            ours_rps = _slice(wrk, here.port, connections, seconds)
            requests = ours_rps * seconds
            seen["floor"].append(floor_rps)
            seen["ours"].append(ours_rps)
            seen["ratio"].append(ours_rps / floor_rps)
            seen["gateway"].append((cpu_s(gateway) - before[0]) / requests * 1e6)
            seen["replica"].append((cpu_s(replica) - before[1]) / requests * 1e6)
        at = f", {connections} connection{'s' if connections > 1 else ''}"
        goals = {"gateway": "≤ 20", "replica": "≤ 40", "ratio": "≥ 1.2"} if connections == 16 else {}
        rows += [
            row("echo", f"floor{at}", "req/s", seen["floor"]),
            row("echo", f"through the gateway{at}", "req/s", seen["ours"]),
            row("echo", f"of the floor{at}", "×", seen["ratio"], goals.get("ratio", "")),
            row("echo", f"CPU of the gateway per request{at}", "µs", seen["gateway"], goals.get("gateway", "")),
            row("echo", f"CPU of the replica per request{at}", "µs", seen["replica"], goals.get("replica", "")),
        ]
        if connections == 16:
            floor_at_16 = sorted(seen["floor"])[len(seen["floor"]) // 2]
    return rows, floor_at_16


def _tail(port: int, floor_port: int, rate: float, options: Options) -> list[Row]:
    """The 99th percentile at half of what the floor can do, in turn."""
    tails: dict[str, list[Load]] = {"floor": [], "through the gateway": []}
    for _ in range(options.rounds(5, 1)):
        for name, at in (("floor", floor_port), ("through the gateway", port)):
            tails[name].append(_fixed_rate(at, rate, options.rounds(5, 2)))
    rows = []
    for name, seen in tails.items():
        lost = sum(one.sent - one.answered for one in seen)
        note = f"{rate:,.0f} req/s; the client itself late by {max(one.late_ms for one in seen):.1f} ms"
        note += f"; {lost} not answered" if lost else ""
        rows.append(row("echo", f"p50 at half the floor's rate, {name}", "ms", [one.p50_ms for one in seen]))
        rows.append(row("echo", f"p99 at half the floor's rate, {name}", "ms", [one.p99_ms for one in seen], note=note))
    return rows


def _slice(wrk: str, port: int, connections: int, seconds: int) -> float:
    """Requests per second, every one of them answered 200."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = 'wrk.headers["Content-Type"] = "application/json"'
        script.write(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\n{headers}\n")
        script.flush()
        url = f"http://127.0.0.1:{port}{PATH}"
        words = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, url]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    if bad := re.search(r"Non-2xx.*|Socket errors:.*", done.stdout):
        raise Failed(f"wrk saw {bad.group()} at {url}")
    found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    if found is None:
        raise Failed(f"wrk said:\n{done.stdout}{done.stderr}")
    return float(found.group(1))


def _fixed_rate(port: int, rate: float, seconds: int) -> Load:
    words = ["--port", str(port), "--path", PATH, "--body", BODY, "--rate", f"{rate:.0f}", "--seconds", str(seconds)]
    done = subprocess.run([sys.executable, "-m", "bench.load", *words], cwd=ROOT, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Load)


@contextmanager
def floor() -> Iterator[int]:
    """The bare uvicorn; its port."""
    port = free_port()
    words = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "floor:app", "--app-dir", str(APPS), "--host", "127.0.0.1", *words]
    )
    try:
        wait_until("the floor listens", lambda: _answers(port), wait_s=30, pause_s=0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", PATH, BODY)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
