"""What do tests of the API talk to? A real server on a unix socket, before a desk."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import uvicorn
from desk import Desk

from swell.api.app import make_api
from swell.control.backups import BackupKeeper
from swell.control.kv import KvKeeper
from swell.control.secrets import SecretKeeper
from swell.control.volumes import VolumeKeeper
from swell.model.call import Body, GroupEnd, Members, Mine, State
from swell.model.environment import Environment
from swell.model.unknown import unknown_call
from swell.model.volume import Quota
from swell.model.workload import App, Entry, Method, Revision, Workload, app_of
from swell.model.world import World
from swell.store.blobs import BlobFolder
from swell.store.logs import lines
from swell.store.memory import MemoryStore
from swell.store.sealing import MasterKeySealer
from swell.store.snapshot import StateFolder
from swell.store.sqlite import SqliteStore
from swell.store.volumes import VolumeFolder
from swell.wire.api import Deploy, DeployLine
from swell.wire.call_rows import CallRow, Retried
from swell.wire.http import ErrorBody
from swell.wire.triggers import Backfilled, Fired, FiringRow, TriggerRow

KEY = "sk-" + "a" * 64
CALL_KEY = "sk-" + "c" * 64
WAIT_S = 60.0


class Now:
    def now(self) -> float:
        return time.time()


class Calls:
    """Queued calls, kept in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, CallRow] = {}
        self.bodies: dict[str, Body] = {}
        self.inputs: dict[str, Body] = {}
        self.files: dict[str, str] = {}
        """Those of large results, by digest."""
        self.asked: list[tuple[Any, ...]] = []
        self.askers: list[str] = []
        """Ids of the keys of those that may wait."""
        self.of_group: list[tuple[CallRow, GroupEnd]] = []
        """Of the one group that there is."""
        self.groups: dict[str, list[Members]] = {}
        self.problems: dict[str, ErrorBody] = {}

    async def whose(self, id: str) -> tuple[str, str, str] | None:
        row = self.kept.get(id)
        return (row.namespace, row.app, row.key) if row is not None else None

    async def row(self, id: str, wait_s: float = 0.0, by: str = "") -> CallRow | None:
        self.asked.append((id, wait_s))
        self.askers.append(by)
        return self.kept.get(id)

    async def rows(
        self,
        namespace: str,
        app: str,
        function: str,
        state: State | None,
        most: int,
        before: str,
        key: str | None,
        jobs: bool,
    ) -> list[CallRow]:
        self.asked.append((namespace, app, state, most, before, jobs))
        return [row for row in self.kept.values() if key in (None, row.key)]

    async def result(self, id: str) -> Body | None:
        return self.bodies.get(id)

    async def cancel(self, id: str, by: str) -> CallRow | None:
        self.asked.append(("cancel", id, by))
        return self.kept.get(id)

    async def input(self, id: str) -> Body | None:
        return self.inputs.get(id)

    async def remove(self, id: str) -> None:
        self.asked.append(("forget", id))

    async def retry(self, id: str, input: Body | None = None) -> CallRow | None:
        self.asked.append(("retry", id, input))
        return self.kept.get(id)

    async def retry_many(
        self, namespace: str, app: str, function: str, since: float, most: int, before: str, key: str | None
    ) -> Retried:
        self.asked.append(("retry", namespace, app, function, since, most, before, key))
        return Retried(2, "fc-0")

    async def ends(
        self, ids: Sequence[str], least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> tuple[Sequence[tuple[CallRow, Body | None]], Sequence[str]]:
        self.askers.append(by)
        self.asked.append((tuple(ids), least, wait_s))
        rows = [self.kept[id] for id in ids if id in self.kept]
        seen = {row.id: row for row in rows if mine(row.namespace, row.app, row.key)}
        ended = [(row, self.bodies.get(row.id)) for row in seen.values() if row.ended_at is not None]
        return ended, [id for id in ids if id not in seen]

    async def file(self, id: str, body: Body) -> str:
        if body.digest not in self.files:
            raise unknown_call(id)
        return self.files[body.digest]

    async def has_any(self, group: str, mine: Mine) -> bool:
        return any(mine(*app_of(each.workload), each.key) for each in self.groups.get(group, []))

    async def member(self, group: str, index: int, mine: Mine) -> CallRow | None:
        row = self.kept.get(f"fc-{index}") if group in self.groups else None
        return row if row is not None and mine(row.namespace, row.app, row.key) else None

    async def group_ends(
        self, group: str, after: int, most: int, least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> Sequence[tuple[CallRow, GroupEnd]]:
        self.asked.append((group, after, most, least, wait_s))
        self.askers.append(by)
        later = [each for each in self.of_group if each[1].number > after]
        return [(row, end) for row, end in later if mine(row.namespace, row.app, row.key)][:most]

    async def members(self, group: str, ended: bool) -> list[Members]:
        return [each for each in self.groups.get(group, []) if ended or each.open]

    def forget(self, group: str, key: str, number: int) -> None:
        self.asked.append(("forget", group, key, number))

    async def cancel_group(self, group: str, by: str, mine: Mine) -> bool:
        ids = [id for id, row in self.kept.items() if mine(row.namespace, row.app, row.key)]
        self.asked.append(("cancel", group, by, ids))
        return await self.has_any(group, mine)

    def problem(self, workload: str) -> ErrorBody | None:
        return self.problems.get(workload)


class Triggers:
    """Triggers that do nothing, and what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.found = [FIRING]

    async def rows(self, namespace: str, app: str) -> list[TriggerRow]:
        self.asked.append(("rows", namespace, app))
        return [TRIGGER]

    async def firings(self, *asked: Any) -> list[FiringRow]:
        self.asked.append(("firings", *asked))
        return self.found

    async def pause(self, *asked: Any) -> TriggerRow:
        self.asked.append(("pause", *asked))
        return TRIGGER

    async def fire(self, *asked: Any) -> Fired:
        self.asked.append(("fire", *asked))
        return Fired("fc-1")

    async def backfill(self, *asked: Any) -> Backfilled:
        self.asked.append(("backfill", *asked))
        return Backfilled(("fc-1",), 2)


TRIGGER = TriggerRow("default", "a", "f", "schedule", "every 1 hour", "once", 1.0, 3601.0)
FIRING = FiringRow("due 1", 1.0, 1.5, "schedule", "fc-1", "done")


class Server:
    """The API in a thread of its own, and a client that speaks to it."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk()
        self.logs = folder / "logs"
        self.blobs = BlobFolder(folder / "blobs", most=1_000_000)
        self.world = World()
        sealer = MasterKeySealer(folder / "master.key")
        self.secrets = SecretKeeper(MemoryStore().secrets, sealer, self.world, Now(), self.world.apply)
        quota = Quota(1_000_000, 100)
        files = VolumeFolder(folder / "volumes")
        self.volumes = VolumeKeeper(MemoryStore().volumes, files, self.world, Now(), quota)
        self.kv = KvKeeper(MemoryStore(), Now())
        self.calls = Calls()
        self.triggers = Triggers()
        home = folder / "state"
        SqliteStore(home / "control.db").close()
        (home / "key").write_text(KEY)
        self.held = asyncio.Lock()
        """Nothing is swept, since it is being backed up."""
        backups = BackupKeeper(StateFolder(home), self.held, Now(), "1.2.3")
        api = make_api(
            self.desk,
            self.blobs,
            partial(lines, self.logs),
            self.secrets,
            self.volumes,
            self.kv,
            self.calls,
            backups,
            self.triggers,
            key=KEY,
            call_key=CALL_KEY,
            version="1.2.3",
            allowed_hosts=["swell.example"],
            allowed_origins=["http://console.example"],
        )
        socket = str(folder / "api.sock")
        config = uvicorn.Config(api, uds=socket, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        started = threading.Event()
        while not self._server.started:
            assert self._thread.is_alive()
            started.wait(0.01)
        self.client = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=socket),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=WAIT_S,
        )

    def stop(self) -> bool:
        """True when the server ended by itself in time."""
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        return not self._thread.is_alive()

    def close(self) -> None:
        self.client.close()
        assert self.stop()


def error(response: httpx2.Response, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]


def put_blob(client: httpx2.Client, content: bytes) -> str:
    digest = "sha256-" + hashlib.sha256(content).hexdigest()
    assert client.put(f"/api/blobs/{digest}", content=content).status_code == 204
    return digest


def document(client: httpx2.Client, name: str = "a", blob: str = "") -> dict[str, Any]:
    revision = Revision(
        environment=Environment("/usr/bin/python3", "3.11"),
        bundle=blob or put_blob(client, b"source"),
        entry=Entry("mod", "f", "function", (Method("f"),)),
    )
    app = App("default", name, (Workload("default", name, "f", revision.id),), (revision,))
    return msgspec.to_builtins(Deploy(app))


def deploy(client: httpx2.Client, name: str) -> list[DeployLine]:
    response = client.post("/api/apps", json=document(client, name))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [msgspec.json.decode(line, type=DeployLine) for line in response.content.splitlines()]
