"""Where does a benchmark run? On a Swell of its own, in a temporary directory, stopped at the end.

`python examples/census.py` explains how its processes are told from all others.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APPS = Path(__file__).with_name("apps")
sys.path.insert(0, str(ROOT / "examples"))

from census import Process, mark, processes  # noqa: E402 - found through the line above

WAIT_S = 300.0
SERVERS = ("control", "gateway", "runner")


class BenchError(Exception):
    """A part could not be measured, and why."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; `ms` from sending the request to having read it."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    ms: float

    @property
    def phases_ms(self) -> dict[str, float]:
        """Server-Timing as milliseconds by name."""
        found = {}
        for entry in self.headers.get("server-timing", "").split(","):
            name, *parameters = (word.strip() for word in entry.split(";"))
            for word in parameters:
                if word.startswith("dur="):
                    found[name] = float(word[4:])
        return found


class Platform:
    """A running Swell: its command line, its HTTP door, and its processes seen from outside."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SWELL_")}
        self.environ = {**clean, **mark(home), "SWELL_PORT": str(self.port)}

    def swell(self, *words: str, wait_s: float = WAIT_S) -> str:
        """What the command printed."""
        command = [str(Path(sys.executable).with_name("swell")), *words]
        try:
            done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=wait_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"`swell {' '.join(words)}` was not done after {wait_s:g} s") from None
        if done.returncode:
            raise BenchError(f"`swell {' '.join(words)}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def connect(self) -> Client:
        """A kept-alive connection to the gateway."""
        return Client(self.port, (self.home / "key").read_text().strip())

    def server(self, name: str) -> int:
        """The pid of one of our own processes: control, gateway or runner."""
        for one in self.processes():
            if name in one.command.split() or f"swell.runtime.{name}" in one.command:
                return one.pid
        raise BenchError(f"no {name} among {', '.join(map(str, self.processes()))}")

    def processes(self) -> list[Process]:
        """All of its processes, oldest first."""
        return processes(self.home)

    def replicas(self) -> list[dict[str, Any]]:
        """What `swell ps --json` lists."""
        with self.connect() as client:
            listed: list[dict[str, Any]] = json.loads(client.get("/api/replicas").body)
        return listed

    def serving(self) -> list[dict[str, Any]]:
        """Replicas that take, took or will take traffic."""
        return [one for one in self.replicas() if one["role"] == "serving"]

    def parked(self, templates: int = 1) -> bool:
        """Loaded templates, this many, and nothing else."""
        listed = self.replicas()
        return len(listed) == templates and all(r["role"] == "template" and r["phase"] == "ready" for r in listed)


class Client:
    """One kept-alive HTTP connection to a gateway."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self._key = f"Bearer {key}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> Answer:
        """GET; BenchError unless it is answered 200."""
        return self._send("GET", path, b"", "application/json")

    def call(self, target: str, arguments: object = None, body: bytes | None = None) -> Answer:
        """Call `app/function` with JSON arguments, or with one `bytes`; BenchError unless it is answered 200."""
        if body is not None:
            return self._send("POST", f"/call/{target}", body, "application/octet-stream")
        return self._send("POST", f"/call/{target}", json.dumps(arguments or {}).encode(), "application/json")

    def _send(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        begun = time.perf_counter()
        self._connection.request(method, path, body, {"Authorization": self._key, "Content-Type": content_type})
        response = self._connection.getresponse()
        content = response.read()
        ms = (time.perf_counter() - begun) * 1000
        if response.status != 200:
            raise BenchError(f"{method} {path} was answered {response.status}: {content[:500]!r}")
        return Answer(response.status, content, {k.lower(): v for k, v in response.getheaders()}, ms)


@contextmanager
def platform(**settings: object) -> Iterator[Platform]:
    """A Swell with these policy settings; ended, whatever happens, and its directory removed."""
    home = Path(tempfile.mkdtemp(prefix="swb", dir="/tmp"))
    here = Platform(home)
    chosen = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    try:
        here.swell("up", "-d", *chosen)
        yield here
    finally:
        try:
            here.swell("down")
        finally:
            if left := here.processes():
                sys.stderr.write(f"bench: left over after `swell down`: {', '.join(map(str, left))}\n")
            shutil.rmtree(home, ignore_errors=True)


def wait_until(what: str, holds: Callable[[], bool], wait_s: float = WAIT_S, pause_s: float = 0.02) -> None:
    """Ask until it holds; BenchError after a while."""
    until = time.monotonic() + wait_s
    while not holds():
        if time.monotonic() > until:
            raise BenchError(f"{what}: not after {wait_s:g} s")
        time.sleep(pause_s)


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, all its threads, from the scheduler's own nanoseconds."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return _ticks_s(pid, 11, 12)


def children_cpu_s(pid: int) -> float:
    """CPU seconds of the children it has waited for, and theirs (kernel ticks, usually 10 ms)."""
    return _ticks_s(pid, 13, 14)


def _ticks_s(pid: int, *fields: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(values[field]) for field in fields) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> dict[str, float]:
    """`rss`, `pss` and `private` memory of a process, MiB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        sizes[name.rstrip(":")] = int(value) / 1024
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "private": sizes["Private_Clean"] + sizes["Private_Dirty"]}
