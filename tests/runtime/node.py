"""A real runner process with a control stand-in around it, for tests: `async with Node() as node`."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import os
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import swell.model.node
from swell.control.link import ControlLink
from swell.model.environment import Environment
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.gang import Seat
from swell.model.orders import BuildReport, Inventory, Order, StartOrder, StopOrder
from swell.model.policy import Policy
from swell.model.replica import OVER, Phase, Role
from swell.model.request import Usage
from swell.model.workload import Entry, Method, Revision, pool_key
from swell.wire import link as wire
from swell.wire.paths import Home
from swell.wire.settings import Settings

PATIENCE_S = 60.0

numbers = itertools.count(1)


class Node:
    """A home, a control link and a runner; everything started is ended when the block is left."""

    def __init__(self, *flags: str, epoch: int = 1, **settings: Any) -> None:
        self.flags = flags
        self.settings = settings
        """Those that are not as usual."""
        self.home = Home(Path(tempfile.mkdtemp(prefix="sw", dir="/tmp")))
        self.epoch = epoch
        self.facts: list[NodeSeen | ReplicaSeen | Inventory] = []
        self.used: list[Usage] = []
        self.accounted: set[str] = set()
        """Replicas of which usage was told after their end, which is the last of it."""
        self.deployed: list[Revision] = []
        """What control says is wanted."""
        self.connected = asyncio.Event()
        self.runners: list[asyncio.subprocess.Process] = []
        self.hear: Callable[[Any], None] = lambda _fact: None

    # -- what control does with what it hears ------------------------------------------------

    def table(self) -> wire.Table:
        raise AssertionError("no gateway connects here")

    def heard_fact(self, fact: Any) -> None:
        self.facts.append(fact)
        self.hear(fact)
        if isinstance(fact, Inventory):
            self.connected.set()

    def heard_usage(self, rows: Sequence[Usage]) -> None:
        self.used.extend(rows)
        self.accounted |= {row.replica for row in rows if any(seen.phase in OVER for seen in self.seen(row.replica))}

    def runner_left(self, node: str) -> None:
        self.connected.clear()

    def heard_demand(self, *_: Any) -> None: ...

    def wanted(self) -> Sequence[Revision]:
        return self.deployed

    def heard_nothing_new(self, *_: Any) -> bool:
        return True

    def heard_requests(self, *_: Any) -> None: ...

    def gateway_left(self, *_: Any) -> None: ...

    # -- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        for folder in (self.home.run, self.home.blobs):
            folder.mkdir(parents=True)
        await self.open_link()
        await self.start_runner()
        await within(self.connected.wait())
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for runner in self.runners:
                if runner.returncode is None:
                    runner.send_signal(signal.SIGTERM)
                    await within(runner.wait())
            await self.link.close()
        finally:
            shutil.rmtree(self.home.root, ignore_errors=True)

    async def open_link(self) -> None:
        self.home.control_socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.home.control_socket))
        self.link = ControlLink(self.epoch, self, self.heard_fact)
        await self.link.serve(listening)

    async def restart_control(self, epoch: int) -> None:
        """As if control had died and a new one had come: another link, with another epoch."""
        await self.link.close()
        await self.until(lambda: not self.connected.is_set())
        self.epoch = epoch
        await self.open_link()
        await within(self.connected.wait())

    async def start_runner(self, **options: Any) -> None:
        self.runners.append(
            await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "swell.runtime.runner",
                    "--settings",
                    settings_json(self.home, **self.settings),
                ),
                *("--inventory-s", "0.2", *self.flags),
                **options,
            )
        )

    async def stop_runner(self) -> int:
        """SIGTERM; returns its exit status."""
        runner = self.runners[-1]
        runner.send_signal(signal.SIGTERM)
        return int(await within(runner.wait()))

    async def kill_runner(self) -> None:
        self.runners[-1].kill()
        await self.runners[-1].wait()
        await self.until(lambda: not self.connected.is_set())

    # -- orders ------------------------------------------------------------------------------

    def start(
        self,
        revision: Revision,
        role: Role = "serving",
        template: str | None = None,
        replica: str | None = None,
        seat: Seat | None = None,
        gpus: tuple[str, ...] = (),
    ) -> str:
        id = replica or f"r{self.epoch:x}-{next(numbers):x}"
        self.order(
            StartOrder(
                replica=id,
                pool=pool_key("default/app/f", revision.id),
                role=role,
                node="local",
                revision=revision,
                template=template,
                seat=seat,
                gpus=gpus,
            )
        )
        return id

    def stop(self, replica: str, reason: str = "idle", grace_s: float = 5.0) -> None:
        self.order(StopOrder(replica=replica, reason=reason, grace_s=grace_s))

    def order(self, order: Order, epoch: int | None = None) -> None:
        self.link.order(order, self.epoch if epoch is None else epoch, "local")

    async def build(self, revision: Revision, lines: list[str] | None = None) -> BuildReport:
        return await self.link.build(revision, (lines if lines is not None else []).append)

    # -- what is seen ------------------------------------------------------------------------

    def seen(self, replica: str) -> list[ReplicaSeen]:
        """By itself or, as it is told to a control that comes later, in an inventory."""
        told = (fact.replicas if isinstance(fact, Inventory) else (fact,) for fact in self.facts)
        seen = itertools.chain.from_iterable(told)
        return [one for one in seen if isinstance(one, ReplicaSeen) and one.replica == replica]

    def nodes(self) -> list[swell.model.node.Node]:
        """What was said of the node, each time."""
        return [fact.node for fact in self.facts if isinstance(fact, NodeSeen)]

    async def ready(self, replica: str) -> ReplicaSeen:
        """Its report of being ready; fails at once when it ends before."""
        seen = await self._first(replica, {Phase.READY, *OVER})
        assert seen.phase is Phase.READY, seen
        return seen

    async def gone(self, replica: str) -> ReplicaSeen:
        return await self._first(replica, OVER)

    async def _first(self, replica: str, phases: Any) -> ReplicaSeen:
        def found() -> list[ReplicaSeen]:
            return [seen for seen in self.seen(replica) if seen.phase in phases]

        await self.until(found)
        return found()[0]

    async def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain; heard {self.facts[-5:]}"
            await asyncio.sleep(0.01)

    # -- programs ----------------------------------------------------------------------------

    def revision(self, source: str, qualname: str = "f", **options: Any) -> Revision:
        """A revision whose bundle is one module, `app`, with this text. Names of hooks come in `enter`, …"""
        entry_options = {name: options.pop(name) for name in ("enter", "enter_snap", "exit") if name in options}
        kind = "cls" if qualname[0].isupper() else "function"
        methods = tuple(Method(name) for name in options.pop("methods", ["f"]))
        variables = (("WHO", "me"), *options.pop("variables", ()))
        environment = Environment(
            interpreter=sys.executable, python="3.11", variables=variables, **options.pop("environment", {})
        )
        return Revision(
            environment=environment,
            bundle=self.bundle({"app.py": textwrap.dedent(source)}),
            entry=Entry(module="app", qualname=qualname, kind=kind, methods=methods, **entry_options),
            **options,
        )

    def bundle(self, files: dict[str, str]) -> str:
        """Put a bundle of these files; returns its digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        digest = "sha256-" + hashlib.sha256(buffer.getvalue()).hexdigest()
        blob = self.home.blobs / digest
        # As on a server: what is there is never written again, while somebody may read it.
        if not blob.exists():
            blob.write_bytes(buffer.getvalue())
        return digest

    def log(self) -> list[dict[str, Any]]:
        """Every line of the app's log file."""
        path = self.home.logs / "default" / "app.ndjson"
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def leftovers(self) -> list[str]:
        """What a stopped node must not leave: sockets, records, pipes."""
        folders = (self.home.replica_sockets, self.home.replica_records)
        return [str(path) for folder in folders for path in folder.iterdir()]


def settings_json(home: Home, **settings: Any) -> str:
    """What a runner is started with."""
    chosen = {"policy": Policy(stop_grace_s=5.0), **settings}
    return msgspec.json.encode(Settings(home=str(home.root), **chosen)).decode()


def run(scenario: Callable[[Node], Awaitable[None]], *flags: str, **settings: Any) -> None:
    """Play a scenario; at its end the runner stops as it should, and leaves nothing."""

    async def main() -> None:
        async with Node(*flags, **settings) as node:
            await scenario(node)
            if node.runners[-1].returncode is None:
                assert await node.stop_runner() == 0
            assert node.leftovers() == []

    asyncio.run(main())


async def call(address: str, method: str = "f", body: bytes = b"{}", remaining_ms: int = 20_000) -> tuple[int, Any]:
    """POST to a replica, which has so long to answer; returns (status, decoded JSON)."""
    reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    try:
        head = (
            f"POST /call/{method} HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nSwell-Request-Id: q1\r\n"
            f"Swell-Remaining-Ms: {remaining_ms}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await within(reader.read())
    finally:
        writer.close()
    headers, _, content = answer.partition(b"\r\n\r\n")
    return int(headers.split()[1]), msgspec.json.decode(content)


async def within(awaitable: Any, seconds: float = PATIENCE_S) -> Any:
    return await asyncio.wait_for(awaitable, seconds)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)
