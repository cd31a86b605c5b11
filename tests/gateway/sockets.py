"""WebSockets through the rig: a foreign server of another library, and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rig import PATIENCE_S, Exchange, Rig, until, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from swell.wire.link import Endpoint
from swell.wire.websocket import accept_key

Talk = Callable[[ServerConnection], Awaitable[None]]
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY_LINE = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HANDSHAKE = b"GET /web/chat/x HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + KEY_LINE + b"\r\n"


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


class Server:
    """A foreign process: another library's server of WebSockets."""

    def __init__(self, rig: Rig, talk: Talk) -> None:
        self.name = f"r1-ws{id(self)}"
        self.path = str(rig.home / f"{self.name[-6:]}.s")
        self.talk = talk
        self.ended: list[tuple[int, str]] = []
        self.server: Any = None
        self.port = 0

    async def start(self) -> Server:
        async def each(socket: ServerConnection) -> None:
            try:
                await self.talk(socket)
            except ConnectionClosed:
                pass
            finally:
                await socket.close()
                self.ended.append((socket.close_code or 0, socket.close_reason or ""))

        self.server = await serve(each, "127.0.0.1", 0, max_size=None, close_timeout=1)
        self.port = next(iter(self.server.sockets)).getsockname()[1]
        return self

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, f"tcp:127.0.0.1:{self.port}")

    def kill(self) -> None:
        for connection in self.server.connections:
            connection.transport.abort()


async def chat(rig: Rig, talk: Talk = echo, **row: Any) -> Server:
    server = await Server(rig, talk).start()
    await rig.deploy(server, methods=(web("chat", kind="server", port=1),), native=False, **row)  # type: ignore[arg-type]
    return server


def at(rig: Rig, path: str = "/web/chat/x", **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{rig.port}{path}", open_timeout=PATIENCE_S, max_size=None, **options)


async def ends(client: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE_S):
        await client.wait_closed()
    return client.close_code or 0, client.close_reason or ""


async def record(rig: Rig, **expected: Any) -> Any:
    def found() -> list[Any]:
        return [r for r in rig.control.records() if all(getattr(r, k) == v for k, v in expected.items())]

    await until(found, f"a record with {expected} among {rig.control.records()}")
    return found()[-1]


async def agree(exchange: Exchange) -> None:
    key = accept_key(exchange.headers["sec-websocket-key"].encode())
    lines = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + key]
    exchange.writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    await exchange.writer.drain()
