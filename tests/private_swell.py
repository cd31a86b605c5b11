"""A Swell of one's own: in a temporary directory, on a free port, with nothing left of it afterwards.

The tests, the benchmarks and the demo run on it:

    with private_swell(template_idle_s=5) as swell, swell.connect() as client:
        swell.run("deploy", "hello.py")
        print(client.call("hello/greet", {"name": "Ada"}).value)

It also counts the platform's processes without asking the platform: it is started with `TMPDIR` in its own
directory, and that variable is handed down to every process, templates and replicas included, however deep.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAIT_S = 300.0
"""For one command or one answer."""
SERVERS = ("control", "gateway", "runner")
JSON = "application/json"
OCTETS = "application/octet-stream"


class Failed(Exception):
    """Something that was to happen did not; the words say what."""


@dataclass(frozen=True)
class Process:
    """One process that is running now. Pid and start time together name it for ever."""

    pid: int
    started: float
    """Seconds since the machine started (since the epoch where there is no /proc)."""
    command: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `headers` are in lower case; `ms` is from sending the request to having read it."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    ms: float

    @property
    def value(self) -> Any:
        """The body, from JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """Of a refusal the error's fields, as docs/wire.md lists them."""
        return self.value["error"]

    @property
    def request(self) -> str:
        """The request's id, as `swell why` and `swell logs --request` take it."""
        return self.headers["swell-request-id"]

    @property
    def phases_ms(self) -> dict[str, float]:
        """Server-Timing as milliseconds by name: `held;dur=41.2, run;dur=380` → {"held": 41.2, "run": 380.0}."""
        found = {}
        for entry in self.headers.get("server-timing", "").split(","):
            name, *parameters = (word.strip() for word in entry.split(";"))
            for word in parameters:
                if word.startswith("dur="):
                    found[name] = float(word[4:])
        return found


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    """One request and its answer, whatever that is."""
    begun = time.perf_counter()
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    ms = (time.perf_counter() - begun) * 1000
    return Answer(response.status, content, {name.lower(): value for name, value in response.getheaders()}, ms)


class Client:
    """One kept-alive connection to a gateway. Whatever is not answered 200 is Failed."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self._key = f"Bearer {key}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> Answer:
        """GET a path."""
        return self._send("GET", path, b"", JSON)

    def call(self, target: str, arguments: object = None, body: bytes | None = None) -> Answer:
        """Call `app/function` with JSON arguments, or with one `bytes`."""
        if body is not None:
            return self._send("POST", f"/call/{target}", body, OCTETS)
        return self._send("POST", f"/call/{target}", json.dumps(arguments or {}).encode(), JSON)

    def _send(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        headers = {"Authorization": self._key, "Content-Type": content_type}
        try:
            answer = exchange(self._connection, method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {path} broke: {error!r}") from None
        if answer.status != 200:
            said = answer.body[:2000].decode(errors="replace")
            raise Failed(f"{method} {path} was answered {answer.status}: {said}")
        return answer


class PrivateSwell:
    """One platform: its command line, its HTTP door, and its processes seen from outside."""

    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self.home = home
        self.port = free_port()
        self.scratch = home / "tmp"
        self.scratch.mkdir(mode=0o700, parents=True)
        plain = {name: value for name, value in environ.items() if name not in ("SWELL_URL", "SWELL_HOST")}
        beside = Path(sys.executable).parent
        self.environ = {
            **plain,
            "PATH": f"{beside}:{plain.get('PATH', os.defpath)}",
            "SWELL_HOME": str(home),
            "SWELL_PORT": str(self.port),
            "TMPDIR": str(self.scratch),
        }

    def run(self, *words: str, wait_s: float = WAIT_S) -> str:
        """What `swell …` printed; Failed with its own words if it did not succeed."""
        shown = f"swell {' '.join(words)}"
        try:
            done = subprocess.run(["swell", *words], env=self.environ, capture_output=True, text=True, timeout=wait_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"`{shown}` was not done after {wait_s:g} s") from None
        if done.returncode:
            raise Failed(f"`{shown}` failed with code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def connect(self) -> Client:
        """A new connection to its gateway."""
        return Client(self.port, (self.home / "key").read_text().strip())

    def get(self, path: str) -> Any:
        """What a path answers, from JSON. To ask again and again a command takes too much of a machine."""
        with self.connect() as client:
            return client.get(path).value

    def replicas(self) -> list[dict[str, Any]]:
        """What it says is there: templates and serving replicas, as `swell ps --json` prints them."""
        listed: list[dict[str, Any]] = self.get("/api/replicas")
        return listed

    def serving(self) -> list[dict[str, Any]]:
        """The replicas that take, took or will take traffic."""
        return [one for one in self.replicas() if one["role"] == "serving"]

    def parked(self, templates: int = 1) -> bool:
        """Is there this many loaded templates, and nothing else?"""
        listed = self.replicas()
        return len(listed) == templates and all(r["role"] == "template" and r["phase"] == "ready" for r in listed)

    def processes(self) -> list[Process]:
        """What is really there: every live process of this platform, oldest first."""
        return sorted(_marked(f"TMPDIR={self.scratch}"), key=lambda one: (one.started, one.pid))

    def server(self, name: str) -> int:
        """The pid of one of the platform's own processes: control, gateway (the oldest), runner or grpc."""
        for pid in self.servers(name):
            return pid
        raise Failed(f"there is no {name} among {', '.join(map(str, self.processes())) or 'no process at all'}")

    def servers(self, name: str) -> list[int]:
        """The pids of all of that name, the oldest first: there may be several gateways."""
        found = (
            one for one in self.processes() if name in one.command.split() or f"swell.runtime.{name}" in one.command
        )
        return [one.pid for one in found]

    def log(self, lines: int = 20) -> str:
        """The end of what the platform's own processes had to say."""
        file = self.home / "logs" / "swell.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""


@contextmanager
def private_swell(environ: Mapping[str, str] = os.environ, **settings: object) -> Iterator[PrivateSwell]:
    """A running platform with these policy settings. At the end it is stopped, counted and removed."""
    with unstarted_swell(environ) as swell:
        swell.run("up", "-d", *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")))
        yield swell


@contextmanager
def unstarted_swell(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> Iterator[PrivateSwell]:
    """The same, for whoever wants to start it; Failed if any process of it is left at the end.

    `home`: a new or empty directory for its state, which stays there; without, a temporary one that does not.
    """
    # Short, since the paths of unix sockets below it may not be long.
    swell = PrivateSwell(home or Path(tempfile.mkdtemp(prefix="sw", dir="/tmp")), environ)
    try:
        yield swell
    finally:
        try:
            if swell.processes():
                swell.run("down")
            wait_until(f"no process of {swell.home} left", lambda: not swell.processes(), wait_s=120)
        finally:
            shutil.rmtree(swell.scratch if home else swell.home, ignore_errors=True)


def wait_until(what: str, holds: Callable[[], object], wait_s: float = WAIT_S, pause_s: float = 0.02) -> None:
    """Ask until it holds; Failed after a while."""
    until = time.monotonic() + wait_s
    while not holds():
        if time.monotonic() > until:
            raise Failed(f"{what}: not after {wait_s:g} s")
        time.sleep(pause_s)


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _marked(mark: str) -> Iterator[Process]:
    """Processes, other than this one, that have the mark in their environment."""
    found = _from_proc(mark) if Path("/proc/self/environ").exists() else _from_ps(mark)
    return (one for one in found if one.pid != os.getpid())


def _from_proc(mark: str) -> Iterator[Process]:
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark.encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        yield Process(int(entry.name), int(fields[19]) / ticks, command)


def _from_ps(mark: str) -> Iterator[Process]:
    """Without /proc (macOS): `ps` shows the environment of one's own processes."""
    words = ["ps", "-Eaxww", "-o", "pid=,lstart=,command="]
    listed = subprocess.run(words, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        pid, *started, command = line.split(None, 6)
        if mark in command.split():
            yield Process(int(pid), time.mktime(time.strptime(" ".join(started))), command)
