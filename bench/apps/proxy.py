"""The cheapest honest proxy in the same language: uvloop, nothing parsed, connections made beforehand.

A read of a client is a request, and is written to a connection behind that is free; what comes back is written to
that client. So a request costs it four socket calls and the loop around them, which is what any gateway pays.
"""

import argparse
import asyncio

import uvloop


class Behind(asyncio.Protocol):
    """One connection to the replica, with one request at a time."""

    def __init__(self, free: list["Behind"]) -> None:
        self.free = free

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.free.append(self)

    def send(self, request: bytes, client: asyncio.Transport) -> None:
        self.client = client
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self.client.is_closing():
            self.client.write(data)
        self.free.append(self)


class Client(asyncio.Protocol):
    """One connection of a caller. More of them than there are behind break, and whoever measures is told."""

    def __init__(self, free: list[Behind]) -> None:
        self.free = free

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.free.pop().send(data, self.transport)


async def serve(port: int, socket: str, connections: int) -> None:
    """Pass on what comes to `port` over as many connections to the unix socket."""
    loop = asyncio.get_running_loop()
    free: list[Behind] = []
    for _ in range(connections):
        await loop.create_unix_connection(lambda: Behind(free), socket)
    server = await loop.create_server(lambda: Client(free), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--connections", type=int, required=True)
    told = parser.parse_args()
    uvloop.run(serve(told.port, told.socket, told.connections))
