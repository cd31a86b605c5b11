"""Places that messages come from, each with its own server: to publish to, to take away and to give back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
import botocore.session
import nats
import postgres
from redis.asyncio import Redis

from debian import unpacked
from private_swell import free_port
from swell.model.source import Files, Message, NatsStream, Objects, RedisStream, Rows, SourceConfig, check
from swell.model.source_ports import Source
from swell.sources import made

WAIT_S = 60.0


class Place:
    """What a test does with one. Items are numbered; each example begins with a place where nothing is."""

    def __init__(self) -> None:
        self.examples = 0
        self.stack = ExitStack()

    def config(self) -> SourceConfig:
        raise AssertionError("each has one")

    def source(self) -> Source:
        check(self.config())
        return made(self.config())

    async def begin(self) -> None:
        """Make where the next example's items go."""
        self.examples += 1

    async def publish(self, numbers: Sequence[int]) -> None: ...

    async def stop(self) -> None:
        """Nobody reaches it any more."""

    async def start(self) -> None: ...

    def fault(self, kind: str) -> None:
        """Something goes wrong there soon, where that can be had."""

    def number(self, message: Message) -> int:
        """Of the item that came."""
        number: int = json.loads(message.body)["n"]
        return number

    def close(self) -> None:
        self.stack.close()


# -- one in memory, where anything can go wrong -------------------------------------------------


class Broker(Place):
    """Remembers what was acknowledged; hands out all else again to each who connects."""

    hold_s = 0.01

    async def begin(self) -> None:
        await super().begin()
        self.items: dict[str, int] = {}
        self.acknowledged: set[str] = set()
        self.handed: set[str] = set()
        self.up, self.open, self.handouts = True, False, 0
        self.faults: list[str] = []

    def source(self) -> Source:
        return self

    def fault(self, kind: str) -> None:
        self.faults = [kind]

    def _fails(self, *kinds: str) -> bool:
        if not self.up:
            raise ConnectionError("away")
        if self.faults and self.faults[0] in kinds:
            self.faults.clear()
            return True
        return False

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Broker]:
        assert after == ""
        assert not self.open, "one connection at a time"
        if self._fails("connect"):
            raise OSError("refused")
        self.open = True
        self.handed.clear()
        try:
            yield self
        finally:
            self.open = False
            if self._fails("close") if self.up else False:
                raise OSError("cannot even close")

    async def publish(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.items[f"id{number}"] = number

    async def stop(self) -> None:
        self.up = False

    async def start(self) -> None:
        self.up = True

    async def take(self, most: int) -> list[Message]:
        while True:
            await asyncio.sleep(0.001)
            if self._fails("cancelled"):
                raise asyncio.CancelledError
            if self._fails("again"):
                # As a broker that takes what it handed out for lost.
                self.handed.clear()
            waiting = [id for id in self.items if id not in self.handed and id not in self.acknowledged][:most]
            if self._fails("take"):
                self.handed |= {*waiting}
                raise OSError("handed out, and never arrived")
            if waiting:
                self.handed |= {*waiting}
                self.handouts += 1
                at = float(self.handouts)
                body = {id: json.dumps({"n": self.items[id]}).encode() for id in waiting}
                return [Message(id, body[id], "application/json", at, receipt=f"{id}/{at}") for id in waiting]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        await asyncio.sleep(0.001)
        if self._fails("acknowledge"):
            raise OSError("before it was written")
        self.acknowledged |= {each.id for each in messages}
        if self._fails("acknowledged"):
            raise OSError("after it was written")

    async def waiting(self) -> int | None:
        if self._fails("waiting"):
            raise PermissionError("nobody may ask that")
        return len(self.items) - len(self.handed | self.acknowledged)

    async def hold(self, messages: Sequence[Message]) -> None:
        assert messages
        if self._fails("hold"):
            raise OSError("lost")


# -- files and rows on disk ----------------------------------------------------------------------


class Folder(Place):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-files")))

    @property
    def inbox(self) -> Path:
        return self.folder / f"in{self.examples}"

    def config(self) -> Files:
        return Files(str(self.inbox), ("**/*.json",), settle_s=0.05, rescan_s=1.0)

    async def begin(self) -> None:
        await super().begin()
        (self.inbox / "deep").mkdir(parents=True)

    async def publish(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            path = self.inbox / ("deep" if number % 3 else ".") / f"{number}.json"
            # Aside, and then in its place at once: whoever reads it may be another process.
            aside = path.with_name(f".{number}")
            aside.write_text(json.dumps({"n": number}))
            aside.rename(path)
            # Another tick of the file system's clock: then their order is known.
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.inbox.rename(self.folder / "away")

    async def start(self) -> None:
        (self.folder / "away").rename(self.inbox)

    def number(self, message: Message) -> int:
        told = json.loads(message.body)
        number: int = json.loads(Path(told["path"]).read_text())["n"]
        assert told["uri"].startswith("file:///")
        return number


class Sqlite(Place):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-rows")))

    @property
    def file(self) -> Path:
        return self.folder / f"{self.examples}.db"

    def config(self) -> Rows:
        query = "SELECT id, n, 'ordered' AS state FROM orders -- all of them"
        return Rows(f"sqlite://{self.file}", query, "id", every_s=0.05, settle_s=0.0)

    async def begin(self) -> None:
        await super().begin()
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n INTEGER)")

    async def publish(self, numbers: Sequence[int]) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.executemany("INSERT INTO orders (n) VALUES (?)", [(number,) for number in numbers])

    async def stop(self) -> None:
        self.file.rename(self.folder / "away")

    async def start(self) -> None:
        (self.folder / "away").rename(self.file)


# -- servers -------------------------------------------------------------------------------------


class Server:
    """A program that listens on a port of loopback, and keeps its port and its folder when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        raise AssertionError("each has them")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.words(), stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + WAIT_S
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
                return
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.01)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(signal_number)
            self.process.wait(WAIT_S)
            self.process = None


class NatsServer(Server):
    def words(self) -> list[str]:
        program = str(Path(sys.executable).parent / "nats-server")
        listen = ["-a", "127.0.0.1", "-p", str(self.port)]
        return [program, *listen, "-js", "-sd", str(self.folder)]


class RedisServer(Server):
    def words(self) -> list[str]:
        listen = ["--bind", "127.0.0.1", "--port", str(self.port)]
        return ["redis-server", *listen, "--dir", str(self.folder), "--appendonly", "yes", "--save", ""]


class Served(Place):
    """One with a server of that kind."""

    kind: type[Server]

    def __init__(self) -> None:
        super().__init__()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-served")))
        self.server = self.kind(folder)
        self.server.start()
        self.stack.callback(lambda: self.server.stop(signal.SIGKILL))

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)


class Nats(Served):
    kind = NatsServer

    @property
    def stream(self) -> str:
        return f"orders{self.examples}"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.server.port}"

    def config(self) -> NatsStream:
        return NatsStream(self.url, self.stream, "swell", ack_wait_s=1.0)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        client = await nats.connect(self.url)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def begin(self) -> None:
        await super().begin()
        async with self.client() as stream:
            await stream.add_stream(name=self.stream, subjects=[f"{self.stream}.>"])

    async def publish(self, numbers: Sequence[int]) -> None:
        async with self.client() as stream:
            for number in numbers:
                await stream.publish(f"{self.stream}.new", json.dumps({"n": number}).encode())


class RedisPlace(Served):
    kind = RedisServer

    @property
    def stream(self) -> str:
        return f"orders{self.examples}"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/0"

    def config(self) -> RedisStream:
        return RedisStream(self.url, self.stream, "swell", field="body", claim_s=1.0)

    async def publish(self, numbers: Sequence[int]) -> None:
        async with Redis.from_url(self.url) as client:
            for number in numbers:
                await client.xadd(self.stream, {"body": json.dumps({"n": number})})


class Postgres(Place):
    def __init__(self) -> None:
        super().__init__()
        self.socket = self.stack.enter_context(postgres.server())

    @property
    def url(self) -> str:
        return f"postgresql://swell@/postgres?host={self.socket}"

    @property
    def table(self) -> str:
        return f"orders{self.examples}"

    def config(self) -> Rows:
        # Told by a channel: nobody waits for `every_s`.
        query = f"SELECT id, n, now() AS at FROM {self.table};"
        return Rows(self.url, query, "id", every_s=60.0, channel="orders", settle_s=0.0)

    async def ask(self, sql: str, *given: object) -> None:
        connection: Any = await asyncpg.connect(self.url)
        try:
            await connection.execute(sql, *given)
        finally:
            await connection.close()

    async def begin(self) -> None:
        await super().begin()
        await self.ask(f"CREATE TABLE {self.table} (id bigserial PRIMARY KEY, n int)")

    async def publish(self, numbers: Sequence[int]) -> None:
        inserted = f"INSERT INTO {self.table} (n) SELECT n FROM unnest($1::int[]) WITH ORDINALITY AS u(n, i) ORDER BY i"
        await self.ask(f"WITH made AS ({inserted} RETURNING 1) SELECT pg_notify('orders', '') FROM made", [*numbers])

    async def stop(self) -> None:
        await asyncio.to_thread(self._control, "-m", "fast", "stop")

    async def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.socket}"
        await asyncio.to_thread(self._control, "-l", f"{self.socket}/log", "-o", options, "start")

    def _control(self, *words: str) -> None:
        folder = Path(self.socket)
        owner = folder.stat()
        who: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        control = [postgres.programs() / "pg_ctl", "-D", folder / "data", "-w", "-t", "60", *words]
        subprocess.run(control, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)


class Bucket(Place):
    """In moto's store, which keeps what it has while nobody can reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack.enter_context(patch.dict(os.environ, CREDENTIALS))
        self.port = free_port()
        self._serve()
        self.stack.callback(self._end)
        session = botocore.session.Session()
        self.client: Any = session.create_client("s3", region_name="us-east-1", endpoint_url=self.endpoint)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        # All that moto has is the process's.
        return f"orders-{self.port}-{self.examples}"

    def config(self) -> Objects:
        return Objects(f"s3://{self.name}/in/", ".json", every_s=0.1, endpoint_url=self.endpoint)

    async def begin(self) -> None:
        await super().begin()
        await asyncio.to_thread(self.client.create_bucket, Bucket=self.name)

    def put(self, key: str, body: bytes = b"{}") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    async def publish(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            await asyncio.to_thread(self.put, f"in/{number:06}.json", json.dumps({"n": number}).encode())

    def number(self, message: Message) -> int:
        return int(Path(json.loads(message.body)["key"]).stem)

    async def stop(self) -> None:
        await asyncio.to_thread(self._end)

    async def start(self) -> None:
        await asyncio.to_thread(self._serve)

    def _serve(self) -> None:
        # Half a second to import: for these tests alone.
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self.server: Any = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()

    def _end(self) -> None:
        self.server.stop()


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""moto takes any."""


@contextmanager
def place(kind: type[Place]) -> Iterator[Place]:
    """One with its server, which is had from the distribution where it is not installed."""
    needs = {RedisPlace: ("redis-server", "redis-server"), Postgres: ("postgresql", "initdb")}.get(kind)
    with ExitStack() as stack:
        there = needs is None or shutil.which(needs[1]) or (kind is Postgres and postgres.programs().name == "bin")
        if needs is not None and not there:
            stack.enter_context(unpacked(*needs))
        made = kind()
        stack.callback(made.close)
        yield made
