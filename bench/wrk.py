"""How many requests a second does a server answer, and what CPU time does each take? By wrk, slice by slice."""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bench import APPS
from bench.kernel import cpu_s
from private_swell import Failed, free_port, wait_until

HEADERS = {"Content-Type": "application/json"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Door(NamedTuple):
    """What a client may call, and the processes that work for the answer."""

    name: str
    port: int
    path: str
    body: str
    pids: dict[str, int]
    headers: dict[str, str] = HEADERS


class Slice(NamedTuple):
    """A few seconds of load: requests per second, and CPU µs per request of each process and of the client."""

    rps: float
    cpu_us: dict[str, float]


def wrk() -> str:
    """Where it is."""
    found = shutil.which("wrk")
    if found is None:
        raise Failed("wrk is not here, and nothing else is as light. As root: apt-get install wrk")
    return found


def measured(door: Door, connections: int, seconds: int) -> Slice:
    """Some seconds of requests, every one of them answered 200."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in door.headers.items())
        script.write(f"wrk.method = 'POST'\nwrk.body = '{door.body}'\n{headers}\n")
        script.flush()
        url = f"http://127.0.0.1:{door.port}{door.path}"
        words = [wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, url]
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


@contextmanager
def floor(module: str, path: str, body: str) -> Iterator[Door]:
    """A bare uvicorn worker (uvloop, httptools) with an application of bench/apps, BLAS on one thread."""
    port = free_port()
    words = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
    words = ["-m", "uvicorn", f"{module}:app", "--app-dir", str(APPS), "--host", "127.0.0.1", *words]
    with listening([sys.executable, *words], port, path, body) as pid:
        yield Door("floor", port, path, body, {"floor": pid})


@contextmanager
def listening(words: list[str], port: int, path: str, body: str) -> Iterator[int]:
    """A process that answers there, BLAS on one thread; its pid. What it prints is shown if it never answered."""
    with tempfile.TemporaryFile() as printed:
        server = subprocess.Popen(
            words, env={**os.environ, **ONE_THREAD}, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            wait_until(f"{words[1]} answers", lambda: _answers(port, path, body), wait_s=60, pause_s=0.2)
        except Failed as error:
            printed.seek(0)
            raise Failed(f"{error}; it printed:\n{printed.read().decode(errors='replace')}") from error
        else:
            yield server.pid
        finally:
            # With the processes that it started.
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(port: int, path: str, body: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, body, HEADERS)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
