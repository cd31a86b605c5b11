"""What do tests of variants deploy, and how do they look at what became of it?"""

from __future__ import annotations

import http.client
from pathlib import Path

from private_swell import Answer, PrivateSwell, exchange

PROGRAM = """
import os
import time
import swell

app = swell.App("zoo")

@app.cls(enable_memory_snapshot=True, scaledown_window=SCALEDOWN, max_containers=4)
class Model:
    name: str = swell.parameter()
    size: int = swell.parameter(default=3)
    loud: bool = swell.parameter(default=False)
    raw: bytes = swell.parameter(default=b"")

    @swell.enter(snap=True)
    def load(self):
        self.loaded = f"{self.name}/{self.size}/{self.loud}/{self.raw.hex()}"

    @swell.enter()
    def begin(self):
        self.begun = os.getpid()

    @swell.method()
    def told(self, more: str = "") -> list:
        return [VERSION, self.loaded, more, self.begun == os.getpid()]

    @swell.method()
    def items(self, n: int):
        for i in range(n):
            yield f"{self.name} {i}"

    @swell.method()
    def pid(self) -> int:
        return os.getpid()

    @swell.method()
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    @swell.method()
    def fails(self, file: str) -> int:
        with open(file, "a") as notes:
            notes.write(".")
        tries = len(open(file).read())
        if tries < 3:
            raise ConnectionError(f"try {tries}")
        return tries

    @swell.method()
    def wait(self, seconds: float) -> str:
        time.sleep(seconds)
        return self.name

    @swell.method()
    def goes_on(self, seconds: float) -> str:
        return goes_on(seconds)

    @swell.method()
    def until(self, gate: str) -> str:
        until(gate)
        return self.name

    @swell.method()
    def asks(self, name: str) -> list:
        return Model(name=name).told.remote("asked")

@app.cls(scaledown_window=SCALEDOWN)
class Site:
    name: str = swell.parameter()

    @swell.asgi_app()
    def page(self):
        async def answer(scope, receive, send):
            if scope["type"] == "http":
                said = f"{self.name} {scope['path'].removeprefix(scope['root_path'])} {scope['query_string'].decode()}"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": said.encode()})
        return answer

def until(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)

@app.cls(scaledown_window=SCALEDOWN)
class Tool:
    init: str = swell.parameter(default="none", init=False)

    @swell.method()
    def work(self, gates):
        # At work until its gate is there: of a batch, until all are.
        batch = isinstance(gates, list)
        for gate in gates if batch else [gates]:
            until(gate)
        return [len(gates)] * len(gates) if batch else os.getpid()

@app.function(scaledown_window=SCALEDOWN)
def work(gates):
    batch = isinstance(gates, list)
    for gate in gates if batch else [gates]:
        until(gate)
    return [len(gates)] * len(gates) if batch else os.getpid()

@app.function(scaledown_window=SCALEDOWN)
def fails(file: str) -> int:
    with open(file, "a") as notes:
        notes.write(".")
    tries = len(open(file).read())
    if tries < 3:
        raise ConnectionError(f"try {tries}")
    return tries

def goes_on(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        swell.progress()
        time.sleep(0.01)
    return "went on"

@app.function(scaledown_window=SCALEDOWN, timeout=60, name="goes_on")
def goes(seconds: float) -> str:
    return goes_on(seconds)

@app.function(scaledown_window=SCALEDOWN, timeout=60)
def variable(name: str, seconds: float = 0.0) -> str | None:
    time.sleep(seconds)
    return os.environ.get(name)
"""


def deploy(own: PrivateSwell, folder: Path, version: int = 1, scaledown: int = 4, **changed: str) -> None:
    text = PROGRAM.replace("VERSION", str(version)).replace("SCALEDOWN", str(scaledown))
    for old, new in changed.items():
        text = text.replace(old, new)
    (folder / "zoo.py").write_text(text)
    own.run("deploy", str(folder / "zoo.py"))


def workloads(own: PrivateSwell, *roles: str) -> set[str]:
    return {one["workload"] for one in own.replicas() if one["role"] in (roles or ("serving", "template"))}


def written(own: PrivateSwell) -> set[str]:
    """The variants that are listed with the app."""
    (app,) = [row for row in own.get("/api/apps") if row["name"] == "zoo"]
    return {row["written"] for row in app["workloads"] if "~" in row["name"]}


def at_work(own: PrivateSwell) -> list[int]:
    """Inputs of each replica of a variant that is ready, as many as it works on."""
    there = [one for one in own.serving() if "~" in one["workload"] and one["phase"] == "ready"]
    return sorted(one["in_flight"] for one in there)


def post(own: PrivateSwell, path: str, body: str = "{}", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=120)
    try:
        return exchange(connection, "POST", path, body.encode(), {"content-type": "application/json", **headers})
    finally:
        connection.close()
