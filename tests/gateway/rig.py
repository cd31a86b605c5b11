"""A gateway on real sockets: a control that speaks frames, replicas made with h11, and raw HTTP clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import h11

from swell.gateway.app import Gateway
from swell.gateway.front import Front
from swell.gateway.shared import Shared
from swell.model.limits import UNLIMITED, Limits
from swell.model.request import Prices
from swell.model.workload import Method, Web
from swell.wire.frames import Unpacker, pack
from swell.wire.link import DemandReport, Endpoint, Hello, PoolRow, Requests, Route, Table, TableDelta, Up
from swell.wire.settings import Settings

KEY = "the-key-of-this-server"
CALL_KEY = "the-key-of-its-replicas"
PATIENCE_S = 60.0
BEAT_S = 0.1
"""Instead of the 1 s after which a gateway tells what finished."""


async def until(true: Callable[[], Any], what: str = "") -> None:
    """Wait, within bounds, for something to become true."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.005)


def forget(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class Control:
    """The other end of the control link, and what it was told."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.table = Table(version=1, routes=(), pools=(), prices=Prices())
        self.heard: list[Any] = []
        self.arrived: list[float] = []
        self.hellos = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._peer, self.path)

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()
        self.writers.clear()
        forget(self.path)

    async def _peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unpacker: Unpacker[Up] = Unpacker(Up)
        try:
            while data := await reader.read(65536):
                for message in unpacker.feed(data):
                    self.heard.append(message)
                    self.arrived.append(time.monotonic())
                    if isinstance(message, Hello):
                        self.hellos += 1
                        self.writers.append(writer)
                        writer.write(pack(self.table))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def publish(self, base: int | None = None, **changes: Any) -> None:
        """Send a delta, and keep the table as a whole up to date for who connects later."""
        routes = {f"{r.namespace}/{r.app}/{r.name}": r for r in self.table.routes}
        pools = {p.pool: p for p in self.table.pools}
        routes.update((f"{r.namespace}/{r.app}/{r.name}", r) for r in changes.get("routes", ()))
        pools.update((p.pool, p) for p in changes.get("pools", ()))
        for gone in changes.get("gone_routes", ()):
            del routes[gone]
        for gone in changes.get("gone_pools", ()):
            del pools[gone]
        version = self.table.version + 1
        delta = TableDelta(base=self.table.version if base is None else base, version=version, **changes)
        keys = {key.id: key for key in (*self.table.keys, *changes.get("keys", ()))}
        self.table = Table(
            version, tuple(routes.values()), tuple(pools.values()), self.table.prices, tuple(keys.values())
        )
        for writer in self.writers:
            writer.write(pack(delta))

    def say(self, message: object) -> None:
        """To every gateway."""
        for writer in self.writers:
            writer.write(pack(message))

    def deaf(self, deaf: bool) -> None:
        """Read nothing from now on, or go on reading."""
        for writer in self.writers:
            transport = cast(asyncio.ReadTransport, writer.transport)
            if deaf:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    def records(self) -> list[Any]:
        return [record for message in self.of(Requests) for record in message.records]

    def levels(self, pool: str) -> list[tuple[int, int]]:
        return [(x.held, x.in_flight) for m in self.of(DemandReport) for x in m.levels if x.pool == pool]

    def loads(self, pool: str) -> dict[str, int]:
        """In flight by replica, as told last."""
        told = [x.replicas for m in self.of(DemandReport) for x in m.levels if x.pool == pool]
        return dict(told[-1]) if told else {}


class Exchange:
    """One request as a replica sees it, and the means to answer it well or badly."""

    def __init__(self, replica: Replica, conn: h11.Connection, writer: asyncio.StreamWriter, head: h11.Request) -> None:
        self.replica = replica
        self.conn = conn
        self.writer = writer
        self.method = head.method.decode()
        self.target = head.target.decode()
        self.headers = {k.decode(): v.decode("latin-1") for k, v in head.headers}
        self.body = b""
        self.left = asyncio.Event()

    async def answer(self, status: int = 200, body: bytes = b"{}", **headers: str) -> None:
        fields = {"content-type": "application/json", "content-length": str(len(body)), **_names(headers)}
        if self.replica.native:
            fields |= {"Swell-Cpu-Us": "120", "Swell-Run-Us": "1500"}
        self.send(h11.Response(status_code=status, headers=list(fields.items())))
        if body and self.method != "HEAD":
            self.send(h11.Data(data=body))
        self.send(h11.EndOfMessage())
        await self.writer.drain()

    def send(self, event: Any) -> None:
        data = self.conn.send(event)
        if data:
            self.writer.write(data)

    async def read_body(self, reader: Reader) -> bytes:
        parts = []
        while not isinstance(event := await reader.event(), h11.EndOfMessage):
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("the gateway closed in the middle of a body")
            parts.append(bytes(event.data))
        self.body = b"".join(parts)
        return self.body


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Reader:
    """h11 events from a stream."""

    def __init__(self, conn: h11.Connection, reader: asyncio.StreamReader) -> None:
        self.conn = conn
        self.reader = reader

    async def event(self) -> Any:
        while (event := self.conn.next_event()) is h11.NEED_DATA:
            self.conn.receive_data(await self.reader.read(65536))
        return event


Behaviour = Callable[["Exchange", "Reader"], Awaitable[None]]


async def echo(exchange: Exchange, reader: Reader) -> None:
    """Answer with the body."""
    await exchange.answer(body=await exchange.read_body(reader))


def echo_after(gate: asyncio.Event) -> Behaviour:
    """Answer with the body once the gate is open."""

    async def gated(exchange: Exchange, reader: Reader) -> None:
        await gate.wait()
        await echo(exchange, reader)

    return gated


async def stream(exchange: Exchange, reader: Reader) -> None:
    """Three items, each sent by itself, with the meters as trailers."""
    await exchange.read_body(reader)
    exchange.send(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
    for n in range(3):
        exchange.send(h11.Data(data=b"data: %d\n\n" % n))
        await exchange.writer.drain()
        await asyncio.sleep(0.01)
    meters = [("swell-cpu-us", "77"), ("swell-run-us", "9000"), ("x-sum", "3")]
    exchange.send(h11.EndOfMessage(headers=meters))


class Replica:
    """A server that speaks the replica contract; `behaviour` is what it does with a request."""

    def __init__(self, name: str, path: str, behaviour: Behaviour = echo, native: bool = True) -> None:
        self.name = name
        self.path = path
        self.behaviour = behaviour
        self.native = native
        self.seen: list[Exchange] = []
        self.connections = 0
        self.open = 0
        self.running = 0
        self.most_running = 0
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, f"unix:{self.path}", (("fork", 4.1), ("listen", 0.2)))

    async def start(self) -> Replica:
        self.server = await asyncio.start_unix_server(self._peer, self.path)
        return self

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in [*self.writers]:
            writer.transport.abort()
        forget(self.path)

    async def _peer(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.add(writer)
        conn = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
        reader = Reader(conn, stream)
        try:
            while isinstance(head := await reader.event(), h11.Request):
                exchange = Exchange(self, conn, writer, head)
                self.seen.append(exchange)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    await self.behaviour(exchange, reader)
                finally:
                    self.running -= 1
                if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                    break
                conn.start_next_cycle()
        except (ConnectionError, h11.RemoteProtocolError):
            pass
        finally:
            self.open -= 1
            self.writers.discard(writer)
            writer.close()


class Answer:
    """What a client was told."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes, trailers: dict[str, str]) -> None:
        self.status = status
        self.names = [name for name, _ in headers]
        self.headers = dict(headers)
        self.body = body
        self.trailers = trailers

    @property
    def error(self) -> dict[str, str]:
        error: dict[str, str] = json.loads(self.body)["error"]
        return error


class Browser:
    """A client connection that sends what it is told to, and reads answers with h11."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.conn = h11.Connection(h11.CLIENT)
        self.interim: list[int] = []

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def call(self, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> Answer:
        self.send(request(path, body, method, **headers))
        return await self.answer(method)

    async def head(self, method: str = "POST") -> h11.Response:
        """The head of the next answer."""
        if self.conn.our_state is h11.DONE:
            self.conn.start_next_cycle()
        self.conn.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self.conn.send(h11.EndOfMessage())
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            assert isinstance(event, h11.InformationalResponse), event
            self.interim.append(event.status_code)

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer, whole."""
        head = await self.head(method)
        parts = []
        while isinstance(event := await self._event(), h11.Data):
            parts.append(bytes(event.data))
        assert isinstance(event, h11.EndOfMessage), event
        headers = [(k.decode(), v.decode()) for k, v in head.headers.raw_items()]
        lowered = [(name.lower(), value) for name, value in headers]
        trailers = {k.decode(): v.decode() for k, v in event.headers}
        return Answer(head.status_code, lowered, b"".join(parts), trailers)

    async def data(self) -> Any:
        """The next event of an answer under way."""
        return await self._event()

    async def _event(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await Reader(self.conn, self.reader).event()

    async def rest(self) -> bytes:
        """All bytes to the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()


def request(path: str, body: bytes = b"", method: str = "POST", **headers: str) -> bytes:
    fields = {"host": "127.0.0.1", **({"content-length": str(len(body))} if body or method == "POST" else {})}
    fields |= _names(headers)
    return (
        f"{method} {path} HTTP/1.1\r\n{''.join(f'{k}: {v}{chr(13)}{chr(10)}' for k, v in fields.items())}\r\n".encode()
        + body
    )


class Rig:
    """One gateway with everything around it."""

    def __init__(self, **settings: Any) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        (self.home / "run").mkdir(mode=0o700)
        self.settings = Settings(home=str(self.home), **settings)
        self.control = Control(str(self.settings.paths.control_socket))
        self.gateway = Gateway(settings=self.settings, key=KEY, call_key=CALL_KEY, incarnation="g1")
        self.gateway.beat_s = BEAT_S
        self.replicas: list[Replica] = []
        self.browsers: list[Browser] = []
        self.port = 0
        self.serving: asyncio.Task[None] | None = None

    async def start(self, host: str = "127.0.0.1", control: bool = True, wait_s: float = 0.0) -> None:
        """`wait_s`: how long clients wait for a table where there is no control."""
        if control:
            await self.control.start()
        else:
            self.gateway.table_wait_s = wait_s
        listener = socket.create_server((host, 0))
        self.port = listener.getsockname()[1]
        self.serving = asyncio.get_running_loop().create_task(self.gateway.serve(listener))
        if control:
            await until(lambda: self.control.hellos, "the gateway's hello")

    async def stop(self) -> None:
        for browser in self.browsers:
            browser.close()
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)
        for replica in self.replicas:
            await replica.stop()
        if self.control.server is not None:
            await self.control.stop()
        shutil.rmtree(self.home)

    async def browser(self) -> Browser:
        browser = Browser(*await asyncio.open_connection("127.0.0.1", self.port))
        self.browsers.append(browser)
        return browser

    async def replica(self, behaviour: Behaviour = echo, native: bool = True, start: bool = True) -> Replica:
        name = f"r1-{len(self.replicas)}"
        replica = Replica(name, str(self.home / f"{name}.s"), behaviour, native)
        self.replicas.append(replica)
        return await replica.start() if start else replica

    async def deploy(self, *replicas: Replica, name: str = "fn", methods: tuple[Method, ...] = (), **row: Any) -> str:
        """Make a workload `default/app/{name}` known with these replicas; returns its pool's key."""
        key = f"default/app/{name}"
        limits = row.pop("limits", UNLIMITED)
        pool = pool_row(name, *replicas, **row)
        self.control.publish(routes=(route(name, *methods, pool=pool.pool, limits=limits),), pools=(pool,))
        await self.seen()
        assert key in pool.pool
        return pool.pool

    async def endpoints(self, name: str, *replicas: Replica, **row: Any) -> None:
        """Change the replicas of a workload."""
        self.control.publish(pools=(pool_row(name, *replicas, **row),))

    async def seen(self) -> None:
        """Wait until the gateway has taken in the newest table."""
        await until(lambda: self.front.deployed.version == self.control.table.version, "the table")

    # -- what the gateway has inside ----------------------------------------------------------

    @property
    def front(self) -> Front:
        front = self.gateway._front
        assert front is not None
        return front

    @property
    def shared(self) -> Shared:
        return self.front.shared

    @property
    def timers(self) -> int:
        """What the gateway still waits for."""
        return sum(map(len, self.shared.wheel._slots.values()))


def route(name: str, *methods: Method, pool: str = "", limits: Limits = UNLIMITED) -> Route:
    pool = pool or pool_row(name).pool
    is_class = any(m.name != name for m in methods)
    return Route("default", "app", name, pool, methods or (Method(name),), is_class, limits)


def pool_row(name: str, *replicas: Replica, **changes: Any) -> PoolRow:
    row: dict[str, Any] = {
        "pool": f"default/app/{name}@rv-000000000001",
        "max_inputs": 100,
        "timeout_s": 30.0,
        "memory_mib": 512,
        "single_use": False,
        "native": True,
        "replicas": tuple(replica.endpoint for replica in replicas),
    }
    return PoolRow(**{**row, **changes})


def web(label: str, name: str = "fn", **more: Any) -> Method:
    return Method(name, web=Web(kind=more.pop("kind", "asgi"), label=label, **more))
