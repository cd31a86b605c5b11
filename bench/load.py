"""How long do answers take at a fixed rate of requests? `python -m bench.load --port … --rate …` prints JSON.

Requests are due by a clock, not by the answers to earlier ones: a server that stalls is charged for every request
that came due meanwhile, and so is this client where it notices late that one was due. One that was not answered 200
has failed, and counts as if it had been waited for until the end. Runs in a process of its own, so that what measures
is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from bench.row import quantile

TICK_S = 0.001
"""How often it is looked whether requests are due; those of one tick are sent together. uvloop counts in whole ms."""
WAIT_S = 2.0
"""How long answers are waited for once the last request was sent. Then is the end, also for what failed before."""


class Load(msgspec.Struct, frozen=True):
    """What was seen. Latencies in ms, of all requests, from the moment each was due: waiting for the client to notice
    and for a free connection included."""

    sent: int
    failed: int
    """Of those, not answered 200: refused, cut off, or not answered until the end."""
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_ms: float
    """99th percentile of how late this client noticed that a request was due. It is in the latencies."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time. Answers must have a Content-Length."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.driver.free.append(self)

    def send(self) -> None:
        self.transport.write(self.driver.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.driver.answered(self, head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, _error: Exception | None) -> None:
        self.driver.lost(self)


class Driver:
    """Sends what is due over the connections that are free."""

    def __init__(self, request: bytes, rate: float, seconds: float) -> None:
        self.request = request
        self.rate = rate
        self.total = int(rate * seconds)
        self.free: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        """When those were due that no connection was free for."""
        self.under_way: dict[Connection, float] = {}
        self.sent = 0
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.failed: list[float] = []
        """When those were due that were answered otherwise, or cut off."""

    def answered(self, connection: Connection, fine: bool) -> None:
        """The request on this connection is over, and the next one may have it."""
        due = self.under_way.pop(connection)
        if fine:
            self.latencies.append(time.perf_counter() - due)
        else:
            self.failed.append(due)
        self.free.append(connection)
        self.send()

    def lost(self, connection: Connection) -> None:
        """There is one connection less."""
        due = self.under_way.pop(connection, None)
        if due is not None:
            self.failed.append(due)
        elif connection in self.free:
            self.free.remove(connection)

    def take_due(self, begun: float, now: float) -> None:
        """All that came due until `now`, of a schedule that began then."""
        while self.sent < self.total and (due := begun + self.sent / self.rate) <= now:
            self.waiting.append(due)
            self.lateness.append(now - due)
            self.sent += 1

    def send(self) -> None:
        """What waits, as far as connections are free."""
        while self.waiting and self.free:
            connection, due = self.free.popleft(), self.waiting.popleft()
            self.under_way[connection] = due
            connection.send()

    async def run(self) -> Load:
        """Until everything was sent, and answered or waited for long enough."""
        begun = time.perf_counter()
        while self.sent < self.total:
            self.take_due(begun, time.perf_counter())
            self.send()
            await asyncio.sleep(TICK_S)
        over = time.perf_counter() + WAIT_S
        for _ in range(int(WAIT_S / TICK_S)):
            if not self.waiting and not self.under_way:
                break
            await asyncio.sleep(TICK_S)
        unanswered = [*self.failed, *self.under_way.values(), *self.waiting]
        return told(self.latencies, [over - due for due in unanswered], self.lateness, self.rate)


def told(latencies: Sequence[float], failed: Sequence[float], lateness: Sequence[float], rate: float) -> Load:
    """All requests in figures, from seconds: how long those took that were answered, and since when the failed ones
    were due at the end."""
    every = [*latencies, *failed]
    return Load(
        sent=len(every),
        failed=len(failed),
        rate=rate,
        p50_ms=quantile(every, 0.5) * 1000,
        p99_ms=quantile(every, 0.99) * 1000,
        max_ms=max(every) * 1000,
        late_ms=quantile(lateness, 0.99) * 1000,
    )


async def measure(port: int, path: str, body: bytes, rate: float, seconds: float, connections: int) -> Load:
    """Open the connections, send at the rate, and say what was seen."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    driver = Driver(request, rate, seconds)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(driver), "127.0.0.1", port)
    seen = await driver.run()
    for connection in (*driver.free, *driver.under_way):
        connection.transport.close()
    return seen


def main() -> None:
    """Measure as told by the arguments; one JSON object on stdout."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    told = parser.parse_args()
    seen = uvloop.run(measure(told.port, told.path, told.body.encode(), told.rate, told.seconds, told.connections))
    sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")


if __name__ == "__main__":
    main()
